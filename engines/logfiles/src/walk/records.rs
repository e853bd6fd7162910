//! Records one after the other, as in the published formats.

use super::{Search, Step, Walker, to_usize};
use crate::bucket::BucketNumber;
use crate::record::{Fault, Framing, Head, MAX_VALUE};

/// What the bytes behind a record say about it.
pub(super) enum Proof {
    /// A record begins there, or the file ends: it has the length that was written.
    Good,
    /// Nothing that was written as a record begins there.
    Bad,
    /// That many bytes behind the record are needed, which the file has.
    Need(usize),
}

impl Walker {
    /// The hot path. None: what comes next is something else.
    pub(super) fn records_in<const V1: bool>(
        &mut self,
        window: &[u8],
        out: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> Option<Step> {
        let framing = if V1 { Framing::V1 } else { Framing::Plain };
        let mut rest = window;
        let mut left = self.left();
        let step = loop {
            if left == 0 {
                break Some(Step::End);
            }
            let Some(head) = Head::read(framing, rest) else {
                if left < framing.head() as u64 {
                    self.search = Some(Search::new(self.end - left, Fault::Cut.why()));
                    break None;
                }
                break Some(Step::Need(framing.head()));
            };
            let space = left - framing.head() as u64;
            if let Some(fault) = head.fault(self.number, space) {
                self.search = Some(Search::new(self.end - left, fault.why()));
                break None;
            }
            // At most MAX_VALUE: the head was checked.
            let size = framing.head() + to_usize(head.length);
            let Some((record, behind)) = rest.split_at_checked(size) else { break Some(Step::Need(size)) };
            let space = space - head.length;
            if !V1 {
                match proof(framing, self.number, behind, space) {
                    Proof::Good => {}
                    Proof::Bad => {
                        let why = "behind a record begins no other: its length is wrong, or what follows is damaged";
                        self.search = Some(Search::new(self.end - left, why));
                        break None;
                    }
                    Proof::Need(bytes) => break Some(Step::Need(size + bytes)),
                }
            }
            if self.wants(head.key) && !out(head.key, &record[framing.head()..]) {
                break Some(Step::Paused);
            }
            rest = behind;
            left = space;
        };
        self.offset = self.end - left;
        step
    }
}

/// Looks at what is behind a record: some bytes of the `left` bytes up to the end of the file.
///
/// A damaged record behind an intact one shall not take that with it: enough of its head must be right, or it is one bit
/// off and leads to a third one.
pub(super) fn proof(framing: Framing, number: BucketNumber, behind: &[u8], left: u64) -> Proof {
    let head_len = framing.head();
    let wanted = to_usize(left.min(head_len as u64));
    if behind.len() < wanted {
        return Proof::Need(wanted);
    }
    if wanted < head_len {
        return if wanted == 0 || begins_a_key(number, behind) { Proof::Good } else { Proof::Bad };
    }
    let Some(head) = Head::read(framing, behind) else { return Proof::Bad };
    if number.holds(head.key) && (head.key | head.length) != 0 {
        return Proof::Good;
    }
    let space = left - head_len as u64;
    let one_off = (u64::from(BucketNumber::of(head.key)) ^ u64::from(number)).is_power_of_two();
    if !one_off || head.length > space.min(MAX_VALUE as u64) {
        return Proof::Bad;
    }
    let size = head_len + to_usize(head.length);
    let space = space - head.length;
    let wanted = size + to_usize(space.min(head_len as u64));
    let Some(third) = behind.get(size..wanted) else { return Proof::Need(wanted) };
    match Head::read(framing, third) {
        Some(head) if number.holds(head.key) && (head.key | head.length) != 0 => Proof::Good,
        Some(_) => Proof::Bad,
        None if third.is_empty() || begins_a_key(number, third) => Proof::Good,
        None => Proof::Bad,
    }
}

/// Whether the last bytes of a file, fewer than a head, are the front of a head with a key of the bucket. Fewer than 4
/// say too little.
fn begins_a_key(number: BucketNumber, bytes: &[u8]) -> bool {
    let length = bytes.len().min(8);
    let mut key = number.first_key().to_le_bytes();
    let (Some(bytes), Some(front)) = (bytes.get(..length), key.get_mut(..length)) else { return false };
    front.copy_from_slice(bytes);
    length >= 4 && number.holds(u64::from_le_bytes(key))
}
