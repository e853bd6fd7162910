//! Where a read of one node is, so that another connection can take it up exactly there.
//!
//! A node sends bucket by bucket, each of them 4,096 timestamps, and the records of a bucket in the order in which they
//! were written. To go on, the bucket that was under way is asked for again from its beginning, and so many of its records
//! are left out as have come already. That they are the same ones is checked.

use overstory_swarm::wire::Reader;

/// Bits of a timestamp that are free within a bucket.
const BUCKET_BITS: u32 = 12;

/// Timestamps in the order in which a node sends them: by neo that of signed numbers, by legacy that of unsigned ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranks {
    Signed,
    Unsigned,
}

impl Ranks {
    /// The place of a timestamp in the order.
    #[inline]
    pub(super) const fn of(self, timestamp: i64) -> u64 {
        match self {
            Self::Signed => timestamp.cast_unsigned() ^ (1 << 63),
            Self::Unsigned => timestamp.cast_unsigned(),
        }
    }

    /// The timestamp at a place.
    #[inline]
    pub(super) const fn timestamp(self, rank: u64) -> i64 {
        match self {
            Self::Signed => (rank ^ (1 << 63)).cast_signed(),
            Self::Unsigned => rank.cast_signed(),
        }
    }
}

/// The bucket of a rank.
#[inline]
pub(super) const fn bucket(rank: u64) -> u64 {
    rank >> BUCKET_BITS
}

/// Something that a node must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misplaced {
    #[error("a record that was not asked for")]
    Outside,
    #[error("the records that came before the connection broke are not the same any more")]
    Changed,
}

/// How far a range is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    low: u64,
    high: u64,
    /// The bucket of the last record, and what has come of it.
    now: Option<Seen>,
    /// What is to be left out of the first bucket.
    skip: Option<Seen>,
    /// The node has kept to the order of buckets so far.
    in_order: bool,
}

/// Records of a bucket, from its first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    bucket: u64,
    records: u64,
    /// Tells other records from these.
    mark: u64,
}

