//! `collectd`: the connector that watches this host.
//!
//! Every interval it reads `/proc` into one perf event of the host, and says when a threshold is crossed or cleared.
//! While the broker is away the events wait in `var/spool`. `docs/METRICS.md` lists what it publishes; the names are
//! those of a real collectd.

mod agent;
mod batch;
mod checks;
mod collector;
pub mod config;
mod event;
mod facts;
mod metrics;
mod procfs;
mod read;
mod threshold;
mod ticker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use overstory_amqp::AmqpConfig;
use overstory_runtime::Home;
use overstory_runtime::program::{self, Flavor};

pub use threshold::{Levels, Rule};

use config::CollectdConfig;

const PROGRAM: &str = "collectd";

/// Watches this host: processor, memory, swap, load, disks, network, processes.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, about)]
struct Arguments {
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Read the host once, print the event to standard output and exit; needs no broker.
    #[arg(long, conflicts_with = "check_config")]
    once: bool,
    /// Seconds from one tick to the next.
    #[arg(long, value_name = "SECONDS")]
    interval: Option<u32>,
    /// The host's name in its events.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
}

/// Runs the program; `args` begins with its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to say it to when this fails.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let home = Home::find();
    let mut overrides = Vec::new();
    overrides.extend(arguments.interval.map(|seconds| ("connector.interval_s", seconds.to_string())));
    overrides.extend(arguments.hostname.map(|name| ("connector.hostname", name)));
    let config = match CollectdConfig::load(&home, &overrides) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string()),
    };
    if arguments.check_config {
        return match AmqpConfig::load(&home) {
            Ok(_) => {
                println!("ok");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        };
    }
    if arguments.once {
        overstory_runtime::logging::init_command();
        return match program::block_on(agent::once(&config)) {
            Ok(event) => {
                println!("{event}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("{error:#}")),
        };
    }
    program::run(PROGRAM, Flavor::CurrentThread, |shutdown| async move {
        agent::run(config, &home, shutdown).await.map_err(Into::into)
    })
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{PROGRAM}: {message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["collectd", "--once", "--check-config"]).is_err());
        assert!(Arguments::try_parse_from(["collectd", "--interval", "ten"]).is_err());
    }
}
