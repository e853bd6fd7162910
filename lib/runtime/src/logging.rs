//! Logs: plain lines, one event each, for supervisord to keep.

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The variable that sets what is logged, such as `debug` or `info,overstory_amqp=trace`.
pub const LOG_VARIABLE: &str = "OVERSTORY_LOG";

/// Logs to standard output from `info` up, as long-running programs do.
pub fn init_program() {
    let ansi = std::io::stdout().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(std::io::stdout);
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(LevelFilter::INFO))).try_init();
}

/// Logs to standard error from `warn` up, as commands do whose output is their result.
pub fn init_command() {
    let ansi = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().without_time().with_ansi(ansi).with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets(LevelFilter::WARN))).try_init();
}

fn targets(default: LevelFilter) -> Targets {
    let wanted = std::env::var(LOG_VARIABLE).ok().and_then(|text| text.parse::<Targets>().ok());
    // The AMQP library reports each reconnect as an error; ours says so once, where it is handled.
    wanted.unwrap_or_else(|| Targets::new().with_default(default).with_target("lapin", LevelFilter::OFF))
}
