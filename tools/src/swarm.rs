//! `swarm`: speaks to swarm nodes from the command line and from scripts.
//!
//! Standard output has the data and nothing else, one record per line; what is to be said goes to standard error. Exit
//! codes: 0 done, 1 failed, 2 wrong usage, 3 there is no such record.

mod bulk;
mod commands;
mod dmq;
mod input;
mod logfiles;
mod output;
mod stats;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use overstory_client::registry::parse_node;
use overstory_client::{ClientConfig, Identity, Protocol, Registry};
use overstory_runtime::{Home, program};

/// Something failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// There is no such record.
const NOT_FOUND: u8 = 3;

/// Speaks to swarm nodes.
#[derive(Debug, Parser)]
#[command(name = "swarm", version)]
struct Cli {
    #[command(subcommand)]
    system: System,
}

#[derive(Debug, Subcommand)]
enum System {
    /// A dht
    Dht(Dht),
    /// Queues
    Dmq(dmq::Dmq),
    /// Records by time
    Logfiles(logfiles::Logfiles),
}

/// Reads and writes the records of a dht.
///
/// Neo unless --legacy is given. A nodes file names the ports of the protocol that is spoken: the neo port of a dht node
/// is its legacy port + 100. Without nodes those of this installation are taken: etc/nodes/dht.nodes with
/// etc/secrets/dht.credentials, or etc/nodes/dht.legacy.nodes.
#[derive(Debug, Args)]
struct Dht {
    #[command(flatten)]
    nodes: Nodes,
    #[command(subcommand)]
    command: Command,
}

/// Which nodes, and how they are spoken with.
#[derive(Debug, Args)]
struct Nodes {
    /// File with the nodes, one `ip:port` per line, `#` begins a comment
    #[arg(long, value_name = "FILE", global = true)]
    nodes: Option<PathBuf>,
    /// A node, instead of or beside a file; may be repeated
    #[arg(long, value_name = "IP:PORT", value_parser = parse_node, global = true)]
    node: Vec<SocketAddrV4>,
    /// Speak the legacy protocol (without authentication)
    #[arg(long, global = true, conflicts_with = "credentials")]
    legacy: bool,
    /// File with the client's name and key, `name:hex`
    #[arg(long, value_name = "FILE", global = true)]
    credentials: Option<PathBuf>,
    /// Which client, if the file is a node's and has several
    #[arg(long, value_name = "NAME", global = true, requires = "credentials")]
    name: Option<String>,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value_t = 10, global = true,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Nodes {
    /// Whether legacy is spoken: because it is asked for, or because nothing else has the request and nobody said what the
    /// nodes speak.
    fn legacy_for(&self, only_there: bool) -> bool {
        let unsaid = self.nodes.is_none() && self.node.is_empty() && self.credentials.is_none();
        self.legacy || (only_there && unsaid)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the value of a record, byte for byte
    Get {
        #[command(flatten)]
        record: Record,
        #[command(flatten)]
        format: Format,
    },
    /// Store a record, or with --bulk one per line of standard input
    Put(Put),
    /// Say `yes` or `no` (exit code 0 or 3)
    Exists {
        #[command(flatten)]
        record: Record,
    },
    /// Remove a record
    Remove {
        #[command(flatten)]
        record: Record,
    },
    /// Print all records of a channel
    Getall(GetAll),
    /// Print the names of the channels
    Channels,
    /// Print records and bytes of each node, or of a channel at each node (legacy only)
    Size {
        /// The channel
        channel: Option<String>,
    },
    /// Print records as they are put
    Listen {
        /// The channel
        channel: String,
        #[command(flatten)]
        format: Format,
    },
    /// Print each change of a channel (neo only)
    Mirror(Mirror),
    /// Remove a channel with all its records (neo: only the client `admin` may)
    Removechannel {
        /// The channel
        channel: String,
    },
    /// Print the hash range of each node
    Ranges,
    /// Print the number of legacy connections of each node (legacy only)
    Connections,
    /// Print the version of each node (legacy only)
    Version,
}

/// Which record.
#[derive(Debug, Args)]
struct Record {
    /// The channel
    channel: String,
    /// The key: decimal, 0x and hexadecimal digits, or any text with --hash
    key: String,
    /// The key is the FNV-1a hash of the text
    #[arg(long)]
    hash: bool,
}

#[derive(Debug, Args)]
struct Put {
    /// The channel
    channel: String,
    /// The key: decimal, 0x and hexadecimal digits, or any text with --hash
    #[arg(required_unless_present = "bulk")]
    key: Option<String>,
    /// The value; standard input if it is not given
    #[arg(conflicts_with = "bulk")]
    value: Option<OsString>,
    /// The key is the FNV-1a hash of the text
    #[arg(long)]
    hash: bool,
    /// Store one record per line of standard input: `key TAB value`, as getall prints them
    #[arg(long, conflicts_with = "key")]
    bulk: bool,
    /// Bulk: requests that are under way at a time
    #[arg(long, value_name = "N", default_value_t = 512, requires = "bulk",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct GetAll {
    /// The channel
    channel: String,
    /// Keys only
    #[arg(long)]
    keys: bool,
    /// Only records whose value holds this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<OsString>,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Mirror {
    /// The channel
    channel: String,
    /// Print all records at the beginning
    #[arg(long)]
    refresh: bool,
    /// Print all records again every so many seconds
    #[arg(long, value_name = "S", default_value_t = 0)]
    period: u32,
    #[command(flatten)]
    format: Format,
}

/// How values are written: escaped (`\t`, `\n`, `\r`, `\\`, `\xHH`) unless one of these is given.
#[derive(Debug, Clone, Copy, Args)]
struct Format {
    /// One JSON object per line: `value`, or `base64` for what is no text, and the `key` or `timestamp` if it has one
    #[arg(long, conflicts_with_all = ["base64", "raw"])]
    json: bool,
    /// Values in base64
    #[arg(long, conflicts_with = "raw")]
    base64: bool,
    /// Values as they are, line ends and all
    #[arg(long)]
    raw: bool,
}

/// Runs `swarm`; `args[0]` is the program's name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    program::end_quietly_on_closed_pipe();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, the rest is wrong usage.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match cli.system {
        System::Dht(dht) => configure(&dht.nodes, "dht", dht.nodes.legacy, None)
            .map(|config| program::block_on(commands::run(config, &dht.command))),
        System::Dmq(dmq) => configure(&dmq.nodes, &dmq.group, dmq.legacy(), None)
            .map(|config| program::block_on(dmq::run(config, &dmq.command))),
        System::Logfiles(logs) => configure(&logs.nodes, &logs.group, logs.legacy(), logs.only_legacy())
            .map(|config| program::block_on(logfiles::run(config, &logs.command))),
    };
    let (error, code) = match done {
        Ok(Ok(code)) => return ExitCode::from(code),
        Ok(Err(error)) => {
            let code = if wrong_usage(&error) { USAGE } else { FAILED };
            (error, code)
        }
        Err(error) => (error, USAGE),
    };
    eprintln!("swarm: {}", program::chain(error.as_ref()));
    ExitCode::from(code)
}

