//! The connection of a publisher.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use lapin::options::{ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Event, ExchangeKind};
use tokio::time::Instant;

use crate::config::AmqpConfig;
use crate::error::{AmqpError, is_not_found};
use crate::link;
use crate::message::cut;
use crate::topology::Topology;

/// A connection in use.
pub(super) struct Up {
    pub(super) connection: Connection,
    pub(super) channel: Arc<Channel>,
    pub(super) events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    /// Exchanges that were seen to exist; publishing to another would cost the channel.
    pub(super) known: HashSet<String>,
}

pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Box<Up>, AmqpError>> + Send>>;

pub(super) enum Link {
    Down { until: Instant },
    Opening { since: Instant, opening: Opening },
    Up(Box<Up>),
}

/// Connects, declares the topology and opens a confirming channel.
pub(super) async fn open(config: AmqpConfig, name: String, topology: Topology) -> Result<Box<Up>, AmqpError> {
    let connection = link::connect(&config, &name).await?;
    link::declare(&connection, &topology).await?;
    let channel = link::open_channel(&connection).await?;
    link::reply("ask for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let events = Box::pin(connection.events_listener());
    Ok(Box::new(Up { connection, channel: Arc::new(channel), events, known: HashSet::new() }))
}

/// Whether the exchange exists; asked on a channel of its own, since the answer no ends it.
pub(super) async fn knows(up: &mut Up, topology: &Topology, exchange: &str) -> Result<bool, AmqpError> {
    if topology.has_exchange(exchange) || up.known.contains(exchange) {
        return Ok(true);
    }
    let channel = link::open_channel(&up.connection).await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let looking = channel.exchange_declare(cut(exchange), ExchangeKind::Topic, options, FieldTable::default());
    match link::reply("look for the exchange", looking).await {
        Ok(()) => {
            up.known.insert(exchange.to_owned());
            link::reply("close a channel", channel.close(200, "seen".into())).await?;
            Ok(true)
        }
        Err(AmqpError::Broker { source, .. }) if is_not_found(&source) => Ok(false),
        Err(error) => Err(error),
    }
}
