//! Turns events of `tracing` into published log lines.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use overstory_model::Clock;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::local_time;
use super::settings::{Level, LogSettings, Threshold};
use super::writer::{Line, Outputs, Writer};

/// A message is cut to so many bytes.
const MAX_MESSAGE: usize = 8 << 10;

/// What a program calls its own modules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) app: &'static str,
    pub(crate) crates: &'static [&'static str],
}

/// Which logger a target belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A module of the program.
    Program,
    /// A crate of ours.
    Platform,
    /// A library.
    Foreign,
}

impl Names {
    /// The module name that a target is written with.
    ///
    /// `node.main` and `overstory_node::main` are `dhtnode.main`; a target with dots stands as it is; `a::b` is `a.b`.
    fn module(&self, target: &str) -> Module {
        let below = |root: &str, separator: &str| {
            let rest = target.strip_prefix(root)?;
            (rest.is_empty() || rest.starts_with(separator)).then(|| rest.replace("::", "."))
        };
        let own = self.crates.iter().copied().chain(["overstory_node"]).find_map(|name| below(name, "::"));
        if let Some(rest) = below("node", ".").or(own) {
            return Module { name: format!("{}{rest}", self.app), kind: Kind::Program };
        }
        let name = target.replace("::", ".");
        let kind = if !target.contains("::") && target.contains(['.', ':']) || target == self.app {
            Kind::Program
        } else if target.starts_with("overstory_") {
            Kind::Platform
        } else {
            Kind::Foreign
        };
        Module { name, kind }
    }
}

/// Which level a logger has and where its lines go.
#[derive(Debug)]
struct Rules {
    /// Name, level, whether it holds below, outputs, whether those above count too.
    loggers: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    level: Option<Threshold>,
    propagate: bool,
    /// `None` when the logger configures none.
    outputs: Option<Outputs>,
    additive: bool,
}

impl Rules {
    /// The logger of that name and those above it, nearest first.
    fn above<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Rule> {
        let mut at = Some(name);
        std::iter::from_fn(move || {
            let current = at?;
            at = match current.rfind('.') {
                Some(dot) => current.get(..dot),
                None if current.is_empty() => None,
                None => Some(""),
            };
            Some(current)
        })
        .filter_map(|name| self.loggers.iter().find(|rule| rule.name == name))
    }

    /// As published, the root's level alone says nothing about the modules of the program unless it propagates
    /// (protocol §10.1, 21). It does for other code of ours, and bounds libraries from `Warn` on.
    fn threshold(&self, module: &Module) -> Threshold {
        let configured =
            self.above(&module.name).find_map(|rule| rule.level.filter(|_| rule.name == module.name || rule.propagate));
        let root = || self.loggers.iter().find(|rule| rule.name.is_empty()).and_then(|rule| rule.level);
        match (configured, module.kind) {
            (Some(level), Kind::Program | Kind::Platform) => level,
            (None, Kind::Program) => Some(Level::Trace),
            (None, Kind::Platform) => root().unwrap_or(Some(Level::Info)),
            (_, Kind::Foreign) => {
                let named = self.loggers.iter().find(|rule| rule.name == module.name).and_then(|rule| rule.level);
                // The AMQP library reports each reconnect as an error; ours says so once, where it is handled.
                let default = if module.name.starts_with("lapin") { None } else { Some(Level::Warn) };
                named.unwrap_or_else(|| {
                    default.and_then(|level| configured.flatten().map_or(default, |c| Some(level.max(c))))
                })
            }
        }
    }

    fn outputs(&self, name: &str) -> Outputs {
        let mut all = Outputs::default();
        for rule in self.above(name) {
            let Some(outputs) = rule.outputs else { continue };
            all.files |= outputs.files;
            all.console = all.console.or(outputs.console);
            if !rule.additive {
                break;
            }
        }
        all
    }
}

/// Counts lines by level.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; Level::ALL.len()]);

