//! The event archive as it is installed: real broker, engines, logfiles nodes and web server, with nodes and engines that
//! are killed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use overstory_amqp::queues::{QueueCount, queue_counts};
use overstory_amqp::{AmqpConfig, Outgoing, Publisher, PublisherOptions, topology};
use overstory_model::{Clock, RoutingKey, SystemClock};
use overstory_runtime::Shutdown;
use overstory_testkit::broker;
use overstory_testkit::node::{LOGFILES, NodeInstance, NodeProcess, ZERO_KEY};
use overstory_testkit::ports::free_port;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// No condition takes longer than this to come true, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
const STORED: &str = "overstory_engines_archive_stored_events_total";
const DROPPED: &str = "overstory_engines_archive_dropped_events_total";

/// A prefix with the shipped configuration, a virtual host of the broker, and a publisher of events.
struct Rig {
    dir: tempfile::TempDir,
    amqp: AmqpConfig,
    publisher: Publisher,
    runtime: Runtime,
    variables: Vec<(String, String)>,
    web: u16,
    key: String,
}

/// A program; killed when dropped.
struct Running {
    child: Child,
    admin: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn metric(&self, name: &str) -> u64 {
        let page = http(self.admin, "/metrics", "").map(|answer| answer.1).unwrap_or_default();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0)
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Rig {
    fn new(nodes: &[NodeInstance]) -> Self {
        let amqp = broker::shared().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["etc/engines", "etc/nodes", "etc/secrets", "var/lib/store", "var/spool", "var/log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
        for file in fs::read_dir(shipped.join("engines")).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, root.join("etc/engines").join(file.file_name().unwrap())).unwrap();
        }
        for file in ["store.conf", "webserver.conf"] {
            fs::copy(shipped.join(file), root.join("etc").join(file)).unwrap();
        }
        let text = format!(
            "[broker]\nhost = {:?}\nport = {}\nvhost = {:?}\nuser = {:?}\nheartbeat_s = 1\n",
            amqp.host, amqp.port, amqp.vhost, amqp.user
        );
        fs::write(root.join("etc/amqp.conf"), text).unwrap();
        fs::write(root.join("etc/secrets/amqp"), &amqp.password).unwrap();
        name_nodes(root, nodes);
        fs::write(root.join("etc/secrets/logfiles.credentials"), format!("test:{ZERO_KEY}\n")).unwrap();
        let runtime = Runtime::new().unwrap();
        let publisher = {
            let _inside = runtime.enter();
            Publisher::start(amqp.clone(), PublisherOptions::new("test"), Shutdown::new()).unwrap()
        };
        let mut rig =
            Self { dir, amqp, publisher, runtime, variables: Vec::new(), web: free_port(), key: String::new() };
        rig.set("ARCHIVE__ENGINE__ENABLED", "true");
        rig.set("WEBSERVER__ARCHIVE__ENABLED", "true");
        rig.set("STATS__STATS__HOST", "here");
        rig.said("provision", &[]);
        rig.key = rig.said("key", &["add", "admin", "--description", "test"]).trim().to_owned();
        rig
    }

