//! Damage that was found while reading: told once, kept until the file is whole again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use overstory_model::State;
use overstory_node::inspect::Finding;

use crate::bucket::BucketNumber;
use crate::recovery::{Lost, Missing};

/// So many places are remembered.
const KEPT: usize = 100;

/// A place of a bucket that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The channel.
    pub channel: Arc<str>,
    /// The bucket.
    pub number: BucketNumber,
    /// Where in its file.
    pub offset: u64,
    /// How many bytes were passed over.
    pub bytes: u64,
    /// What is wrong there.
    pub why: &'static str,
}

/// The places that are known; the node's thread owns them.
#[derive(Debug, Default)]
pub struct Damages {
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    places: VecDeque<Place>,
    total: u64,
}

#[derive(Debug)]
struct Place {
    damage: Damage,
    /// That much is not in the file any more.
    lost: Option<Lost>,
}

impl Damages {
    /// Takes note of damage. One place counts once.
    pub fn report(&self, damage: Damage) {
        self.add(damage, None);
    }

    /// Takes note of what is gone from a file. It is told until the bucket is [forgotten](Self::forget).
    pub fn missing(&self, missing: &Missing) {
        let Missing { channel, number, offset, bytes, records, why } = missing;
        let lost = Lost { bytes: *bytes, records: *records };
        let (channel, number, offset) = (Arc::from(&**channel), *number, *offset);
        self.add(Damage { channel, number, offset, bytes: *bytes, why }, Some(lost));
    }

    fn add(&self, damage: Damage, lost: Option<Lost>) {
        let mut known = self.known.borrow_mut();
        let same = |Place { damage: place, lost: before }: &Place| {
            place.number == damage.number
                && place.offset == damage.offset
                && place.channel == damage.channel
                && before.is_some() == lost.is_some()
        };
        if known.places.iter().any(same) {
            return;
        }
        tracing::error!(
            target: "node.storage",
            channel = &*damage.channel,
            bucket = %damage.number,
            offset = damage.offset,
            bytes = damage.bytes,
            why = damage.why,
            lost = lost.map(|lost| lost.to_string()),
            "a bucket is damaged"
        );
        known.total += 1;
        if known.places.len() == KEPT {
            known.places.pop_front();
        }
        known.places.push_back(Place { damage, lost });
    }

    /// Forgets what could not be read of a bucket that is another file now. What is missing stays so.
    pub(crate) fn changed(&self, channel: &str, number: BucketNumber) {
        let of = |place: &Place| place.damage.number == number && &*place.damage.channel == channel;
        self.known.borrow_mut().places.retain(|place| place.lost.is_some() || !of(place));
    }

    /// Forgets a bucket that was repaired, written anew or removed, or that could be read from end to end.
    pub fn forget(&self, channel: &str, number: BucketNumber) {
        let of = |place: &Place| place.damage.number == number && &*place.damage.channel == channel;
        self.known.borrow_mut().places.retain(|place| !of(place));
    }

    /// Forgets a channel that was removed.
    pub fn forget_channel(&self, channel: &str) {
        self.known.borrow_mut().places.retain(|place| &*place.damage.channel != channel);
    }

    /// The places that are remembered, oldest first.
    #[must_use]
    pub fn places(&self) -> Vec<Damage> {
        self.known.borrow().places.iter().map(|place| place.damage.clone()).collect()
    }

    /// How many were found since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.known.borrow().total
    }

    /// What is wrong, with file and offset of the last place.
    pub fn findings(&self, out: &mut Vec<Finding>) {
        let known = self.known.borrow();
        if let Some(last) = known.places.back() {
            let (count, Damage { channel, number, offset, bytes, why }) = (known.places.len(), &last.damage);
            let how_much = last.lost.map_or_else(|| format!("{bytes} bytes"), |lost| lost.to_string());
            let text = format!("{count} damaged places; {channel}/{number} at {offset}, {how_much}: {why}");
            out.push(Finding { check: "corruption", state: State::Major, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(offset: u64) -> Damage {
        Damage { channel: Arc::from("a"), number: BucketNumber::of(0x1000), offset, bytes: 7, why: "broken" }
    }

    #[test]
    fn a_place_is_told_once_and_forgotten_when_the_file_is_whole_again() {
        let damages = Damages::default();
        damages.report(damage(16));
        damages.report(damage(16));
        damages.report(damage(99));
        assert_eq!((damages.total(), damages.places().len()), (2, 2));
        let mut findings = Vec::new();
        damages.findings(&mut findings);
        assert!(findings[0].text.contains("a/0000000000/001 at 99, 7 bytes: broken"), "{}", findings[0].text);
        damages.forget("b", BucketNumber::of(0x1000));
        damages.forget("a", BucketNumber::of(0x2000));
        assert_eq!(damages.places().len(), 2);
        damages.forget("a", BucketNumber::of(0x1000));
        assert_eq!((damages.total(), damages.places().len()), (2, 0));
    }

    #[test]
    fn what_is_missing_is_told_until_the_bucket_is_written_anew() {
        let damages = Damages::default();
        let number = BucketNumber::of(0x1000);
        let why = crate::recovery::SHORTER;
        let missing = Missing { channel: "a".into(), number, offset: 16, bytes: 500, records: Some(7), why };
        damages.report(damage(16));
        damages.missing(&missing);
        damages.missing(&missing);
        damages.changed("a", number);
        let mut findings = Vec::new();
        damages.findings(&mut findings);
        let expected = "1 damaged places; a/0000000000/001 at 16, 500 bytes and about 7 records are missing: the file is \
            shorter than it was";
        assert_eq!((damages.total(), &*findings[0].text), (2, expected));
        damages.forget("a", number);
        assert!(damages.places().is_empty());
    }

    #[test]
    fn only_the_last_places_are_kept() {
        let damages = Damages::default();
        (0..1000).for_each(|offset| damages.report(damage(offset)));
        assert_eq!((damages.total(), damages.places().len()), (1000, KEPT));
        assert_eq!(damages.places()[0].offset, 900);
    }
}