impl Seen {
    #[inline]
    fn add(&mut self, rank: u64, value: &[u8]) {
        let head = match Reader::new(value).u64() {
            Ok(head) => head,
            Err(_) => value.iter().fold(0, |head, &byte| head << 8 | u64::from(byte)),
        };
        for part in [rank, value.len() as u64, head] {
            self.mark = (self.mark ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.records += 1;
    }
}

impl Place {
    /// The beginning of a range of ranks.
    pub(super) const fn new(low: u64, high: u64) -> Self {
        Self { low, high, now: None, skip: None, in_order: true }
    }

    /// What is to be asked for now.
    pub(super) fn rest(&self) -> (u64, u64) {
        let now = self.now.or(self.skip).map_or(0, |seen| seen.bucket << BUCKET_BITS);
        (self.low.max(now), self.high)
    }

    /// The connection broke: whatever comes next belongs to a new request for [`Self::rest`]. False if that cannot be.
    pub(super) fn again(&mut self) -> bool {
        if let Some(now) = self.now.take() {
            // What had been left out so far is a part of what is to be left out.
            let left_out = self.skip.is_some_and(|skip| skip.bucket == now.bucket && now.records < skip.records);
            if !left_out {
                self.skip = Some(now);
            }
        }
        self.in_order
    }

    /// Notes a record; says whether it is one that has not come before.
    #[inline]
    pub(super) fn take(&mut self, rank: u64, value: &[u8]) -> Result<bool, Misplaced> {
        if rank < self.low || rank > self.high {
            return Err(Misplaced::Outside);
        }
        let bucket = bucket(rank);
        let now = match &mut self.now {
            Some(now) if now.bucket == bucket => now,
            now => {
                if now.is_some_and(|now| bucket < now.bucket) {
                    self.in_order = false;
                }
                if let Some(skip) = self.skip
                    && (now.is_none_or(|now| now.records < skip.records) && bucket != skip.bucket)
                {
                    return Err(Misplaced::Changed);
                }
                now.insert(Seen { bucket, records: 0, mark: 0 })
            }
        };
        now.add(rank, value);
        let Some(skip) = self.skip else { return Ok(true) };
        if now.records < skip.records {
            return Ok(false);
        }
        if *now != skip {
            return Err(Misplaced::Changed);
        }
        self.skip = None;
        Ok(false)
    }

    /// The node says that there is nothing more.
    pub(super) const fn end(&self) -> Result<(), Misplaced> {
        if self.skip.is_some() { Err(Misplaced::Changed) } else { Ok(()) }
    }

    /// Whether the buckets have come in order.
    pub(super) const fn in_order(&self) -> bool {
        self.in_order
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(place: &mut Place, records: &[(u64, &[u8])]) -> Vec<Result<bool, Misplaced>> {
        records.iter().map(|(rank, value)| place.take(*rank, value)).collect()
    }

    #[test]
    fn timestamps_have_the_order_of_their_protocol() {
        for timestamp in [i64::MIN, -1, 0, 1, i64::MAX] {
            for ranks in [Ranks::Signed, Ranks::Unsigned] {
                assert_eq!(ranks.timestamp(ranks.of(timestamp)), timestamp);
            }
        }
        assert!(Ranks::Signed.of(-1) < Ranks::Signed.of(0) && Ranks::Unsigned.of(-1) > Ranks::Unsigned.of(0));
        // A bucket is the same in both.
        assert_eq!(bucket(Ranks::Signed.of(4095)), bucket(Ranks::Signed.of(0)));
        assert_ne!(bucket(Ranks::Signed.of(4096)), bucket(Ranks::Signed.of(4095)));
    }

    #[test]
    fn what_has_come_is_left_out_once_the_bucket_is_read_again() {
        let mut place = Place::new(10, u64::MAX);
        let records: [(u64, &[u8]); 4] = [(20, b"a"), (5000, b"b"), (4900, b"c"), (5000, b"b")];
        assert_eq!(take(&mut place, &records), [Ok(true); 4]);
        assert!(place.again());
        assert_eq!(place.rest(), (4096, u64::MAX));
        // It breaks once more before it has come so far.
        assert_eq!(take(&mut place, &records[1..3]), [Ok(false); 2]);
        assert!(place.again());
        assert_eq!(place.rest(), (4096, u64::MAX));
        assert_eq!(take(&mut place, &records[1..]), [Ok(false); 3]);
        assert_eq!(take(&mut place, &[(5001, b"new"), (9000, b"next")]), [Ok(true); 2]);
        assert_eq!(place.end(), Ok(()));
    }

    #[test]
    fn other_records_in_the_place_of_those_that_came_are_noticed() {
        let place = || {
            let mut place = Place::new(0, u64::MAX);
            assert_eq!(take(&mut place, &[(1, b"a"), (2, b"b")]), [Ok(true); 2]);
            assert!(place.again());
            place
        };
        assert_eq!(take(&mut place(), &[(1, b"a"), (2, b"x")]), [Ok(false), Err(Misplaced::Changed)]);
        assert_eq!(take(&mut place(), &[(1, b"a"), (3, b"b")]), [Ok(false), Err(Misplaced::Changed)]);
        assert_eq!(take(&mut place(), &[(1, b"a"), (5000, b"b")]), [Ok(false), Err(Misplaced::Changed)]);
        assert_eq!(take(&mut place(), &[(5000, b"b")]), [Err(Misplaced::Changed)]);
        assert_eq!(place().end(), Err(Misplaced::Changed));
    }

    #[test]
    fn a_node_that_does_not_keep_to_the_order_cannot_be_gone_on_with() {
        let mut place = Place::new(0, 20_000);
        assert_eq!(take(&mut place, &[(5000, b"a"), (1, b"b")]), [Ok(true); 2]);
        assert!(!place.in_order() && !place.again());
        assert_eq!(Place::new(5, 7).take(4, b""), Err(Misplaced::Outside));
        assert_eq!(Place::new(5, 7).take(8, b""), Err(Misplaced::Outside));
    }

    proptest! {
        #[test]
        fn wherever_it_breaks_each_record_comes_once(
            mut buckets in prop::collection::vec((0u64..4, prop::collection::vec((0u64..4096, 0u8..3), 0..6)), 0..4),
            breaks in prop::collection::vec(0usize..8, 0..6),
        ) {
            buckets.sort_by_key(|(bucket, _)| *bucket);
            let all: Vec<(u64, Vec<u8>)> = buckets
                .iter()
                .flat_map(|(bucket, records)| records.iter().map(move |(key, value)| (bucket << 12 | key, vec![*value])))
                .collect();
            let mut place = Place::new(0, u64::MAX);
            let mut got = Vec::new();
            let mut breaks = breaks.into_iter();
            loop {
                let (low, _) = place.rest();
                let limit = breaks.next().unwrap_or(usize::MAX);
                let mut sent = 0;
                for (rank, value) in all.iter().filter(|(rank, _)| *rank >= low).take(limit) {
                    if place.take(*rank, value).unwrap() {
                        got.push((*rank, value.clone()));
                    }
                    sent += 1;
                }
                if sent < limit {
                    break;
                }
                prop_assert!(place.again());
            }
            prop_assert_eq!(place.end(), Ok(()));
            prop_assert_eq!(got, all);
        }
    }
}
