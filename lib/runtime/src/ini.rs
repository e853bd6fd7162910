//! Reads INI files: supervisord's dialect and that of the swarm nodes.
//!
//! Keys and values are kept as they stand in the file: nothing is interpolated, unescaped or lower-cased. A value may
//! go on in the lines below it when they are indented deeper than its key; the lines are joined by `\n`. A key that
//! is given twice in a section keeps both entries: [`Section::get`] answers with the last one, as supervisord does,
//! and [`Ini::duplicates`] lists them for those who refuse that.

use std::fmt;
use std::path::{Path, PathBuf};

/// Largest file that is read.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Largest number of `key = value` entries in a file.
pub const MAX_ENTRIES: usize = 20_000;

/// Says how a family of INI files writes comments and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// A line that starts with one of these is a comment.
    pub line_comments: &'static [&'static str],
    /// One of these after white space starts a comment that runs to the end of the line.
    pub inline_comments: &'static [char],
    /// The first of these ends the key.
    pub delimiters: &'static [char],
}

impl Dialect {
    /// The dialect of supervisord 4 (Python's `RawConfigParser` as supervisord sets it up).
    pub const SUPERVISORD: Self =
        Self { line_comments: &["#", ";"], inline_comments: &['#', ';'], delimiters: &['=', ':'] };
    /// The dialect of the swarm nodes' `config.ini`.
    pub const SWARM: Self = Self { line_comments: &["//", "#", ";"], inline_comments: &[], delimiters: &['='] };
}

/// Is what a parsed INI file holds, in the file's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ini {
    sections: Vec<Section>,
}

/// Is one `[name]` section; sections of the same name are merged into the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// Line of the header, counted from 1.
    pub line: usize,
    /// The entries in the file's order.
    pub entries: Vec<Entry>,
}

/// Is one `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// The value; continuation lines are joined by `\n`.
    pub value: String,
    /// Line of the key, counted from 1.
    pub line: usize,
}

/// Tells what is wrong with an INI file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}", place = Place(.file.as_deref(), *.line))]
pub struct IniError {
    /// The file, when it was read from one.
    pub file: Option<PathBuf>,
    /// The line, counted from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub problem: IniProblem,
}

/// Is a way in which an INI file can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IniProblem {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// The file has more than [`MAX_ENTRIES`] entries.
    #[error("has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// An entry stands before the first section.
    #[error("\"{0}\" stands before the first [section]")]
    NoSection(String),
    /// The line is neither a section nor an entry.
    #[error("\"{0}\" is neither a [section] nor a key with a value")]
    NotAnEntry(String),
}

struct Place<'a>(Option<&'a Path>, usize);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(file), 0) => write!(f, "{}", file.display()),
            (Some(file), line) => write!(f, "{}:{line}", file.display()),
            (None, line) => write!(f, "line {line}"),
        }
    }
}

impl Ini {
    /// Reads and parses a file. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// When the file cannot be read, is too large or is not INI; the error names the file and the line.
    pub fn read(path: &Path, dialect: Dialect) -> Result<Self, IniError> {
        let fail = |problem| IniError { file: Some(path.to_owned()), line: 0, problem };
        let size = std::fs::metadata(path).map_err(|e| fail(IniProblem::Read(e)))?.len();
        if size > MAX_FILE_BYTES as u64 {
            return Err(fail(IniProblem::TooLarge));
        }
        let bytes = std::fs::read(path).map_err(|e| fail(IniProblem::Read(e)))?;
        Self::parse(&String::from_utf8_lossy(&bytes), dialect)
            .map_err(|error| IniError { file: Some(path.to_owned()), ..error })
    }

