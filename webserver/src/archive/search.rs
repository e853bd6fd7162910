//! A page of archived events: windows of time, the first records of each, repetitions told once.

mod repeats;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddrV4;
use std::str::FromStr;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_model::archive::{Archived, channel, next_day};
use tokio::time::{Instant, timeout_at};

use super::{EventArchive, Filters, Missing, Part};
use repeats::{Doubts, Met};

/// The width of the first window, in seconds.
const FIRST_WINDOW_S: i64 = 64;
/// Bytes of records on a page; one record there may always be.
const PAGE_BYTES: usize = 8 << 20;
/// How much narrower a window is than one that took too long.
const NARROWER: i64 = 16;
/// The share of the time that is spent on windows; the rest is for looking whether their records repeat others.
const WINDOWS_SHARE: f64 = 0.75;

/// Where in the order of all events one is: by second, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The second that it is filed under.
    pub second: i64,
    /// When the archive took it, in microseconds.
    pub received: i64,
    /// Tells events apart that arrived at the same time at different processes.
    pub hash: u64,
}

impl Position {
    /// The place before all events of a second.
    #[must_use]
    pub const fn before(second: i64) -> Self {
        Self { second, received: 0, hash: 0 }
    }

    fn of(second: i64, event: &Archived, record: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(record);
        Self { second, received: event.received, hash: hasher.finish() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.second, self.received, self.hash)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut number = || u64::from_str_radix(parts.next().ok_or(())?, 16).map_err(|_| ());
        let (second, received, hash) = (number()?, number()?, number()?);
        let signed = |number: u64| i64::try_from(number).map_err(|_| ());
        Ok(Self { second: signed(second)?, received: signed(received)?, hash })
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// From this second on.
    pub from: i64,
    /// Up to but not including this second.
    pub to: i64,
    /// Only what comes after this; the last page's end.
    pub after: Option<Position>,
    /// Events on a page.
    pub limit: usize,
    /// Which events.
    pub filters: Filters,
    /// Whether the events of the nodes that answer are wanted though others do not.
    pub partial: bool,
}

/// An event and the second that it is filed under.
#[derive(Debug)]
pub struct Found {
    /// The second.
    pub second: i64,
    /// The event.
    pub event: Archived,
}

/// A page of events. It may be short, or empty, although there is a `next`.
#[derive(Debug, Default)]
pub struct Page {
    /// The events, in order of time.
    pub events: Vec<Found>,
    /// After what the next page begins; `None` when nothing is left.
    pub next: Option<Position>,
    /// Nodes whose events are missing.
    pub missing: Vec<Missing>,
}

/// Why there is no page.
#[derive(Debug, PartialEq, Eq)]
pub enum SearchError {
    /// The events of these nodes are missing.
    Missing(Vec<Missing>),
    /// Not even the first window was read in time.
    TooSlow,
}

/// Reads a page within `time`: what was not looked at by then is left for the next one.
///
/// # Errors
/// Nodes do not answer, or too slowly.
pub async fn search(archive: &dyn EventArchive, query: &Query, time: Duration) -> Result<Page, SearchError> {
    let now = Instant::now();
    let needle = query.filters.needle();
    let (windows_until, until) = (now + time.mul_f64(WINDOWS_SHARE), now + time);
    let mut search = Search { archive, query, needle, windows_until, until, missing: Vec::new() };
    search.note(archive.away().await)?;
    let (mut found, mut next) = search.windows().await?;
    search.tell_once(&mut found, &mut next).await?;
    let event = |(position, event): (Position, Archived)| Found { second: position.second, event };
    Ok(Page { events: found.into_iter().map(event).collect(), next, missing: search.missing })
}

/// A page that is being put together.
struct Search<'a> {
    archive: &'a dyn EventArchive,
    query: &'a Query,
    needle: String,
    /// When no further window is begun.
    windows_until: Instant,
    until: Instant,
    missing: Vec<Missing>,
}

