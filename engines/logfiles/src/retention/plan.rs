//! Which buckets are old enough for what.

use crate::bucket::BucketNumber;
use crate::catalogue::Entry;
use crate::config::Unit;
use crate::config::rules::Rules;
use crate::format::Format;

const SECONDS_PER_DAY: u64 = 86_400;

/// What the configuration says about old buckets.
#[derive(Debug, Clone)]
pub struct Policy {
    /// From which age on, in days, buckets are compressed; `None`: never.
    pub compress_after: Rules<Option<u32>>,
    /// From which age on, in days, buckets are deleted; `None`: never.
    pub delete_after: Rules<Option<u32>>,
    /// What keys count.
    pub unit: Unit,
    /// How hard is compressed (zstd level, 1 to 19).
    pub level: i32,
}

/// The ages that count for a channel, in the unit of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// From here on a bucket is compressed.
    pub compress: Option<u64>,
    /// From here on a bucket is deleted.
    pub delete: Option<u64>,
    /// From here on a bucket of format 2 is written in large blocks, with an index.
    pub pack: u64,
}

impl Policy {
    /// The ages that count for a channel.
    #[must_use]
    pub fn ages(&self, channel: &str) -> Ages {
        let day = SECONDS_PER_DAY.saturating_mul(self.unit.per_second());
        let age = |rules: &Rules<Option<u32>>| {
            let days = rules.of(channel).copied().flatten().filter(|days| *days > 0)?;
            Some(day.saturating_mul(u64::from(days)))
        };
        Ages { compress: age(&self.compress_after), delete: age(&self.delete_after), pack: day }
    }

    /// A time in the unit of keys.
    #[must_use]
    pub fn now(&self, millis: i64) -> u64 {
        let millis = u128::try_from(millis).unwrap_or_default();
        u64::try_from(millis * u128::from(self.unit.per_second()) / 1000).unwrap_or(u64::MAX)
    }
}

/// What is to be done with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write it in format 2.
    Compress,
    /// Write it in large blocks with an index, if it is not written so.
    Pack,
    /// Remove it.
    Delete,
}

/// How long ago the last key of a bucket was; 0 for one that is in the future, or that is no time after 1970.
pub(super) fn age(number: BucketNumber, now: u64) -> u64 {
    if i64::try_from(number.last_key()).is_ok() { now.saturating_sub(number.last_key()) } else { 0 }
}

/// What is to be done with buckets of one channel, at a time in the unit of keys.
#[must_use]
pub fn plan(buckets: &[(BucketNumber, Entry)], now: u64, ages: &Ages) -> Vec<(BucketNumber, Action)> {
    let action = |number: BucketNumber, entry: &Entry| {
        let age = age(number, now);
        if ages.delete.is_some_and(|delete| age >= delete) {
            return Some(Action::Delete);
        }
        match entry.format {
            Some(Format::V2) => (age >= ages.pack).then_some(Action::Pack),
            _ if entry.length == 0 => None,
            _ => ages.compress.is_some_and(|compress| age >= compress).then_some(Action::Compress),
        }
    };
    buckets.iter().filter_map(|(number, entry)| Some((*number, action(*number, entry)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = SECONDS_PER_DAY;

    fn rules(rules: &[(&str, Option<u32>)]) -> Rules<Option<u32>> {
        rules.iter().map(|(prefix, days)| ((*prefix).to_owned(), *days)).collect()
    }

    #[test]
    fn the_longest_beginning_of_a_name_decides() {
        let policy = Policy {
            compress_after: rules(&[("", Some(90)), ("raw_", Some(1)), ("raw_keep", None)]),
            delete_after: rules(&[("raw_", Some(397))]),
            unit: Unit::Millis,
            level: 3,
        };
        let ages = |channel| policy.ages(channel);
        let day = DAY * 1000;
        assert_eq!(ages("log"), Ages { compress: Some(90 * day), delete: None, pack: day });
        assert_eq!(ages("raw_a"), Ages { compress: Some(day), delete: Some(397 * day), pack: day });
        assert_eq!(ages("raw_keep_a"), Ages { compress: None, delete: Some(397 * day), pack: day });
        assert_eq!(policy.now(1500), 1500);
        assert_eq!(Policy { unit: Unit::Nanos, ..policy.clone() }.now(1500), 1_500_000_000);
        assert_eq!(Policy { unit: Unit::Seconds, ..policy.clone() }.now(1999), 1);
        assert_eq!(policy.now(-5), 0);
    }

    #[test]
    fn a_bucket_is_as_old_as_its_last_key() {
        let ages = Ages { compress: Some(10 * DAY), delete: Some(20 * DAY), pack: DAY };
        let number = BucketNumber::of(1000 * DAY);
        let last = number.last_key();
        let entry = |format| Entry { format, counted: true, length: 100, records: 1, bytes: 1 };
        let (v1, v2) = (entry(Some(Format::V1)), entry(Some(Format::V2)));
        let at = |entry, age| plan(&[(number, entry)], last + age, &ages).first().map(|(_, action)| *action);
        assert_eq!(at(v1, 10 * DAY - 1), None);
        assert_eq!(at(v1, 10 * DAY), Some(Action::Compress));
        assert_eq!(at(entry(None), 10 * DAY), Some(Action::Compress));
        assert_eq!(at(Entry::EMPTY, 10 * DAY), None);
        assert_eq!(at(v1, 20 * DAY), Some(Action::Delete));
        assert_eq!(at(Entry::EMPTY, 20 * DAY), Some(Action::Delete));
        assert_eq!(at(v2, DAY - 1), None);
        assert_eq!(at(v2, 10 * DAY), Some(Action::Pack));
        let never = Ages { compress: None, delete: None, pack: DAY };
        assert_eq!(plan(&[(number, v1)], u64::MAX >> 1, &never), []);
    }

    #[test]
    fn what_is_no_time_is_never_old() {
        let ages = Ages { compress: Some(1), delete: Some(1), pack: 1 };
        let entry = Entry { format: Some(Format::V1), counted: true, length: 100, records: 1, bytes: 1 };
        for key in [1 << 63, u64::MAX] {
            assert_eq!(plan(&[(BucketNumber::of(key), entry)], u64::MAX, &ages), []);
        }
        assert_eq!(plan(&[(BucketNumber::of(5000), entry)], 4000, &ages), []);
    }
}
