#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use overstory_model::Millis;
use overstory_model::clock::ManualClock;
use tracing_subscriber::layer::SubscriberExt;

use super::super::Logs;
use super::super::settings::Rotation;
use super::*;
use crate::config::Config;

const NAMES: Names = Names { app: "dhtnode", crates: &["overstory_dht"] };

/// Runs `body` with the logs of `text`, whose files are in `dir`, and returns what is in `root.log` without the times.
fn logged(dir: &Path, text: &str, body: impl FnOnce()) -> String {
    let text = text.replace("DIR", &dir.display().to_string());
    let config = Config::parse(Path::new("config.ini"), &text, Vec::new()).unwrap();
    let settings = LogSettings::read(&config).unwrap();
    config.finish().unwrap();
    let clock = Arc::new(ManualClock::new(Millis(1_795_245_631_005)));
    let (logs, layer) = Logs::prepare(&settings, NAMES, clock).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
    logs.flush();
    without_times(&dir.join("root.log"))
}

fn without_times(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.get("YYYY-MM-DD HH:MM:SS,05 ".len()..).unwrap().to_owned() + "\n").collect()
}

const ROOT: &str = "[LOG.Root]\nfile = DIR/root.log\nconsole = false\n";

#[test]
fn lines_have_the_published_form() {
    let dir = tempfile::tempdir().unwrap();
    let text = logged(dir.path(), ROOT, || {
        tracing::info!(target: "dhtnode.main", "Starting DHT node --------------------------------");
        tracing::warn!(
            target: "swarm.neo.protocol.connect.NodeConnect",
            "Authentication failure for client 'nobody': Unknown client name"
        );
        tracing::error!(target: "node.main", fatal = true, "out of luck");
        tracing::info!(target: "storage:", of = "@topic", "Closing -- saving in file \"data/@topic.rq\"");
    });
    assert_eq!(
        text,
        "Info [dhtnode.main] - Starting DHT node --------------------------------\n\
         Warn [swarm.neo.protocol.connect.NodeConnect] - Authentication failure for client 'nobody': Unknown client name\n\
         Fatal [dhtnode.main] - out of luck\n\
         Info [storage:@topic] - Closing -- saving in file \"data/@topic.rq\"\n"
    );
    let line = std::fs::read_to_string(dir.path().join("root.log")).unwrap();
    assert!(line.lines().next().unwrap().contains(":31,05 Info "), "{line}");
}

/// The lines that the published programs wrote, with ours beside them: date, level, module, message.
#[test]
fn the_recorded_lines_have_the_same_form() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/files");
    let mut lines = 0;
    for name in ["dhtnode.root.log", "dlsnode.root.log", "dmqnode.root.log"] {
        for line in std::fs::read_to_string(files.join(name)).unwrap().lines() {
            let (stamp, rest) = line.split_at("2026-11-21 05:38:13,576".len());
            let mut ours = String::new();
            local_time::stamp(&mut ours, Millis(1_795_245_631_576), 2);
            let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(shape(stamp), shape(&ours));
            let (level, rest) = rest.strip_prefix(' ').unwrap().split_once(' ').unwrap();
            assert!(Level::ALL.iter().any(|known| known.name() == level), "{level}");
            assert!(rest.starts_with('[') && rest.contains("] - "), "{rest}");
            lines += 1;
        }
    }
    assert!(lines > 10);
}

#[test]
fn fields_follow_the_message_and_cannot_break_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = logged(dir.path(), ROOT, || {
        let error = std::io::Error::other("no room");
        tracing::info!(target: "dhtnode.x", channel = "a", records = 3, problem = %error, name = ?"b\nc", empty = "", "done");
        tracing::info!(target: "dhtnode.x", "client said\n2026-01-01 Fatal [x] - \x1b[2J");
        tracing::info!(target: "dhtnode.x", "{}", "x".repeat(MAX_MESSAGE + 10));
    });
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        r#"Info [dhtnode.x] - done (channel=a records=3 problem="no room" name="b\nc" empty="")"#
    );
    assert_eq!(lines.next().unwrap(), r"Info [dhtnode.x] - client said\n2026-01-01 Fatal [x] - \x1b[2J");
    assert!(lines.next().unwrap().ends_with("xxx..."));
    assert_eq!(lines.next(), None);
}