impl Counts {
    fn add(&self, level: Level) {
        if let Some(counter) = self.0.get(level as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The numbers since this was last called, by [`Level::ALL`].
    pub(crate) fn take(&self) -> [u64; Level::ALL.len()] {
        std::array::from_fn(|level| self.0.get(level).map_or(0, |counter| counter.swap(0, Ordering::Relaxed)))
    }
}

/// The layer.
pub(crate) struct LogLayer {
    names: Names,
    rules: Rules,
    writer: Writer,
    counts: Arc<Counts>,
    clock: Arc<dyn Clock>,
}

impl LogLayer {
    /// Opens the files of `settings`.
    pub(crate) fn new(
        settings: &LogSettings,
        names: Names,
        writer: Writer,
        counts: Arc<Counts>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let mut loggers = Vec::new();
        for logger in &settings.loggers {
            let files = match &logger.file {
                Some(path) => 1 << writer.open(path, logger.file_layout)?.0,
                None => 0,
            };
            // Without a word about it the root has the console, and others have what the root has.
            let wants_console = logger.console.unwrap_or(logger.name.is_empty());
            let is_own = logger.name.is_empty() || logger.file.is_some() || logger.console.is_some();
            let console = wants_console.then_some(logger.console_layout);
            loggers.push(Rule {
                name: logger.name.clone(),
                level: logger.level,
                propagate: logger.propagate,
                outputs: is_own.then_some(Outputs { files, console }),
                additive: logger.additive,
            });
        }
        if !loggers.iter().any(|rule| rule.name.is_empty()) {
            let console = Some(super::settings::Layout::Simple);
            let outputs = Some(Outputs { files: 0, console });
            loggers.push(Rule { name: String::new(), level: None, propagate: false, outputs, additive: false });
        }
        Ok(Self { names, rules: Rules { loggers }, writer, counts, clock })
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let module = self.names.module(metadata.target());
        // An error may turn out to be fatal.
        let level = match level_of(*metadata.level()) {
            Level::Error => Level::Fatal,
            level => level,
        };
        self.rules.threshold(&module).is_some_and(|threshold| level >= threshold)
    }
}

/// `tracing` has nothing between its `INFO` and `DEBUG`; what it calls debug is the published trace.
const fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::TRACE => Level::Debug,
        tracing::Level::DEBUG => Level::Trace,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::ERROR => Level::Error,
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let lowest = self.rules.loggers.iter().filter_map(|rule| rule.level.flatten()).min();
        Some(if lowest == Some(Level::Debug) { LevelFilter::TRACE } else { LevelFilter::DEBUG })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut module = self.names.module(event.metadata().target());
        let mut message = Message::default();
        event.record(&mut message);
        if module.name.ends_with(':') {
            module.name.push_str(&message.of);
        }
        let level = match level_of(*event.metadata().level()) {
            Level::Error if message.is_fatal => Level::Fatal,
            level => level,
        };
        if self.rules.threshold(&module).is_none_or(|threshold| level < threshold) {
            return;
        }
        self.counts.add(level);
        let mut text = String::with_capacity(96 + message.text.len() + message.fields.len());
        local_time::stamp(&mut text, self.clock.now(), 2);
        text.push(' ');
        let simple_at = text.len();
        // Writing to a string cannot fail.
        let _ = write!(text, "{} [{}] - ", level.name(), module.name);
        push_clean(&mut text, &message.text);
        if !message.fields.is_empty() {
            text.push_str(" (");
            push_clean(&mut text, &message.fields);
            text.push(')');
        }
        text.push('\n');
        let to = self.rules.outputs(&module.name);
        self.writer.line(Line { to, text, simple_at, is_bad: level >= Level::Warn });
    }
}

/// A message and its fields: `channel=a records=3 problem="two words"`.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
    /// The field `of`: what a target that ends with a colon is about, `storage:` of the queue `a` being `storage:a`.
    of: String,
    is_fatal: bool,
}

impl Message {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let separator = if self.fields.is_empty() { "" } else { " " };
        let _ = write!(self.fields, "{separator}{}=", field.name());
        let at = self.fields.len();
        let _ = self.fields.write_fmt(value);
        // What Debug put into quotes is quoted already.
        let value = self.fields.get(at..).unwrap_or_default();
        if (value.is_empty() || value.contains(' ')) && !value.starts_with(['"', '[', '{']) {
            self.fields.insert(at, '"');
            self.fields.push('"');
        }
    }
}

impl Visit for Message {
    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "fatal" => self.is_fatal = value,
            _ => self.field(field, format_args!("{value}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.text.push_str(value),
            "of" => self.of.push_str(value),
            _ => self.field(field, format_args!("{value}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let text = overstory_runtime::program::chain(value);
        self.field(field, format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                let _ = write!(self.text, "{value:?}");
            }
            _ => self.field(field, format_args!("{value:?}")),
        }
    }
}

/// Appends text that came from anywhere: one line stays one line, and a long one is cut.
fn push_clean(out: &mut String, text: &str) {
    let end = out.len() + MAX_MESSAGE;
    for c in text.chars() {
        if out.len() >= end {
            out.push_str("...");
            return;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push(' '),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
