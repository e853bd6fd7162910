//! The files that a client is set up from, followed while its program runs.

use std::path::PathBuf;

use crate::neo::{Identity, IdentityError};
use crate::registry::{Registry, RegistryError};

/// The nodes file and the credentials file of a group of nodes, to be spoken with by neo.
#[derive(Debug, Clone)]
pub struct GroupFiles {
    nodes: PathBuf,
    credentials: PathBuf,
    last: Option<Result<(Registry, Identity), String>>,
}

/// Which of the files cannot be used, and why; it names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The nodes file.
    #[error(transparent)]
    Nodes(#[from] RegistryError),
    /// The credentials file.
    #[error(transparent)]
    Credentials(#[from] IdentityError),
}

impl GroupFiles {
    /// Names the files; nothing is read.
    #[must_use]
    pub const fn new(nodes: PathBuf, credentials: PathBuf) -> Self {
        Self { nodes, credentials, last: None }
    }

    /// Reads both files: at most [`crate::registry::MAX_FILE_BYTES`] of nodes and one line of credentials. Blocks.
    ///
    /// # Errors
    /// One is missing or wrong.
    pub fn read(&self) -> Result<(Registry, Identity), FilesError> {
        Ok((Registry::from_file(&self.nodes)?, Identity::from_file(&self.credentials)?))
    }

    /// Reads both files; gives what they say if this is not what they said the last time. Blocks.
    pub fn changed(&mut self) -> Option<Result<(Registry, Identity), String>> {
        let now = self.read().map_err(|error| error.to_string());
        if self.last.as_ref() == Some(&now) {
            return None;
        }
        self.last = Some(now.clone());
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::fs;

    use super::*;

    #[test]
    fn what_the_files_say_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let [nodes, credentials] = ["x.nodes", "x.credentials"].map(|name| dir.path().join(name));
        let mut files = GroupFiles::new(nodes.clone(), credentials.clone());
        let key = |digit: &str| format!("me:{}\n", digit.repeat(256));
        fs::write(&credentials, key("0")).unwrap();
        let missing = files.changed().unwrap().unwrap_err();
        assert!(missing.contains("x.nodes") && missing.contains("cannot read"), "{missing}");
        assert!(files.changed().is_none());

        for text in ["127.0.0.1:1\n", "127.0.0.1:2\n"] {
            fs::write(&nodes, text).unwrap();
            let (registry, identity) = files.changed().unwrap().unwrap();
            assert_eq!((registry, identity.name.as_str()), (Registry::from_file(&nodes).unwrap(), "me"));
            assert!(files.changed().is_none());
        }
        fs::write(&credentials, key("1")).unwrap();
        assert!(files.changed().unwrap().is_ok(), "another key");
        fs::write(&credentials, "me").unwrap();
        assert!(files.changed().unwrap().unwrap_err().contains("x.credentials"));
        fs::write(&credentials, key("1")).unwrap();
        fs::write(&nodes, "# none\n").unwrap();
        assert!(files.changed().unwrap().unwrap_err().contains("names no node"));
        assert!(files.changed().is_none());
    }
}
