//! Into the queues.

use std::io::StdinLock;
use std::os::unix::ffi::OsStrExt as _;
use std::{io, pin::pin};

use anyhow::Context as _;
use overstory_client::DmqClient;
use overstory_runtime::program;
use tokio::sync::mpsc::error::TryRecvError;

use super::{Channels, Push, Records};
use crate::swarm::FAILED;
use crate::swarm::bulk::{self, Bulk};
use crate::swarm::commands::living;
use crate::swarm::input::{self, BadInput};

/// Pushes one record, or those of standard input.
pub(super) async fn push(client: &DmqClient, push: &Push) -> anyhow::Result<u8> {
    let channels = push.channels.names();
    if let Some(value) = &push.value {
        client.push_multi(&channels, value.as_bytes()).await?;
        return Ok(0);
    }
    // Many that wait for a node do not keep their order.
    client.any_ready().await?;
    let channels = &channels;
    let send = |record: Vec<u8>| async move {
        let pushed = client.push_multi(channels, &record).await;
        (record.len() as u64, pushed)
    };
    let bulk = Bulk { in_flight: push.in_flight as usize, done: "pushed", ..push.records.bulk() };
    bulk::send_all(&bulk, push.records.reader(), |record| push.records.parse(record).map(Some), send).await
}

/// Streams the records of standard input; what the nodes have taken is known at the end.
pub(super) async fn produce(client: &DmqClient, channels: &Channels, format: Records) -> anyhow::Result<u8> {
    let mut producer = client.produce(&channels.names())?;
    let bulk = format.bulk();
    let mut records = bulk::records(&bulk, format.reader());
    let mut interrupted = pin!(program::interrupted());
    let (mut number, mut code, mut ended) = (0u64, 0, None);
    loop {
        let next = match records.try_recv() {
            Ok(record) => Some(record),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                // Nothing waits here while nothing comes.
                producer.flush().await.with_context(|| format!("gave up after {} {number}", bulk.unit))?;
                tokio::select! {
                    record = records.recv() => record,
                    _ = &mut interrupted => {
                        ended = Some(anyhow::anyhow!("interrupted after {} {number}", bulk.unit));
                        None
                    }
                }
            }
        };
        let record = match next {
            None => break,
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                ended = Some(anyhow::Error::new(error).context(format!("{} {}", bulk.unit, number + 1)));
                break;
            }
        };
        number += 1;
        match format.parse(record) {
            // What is lost with a node is not to be told line by line.
            Ok(record) => {
                producer.send(&record).await.with_context(|| format!("gave up at {} {number}", bulk.unit))?;
            }
            Err(error) => {
                eprintln!("swarm: {} {number}: {error}", bulk.unit);
                code = FAILED;
            }
        }
    }
    let (told, lost) = living(producer.finish().await);
    let taken: u64 = told.into_iter().map(|(_, taken)| taken).sum();
    eprintln!("{taken} records produced");
    match ended {
        Some(error) => Err(error.context("standard input was not read to its end")),
        None => Ok(code.max(lost)),
    }
}

impl Records {
    const fn bulk(self) -> Bulk {
        let unit = if self.binary { "record" } else { "line" };
        Bulk { in_flight: 1, unit, each: "record", done: "produced" }
    }

    fn reader(self) -> impl Fn(&mut StdinLock<'static>) -> io::Result<Option<Vec<u8>>> + Send + 'static {
        move |input| if self.binary { input::frame(input) } else { input::line(input) }
    }

    fn parse(self, record: Vec<u8>) -> Result<Vec<u8>, BadInput> {
        let value = if self.binary { record } else { input::value_of(record, self.format)? };
        if value.is_empty() { Err(BadInput::Empty) } else { Ok(value) }
    }
}
