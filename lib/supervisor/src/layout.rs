//! Where supervision keeps its files in the prefix.

use std::path::{Path, PathBuf};

/// Knows the paths of one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    prefix: PathBuf,
}

impl Layout {
    /// The layout of the prefix `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { prefix: root.into() }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// supervisord's configuration.
    #[must_use]
    pub fn supervisord_conf(&self) -> PathBuf {
        self.prefix.join("etc/supervisord.conf")
    }

    /// The folder of the programs' definitions.
    #[must_use]
    pub fn program_dir(&self) -> PathBuf {
        self.prefix.join("etc/supervisord.d")
    }

    /// The order in which services start.
    #[must_use]
    pub fn hypcontrol_conf(&self) -> PathBuf {
        self.prefix.join("etc/hypcontrol.conf")
    }

    /// supervisord's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.prefix.join("var/run/supervisor.sock")
    }

    /// supervisord's own log.
    #[must_use]
    pub fn supervisord_log(&self) -> PathBuf {
        self.prefix.join("var/log/supervisord.log")
    }

    /// What supervisord said before it became a daemon.
    #[must_use]
    pub fn supervisord_stderr(&self) -> PathBuf {
        self.prefix.join("var/run/supervisord.err")
    }

    /// Held while supervisord is started or ended and while a configuration is applied.
    #[must_use]
    pub fn daemon_lock(&self) -> PathBuf {
        self.prefix.join("var/run/hyp.lock")
    }

    /// Held by `hypcontrol` for as long as it changes the stack.
    #[must_use]
    pub fn stack_lock(&self) -> PathBuf {
        self.prefix.join("var/run/hypcontrol.lock")
    }

    /// `path` itself when absolute, otherwise the path below the prefix.
    #[must_use]
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.prefix.join(path)
    }

    /// `path` relative to the prefix when it lies below it: shorter to read.
    #[must_use]
    pub fn shorten<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.prefix).unwrap_or(path)
    }
}
