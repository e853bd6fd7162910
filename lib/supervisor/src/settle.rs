//! Deciding whether a process that was started has come up.
//!
//! One look proves nothing: under load supervisord has reported a program that crashed at once as RUNNING. A process
//! is up when several looks show the same process id.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::{ProcessInfo, ProcessState};

/// Looks that must agree.
const LOOKS: u32 = 3;
/// The time that they must span.
const SPAN: Duration = Duration::from_millis(100);
/// The time that they must span when supervisord has not watched the process for at least a second.
const LONG_SPAN: Duration = Duration::from_millis(400);

/// Follows one process from its start on.
#[derive(Debug, Clone)]
pub struct Settle {
    start_secs: u32,
    seen: Option<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    pid: i32,
    since: Instant,
    looks: u32,
}

/// Is what the looks so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet.
    Pending,
    /// The process is there and stays, though supervisord still says STARTING.
    Alive,
    /// The process has come up.
    Up,
    /// It ended; supervisord will try again, or has done so.
    Crashed,
    /// It ended, and supervisord will not try again.
    Ended,
}

impl Settle {
    /// Follows a process that supervisord calls RUNNING after `start_secs`.
    #[must_use]
    pub const fn new(start_secs: u32) -> Self {
        Self { start_secs, seen: None }
    }

    /// Takes a look into account.
    pub fn look(&mut self, info: &ProcessInfo, now: Instant) -> Verdict {
        match (info.state, info.pid) {
            (ProcessState::Running | ProcessState::Starting, Some(pid)) => self.alive(info.state, pid, now),
            (ProcessState::Backoff, _) => Verdict::Crashed,
            (state, _) if state.is_down() => Verdict::Ended,
            _ => Verdict::Pending,
        }
    }

    fn alive(&mut self, state: ProcessState, pid: i32, now: Instant) -> Verdict {
        let seen = match &mut self.seen {
            None => self.seen.insert(Seen { pid, since: now, looks: 0 }),
            Some(seen) if seen.pid != pid => {
                *seen = Seen { pid, since: now, looks: 1 };
                return Verdict::Crashed;
            }
            Some(seen) => seen,
        };
        seen.looks += 1;
        let span = now.saturating_duration_since(seen.since);
        let watched = state == ProcessState::Running && self.start_secs > 0;
        if seen.looks < LOOKS || span < if watched { SPAN } else { LONG_SPAN } {
            Verdict::Pending
        } else if state == ProcessState::Running {
            Verdict::Up
        } else {
            Verdict::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ProcessName;

    fn info(state: ProcessState, pid: i32) -> ProcessInfo {
        ProcessInfo {
            name: ProcessName::lone("x"),
            state,
            pid: Some(pid).filter(|pid| *pid > 0),
            start: 0,
            stop: 0,
            now: 0,
            spawn_error: String::new(),
            exit_status: 0,
            stdout_log: None,
        }
    }

    /// Looks every 50 ms and returns the verdicts.
    fn verdicts(start_secs: u32, looks: &[(ProcessState, i32)]) -> Vec<Verdict> {
        let mut settle = Settle::new(start_secs);
        let begin = Instant::now();
        let look = |(index, (state, pid)): (u32, &(ProcessState, i32))| {
            settle.look(&info(*state, *pid), begin + Duration::from_millis(50) * index)
        };
        (0..).zip(looks).map(look).collect()
    }

    use ProcessState::{Backoff, Exited, Fatal, Running, Starting};
    use Verdict::{Alive, Crashed, Ended, Pending, Up};

    #[test]
    fn running_must_be_seen_three_times_with_the_same_process() {
        assert_eq!(verdicts(1, &[(Running, 5); 3]), [Pending, Pending, Up]);
        assert_eq!(verdicts(1, &[(Running, 5), (Running, 6), (Running, 6)]), [Pending, Crashed, Pending]);
    }

    #[test]
    fn without_startsecs_it_must_be_seen_for_longer() {
        assert_eq!(verdicts(0, &[(Running, 5); 9]).iter().position(|v| *v == Up), Some(8));
        assert_eq!(verdicts(0, &[(Running, 5), (Exited, 0)]), [Pending, Ended]);
    }

    #[test]
    fn a_crash_is_known_at_the_first_look_that_shows_it() {
        assert_eq!(verdicts(1, &[(Starting, 5), (Backoff, 0)]), [Pending, Crashed]);
        assert_eq!(verdicts(1, &[(Starting, 5), (Starting, 6)]), [Pending, Crashed]);
        assert_eq!(verdicts(1, &[(Fatal, 0)]), [Ended]);
    }

    #[test]
    fn a_process_that_still_starts_is_alive_after_a_while() {
        let mut looks = vec![(Starting, 5); 9];
        looks.push((Running, 5));
        let verdicts = verdicts(2, &looks);
        assert_eq!((verdicts[7], verdicts[8], verdicts[9]), (Pending, Alive, Up));
    }
}
