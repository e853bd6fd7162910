//! `swarm dmq`: pushes into queues and takes out of them.

mod read;
mod write;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};

use clap::{Args, Subcommand};
use overstory_client::{ClientConfig, DmqClient};

use super::commands::{self, living};
use super::{Format, Nodes, output, stats};

/// Pushes records into queues and takes them out.
///
/// Neo unless --legacy is given. Standard output has the records and nothing else, one per line: tabs, line ends,
/// backslashes and what is no text are escaped (\t, \n, \r, \\, \xHH), and read like that by push and produce.
/// With --binary each record has its length in front, a little-endian u32, in and out.
/// Without nodes those of this installation are taken: etc/nodes/GROUP.nodes with etc/secrets/GROUP.credentials, or
/// etc/nodes/GROUP.legacy.nodes for --legacy and for what only legacy has (produce, channels, size, remove, stats).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm dmq push clicks 'one record'
  tail -F access.log | swarm dmq push clicks,audit --raw
  swarm dmq pop clicks -n 10
  swarm dmq consume clicks --subscriber billing | ./work
  swarm dmq consume old --binary --idle 5 | swarm dmq --node 10.0.0.2:22100 --credentials key push new --binary
  swarm dmq --group queue stats

Exit codes: 0 done, 1 failed or a node did not answer, 2 wrong usage, 3 nothing to pop.")]
pub(super) struct Dmq {
    #[command(flatten)]
    pub(super) nodes: Nodes,
    /// Whose nodes, without --nodes and --node: dmq, or queue for queuenodes
    #[arg(long, value_name = "NAME", default_value = "dmq", global = true, value_parser = group)]
    pub(super) group: String,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Push a record, or without a value one per line of standard input, and say how many were accepted
    Push(Push),
    /// Take the oldest records out and print them (exit code 3 if there is none)
    Pop(Pop),
    /// Print records as they come, until interrupted, and take them over
    Consume(Consume),
    /// Push one record per line of standard input without an answer for each, over all nodes in turn (legacy only)
    Produce {
        /// The channels
        #[arg(value_name = "CHANNEL[,CHANNEL...]")]
        channels: Channels,
        #[command(flatten)]
        records: Records,
    },
    /// Print the names of the channels (legacy only)
    Channels,
    /// Print records and bytes of each node, or of a channel at each node (legacy only)
    Size {
        /// The channel
        channel: Option<String>,
    },
    /// Remove a channel with its subscribers and records at all nodes (legacy only)
    Remove {
        /// The channel
        channel: String,
    },
    /// Print per node and channel: node, channel, records, bytes; and per node: node, `*`, records, bytes, connections
    /// (legacy only)
    Stats,
}

/// Names with commas between them.
#[derive(Debug, Clone)]
pub(super) struct Channels(String);

impl From<String> for Channels {
    fn from(names: String) -> Self {
        Self(names)
    }
}

impl Channels {
    fn names(&self) -> Vec<&str> {
        self.0.split(',').collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct Push {
    /// The channels: a record goes to all of them or to none
    #[arg(value_name = "CHANNEL[,CHANNEL...]")]
    channels: Channels,
    /// The record, byte for byte; standard input has them if it is not given
    value: Option<OsString>,
    /// Records that are under way at a time. With more than 1, legacy does not keep their order; neo does, per node
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    /// Push a record again if the connection broke before the answer came: it may then be there twice
    #[arg(long)]
    at_least_once: bool,
    #[command(flatten)]
    records: Records,
}

#[derive(Debug, Args)]
pub(super) struct Pop {
    /// The channel
    channel: String,
    /// Up to so many records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    number: u64,
    /// Until there are no more
    #[arg(long, conflicts_with = "number")]
    all: bool,
    #[command(flatten)]
    records: Records,
}

#[derive(Debug, Args)]
pub(super) struct Consume {
    /// The channel
    channel: String,
    /// Who consumes: every subscriber gets every record (neo; legacy is the one without a name)
    #[arg(long, value_name = "NAME", default_value = "")]
    subscriber: String,
    /// Stop once so many records are printed. Nodes send batches, which are taken over as a whole: those of the last ones
    /// are printed to their ends, so that nothing is lost, and how many it were is said
    #[arg(short = 'n', long, value_name = "N")]
    number: Option<u64>,
    /// Stop when nothing has come for so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: Option<u64>,
    #[command(flatten)]
    records: Records,
}

/// How records are written.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Records {
    #[command(flatten)]
    pub(super) format: Format,
    /// Each record with its length in front, a little-endian u32, and no line ends
    #[arg(long, conflicts_with_all = ["json", "base64", "raw"])]
    pub(super) binary: bool,
}

impl Records {
    fn write(self, out: &mut impl io::Write, record: &[u8]) -> io::Result<()> {
        if self.binary { output::frame(out, record) } else { output::line(out, self.format, record) }
    }
}

impl Dmq {
    /// Whether legacy is spoken: because it is asked for, or because nothing else has the request and nobody said what
    /// the nodes speak.
    pub(super) fn legacy(&self) -> bool {
        let only = matches!(
            self.command,
            Command::Produce { .. }
                | Command::Channels
                | Command::Size { .. }
                | Command::Remove { .. }
                | Command::Stats
        );
        self.nodes.legacy_for(only)
    }
}

pub(super) fn group(name: &str) -> Result<String, overstory_swarm::channel::BadChannelName> {
    overstory_swarm::channel::check(name.as_bytes()).map(str::to_owned)
}

/// Runs a command; gives the exit code.
pub(super) async fn run(config: ClientConfig, command: &Command) -> anyhow::Result<u8> {
    let at_least_once = matches!(command, Command::Push(Push { at_least_once: true, .. }));
    let legacy = matches!(config.protocol, overstory_client::Protocol::Legacy { .. });
    // No waiting for nodes that are away: each request finds one that is there.
    let client = DmqClient::start(ClientConfig { at_least_once, ..config })?;
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let code = match command {
        Command::Push(push) => write::push(&client, push).await?,
        Command::Pop(pop) => read::pop(&client, pop, legacy, &mut out).await?,
        Command::Consume(consume) => read::consume(&client, consume, &mut out).await?,
        Command::Produce { channels, records } => write::produce(&client, channels, *records).await?,
        Command::Channels => commands::channels(client.channels_by_node().await?, &mut out)?,
        Command::Size { channel } => commands::sizes(client.sizes_by_node(channel.as_deref()).await?, &mut out)?,
        Command::Remove { channel } => living(client.remove_channel_by_node(channel).await?).1,
        Command::Stats => stats::run(&client, &mut out).await?,
    };
    out.flush()?;
    Ok(code)
}