    /// Overrides a key of the configuration in the programs to be started.
    fn set(&mut self, variable: &str, value: &str) {
        let variable = format!("OVERSTORY_{variable}");
        self.variables.retain(|(name, _)| *name != variable);
        self.variables.push((variable, value.to_owned()));
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overstory"));
        command.arg(program).args(arguments).stdin(Stdio::null()).env("OVERSTORY_HOME", self.dir.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn said(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn spawn(&self, mut command: Command, admin: u16) -> Running {
        let log = File::options().create(true).append(true).open(self.dir.path().join("var/log/all.log")).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let running = Running { child, admin };
        until("a program to be ready", || http(admin, "/readyz", "").is_some_and(|answer| answer.0 == 200));
        running
    }

    /// Starts a process of engines.
    fn engines(&self, number: u16) -> Running {
        let admin = free_port();
        let listen = format!("127.0.0.1:{admin}");
        let arguments = ["--process-num", &number.to_string(), "--admin", &listen];
        self.spawn(self.command("amqp2engines", &arguments), admin)
    }

    /// Starts the web server.
    fn webserver(&self) -> Running {
        let admin = free_port();
        let mut command = self.command("webserver", &["--listen", &format!("127.0.0.1:{}", self.web)]);
        command.env("OVERSTORY_WEBSERVER__ADMIN__LISTEN", format!("127.0.0.1:{admin}"));
        self.spawn(command, admin)
    }

    fn publish(&self, events: &[Value]) {
        let message = |event: &Value| {
            let key = RoutingKey::from_words(["test", "archive", "check"]);
            Outgoing::json(topology::EVENTS, key, event.to_string().into_bytes().into())
        };
        let outcomes = self.runtime.block_on(self.publisher.publish_all(events.iter().map(message).collect()));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }

    fn queue(&self, name: &str) -> Option<QueueCount> {
        self.runtime.block_on(queue_counts(&self.amqp, &[name])).unwrap().pop()
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = http(self.web, path, &format!("x-canopsis-authkey: {}\r\n", self.key)).unwrap();
        (status, serde_json::from_str(&body).unwrap())
    }

    /// State and output of the archive's alarm.
    fn alarm(&self) -> Option<(i64, String)> {
        let (status, answer) = self.get("/api/v4/alarms?opened=true&search=archive/here");
        assert_eq!(status, 200);
        let alarm = &answer["data"].as_array().unwrap().first()?["v"];
        Some((alarm["state"]["val"].as_i64().unwrap(), alarm["output"].as_str().unwrap().to_owned()))
    }

    /// The outputs of all events that `query` finds, page after page; `None` while a node does not answer.
    fn find(&self, query: &str) -> Option<Vec<String>> {
        let (mut outputs, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = self.get(&format!("/api/v4/events?{query}{cursor}"));
            if status == 503 {
                return None;
            }
            assert_eq!(status, 200, "{page}");
            let text = |event: &Value| event["event"]["output"].as_str().unwrap().to_owned();
            outputs.extend(page["data"].as_array().unwrap().iter().map(text));
            let Some(next) = page["meta"]["next"].as_str() else { return Some(outputs) };
            cursor = format!("&cursor={next}");
        }
    }

    fn outputs(&self, query: &str) -> Vec<String> {
        self.find(query).unwrap_or_else(|| panic!("a node does not answer\n{}", self.log()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("var/log/all.log")).unwrap_or_default()
    }
}

/// Writes the nodes file, as `overstory add` does.
fn name_nodes(root: &Path, nodes: &[NodeInstance]) {
    let mut lines = String::new();
    nodes.iter().for_each(|node| writeln!(lines, "{}", node.neo).unwrap());
    fs::write(root.join("etc/nodes/logfiles.nodes"), lines).unwrap();
}

fn http(port: u16, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// An instance of a node; what it has acknowledged is on the disk.
fn node() -> NodeInstance {
    let node = NodeInstance::new(Path::new(env!("CARGO_BIN_EXE_overstory")), LOGFILES);
    node.set("Report", "enabled", "false").set("Sync", "mode", "always");
    node
}

fn checks(numbers: std::ops::Range<i64>, at: i64, component: &str) -> Vec<Value> {
    let check = |number: i64| {
        json!({"connector": "test", "connector_name": "archive", "event_type": "check", "component": component,
            "resource": "disk", "state": 0, "output": format!("n{number}"), "timestamp": at + number / 100})
    };
    numbers.map(check).collect()
}

fn numbers(range: std::ops::Range<i64>) -> BTreeSet<String> {
    range.map(|number| format!("n{number}")).collect()
}

/// Everything in between is killed once: the nodes, and the process that archives while the nodes are away.
#[test]
fn no_event_is_lost_or_told_twice_while_nodes_and_engines_are_killed() {
    let nodes = [node(), node()];
    let mut running: Vec<NodeProcess> = nodes.iter().map(NodeInstance::start).collect();
    let rig = Rig::new(&nodes);
    let mut engines = vec![rig.engines(0), rig.engines(1)];
    let subscribed = |line: &&str| line.contains("subscribed") && line.contains(topology::ENGINE_ARCHIVE);
    until("both to subscribe", || rig.log().lines().filter(subscribed).count() == 2);
    let at = SystemClock.now().secs().0 - 600;
    let stored = |engines: &[Running]| engines.iter().map(|process| process.metric(STORED)).sum::<u64>();

    rig.publish(&checks(0..500, at, "host1"));
    until("events to be archived", || stored(&engines) >= 500);
    rig.publish(&checks(500..1000, at, "host1"));
    running.drain(..).for_each(NodeProcess::kill);
    rig.publish(&checks(1000..1500, at, "host1"));
    // The one that holds what was delivered.
    let holder =
        engines.iter().position(|process| process.metric("overstory_engines_archive_unacknowledged_events") > 0);
    drop(engines.remove(holder.unwrap_or(0)));
    assert_eq!(http(engines[0].admin, "/readyz", "").unwrap().0, 200, "the archive does not make it unready");
    rig.publish(&checks(1500..2000, at, "host11"));
    running = nodes.iter().map(NodeInstance::start).collect();
    let web = rig.webserver();
    let range = format!("from={at}&to={}", at + 600);
    let all = format!("{range}&limit=1000&contains=%22connector_name%22:%22archive%22");
    until("everything to be archived", || rig.find(&all).is_some_and(|outputs| outputs.len() >= 2000));
    for limit in [1000, 333] {
        let outputs = rig.outputs(&format!("{range}&limit={limit}&contains=n&component=host1"));
        assert_eq!(outputs.len(), 1500, "limit {limit}: each is told once\n{}", rig.log());
        assert_eq!(outputs.into_iter().collect::<BTreeSet<_>>(), numbers(0..1500));
    }
    let outputs = rig.outputs(&format!("{range}&entity=disk/host11"));
    assert_eq!(outputs.len(), 500, "an entity whose name holds the other's is not it");
    assert_eq!(outputs.into_iter().collect::<BTreeSet<_>>(), numbers(1500..2000));
    let seconds: Vec<_> = rig.get(&format!("/api/v4/events?{range}&limit=1000")).1["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["t"].as_i64().unwrap())
        .collect();
    assert!(seconds.is_sorted() && seconds[0] == at);
    assert!(rig.outputs(&format!("{range}&entity=disk/host")).is_empty());
    assert!(rig.outputs(&format!("{range}&contains=n77777")).is_empty());

    running.remove(1).kill();
    let (status, answer) = rig.get(&format!("/api/v4/events?{range}"));
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().contains(&nodes[1].neo.to_string()), "{answer}");
    let (status, answer) = rig.get(&format!("/api/v4/events?{range}&partial=true"));
    assert_eq!((status, &answer["meta"]["complete"]), (200, &json!(false)));
    assert_eq!(answer["meta"]["missing"][0]["node"], nodes[1].neo.to_string());
    assert!(!answer["data"].as_array().unwrap().is_empty());
    web.stop();
    engines.remove(0).stop();
    assert_eq!(running.remove(0).stop(), Some(0));
}

#[test]
fn a_queue_that_is_full_drops_and_tells_and_one_that_is_switched_off_does_not_fill() {
    let nodes = [node()];
    let mut rig = Rig::new(&nodes);
    // Its events would take the room of those that are looked for.
    rig.set("STATS__ENGINE__ENABLED", "false");
    for (name, value) in [("QUEUE__MAX_MESSAGES", "20"), ("QUEUE__PREFETCH", "5"), ("CHECK__AWAY_S", "1")] {
        rig.set(&format!("ARCHIVE__{name}"), value);
    }
    let engines = rig.engines(0);
    until("it to subscribe", || rig.queue(topology::ENGINE_ARCHIVE).is_some_and(|queue| queue.consumers == 1));
    let at = SystemClock.now().secs().0;
    rig.publish(&checks(0..100, at, "host1"));
    until("events to make room", || engines.metric(DROPPED) >= 70);
    let web = rig.webserver();
    until("the alarm to be critical and to say why", || {
        rig.alarm().is_some_and(|(state, output)| {
            state == 3 && output.contains("had to make room") && output.contains("no event could be stored")
        })
    });
    assert_eq!(rig.get("/api/v4/events").0, 503);
    until("the health to show the engine", || {
        rig.get("/api/v4/healthcheck").1["engines"]["parameters"]["archive"]["instances"] == 1
    });

    engines.stop();
    rig.set("ARCHIVE__ENGINE__ENABLED", "false");
    let engines = rig.engines(0);
    until("the queue to be left alone", || rig.log().contains("gets no more events and keeps those that wait"));
    let kept = rig.queue(topology::ENGINE_ARCHIVE).unwrap().ready;
    assert!((20..=25).contains(&kept), "{kept}: what was delivered came back");
    rig.publish(&checks(100..120, at, "host1"));
    assert_eq!(rig.queue(topology::ENGINE_ARCHIVE).unwrap().ready, kept, "it does not fill");
    engines.stop();

    let process = nodes[0].start();
    rig.set("ARCHIVE__ENGINE__ENABLED", "true");
    let engines = rig.engines(0);
    until("what was left to be archived", || engines.metric(STORED) >= 20);
    engines.stop();
    assert!(!rig.outputs(&format!("from={}&entity=disk/host1&to={}", at - 1, at + 60)).is_empty());
    rig.set("ARCHIVE__ENGINE__ENABLED", "false");
    let engines = rig.engines(0);
    // What the engines said of themselves while it was on may wait in it; it is gone or does not grow.
    until("the queue to be seen to", || {
        rig.queue(topology::ENGINE_ARCHIVE).is_none() || rig.log().matches("keeps those that wait").count() == 2
    });
    engines.stop();
    web.stop();
    assert_eq!(process.stop(), Some(0));
}

/// `overstory remove` takes the nodes file away with the group's last node, `overstory add` writes it.
#[test]
fn without_nodes_everything_else_starts_and_nodes_that_come_or_go_are_taken_up_by_what_runs() {
    let nodes = [node(), node()];
    let rig = Rig::new(&nodes);
    let file = rig.dir.path().join("etc/nodes/logfiles.nodes");
    fs::remove_file(&file).unwrap();
    for program in ["amqp2engines", "webserver"] {
        let output = rig.command(program, &["--check-config"]).output().unwrap();
        assert!(output.status.success(), "{program}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("warning: ") && said.contains("logfiles.nodes"), "{program}: {said}");
    }
    let (engines, web) = (rig.engines(0), rig.webserver());
    let at = SystemClock.now().secs().0;
    rig.publish(&checks(0..50, at, "host1"));
    until("the alarm to be critical and to say why", || {
        rig.alarm().is_some_and(|(state, output)| state == 3 && output.contains("no nodes: cannot read "))
    });
    let query = format!("from={}&to={}&entity=disk/host1", at - 1, at + 60);
    let (status, answer) = rig.get(&format!("/api/v4/events?{query}"));
    assert_eq!(status, 503);
    assert!(answer["error"].as_str().unwrap().starts_with("The archive has no nodes: cannot read "), "{answer}");

    let first = nodes[0].start();
    name_nodes(rig.dir.path(), &nodes[..1]);
    until("what waited to be archived and found", || {
        rig.find(&query).is_some_and(|outputs| outputs.into_iter().collect::<BTreeSet<_>>() == numbers(0..50))
    });
    until("the alarm to end", || rig.alarm().is_none_or(|(state, _)| state == 0));

    let second = nodes[1].start();
    assert_eq!(first.stop(), Some(0));
    name_nodes(rig.dir.path(), &nodes[1..]);
    until("the first node to be forgotten", || rig.find(&query).is_some_and(|outputs| outputs.is_empty()));
    rig.publish(&checks(50..80, at, "host1"));
    until("the second node to be written to", || rig.find(&query).is_some_and(|outputs| outputs.len() == 30));

    fs::remove_file(&file).unwrap();
    until("the nodes to be gone", || rig.find(&query).is_none());
    until("the alarm to tell that", || rig.alarm().is_some_and(|(state, _)| state == 3));
    web.stop();
    engines.stop();
    assert_eq!(second.stop(), Some(0));
}
