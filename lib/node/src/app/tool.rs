//! The life of a tool beside a node.

use overstory_model::{Clock, SystemClock};

use super::life::Life;
use super::{ToolContext, ToolProgram};
use crate::watch::tool::ToolSubject;
use crate::watch::{Identity, Phase};

pub(super) async fn live<P: ToolProgram>(mut life: Life, settings: P::Settings) -> anyhow::Result<()> {
    let instance = life.plan.report.instance.clone();
    let running = life.start(Identity {
        program: P::NAME,
        kind: P::TYPE,
        connector_name: P::TYPE,
        instance: instance.clone(),
        group: life.plan.report.group.clone().unwrap_or_else(|| P::TYPE.to_owned()),
        host: life.host.clone(),
        started: SystemClock.now().secs(),
        interval_s: life.plan.report.interval.as_secs(),
        ..Identity::default()
    })?;
    tracing::info!(target: "node.main", version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "starting");
    let work = async {
        let state = P::open(settings, ToolContext { shutdown: life.shutdown.clone(), instance })?;
        running.begin();
        let mut subject = ToolSubject { state: state.clone() };
        let ended = tokio::select! {
            ended = P::run(state) => ended,
            never = running.watch(&mut subject) => match never {},
        };
        life.phase.set(Phase::Stopping);
        running.last(&mut subject, true).await;
        ended
    };
    let ended = work.await;
    running.end(ended).await
}
