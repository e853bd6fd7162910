//! Dead letters: messages that could not be worked on, kept for the operator with the reason.
//!
//! They are published to the exchange `canopsis.dead`, confirmed, and only then is the original acknowledged. A
//! negative acknowledgement could carry no reason, and a delivery limit would take innocent messages along.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use overstory_model::{RoutingKey, Timestamp};
use overstory_runtime::Shutdown;

use crate::config::AmqpConfig;
use crate::delivery::Delivery;
use crate::error::AmqpError;
use crate::link;
use crate::message::Outgoing;
use crate::publisher::{PublishError, Publisher, PublisherOptions};
use crate::topology::{DEAD, ENGINE_DEAD, Topology};

/// Header: why the message is here, in one word.
pub const REASON: &str = "x-overstory-reason";
/// Header: what exactly was wrong.
pub const DETAIL: &str = "x-overstory-detail";
/// Header: the queue that it was taken from, or the publisher that could not deliver it.
pub const ORIGIN: &str = "x-overstory-origin";
/// Header: the exchange that it was published to.
pub const EXCHANGE: &str = "x-overstory-exchange";
/// Header: the routing key that it was published with.
pub const ROUTING_KEY: &str = "x-overstory-routing-key";
/// Header: the id that its publisher gave it, if it did.
pub const MESSAGE_ID: &str = "x-overstory-message-id";
/// Header: when it became a dead letter, Unix seconds.
pub const AT: &str = "x-overstory-at";
/// Header of a message that was sent again from the dead letters: how often it was. It is to be worked on though its
/// id was seen before.
pub const REPLAY: &str = "x-overstory-replay";

/// Details longer than this are cut, in bytes.
const MAX_DETAIL_BYTES: usize = 2000;
/// The broker is given so long to deliver what it says is there.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// So many acknowledgements are sent before the broker gets time to apply them. A quorum queue's channel passes on
/// about thirty and keeps the others back; those are gone when the channel closes.
const ACK_BATCH: usize = 16;
/// The time it gets.
const ACK_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks whether what was given back is in the queue again.
const RETURN_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for that.
const RETURN_DEADLINE: Duration = Duration::from_secs(2);
/// So many times is looked whether all are gone before it is given up.
const REMOVE_ROUNDS: usize = 20;
/// So many are published at once when they are sent again.
const REPLAY_BATCH: usize = 200;

/// Makes the dead letter of a delivery: the whole body, however large, and the reason in the headers.
#[must_use]
pub fn dead_letter(delivery: &Delivery, queue: &str, reason: &str, detail: &str, now: Timestamp) -> Outgoing {
    let mut headers = delivery.headers.clone();
    if let Some(id) = &delivery.message_id {
        headers.insert(MESSAGE_ID.to_owned(), id.clone());
    }
    label(&mut headers, queue, reason, detail, now);
    headers.insert(EXCHANGE.to_owned(), delivery.exchange.clone());
    headers.insert(ROUTING_KEY.to_owned(), delivery.routing_key.clone());
    Outgoing {
        exchange: DEAD.to_owned(),
        routing_key: RoutingKey::fit(delivery.routing_key.clone()),
        body: delivery.whole.clone(),
        content_type: delivery.content_type.clone().unwrap_or_default(),
        // The same whenever it is made, so that a letter that is published twice can be told.
        message_id: delivery.message_id.clone().unwrap_or_else(|| format!("{:?}", delivery.id())),
        headers,
        mandatory: true,
    }
}

/// Makes the dead letter of a message that its publisher could not deliver.
pub(crate) fn undeliverable(message: &Outgoing, publisher: &str, detail: &str, now: Timestamp) -> Outgoing {
    let mut headers = message.headers.clone();
    label(&mut headers, publisher, "undeliverable", detail, now);
    headers.insert(EXCHANGE.to_owned(), message.exchange.clone());
    headers.insert(ROUTING_KEY.to_owned(), message.routing_key.as_str().to_owned());
    headers.insert(MESSAGE_ID.to_owned(), message.message_id.clone());
    Outgoing { exchange: DEAD.to_owned(), headers, mandatory: false, ..message.clone() }
}

fn label(headers: &mut BTreeMap<String, String>, origin: &str, reason: &str, detail: &str, now: Timestamp) {
    let mut end = detail.len().min(MAX_DETAIL_BYTES);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    headers.insert(REASON.to_owned(), reason.to_owned());
    headers.insert(DETAIL.to_owned(), detail[..end].to_owned());
    headers.insert(ORIGIN.to_owned(), origin.to_owned());
    headers.insert(AT.to_owned(), now.0.to_string());
}

