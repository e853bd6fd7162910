//! A page of archived events: windows of time, the first records of each, repetitions told once.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddrV4;
use std::str::FromStr;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_model::archive::{Archived, channel, next_day};
use overstory_model::ids::MessageId;
use tokio::time::{Instant, timeout_at};

use super::{EventArchive, Filters, Missing, Part};

/// The width of the first window, in seconds.
const FIRST_WINDOW_S: i64 = 64;
/// Bytes of records on a page; one record there may always be.
const PAGE_BYTES: usize = 8 << 20;
/// So many messages that were told are remembered, at 16 bytes each.
const REMEMBERED: usize = 1_000_000;

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
    let deadline = Instant::now() + time;
    let mut page = Page::default();
    let note = |page: &mut Page, missing: Vec<Missing>| {
        if !missing.is_empty() && !query.partial {
            return Err(SearchError::Missing(missing));
        }
        page.missing.extend(missing);
        Ok(())
    };
    note(&mut page, archive.away().await)?;
    let needle = query.filters.needle();
    let mut told = HashSet::new();
    let mut at = query.after.map_or(query.from, |after| after.second.max(query.from));
    let mut width = FIRST_WINDOW_S;
    let mut bytes = 0;
    let mut progress = false;
    while at < query.to {
        if page.events.len() >= query.limit || bytes >= PAGE_BYTES || (progress && Instant::now() >= deadline) {
            page.next = Some(Position::before(at));
            break;
        }
        let end = at.saturating_add(width).min(next_day(Timestamp(at)).0).min(query.to);
        let mut window = Window::new(query, &mut told, query.limit - page.events.len(), PAGE_BYTES - bytes);
        let channel = channel(Timestamp(at));
        let part = Part { channel: &channel, low: at, high: end - 1, needle: &needle };
        let without: Vec<SocketAddrV4> = page.missing.iter().map(|missing| missing.node).collect();
        let mut each = |second: i64, record: &[u8]| window.take(second, record);
        let Ok(missing) = timeout_at(deadline, archive.read(part, &without, &mut each)).await else {
            if !progress {
                return Err(SearchError::TooSlow);
            }
            page.next = Some(Position::before(at));
            break;
        };
        note(&mut page, missing)?;
        let seen = window.seen;
        bytes += window.bytes;
        let last = window.finish(&mut page.events);
        if last.is_some() {
            page.next = last;
            break;
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
    Ok(page)
}

/// The first records of a part of time.
struct Window<'a> {
    query: &'a Query,
    /// Messages that were told before, on this page or in the second that it begins in.
    told: &'a mut HashSet<MessageId>,
    kept: BTreeMap<Position, (Archived, usize)>,
    bytes: usize,
    room: usize,
    most_bytes: usize,
    /// There was no room for this one and all after it.
    cut: Option<Position>,
    seen: usize,
}

impl<'a> Window<'a> {
    const fn new(query: &'a Query, told: &'a mut HashSet<MessageId>, room: usize, most_bytes: usize) -> Self {
        Self { query, told, kept: BTreeMap::new(), bytes: 0, room, most_bytes, cut: None, seen: 0 }
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
            tell(self.told, &event);
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
    fn finish(self, events: &mut Vec<Found>) -> Option<Position> {
        let last = self.kept.last_key_value().map(|(position, _)| *position);
        for (position, (event, _)) in self.kept {
            if tell(self.told, &event) {
                events.push(Found { second: position.second, event });
            }
        }
        self.cut.and(last)
    }
}

/// Notes that a message is told; whether it was not before.
fn tell(told: &mut HashSet<MessageId>, event: &Archived) -> bool {
    let id = event.id();
    let known = told.contains(&id);
    if !known && told.len() < REMEMBERED {
        told.insert(id);
    }
    // What nobody named may be said twice, unless the broker says that it delivered it before.
    !known || (event.message_id.is_none() && !event.redelivered)
}

#[cfg(test)]
mod tests;
