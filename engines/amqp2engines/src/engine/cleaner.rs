//! cleaner: reads, validates and normalises.

use overstory_model::Millis;
use overstory_model::event::{self, Limits, Parsed};

use super::Refusal;

/// A message as it came, as far as the cleaner looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// The body; empty when it was too large to be taken.
    pub body: &'a [u8],
    /// The body's true size.
    pub size: usize,
    /// Whether the body was too large to be taken.
    pub oversized: bool,
    /// The routing key.
    pub routing_key: &'a str,
    /// The content type.
    pub content_type: Option<&'a str>,
}

/// Makes an event of a message.
///
/// # Errors
/// The message is to be laid among the dead letters.
pub fn clean(raw: &Raw<'_>, now: Millis, limits: &Limits) -> Result<Parsed, Refusal> {
    let read = if raw.oversized {
        Err(event::oversized(raw.size, limits))
    } else {
        event::parse(raw.body, raw.routing_key, raw.content_type, now, limits)
    };
    read.map_err(|reject| Refusal { reason: reject.reason.code(), detail: reject.detail })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_message_that_was_too_large_to_take_is_refused_by_its_true_size() {
        let raw = Raw { body: b"", size: 5_000_000, oversized: true, routing_key: "", content_type: None };
        let refusal = clean(&raw, Millis(0), &Limits::default()).unwrap_err();
        assert_eq!(refusal.reason, "oversized");
        assert!(refusal.detail.contains("5000000"));
    }
}
