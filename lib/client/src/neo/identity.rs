//! Who the client is, and the files that say so (protocol §2.1).

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use overstory_swarm::auth::{ClientKey, Credentials, CredentialsError, MAX_CREDENTIALS, MAX_NAME};

/// Who the client is: its name and the key that the nodes know for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name, 1 to 100 bytes.
    pub name: String,
    /// The key.
    pub key: ClientKey,
}

/// A client's credentials file that cannot be used. Nothing of what stands in it is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not exactly one `name:key`.
    #[error("{}: {source}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CredentialsError,
    },
    /// The file has many clients and the wanted one is not among them.
    #[error("{}: no client `{name}`", path.display())]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Who was wanted.
        name: String,
    },
}

impl Identity {
    /// Reads a client's credentials file: exactly one `name:key` (protocol §2.1).
    ///
    /// # Errors
    /// It cannot be read, or is not that.
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        let content = |source| IdentityError::Content { path: path.to_owned(), source };
        let (name, key) = Credentials::parse_single(&read(path)?).map_err(content)?;
        Ok(Self { name, key })
    }

    /// Takes one client out of a node's credentials file.
    ///
    /// # Errors
    /// The file cannot be read or is wrong, or has no such client.
    pub fn from_node_file(path: &Path, name: &str) -> Result<Self, IdentityError> {
        let content = |source| IdentityError::Content { path: path.to_owned(), source };
        let all = Credentials::parse(&read(path)?).map_err(content)?;
        let unknown = || IdentityError::Unknown { path: path.to_owned(), name: name.chars().take(MAX_NAME).collect() };
        let key = all.get(name.as_bytes()).cloned().ok_or_else(unknown)?;
        Ok(Self { name: name.to_owned(), key })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_CREDENTIALS as u64 {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 10 MiB")));
    }
    fs::read(path).map_err(failed)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("name", &self.name).finish_non_exhaustive()
    }
}
