//! `dhtredist`: gives the nodes of a dht new hash ranges and has them move their records (protocol §3.1).
//!
//! The plan is printed first; `-x` carries it out. It is kept in a file beside the nodes file until all is done, so that
//! a run that was interrupted is taken up again with the same plan, whatever ranges the nodes have by then. Moving is
//! the nodes' own work: they go on when this program ends.
//!
//! Exit codes: 0 done or nothing to do, 1 failed, 2 wrong usage.

mod execute;
mod plan;
mod progress;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use overstory_client::{ClientConfig, DhtClient, Registry};
use overstory_runtime::program;
use overstory_swarm::key::HashRange;

use plan::{Assignment, NodeState};

/// Wrong usage.
const USAGE: u8 = 2;

/// Redistributes the records of a dht over its nodes.
///
/// The nodes file names the nodes that are to share the hash range, new ones included: a new node begins with the empty
/// range (minval ffffffffffffffff, maxval 0000000000000000). It names legacy ports.
#[derive(Debug, Parser)]
#[command(name = "dhtredist", version)]
struct Cli {
    /// File with the nodes, one `ip:port` per line, legacy ports
    #[arg(short = 'S', long = "src", value_name = "FILE", required_unless_present = "ranges")]
    src: Option<PathBuf>,
    /// Print the hash ranges of so many equal nodes
    #[arg(short = 'r', long, value_name = "N", conflicts_with = "src",
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    ranges: Option<u64>,
    /// Carry the plan out (else it is only printed)
    #[arg(short = 'x', long)]
    execute: bool,
    /// How new ranges are chosen
    #[arg(short = 's', long, value_enum, default_value_t = Strategy::Extend)]
    strategy: Strategy,
}

/// How new ranges are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// All nodes share the whole hash range equally, in the order of their ranges
    Extend,
    /// Each server's part of the hash range is shared by the nodes of that server (one address)
    Subdivide,
}

/// Runs `dhtredist`; `args[0]` is the program's name.
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
    if let Some(count) = cli.ranges {
        for range in plan::divide(count, HashRange::FULL) {
            println!("0x{:016X} 0x{:016X}", range.min(), range.max());
        }
        return ExitCode::SUCCESS;
    }
    match program::block_on(redistribute(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhtredist: {}", program::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn redistribute(cli: &Cli) -> anyhow::Result<()> {
    let src = cli.src.as_deref().context("no nodes file")?;
    let registry = Registry::from_file(src)?;
    let config = ClientConfig { request_timeout: Duration::from_secs(10), ..ClientConfig::legacy(registry.clone()) };
    let client = DhtClient::start(config)?;
    let mut nodes = Vec::new();
    println!("hash ranges of the nodes now:");
    for &node in registry.nodes() {
        let range = client.responsible_range(node).await?;
        println!("  {node} = {}", show(range));
        nodes.push(NodeState { node, range });
    }
    let kept = plan_file(src);
    let assignments = match plan::load(&kept)? {
        Some(assignments) => {
            let path = kept.display();
            println!("\n{path} has the plan of a run that was not finished: it is taken up again");
            anyhow::ensure!(
                plan::same_nodes(&assignments, &nodes),
                "the plan in {path} is for other nodes than {} names; finish it with the nodes it was made for, or \
                 remove it",
                src.display()
            );
            assignments
        }
        None => match cli.strategy {
            Strategy::Extend => plan::extend(&nodes)?,
            Strategy::Subdivide => plan::subdivide(&nodes)?,
        },
    };
    print_plan(&assignments, &nodes);
    let changes = plan::changes(&assignments, &nodes);
    if !changes && !kept.exists() {
        println!("\nnothing to change");
        return Ok(());
    }
    if !cli.execute {
        println!("\nnothing was done: -x carries the plan out");
        return Ok(());
    }
    plan::save(&kept, &assignments).with_context(|| format!("cannot keep the plan in {}", kept.display()))?;
    let done = tokio::select! {
        done = execute::run(&client, &assignments, &nodes) => done,
        _ = program::interrupted() => Err(anyhow::anyhow!("interrupted; the nodes go on moving records by themselves")),
    };
    done.with_context(|| format!("not finished: run the same command again, the plan is kept in {}", kept.display()))?;
    std::fs::remove_file(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
    println!("\ndone: every node has its new range and moved what is not in it");
    Ok(())
}

/// Where the plan of a run is kept until it is done.
fn plan_file(src: &Path) -> PathBuf {
    let mut name = src.as_os_str().to_owned();
    name.push(".redistribution");
    PathBuf::from(name)
}

fn print_plan(assignments: &[Assignment], nodes: &[NodeState]) {
    println!("\nnew hash ranges:");
    for assignment in assignments {
        let before = plan::range_of(nodes, assignment.node);
        let kept = 100.0 * plan::overlap(before, assignment.range);
        println!("  {} = {} -> {} ({kept:.0} % stay)", assignment.node, show(before), show(assignment.range));
        for other in assignments.iter().filter(|other| other.node != assignment.node) {
            if other.range.overlaps(before) {
                println!("      sends to {} = {}", other.node, show(other.range));
            }
        }
    }
}

fn show(range: HashRange) -> String {
    if range.is_empty() { "empty".to_owned() } else { format!("0x{:016X}..0x{:016X}", range.min(), range.max()) }
}
