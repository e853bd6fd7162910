//! `queuenode`: the queue node under its first name, whose queues are in memory alone unless it is configured otherwise.

use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;

use overstory_node::app::{self, NodeContext, NodeProgram};
use overstory_node::config::{Config, ConfigError, sections};

use crate::config::{DmqSettings, Durability};
use crate::dmqnode;
use crate::engine::DmqEngine;

/// Runs the node; `args` begins with its name.
#[must_use]
pub fn run(args: Vec<OsString>) -> ExitCode {
    app::run::<QueueNode>(args)
}

/// The program.
#[derive(Debug)]
pub struct QueueNode;

impl NodeProgram for QueueNode {
    const NAME: &'static str = "queuenode";
    const TYPE: &'static str = "queue";
    const CRATES: &'static [&'static str] = &["overstory_dmq"];
    const ABOUT: &'static str = "keeps queues of records in memory";
    type Settings = DmqSettings;
    type Engine = DmqEngine;

    fn check(config: &Config) -> Result<DmqSettings, ConfigError> {
        DmqSettings::read(config, Durability::Memory)
    }

    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
        sections::neo_port(config, port)
    }

    async fn open(settings: DmqSettings, context: NodeContext) -> anyhow::Result<Rc<DmqEngine>> {
        dmqnode::open(&settings, context)
    }

    async fn close(engine: Rc<DmqEngine>) -> anyhow::Result<()> {
        engine.close()
    }
}
