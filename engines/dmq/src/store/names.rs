//! The names of queues: `CHANNEL`, or `SUBSCRIBER@CHANNEL` where the subscriber's name may be empty (protocol §3.2).

use overstory_swarm::channel::{self, BadChannelName};

/// Bytes of a queue's name at most, so that a suffix fits behind it in a file name.
pub const MAX_QUEUE_NAME: usize = 240;

/// A queue's name in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueName<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The subscriber; `None` for the queue of a channel to which nobody subscribed.
    pub subscriber: Option<&'a str>,
}

impl<'a> QueueName<'a> {
    /// Takes a name apart; `None` if no queue can have it.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        if name.len() > MAX_QUEUE_NAME {
            return None;
        }
        let (subscriber, channel) = match name.split_once('@') {
            Some((subscriber, channel)) => (Some(subscriber), channel),
            None => (None, name),
        };
        let channel = channel::check(channel.as_bytes()).ok()?;
        if subscriber.is_some_and(|subscriber| !subscriber.is_empty() && channel::check(subscriber.as_bytes()).is_err())
        {
            return None;
        }
        Some(Self { channel, subscriber })
    }
}

/// The name of a subscriber's queue.
#[must_use]
pub fn of_subscriber(subscriber: &str, channel: &str) -> String {
    format!("{subscriber}@{channel}")
}

/// Checks a subscriber's name from the wire for a channel whose name was checked: it is empty or a channel name, and
/// fits before the channel's in [`MAX_QUEUE_NAME`] bytes.
///
/// # Errors
/// [`BadChannelName`] for anything else.
pub fn check_subscriber<'a>(channel: &str, subscriber: &'a [u8]) -> Result<&'a str, BadChannelName> {
    if subscriber.is_empty() {
        return Ok("");
    }
    if subscriber.len() + 1 + channel.len() > MAX_QUEUE_NAME {
        return Err(BadChannelName);
    }
    channel::check(subscriber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_one_at_sign_at_most_and_a_channel_behind_it() {
        let name = |channel, subscriber| Some(QueueName { channel, subscriber });
        assert_eq!(QueueName::parse("plain"), name("plain", None));
        assert_eq!(QueueName::parse("@topic"), name("topic", Some("")));
        assert_eq!(QueueName::parse("sub-1@topic_2"), name("topic_2", Some("sub-1")));
        for bad in ["", "@", "a@", "a@b@c", "@@b", "a b", "../x", "a@../x", "é", "a.b"] {
            assert_eq!(QueueName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_subscriber_fits_before_its_channel_into_a_file_name() {
        let channel = "c".repeat(230);
        assert_eq!(check_subscriber(&channel, b""), Ok(""));
        assert_eq!(check_subscriber(&channel, b"123456789"), Ok("123456789"));
        assert_eq!(check_subscriber(&channel, b"1234567890"), Err(BadChannelName));
        assert_eq!(check_subscriber("c", b"a@b"), Err(BadChannelName));
        assert_eq!(check_subscriber("c", b"../x"), Err(BadChannelName));
        let longest = of_subscriber("123456789", &channel);
        assert_eq!(longest.len(), MAX_QUEUE_NAME);
        assert!(QueueName::parse(&longest).is_some());
        assert!(QueueName::parse(&format!("x{longest}")).is_none());
        assert!(QueueName::parse(&format!("@{channel}")).is_some());
    }
}
