//! `overstory-bench`: every performance figure that is quoted, measured next to its peer in the same run.

mod connector;
mod dht;
mod disk;
mod dmq;
mod events;
mod figure;
mod logfiles;
mod node;
mod peers;
mod process;
mod redis;
mod startup;
mod value;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures one part of the platform next to its peer.
#[derive(Debug, Parser)]
#[command(name = "overstory-bench", version, about, arg_required_else_help = true)]
struct Arguments {
    /// Install the peers' packages (root, Debian).
    #[arg(long)]
    install_peers: bool,
    /// Also write one JSON object per figure and line.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many alternating runs a ratio's median is taken from.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// The executable to measure.
    #[arg(long, global = true, default_value = "target/dist/overstory", value_name = "FILE")]
    executable: PathBuf,
    #[command(subcommand)]
    bench: Option<Bench>,
}

/// The parts that can be measured.
#[derive(Debug, Clone, Subcommand)]
enum Bench {
    /// The host connector next to collectd.
    Connector(connector::Options),
    /// The dht node next to Redis.
    Dht(dht::Options),
    /// The queue node next to Redis lists and RabbitMQ.
    Dmq(dmq::Options),
    /// The event engines: throughput, latency, CPU and memory.
    Events(events::Options),
    /// The logfiles node next to what the disk itself reads and writes.
    Logfiles(logfiles::Options),
    /// The stack's start next to its broker's alone, and what `service` costs. Stops and starts the installation.
    Startup {
        /// An installation that may be stopped.
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
    },
}

/// What a bench is told.
#[derive(Debug)]
pub(crate) struct Setting {
    /// How many alternating runs.
    pub(crate) runs: u32,
    /// The `overstory` executable under test.
    pub(crate) executable: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("overstory-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.install_peers {
        peers::install()?;
    }
    let Some(bench) = arguments.bench else { return Ok(ExitCode::SUCCESS) };
    let setting = Setting { runs: arguments.runs, executable: arguments.executable };
    anyhow::ensure!(
        setting.executable.is_file(),
        "{} is not there: cargo build --profile dist -p overstory",
        setting.executable.display()
    );
    let figures: Vec<figure::Figure> = match bench {
        Bench::Connector(options) => connector::run(&setting, &options)?,
        Bench::Dht(options) => dht::run(&setting, &options)?,
        Bench::Dmq(options) => dmq::run(&setting, &options)?,
        Bench::Events(options) => events::run(&setting, &options)?,
        Bench::Logfiles(options) => logfiles::run(&setting, &options)?,
        Bench::Startup { prefix } => startup::run(&setting, &prefix)?,
    };
    print!("{}", figure::table(&figures));
    if let Some(file) = arguments.json {
        std::fs::write(file, figure::json_lines(&figures)?)?;
    }
    let missed = figures.iter().filter(|figure| !figure.is_met()).count();
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
