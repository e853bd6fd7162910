//! Starting the stack: section by section, in parallel inside a section, each service ready before what needs it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overstory_runtime::backoff::Backoff;
use overstory_supervisor::control::{self, Pace};
use overstory_supervisor::readiness::ProbeContext;
use overstory_supervisor::services::{Failure, Services, note_on};
use overstory_supervisor::settle::{Settle, Verdict};
use overstory_supervisor::{Probe, ProcessDef, ProcessInfo, ProcessName, ProcessState, SupervisorError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::plan::{Node, Plan, Section};
use super::report::{Reporter, Stage};

/// The time between two probes of a service: short at first, longer when it takes long.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Starts every service of a plan and waits until each is ready; failures are in the reporter.
///
/// # Errors
/// When supervisord does not answer or nothing can be written.
pub(crate) async fn start(
    services: &Services,
    plan: &Plan<'_>,
    reporter: &mut Reporter<impl Write>,
) -> anyhow::Result<()> {
    let mut ready: Vec<Item<'_>> = Vec::new();
    for section in &plan.sections {
        if reporter.has_failed() {
            let because = failed_sections(plan, section, reporter);
            for node in &section.nodes {
                reporter.stage(&node.service.name, Stage::Skipped, &because)?;
            }
            continue;
        }
        ready.extend(start_section(services, section, reporter).await?);
    }
    verify(services, &ready, reporter).await
}

/// Starts every service of a plan in its order and waits for none.
///
/// # Errors
/// When supervisord does not answer or nothing can be written.
pub(crate) async fn start_without_waiting(
    services: &Services,
    plan: &Plan<'_>,
    reporter: &mut Reporter<impl Write>,
) -> anyhow::Result<()> {
    for (_, node) in plan.nodes() {
        Item::new(node).begin(services, reporter).await?;
    }
    Ok(())
}

fn failed_sections(plan: &Plan<'_>, before: &Section<'_>, reporter: &Reporter<impl Write>) -> String {
    let earlier = plan.sections.iter().take_while(|section| section.name != before.name);
    let failed: Vec<_> = earlier
        .flat_map(|section| section.nodes.iter().map(move |node| (section.name, node.service.name.as_str())))
        .filter(|(_, service)| reporter.stage_of(service) == Some(Stage::Failed))
        .map(|(section, service)| format!("{service} ({section})"))
        .collect();
    format!("{} failed", failed.join(", "))
}

/// Starts a section; returns the services that are ready.
async fn start_section<'p>(
    services: &Services,
    section: &'p Section<'p>,
    reporter: &mut Reporter<impl Write>,
) -> anyhow::Result<Vec<Item<'p>>> {
    let mut items: Vec<_> = section.nodes.iter().map(Item::new).collect();
    let mut pace = Pace::new();
    loop {
        let stages: Vec<_> = items.iter().map(|item| (item.name().to_owned(), item.stage)).collect();
        for item in items.iter_mut().filter(|item| item.stage == Stage::Waiting) {
            let needed = || stages.iter().filter(|(name, _)| item.node.waits_for.contains(&name.as_str()));
            if let Some((name, _)) = needed().find(|(_, s)| matches!(s, Stage::Failed | Stage::Skipped)) {
                let because = format!("{name} failed");
                item.stage = Stage::Skipped;
                reporter.stage(item.name(), Stage::Skipped, &because)?;
            } else if needed().all(|(_, stage)| *stage == Stage::Ready) {
                item.begin(services, reporter).await?;
            }
        }
        if items.iter().all(|item| item.stage.is_final()) {
            break;
        }
        pace.wait().await;
        let infos = services.supervisor().processes().await?;
        for item in items.iter_mut().filter(|item| matches!(item.stage, Stage::Starting | Stage::Running)) {
            item.look(services, &infos, reporter).await?;
        }
        reporter.tick()?;
    }
    items.retain(|item| item.stage == Stage::Ready);
    Ok(items)
}

