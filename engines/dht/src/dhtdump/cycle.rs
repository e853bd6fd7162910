//! One cycle: every channel of the node, one after the other.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use overstory_client::dht::{Batch, Records, Selection};
use overstory_client::{ClientConfig, DhtClient, Protocol, Registry};
use tokio::sync::mpsc;

use super::progress::{KEY_LENGTH, Progress, RECORD_OVERHEAD, Written};
use crate::dump::{DataDir, DumpError, DumpFile, DumpOptions};

/// How long the node may take for each answer and each batch.
const ANSWER: Duration = Duration::from_secs(60);
/// Batches between the connection and the disk.
const QUEUE: usize = 8;

/// Dumps every channel of the node.
///
/// A channel that the disk refuses is left out, and the others are dumped nevertheless: their old files may be the only
/// good ones. Trouble with the node ends the cycle.
///
/// # Errors
/// What went wrong; no file was replaced by one that is not complete.
pub(super) async fn run(
    node: SocketAddrV4,
    dir: &DataDir,
    options: DumpOptions,
    progress: &Progress,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let client = connect(node).await?;
    let channels = client.channels().await.context("cannot read the channels")?;
    let mut failed = Vec::new();
    for channel in &channels {
        tracing::info!(target: "dhtdump.DumpCycle", %channel, "dumping channel");
        *progress.current.borrow_mut() = Some(channel.clone());
        let dumped = dump_channel(&client, channel, dir, options, progress).await;
        *progress.current.borrow_mut() = None;
        match dumped {
            Ok(Some(written)) => {
                progress.done(channel, written);
                let Written { records, bytes } = written;
                tracing::info!(target: "dhtdump.DumpCycle", %channel, records, bytes, "channel dumped");
            }
            Ok(None) => {
                tracing::info!(target: "dhtdump.DumpCycle", %channel, "channel was removed meanwhile");
            }
            Err(error) if error.is::<DumpError>() => {
                let cause = overstory_runtime::program::chain(error.as_ref());
                tracing::error!(target: "dhtdump.DumpCycle", %channel, %cause, "channel cannot be written");
                failed.push(format!("{channel}: {cause}"));
            }
            Err(error) => return Err(error.context(format!("cannot dump channel {channel}"))),
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} channels could not be written: {}", failed.len(), channels.len(), failed.join("; "));
    }
    let took = begun.elapsed();
    progress.complete(&channels, took);
    let time_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(target: "dhtdump.DumpCycle", channels = channels.len(), time_ms, "dump cycle finished");
    Ok(())
}

async fn connect(node: SocketAddrV4) -> anyhow::Result<DhtClient> {
    let mut nodes = Registry::new();
    nodes.add(node)?;
    // One node rarely covers all keys, and need not: every request here is for the node itself.
    let protocol = Protocol::Legacy { gaps: true };
    let config = ClientConfig { protocol, connections: 2, request_timeout: ANSWER, ..ClientConfig::legacy(nodes) };
    Ok(DhtClient::connect(config).await?)
}

/// Dumps a channel; none if the node has removed it meanwhile.
async fn dump_channel(
    client: &DhtClient,
    channel: &str,
    dir: &DataDir,
    options: DumpOptions,
    progress: &Progress,
) -> anyhow::Result<Option<Written>> {
    let records = client.get_all(channel, &Selection::default())?;
    let (tx, rx) = mpsc::channel(QUEUE);
    let (dir, name) = (dir.clone(), channel.to_owned());
    // The disk has a thread of its own; it is over, and its file gone, before the next channel begins.
    let writer = tokio::task::spawn_blocking(move || write(&dir, &name, options, rx));
    let read = forward(records, tx, client, channel, progress).await;
    let written = writer.await.context("the writing thread ended")?;
    match (read, written) {
        // The disk's trouble comes first: the reader then only saw that nobody takes its records.
        (_, Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error),
        (Ok(written), Ok(true)) => Ok(Some(written)),
        (Ok(_), Ok(false)) => Ok(None),
    }
}

/// What the writing thread gets.
enum Piece {
    Records(Batch),
    /// The channel is complete: only this makes the file take the old one's place.
    Complete,
}

async fn forward(
    mut records: Records,
    tx: mpsc::Sender<Piece>,
    client: &DhtClient,
    channel: &str,
    progress: &Progress,
) -> anyhow::Result<Written> {
    let mut written = Written::default();
    while let Some(batch) = records.next().await {
        let batch = batch?;
        let count = batch.len() as u64;
        let values: u64 = batch.records().map(|(_, value)| value.len() as u64).sum();
        let bytes = values + count * (KEY_LENGTH + RECORD_OVERHEAD);
        if tx.send(Piece::Records(batch)).await.is_err() {
            bail!("the file cannot be written");
        }
        written = Written { records: written.records + count, bytes: written.bytes + bytes };
        progress.add(count, bytes);
    }
    // A channel removed in between ended early, and its file must not come back at the node's next start.
    if client.channels().await?.iter().any(|name| name == channel) && tx.send(Piece::Complete).await.is_err() {
        bail!("the file cannot be written");
    }
    Ok(written)
}

/// Writes the file of a channel; whether it was completed.
fn write(
    dir: &DataDir,
    channel: &str,
    options: DumpOptions,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<bool, DumpError> {
    let mut file = DumpFile::create(dir, channel, options)?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Records(batch) => batch.records().try_for_each(|(key, value)| file.record(key, value))?,
            Piece::Complete => return file.commit().map(|_| true),
        }
    }
    // The reader gave up: the temporary file goes with this.
    Ok(false)
}