    /// Parses text.
    ///
    /// # Errors
    /// When the text is too large or not INI; the error names the line.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, IniError> {
        let fail = |line, problem| IniError { file: None, line, problem };
        if text.len() > MAX_FILE_BYTES {
            return Err(fail(0, IniProblem::TooLarge));
        }
        let mut parser = Parser { dialect, ini: Self::default(), current: None, key_indent: None, entries: 0 };
        for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            parser.line(index + 1, raw).map_err(|problem| fail(index + 1, problem))?;
        }
        for entry in parser.ini.sections.iter_mut().flat_map(|s| &mut s.entries) {
            entry.value.truncate(entry.value.trim_end().len());
        }
        Ok(parser.ini)
    }

    /// The sections in the file's order.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The section of that name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    /// Every entry whose key an earlier entry of its section already has, with that section's name.
    pub fn duplicates(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.sections.iter().flat_map(|section| {
            section.entries.iter().enumerate().filter_map(|(index, entry)| {
                let seen = section.entries.iter().take(index).any(|e| e.key == entry.key);
                seen.then_some((section.name.as_str(), entry))
            })
        })
    }
}

impl Section {
    /// The value of `key` as written; the last one when it is given twice.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entry(key).map(|e| e.value.as_str())
    }

    /// The entry of `key`; the last one when it is given twice.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| e.key == key)
    }

    /// The value of `key` in any mixture of cases, as supervisord finds its keys.
    #[must_use]
    pub fn get_ignore_case(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|e| e.key.eq_ignore_ascii_case(key)).map(|e| e.value.as_str())
    }
}

struct Parser {
    dialect: Dialect,
    ini: Ini,
    /// Index of the section that entries go to.
    current: Option<usize>,
    /// Indentation of the key whose value may go on; `None` when no value is open.
    key_indent: Option<usize>,
    entries: usize,
}

impl Parser {
    fn line(&mut self, number: usize, raw: &str) -> Result<(), IniProblem> {
        let is_comment = self.dialect.line_comments.iter().any(|c| raw.trim_start().starts_with(c));
        let text = if is_comment { "" } else { self.without_inline_comment(raw).trim_end() };
        let trimmed = text.trim_start();
        if trimmed.is_empty() {
            // An empty line inside a value belongs to it; a comment does not.
            if !is_comment && raw.trim().is_empty() && self.key_indent.is_some() {
                self.extend_value("");
            }
            return Ok(());
        }
        let indent = text.len() - trimmed.len();
        if self.key_indent.is_some_and(|key| indent > key) {
            self.extend_value(trimmed);
            return Ok(());
        }
        if let Some(rest) = trimmed.strip_prefix('[')
            && let Some(end) = rest.rfind(']')
        {
            self.open_section(rest.get(..end).unwrap_or_default(), number);
            return Ok(());
        }
        self.entry(trimmed, indent, number)
    }

    fn entry(&mut self, text: &str, indent: usize, line: usize) -> Result<(), IniProblem> {
        let Some((key, value)) = text.split_once(self.dialect.delimiters) else {
            return Err(IniProblem::NotAnEntry(cut(text)));
        };
        let section = self.current.and_then(|i| self.ini.sections.get_mut(i));
        let Some(section) = section else { return Err(IniProblem::NoSection(cut(text))) };
        let key = key.trim();
        if key.is_empty() {
            return Err(IniProblem::NotAnEntry(cut(text)));
        }
        if self.entries >= MAX_ENTRIES {
            return Err(IniProblem::TooManyEntries);
        }
        self.entries += 1;
        section.entries.push(Entry { key: key.to_owned(), value: value.trim().to_owned(), line });
        self.key_indent = Some(indent);
        Ok(())
    }

    fn open_section(&mut self, name: &str, line: usize) {
        self.key_indent = None;
        let known = self.ini.sections.iter().position(|s| s.name == name);
        self.current = Some(known.unwrap_or_else(|| {
            self.ini.sections.push(Section { name: name.to_owned(), line, entries: Vec::new() });
            self.ini.sections.len() - 1
        }));
    }

    fn extend_value(&mut self, text: &str) {
        let section = self.current.and_then(|i| self.ini.sections.get_mut(i));
        if let Some(entry) = section.and_then(|s| s.entries.last_mut()) {
            entry.value.push('\n');
            entry.value.push_str(text);
        }
    }

