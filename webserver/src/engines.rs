//! Which engines there are and who hands events to whom: `etc/engines/*.conf`, of which nothing else is read here.

use std::collections::BTreeMap;

use overstory_runtime::{Home, config};
use serde::Deserialize;

/// The files of the process, not of an engine.
const PROCESS: &str = "amqp2engines";
/// A directory with more files is not one of engines.
const MAX_FILES: usize = 256;

/// The engines that are switched on, each with those that it hands events to.
pub type EngineMap = BTreeMap<String, Vec<String>>;

#[derive(Debug, Deserialize)]
struct File {
    engine: Section,
}

#[derive(Debug, Deserialize)]
struct Section {
    #[serde(default)]
    next: String,
    #[serde(default = "yes")]
    enabled: bool,
}

const fn yes() -> bool {
    true
}

/// Reads the engines of a prefix; what cannot be read is left out and told to the log.
#[must_use]
pub fn read(home: &Home) -> EngineMap {
    let mut engines = EngineMap::new();
    let Ok(files) = std::fs::read_dir(home.config_file("engines")) else { return engines };
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let names = names.filter_map(|name| name.strip_suffix(".conf").map(str::to_owned));
    for name in names.filter(|name| name != PROCESS).take(MAX_FILES) {
        match config::load::<File>(home, &format!("engines/{name}.conf"), &name.to_uppercase(), &[]) {
            Ok(file) if file.engine.enabled => {
                let next = file.engine.next.split(',').map(str::trim).filter(|next| !next.is_empty());
                engines.insert(name, next.map(str::to_owned).collect());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(engine = name, %error, "cannot read the configuration of an engine"),
        }
    }
    engines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::path::Path;

    use super::*;

    #[test]
    fn the_shipped_engines_form_a_chain() {
        let engines = read(&Home::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")));
        let next = |name: &str| engines[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(next("cleaner"), ["context"]);
        assert_eq!(next("context"), ["alarms"]);
        assert_eq!(next("alarms"), ["metrics"]);
        assert_eq!(next("stats"), [""; 0]);
        assert!(!engines.contains_key("amqp2engines"));
    }

    #[test]
    fn engines_that_are_off_or_cannot_be_read_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/engines")).unwrap();
        for (name, text) in [
            ("a.conf", "[engine]\nnext = \"b, c\"\n[a]\nx = 1"),
            ("b.conf", "[engine]\nenabled = false"),
            ("c.conf", "nonsense"),
            ("d.txt", ""),
        ] {
            std::fs::write(dir.path().join("etc/engines").join(name), text).unwrap();
        }
        let engines = read(&Home::at(dir.path()));
        assert_eq!(engines, EngineMap::from([("a".to_owned(), vec!["b".to_owned(), "c".to_owned()])]));
        assert_eq!(read(&Home::at("/nonexistent")), EngineMap::new());
    }
}