/// Looks once more at what was ready: a service that has died since, or keeps dying, is not.
async fn verify(services: &Services, ready: &[Item<'_>], reporter: &mut Reporter<impl Write>) -> anyhow::Result<()> {
    let infos = services.supervisor().processes().await?;
    let journal = services.journal(&infos).await;
    for item in ready {
        for one in &item.processes {
            let info = infos.iter().find(|info| info.name == one.def.name);
            let same = info.is_some_and(|info| info.pid == one.pid);
            let history = journal.history(&one.def.name.name, info.map_or(0, |info| info.now));
            let reason = if !same {
                "ended after it was ready".to_owned()
            } else if history.is_crash_loop() {
                format!("keeps dying: started {} times within a minute", history.recent_starts)
            } else {
                continue;
            };
            let failure = services.failure(one.def, info, Some(reason)).await;
            reporter.failed(item.name(), &one.def.name, &failure)?;
        }
    }
    Ok(())
}

/// Is a service that is being started.
struct Item<'p> {
    node: &'p Node<'p>,
    stage: Stage,
    begun: Instant,
    processes: Vec<One<'p>>,
    /// What the operator should know about its configuration.
    note: String,
}

/// Is one of its processes.
struct One<'p> {
    def: &'p ProcessDef,
    settle: Settle,
    verdict: Verdict,
    pid: Option<i32>,
    log: Option<(PathBuf, u64)>,
    probing: Option<Probing>,
}

