//! The prefix: the one directory that an installation lives in.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// The variable that overrides where the prefix is.
pub const HOME_VARIABLE: &str = "OVERSTORY_HOME";

/// An installation's root directory and the places below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Finds the prefix of this process.
    ///
    /// In this order: `OVERSTORY_HOME`; the directory above the `bin` that the executable was started from, when it
    /// holds an `etc`; `/opt/overstory` for root; `overstory` in the user's home directory.
    #[must_use]
    pub fn find() -> Self {
        if let Some(root) = std::env::var_os(HOME_VARIABLE).filter(|root| !root.is_empty()) {
            return Self::at(root);
        }
        if let Some(root) = prefix_of_executable() {
            return Self::at(root);
        }
        if Uid::effective().is_root() {
            return Self::at("/opt/overstory");
        }
        let user_home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        Self::at(user_home.join("overstory"))
    }

    /// Takes `root` for the prefix; a relative path counts from the working directory.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { root: std::path::absolute(&root).unwrap_or(root) }
    }

    /// The prefix itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `bin`: the executable and its links.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// `etc`: configuration.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// A file in `etc`.
    #[must_use]
    pub fn config_file(&self, name: &str) -> PathBuf {
        self.etc().join(name)
    }

    /// `var/log`.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("var/log")
    }

    /// `var/run`: pid files, locks, sockets.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("var/run")
    }

    /// `var/lib`: data.
    #[must_use]
    pub fn lib_dir(&self) -> PathBuf {
        self.root.join("var/lib")
    }

    /// `var/spool`: messages that wait for the broker.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.root.join("var/spool")
    }

    /// A path from a configuration file: relative ones count from the prefix.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
}

/// The prefix that the running executable is installed in, whether it was called by its name or through a link.
fn prefix_of_executable() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let bin = executable.parent()?;
    let root = bin.parent()?;
    (bin.file_name()? == "bin" && root.join("etc/supervisord.conf").is_file()).then(|| root.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_count_from_the_prefix_and_absolute_ones_stand() {
        let home = Home::at("/p");
        assert_eq!(home.resolve("etc/secrets/amqp"), Path::new("/p/etc/secrets/amqp"));
        assert_eq!(home.resolve("/run/secret"), Path::new("/run/secret"));
        assert_eq!(home.config_file("amqp.conf"), Path::new("/p/etc/amqp.conf"));
    }
}
