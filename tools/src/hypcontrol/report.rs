//! What `hypcontrol` shows while it works: lines that are redrawn on a terminal, one line per transition elsewhere,
//! one JSON object per transition for programs.

use std::io::{self, Write};

use overstory_supervisor::services::Failure;
use overstory_supervisor::{Layout, ProcessName};
use serde::Serialize;
use tokio::time::Instant;

use crate::service::text;

/// Longest line that is redrawn: a wrapped one could not be.
const COLUMNS: usize = 79;

/// Is where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Stage {
    /// Its turn has not come.
    Waiting,
    /// It was told to start.
    Starting,
    /// It runs and does not answer yet.
    Running,
    /// It does its work.
    Ready,
    /// It failed.
    Failed,
    /// What it needs failed.
    Skipped,
    /// It was told to stop.
    Stopping,
    /// It has ended, or did not run.
    Stopped,
}

impl Stage {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Whether nothing more will come.
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Skipped | Self::Stopped)
    }
}

/// Chooses how progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Terminal,
    Plain,
    Json,
}

/// Is a line of the display: one service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    section: &'static str,
    service: String,
    stage: Stage,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip)]
    begun: Option<Instant>,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<NamedFailure>,
}

/// Is the failure of one process.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NamedFailure {
    process: ProcessName,
    #[serde(flatten)]
    failure: Failure,
}

/// Shows progress.
pub(crate) struct Reporter<W: Write> {
    out: W,
    style: Style,
    layout: Layout,
    begun: Instant,
    rows: Vec<Row>,
    /// Lines on the terminal that the next drawing replaces.
    drawn: usize,
}

impl<W: Write> Reporter<W> {
    pub(crate) fn new(out: W, style: Style, layout: &Layout) -> Self {
        Self { out, style, layout: layout.clone(), begun: Instant::now(), rows: Vec::new(), drawn: 0 }
    }

    /// Adds a service to the display.
    pub(crate) fn add(&mut self, section: &'static str, service: &str) {
        let (service, detail) = (service.to_owned(), String::new());
        let row = Row { section, service, stage: Stage::Waiting, detail, begun: None, elapsed_ms: 0, failures: vec![] };
        self.rows.push(row);
    }

    /// Shows that a service has reached a stage, or what holds it there.
    pub(crate) fn stage(&mut self, service: &str, stage: Stage, detail: &str) -> io::Result<()> {
        let now = Instant::now();
        let Some(row) = self.rows.iter_mut().find(|row| row.service == service) else { return Ok(()) };
        let moved = row.stage != stage;
        detail.clone_into(&mut row.detail);
        row.stage = stage;
        let begun = *row.begun.get_or_insert(now);
        row.elapsed_ms = millis(begun, now);
        if !moved {
            return Ok(());
        }
        let row = row.clone();
        match self.style {
            Style::Terminal => self.draw(),
            Style::Plain => {
                writeln!(self.out, "{}", plain_line(&row))?;
                self.out.flush()
            }
            Style::Json => {
                let at_ms = millis(self.begun, now);
                self.json(&Transition { kind: "transition", at_ms, row: &row })
            }
        }
    }

    /// Shows that a process of a service failed; its report is written at the end.
    pub(crate) fn failed(&mut self, service: &str, process: &ProcessName, failure: &Failure) -> io::Result<()> {
        if let Some(row) = self.rows.iter_mut().find(|row| row.service == service) {
            row.failures.push(NamedFailure { process: process.clone(), failure: failure.clone() });
        }
        let exit = failure.exit.as_ref().map(|exit| format!(" ({exit})")).unwrap_or_default();
        self.stage(service, Stage::Failed, &format!("{}{exit}", failure.reason))
    }

    /// Says something that belongs to no service.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        match self.style {
            Style::Json => self.json(&Message { kind: "message", text }),
            Style::Terminal | Style::Plain => {
                self.erase()?;
                writeln!(self.out, "{text}")?;
                self.out.flush()?;
                if self.style == Style::Terminal && self.rows.iter().any(|row| row.begun.is_some()) {
                    self.draw()?;
                }
                Ok(())
            }
        }
    }

    /// Redraws the elapsed times on a terminal.
    pub(crate) fn tick(&mut self) -> io::Result<()> {
        if self.style == Style::Terminal { self.draw() } else { Ok(()) }
    }

    /// Where a service stands.
    pub(crate) fn stage_of(&self, service: &str) -> Option<Stage> {
        self.rows.iter().find(|row| row.service == service).map(|row| row.stage)
    }

    /// Whether a service failed or was left out.
    pub(crate) fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.stage, Stage::Failed | Stage::Skipped))
    }

    /// Ends the display: reports of failures, then `summary`, or the table for programs.
    pub(crate) fn finish(&mut self, summary: &str) -> io::Result<()> {
        if self.style == Style::Json {
            let rows = self.rows.clone();
            let elapsed_ms = millis(self.begun, Instant::now());
            return self.json(&Table { kind: "table", ok: !self.has_failed(), elapsed_ms, services: &rows });
        }
        if self.style == Style::Terminal {
            self.draw()?;
            self.drawn = 0;
        }
        let reports = self.rows.iter().flat_map(|row| &row.failures);
        let reports = reports.map(|f| text::failure(&f.process.to_string(), &f.failure, &self.layout));
        let reports: String = reports.collect();
        write!(self.out, "{reports}")?;
        let seconds = self.begun.elapsed().as_secs_f64();
        writeln!(self.out, "{summary} ({seconds:.1} s)")?;
        self.out.flush()
    }

    fn draw(&mut self) -> io::Result<()> {
        self.erase()?;
        let now = Instant::now();
        for row in &mut self.rows {
            if let Some(begun) = row.begun
                && !row.stage.is_final()
            {
                row.elapsed_ms = millis(begun, now);
            }
            let line: String = terminal_line(row).chars().take(COLUMNS).collect();
            writeln!(self.out, "{}{line}\x1b[0m", colour(row.stage))?;
        }
        self.drawn = self.rows.len();
        self.out.flush()
    }

    /// Takes the lines back that were drawn last.
    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        writeln!(self.out, "{}", serde_json::to_string(object).map_err(io::Error::other)?)?;
        self.out.flush()
    }
}