impl<'p> Item<'p> {
    fn new(node: &'p Node<'p>) -> Self {
        let one = |def: &'p ProcessDef| One {
            def,
            settle: Settle::new(def.start_secs),
            verdict: Verdict::Pending,
            pid: None,
            log: def.stdout_log.clone().map(|path| (path, 0)),
            probing: None,
        };
        let processes = node.processes.iter().copied().map(one).collect();
        Self { node, stage: Stage::Waiting, begun: Instant::now(), processes, note: String::new() }
    }

    fn name(&self) -> &'p str {
        &self.node.service.name
    }

    /// Applies the service's configuration and starts those of its processes that do not run.
    async fn begin(&mut self, services: &Services, reporter: &mut Reporter<impl Write>) -> anyhow::Result<()> {
        self.begun = Instant::now();
        let applied = services.apply(self.node.service).await?;
        self.note = note_on(self.name(), &applied).unwrap_or_default();
        let infos = services.supervisor().processes().await?;
        let mut started = false;
        for one in &mut self.processes {
            let info = infos.iter().find(|info| info.name == one.def.name);
            if info.is_some_and(|i| matches!(i.state, ProcessState::Running | ProcessState::Starting)) {
                continue;
            }
            started = true;
            if let Some((path, size)) = &mut one.log {
                *size = std::fs::metadata(path).map_or(0, |meta| meta.len());
            }
            match control::start_process(services.supervisor(), &one.def.name).await {
                Ok(()) => {}
                Err(SupervisorError::Fault(refusal)) => {
                    let failure = services.refusal(one.def, &applied, &refusal);
                    self.stage = Stage::Failed;
                    reporter.failed(&self.node.service.name, &one.def.name, &failure)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if self.stage != Stage::Failed {
            self.stage = if started { Stage::Starting } else { Stage::Running };
            let detail = if started { self.note.clone() } else { self.with_note("already started") };
            reporter.stage(self.name(), self.stage, &detail)?;
        }
        Ok(())
    }

    /// Looks at its processes, and moves it on.
    async fn look(
        &mut self,
        services: &Services,
        infos: &[ProcessInfo],
        reporter: &mut Reporter<impl Write>,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        for one in &mut self.processes {
            one.look(infos, now);
        }
        let crashed: Vec<_> =
            self.processes.iter().filter(|one| matches!(one.verdict, Verdict::Crashed | Verdict::Ended)).collect();
        if !crashed.is_empty() {
            for one in crashed {
                let info = infos.iter().find(|info| info.name == one.def.name);
                let failure = services.failure(one.def, info, None).await;
                self.stage = Stage::Failed;
                reporter.failed(self.name(), &one.def.name, &failure)?;
            }
            return Ok(());
        }
        if self.processes.iter().all(One::is_ready) {
            self.stage = Stage::Ready;
            reporter.stage(self.name(), Stage::Ready, &self.note)?;
            return Ok(());
        }
        let waiting: Vec<String> = self.processes.iter().filter_map(One::waits_for).collect();
        if now.saturating_duration_since(self.begun) > self.node.service.timeout {
            return self.time_out(services, infos, reporter).await;
        }
        if !waiting.is_empty() {
            self.stage = Stage::Running;
        }
        let detail = self.with_note(&waiting.join(", "));
        Ok(reporter.stage(self.name(), self.stage, &detail)?)
    }

    async fn time_out(
        &mut self,
        services: &Services,
        infos: &[ProcessInfo],
        reporter: &mut Reporter<impl Write>,
    ) -> anyhow::Result<()> {
        self.stage = Stage::Failed;
        for one in self.processes.iter().filter(|one| !one.is_ready()) {
            let info = infos.iter().find(|info| info.name == one.def.name);
            let held = one.waits_for().or_else(|| info.map(|i| i.state.to_string())).unwrap_or_default();
            let reason = format!("not ready within {} s: {held}", self.node.service.timeout.as_secs());
            // It has not ended: how it ended an earlier time does not belong here.
            let failure = Failure { exit: None, ..services.failure(one.def, info, Some(reason)).await };
            reporter.failed(self.name(), &one.def.name, &failure)?;
        }
        Ok(())
    }

    fn with_note(&self, text: &str) -> String {
        match (text.is_empty(), self.note.is_empty()) {
            (_, true) => text.to_owned(),
            (true, false) => self.note.clone(),
            (false, false) => format!("{text}; {}", self.note),
        }
    }
}

impl One<'_> {
    fn look(&mut self, infos: &[ProcessInfo], now: Instant) {
        let Some(info) = infos.iter().find(|info| info.name == self.def.name) else {
            self.verdict = Verdict::Ended;
            return;
        };
        self.verdict = self.settle.look(info, now);
        self.pid = info.pid;
        if info.pid.is_some() && self.probing.is_none() && !self.def.ready.is_empty() {
            self.probing = Some(Probing::begin(self.def.ready.clone(), ProbeContext { log: self.log.clone() }));
        }
    }

    /// Without probes a process is ready when supervisord and several looks say that it is up; with probes that have
    /// passed it need not have lived for `startsecs`.
    fn is_ready(&self) -> bool {
        match (&self.probing, self.verdict) {
            (None, Verdict::Up) => self.def.ready.is_empty(),
            (Some(probing), Verdict::Up | Verdict::Alive) => probing.has_passed(),
            _ => false,
        }
    }

    /// What a process that is up waits for.
    fn waits_for(&self) -> Option<String> {
        let met = self.probing.as_ref()?.last_met();
        (!met.is_empty()).then_some(met)
    }
}

/// Probes a process in the background, one connection at a time, until every probe has passed.
struct Probing {
    task: JoinHandle<()>,
    met: Arc<Mutex<String>>,
}

impl Probing {
    fn begin(probes: Vec<Probe>, context: ProbeContext) -> Self {
        let met = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&met);
        let task = tokio::spawn(async move {
            let mut pause = Backoff::new(PROBE_PAUSE.0, PROBE_PAUSE.1);
            for probe in probes {
                while let Err(error) = probe.check(&context).await {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
                    tokio::time::sleep(pause.next_delay()).await;
                }
            }
        });
        Self { task, met }
    }

    fn has_passed(&self) -> bool {
        self.task.is_finished()
    }

    fn last_met(&self) -> String {
        if self.has_passed() { String::new() } else { self.met.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Probes a process once: `None` when it has no probes.
pub(crate) async fn is_ready_now(def: &ProcessDef) -> Option<Result<(), String>> {
    let context = ProbeContext { log: def.stdout_log.clone().map(|path| (path, 0)) };
    for probe in &def.ready {
        if let Err(error) = probe.check(&context).await {
            return Some(Err(error.to_string()));
        }
    }
    (!def.ready.is_empty()).then_some(Ok(()))
}

/// The names of the processes of a plan that run now.
pub(crate) fn running(plan: &Plan<'_>, infos: &[ProcessInfo]) -> Vec<ProcessName> {
    let up = |name: &ProcessName| infos.iter().any(|info| info.name == *name && info.state.has_process());
    plan.processes().map(|p| p.name.clone()).filter(|name| up(name)).collect()
}
