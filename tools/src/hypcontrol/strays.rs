//! Processes that nobody looks after: found, reported, ended.

use std::time::Duration;

use anyhow::Context as _;
use overstory_supervisor::process_table::{self, ReapError, Stray, StrayKind};
use overstory_supervisor::{ProcessName, Services, lock};

/// The strays of a prefix.
pub(crate) async fn find(services: &Services) -> anyhow::Result<Vec<Stray>> {
    let (daemon, infos) = supervised(services).await?;
    Ok(process_table::find_strays(&services.layout().socket(), daemon, &infos))
}

/// Ends the strays of a prefix, each within the time that its service may take to stop.
pub(crate) async fn reap(services: &Services) -> anyhow::Result<Vec<Stray>> {
    // Nobody starts a service beside a stray that holds its port and its files.
    let path = services.layout().daemon_lock();
    let _held = lock::acquire(&path, |_| ()).await.with_context(|| path.display().to_string())?;
    let patience = |name: &ProcessName| {
        services.catalogue().process(name).map_or(Duration::from_secs(10), |process| process.stop_wait)
    };
    let ended = process_table::reap(&services.layout().socket(), services.supervisor(), patience).await;
    ended.map_err(|error| match error {
        ReapError::Left(left) => {
            let lines: Vec<_> = left.iter().map(describe).collect();
            anyhow::anyhow!("these processes do not end:\n{}", lines.join("\n"))
        }
        error => error.into(),
    })
}

async fn supervised(services: &Services) -> anyhow::Result<(Option<i32>, Vec<overstory_supervisor::ProcessInfo>)> {
    let daemon = match services.daemon() {
        Some(daemon) => daemon.identity().await?,
        None => None,
    };
    Ok((daemon.map(|identity| identity.pid), services.infos().await?))
}

/// One line on a stray.
pub(crate) fn describe(stray: &Stray) -> String {
    let why = match (stray.kind, stray.duplicate) {
        (StrayKind::Orphan, false) => "its supervisord is dead",
        (StrayKind::Orphan, true) => "its supervisord is dead, and the service runs a second time",
        (StrayKind::Leftover, false) => "left over from a service that has ended",
        (StrayKind::Leftover, true) => "left over from an earlier run of the service",
    };
    format!("{} (process {}, {why}): {}", stray.service, stray.pid, stray.command)
}