/// Whether an error is about what was asked for, and no node could do it.
fn wrong_usage(error: &anyhow::Error) -> bool {
    use overstory_client::Error::{
        BadChannelName, BadRange, EmptyAtZero, EmptyValue, OtherProtocolOnly, TooManyChannels,
    };
    let asked = error.downcast_ref::<overstory_client::Error>();
    let wrong = |error: &_| {
        matches!(
            error,
            BadChannelName(_)
                | EmptyValue
                | EmptyAtZero
                | OtherProtocolOnly { .. }
                | TooManyChannels { .. }
                | BadRange { .. }
        )
    };
    error.is::<input::BadInput>() || asked.is_some_and(wrong)
}

/// What the flags say of nodes and protocol; without nodes those of a group of this installation. `only_legacy` is a command
/// that neo does not have.
fn configure(given: &Nodes, group: &str, legacy: bool, only_legacy: Option<&str>) -> anyhow::Result<ClientConfig> {
    if let Some(command) = only_legacy.filter(|_| !legacy) {
        bail!(
            "only the legacy protocol has {command}: give --legacy and the nodes' legacy ports, without --credentials; a \
             node that listens for neo alone cannot be asked (etc/nodes/{group}.legacy.nodes has those of this \
             installation)"
        );
    }
    let mut nodes = Registry::new();
    if let Some(file) = &given.nodes {
        nodes.add_file(file)?;
    }
    for node in &given.node {
        nodes.add(*node)?;
    }
    // Without any, those of this installation.
    let home = Home::find();
    let ours = home.config_file(&format!("nodes/{group}{}.nodes", if legacy { ".legacy" } else { "" }));
    let installed = nodes.is_empty() && ours.exists();
    if installed {
        nodes.add_file(&ours)?;
    }
    if nodes.is_empty() {
        let why = only_legacy.map(|command| format!("; only the legacy protocol has {command}")).unwrap_or_default();
        bail!("no nodes: give --nodes FILE or --node IP:PORT ({} is not there{why})", ours.display());
    }
    let key_file = home.config_file(&format!("secrets/{group}.credentials"));
    let credentials = given.credentials.clone().or_else(|| (installed && !legacy).then_some(key_file));
    let timeout = Duration::from_secs(given.timeout);
    let config = match (&credentials, legacy) {
        // One node of many can be asked too: a key that nobody has is refused by itself.
        (_, true) => ClientConfig { protocol: Protocol::Legacy { gaps: true }, ..ClientConfig::legacy(nodes) },
        (Some(file), false) => {
            let identity = match &given.name {
                Some(name) => Identity::from_node_file(file, name),
                None => Identity::from_file(file),
            };
            ClientConfig::neo(nodes, identity.context("no credentials")?)
        }
        (None, false) => bail!("give --credentials FILE for neo, or --legacy"),
    };
    Ok(ClientConfig { request_timeout: timeout, connect_timeout: timeout, patience: timeout, ..config })
}
