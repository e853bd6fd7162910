//! How full the queues are.

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::config::AmqpConfig;
use crate::error::{AmqpError, is_not_found};
use crate::link;

/// What the broker says about a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCount {
    /// Its name.
    pub name: String,
    /// Messages that wait to be delivered; those delivered and unacknowledged are not among them.
    pub ready: u32,
    /// Consumers; of a single active consumer's queue the standbys too.
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
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(link::short("the queue's name", name)?, options, FieldTable::default());
        match link::reply("look at a queue", declared).await {
            Ok(queue) => counts.push(QueueCount {
                name: (*name).to_owned(),
                ready: queue.message_count(),
                consumers: queue.consumer_count(),
            }),
            Err(AmqpError::Broker { source, .. }) if is_not_found(&source) => {
                channel = link::open_channel(&connection).await?;
            }
            Err(error) => return Err(error),
        }
    }
    link::close(connection).await;
    Ok(counts)
}