impl Search<'_> {
    fn note(&mut self, missing: Vec<Missing>) -> Result<(), SearchError> {
        if !missing.is_empty() && !self.query.partial {
            return Err(SearchError::Missing(missing));
        }
        self.missing.extend(missing);
        Ok(())
    }

    /// The second that the page begins in.
    fn start(&self) -> i64 {
        self.query.after.map_or(self.query.from, |after| after.second.max(self.query.from))
    }

    /// Reads from a second up to but not including another one of the same day; none if it takes too long.
    async fn read(
        &mut self,
        (from, to): (i64, i64),
        until: Instant,
        mut each: impl FnMut(i64, &[u8]) + Send,
    ) -> Result<Option<()>, SearchError> {
        let channel = channel(Timestamp(from));
        let part = Part { channel: &channel, low: from, high: to - 1, needle: &self.needle };
        let without: Vec<SocketAddrV4> = self.missing.iter().map(|missing| missing.node).collect();
        let Ok(missing) = timeout_at(until, self.archive.read(part, &without, &mut each)).await else {
            return Ok(None);
        };
        self.note(missing).map(Some)
    }

    /// The events of the page, and where the next one begins.
    async fn windows(&mut self) -> Result<(Vec<(Position, Archived)>, Option<Position>), SearchError> {
        let query = self.query;
        let (mut found, mut met) = (Vec::new(), Met::default());
        let (mut at, mut width, mut bytes, mut progress) = (self.start(), FIRST_WINDOW_S, 0, false);
        while at < query.to {
            let now = Instant::now();
            if found.len() >= query.limit || bytes >= PAGE_BYTES || (progress && now >= self.windows_until) {
                return Ok((found, Some(Position::before(at))));
            }
            let end = at.saturating_add(width).min(next_day(Timestamp(at)).0).min(query.to);
            // The first one may be too much for the time there is: a narrower one is tried then.
            let narrower = !progress && end - at > 1;
            let until = if narrower { now + (self.windows_until - now) / 2 } else { self.windows_until };
            let mut window = Window::new(query, &mut met, query.limit - found.len(), PAGE_BYTES - bytes);
            if self.read((at, end), until, |second, record| window.take(second, record)).await?.is_none() {
                if narrower {
                    width = ((end - at) / NARROWER).max(1);
                    continue;
                }
                return if progress { Ok((found, Some(Position::before(at)))) } else { Err(SearchError::TooSlow) };
            }
            let seen = window.seen;
            bytes += window.bytes;
            let last = window.finish(&mut found);
            if last.is_some() {
                return Ok((found, last));
            }
            progress = true;
            at = end;
            width = match seen {
                0 => width.saturating_mul(8),
                few if few < query.limit / 2 => width.saturating_mul(2),
                many if many > query.limit.saturating_mul(4) => (width / 4).max(1),
                _ => width,
            };
        }
        Ok((found, None))
    }

    /// Takes out what repeats records of pages in front of this one. What could not be looked for in time is left for the
    /// next page.
    async fn tell_once(
        &mut self,
        found: &mut Vec<(Position, Archived)>,
        next: &mut Option<Position>,
    ) -> Result<(), SearchError> {
        let start = self.start();
        let mut doubts = Doubts::default();
        let doubtful: Vec<bool> = found.iter().map(|(at, event)| doubts.add(at.second, event, start)).collect();
        let Some(low) = doubts.low() else { return Ok(()) };
        let mut at = low.max(self.query.from);
        while at < start {
            let end = next_day(Timestamp(at)).0.min(start);
            let filters = &self.query.filters;
            let look = |second, record: &[u8]| {
                if let Some(event) = Archived::decode(record).filter(|event| filters.matches(event)) {
                    doubts.look(second, &event);
                }
            };
            if self.read((at, end), self.until, look).await?.is_none() {
                let certain = doubtful.iter().take_while(|doubtful| !**doubtful).count();
                let Some((last, _)) = certain.checked_sub(1).and_then(|last| found.get(last)) else {
                    return Err(SearchError::TooSlow);
                };
                *next = Some(*last);
                found.truncate(certain);
                return Ok(());
            }
            at = end;
        }
        found.retain(|(position, event)| !doubts.is_repeated(position.second, event));
        Ok(())
    }
}

/// The first records of a part of time.
struct Window<'a> {
    query: &'a Query,
    /// Messages of this page, and of the second that it begins in.
    met: &'a mut Met,
    kept: BTreeMap<Position, (Archived, usize)>,
    bytes: usize,
    room: usize,
    most_bytes: usize,
    /// There was no room for this one and all after it.
    cut: Option<Position>,
    seen: usize,
}

impl<'a> Window<'a> {
    const fn new(query: &'a Query, met: &'a mut Met, room: usize, most_bytes: usize) -> Self {
        Self { query, met, kept: BTreeMap::new(), bytes: 0, room, most_bytes, cut: None, seen: 0 }
    }

    fn take(&mut self, second: i64, record: &[u8]) {
        // What is no record of the archive's is nothing that could be told.
        let Some(event) = Archived::decode(record) else { return };
        if !self.query.filters.matches(&event) {
            return;
        }
        self.seen += 1;
        let position = Position::of(second, &event, record);
        if self.query.after.is_some_and(|after| position <= after) {
            self.met.meet(second, &event);
            return;
        }
        if self.cut.is_some_and(|cut| position >= cut) {
            return;
        }
        // The same bytes at the same place are one record that was stored twice.
        if self.kept.insert(position, (event, record.len())).is_none() {
            self.bytes += record.len();
        }
        while self.kept.len() > self.room || (self.bytes > self.most_bytes && self.kept.len() > 1) {
            let Some((position, (_, length))) = self.kept.pop_last() else { break };
            self.bytes -= length;
            self.cut = Some(position);
        }
    }

    /// Adds what is kept to a page; gives where the next one begins if there was no room for all.
    fn finish(self, found: &mut Vec<(Position, Archived)>) -> Option<Position> {
        let last = self.kept.last_key_value().map(|(position, _)| *position);
        for (position, (event, _)) in self.kept {
            if !self.met.meet(position.second, &event) {
                found.push((position, event));
            }
        }
        self.cut.and(last)
    }
}

#[cfg(test)]
mod tests;
