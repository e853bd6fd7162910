//! Failed logins wait: each further failure of an account from an address doubles the time until the next attempt counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use overstory_model::Millis;
use sha2::{Digest, Sha256};

/// Pairs of account and address that are remembered; beyond it those with the fewest failures are forgotten first.
const CAPACITY: usize = 10_000;
/// A pair is forgiven after so long without a failure.
const FORGIVEN_AFTER_MS: i64 = 15 * 60 * 1000;

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    last: Millis,
}

/// Counts failures. What it keeps does not depend on how long the names are that attackers make up.
#[derive(Debug)]
pub(super) struct Throttle {
    allowed: u32,
    slowest_ms: i64,
    records: Mutex<HashMap<[u8; 16], Record>>,
}

impl Throttle {
    pub(super) fn new(allowed: u32, slowest: std::time::Duration) -> Self {
        let slowest_ms = i64::try_from(slowest.as_millis()).unwrap_or(i64::MAX);
        Self { allowed, slowest_ms, records: Mutex::default() }
    }

    /// The seconds until an attempt counts again, if it does not now.
    pub(super) fn wait(&self, account: &str, address: Option<IpAddr>, now: Millis) -> Option<u32> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(&key(account, address))?;
        let beyond = record.failures.checked_sub(self.allowed)?;
        let delay = 1000_i64.saturating_mul(1 << beyond.min(30)).min(self.slowest_ms);
        let left = delay - now.since(record.last);
        (left > 0).then(|| u32::try_from(left.saturating_add(999) / 1000).unwrap_or(u32::MAX))
    }

    pub(super) fn failed(&self, account: &str, address: Option<IpAddr>, now: Millis) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(account, address);
        if !records.contains_key(&key) && records.len() >= CAPACITY {
            records.retain(|_, record| now.since(record.last) < FORGIVEN_AFTER_MS);
            if records.len() >= CAPACITY {
                let weakest = records.iter().min_by_key(|(_, record)| (record.failures, record.last));
                if let Some(weakest) = weakest.map(|(key, _)| *key) {
                    records.remove(&weakest);
                }
            }
        }
        let record = records.entry(key).or_insert(Record { failures: 0, last: now });
        if now.since(record.last) >= FORGIVEN_AFTER_MS {
            record.failures = 0;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
    }

    pub(super) fn succeeded(&self, account: &str, address: Option<IpAddr>) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(account, address));
    }
}

fn key(account: &str, address: Option<IpAddr>) -> [u8; 16] {
    let mut hash = Sha256::new();
    match address {
        Some(IpAddr::V4(address)) => hash.update(address.octets()),
        // A host has a whole /64 to choose its address from.
        Some(IpAddr::V6(address)) => hash.update(&address.octets()[..8]),
        None => hash.update([0]),
    }
    hash.update(account.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const THERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_ends_with_a_success() {
        let throttle = Throttle::new(3, Duration::from_secs(5));
        let now = Millis(1_000_000);
        let waits: Vec<_> = (0..7)
            .map(|_| {
                throttle.failed("a", HERE, now);
                throttle.wait("a", HERE, now)
            })
            .collect();
        assert_eq!(waits, [None, None, Some(1), Some(2), Some(4), Some(5), Some(5)]);
        assert_eq!(throttle.wait("a", HERE, Millis(now.0 + 4500)), Some(1));
        assert_eq!(throttle.wait("a", HERE, Millis(now.0 + 5000)), None);
        assert_eq!(throttle.wait("a", THERE, now), None);
        assert_eq!(throttle.wait("b", HERE, now), None);
        throttle.succeeded("a", HERE);
        assert_eq!(throttle.wait("a", HERE, now), None);
    }

    #[test]
    fn made_up_names_neither_fill_the_memory_nor_free_who_failed_often() {
        let throttle = Throttle::new(3, Duration::from_secs(60));
        let now = Millis(1_000_000);
        (0..9).for_each(|_| throttle.failed("victim", HERE, now));
        (0..CAPACITY + 100).for_each(|n| throttle.failed(&format!("made up {n}"), HERE, now));
        assert_eq!(throttle.records.lock().map(|records| records.len()).unwrap_or(0), CAPACITY);
        assert!(throttle.wait("victim", HERE, now).is_some());
    }

    #[test]
    fn old_failures_are_forgiven() {
        let throttle = Throttle::new(1, Duration::from_secs(3600));
        throttle.failed("a", HERE, Millis(0));
        throttle.failed("a", HERE, Millis(FORGIVEN_AFTER_MS));
        assert_eq!(throttle.wait("a", HERE, Millis(FORGIVEN_AFTER_MS)), Some(1));
    }
}
