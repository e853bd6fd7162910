//! The commands of `[UNIX_SOCKET] path`.

use std::path::PathBuf;

use super::Commands;
use crate::cli;
use crate::logs::Logs;

/// `reopen_files` and `show_version`.
#[derive(Debug)]
pub(crate) struct ProgramCommands {
    pub(crate) name: &'static str,
    pub(crate) logs: Logs,
}

impl Commands for ProgramCommands {
    async fn answer(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("reopen_files") => {
                let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
                if files.is_empty() {
                    return "ERROR: no file named\n".to_owned();
                }
                match reopen(&self.logs, Some(files)).await {
                    Ok(()) => "ACK\n".to_owned(),
                    Err(problem) => format!("ERROR: {problem}\n"),
                }
            }
            Some("show_version") => cli::build_info(self.name),
            _ => "Command not found\n".to_owned(),
        }
    }
}

/// Opens log files anew without holding up this thread.
pub(crate) async fn reopen(logs: &Logs, files: Option<Vec<PathBuf>>) -> Result<(), String> {
    let logs = logs.clone();
    tokio::task::spawn_blocking(move || logs.reopen(files)).await.unwrap_or_else(|error| Err(error.to_string()))
}
