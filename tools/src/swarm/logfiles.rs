//! `swarm logfiles`: writes and reads records by time.

mod read;
mod tail;
mod time;
mod write;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Args, Subcommand};
use overstory_client::dls::{Filter, TimestampRange};
use overstory_client::{Answers, ClientConfig, DlsClient};

use super::commands::{self, Out, living};
use super::dmq::{Records, group};
use super::{Nodes, stats};
use time::{Time, Unit};

/// Writes records into logfiles nodes and reads them back by time.
///
/// Neo unless --legacy is given. Standard output has the records and nothing else, one per line, `timestamp TAB value`:
/// tabs, line ends, backslashes and what is no text are escaped (\t, \n, \r, \\, \xHH), and read like that by put.
/// With --binary each record has its timestamp, a little-endian i64, and its length, a little-endian u32, in front.
/// Times are timestamps as they are stored (1795276800, 0x6b016800), dates (2026-11-21T16:00:00Z, 2026-11-21),
/// or distances from now (now, -90s, -5m, -1h, -7d, -2w, +1h); --unit says what the timestamps of the channel count.
/// Without nodes those of this installation are taken: etc/nodes/GROUP.nodes with etc/secrets/GROUP.credentials, or
/// etc/nodes/GROUP.legacy.nodes for --legacy and for what only legacy has (channels, size, remove, stats).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm logfiles put access 'one record'
  tail -F access.log | swarm logfiles put access --raw
  swarm logfiles getrange access -1h now --contains ' 500 '
  swarm logfiles getrange access 2026-11-21T10:00:00Z 2026-11-21T11:00:00Z --regex 'GET /(a|b)' --sorted
  swarm logfiles tail access -n 20 -f
  swarm logfiles getall old --binary | swarm logfiles --node 10.0.0.2:23100 --credentials key put new --binary --timestamps

Exit codes: 0 done, 1 failed or a node did not answer, 2 wrong usage, 3 there is no such record.")]
pub(super) struct Logfiles {
    #[command(flatten)]
    pub(super) nodes: Nodes,
    /// Whose nodes, without --nodes and --node
    #[arg(long, value_name = "NAME", default_value = "logfiles", global = true, value_parser = group)]
    pub(super) group: String,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Put a record, or without a value one per line of standard input, and say how many were stored
    Put(Put),
    /// Print the records of a range of time, of all nodes
    Getrange(GetRange),
    /// Print all records of a channel, of all nodes
    Getall(GetAll),
    /// Print the last records, and with -f those that come
    Tail(Tail),
    /// Print the names of the channels (legacy only)
    Channels,
    /// Print records and bytes of each node, or of a channel at each node (legacy only)
    Size {
        /// The channel
        channel: Option<String>,
    },
    /// Remove a channel with its records at all nodes (legacy only)
    Remove {
        /// The channel
        channel: String,
    },
    /// Print per node and channel: node, channel, records, bytes; and per node: node, `*`, records, bytes, connections
    /// (legacy only)
    Stats,
    /// Print the first and the last timestamp that each node takes
    Ranges,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// The channel
    channel: String,
    /// The record, byte for byte; standard input has them if it is not given
    value: Option<OsString>,
    /// The time of the record, or of all of them
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    timestamp: Time,
    /// What is read has its time in front: `time TAB value`, or `timestamp` in JSON
    #[arg(long, conflicts_with_all = ["timestamp", "value"])]
    timestamps: bool,
    #[command(flatten)]
    unit: UnitArg,
    /// Records that are under way at a time. With more than 1, legacy does not keep their order; neo does, per node
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Put a record again if the connection broke before the answer came: it may then be there twice
    #[arg(long)]
    at_least_once: bool,
    #[command(flatten)]
    records: Records,
}

#[derive(Debug, Args)]
pub(super) struct GetRange {
    /// The channel
    channel: String,
    /// The time of the first record
    #[arg(allow_hyphen_values = true)]
    from: Time,
    /// The time of the last record; without it, to the end
    #[arg(allow_hyphen_values = true)]
    to: Option<Time>,
    #[command(flatten)]
    unit: UnitArg,
    #[command(flatten)]
    read: Read,
}

#[derive(Debug, Args)]
pub(super) struct GetAll {
    /// The channel
    channel: String,
    #[command(flatten)]
    read: Read,
}

/// What is read, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct Read {
    #[command(flatten)]
    matching: Matching,
    /// In order of time, whatever node has the records. Without it they come as the nodes have them: by steps of 4,096
    /// timestamps, in the order of writing within a step
    #[arg(long)]
    sorted: bool,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    records: Records,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// The channel
    channel: String,
    /// So many of the last records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    number: u32,
    /// Go on with those that come, until interrupted. Not seen: a record whose time lies further back than --lookback
    /// behind the newest one of its node. So a record whose time is far ahead hides those that come after it
    #[arg(short, long)]
    follow: bool,
    /// With -f: how far behind the newest record of a node others may come late, such as 10s, 5m, 1h, 2d. So much is read
    /// again at each look
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time::duration)]
    lookback: i64,
    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    unit: UnitArg,
    #[command(flatten)]
    matching: Matching,
    #[command(flatten)]
    records: Records,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct UnitArg {
    /// What the channel's timestamps count
    #[arg(long, value_enum, default_value_t = Unit::S)]
    unit: Unit,
}

