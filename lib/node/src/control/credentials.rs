//! The names and keys of neo clients: `etc/credentials`, read at the start and when asked to.

use std::cell::RefCell;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use overstory_swarm::auth::{Credentials, MAX_CREDENTIALS};

use super::Commands;

/// Reads the file.
///
/// # Errors
/// It cannot be read or a line is wrong; the text names the file and the line, and nothing of what is in it.
pub(crate) fn load(path: &Path) -> Result<Credentials, String> {
    let at = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let read = || -> io::Result<(Vec<u8>, u32)> {
        let file = std::fs::File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut text = Vec::new();
        file.take(MAX_CREDENTIALS as u64 + 1).read_to_end(&mut text)?;
        Ok((text, mode))
    };
    let (text, mode) = read().map_err(|error| at(&error))?;
    if mode & 0o077 != 0 {
        tracing::warn!(target: "node.control", file = %path.display(), "others can read the keys of the clients: chmod 600");
    }
    Credentials::parse(&text).map_err(|error| at(&error))
}

/// The commands of `[Server] unix_socket_path`.
#[derive(Debug)]
pub(crate) struct CredentialCommands {
    pub(crate) path: PathBuf,
    pub(crate) credentials: Rc<RefCell<Credentials>>,
}

impl CredentialCommands {
    async fn update(&self) -> String {
        let path = self.path.clone();
        // The disk may take its time; the node's thread has none.
        let loaded = tokio::task::spawn_blocking(move || load(&path)).await.unwrap_or_else(|e| Err(e.to_string()));
        // A file that was just emptied, by an editor or a full disk, is no wish to lock everybody out.
        let some = |new: &Credentials| !new.is_empty() || self.credentials.borrow().is_empty();
        let loaded = loaded.and_then(|new| {
            if some(&new) { Ok(new) } else { Err(format!("{}: it names no client", self.path.display())) }
        });
        match loaded {
            Ok(new) => {
                tracing::info!(target: "node.control", clients = new.len(), "credentials updated");
                *self.credentials.borrow_mut() = new;
                "Credentials updated.\n".to_owned()
            }
            Err(problem) => {
                tracing::error!(target: "node.control", problem, "cannot update credentials, the old ones stay");
                format!("Error updating credentials: {problem}\n")
            }
        }
    }

    fn list(&self) -> String {
        let mut text = "Registered credentials:\n".to_owned();
        for name in self.credentials.borrow().names() {
            text.push_str(name);
            text.push('\n');
        }
        text
    }
}

impl Commands for CredentialCommands {
    async fn answer(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("update-credentials" | "list-credentials"), Some(_)) => {
                "Error: No command arguments expected\n".to_owned()
            }
            (Some("update-credentials"), None) => self.update().await,
            (Some("list-credentials"), None) => self.list(),
            _ => "Command not found\n".to_owned(),
        }
    }
}
