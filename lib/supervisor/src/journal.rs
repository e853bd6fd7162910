//! supervisord's own log: the one place that tells exit codes and how often a program was started.
//!
//! Its interface reports exit status 0 for a program that ended within `startsecs`, and nothing at all about restarts
//! of one that dies later. Lines are `YYYY-MM-DD HH:MM:SS,mmm LEVEL text` in local time; the offset to the clock is
//! found by comparing a process' start with its `spawned` line.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::api::ProcessInfo;

/// How much of the log is looked at.
pub const TAIL_BYTES: i64 = 128 * 1024;
/// Starts within [`CRASH_LOOP_WINDOW`] that make a crash loop.
pub const CRASH_LOOP_STARTS: usize = 3;
/// The time in which a crash loop is looked for.
pub const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(60);
/// A program that runs shorter than this has not got over what ended it, in seconds.
pub const CALM_SECONDS: i64 = 5;
/// The time over which restarts are counted.
pub const RESTART_WINDOW: Duration = Duration::from_secs(600);

/// Says how a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitOutcome {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it, such as `SIGKILL`.
    Signal(String),
}

impl fmt::Display for ExitOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by {signal}"),
        }
    }
}

/// Is the part of the log that concerns processes, since supervisord was started.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    entries: Vec<Entry>,
    /// Seconds to add to the log's local times to get Unix seconds.
    offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Seconds in the log's own time.
    at: i64,
    event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Spawned {
        name: String,
        pid: i32,
    },
    /// It ended by itself.
    Exited {
        name: String,
        outcome: ExitOutcome,
        /// Whether its code is one of its `exitcodes`, after it had stayed up: no crash.
        expected: bool,
    },
    /// It ended because supervisord stopped it.
    Stopped {
        name: String,
        outcome: ExitOutcome,
    },
}

/// Is what the log tells about one process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Starts within [`CRASH_LOOP_WINDOW`].
    pub recent_starts: usize,
    /// Unexpected ends by itself within [`CRASH_LOOP_WINDOW`].
    pub recent_exits: usize,
    /// Unexpected ends by itself within [`RESTART_WINDOW`].
    pub restarts: usize,
    /// How it ended last.
    pub last_outcome: Option<ExitOutcome>,
    /// Seconds that the longest run lasted which ended by itself within [`CRASH_LOOP_WINDOW`].
    pub longest_recent_run: i64,
    /// Seconds that the present run has lasted; 0 when it does not run.
    pub present_run: i64,
}

impl History {
    /// Whether the program keeps dying, even when supervisord says RUNNING at this moment.
    ///
    /// One that has by now run twice as long as it did in any of the recent runs, and at least [`CALM_SECONDS`], has
    /// got over what ended it.
    #[must_use]
    pub fn is_crash_loop(&self) -> bool {
        // Restarts by an operator are starts without exits: they are no crash loop.
        self.recent_starts >= CRASH_LOOP_STARTS
            && self.recent_exits + 1 >= CRASH_LOOP_STARTS
            && self.present_run < (2 * self.longest_recent_run).max(CALM_SECONDS)
    }
}

impl Journal {
    /// Reads the end of the log; `infos` give the offset of its clock.
    #[must_use]
    pub fn parse(text: &str, infos: &[ProcessInfo]) -> Self {
        let mut entries = Vec::new();
        for line in text.lines() {
            let Some((at, message)) = split_line(line) else { continue };
            if message.starts_with("supervisord started with pid") {
                entries.clear();
            } else if let Some(event) = read_event(message) {
                entries.push(Entry { at, event });
            }
        }
        let offset = entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Spawned { name, pid } => {
                let info = infos.iter().find(|i| i.pid == Some(*pid) && i.name.name == *name)?;
                Some(round_to_quarter_hour(info.start - entry.at))
            }
            _ => None,
        });
        Self { entries, offset: offset.unwrap_or_default() }
    }

    /// What the log tells about the process called `name` (without its group), as of Unix second `now`.
    #[must_use]
    pub fn history(&self, name: &str, now: i64) -> History {
        let mut history = History::default();
        let mut started_at = None;
        for entry in &self.entries {
            let age = now.saturating_sub(entry.at + self.offset);
            let within = |window: Duration| u64::try_from(age).unwrap_or_default() < window.as_secs();
            match &entry.event {
                Event::Spawned { name: n, .. } if n == name => {
                    history.recent_starts += usize::from(within(CRASH_LOOP_WINDOW));
                    started_at = Some(entry.at);
                }
                // A program that restarts itself ends like this: no crash, and as good as stopped and started.
                Event::Exited { name: n, outcome, expected: true } | Event::Stopped { name: n, outcome }
                    if n == name =>
                {
                    history.last_outcome = Some(outcome.clone());
                    started_at = None;
                }
                Event::Exited { name: n, outcome, expected: false } if n == name => {
                    history.recent_exits += usize::from(within(CRASH_LOOP_WINDOW));
                    history.restarts += usize::from(within(RESTART_WINDOW));
                    history.last_outcome = Some(outcome.clone());
                    let run = started_at.take().map_or(0, |start| entry.at - start);
                    if within(CRASH_LOOP_WINDOW) {
                        history.longest_recent_run = history.longest_recent_run.max(run);
                    }
                }
                _ => {}
            }
        }
        history.present_run = started_at.map_or(0, |start| now.saturating_sub(start + self.offset).max(0));
        history
    }
}

/// Splits a line into its time in seconds and its text after the level.
fn split_line(line: &str) -> Option<(i64, &str)> {
    let (stamp, rest) = line.split_once(',')?;
    let (_millis, rest) = rest.split_once(' ')?;
    let (_level, message) = rest.split_once(' ')?;
    let (date, time) = stamp.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if !(0..=23).contains(&hour) || !(0..=59).contains(&minute) || !(0..=60).contains(&second) {
        return None;
    }
    Some((days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, message))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day that may be missing is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn read_event(message: &str) -> Option<Event> {
    if let Some(rest) = message.strip_prefix("spawned: '") {
        let (name, pid) = rest.split_once("' with pid ")?;
        return Some(Event::Spawned { name: name.to_owned(), pid: pid.trim().parse().ok()? });
    }
    let (ended_by_itself, rest) = match message.strip_prefix("exited: ") {
        Some(rest) => (true, rest),
        None => (false, message.strip_prefix("stopped: ")?),
    };
    let (name, reason) = rest.split_once(" (")?;
    let reason = reason.trim_end();
    let reason = reason.strip_suffix(')').unwrap_or(reason);
    let (reason, remark) = reason.split_once("; ").unwrap_or((reason, ""));
    let expected = remark == "expected";
    let outcome = match reason.strip_prefix("exit status ") {
        Some(code) => ExitOutcome::Code(code.parse().ok()?),
        None => ExitOutcome::Signal(reason.strip_prefix("terminated by ")?.to_owned()),
    };
    let name = name.to_owned();
    Some(if ended_by_itself { Event::Exited { name, outcome, expected } } else { Event::Stopped { name, outcome } })
}

/// Offsets of time zones are multiples of a quarter of an hour; what is left is the time between the two notes.
const fn round_to_quarter_hour(seconds: i64) -> i64 {
    (seconds + 450).div_euclid(900) * 900
}

#[cfg(test)]
mod tests;
