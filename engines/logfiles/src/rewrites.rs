//! Which buckets became other files: so that nobody reads a file by what is known of the one before.
//!
//! Who puts another file in place of a bucket's says so first. Who opens a file asks afterwards whether that was said since
//! it was told what the file holds: if not, it has the file that it was told of.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bucket::BucketNumber;

/// How many are remembered; about older ones the answer is always yes. 8 bytes each.
const REMEMBERED: usize = 64 << 10;

/// The list, which the node's thread, the writer and the readers share.
#[derive(Debug, Default)]
pub(crate) struct Rewrites {
    count: AtomicU64,
    /// What the last ones were of, oldest first.
    recent: Mutex<VecDeque<u64>>,
}

impl Rewrites {
    /// Says that a bucket, or with none a whole channel, becomes another file now or is removed. How many there were.
    pub(crate) fn begin(&self, channel: &str, number: Option<BucketNumber>) -> u64 {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(name(channel, number));
        // Under the lock: the count and the list fit together.
        self.count.fetch_add(1, Ordering::Release) + 1
    }

    fn since(&self, seen: u64, channel: &str, number: BucketNumber) -> bool {
        // Usually there were none at all.
        if self.count.load(Ordering::Acquire) == seen {
            return false;
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let later = self.count.load(Ordering::Acquire).saturating_sub(seen);
        let later = usize::try_from(later).unwrap_or(usize::MAX);
        let names = [name(channel, None), name(channel, Some(number))];
        later > recent.len() || recent.iter().rev().take(later).any(|name| names.contains(name))
    }
}

/// Two that are taken for the same cost a look too many.
fn name(channel: &str, number: Option<BucketNumber>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (channel, number).hash(&mut hasher);
    hasher.finish()
}

/// A moment: the rewrites up to it are known to who has this, those that come are not.
#[derive(Debug, Clone, Default)]
pub struct AsOf {
    rewrites: Arc<Rewrites>,
    seen: u64,
}

impl AsOf {
    pub(crate) const fn new(rewrites: Arc<Rewrites>, seen: u64) -> Self {
        Self { rewrites, seen }
    }

    /// Whether a bucket became another file since, or is about to. Asked behind the opening of the file.
    #[must_use]
    pub fn is_outdated(&self, channel: &str, number: BucketNumber) -> bool {
        self.rewrites.since(self.seen, channel, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rewritten_is_outdated_and_nothing_else() {
        let rewrites = Arc::new(Rewrites::default());
        let number = BucketNumber::of;
        let outdated =
            |seen, channel: &str, key| AsOf::new(Arc::clone(&rewrites), seen).is_outdated(channel, number(key));
        assert!(!outdated(0, "a", 0));
        assert_eq!(rewrites.begin("a", Some(number(0x1000))), 1);
        assert_eq!(rewrites.begin("b", None), 2);
        assert!(outdated(0, "a", 0x1000) && !outdated(0, "a", 0x2000) && !outdated(0, "c", 0x1000));
        assert!(outdated(1, "b", 0x1000) && outdated(1, "b", 0x2000) && !outdated(2, "b", 0x1000));
        assert!(!outdated(1, "a", 0x1000));
        // What nobody remembers may have been the bucket.
        for _ in 0..REMEMBERED {
            rewrites.begin("c", None);
        }
        assert!(!outdated(2, "a", 0x1000) && outdated(1, "a", 0x2000));
    }
}
