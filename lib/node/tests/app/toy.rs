//! A node and a tool with next to no inside.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use overstory_model::Timestamp;
use overstory_node::app::{Flag, NodeContext, NodeProgram, ToolContext, ToolProgram};
use overstory_node::config::{Config, ConfigError};
use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support};
use overstory_node::inspect::{ChannelTotals, DumpFacts, Facts, Inspect, ToolInspect, Totals};
use overstory_node::stats::{Fields, NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_swarm::neo::Replies;

/// Answers every request `n` with `n`.
pub(crate) struct Toy {
    stats: Rc<NodeStats>,
    settings: Settings,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    open: Duration,
    close: Duration,
    fail_open: bool,
    fail_close: bool,
    /// Tells the test what was called.
    trace: PathBuf,
}

impl Settings {
    fn read(config: &Config) -> Result<Self, ConfigError> {
        let (toy, server) = (config.section("Toy"), config.section("Server"));
        let (_, _) = (server.text("minval"), server.text("maxval"));
        let millis = |key| toy.number(key, 0, 0..=60_000).map(Duration::from_millis);
        Ok(Self {
            open: millis("open_ms")?,
            close: millis("close_ms")?,
            fail_open: toy.flag("fail_open", false)?,
            fail_close: toy.flag("fail_close", false)?,
            trace: "trace".into(),
        })
    }

    fn called(&self, what: &str) -> anyhow::Result<()> {
        let before = fs::read_to_string(&self.trace).unwrap_or_default();
        Ok(fs::write(&self.trace, format!("{before}{what}\n"))?)
    }
}

impl Engine for Toy {
    const LEGACY_REQUESTS: &'static [RequestSpec] =
        &[RequestSpec { code: 1, name: "Echo", tracked: true, timed: true }];
    const NEO_REQUESTS: &'static [RequestSpec] = &[RequestSpec { code: 1, name: "Echo", tracked: true, timed: false }];
    const ACTIONS: &'static [&'static str] = &["echoed"];

    fn legacy(&self, _: &Peer, _: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        let Some(request) = input.get(..4) else { return LegacyStep::Need(4) };
        out.extend_from_slice(request);
        self.stats.actions[0].add(4);
        LegacyStep::Done { consumed: 4, request: 0 }
    }

    fn supports(&self, _: u8, _: u8) -> Support {
        Support::UnknownCode
    }

    fn neo(&self, _: NeoRequest<'_>, _: &mut Replies<'_>) -> Begun {
        Begun::Done
    }
}

impl Inspect for Toy {
    fn totals(&self) -> Totals {
        Totals { records: 2, bytes: 30 }
    }

    fn channels(&self, after: Option<&str>, visit: &mut dyn FnMut(&str, ChannelTotals) -> ControlFlow<()>) {
        for (name, bytes) in [("a", 10), ("b", 20)] {
            if after.is_none_or(|after| name > after) && visit(name, ChannelTotals { bytes, records: 1 }).is_break() {
                return;
            }
        }
    }

    fn facts(&self) -> Facts {
        Facts { range: Some((0, u64::MAX)), memory: 30, channels: 2, ..Facts::default() }
    }
}

pub(crate) struct ToyNode;

impl NodeProgram for ToyNode {
    const NAME: &'static str = "toynode";
    const TYPE: &'static str = "toy";
    const CRATES: &'static [&'static str] = &["app"];
    const ABOUT: &'static str = "echoes";
    type Settings = Settings;
    type Engine = Toy;

    fn check(config: &Config) -> Result<Settings, ConfigError> {
        Settings::read(config)
    }

    fn neo_port(config: &Config, port: u16) -> Result<u16, ConfigError> {
        port.checked_add(100).ok_or_else(|| config.section("Server").wrong("port", "at most 65435"))
    }

    async fn open(settings: Settings, context: NodeContext) -> anyhow::Result<Rc<Toy>> {
        settings.called("open")?;
        tokio::time::sleep(settings.open).await;
        anyhow::ensure!(!settings.fail_open, "every record is out of range");
        Ok(Rc::new(Toy { stats: context.stats, settings }))
    }

    async fn close(engine: Rc<Toy>) -> anyhow::Result<()> {
        engine.settings.called("closing")?;
        tokio::time::sleep(engine.settings.close).await;
        anyhow::ensure!(!engine.settings.fail_close, "disk full");
        engine.settings.called("closed")
    }
}

pub(crate) struct ToyTool;

pub(crate) struct Work {
    context: ToolContext,
    oneshot: bool,
}

impl ToolInspect for Work {
    fn stats(&self, fields: &mut Fields) {
        fields.int("records_written", 5);
        fields.of("channel", "a", "records_written", 5);
    }

    fn totals(&self) -> Totals {
        Totals { records: 5, bytes: 50 }
    }

    fn facts(&self) -> Facts {
        Facts { dump: Some(DumpFacts { last: Some(Timestamp(1)), ..DumpFacts::default() }), ..Facts::default() }
    }
}

impl ToolProgram for ToyTool {
    const NAME: &'static str = "toytool";
    const TYPE: &'static str = "toytool";
    const CRATES: &'static [&'static str] = &["app"];
    const ABOUT: &'static str = "writes";
    const FLAGS: &'static [Flag] = &[Flag { short: Some('o'), long: "oneshot", help: "Write once" }];
    type Settings = bool;
    type State = Work;

    fn check(config: &Config) -> Result<bool, ConfigError> {
        Ok(config.flag("oneshot"))
    }

    fn open(oneshot: bool, context: ToolContext) -> anyhow::Result<Rc<Work>> {
        Ok(Rc::new(Work { context, oneshot }))
    }

    async fn run(state: Rc<Work>) -> anyhow::Result<()> {
        tracing::info!(target: "toytool.main", instance = state.context.instance, "working");
        if !state.oneshot {
            state.context.shutdown.requested().await;
        }
        Ok(())
    }
}
