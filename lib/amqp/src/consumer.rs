//! Takes messages from a queue in order, in batches, and comes back by itself when broker or channel go away.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use overstory_runtime::Shutdown;
use overstory_runtime::backoff::Backoff;
use tokio::time::Instant;

use crate::config::AmqpConfig;
use crate::delivery::{Delivery, DeliveryTag};
use crate::error::AmqpError;
use crate::link;
use crate::topology::Topology;

/// The most messages that may be unacknowledged.
pub const MAX_PREFETCH: u16 = 300;
/// How often a consumer that waits for acknowledgements looks whether its channel is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to consume and how much of it at once.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The queue.
    pub queue: String,
    /// The connection's name, shown by the broker.
    pub name: String,
    /// Messages that may be unacknowledged, 1 to [`MAX_PREFETCH`].
    pub prefetch: u16,
    /// Bytes of bodies that may be handed out and unacknowledged. One message always may, however large; when
    /// messages are so large that the budget stops the flow, the prefetch shrinks to what fits.
    pub byte_budget: usize,
    /// Larger bodies are handed out as `oversized`, without their body.
    pub max_body: usize,
    /// How long a batch waits for company after its first message.
    pub linger: Duration,
}

impl ConsumerOptions {
    /// The platform's usual limits: 300 messages, 16 MiB, bodies of 1 MiB, no linger.
    #[must_use]
    pub fn new(queue: &str, name: &str) -> Self {
        Self {
            queue: queue.to_owned(),
            name: name.to_owned(),
            prefetch: MAX_PREFETCH,
            byte_budget: 16 << 20,
            max_body: 1 << 20,
            linger: Duration::ZERO,
        }
    }
}

/// What [`Consumer::next`] has to tell.
#[derive(Debug)]
pub enum Consumed {
    /// A subscription began: everything unacknowledged before is void, and others may have worked meanwhile.
    ///
    /// With a single active consumer this does not say that we are the active one: the first delivery does.
    Subscribed,
    /// The messages that are there, at least one, in the queue's order.
    Batch(Vec<Delivery>),
    /// Connection or channel are gone, with the reason; `Subscribed` follows.
    Lost(String),
}

/// Why an acknowledgement was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The delivery belongs to a subscription that has ended: the broker delivers the message again.
    #[error("the delivery belongs to an earlier subscription")]
    Stale,
    /// The channel is gone: the broker delivers the message again.
    #[error("cannot acknowledge: {0}")]
    Lost(AmqpError),
}

struct Subscription {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
}

type Opening = Pin<Box<dyn Future<Output = Result<Box<Subscription>, AmqpError>> + Send>>;

enum State {
    /// Nothing is subscribed until then; the connection is kept if it is good.
    Paused {
        connection: Option<Box<Connection>>,
        until: Instant,
    },
    /// Kept here so that a caller may drop `next` and call it again without starting over.
    Opening(Opening),
    Subscribed(Box<Subscription>),
}

/// A subscription to one queue on a connection of its own.
pub struct Consumer {
    config: AmqpConfig,
    options: ConsumerOptions,
    shutdown: Shutdown,
    state: State,
    backoff: Backoff,
    generation: u64,
    /// Deliveries handed out and not acknowledged: tag and size.
    unacked: VecDeque<(u64, usize)>,
    unacked_bytes: usize,
    acked_up_to: u64,
    /// What was taken from the stream and not handed out yet.
    batch: Vec<Delivery>,
    batch_bytes: usize,
    batch_due: Option<Instant>,
    prefetch: Prefetch,
    /// Tells of a loss that another call than `next` met.
    lost: Option<String>,
}

impl Consumer {
    /// Makes a consumer; it connects when [`Self::next`] is first called.
    #[must_use]
    pub fn start(config: AmqpConfig, options: ConsumerOptions, shutdown: Shutdown) -> Self {
        let prefetch = Prefetch::new(options.prefetch.clamp(1, MAX_PREFETCH), options.byte_budget);
        Self {
            config,
            options,
            shutdown,
            state: State::Paused { connection: None, until: Instant::now() },
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            generation: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            acked_up_to: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_due: None,
            prefetch,
            lost: None,
        }
    }

