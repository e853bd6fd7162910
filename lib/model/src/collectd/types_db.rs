//! The table of types: how many values a type has, what they are called and what sort of numbers they are.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::metric::MetricKind;

/// The most types that a table can hold.
const MAX_TYPES: usize = 20_000;

static BUILTIN: LazyLock<TypesDb> = LazyLock::new(|| TypesDb::from_shapes(include_str!("types.txt")));

/// One value of a type.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSource {
    /// Its name.
    pub name: String,
    /// What sort of number it is.
    pub kind: MetricKind,
    /// The least value (of the rate, for counts), if there is one.
    pub min: Option<f64>,
    /// The greatest value (of the rate, for counts), if there is one.
    pub max: Option<f64>,
}

/// The data sources of every type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TypesDb {
    types: HashMap<String, Arc<[DataSource]>>,
}

/// A line of a `types.db` that has not its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TypesDbError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl TypesDb {
    /// The types that collectd 5 knows.
    #[must_use]
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Adds the types of a file in the format of collectd's `types.db`; those that are there already are replaced.
    ///
    /// ```text
    /// # comment
    /// if_octets    rx:DERIVE:0:U, tx:DERIVE:0:U
    /// ```
    ///
    /// # Errors
    /// At the first line of another form.
    pub fn extend_from(&mut self, text: &str) -> Result<(), TypesDbError> {
        for (index, line) in text.lines().enumerate() {
            let wrong = |what| TypesDbError { line: index + 1, what };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, rest) = line.split_once(char::is_whitespace).ok_or_else(|| wrong("a type without sources"))?;
            let sources = parse_sources(rest).map_err(wrong)?;
            if self.types.len() >= MAX_TYPES {
                return Err(wrong("too many types"));
            }
            self.types.insert(name.to_owned(), sources.into());
        }
        Ok(())
    }

    /// The data sources of a type, at least one.
    #[must_use]
    pub fn get(&self, type_name: &str) -> Option<&[DataSource]> {
        self.types.get(type_name).map(AsRef::as_ref)
    }

    /// How many types there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    fn from_shapes(text: &str) -> Self {
        let mut db = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((shape, names)) = line.split_once(" = ") else { continue };
            let Ok(sources) = parse_sources(shape) else { continue };
            let sources: Arc<[DataSource]> = sources.into();
            db.types.extend(names.split_whitespace().map(|name| (name.to_owned(), Arc::clone(&sources))));
        }
        db
    }
}

fn parse_sources(text: &str) -> Result<Vec<DataSource>, &'static str> {
    let mut sources = Vec::new();
    for source in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty()) {
        let parts: Vec<&str> = source.split(':').collect();
        let &[name, kind, min, max] = parts.as_slice() else {
            return Err("a data source is NAME:KIND:MIN:MAX");
        };
        let kind = kind_of(kind).ok_or("the kind is GAUGE, COUNTER, DERIVE or ABSOLUTE")?;
        sources.push(DataSource { name: name.to_owned(), kind, min: limit_of(min)?, max: limit_of(max)? });
    }
    match sources.len() {
        0 => Err("a type without sources"),
        n if n > super::MAX_VALUES => Err("too many data sources"),
        _ => Ok(sources),
    }
}

pub(super) fn kind_of(word: &str) -> Option<MetricKind> {
    [
        ("GAUGE", MetricKind::Gauge),
        ("COUNTER", MetricKind::Counter),
        ("DERIVE", MetricKind::Derive),
        ("ABSOLUTE", MetricKind::Absolute),
    ]
    .into_iter()
    .find_map(|(name, kind)| word.eq_ignore_ascii_case(name).then_some(kind))
}

fn limit_of(text: &str) -> Result<Option<f64>, &'static str> {
    match text {
        "U" | "u" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "a limit is a number or U"),
    }
}
