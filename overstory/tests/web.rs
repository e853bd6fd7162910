//! The web server, `send_event` and the accounts' commands as they are installed, on a real broker.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use overstory_amqp::queues::queue_counts;
use overstory_amqp::{AmqpConfig, topology};
use overstory_testkit::broker;
use overstory_testkit::ports::free_port;
use serde_json::{Value, json};

/// No condition takes longer than this to come true, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A prefix with the shipped configuration.
struct Prefix {
    dir: tempfile::TempDir,
    port: u16,
    admin: u16,
}

/// A running web server; killed when dropped.
struct Web(Child);

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prefix {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["etc/secrets", "etc/supervisord.d", "var/lib/store", "var/spool", "var/log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
        for file in ["store.conf", "webserver.conf"] {
            fs::copy(shipped.join(file), root.join("etc").join(file)).unwrap();
        }
        let prefix = Self { port: free_port(), admin: free_port(), dir };
        let program = format!("[program:webserver]\ncommand=bin/webserver --listen 127.0.0.1:{}\n", prefix.port);
        fs::write(prefix.path("etc/supervisord.d/webserver.conf"), program).unwrap();
        prefix
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Says where the broker is.
    fn broker(&self, amqp: &AmqpConfig) {
        let text = format!(
            "[broker]\nhost = {:?}\nport = {}\nvhost = {:?}\nuser = {:?}\nheartbeat_s = 1\n",
            amqp.host, amqp.port, amqp.vhost, amqp.user
        );
        fs::write(self.path("etc/amqp.conf"), text).unwrap();
        fs::write(self.path("etc/secrets/amqp"), &amqp.password).unwrap();
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overstory"));
        command.args([program]).args(arguments).stdin(Stdio::null());
        command.env("OVERSTORY_HOME", self.dir.path());
        command.env("OVERSTORY_WEBSERVER__ADMIN__LISTEN", format!("127.0.0.1:{}", self.admin));
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn said(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn admin_command(&self, arguments: &[&str]) -> String {
        let (first, rest) = arguments.split_first().unwrap();
        self.said(first, rest)
    }

    /// Starts the web server and waits until it is ready.
    fn start(&self) -> Web {
        let log = File::options().create(true).append(true).open(self.path("var/log/webserver.log")).unwrap();
        let mut command = self.command("webserver", &["--listen", &format!("127.0.0.1:{}", self.port)]);
        let web = Web(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        wait_for("the web server to be ready", || {
            http(self.admin, "/readyz", "").is_some_and(|answer| answer.0 == 200)
        });
        web
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("var/log/webserver.log")).unwrap_or_default()
    }

    /// Asks the API with a key.
    fn get(&self, path: &str, key: &str) -> (u16, Value) {
        let (status, body) = http(self.port, path, &format!("x-canopsis-authkey: {key}\r\n")).unwrap();
        (status, serde_json::from_str(&body).unwrap())
    }
}

fn http(port: u16, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn terminate(mut web: Web) {
    let pid = web.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(web.0.wait().unwrap().code(), Some(0));
}

/// Waits until so many events wait in the queue of the engines.
fn wait_for_events(amqp: &AmqpConfig, count: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let end = Instant::now() + DEADLINE;
    loop {
        let queues = runtime.block_on(queue_counts(amqp, &[topology::ENGINE_EVENTS])).unwrap_or_default();
        let ready = queues.first().map_or(0, |queue| queue.ready);
        if ready == count {
            return;
        }
        assert!(Instant::now() < end, "{ready} events wait, not {count}");
    }
}

fn event(resource: &str) -> String {
    json!({"component": "h", "resource": resource, "state": 2, "output": "down"}).to_string()
}

#[test]
fn an_installation_is_provisioned_and_takes_events() {
    let amqp = broker::shared().unwrap();
    let prefix = Prefix::new();
    prefix.broker(&amqp);

    let said = prefix.admin_command(&["provision"]);
    let file = prefix.path("etc/initial-admin-password");
    let password = fs::read_to_string(&file).unwrap();
    assert!(said.contains(password.trim()), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(prefix.admin_command(&["provision"]), "account admin is there and stays as it is\n");
    let key = prefix.admin_command(&["key", "add", "admin", "--description", "test"]).trim().to_owned();

    let web = prefix.start();
    let sent = prefix.run("send_event", &["-j", &event("one")]);
    assert_eq!(sent.status.code(), Some(0), "{}\n{}", String::from_utf8_lossy(&sent.stderr), prefix.log());
    let answer: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(answer["sent_events"][0]["connector"], "Cli");
    assert_eq!(answer["sent_events"][0]["connector_name"], "Send_event");
    assert_eq!(answer["sent_events"][0]["state"], 2);
    // With a key, by flags, and from standard input one per line.
    prefix.said("send_event", &["-a", &key, "--component", "h", "--state", "1"]);
    let mut lines = prefix.command("send_event", &[]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    lines.stdin.take().unwrap().write_all(format!("{}\n{}\n", event("two"), event("three")).as_bytes()).unwrap();
    assert!(lines.wait().unwrap().success());
    wait_for_events(&amqp, 4);

    // What cannot be sent is told by the exit code.
    assert_eq!(prefix.run("send_event", &["-j", "{\"state\": 9}"]).status.code(), Some(1));
    assert_eq!(prefix.run("send_event", &["-a", "wrong", "-j", &event("x")]).status.code(), Some(1));
    let nowhere = format!("127.0.0.1:{}", free_port());
    assert_eq!(prefix.run("send_event", &["-s", &nowhere, "-a", &key, "-j", &event("x")]).status.code(), Some(1));
    assert_eq!(prefix.run("send_event", &["-j", "nonsense"]).status.code(), Some(2));
    wait_for_events(&amqp, 4);

    let (status, health) = prefix.get("/api/v4/healthcheck", &key);
    assert_eq!((status, &health["services"][0]), (200, &json!({"name": "RabbitMQ", "is_running": true})));
    // No supervisord runs in this prefix.
    assert_eq!(prefix.get("/api/v4/services", &key).0, 503);
    assert!(
        http(prefix.admin, "/metrics", "").unwrap().1.contains("overstory_webserver_events_total{outcome=\"sent\"} 4")
    );
    let log = prefix.log();
    assert!(!log.contains(password.trim()) && !log.contains(&key), "{log}");
    terminate(web);
}

/// The broker was away and the web server was restarted meanwhile; the event was answered as sent, so it has to arrive.
#[test]
fn events_taken_while_the_broker_is_away_arrive_after_a_restart() {
    let amqp = broker::shared().unwrap();
    let prefix = Prefix::new();
    prefix.broker(&AmqpConfig { port: free_port(), ..amqp.clone() });
    prefix.admin_command(&["provision"]);
    let key = prefix.admin_command(&["key", "add", "admin"]).trim().to_owned();
    let web = prefix.start();
    prefix.said("send_event", &["-j", &event("early")]);
    let (_, health) = prefix.get("/api/v4/healthcheck", &key);
    assert_eq!(health["services"][0], json!({"name": "RabbitMQ", "is_running": false}));
    terminate(web);
    prefix.broker(&amqp);
    let web = prefix.start();
    prefix.said("send_event", &["-j", &event("late")]);
    wait_for_events(&amqp, 2);
    terminate(web);
}

#[test]
fn what_is_wrong_is_said_before_anything_is_served() {
    let prefix = Prefix::new();
    prefix.broker(&AmqpConfig { password: "x".into(), ..AmqpConfig::default() });
    let fine = prefix.run("webserver", &["--check-config"]);
    assert_eq!((fine.status.code(), fine.stdout.as_slice()), (Some(0), &b"webserver: the configuration is fine\n"[..]));

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = prefix.run("webserver", &["--listen", &address]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
    assert!(said.contains("--listen in etc/supervisord.d/webserver.conf"), "{said}");

    fs::write(prefix.path("etc/webserver.conf"), "[server]\nworkers = 1000\n").unwrap();
    let wrong = prefix.run("webserver", &["--check-config"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(said, "webserver: webserver.conf: [server] workers = 1000: a number from 1 to 64\n");
    assert_eq!(prefix.run("webserver", &["--listen", "nowhere"]).status.code(), Some(2));
    let document = prefix.said("webserver", &["--openapi"]);
    assert_eq!(document, include_str!("../../webserver/openapi.json"));
}