    /// Waits for what comes next; `None` once shutdown was asked for. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Option<Consumed> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => None,
            consumed = self.advance() => Some(consumed),
        }
    }

    async fn advance(&mut self) -> Consumed {
        loop {
            if let Some(reason) = self.lost.take() {
                return Consumed::Lost(reason);
            }
            match &mut self.state {
                State::Paused { connection, until } => {
                    tokio::time::sleep_until(*until).await;
                    let subscribing =
                        subscribe(connection.take(), self.config.clone(), self.options.clone(), self.prefetch.current);
                    self.state = State::Opening(Box::pin(subscribing));
                }
                State::Opening(opening) => match opening.await {
                    Ok(subscription) => {
                        self.backoff.reset();
                        self.end_generation(State::Subscribed(subscription));
                        return Consumed::Subscribed;
                    }
                    Err(error) => {
                        let delay = self.backoff.next_delay();
                        tracing::warn!(queue = self.options.queue, %error, "cannot subscribe, trying again");
                        self.state = State::Paused { connection: None, until: Instant::now() + delay };
                    }
                },
                State::Subscribed(subscription) => {
                    if !subscription.channel.status().connected() {
                        self.lose("the channel was closed".to_owned());
                        continue;
                    }
                    if let Some(prefetch) = self.prefetch.wanted(self.unacked.is_empty() && self.batch.is_empty()) {
                        tracing::info!(queue = self.options.queue, prefetch, "prefetch adapted to message size");
                        self.hand_back(Duration::ZERO).await;
                        continue;
                    }
                    if let Some(consumed) = self.collect().await {
                        return consumed;
                    }
                }
            }
        }
    }

    /// Takes from the stream what is there and fits, waiting for the first message only.
    async fn collect(&mut self) -> Option<Consumed> {
        let State::Subscribed(subscription) = &mut self.state else { return None };
        let most = usize::from(self.options.prefetch);
        loop {
            let held = self.unacked_bytes + self.batch_bytes;
            if held >= self.options.byte_budget || self.batch.len() >= most {
                if !self.batch.is_empty() {
                    break;
                }
                // Nothing more fits: only an acknowledgement or a loss can change that.
                self.prefetch.squeezed();
                tokio::time::sleep(LOOK_EVERY).await;
                return None;
            }
            let next = match (self.batch.is_empty(), self.batch_due) {
                (true, _) => subscription.stream.next().await,
                (false, None) => match subscription.stream.next().now_or_never() {
                    Some(next) => next,
                    None if self.options.linger.is_zero() => break,
                    None => {
                        self.batch_due = Some(Instant::now() + self.options.linger);
                        continue;
                    }
                },
                (false, Some(due)) => match tokio::time::timeout_at(due, subscription.stream.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Ok(delivery)) => {
                    let delivery = Delivery::from_broker(delivery, self.generation, self.options.max_body);
                    self.batch_bytes += delivery.size;
                    self.batch.push(delivery);
                }
                // What was collected cannot be acknowledged any more: the broker delivers it again.
                Some(Err(error)) => {
                    self.lose(error.to_string());
                    return None;
                }
                None => {
                    self.lose("the broker ended the subscription".to_owned());
                    return None;
                }
            }
        }
        let batch = std::mem::take(&mut self.batch);
        self.prefetch.saw(batch.len(), self.batch_bytes);
        self.unacked_bytes += std::mem::take(&mut self.batch_bytes);
        self.batch_due = None;
        self.unacked.extend(batch.iter().map(|delivery| (delivery.tag.tag, delivery.size)));
        Some(Consumed::Batch(batch))
    }

    /// Acknowledges this delivery and all before it; those that were already are left alone.
    ///
    /// # Errors
    /// The delivery is of an earlier subscription, or the connection is lost; the broker then delivers again.
    pub async fn ack_up_to(&mut self, tag: &DeliveryTag) -> Result<(), ConsumeError> {
        let State::Subscribed(subscription) = &self.state else { return Err(ConsumeError::Stale) };
        if tag.generation != self.generation {
            return Err(ConsumeError::Stale);
        }
        if tag.tag <= self.acked_up_to {
            return Ok(());
        }
        let ack = subscription.channel.basic_ack(tag.tag, BasicAckOptions { multiple: true });
        match link::reply("acknowledge", ack).await {
            Ok(()) => {
                self.acked_up_to = tag.tag;
                while let Some((_, size)) = self.unacked.pop_front_if(|(unacked, _)| *unacked <= tag.tag) {
                    self.unacked_bytes -= size;
                }
                Ok(())
            }
            Err(error) => {
                self.lose(error.to_string());
                Err(ConsumeError::Lost(error))
            }
        }
    }

    /// Gives all that is unacknowledged back, in order, to us or a standby, and subscribes again after `pause`.
    ///
    /// Done by closing the channel: a negative acknowledgement would send each message to the end of the queue.
    pub async fn hand_back(&mut self, pause: Duration) {
        let paused = State::Paused { connection: None, until: Instant::now() + pause };
        let State::Subscribed(subscription) = self.end_generation(paused) else { return };
        let Subscription { connection, channel, stream } = *subscription;
        drop(stream);
        let closing = tokio::time::timeout(Duration::from_secs(2), channel.close(200, "handed back".into()));
        let closed = matches!(closing.await, Ok(Ok(())));
        if let State::Paused { connection: kept, .. } = &mut self.state
            && closed
        {
            *kept = Some(Box::new(connection));
        }
    }

    /// Whether the queue is subscribed to at this moment; of several consumers perhaps only as a standby.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        matches!(&self.state, State::Subscribed(subscription) if subscription.channel.status().connected())
    }

    /// Closes the connection; what is unacknowledged goes back to the queue.
    pub async fn close(mut self) {
        let state = self.end_generation(State::Paused { connection: None, until: Instant::now() });
        let connection = match state {
            State::Subscribed(subscription) => subscription.connection,
            State::Paused { connection: Some(connection), .. } => *connection,
            State::Paused { connection: None, .. } | State::Opening(_) => return,
        };
        link::close(connection).await;
    }

    fn lose(&mut self, reason: String) {
        self.lost = Some(reason);
        self.end_generation(State::Paused { connection: None, until: Instant::now() });
    }

    /// Enters `state`; nothing of before can be acknowledged from here on.
    fn end_generation(&mut self, state: State) -> State {
        self.generation += 1;
        self.unacked.clear();
        self.unacked_bytes = 0;
        self.acked_up_to = 0;
        self.batch.clear();
        self.batch_bytes = 0;
        self.batch_due = None;
        std::mem::replace(&mut self.state, state)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("options", &self.options)
            .field("generation", &self.generation)
            .field("unacked", &self.unacked.len())
            .finish_non_exhaustive()
    }
}

