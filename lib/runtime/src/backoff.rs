//! Waiting longer after each failure.

use std::time::Duration;

/// Delays that double from a least to a greatest value, each shortened by up to a quarter so that many clients spread.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    seed: u64,
}

impl Backoff {
    /// Starts at `min` and never exceeds `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let seed = u64::from(std::process::id()) ^ std::ptr::from_ref(&min).addr() as u64;
        Self { min, max, next: min, seed: seed | 1 }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next.min(self.max);
        self.next = delay.saturating_mul(2);
        // xorshift64: plenty for spreading delays.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let quarter = delay / 4;
        let thousandths = u32::try_from(self.seed % 1000).unwrap_or(0);
        delay - quarter * thousandths / 1000
    }

    /// Starts over after a success.
    pub const fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_limit_and_start_over() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        let delays: Vec<_> = (0..8).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= min && delays[0] >= min * 3 / 4);
        assert!(delays.iter().all(|delay| *delay <= max));
        assert!(delays[7] >= max * 3 / 4);
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }
}
