//! Messages that are in the archive more than once, told once.
//!
//! Whether a record repeats another one depends on the archive alone and not on where pages end: on the records of the same
//! message that are filed in front of it, no further away than its reach.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use overstory_model::archive::{Archived, Body};
use overstory_model::ids::MessageId;
use serde::Deserialize;
use serde_json::Value;

/// A message that the broker delivered again repeats one that was filed so many seconds before, at most.
const DELIVERED_AGAIN_S: i64 = 3600;
/// A message whose publisher sent it again under its name repeats one that was filed so many seconds before, at most.
const SENT_AGAIN_S: i64 = 60;
/// So many messages are remembered, at 24 bytes each.
const REMEMBERED: usize = 1_000_000;

/// How many seconds before a record one may be filed that it repeats; none if it repeats nothing.
///
/// Records of a message that has a time of its own are filed under that. Without one each is filed at its arrival.
pub(super) fn reach(second: i64, event: &Archived) -> Option<i64> {
    // What nobody named may be said twice, unless the broker says that it delivered it before.
    if event.message_id.is_none() && !event.redelivered {
        return None;
    }
    Some(match event.redelivered {
        _ if is_filed_under_its_own_time(second, &event.body) => 0,
        true => DELIVERED_AGAIN_S,
        false => SENT_AGAIN_S,
    })
}

fn is_filed_under_its_own_time(second: i64, body: &Body) -> bool {
    #[derive(Deserialize)]
    struct Time {
        timestamp: Option<Value>,
    }
    let Body::Json(json) = body else { return false };
    let time = serde_json::from_str::<Time>(json.get()).ok().and_then(|time| time.timestamp);
    let seconds = match &time {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of any real time fit 53 bits")]
    seconds.is_some_and(|seconds: f64| seconds.floor() == second as f64)
}

/// The messages that were met, each with the second that its last record is filed under.
#[derive(Debug, Default)]
pub(super) struct Met(HashMap<MessageId, i64>);

impl Met {
    /// Notes a record; they come in their order. Says whether it repeats one that was met.
    pub(super) fn meet(&mut self, second: i64, event: &Archived) -> bool {
        let room = self.0.len() < REMEMBERED;
        match self.0.entry(event.id()) {
            Entry::Occupied(mut last) => {
                let away = second.saturating_sub(last.insert(second));
                reach(second, event).is_some_and(|reach| away <= reach)
            }
            Entry::Vacant(place) => {
                if room {
                    place.insert(second);
                }
                false
            }
        }
    }
}

/// Records of a page that may repeat records in front of it.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Each message, and the last second in front of the page that has a record of it, as far as one was found.
    messages: HashMap<MessageId, Option<i64>>,
    low: Option<i64>,
}

impl Doubts {
    /// Adds a record of the page if it may repeat one that is filed before `start`; whether it may.
    pub(super) fn add(&mut self, second: i64, event: &Archived, start: i64) -> bool {
        let Some(low) = reach(second, event).map(|reach| second.saturating_sub(reach)).filter(|low| *low < start)
        else {
            return false;
        };
        self.messages.entry(event.id()).or_default();
        self.low = Some(self.low.map_or(low, |lowest| lowest.min(low)));
        true
    }

    /// From which second on the records in front of the page are to be looked at.
    pub(super) const fn low(&self) -> Option<i64> {
        self.low
    }

    /// Looks at a record in front of the page; they come in any order.
    pub(super) fn look(&mut self, second: i64, event: &Archived) {
        if let Some(last) = self.messages.get_mut(&event.id()) {
            *last = (*last).max(Some(second));
        }
    }

    /// Whether a record repeats one that was found in front of the page.
    pub(super) fn is_repeated(&self, second: i64, event: &Archived) -> bool {
        let found = self.messages.get(&event.id()).copied().flatten();
        found.is_some_and(|last| reach(second, event).is_some_and(|reach| second.saturating_sub(last) <= reach))
    }
}
