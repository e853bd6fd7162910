//! The life of a node and of a tool beside it: arguments, configuration, data, service, end.

mod life;
mod node;
mod tool;

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use overstory_runtime::Shutdown;

use crate::config::{Config, ConfigError};
use crate::engine::Engine;
use crate::inspect::{Inspect, ToolInspect};
use crate::stats::NodeStats;
use life::About;

/// A flag of a program's own, beside those that all have.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its letter, if it has one.
    pub short: Option<char>,
    /// Its name; [`Config::flag`] tells whether it was given.
    pub long: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
}

/// A node program.
pub trait NodeProgram {
    /// The program's name, such as `dhtnode`. Log targets that begin with `node.` are written with it.
    const NAME: &'static str;
    /// The node's type, such as `dht`.
    const TYPE: &'static str;
    /// The crates whose log targets are modules of this program, such as `overstory_dht`.
    const CRATES: &'static [&'static str];
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// What the node's own sections say.
    type Settings;
    /// The engine.
    type Engine: Engine + Inspect;

    /// Reads the sections that only this node has. Touches no data.
    ///
    /// # Errors
    /// A value cannot be.
    fn check(config: &Config) -> Result<Self::Settings, ConfigError>;

    /// Files that the node has open beside its connections, at most.
    fn files(_settings: &Self::Settings) -> u64 {
        128
    }

    /// The neo port of a node on `port`.
    ///
    /// # Errors
    /// There is none.
    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError>;

    /// Loads the data. The listeners are bound by then, and nothing is served before this is done. Dropped when the
    /// program is asked to stop meanwhile, without [`Self::close`]; what it spawned has to look at the shutdown itself.
    fn open(settings: Self::Settings, context: NodeContext) -> impl Future<Output = anyhow::Result<Rc<Self::Engine>>>;

    /// Saves the data; no connection is left, and only the statistics still look at the engine. May take as long as it
    /// takes.
    fn close(engine: Rc<Self::Engine>) -> impl Future<Output = anyhow::Result<()>>;
}

/// What an engine gets from its program.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// The counters.
    pub stats: Rc<NodeStats>,
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// The configuration file, for [`crate::config::rewrite::set_range`].
    pub config_file: PathBuf,
    /// What the node calls its address.
    pub address: Ipv4Addr,
    /// The port it is known by, the legacy one.
    pub port: u16,
    /// The neo port.
    pub neo_port: u16,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// The instance's name.
    pub instance: String,
}

/// A tool that runs beside a node, supervised and watched like one.
pub trait ToolProgram {
    /// The program's name, such as `dhtdump`. Log targets that begin with `node.` are written with it.
    const NAME: &'static str;
    /// Its type in the platform's report.
    const TYPE: &'static str;
    /// The crates whose log targets are modules of this program.
    const CRATES: &'static [&'static str];
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// Flags of its own.
    const FLAGS: &'static [Flag];
    /// What the tool's own sections say.
    type Settings;
    /// What is watched.
    type State: ToolInspect + 'static;

    /// Reads the sections that only this tool has.
    ///
    /// # Errors
    /// A value cannot be.
    fn check(config: &Config) -> Result<Self::Settings, ConfigError>;

    /// Makes what is watched.
    ///
    /// # Errors
    /// The tool cannot begin.
    fn open(settings: Self::Settings, context: ToolContext) -> anyhow::Result<Rc<Self::State>>;

    /// Does the work, until it is done or the context's shutdown is requested.
    fn run(state: Rc<Self::State>) -> impl Future<Output = anyhow::Result<()>>;
}

/// What a tool gets from its program.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The wish to stop.
    pub shutdown: Shutdown,
    /// The instance's name.
    pub instance: String,
}

/// Runs a node; `args` begins with its name. Exit codes: 0, 1 (failed), 2 (arguments), 3 (configuration unreadable).
#[must_use]
pub fn run<P: NodeProgram>(args: Vec<OsString>) -> ExitCode {
    let about = About { name: P::NAME, crates: P::CRATES, about: P::ABOUT, flags: &[] };
    match life::plan(about, args, node::Plan::read::<P>) {
        Ok((plan, node)) => life::run(plan, async |life| node::live::<P>(life, node).await),
        Err(code) => code,
    }
}

/// Runs a tool; `args` begins with its name. Exit codes as those of [`run`].
#[must_use]
pub fn run_tool<P: ToolProgram>(args: Vec<OsString>) -> ExitCode {
    let about = About { name: P::NAME, crates: P::CRATES, about: P::ABOUT, flags: P::FLAGS };
    match life::plan(about, args, P::check) {
        Ok((plan, settings)) => life::run(plan, async |life| tool::live::<P>(life, settings).await),
        Err(code) => code,
    }
}
