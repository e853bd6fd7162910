//! One connection to the broker, built from nothing.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{FieldTable, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};

use crate::config::AmqpConfig;
use crate::error::{AmqpError, is_precondition_failed};
use crate::topology::Topology;

/// How long the broker may take to answer a declaration or to close.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// The library keeps two buffers of 32 frames for each connection; the broker's offer of 128 KiB would make that
/// 8 MiB. Larger bodies travel in several frames.
const FRAME_BYTES: u32 = 16 * 1024;

/// Connects under `name`, which the broker shows.
pub(crate) async fn connect(config: &AmqpConfig, name: &str) -> Result<Connection, AmqpError> {
    let tls = match &config.tls {
        None => OwnedTLSConfig::default(),
        Some(tls) => {
            let pem = tokio::fs::read_to_string(&tls.ca_file)
                .await
                .map_err(|source| AmqpError::Certificates { path: tls.ca_file.display().to_string(), source })?;
            OwnedTLSConfig { identity: None, cert_chain: Some(pem) }
        }
    };
    let uri = AMQPUri {
        scheme: if config.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: config.user.clone(), password: config.password.clone() },
            host: config.host.clone(),
            port: config.port,
        },
        vhost: config.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_BYTES),
            heartbeat: Some(u16::try_from(config.heartbeat.as_secs()).unwrap_or(u16::MAX)),
            connection_timeout: Some(u64::try_from(config.connect_timeout.as_millis()).unwrap_or(u64::MAX)),
            ..AMQPQueryString::default()
        },
    };
    let runtime = lapin::runtime::default_runtime()
        .map_err(|source| AmqpError::Broker { what: "no runtime to connect on", source })?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(connected) => connected.map_err(|source| AmqpError::Connect { broker: config.broker(), source }),
        Err(_) => Err(AmqpError::Timeout { what: "connect", after: config.connect_timeout }),
    }
}

/// Opens a channel.
pub(crate) async fn open_channel(connection: &Connection) -> Result<Channel, AmqpError> {
    reply("open a channel", connection.create_channel()).await
}

/// Awaits the broker's answer, but not for ever.
pub(crate) async fn reply<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, AmqpError> {
    match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(|source| AmqpError::Broker { what, source }),
        Err(_) => Err(AmqpError::Timeout { what, after: REPLY_TIMEOUT }),
    }
}

/// A name as the protocol carries it.
pub(crate) fn short(what: &'static str, name: &str) -> Result<ShortString, AmqpError> {
    ShortString::try_new(name).map_err(|_| AmqpError::NameTooLong { what, bytes: name.len() })
}

/// Ends a connection politely if the broker still listens, and without waiting long if it does not.
pub(crate) async fn close(connection: Connection) {
    // The peer may be gone, which is what closing wants anyway.
    let _ = tokio::time::timeout(Duration::from_secs(2), connection.close(200, "bye".into())).await;
}

/// Declares the whole topology. What exists with other properties is logged, once per connection, and used as it is.
pub(crate) async fn declare(connection: &Connection, topology: &Topology) -> Result<(), AmqpError> {
    let mut channel = open_channel(connection).await?;
    for (name, kind) in &topology.exchanges {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let answer = channel.exchange_declare(ShortString::from(*name), kind.clone(), options, FieldTable::default());
        let answer = reply("declare an exchange", answer).await;
        differs(connection, &mut channel, "exchange", name, answer).await?;
    }
    for queue in &topology.queues {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let answer = channel.queue_declare(ShortString::from(queue.name), options, queue.arguments());
        let answer = reply("declare a queue", answer).await.map(|_| ());
        differs(connection, &mut channel, "queue", queue.name, answer).await?;
    }
    for (queue, exchange, key) in &topology.bindings {
        let answer = channel.queue_bind(
            ShortString::from(*queue),
            ShortString::from(*exchange),
            ShortString::from(*key),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        reply("bind a queue", answer).await?;
    }
    reply("close a channel", channel.close(200, "declared".into())).await
}

/// Lets a declaration pass that failed only because of other arguments; the broker closed the channel over it.
async fn differs(
    connection: &Connection,
    channel: &mut Channel,
    what: &'static str,
    name: &str,
    answer: Result<(), AmqpError>,
) -> Result<(), AmqpError> {
    match answer {
        Err(AmqpError::Broker { source, .. }) if is_precondition_failed(&source) => {
            tracing::error!(
                what,
                name,
                reason = %source,
                "exists with other arguments than configured, used as it is: delete it or restore the configuration"
            );
            *channel = open_channel(connection).await?;
            Ok(())
        }
        answer => answer,
    }
}
