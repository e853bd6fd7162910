//! Bounds how many lines of the log clients can cause: whoever reaches a port could otherwise fill the disk with them.

use std::cell::Cell;

use tokio::time::Instant;

/// Lines that are written without a wait between them.
const BURST: u32 = 200;
/// Lines per second after those.
const PER_SECOND: u32 = 20;

/// Lines about clients that were refused or broke the protocol.
#[derive(Debug)]
pub(super) struct Complaints {
    left: Cell<u32>,
    refilled: Cell<Instant>,
    unsaid: Cell<u64>,
}

impl Complaints {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: Cell::new(BURST), refilled: Cell::new(now), unsaid: Cell::new(0) }
    }

    /// Whether one more line may be written; counts it if not.
    pub(super) fn may_be_said(&self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.refilled.get()).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left.set(self.left.get().saturating_add(more).min(BURST));
            self.refilled.set(now);
        }
        let left = self.left.get().checked_sub(1);
        match left {
            Some(left) => self.left.set(left),
            None => self.unsaid.set(self.unsaid.get().saturating_add(1)),
        }
        left.is_some()
    }

    /// Lines that were not written since this was asked last.
    pub(super) fn take_unsaid(&self) -> u64 {
        self.unsaid.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_and_a_drizzle_is_logged() {
        let begin = Instant::now();
        let complaints = Complaints::new(begin);
        let said = |at: Duration, lines: u32| (0..lines).filter(|_| complaints.may_be_said(begin + at)).count();
        assert_eq!(said(Duration::ZERO, 10_000), 200);
        assert_eq!(complaints.take_unsaid(), 9800);
        assert_eq!(said(Duration::from_millis(999), 5), 0);
        assert_eq!(said(Duration::from_secs(1), 50), 20);
        assert_eq!(said(Duration::from_secs(4000), 300), 200);
        assert_eq!(complaints.take_unsaid(), 5 + 30 + 100);
        assert_eq!(complaints.take_unsaid(), 0);
    }
}
