//! Listening in: a queue of one's own that lives as long as the listener.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use overstory_runtime::Shutdown;
use overstory_runtime::backoff::Backoff;
use tokio::sync::mpsc;

use crate::config::AmqpConfig;
use crate::delivery::Delivery;
use crate::error::{AmqpError, is_not_found};
use crate::link;
use crate::topology::Topology;

/// The broker keeps so many messages for a listener that does not keep up; then the oldest go.
const MAX_WAITING: i64 = 10_000;
const PREFETCH: u16 = 200;

/// A live copy of what passes an exchange.
#[derive(Debug)]
pub struct Tail {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
    unacked: u16,
}

/// Subscribes to what `exchange` routes by `pattern`, from now on. `name` is the connection's name.
///
/// # Errors
/// [`AmqpError::NotFound`] when there is no such exchange; the broker is away or refuses us.
pub async fn subscribe(config: &AmqpConfig, name: &str, exchange: &str, pattern: &str) -> Result<Tail, AmqpError> {
    let connection = link::connect(config, name).await?;
    attach(connection, exchange, pattern).await
}

async fn attach(connection: Connection, exchange: &str, pattern: &str) -> Result<Tail, AmqpError> {
    let wanted = link::short("the exchange's name", exchange)?;
    let pattern = link::short("the pattern", pattern)?;
    let channel = link::open_channel(&connection).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let found = channel.exchange_declare(wanted.clone(), ExchangeKind::Topic, passive, FieldTable::default());
    match link::reply("look for the exchange", found).await {
        Err(AmqpError::Broker { source, .. }) if is_not_found(&source) => {
            link::close(connection).await;
            return Err(AmqpError::NotFound { what: "exchange", name: exchange.to_owned() });
        }
        found => found?,
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_WAITING));
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let queue = link::reply("declare a queue", channel.queue_declare(ShortString::default(), options, arguments));
    let queue = queue.await?.name().clone();
    let binding = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.clone(), wanted, pattern, binding, FieldTable::default());
    link::reply("bind a queue", bound).await?;
    link::reply("set the prefetch", channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let tag = ShortString::default();
    let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
    let stream = link::reply("consume", consuming).await?;
    Ok(Tail { connection, channel, stream, unacked: 0 })
}

impl Tail {
    /// The next message.
    ///
    /// # Errors
    /// The connection is lost; the queue is gone with it.
    pub async fn next(&mut self) -> Result<Delivery, AmqpError> {
        let lost = |source| AmqpError::Broker { what: "listen", source };
        let delivery = match self.stream.next().await {
            Some(delivery) => delivery.map_err(lost)?,
            None => {
                let reason = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the broker ended it");
                return Err(lost(reason.into()));
            }
        };
        self.unacked += 1;
        if self.unacked >= PREFETCH / 2 {
            let ack = self.channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true });
            link::reply("acknowledge", ack).await?;
            self.unacked = 0;
        }
        Ok(Delivery::from_broker(delivery, 0, usize::MAX))
    }

    /// Ends the connection, and the queue with it.
    pub async fn close(self) {
        link::close(self.connection).await;
    }
}

/// What [`follow`] sends.
#[derive(Debug)]
pub enum Followed {
    /// Listening began or began again: messages before now may have been missed.
    Subscribed,
    /// A message.
    Message(Box<Delivery>),
}

/// Keeps listening to `exchange` across losses of the broker, until shutdown or until the receiver is dropped.
#[must_use]
pub fn follow(
    config: AmqpConfig,
    name: &str,
    exchange: &'static str,
    pattern: &'static str,
    shutdown: Shutdown,
) -> mpsc::Receiver<Followed> {
    let (sender, receiver) = mpsc::channel(64);
    let name = name.to_owned();
    tokio::spawn(async move {
        let following = async {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            loop {
                match listen(&config, &name, exchange, pattern, &sender, &mut backoff).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(exchange, %error, "not listening, trying again"),
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        tokio::select! {
            () = shutdown.requested() => {}
            () = sender.closed() => {}
            () = following => {}
        }
    });
    receiver
}

/// Ends well when nobody listens any more.
async fn listen(
    config: &AmqpConfig,
    name: &str,
    exchange: &str,
    pattern: &str,
    sender: &mpsc::Sender<Followed>,
    backoff: &mut Backoff,
) -> Result<(), AmqpError> {
    let connection = link::connect(config, name).await?;
    link::declare(&connection, &Topology::new(&config.queues)).await?;
    let mut tail = attach(connection, exchange, pattern).await?;
    backoff.reset();
    let mut followed = Followed::Subscribed;
    while sender.send(followed).await.is_ok() {
        followed = Followed::Message(Box::new(tail.next().await?));
    }
    Ok(())
}