/// Which records.
#[derive(Debug, Args)]
pub(super) struct Matching {
    /// Only records that hold this text
    #[arg(long, value_name = "TEXT", group = "searched")]
    contains: Option<OsString>,
    /// Only records that match this regular expression (PCRE)
    #[arg(long, value_name = "PATTERN", group = "searched")]
    regex: Option<OsString>,
    /// Whatever the case of the letters a to z is
    #[arg(long, requires = "searched")]
    ignore_case: bool,
}

impl Matching {
    fn filter(&self) -> Filter {
        let bytes = |text: &OsString| text.clone().into_vec();
        match (&self.contains, &self.regex) {
            // Only expressions can be told to ignore it.
            (Some(text), _) if self.ignore_case && !text.is_empty() => Filter::PcreCaseless(quoted(text.as_bytes())),
            (Some(text), _) => Filter::Substring(bytes(text)),
            (None, Some(pattern)) if self.ignore_case => Filter::PcreCaseless(bytes(pattern)),
            (None, Some(pattern)) => Filter::Pcre(bytes(pattern)),
            (None, None) => Filter::None,
        }
    }
}

/// A regular expression that matches this text.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len() * 2);
    for &byte in text {
        match byte {
            // Published nodes would take it for the end.
            0 => pattern.extend_from_slice(b"\\x00"),
            _ if byte.is_ascii() && !byte.is_ascii_alphanumeric() => pattern.extend_from_slice(&[b'\\', byte]),
            _ => pattern.push(byte),
        }
    }
    pattern
}

impl Logfiles {
    /// Whether legacy is spoken: because it is asked for, or because nothing else has the request and nobody said what
    /// the nodes speak.
    pub(super) fn legacy(&self) -> bool {
        self.nodes.legacy_for(self.only_legacy().is_some())
    }

    /// The command, if nothing but legacy has it.
    pub(super) const fn only_legacy(&self) -> Option<&'static str> {
        match self.command {
            Command::Channels => Some("channels"),
            Command::Size { .. } => Some("size"),
            Command::Remove { .. } => Some("remove"),
            Command::Stats => Some("stats"),
            _ => None,
        }
    }
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "no number of seconds".to_owned())?;
    if (0.01..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("0.01 to 86400 seconds".to_owned()) }
}

/// Writes a record as `--binary` has it, or as a line.
fn write(records: Records, out: &mut Out, timestamp: i64, value: &[u8]) -> io::Result<()> {
    if records.binary {
        out.write_all(&timestamp.to_le_bytes())?;
        return super::output::frame(out, value);
    }
    super::output::stamped(out, records.format, timestamp, value)
}

/// Runs a command; gives the exit code.
pub(super) async fn run(config: ClientConfig, command: &Command) -> anyhow::Result<u8> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    if let Command::Tail(tail) = command {
        return tail::run(&config, tail, out).await;
    }
    let at_least_once = matches!(command, Command::Put(Put { at_least_once: true, .. }));
    // No waiting for nodes that are away: each request finds one that is there, or names those that are not.
    let client = DlsClient::start(ClientConfig { at_least_once, ..config })?;
    let code = match command {
        Command::Put(put) => write::put(&client, put).await?,
        Command::Getrange(range) => {
            let (unit, now) = (range.unit.unit, range.unit.unit.now());
            let low = range.from.nearest(unit, now);
            let high = range.to.map_or(i64::MAX, |to| to.nearest(unit, now));
            read::print(&client, &range.channel, (low, high), &range.read, &mut out).await?
        }
        Command::Getall(all) => read::print(&client, &all.channel, (i64::MIN, i64::MAX), &all.read, &mut out).await?,
        Command::Tail(_) => 0,
        Command::Channels => commands::channels(client.channels_by_node().await?, &mut out)?,
        Command::Size { channel } => commands::sizes(client.sizes_by_node(channel.as_deref()).await?, &mut out)?,
        Command::Remove { channel } => living(client.remove_channel_by_node(channel).await?).1,
        Command::Stats => stats::run(&client, &mut out).await?,
        Command::Ranges => ranges(client.ranges_by_node().await, &mut out)?,
    };
    out.flush()?;
    Ok(code)
}

/// Prints the ranges of the living nodes; a node that does not tell one takes all.
fn ranges(answers: Answers<Option<TimestampRange>>, out: &mut Out) -> io::Result<u8> {
    let (told, code) = living(answers);
    for (node, range) in told {
        let TimestampRange { min, max } = range.unwrap_or(TimestampRange::ALL);
        writeln!(out, "{node}\t0x{min:016x}\t0x{max:016x}")?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(contains: Option<&str>, regex: Option<&str>, ignore_case: bool) -> Filter {
        Matching { contains: contains.map(Into::into), regex: regex.map(Into::into), ignore_case }.filter()
    }

    #[test]
    fn a_text_whose_case_is_ignored_is_an_expression_that_means_nothing_but_the_text() {
        assert_eq!(filter(None, None, false), Filter::None);
        assert_eq!(filter(Some("a.b"), None, false), Filter::Substring(b"a.b".to_vec()));
        assert_eq!(
            filter(Some("a.b \u{e4}_\\E1"), None, true),
            Filter::PcreCaseless(b"a\\.b\\ \xc3\xa4\\_\\\\E1".to_vec())
        );
        assert_eq!(quoted(b"(*UTF)\0"), b"\\(\\*UTF\\)\\x00");
        assert_eq!(filter(Some(""), None, true), Filter::Substring(Vec::new()));
        assert_eq!(filter(None, Some("a.b"), true), Filter::PcreCaseless(b"a.b".to_vec()));
    }
}