#[derive(Serialize)]
struct Transition<'a> {
    kind: &'static str,
    at_ms: u64,
    #[serde(flatten)]
    row: &'a Row,
}

#[derive(Serialize)]
struct Message<'a> {
    kind: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
struct Table<'a> {
    kind: &'static str,
    ok: bool,
    elapsed_ms: u64,
    services: &'a [Row],
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

fn seconds(row: &Row) -> String {
    format!("{}.{} s", row.elapsed_ms / 1000, row.elapsed_ms / 100 % 10)
}

fn plain_line(row: &Row) -> String {
    let mut line = format!("{} {} {}", row.section, row.service, row.stage.as_str());
    if row.stage.is_final() && row.elapsed_ms > 0 {
        line += &format!(" after {}", seconds(row));
    }
    if !row.detail.is_empty() {
        line += &format!(": {}", row.detail);
    }
    line
}

fn terminal_line(row: &Row) -> String {
    let elapsed = if row.begun.is_some() { seconds(row) } else { String::new() };
    let line =
        format!("{:<10} {:<24} {:<9} {elapsed:>8}  {}", row.section, row.service, row.stage.as_str(), row.detail);
    line.trim_end().to_owned()
}

const fn colour(stage: Stage) -> &'static str {
    match stage {
        Stage::Ready => "\x1b[32m",
        Stage::Failed => "\x1b[31m",
        Stage::Skipped => "\x1b[33m",
        Stage::Waiting | Stage::Stopped => "\x1b[2m",
        Stage::Starting | Stage::Running | Stage::Stopping => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overstory_supervisor::journal::ExitOutcome;
    use std::time::Duration;

    async fn shown(style: Style) -> String {
        let mut reporter = Reporter::new(Vec::new(), style, &Layout::new("/p"));
        reporter.add("BACKEND", "rabbit");
        reporter.add("FRONTEND", "web");
        reporter.stage("rabbit", Stage::Starting, "").unwrap();
        reporter.stage("rabbit", Stage::Starting, "not yet").unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let failure = Failure {
            reason: "BACKOFF: Exited too quickly".to_owned(),
            exit: Some(ExitOutcome::Code(7)),
            log: Some("/p/var/log/rabbit.log".into()),
            last_lines: vec!["boom".to_owned()],
        };
        reporter.failed("rabbit", &ProcessName::lone("rabbit"), &failure).unwrap();
        reporter.stage("web", Stage::Skipped, "rabbit failed").unwrap();
        assert!(reporter.has_failed());
        reporter.finish("failed").unwrap();
        String::from_utf8(reporter.out).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_gets_one_line_per_transition_and_the_report() {
        let expected = "BACKEND rabbit STARTING\n\
            BACKEND rabbit FAILED after 1.5 s: BACKOFF: Exited too quickly (exit code 7)\n\
            FRONTEND web SKIPPED: rabbit failed\n\
            rabbit: FAILED: BACKOFF: Exited too quickly (exit code 7)\n  its log: /p/var/log/rabbit.log\n  | boom\n\
            failed (1.5 s)\n";
        assert_eq!(shown(Style::Plain).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_gets_objects_and_a_table_at_the_end() {
        let text = shown(Style::Json).await;
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 4);
        assert_eq!((&objects[0]["kind"], &objects[0]["stage"]), (&"transition".into(), &"STARTING".into()));
        let table = &objects[3];
        assert_eq!((&table["kind"], &table["ok"]), (&"table".into(), &false.into()));
        assert_eq!(table["services"][0]["failures"][0]["exit"]["code"], 7);
        assert_eq!(table["services"][0]["failures"][0]["last_lines"][0], "boom");
        assert_eq!(table["services"][1]["stage"], "SKIPPED");
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_gets_one_line_per_service_redrawn() {
        let text = shown(Style::Terminal).await;
        assert!(text.contains("\x1b[2A\x1b[J"), "{text:?}");
        assert!(text.contains("BACKEND    rabbit                   FAILED       1.5 s  BACKOFF"), "{text}");
    }
}