async fn subscribe(
    connection: Option<Box<Connection>>,
    config: AmqpConfig,
    options: ConsumerOptions,
    prefetch: u16,
) -> Result<Box<Subscription>, AmqpError> {
    let queue = link::short("the queue's name", &options.queue)?;
    let connection = match connection {
        Some(connection) => *connection,
        None => {
            let connection = link::connect(&config, &options.name).await?;
            link::declare(&connection, &Topology::new(&config.queues)).await?;
            connection
        }
    };
    let channel = link::open_channel(&connection).await?;
    link::reply("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let tag = lapin::types::ShortString::default();
    let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
    let stream = link::reply("consume", consuming).await?;
    Ok(Box::new(Subscription { connection, channel, stream }))
}

/// Keeps what the broker may send ahead within the byte budget: it counts messages only, so their size decides.
#[derive(Debug)]
struct Prefetch {
    most: u16,
    budget: usize,
    current: u16,
    squeezed: bool,
    messages: usize,
    bytes: usize,
}

impl Prefetch {
    /// The size is looked at after so many messages.
    const SAMPLE: usize = 1000;

    fn new(most: u16, budget: usize) -> Self {
        Self { most, budget, current: most, squeezed: false, messages: 0, bytes: 0 }
    }

    const fn squeezed(&mut self) {
        self.squeezed = true;
    }

    const fn saw(&mut self, messages: usize, bytes: usize) {
        self.messages += messages;
        self.bytes += bytes;
    }

    /// The prefetch to subscribe with anew, when that is worth the interruption and nothing is unacknowledged.
    fn wanted(&mut self, idle: bool) -> Option<u16> {
        if !idle || self.messages == 0 || !(self.squeezed || self.messages >= Self::SAMPLE) {
            return None;
        }
        let mean = (self.bytes / self.messages).max(1);
        let fits = u16::try_from(self.budget / mean).unwrap_or(u16::MAX).clamp(1, self.most);
        let squeezed = std::mem::take(&mut self.squeezed);
        (self.messages, self.bytes) = (0, 0);
        let change = if squeezed { fits < self.current } else { fits / 2 >= self.current };
        change.then(|| {
            self.current = fits;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefetch_follows_the_size_of_messages() {
        let mut prefetch = Prefetch::new(300, 16 << 20);
        prefetch.saw(16, 16 << 20);
        assert_eq!(prefetch.wanted(true), None, "the budget was not met yet");
        prefetch.squeezed();
        assert_eq!(prefetch.wanted(false), None, "something is unacknowledged");
        assert_eq!(prefetch.wanted(true), Some(16));
        prefetch.saw(999, 999 * 200);
        assert_eq!(prefetch.wanted(true), None, "too few to judge");
        prefetch.saw(1, 200);
        assert_eq!(prefetch.wanted(true), Some(300));
        prefetch.saw(5000, 5000 * 200);
        assert_eq!(prefetch.wanted(true), None);
    }
}
