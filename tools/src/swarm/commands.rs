//! What each command does.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::net::SocketAddrV4;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use anyhow::Context as _;
use overstory_client::dht::{Answers, Change, Changes, Selection, Size};
use overstory_client::{ClientConfig, DhtClient};
use overstory_runtime::program;
use overstory_swarm::key::{HashRange, Key};

use super::bulk::{self, Bulk};
use super::input::{self, BadInput};
use super::output::{self, Progress};
use super::{Command, FAILED, Format, GetAll, NOT_FOUND, Put, Record};

pub(super) type Out = BufWriter<StdoutLock<'static>>;

/// Runs a command; gives the exit code.
pub(super) async fn run(config: ClientConfig, command: &Command) -> anyhow::Result<u8> {
    // No waiting for nodes that are away: each request waits for those it needs.
    let client = DhtClient::start(config)?;
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let code = match command {
        Command::Get { record, format } => get(&client, record, *format, &mut out).await?,
        Command::Put(put) if put.bulk => put_lines(&client, put).await?,
        Command::Put(put) => put_one(&client, put).await?,
        Command::Exists { record } => {
            let found = client.exists(&record.channel, key(record)?).await?;
            writeln!(out, "{}", if found { "yes" } else { "no" })?;
            if found { 0 } else { NOT_FOUND }
        }
        Command::Remove { record } => {
            let removed = client.remove(&record.channel, key(record)?).await?;
            if removed { 0 } else { NOT_FOUND }
        }
        Command::Getall(all) => get_all(&client, all, &mut out).await?,
        Command::Channels => channels(client.channels_by_node().await, &mut out)?,
        Command::Size { channel } => sizes(client.sizes_by_node(channel.as_deref()).await?, &mut out)?,
        Command::Listen { channel, format } => {
            let changes = client.listen(channel)?;
            name_missing(&client);
            follow(changes, *format, None, &mut out).await?
        }
        Command::Mirror(mirror) => {
            let period = Duration::from_secs(mirror.period.into());
            let changes = client.mirror(&mirror.channel, mirror.refresh, period)?;
            name_missing(&client);
            follow(changes, mirror.format, Some(()), &mut out).await?
        }
        Command::Removechannel { channel } => living(client.remove_channel_by_node(channel).await?).1,
        Command::Ranges => ranges(&client, &mut out).await?,
        Command::Connections => {
            let (told, code) = living(client.num_connections_by_node().await?);
            for (node, connections) in told {
                writeln!(out, "{node}\t{connections}")?;
            }
            code
        }
        Command::Version => {
            let (told, code) = living(client.versions_by_node().await?);
            for (node, version) in told {
                writeln!(out, "{node}\t{version}")?;
            }
            code
        }
    };
    out.flush()?;
    Ok(code)
}

/// Gives what the living nodes answered, names the others, and says whether there are such.
pub(super) fn living<T>(answers: Answers<T>) -> (Vec<(SocketAddrV4, T)>, u8) {
    let (mut told, mut code) = (Vec::new(), 0);
    for (node, answer) in answers {
        match answer {
            Ok(answer) => told.push((node, answer)),
            Err(error) => {
                eprintln!("swarm: {error}");
                code = FAILED;
            }
        }
    }
    (told, code)
}

/// Prints the channels of the living nodes.
pub(super) fn channels(answers: Answers<Vec<String>>, out: &mut Out) -> io::Result<u8> {
    let (told, code) = living(answers);
    let names: BTreeSet<String> = told.into_iter().flat_map(|(_, names)| names).collect();
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(code)
}

/// Prints what the living nodes hold.
pub(super) fn sizes(answers: Answers<Size>, out: &mut Out) -> io::Result<u8> {
    let (told, code) = living(answers);
    for (_, Size { node, records, bytes }) in told {
        writeln!(out, "{node}\t{records}\t{bytes}")?;
    }
    Ok(code)
}

/// Names the nodes that are away while the others are followed.
fn name_missing(client: &DhtClient) {
    let client = client.clone();
    tokio::spawn(async move {
        for (_, range) in client.ranges_by_node().await {
            if let Err(error) = range {
                eprintln!("swarm: {error}");
            }
        }
    });
}

fn key(record: &Record) -> Result<Key, BadInput> {
    input::key(&record.key, record.hash)
}

async fn get(client: &DhtClient, record: &Record, format: Format, out: &mut Out) -> anyhow::Result<u8> {
    match client.get(&record.channel, key(record)?).await? {
        Some(value) => {
            output::value(out, format, &value)?;
            Ok(0)
        }
        None => Ok(NOT_FOUND),
    }
}