/// A dead letter as it lies in the queue.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its message id; what [`show`], [`replay`] and [`drop`] select by.
    pub id: String,
    /// Why it is here, in one word.
    pub reason: String,
    /// What exactly was wrong.
    pub detail: String,
    /// The queue that it was taken from.
    pub origin: String,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The key that it was published with.
    pub routing_key: String,
    /// The id that its publisher gave it.
    pub message_id: Option<String>,
    /// When it became a dead letter.
    pub at: Option<Timestamp>,
    /// Its content type.
    pub content_type: Option<String>,
    /// Its own headers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Bytes,
}

impl DeadLetter {
    fn from_delivery(delivery: Delivery) -> Self {
        let id = delivery.message_id.clone().unwrap_or_else(|| format!("{:?}", delivery.id()));
        let Delivery { mut headers, body, content_type, routing_key, exchange, .. } = delivery;
        let mut take = |name| headers.remove(name);
        Self {
            id,
            reason: take(REASON).unwrap_or_else(|| "unknown".to_owned()),
            detail: take(DETAIL).unwrap_or_default(),
            origin: take(ORIGIN).unwrap_or_default(),
            exchange: take(EXCHANGE).unwrap_or(exchange),
            routing_key: take(ROUTING_KEY).unwrap_or(routing_key),
            message_id: take(MESSAGE_ID),
            at: take(AT).and_then(|at| at.parse().ok()).map(Timestamp),
            content_type,
            headers,
            body,
        }
    }

    fn identity(&self) -> Identity {
        (self.id.clone(), self.headers.get(REPLAY).cloned())
    }

    /// The message as it was, to be worked on once more.
    fn again(&self) -> Outgoing {
        let mut headers = self.headers.clone();
        let times = headers.get(REPLAY).and_then(|times| times.parse::<u32>().ok()).unwrap_or(0);
        headers.insert(REPLAY.to_owned(), times.saturating_add(1).to_string());
        Outgoing {
            exchange: self.exchange.clone(),
            routing_key: RoutingKey::fit(self.routing_key.clone()),
            body: self.body.clone(),
            content_type: self.content_type.clone().unwrap_or_default(),
            message_id: self.message_id.clone().unwrap_or_else(|| self.id.clone()),
            headers,
            mandatory: true,
        }
    }
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The one with this id, or whose id begins so if it is the only one.
    Id(String),
    /// All with this reason.
    Reason(String),
    /// All.
    All,
}

/// What became of the selected dead letters.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Ids of those that are gone from the queue.
    pub done: Vec<String>,
    /// Those that could not be sent again and are still there, with the reason.
    pub failed: Vec<(String, PublishError)>,
}

/// Why the dead letters could not be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadError {
    /// The broker.
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    /// The publisher.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The broker kept letters whose removal it had been told.
    #[error("{0} dead letters are still in the queue though they were to be removed; those sent again may come twice")]
    Kept(usize),
    /// No dead letter has this id.
    #[error("there is no dead letter {0}")]
    Unknown(String),
    /// More than one dead letter's id begins so.
    #[error("the ids of {count} dead letters begin with {prefix}")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many it could be.
        count: usize,
    },
}

/// The oldest `limit` dead letters and how many there are in all.
///
/// # Errors
/// The broker is away or refuses us.
pub async fn list(config: &AmqpConfig, limit: usize) -> Result<(Vec<DeadLetter>, usize), AmqpError> {
    let mut browser = Browser::open(config).await?;
    let total = browser.left;
    let mut letters = Vec::new();
    while letters.len() < limit
        && let Some((_, letter)) = browser.next().await?
    {
        letters.push(letter);
    }
    browser.close().await;
    Ok((letters, total))
}

/// One dead letter, by its id or the beginning of it.
///
/// # Errors
/// There is none or more than one; the broker is away or refuses us.
pub async fn show(config: &AmqpConfig, id: &str) -> Result<DeadLetter, DeadError> {
    let mut browser = Browser::open(config).await?;
    let found = browser.select(&Selection::Id(id.to_owned())).await;
    browser.close().await;
    found?.pop().map(|(_, letter)| letter).ok_or_else(|| DeadError::Unknown(id.to_owned()))
}