fn say_at_all_levels() {
    tracing::debug!(target: "dhtnode.storage.Dump", "trace");
    tracing::info!(target: "dhtnode.storage.Dump", "info");
    tracing::warn!(target: "dhtnode.storage.Dump", "warn");
    tracing::error!(target: "dhtnode.storage.Dump", "error");
    tracing::error!(target: "dhtnode.storage.Dump", fatal = true, "fatal");
}

fn messages(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.split_once(" - ")).map(|(_, message)| message).collect()
}

#[test]
fn the_roots_level_filters_its_modules_only_when_it_propagates() {
    for (more, expected) in [
        ("level = warn\n", "trace info warn error fatal"),
        ("level = warn\npropagate = false\n", "trace info warn error fatal"),
        ("level = warn\npropagate = true\n", "warn error fatal"),
        ("level = fatal\npropagate = true\n", "fatal"),
        ("level = none\npropagate = true\n", ""),
        ("level = none\npropagate = true\n[LOG.dhtnode.storage]\nlevel = error\n", ""),
        ("level = none\npropagate = true\n[LOG.dhtnode.storage]\nlevel = error\npropagate = true\n", "error fatal"),
        ("level = none\npropagate = true\n[LOG.dhtnode.storage.Dump]\nlevel = error\n", "error fatal"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = logged(dir.path(), &format!("{ROOT}{more}"), say_at_all_levels);
        assert_eq!(messages(&text).join(" "), expected, "{more}");
    }
}

#[test]
fn a_module_with_a_file_of_its_own_leaves_the_roots_unless_additive() {
    for (additive, in_root) in [("", 1), ("additive = true\n", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let more = format!("{ROOT}[LOG.dhtnode.storage]\nfile = DIR/own.log\n{additive}");
        let text = logged(dir.path(), &more, || {
            tracing::info!(target: "dhtnode.storage.Dump", "one");
            tracing::info!(target: "dhtnode.main", "two");
        });
        assert_eq!(text.lines().count(), in_root, "{additive}");
        assert_eq!(without_times(&dir.path().join("own.log")), "Info [dhtnode.storage.Dump] - one\n");
    }
}

#[test]
fn modules_are_named_as_published_and_libraries_are_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let text = logged(dir.path(), ROOT, || {
        tracing::debug!(target: "overstory_node::server::neo", "ours");
        tracing::debug!(target: "overstory_dht::dump", "ours");
        tracing::debug!(target: "overstory_amqp::link", "quiet");
        tracing::info!(target: "overstory_amqp::link", "ours");
        tracing::info!(target: "hyper::proto", "quiet");
        tracing::warn!(target: "hyper::proto", "loud");
        tracing::error!(target: "lapin::io_loop", "quiet");
    });
    assert_eq!(
        text,
        "Trace [dhtnode.server.neo] - ours\nTrace [dhtnode.dump] - ours\nInfo [overstory_amqp.link] - ours\n\
         Warn [hyper.proto] - loud\n"
    );
}

#[test]
fn a_file_may_have_the_simple_layout() {
    let dir = tempfile::tempdir().unwrap();
    logged(dir.path(), "[LOG.Root]\nfile = DIR/root.log\nfile_layout = simple\nconsole = false\n", || {
        tracing::info!(target: "dhtnode.main", "a line that is long enough");
    });
    let text = std::fs::read_to_string(dir.path().join("root.log")).unwrap();
    assert_eq!(text, "Info [dhtnode.main] - a line that is long enough\n");
}

#[test]
fn lines_are_counted_by_level_once() {
    let settings = LogSettings { loggers: Vec::new(), rotation: Rotation::NEVER, wants_syslog: false };
    let (logs, layer) = Logs::prepare(&settings, NAMES, Arc::new(ManualClock::default())).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say_at_all_levels);
    assert_eq!(logs.take_counts(), [0, 1, 0, 1, 1, 1, 1]);
    assert_eq!(logs.take_counts(), [0; 7]);
}

#[test]
fn a_wrong_word_is_answered_with_the_right_ones() {
    let config = Config::parse(Path::new("c.ini"), "[LOG.Root]\nlevel = loud\n", Vec::new()).unwrap();
    let error = LogSettings::read(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        "c.ini:2: [LOG.Root] level = loud: expected one of debug, trace, verbose, info, warn, error, fatal, none"
    );
}
