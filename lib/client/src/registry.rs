//! The nodes that a client knows, from code or from a nodes file (protocol §5).
//!
//! A nodes file has one `ip:port` per line; `#` begins a comment, empty lines are ignored. The port is that of the
//! protocol which the client speaks: a file for neo names the neo ports (of a dht node: its legacy port + 100).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Nodes that a registry holds at most.
pub const MAX_NODES: usize = 4096;
/// Bytes that a nodes file has at most.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The nodes, in the order they were added, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    nodes: Vec<SocketAddrV4>,
}

/// Something that cannot be a node of the registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no nodes file.
    #[error("{}: larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A line is wrong.
    #[error("{}, line {line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: NodeProblem,
    },
    /// A file without nodes.
    #[error("{}: names no node", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// A node given in code is wrong.
    #[error(transparent)]
    Node(#[from] NodeProblem),
}

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeProblem {
    /// There is no `:port`.
    #[error("`{0}` names no port: a node is IP:PORT")]
    NoPort(String),
    /// The address is no IPv4 address.
    #[error("`{0}` is no IPv4 address")]
    Address(String),
    /// The port is no port.
    #[error("`{0}` is no port (1 to 65535)")]
    Port(String),
    /// The node is there already.
    #[error("{0} is named twice")]
    Duplicate(SocketAddrV4),
    /// There are too many.
    #[error("more than {MAX_NODES} nodes")]
    TooMany,
}

impl Registry {
    /// Makes an empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a nodes file.
    ///
    /// # Errors
    /// See [`RegistryError`]; a wrong line is named.
    pub fn from_file(path: &Path) -> Result<Self, RegistryError> {
        let mut registry = Self::new();
        registry.add_file(path)?;
        Ok(registry)
    }

    /// Adds a node.
    ///
    /// # Errors
    /// It is there already, or there are [`MAX_NODES`].
    pub fn add(&mut self, node: SocketAddrV4) -> Result<(), NodeProblem> {
        if self.nodes.contains(&node) {
            return Err(NodeProblem::Duplicate(node));
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(NodeProblem::TooMany);
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Adds the nodes of a file; none if one of them is wrong.
    ///
    /// # Errors
    /// See [`RegistryError`]; a wrong line is named.
    pub fn add_file(&mut self, path: &Path) -> Result<(), RegistryError> {
        let read = |source| RegistryError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(read)?.len() > MAX_FILE_BYTES {
            return Err(RegistryError::TooLarge { path: path.to_owned() });
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let before = self.nodes.len();
        if let Err((line, problem)) = self.add_lines(&text) {
            self.nodes.truncate(before);
            return Err(RegistryError::Line { path: path.to_owned(), line, problem });
        }
        if self.nodes.len() == before {
            return Err(RegistryError::Empty { path: path.to_owned() });
        }
        Ok(())
    }

    /// Adds the nodes of a text; the error has the number of the line.
    fn add_lines(&mut self, text: &str) -> Result<(), (usize, NodeProblem)> {
        for (index, line) in text.lines().enumerate() {
            let node = line.split('#').next().unwrap_or_default().trim();
            if !node.is_empty() {
                parse_node(node).and_then(|node| self.add(node)).map_err(|problem| (index + 1, problem))?;
            }
        }
        Ok(())
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[SocketAddrV4] {
        &self.nodes
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

/// Reads a node, `ip:port`.
///
/// # Errors
/// Says which part is wrong. Names are not looked up: the protocol wants addresses.
pub fn parse_node(text: &str) -> Result<SocketAddrV4, NodeProblem> {
    let (address, port) = text.rsplit_once(':').ok_or_else(|| NodeProblem::NoPort(text.to_owned()))?;
    let address: Ipv4Addr = address.trim().parse().map_err(|_| NodeProblem::Address(address.to_owned()))?;
    let number = port.trim().parse().ok().filter(|&number: &u16| number != 0);
    Ok(SocketAddrV4::new(address, number.ok_or_else(|| NodeProblem::Port(port.to_owned()))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<String>, String> {
        let mut registry = Registry::new();
        registry.add_lines(text).map_err(|(line, problem)| format!("{line}: {problem}"))?;
        Ok(registry.nodes().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_nodes_file_has_addresses_comments_and_empty_lines() {
        let text = "# all nodes\n127.0.0.1:21000\n\n  10.0.0.2:21000  # the second\r\n#10.0.0.3:1\n";
        assert_eq!(lines(text).unwrap(), ["127.0.0.1:21000", "10.0.0.2:21000"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("127.0.0.1:1\n127.0.0.1", "2: `127.0.0.1` names no port: a node is IP:PORT"),
            ("localhost:21000", "1: `localhost` is no IPv4 address"),
            ("::1:21000", "1: `::1` is no IPv4 address"),
            ("127.0.0.1:0", "1: `0` is no port (1 to 65535)"),
            ("127.0.0.1:65536", "1: `65536` is no port (1 to 65535)"),
            ("127.0.0.1:", "1: `` is no port (1 to 65535)"),
            ("127.0.0.1:5\n#\n127.0.0.1:5", "3: 127.0.0.1:5 is named twice"),
        ] {
            assert_eq!(lines(text).unwrap_err(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_file_adds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes");
        fs::write(&path, "10.0.0.1:5\n10.0.0.2\n").unwrap();
        let mut registry = Registry::new();
        registry.add("10.0.0.9:1".parse().unwrap()).unwrap();
        let error = registry.add_file(&path).unwrap_err().to_string();
        assert!(error.ends_with("line 2: `10.0.0.2` names no port: a node is IP:PORT"), "{error}");
        assert_eq!(registry.nodes().len(), 1);
        fs::write(&path, "# none\n").unwrap();
        assert!(matches!(registry.add_file(&path), Err(RegistryError::Empty { .. })));
        assert!(matches!(Registry::from_file(&dir.path().join("no")), Err(RegistryError::Read { .. })));
    }
}
