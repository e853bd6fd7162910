//! Configuration: a TOML file, over it the environment, over that the command line.

use std::fs;
use std::path::{Path, PathBuf};

use ::config::{Config, Environment, File, FileFormat};
use serde::de::DeserializeOwned;

use crate::home::Home;

/// A configuration file may not be larger than this, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A secret may not be longer than this, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Why a configuration cannot be used. Each message names the file and what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is larger than any configuration is.
    #[error("{path} has {bytes} bytes, more than the {limit} that are read", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A syntax error, an unknown key or a value of the wrong type.
    #[error("{path}: {message} (environment variables {env}__SECTION__KEY count too)", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The prefix of the variables that override it.
        env: String,
        /// What is wrong, with section and key.
        message: String,
    },
    /// A value that has the right type and still cannot be.
    #[error("{file}: [{section}] {key} = {value}: {allowed}")]
    Value {
        /// The file.
        file: String,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What would be right.
        allowed: String,
    },
}

impl ConfigError {
    /// Refuses `value` of `key`, saying what is allowed.
    #[must_use]
    pub fn value(file: &str, section: &str, key: &str, value: impl ToString, allowed: &str) -> Self {
        Self::Value {
            file: file.to_owned(),
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_string(),
            allowed: allowed.to_owned(),
        }
    }
}

/// Reads `etc/<file>`, then `OVERSTORY_<name>__SECTION__KEY` from the environment, then `overrides` (`section.key`).
///
/// `T` says which keys there are (`#[serde(deny_unknown_fields)]`) and their defaults (`#[serde(default)]`).
///
/// # Errors
/// The file is missing or too large, or does not have the form of `T`.
pub fn load<T: DeserializeOwned>(
    home: &Home,
    file: &str,
    name: &str,
    overrides: &[(&str, String)],
) -> Result<T, ConfigError> {
    let path = home.config_file(file);
    let env = format!("OVERSTORY_{name}");
    let text = read_bounded(&path, MAX_FILE_BYTES)?;
    let environment =
        Environment::with_prefix(&env).prefix_separator("__").separator("__").try_parsing(true).ignore_empty(true);
    parse(&text, environment, overrides).map_err(|message| ConfigError::Invalid { path, env, message })
}

fn parse<T: DeserializeOwned>(text: &str, environment: Environment, overrides: &[(&str, String)]) -> Result<T, String> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml)).add_source(environment);
    for (key, value) in overrides {
        builder = builder.set_override(*key, value.as_str()).map_err(|error| error.to_string())?;
    }
    let config = builder.build().map_err(|error| error.to_string())?;
    config.try_deserialize().map_err(|error| error.to_string())
}

/// Reads a secret from its file, without the line break at its end.
///
/// # Errors
/// The file is missing, unreadable or too large.
pub fn read_secret(home: &Home, path: &str) -> Result<String, ConfigError> {
    let text = read_bounded(&home.resolve(path), MAX_SECRET_BYTES)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_bounded(path: &Path, limit: u64) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > limit {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes, limit });
    }
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        #[serde(default)]
        server: Server,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Server {
        port: u16,
    }

    impl Default for Server {
        fn default() -> Self {
            Self { port: 8082 }
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::with_prefix("T").prefix_separator("__").separator("__").try_parsing(true).source(Some(pairs))
    }

    #[test]
    fn command_line_wins_over_environment_wins_over_file() {
        let file = "[server]\nport = 1";
        let env = || environment(&[("T__SERVER__PORT", "2")]);
        assert_eq!(parse::<Raw>("", environment(&[]), &[]).unwrap().server.port, 8082);
        assert_eq!(parse::<Raw>(file, environment(&[]), &[]).unwrap().server.port, 1);
        assert_eq!(parse::<Raw>(file, env(), &[]).unwrap().server.port, 2);
        assert_eq!(parse::<Raw>(file, env(), &[("server.port", "3".to_owned())]).unwrap().server.port, 3);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = parse::<Raw>("[server]\nprot = 1", environment(&[]), &[]).unwrap_err();
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Raw>(&Home::at("/nonexistent"), "x.conf", "X", &[]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/etc/x.conf"), "{error}");
    }
}