    fn without_inline_comment<'a>(&self, raw: &'a str) -> &'a str {
        let mut after_space = true;
        for (at, c) in raw.char_indices() {
            if after_space && self.dialect.inline_comments.contains(&c) {
                return raw.get(..at).unwrap_or(raw);
            }
            after_space = c.is_whitespace();
        }
        raw
    }
}

/// The first characters of a line, for an error message.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn supervisord(text: &str) -> Ini {
        Ini::parse(text, Dialect::SUPERVISORD).unwrap()
    }

    #[test]
    fn keys_and_values_are_kept_as_written() {
        let ini = supervisord("[program:web]\nCommand = /bin/web -b 0.0.0.0:8082 \\n %(here)s\nkey: a=b\n");
        let section = ini.section("program:web").unwrap();
        assert_eq!(section.get("Command"), Some("/bin/web -b 0.0.0.0:8082 \\n %(here)s"));
        assert_eq!(section.get("command"), None);
        assert_eq!(section.get_ignore_case("command"), section.get("Command"));
        assert_eq!(section.get("key"), Some("a=b"));
        assert_eq!(section.entry("key").unwrap().line, 3);
    }

    #[test]
    fn comments_end_a_supervisord_line_only_after_white_space() {
        let ini = supervisord("; head\n[a] ; why\nx = 1;2 ; three\ny = a#b # c\n# z = 1\n");
        let section = ini.section("a").unwrap();
        assert_eq!(section.get("x"), Some("1;2"));
        assert_eq!(section.get("y"), Some("a#b"));
        assert_eq!(section.get("z"), None);
    }

    #[test]
    fn a_swarm_value_keeps_colons_and_comment_characters() {
        let ini = Ini::parse("// node\n[Dump]\npath = tcp:1 ; not a comment\n", Dialect::SWARM).unwrap();
        assert_eq!(ini.section("Dump").unwrap().get("path"), Some("tcp:1 ; not a comment"));
    }

    #[test]
    fn deeper_lines_continue_a_value_and_comments_among_them_do_not() {
        let ini = supervisord("[a]\nenvironment =\n  A=\"1\",\n  ; no\n  B=\"2\"\n\nnext = 3\n");
        let section = ini.section("a").unwrap();
        assert_eq!(section.get("environment"), Some("\nA=\"1\",\nB=\"2\""));
        assert_eq!(section.get("next"), Some("3"));
    }

    #[test]
    fn sections_of_one_name_merge_and_the_last_key_wins() {
        let ini = supervisord("[a]\nx=1\n[b]\n[a]\nx=2\n");
        assert_eq!(ini.sections().len(), 2);
        assert_eq!(ini.section("a").unwrap().get("x"), Some("2"));
        let duplicates: Vec<_> = ini.duplicates().map(|(s, e)| (s, e.line)).collect();
        assert_eq!(duplicates, [("a", 5)]);
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text| Ini::parse(text, Dialect::SUPERVISORD).unwrap_err().to_string();
        assert_eq!(error("x = 1\n"), "line 1: \"x = 1\" stands before the first [section]");
        assert_eq!(error("[a]\n\nnonsense\n"), "line 3: \"nonsense\" is neither a [section] nor a key with a value");
    }

    #[test]
    fn a_file_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        std::fs::write(&path, "[a]\n= 1\n").unwrap();
        let error = Ini::read(&path, Dialect::SUPERVISORD).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}:2: ", path.display())), "{error}");
        assert!(Ini::read(&dir.path().join("none"), Dialect::SWARM).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "(?s).{0,400}") {
            let _ = Ini::parse(&text, Dialect::SUPERVISORD);
            let _ = Ini::parse(&text, Dialect::SWARM);
        }

        #[test]
        fn what_is_written_is_read(pairs in proptest::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,9}", "[a-zA-Z0-9%():/=.\\\\-]{0,20}"), 0..20)) {
            let text = pairs.iter().fold("[s]\n".to_owned(), |t, (k, v)| t + k + " = " + v + "\n");
            let ini = Ini::parse(&text, Dialect::SUPERVISORD).unwrap();
            let got: Vec<_> = ini.section("s").unwrap().entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
            prop_assert_eq!(got, pairs);
        }
    }
}