/// Publishes the selected dead letters where they came from, with their ids and the header [`REPLAY`]; those that the
/// broker confirms are removed.
///
/// # Errors
/// There is no such one; the broker is away or refuses us. Some may have been sent by then.
pub async fn replay(config: &AmqpConfig, selection: &Selection) -> Result<Outcome, DeadError> {
    let mut browser = Browser::open(config).await?;
    let selected = browser.select(selection).await?;
    let publisher = Publisher::start(config.clone(), PublisherOptions::new("overstory dead replay"), Shutdown::new())?;
    let (mut outcome, mut letters) = (Outcome::default(), Vec::new());
    for batch in selected.chunks(REPLAY_BATCH) {
        let messages = batch.iter().map(|(_, letter)| letter.again()).collect();
        let mut sent = Vec::with_capacity(batch.len());
        for ((tag, letter), published) in batch.iter().zip(publisher.publish_all(messages).await) {
            match published {
                Ok(_) => {
                    sent.push(*tag);
                    letters.push(letter.identity());
                    outcome.done.push(letter.id.clone());
                }
                Err(error) => outcome.failed.push((letter.id.clone(), error)),
            }
        }
        browser.acknowledge(&sent).await?;
    }
    browser.close().await;
    publisher.close(Duration::from_secs(5)).await?;
    make_sure_they_are_gone(config, letters).await?;
    Ok(outcome)
}

/// Removes the selected dead letters for good.
///
/// # Errors
/// There is no such one; the broker is away or refuses us. Some may be gone by then.
pub async fn drop(config: &AmqpConfig, selection: &Selection) -> Result<Outcome, DeadError> {
    let mut browser = Browser::open(config).await?;
    let (tags, letters): (Vec<_>, Vec<_>) =
        browser.select(selection).await?.into_iter().map(|(tag, letter)| (tag, letter.identity())).unzip();
    browser.acknowledge(&tags).await?;
    browser.close().await;
    let done = letters.iter().map(|(id, _)| id.clone()).collect();
    make_sure_they_are_gone(config, letters).await?;
    Ok(Outcome { done, failed: Vec::new() })
}

/// Removes what is still there of `letters`, until nothing is: acknowledgements are not answered, and the broker
/// forgets those that it has not applied when their channel closes.
async fn make_sure_they_are_gone(config: &AmqpConfig, mut letters: Vec<Identity>) -> Result<(), DeadError> {
    for _ in 0..REMOVE_ROUNDS {
        let mut wanted: HashMap<Identity, usize> = HashMap::new();
        letters.drain(..).for_each(|letter| *wanted.entry(letter).or_default() += 1);
        let mut browser = Browser::open(config).await?;
        let mut tags = Vec::new();
        while let Some((tag, letter)) = browser.next().await? {
            let identity = letter.identity();
            if let Some(count) = wanted.get_mut(&identity).filter(|count| **count > 0) {
                *count -= 1;
                tags.push(tag);
                letters.push(identity);
            }
        }
        browser.acknowledge(&tags).await?;
        browser.close().await;
        if letters.is_empty() {
            return Ok(());
        }
    }
    Err(DeadError::Kept(letters.len()))
}

/// A letter's id and how often it had been sent again: one that comes back after that is another letter.
type Identity = (String, Option<String>);

/// Goes through the queue without taking anything out of it, unless told to. When its channel closes, the rest is in
/// its order again.
struct Browser {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
    /// Messages that were there at the beginning and were not delivered yet.
    left: usize,
    /// Messages that were there at the beginning and were not removed.
    kept: usize,
    /// All up to this tag are removed; tags count from 1.
    removed_up_to: u64,
}

impl Browser {
    async fn open(config: &AmqpConfig) -> Result<Self, AmqpError> {
        let connection = link::connect(config, "overstory dead").await?;
        link::declare(&connection, &Topology::new(&config.queues)).await?;
        let channel = link::open_channel(&connection).await?;
        let left = waiting(&channel).await?;
        link::reply("set the prefetch", channel.basic_qos(0, BasicQosOptions::default())).await?;
        let consuming = channel.basic_consume(
            ShortString::from(ENGINE_DEAD),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream = link::reply("read the dead letters", consuming).await?;
        Ok(Self { connection, channel, stream, left, kept: left, removed_up_to: 0 })
    }

    async fn next(&mut self) -> Result<Option<(u64, DeadLetter)>, AmqpError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let what = "read the dead letters";
        // Somebody else may be going through the same queue: then fewer come than were announced.
        let Ok(Some(delivery)) = tokio::time::timeout(DELIVERY_TIMEOUT, self.stream.next()).await else {
            return Ok(None);
        };
        let delivery = delivery.map_err(|source| AmqpError::Broker { what, source })?;
        let tag = delivery.delivery_tag;
        Ok(Some((tag, DeadLetter::from_delivery(Delivery::from_broker(delivery, 0, usize::MAX)))))
    }

