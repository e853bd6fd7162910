//! `overstory credentials`: has nodes read their files of clients again, without a restart.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use overstory_runtime::Home;
use overstory_runtime::ini::{Dialect, Ini};

use super::instance::kind::Kind;
use super::instance::{self, Place};

/// A node that is asked answers at once, or does not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer: names of clients, of which a file has 16 MiB at most.
const MAX_ANSWER: u64 = 16 << 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Shows the names of the clients that nodes take
    List(Nodes),
    /// Has nodes read etc/credentials again; where it cannot be used the clients of before stay
    Update(Nodes),
}

#[derive(Debug, clap::Args)]
pub(super) struct Nodes {
    /// Instances as `overstory list` shows them, such as dht-main; all if none is named
    instances: Vec<String>,
}

pub(super) fn run(command: &Command, home: &Home, out: &mut impl Write) -> anyhow::Result<()> {
    let (line, nodes) = match command {
        Command::List(nodes) => ("list-credentials", nodes),
        Command::Update(nodes) => ("update-credentials", nodes),
    };
    let places = places(home, nodes)?;
    let mut failed = 0;
    for place in &places {
        let service = place.service();
        match ask(place, line) {
            Ok(answer) if command.is_done(&answer) => {
                let rest = answer.lines().skip(usize::from(matches!(command, Command::List(_))));
                let rest: Vec<_> = rest.map(str::trim).collect();
                let text = if rest.is_empty() { "no clients".to_owned() } else { rest.join(" ") };
                writeln!(out, "{service}: {text}")?;
            }
            Ok(answer) => {
                failed += 1;
                eprintln!("{service}: {}", answer.trim());
            }
            Err(error) => {
                failed += 1;
                eprintln!("{service}: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} nodes failed", places.len());
    }
    Ok(())
}

impl Command {
    fn is_done(&self, answer: &str) -> bool {
        answer.starts_with(match self {
            Self::List(_) => "Registered credentials:",
            Self::Update(_) => "Credentials updated.",
        })
    }
}

/// Where the instances are that were named, or all.
fn places(home: &Home, nodes: &Nodes) -> anyhow::Result<Vec<Place>> {
    let known = instance::names(home.root())?;
    if nodes.instances.is_empty() {
        return Ok(known.into_iter().map(|(kind, name)| Place::new(home, kind, name)).collect());
    }
    let place = |service: &String| {
        let found = known.iter().find(|(kind, name)| kind.service(name.as_str()) == *service);
        let Some((kind, name)) = found else {
            let hint = Kind::of(service).map_or(" (an instance is KIND-NAME, such as dht-main)", |_| "");
            bail!("there is no instance {service}{hint}; `overstory list` shows them");
        };
        Ok(Place::new(home, kind, name.clone()))
    };
    nodes.instances.iter().map(place).collect()
}

/// Sends a line to the node's socket and takes what it answers.
fn ask(place: &Place, line: &str) -> anyhow::Result<String> {
    let socket = socket(place)?;
    let at = || format!("it does not run, or not with this socket: {}", socket.display());
    let mut stream = connect(&socket).with_context(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}").with_context(at)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    let no_answer = || format!("{} gives no answer", socket.display());
    stream.take(MAX_ANSWER).read_to_string(&mut answer).with_context(no_answer)?;
    Ok(answer)
}

/// Connects. A node binds its socket by a name relative to its directory, so the whole path may be longer than a socket's
/// can be.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return UnixStream::connect(socket);
    };
    let directory = File::open(directory)?;
    UnixStream::connect(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

fn socket(place: &Place) -> anyhow::Result<PathBuf> {
    let config = place.config();
    let ini = Ini::read(&config, Dialect::SWARM)?;
    let path = ini.section("Server").and_then(|server| server.get("unix_socket_path"));
    let path = path.with_context(|| format!("{}: [Server] unix_socket_path is missing", config.display()))?;
    Ok(place.dir().join(path.trim()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
