//! What was verified a moment ago: bounded, and forgotten after a set time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use overstory_model::Millis;

/// Entries at most; when all of them still count, everything is forgotten and verified anew.
const CAPACITY: usize = 4096;

/// Remembers values by key until a time. Only what was verified gets in, so strangers cannot fill it.
#[derive(Debug)]
pub(super) struct Memory<K, V> {
    entries: Mutex<HashMap<K, (V, Millis)>>,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default() }
    }

    pub(super) fn get(&self, key: &K, now: Millis) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    pub(super) fn put(&self, key: K, value: V, until: Millis, now: Millis) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            entries.retain(|_, (_, until)| now < *until);
            if entries.len() >= CAPACITY {
                entries.clear();
            }
        }
        entries.insert(key, (value, until));
    }

    pub(super) fn forget(&self, key: &K) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_end_and_their_number_is_bounded() {
        let memory = Memory::new();
        memory.put(0, "zero", Millis(10), Millis(0));
        assert_eq!(memory.get(&0, Millis(9)), Some("zero"));
        assert_eq!(memory.get(&0, Millis(10)), None);
        for key in 1..=CAPACITY {
            memory.put(key, "more", Millis(100), Millis(20));
        }
        assert_eq!(memory.entries.lock().map(|entries| entries.len()).unwrap_or(0), CAPACITY);
        memory.put(CAPACITY + 1, "last", Millis(100), Millis(20));
        assert_eq!(memory.get(&(CAPACITY + 1), Millis(20)), Some("last"));
        memory.forget(&(CAPACITY + 1));
        assert_eq!(memory.get(&(CAPACITY + 1), Millis(20)), None);
    }
}
