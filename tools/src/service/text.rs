//! How states and failures are written for people.

use std::fmt::Write as _;

use overstory_supervisor::services::{Condition, Done, Failure, ProcessStatus};
use overstory_supervisor::{Layout, ProcessState};

/// One line on a process: name, state, and what matters in that state.
pub(crate) fn status_line(status: &ProcessStatus, width: usize) -> String {
    let mut line = format!("{:width$}  {:<9}", status.name, status.state.as_str());
    let mut remarks: Vec<String> = Vec::new();
    if let Some(pid) = status.pid {
        remarks.push(format!("pid {pid}"));
    }
    if let Some(uptime) = status.uptime_s {
        remarks.push(format!("up {}", duration(uptime)));
    }
    if !status.detail.is_empty() {
        remarks.push(status.detail.clone());
    }
    let ended = matches!(status.state, Condition::CrashLoop) || status.pid.is_none();
    if let Some(exit) = status.last_exit.as_ref().filter(|_| ended && status.state != stopped()) {
        remarks.push(format!("last {exit}"));
    }
    if status.restarts > 0 {
        remarks.push(format!("ended {} times in 10 min", status.restarts));
    }
    if status.is_failed()
        && let Some(log) = &status.log
    {
        remarks.push(format!("log {}", log.display()));
    }
    if !remarks.is_empty() {
        line += " ";
        line += &remarks.join(", ");
    }
    line.trim_end().to_owned()
}

const fn stopped() -> Condition {
    Condition::Plain(ProcessState::Stopped)
}

/// Seconds as `1d 02:03:04`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}d {clock}") } else { clock }
}

/// What was done, in a word.
pub(crate) const fn done(done: Done) -> &'static str {
    match done {
        Done::Started => "started",
        Done::AlreadyStarted => "already started",
        Done::Stopped => "stopped",
        Done::AlreadyStopped => "already stopped",
    }
}

/// The report of a failure: what happened, how the program ended, its log and the log's last lines.
pub(crate) fn failure(name: &str, failure: &Failure, layout: &Layout) -> String {
    let mut text = format!("{name}: FAILED: {}", failure.reason);
    if let Some(exit) = &failure.exit {
        let _ = write!(text, " ({exit})");
    }
    text.push('\n');
    if let Some(log) = &failure.log {
        let _ = writeln!(text, "  its log: {}", log.display());
        for line in &failure.last_lines {
            let _ = writeln!(text, "  | {line}");
        }
    } else {
        let _ = writeln!(text, "  supervisord's log: {}", layout.supervisord_log().display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use overstory_supervisor::ProcessName;
    use overstory_supervisor::journal::ExitOutcome;

    fn status(state: Condition) -> ProcessStatus {
        ProcessStatus {
            name: ProcessName::new("e", "e-0"),
            service: "e".to_owned(),
            state,
            pid: None,
            uptime_s: None,
            restarts: 0,
            last_exit: Some(ExitOutcome::Code(7)),
            log: Some("/p/var/log/e-0.log".into()),
            detail: String::new(),
        }
    }

    #[test]
    fn a_line_tells_what_matters_in_its_state() {
        let running =
            ProcessStatus { pid: Some(12), uptime_s: Some(90_061), ..status(Condition::Plain(ProcessState::Running)) };
        assert_eq!(status_line(&running, 8), "e:e-0     RUNNING   pid 12, up 1d 01:01:01");
        let fatal =
            ProcessStatus { detail: "Exited too quickly".to_owned(), ..status(Condition::Plain(ProcessState::Fatal)) };
        assert_eq!(
            status_line(&fatal, 8),
            "e:e-0     FATAL     Exited too quickly, last exit code 7, log /p/var/log/e-0.log"
        );
        assert_eq!(status_line(&status(stopped()), 8), "e:e-0     STOPPED");
        let looping = ProcessStatus { pid: Some(3), restarts: 4, ..status(Condition::CrashLoop) };
        assert_eq!(
            status_line(&looping, 8),
            "e:e-0     CRASHLOOP pid 3, last exit code 7, ended 4 times in 10 min, log /p/var/log/e-0.log"
        );
    }

    #[test]
    fn a_failure_names_exit_code_and_log() {
        let failed = Failure {
            reason: "ended".to_owned(),
            exit: Some(ExitOutcome::Signal("SIGKILL".to_owned())),
            log: Some("/p/x.log".into()),
            last_lines: vec!["boom".to_owned()],
        };
        let text = failure("web", &failed, &Layout::new("/p"));
        assert_eq!(text, "web: FAILED: ended (ended by SIGKILL)\n  its log: /p/x.log\n  | boom\n");
    }
}