async fn put_one(client: &DhtClient, put: &Put) -> anyhow::Result<u8> {
    let key = input::key(put.key.as_deref().unwrap_or_default(), put.hash)?;
    let value = match &put.value {
        Some(value) => value.as_bytes().to_vec(),
        None => input::value().context("cannot read the value from standard input")?,
    };
    client.put(&put.channel, key, &value).await?;
    Ok(0)
}

/// Stores the records of standard input, many at a time.
async fn put_lines(client: &DhtClient, put: &Put) -> anyhow::Result<u8> {
    let bulk = Bulk { in_flight: put.in_flight as usize, unit: "line", each: "`key TAB value`", done: "stored" };
    let parse = |line: Vec<u8>| match line.as_slice() {
        [] => Ok(None),
        line => input::record(line, put.format, put.hash).map(Some),
    };
    let store = |(key, value): (Key, Vec<u8>)| async move {
        let stored = client.put(&put.channel, key, &value).await;
        (value.len() as u64, stored)
    };
    bulk::send_all(&bulk, input::line, parse, store).await
}

async fn get_all(client: &DhtClient, all: &GetAll, out: &mut Out) -> anyhow::Result<u8> {
    let filter = all.filter.as_ref().map(|text| text.as_bytes().to_vec()).unwrap_or_default();
    let selection = Selection { keys_only: all.keys, filter, suspended: false };
    let mut records = client.get_all(&all.channel, &selection)?;
    let mut progress = Progress::new(true);
    let mut left = all.limit.unwrap_or(u64::MAX);
    let mut failed = false;
    while left > 0
        && let Some(batch) = records.next().await
    {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                progress.clear();
                eprintln!("swarm: {error}");
                failed = true;
                continue;
            }
        };
        let (mut count, mut bytes) = (0, 0);
        for (key, value) in batch.records().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            output::record(out, all.format, None, key, (!all.keys).then_some(value))?;
            count += 1;
            bytes += value.len() as u64;
        }
        left -= count;
        progress.add(count, bytes);
    }
    progress.clear();
    if failed {
        eprintln!("swarm: the records are not complete");
    }
    Ok(if failed { FAILED } else { 0 })
}

/// Prints changes until the channel is removed everywhere or the user has seen enough.
async fn follow(mut changes: Changes, format: Format, kinds: Option<()>, out: &mut Out) -> anyhow::Result<u8> {
    let mut failed = false;
    let kind = |name| kinds.map(|()| name);
    loop {
        let change = tokio::select! {
            biased;
            change = changes.next() => change,
            _ = program::interrupted() => return Ok(0),
        };
        match change {
            Some(Ok(Change::Put { key, value })) => output::record(out, format, kind("put"), key, Some(&value))?,
            Some(Ok(Change::Refreshed { key, value })) => {
                output::record(out, format, kind("refresh"), key, Some(&value))?;
            }
            // Listen has no removals by its nature; a mirror tells them.
            Some(Ok(Change::Removed { key })) if kinds.is_some() => {
                output::record(out, format, kind("remove"), key, None)?;
            }
            Some(Ok(Change::ChannelRemoved { node })) => eprintln!("swarm: {node}: the channel was removed"),
            Some(Ok(Change::Lost { node, cause: Some(cause) })) => {
                eprintln!("swarm: {node}: changes may have been lost: {cause}");
            }
            Some(Ok(Change::Lost { node, cause: None })) => eprintln!("swarm: {node}: changes were lost: too many"),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                eprintln!("swarm: {error}");
                failed = true;
            }
            None => return Ok(if failed { FAILED } else { 0 }),
        }
        // Whoever reads along wants each change now; a burst is written together by the system's own buffers.
        out.flush()?;
    }
}

async fn ranges(client: &DhtClient, out: &mut Out) -> anyhow::Result<u8> {
    let (mut known, code) = living(client.ranges_by_node().await);
    known.sort_unstable_by_key(|(node, range)| (range.is_empty(), range.min(), *node));
    let mut table = overstory_client::RangeTable::default();
    for (node, range) in known {
        table.update(node, range, std::time::Instant::now());
        writeln!(out, "{node}\t{}", show(range))?;
    }
    out.flush()?;
    if let Err(problem) = table.check(false) {
        eprintln!("swarm: {problem}");
    }
    Ok(code)
}

fn show(range: HashRange) -> String {
    format!("0x{:016x}\t0x{:016x}", range.min(), range.max())
}
