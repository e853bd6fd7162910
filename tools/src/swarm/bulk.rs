//! Sending the records of standard input, many at a time.

use std::io::{self, IsTerminal as _, StdinLock};
use std::pin::pin;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use overstory_client::Error;
use overstory_runtime::program;
use tokio::sync::mpsc;

use super::FAILED;
use super::input::BadInput;
use super::output::Progress;

/// Records that failed are named up to this many.
const NAMED_FAILURES: u64 = 10;
/// Lines that wait to be sent.
const LINES: usize = 1024;
/// Bytes of the input that are under way at a time, about: less than a connection takes at once, so that no record waits
/// while a later one is sent.
const MAX_UNDER_WAY: usize = 4 << 20;

/// How records are sent.
pub(super) struct Bulk {
    /// So many are under way at a time.
    pub(super) in_flight: usize,
    /// What is counted: lines or records.
    pub(super) unit: &'static str,
    /// What one is.
    pub(super) each: &'static str,
    /// What was done with those that did not fail.
    pub(super) done: &'static str,
}

/// Reads standard input on a thread of its own. The last entry is how it ended, if that was not well.
pub(super) fn records(
    bulk: &Bulk,
    read: impl Fn(&mut StdinLock<'static>) -> io::Result<Option<Vec<u8>>> + Send + 'static,
) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    if io::stdin().is_terminal() {
        eprintln!("swarm: reading records from the terminal, one {} per {}", bulk.each, bulk.unit);
    }
    let (tx, records) = mpsc::channel(LINES);
    // Not waited for: a reader that still waits for a line ends with the process.
    tokio::task::spawn_blocking(move || {
        let mut input = io::stdin().lock();
        while let Some(record) = read(&mut input).transpose() {
            let over = record.is_err();
            if tx.blocking_send(record).is_err() || over {
                break;
            }
        }
    });
    records
}

/// Sends what `read` finds on standard input and `parse` understands; what `parse` leaves out does not count. `send` gives
/// bytes and outcome. Names what failed, sums up, and gives the exit code. An interruption ends the reading.
pub(super) async fn send_all<R, F>(
    bulk: &Bulk,
    read: impl Fn(&mut StdinLock<'static>) -> io::Result<Option<Vec<u8>>> + Send + 'static,
    parse: impl Fn(Vec<u8>) -> Result<Option<R>, BadInput>,
    send: impl Fn(R) -> F,
) -> anyhow::Result<u8>
where
    F: Future<Output = (u64, Result<(), Error>)>,
{
    let mut records = records(bulk, read);
    let mut interrupted = pin!(program::interrupted());
    let mut progress = Progress::new(false);
    let mut running = FuturesUnordered::new();
    let (mut number, mut failed, mut under_way, mut over) = (0u64, 0u64, 0, false);
    let mut fail = |number: u64, cause: &dyn std::fmt::Display, progress: &mut Progress| {
        failed += 1;
        if failed <= NAMED_FAILURES {
            progress.clear();
            eprintln!("swarm: {} {number}: {cause}", bulk.unit);
        }
    };
    let (mut hopeless, mut ended) = (None, None);
    while !over || !running.is_empty() {
        tokio::select! {
            record = records.recv(), if !over && running.len() < bulk.in_flight && under_way < MAX_UNDER_WAY => match record {
                None => over = true,
                Some(Err(error)) => {
                    over = true;
                    ended = Some(anyhow::Error::new(error).context(format!("{} {}", bulk.unit, number + 1)));
                }
                Some(Ok(record)) => {
                    number += 1;
                    let length = record.len();
                    match parse(record) {
                        Ok(Some(record)) => {
                            let sent = send(record);
                            under_way += length;
                            running.push(async move { (number, length, sent.await) });
                        }
                        Ok(None) => {}
                        Err(error) => fail(number, &error, &mut progress),
                    }
                }
            },
            Some((number, length, (bytes, sent))) = running.next(), if !running.is_empty() => {
                under_way -= length;
                match sent {
                    Ok(()) => progress.add(1, bytes),
                    Err(error) => {
                        fail(number, &error, &mut progress);
                        // Nobody is there, or nobody wants this: the next million would not fare better.
                        if is_hopeless(&error) {
                            over = true;
                            hopeless = Some(error);
                        }
                    }
                }
            }
            _ = &mut interrupted, if !over => {
                over = true;
                ended = Some(anyhow::anyhow!("interrupted after {} {number}", bulk.unit));
            }
        }
    }
    progress.clear();
    let (sent, seconds) = (progress.records(), progress.elapsed().as_secs_f64());
    let rate = if seconds > 0.0 { sent as f64 / seconds } else { 0.0 };
    eprintln!("{sent} records {}, {failed} failed, {seconds:.1} s, {rate:.0} per second", bulk.done);
    match (hopeless, ended) {
        (Some(error), _) => Err(anyhow::Error::new(error).context(format!("gave up after {} {number}", bulk.unit))),
        (None, Some(error)) => Err(error).context("standard input was not read to its end"),
        (None, None) => Ok(if failed == 0 { 0 } else { FAILED }),
    }
}

const fn is_hopeless(error: &Error) -> bool {
    matches!(
        error,
        Error::Away { .. }
            | Error::Connect { .. }
            | Error::OwnerAway { .. }
            | Error::Rejected { .. }
            | Error::BadChannelName(_)
            | Error::NotPermitted { .. }
    )
}
