//! What the tests against a broker share.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use overstory_amqp::topology::EVENTS;
use overstory_amqp::{
    AmqpConfig, Consumed, Consumer, ConsumerOptions, Delivery, Outgoing, Publisher, PublisherOptions, SpoolOptions,
};
use overstory_model::RoutingKey;
use overstory_runtime::Shutdown;
use tokio::time::Instant;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An event whose body is its number.
pub(crate) fn numbered(number: u32) -> Outgoing {
    Outgoing::json(EVENTS, RoutingKey::from_words(["test", "n"]), Bytes::from(number.to_string()))
}

pub(crate) fn options(name: &str, window: usize, spool: Option<(&Path, u64)>) -> PublisherOptions {
    let spool = spool.map(|(dir, max_bytes)| SpoolOptions { dir: dir.to_owned(), max_bytes });
    PublisherOptions { name: name.to_owned(), window, spool }
}

/// A publisher that has yet to connect. What it is given before it has, it refuses or spools after a second, and to
/// connect and declare takes longer on a busy machine.
pub(crate) fn starting(config: &AmqpConfig, options: PublisherOptions) -> Publisher {
    Publisher::start(config.clone(), options, Shutdown::new()).unwrap()
}

/// A publisher without a spool that is connected.
pub(crate) async fn publisher(config: &AmqpConfig, name: &str, window: usize) -> Publisher {
    connected(starting(config, options(name, window, None))).await
}

/// A publisher with a spool that is connected.
pub(crate) async fn spooling(config: &AmqpConfig, name: &str, dir: &Path, max_bytes: u64) -> Publisher {
    connected(starting(config, options(name, 32, Some((dir, max_bytes))))).await
}

async fn connected(publisher: Publisher) -> Publisher {
    until("the publisher to connect", || publisher.is_connected()).await;
    publisher
}

pub(crate) fn consumer(config: &AmqpConfig, queue: &str, prefetch: u16) -> Consumer {
    let options = ConsumerOptions { prefetch, ..ConsumerOptions::new(queue, "test consumer") };
    Consumer::start(config.clone(), options, Shutdown::new())
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The next thing that a consumer tells.
pub(crate) async fn next(consumer: &mut Consumer) -> Consumed {
    tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap()
}

/// The next batch, whatever happens before it.
pub(crate) async fn next_batch(consumer: &mut Consumer) -> Vec<Delivery> {
    loop {
        if let Consumed::Batch(batch) = next(consumer).await {
            return batch;
        }
    }
}

/// Takes messages out of a queue and acknowledges them.
pub(crate) struct Inbox(Consumer);

impl Inbox {
    pub(crate) fn open(config: &AmqpConfig, queue: &str) -> Self {
        Self(consumer(config, queue, 100))
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let batch = next_batch(&mut self.0).await;
            self.0.ack_up_to(&batch.last().unwrap().tag).await.unwrap();
            taken.extend(batch);
        }
        taken
    }

    pub(crate) async fn take_numbers(&mut self, count: usize) -> Vec<u32> {
        self.take(count).await.iter().map(number).collect()
    }
}

/// The number that a message carries.
pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.body).unwrap().parse().unwrap()
}

/// Waits for a condition that has to be asked for.
pub(crate) async fn until_async<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The processor time of this thread so far; the tests' tasks run on their test's thread.
pub(crate) fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