    async fn select(&mut self, selection: &Selection) -> Result<Vec<(u64, DeadLetter)>, DeadError> {
        let mut selected = Vec::new();
        while let Some((tag, letter)) = self.next().await? {
            let wanted = match selection {
                Selection::Id(id) => letter.id.starts_with(id.as_str()),
                Selection::Reason(reason) => letter.reason == *reason,
                Selection::All => true,
            };
            if wanted {
                selected.push((tag, letter));
            }
        }
        let Selection::Id(id) = selection else { return Ok(selected) };
        if selected.iter().any(|(_, letter)| letter.id == *id) {
            selected.retain(|(_, letter)| letter.id == *id);
        }
        let ids: HashSet<&str> = selected.iter().map(|(_, letter)| letter.id.as_str()).collect();
        match ids.len() {
            0 => Err(DeadError::Unknown(id.clone())),
            1 => Ok(selected),
            count => Err(DeadError::Ambiguous { prefix: id.clone(), count }),
        }
    }

    /// Removes the messages with `tags`, in rising order: those at the head of the queue at once, others in batches.
    async fn acknowledge(&mut self, tags: &[u64]) -> Result<(), AmqpError> {
        self.kept = self.kept.saturating_sub(tags.len());
        let what = "remove a dead letter";
        let head = tags.iter().zip(self.removed_up_to + 1..).take_while(|(tag, next)| **tag == *next).count();
        if let Some(last) = head.checked_sub(1).and_then(|last| tags.get(last)) {
            link::reply(what, self.channel.basic_ack(*last, BasicAckOptions { multiple: true })).await?;
            self.removed_up_to = *last;
        }
        for batch in tags[head..].chunks(ACK_BATCH) {
            for tag in batch {
                link::reply(what, self.channel.basic_ack(*tag, BasicAckOptions::default())).await?;
            }
            tokio::time::sleep(ACK_PAUSE).await;
        }
        Ok(())
    }

    /// Gives back what was not removed and waits until it is in the queue again: the broker answers the closing of the
    /// channel before that, and who looks next would find nothing.
    async fn close(self) {
        let _ = link::reply("close a channel", self.channel.close(200, "read".into())).await;
        if self.kept > 0
            && let Ok(channel) = link::open_channel(&self.connection).await
        {
            let back = async {
                while waiting(&channel).await.is_ok_and(|waiting| waiting < self.kept) {
                    tokio::time::sleep(RETURN_PAUSE).await;
                }
            };
            // Somebody else may have taken some of them by now.
            let _ = tokio::time::timeout(RETURN_DEADLINE, back).await;
        }
        link::close(self.connection).await;
    }
}

/// How many dead letters lie in the queue and are with nobody.
async fn waiting(channel: &Channel) -> Result<usize, AmqpError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looking = channel.queue_declare(ShortString::from(ENGINE_DEAD), passive, FieldTable::default());
    Ok(link::reply("look at the dead letters", looking).await?.message_count() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_turns_back_into_the_message_that_it_was() {
        let delivery = Delivery {
            message_id: Some("m1".into()),
            content_type: Some("application/json".into()),
            headers: BTreeMap::from([("own".to_owned(), "kept".to_owned())]),
            ..Delivery::local("canopsis.events", "a.b.c", Bytes::from_static(b"{"))
        };
        let letter = dead_letter(&delivery, "Engine_events", "malformed", "eof at 1", Timestamp(7));
        let received = Delivery {
            headers: letter.headers.clone(),
            message_id: Some(letter.message_id.clone()),
            content_type: Some(letter.content_type.clone()),
            ..Delivery::local(&letter.exchange, letter.routing_key.as_str(), letter.body)
        };
        let letter = DeadLetter::from_delivery(received);
        assert_eq!(
            (letter.reason.as_str(), letter.detail.as_str(), letter.at),
            ("malformed", "eof at 1", Some(Timestamp(7)))
        );
        let again = letter.again();
        assert_eq!((again.exchange.as_str(), again.routing_key.as_str()), ("canopsis.events", "a.b.c"));
        assert_eq!((again.message_id.as_str(), &again.body[..]), ("m1", &b"{"[..]));
        let headers = [("own".to_owned(), "kept".to_owned()), (REPLAY.to_owned(), "1".to_owned())];
        assert_eq!(again.headers, BTreeMap::from(headers));
    }

    #[test]
    fn an_oversized_body_is_kept_whole_and_a_long_detail_is_cut_between_characters() {
        let whole = Bytes::from(vec![b'x'; 3000]);
        let delivery = Delivery { body: Bytes::new(), oversized: true, ..Delivery::local("e", "k", whole.clone()) };
        let letter = dead_letter(&delivery, "q", "oversized", &"é".repeat(1500), Timestamp(1));
        assert_eq!(letter.body, whole);
        assert!(letter.headers[DETAIL].len() <= MAX_DETAIL_BYTES);
        assert!(letter.headers[DETAIL].chars().all(|c| c == 'é'));
    }
}
