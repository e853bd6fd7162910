//! The file of clients and their keys, `etc/credentials` (protocol §2.1).
//!
//! ```text
//! name:hex     name  1 to 100 printable ASCII characters without space and without ':'
//! name:hex     hex   256 hexadecimal digits, the key
//! ```
//!
//! Limits: 10 MiB in all; a name occurs once. Empty lines are passed over. A node may have no client yet; a client's own
//! file has exactly one line.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use thiserror::Error;

use super::{ClientKey, KEY, MAX_NAME};

/// Bytes that a credentials file has at most.
pub const MAX_CREDENTIALS: usize = 10 << 20;

/// Digits of a key.
const DIGITS: usize = KEY * 2;

/// Clients and their keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    keys: HashMap<Box<[u8]>, ClientKey>,
}

/// A credentials file that is refused. Tells the line and what is wrong, and nothing of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct CredentialsError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line of a credentials file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file as a whole is too long.
    #[error("the file has more than {MAX_CREDENTIALS} bytes")]
    TooLong,
    /// No ':'.
    #[error("a line is NAME:KEY, and here is no ':'")]
    NoSeparator,
    /// The name is empty or too long.
    #[error("a name has 1 to {MAX_NAME} characters, this one has {0}")]
    NameLength(usize),
    /// The name has a space, a control character or one beyond ASCII.
    #[error("a name has printable ASCII characters only, and no space")]
    NameCharacter,
    /// The key is too short or too long.
    #[error("a key has {DIGITS} hexadecimal digits, this one has {0}")]
    KeyLength(usize),
    /// The key has something else than digits.
    #[error("a key has hexadecimal digits only")]
    KeyDigit,
    /// The name stood in an earlier line.
    #[error("the name has a key already")]
    Duplicate,
    /// A client's file has no line.
    #[error("there is no entry, and has to be one")]
    Missing,
    /// A client's file has a second line.
    #[error("there is a second entry, and has to be one only")]
    Second,
}

impl Credentials {
    /// Reads a node's file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(file: &[u8]) -> Result<Self, CredentialsError> {
        let mut keys = HashMap::new();
        for entry in entries(file) {
            let (line, name, key) = entry?;
            match keys.entry(name.into()) {
                Entry::Vacant(vacant) => vacant.insert(key),
                Entry::Occupied(_) => return Err(CredentialsError { line, problem: Problem::Duplicate }),
            };
        }
        Ok(Self { keys })
    }

    /// Reads a client's file: exactly one name and its key.
    ///
    /// # Errors
    /// The first line that is wrong, or one too many, or none.
    pub fn parse_single(file: &[u8]) -> Result<(String, ClientKey), CredentialsError> {
        let mut entries = entries(file);
        let (_, name, key) = entries.next().ok_or(CredentialsError { line: 1, problem: Problem::Missing })??;
        match entries.next() {
            Some(second) => Err(CredentialsError { line: second?.0, problem: Problem::Second }),
            None => Ok((String::from_utf8_lossy(name).into_owned(), key)),
        }
    }

    /// The key of a client.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&ClientKey> {
        self.keys.get(name)
    }

    /// Adds a client, or gives it another key.
    ///
    /// # Errors
    /// No client can have the name.
    pub fn insert(&mut self, name: &str, key: ClientKey) -> Result<(), Problem> {
        check_name(name.as_bytes())?;
        self.keys.insert(name.as_bytes().into(), key);
        Ok(())
    }

    /// The names of the clients, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.keys.keys().filter_map(|name| std::str::from_utf8(name).ok()).collect();
        names.sort_unstable();
        names
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("clients", &self.len()).finish()
    }
}

type Parsed<'a> = Result<(usize, &'a [u8], ClientKey), CredentialsError>;

fn entries(file: &[u8]) -> impl Iterator<Item = Parsed<'_>> {
    let too_long = file.len() > MAX_CREDENTIALS;
    let refused = too_long.then_some(Err(CredentialsError { line: 1, problem: Problem::TooLong }));
    let file = if too_long { &[] } else { file };
    let lines = file.split(|&byte| byte == b'\n').zip(1..).filter_map(|(text, line)| {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let parsed = |problem| CredentialsError { line, problem };
        (!text.is_empty()).then(|| entry(text).map(|(name, key)| (line, name, key)).map_err(parsed))
    });
    refused.into_iter().chain(lines)
}

fn entry(text: &[u8]) -> Result<(&[u8], ClientKey), Problem> {
    let separator = text.iter().position(|&byte| byte == b':').ok_or(Problem::NoSeparator)?;
    let (name, rest) = text.split_at(separator);
    check_name(name)?;
    let digits = rest.get(1..).unwrap_or_default();
    if digits.len() != DIGITS {
        return Err(Problem::KeyLength(digits.len()));
    }
    Ok((name, ClientKey::from_hex(digits).ok_or(Problem::KeyDigit)?))
}

fn check_name(name: &[u8]) -> Result<(), Problem> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Problem::NameLength(name.len()));
    }
    if !name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':') {
        return Err(Problem::NameCharacter);
    }
    Ok(())
}
