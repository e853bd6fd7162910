//! `hypcontrol status`: every process of the stack, whether it is ready, and what nobody looks after.

use std::io::Write;

use futures_util::future::join_all;
use overstory_supervisor::Services;
use overstory_supervisor::api::Identity;
use overstory_supervisor::process_table::Stray;
use overstory_supervisor::services::ProcessStatus;
use serde::Serialize;

use super::plan::Plan;
use super::{start, strays};
use crate::service::text;

/// Is the state of the stack.
#[derive(Debug, Serialize)]
pub(crate) struct StackStatus {
    supervisord: Option<Identity>,
    services: Vec<Row>,
    strays: Vec<Stray>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// The section; absent for a service that hypcontrol does not start.
    section: Option<&'static str>,
    #[serde(flatten)]
    status: ProcessStatus,
    /// Whether its probes pass; absent when it has none or does not run.
    ready: Option<bool>,
    /// What a probe met.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
}

impl StackStatus {
    /// Looks at everything; starts nothing.
    pub(crate) async fn take(services: &Services, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let supervisord = match services.daemon() {
            Some(daemon) => daemon.identity().await?,
            None => None,
        };
        let section_of = |service: &str| plan.nodes().find(|(_, n)| n.service.name == service).map(|(s, _)| s);
        let mut statuses = services.list().await?;
        let order: Vec<_> = plan.processes().map(|p| &p.name).collect();
        // In the order in which they are started; what is not started here comes last, if it runs.
        statuses.sort_by_key(|s| order.iter().position(|name| **name == s.name).unwrap_or(usize::MAX));
        statuses.retain(|s| order.contains(&&s.name) || s.pid.is_some());
        let rows = statuses.into_iter().map(|status| async {
            let def = services.catalogue().process(&status.name).filter(|_| status.state.is_up());
            let probed = match def {
                Some(def) => start::is_ready_now(def).await,
                None => None,
            };
            let ready = probed.as_ref().map(Result::is_ok);
            Row { section: section_of(&status.service), status, ready, waits_for: probed.and_then(Result::err) }
        });
        Ok(Self { supervisord, services: join_all(rows).await, strays: strays::find(services).await? })
    }

    /// 0 when everything is ready, 1 when something failed, 3 when something is stopped.
    pub(crate) fn exit_code(&self) -> u8 {
        let planned = || self.services.iter().filter(|row| row.section.is_some());
        let failed = |row: &Row| row.status.is_failed() || row.ready == Some(false);
        if planned().any(failed) || self.strays.iter().any(|stray| stray.duplicate) {
            1
        } else if planned().all(|row| row.status.state.is_up()) {
            0
        } else {
            3
        }
    }

    /// Writes the state for people.
    pub(crate) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        match &self.supervisord {
            Some(identity) => writeln!(out, "supervisord {} runs (process {})", identity.version, identity.pid)?,
            None => writeln!(out, "supervisord does not run")?,
        }
        let width = self.services.iter().map(|row| row.status.name.to_string().len()).max().unwrap_or(0).max(24);
        for row in &self.services {
            let ready = match row.ready {
                Some(true) => "ready",
                Some(false) => "NOT READY",
                None => "",
            };
            let section = row.section.unwrap_or("-");
            write!(out, "{section:<10} {ready:<9}  {}", text::status_line(&row.status, width))?;
            match &row.waits_for {
                Some(met) => writeln!(out, ", {met}")?,
                None => writeln!(out)?,
            }
        }
        for stray in &self.strays {
            writeln!(out, "STRAY      {}", strays::describe(stray))?;
        }
        if !self.strays.is_empty() {
            writeln!(out, "`hypcontrol reap` ends the strays")?;
        }
        Ok(())
    }
}
