//! The event engines: from messages on RabbitMQ to entities, alarms and metrics in the store.
//!
//! ```text
//! Engine_events ──► cleaner ─► context ─► alarms ─► metrics ─┐
//!                                                            ├─► one durable commit ─► ack, canopsis.alerts
//! Engine_collectdgw ──► collectdgw ──────────────────────────┘
//! Engine_archive ──► archive ─► logfiles nodes ─► ack
//! ```
//! [`engine`] holds the decisions, which are pure; [`unit`] runs them over a queue; [`pipeline`] joins the two.

pub mod archive;
pub mod config;
pub mod engine;
pub mod metrics;
pub mod pipeline;
mod process;
mod report;
pub mod unit;
pub mod working;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use overstory_amqp::AmqpConfig;
use overstory_runtime::program::{self, Flavor};
use overstory_runtime::{Home, config::ConfigError};
use overstory_store::StoreConfig;

use crate::archive::config::ArchiveConfig;
use crate::config::Config;

/// Turns events into entities, alarms and metrics.
#[derive(Debug, Parser)]
#[command(name = "amqp2engines", version, about)]
struct Arguments {
    /// The number of this process among those of this host, from 0: the admin listener's port counts from it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..100))]
    process_num: u16,
    /// Where the admin listener is, whatever the configuration and the number say.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// Read the configuration, say whether it can be used, and end.
    #[arg(long)]
    check_config: bool,
}

/// Everything that was read from files.
struct Configured {
    home: Home,
    amqp: AmqpConfig,
    store: StoreConfig,
    config: Config,
}

/// Runs the program; `args[0]` is its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and say so by their code; a closed output changes nothing.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let configured = match load(&Home::find()) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("amqp2engines: {error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.check_config {
        if let Some(warning) = configured.config.archive.as_ref().and_then(ArchiveConfig::warning) {
            eprintln!("amqp2engines: warning: {warning}");
        }
        println!("the configuration in {} can be used", configured.home.etc().display());
        return ExitCode::SUCCESS;
    }
    let mut admin = configured.config.admin;
    admin.set_port(admin.port().saturating_add(arguments.process_num));
    let admin = arguments.admin.unwrap_or(admin);
    let name = program::variable("SUPERVISOR_PROCESS_NAME")
        .unwrap_or_else(|| format!("amqp2engines-{}", arguments.process_num));
    let threads = configured.config.threads;
    program::run("amqp2engines", Flavor::MultiThread(threads), |shutdown| async move {
        process::body(configured, admin, name, shutdown).await
    })
}

fn load(home: &Home) -> Result<Configured, ConfigError> {
    let store = StoreConfig::load(home, &[])?;
    let config = Config::load(home, store.retention, &[])?;
    Ok(Configured { home: home.clone(), amqp: AmqpConfig::load(home)?, store, config })
}
