//! How full the queues are.

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use crate::config::AmqpConfig;
use crate::error::{AmqpError, is_not_found};
use crate::link;
use crate::topology::{ARCHIVE_DROPPED, ENGINE_ARCHIVE, EVENTS};

/// What the broker says about a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCount {
    /// Its name.
    pub name: String,
    /// Messages that wait to be delivered; those delivered and unacknowledged are not among them.
    pub ready: u32,
    /// Consumers that the broker delivers to; of a single active consumer's queue the one, its standbys are not counted.
    pub consumers: u32,
}

/// Asks for each of `names`; queues that do not exist are left out.
///
/// # Errors
/// The broker is away or refuses us.
pub async fn queue_counts(config: &AmqpConfig, names: &[&str]) -> Result<Vec<QueueCount>, AmqpError> {
    let connection = link::connect(config, "overstory queue counts").await?;
    let mut counts = Vec::with_capacity(names.len());
    let mut channel = link::open_channel(&connection).await?;
    for name in names {
        match count(&channel, name).await? {
            Some(count) => counts.push(count),
            // The broker closed the channel over it.
            None => channel = link::open_channel(&connection).await?,
        }
    }
    link::close(connection).await;
    Ok(counts)
}

async fn count(channel: &Channel, name: &str) -> Result<Option<QueueCount>, AmqpError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let declared = channel.queue_declare(link::short("the queue's name", name)?, options, FieldTable::default());
    match link::reply("look at a queue", declared).await {
        Ok(queue) => Ok(Some(QueueCount {
            name: name.to_owned(),
            ready: queue.message_count(),
            consumers: queue.consumer_count(),
        })),
        Err(AmqpError::Broker { source, .. }) if is_not_found(&source) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What became of the queue of an event archive that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// There is none.
    Absent,
    /// Somebody takes it; it was left alone.
    InUse,
    /// It gets no more events; so many are still in it.
    Kept(u32),
    /// It was empty and is gone.
    Deleted,
}

/// Sees to it that the queue of an event archive that is switched off does not fill: takes its binding away, and the queue
/// too if nothing is in it. Declared again it goes on with what was left in it.
///
/// # Errors
/// The broker is away or refuses us.
pub async fn retire_archive(config: &AmqpConfig) -> Result<Retired, AmqpError> {
    let connection = link::connect(config, "overstory archive").await?;
    let channel = link::open_channel(&connection).await?;
    let retired = match count(&channel, ENGINE_ARCHIVE).await? {
        None => Retired::Absent,
        Some(queue) if queue.consumers > 0 => Retired::InUse,
        Some(_) => {
            let queue = || link::short("the queue's name", ENGINE_ARCHIVE);
            let exchange = link::short("the exchange's name", EVENTS)?;
            let unbound = channel.queue_unbind(queue()?, exchange, "#".into(), FieldTable::default());
            link::reply("take a binding away", unbound).await?;
            match count(&channel, ENGINE_ARCHIVE).await?.map(|queue| queue.ready) {
                Some(ready) if ready > 0 => Retired::Kept(ready),
                _ => {
                    for name in [ENGINE_ARCHIVE, ARCHIVE_DROPPED] {
                        let name = link::short("the queue's name", name)?;
                        // Quorum queues do not know the option `if_empty`.
                        let deleted = channel.queue_delete(name, QueueDeleteOptions::default());
                        link::reply("delete a queue", deleted).await?;
                    }
                    Retired::Deleted
                }
            }
        }
    };
    link::close(connection).await;
    Ok(retired)
}
