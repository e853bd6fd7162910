//! Keeps a warning that may come with every request from filling the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lets one warning per second through.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Cell<Option<Instant>>,
}

impl Throttle {
    /// Whether a warning may be written now.
    #[must_use]
    pub fn allows(&self) -> bool {
        let now = Instant::now();
        let allowed = self.last.get().is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1));
        if allowed {
            self.last.set(Some(now));
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_warning_in_a_second_is_held_back() {
        let throttle = Throttle::default();
        assert!(throttle.allows());
        assert!(!throttle.allows());
    }
}
