//! `amqp2engines` as it is installed, on a real broker and an embedded store, in a prefix of its own.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use overstory_amqp::dead::{self, DeadLetter};
use overstory_amqp::{AmqpConfig, Outgoing, Publisher, PublisherOptions, Receipt, SpoolOptions, topology};
use overstory_model::{Alarm, EntityId, RoutingKey, Step};
use overstory_runtime::{Home, Shutdown};
use overstory_store::{PageRequest, StoreConfig, StoreKind, WebSide, open_web};
use overstory_testkit::ports::free_port;
use serde_json::Value;

/// No condition takes longer than this to come true, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A prefix with the shipped configuration of the engines.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) amqp: AmqpConfig,
    publisher: Publisher,
    variables: Vec<(String, String)>,
    store: StoreConfig,
}

/// One running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) admin: u16,
    log: PathBuf,
}

impl Rig {
    /// Makes a prefix for this virtual host of a broker.
    pub(crate) fn new(amqp: AmqpConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in ["etc/engines", "etc/secrets", "var/lib/store", "var/spool", "var/log"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
        for file in fs::read_dir(shipped.join("engines")).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, root.join("etc/engines").join(file.file_name().unwrap())).unwrap();
        }
        fs::copy(shipped.join("store.conf"), root.join("etc/store.conf")).unwrap();
        let broker = format!(
            "[broker]\nhost = {:?}\nport = {}\nvhost = {:?}\nuser = {:?}\nheartbeat_s = 1\n",
            amqp.host, amqp.port, amqp.vhost, amqp.user
        );
        fs::write(root.join("etc/amqp.conf"), broker).unwrap();
        fs::write(root.join("etc/secrets/amqp"), &amqp.password).unwrap();
        let spool = SpoolOptions { dir: root.join("var/spool"), max_bytes: 256 << 20 };
        let options = PublisherOptions { spool: Some(spool), ..PublisherOptions::new("test") };
        let publisher = Publisher::start(amqp.clone(), options, Shutdown::new()).unwrap();
        let store = StoreConfig::embedded(root.join("var/lib/store"));
        Self { dir, amqp, publisher, variables: Vec::new(), store }
    }

    /// The same on a database of a MongoDB server.
    pub(crate) fn on_mongodb(amqp: AmqpConfig, store: StoreConfig) -> Self {
        let mut rig = Self::new(amqp);
        let StoreKind::MongoDb { uri, database } = &store.kind else { panic!("{store:?}") };
        let etc = rig.home().etc();
        fs::write(etc.join("secrets/mongodb-uri"), uri).unwrap();
        fs::write(etc.join("store.conf"), format!("[store]\nkind = \"mongodb\"\n[mongodb]\ndatabase = {database:?}\n"))
            .unwrap();
        rig.store = store;
        rig
    }

    /// Overrides a key of the configuration in the processes to be started.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((format!("OVERSTORY_{variable}"), value.to_owned()));
    }

    /// The prefix.
    pub(crate) fn home(&self) -> Home {
        Home::at(self.dir.path())
    }

    /// The command that runs process `number`.
    pub(crate) fn command(&self, number: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overstory"));
        command.arg("amqp2engines").args(["--process-num", &number.to_string()]).args(arguments);
        command.env("OVERSTORY_HOME", self.dir.path()).envs(self.variables.iter().cloned());
        command
    }

    /// Starts process `number`.
    pub(crate) fn start(&self, number: u16) -> Process {
        let admin = free_port();
        let command = self.command(number, &["--admin", &format!("127.0.0.1:{admin}")]);
        self.spawn(command, number, admin)
    }

    /// Starts a command as process `number`.
    pub(crate) fn spawn(&self, mut command: Command, number: u16, admin: u16) -> Process {
        let log = self.dir.path().join(format!("var/log/amqp2engines-{number}.log"));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Process { child: command.spawn().unwrap(), admin, log }
    }

    /// Publishes bodies with a key each; what the broker cannot take is spooled.
    pub(crate) async fn publish(&self, messages: Vec<Outgoing>) {
        for outcome in self.publisher.publish_all(messages).await {
            assert!(matches!(outcome, Ok(Receipt::Confirmed | Receipt::Spooled)), "{outcome:?}");
        }
    }

    /// Publishes events.
    pub(crate) async fn events(&self, events: &[Value]) {
        self.publish(events.iter().map(message).collect()).await;
    }

    /// The store as the web server reads it.
    pub(crate) async fn store(&self) -> WebSide {
        open_web(&self.store, &self.home()).await.unwrap()
    }

    /// The open alarm of an entity; `None` also while the store was not made yet.
    pub(crate) async fn alarm(&self, store: &WebSide, entity: &str) -> Option<Alarm> {
        store.alarms.open_of(&[EntityId(entity.to_owned())]).await.ok()?.pop()
    }

    /// All steps of an alarm.
    pub(crate) async fn steps(&self, store: &WebSide, alarm: &Alarm) -> Vec<Step> {
        let all = PageRequest { paginate: false, ..PageRequest::default() };
        store.alarms.steps(&alarm.id, all).await.unwrap().items
    }

    /// The dead letters there are.
    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        dead::list(&self.amqp, 10_000).await.unwrap().0
    }

    /// Waits until the spool is empty: everything is at the broker.
    pub(crate) async fn spool_is_empty(&self) {
        wait_for("the spool to be empty", async || self.publisher.stats().spool_messages == 0).await;
    }

    /// What the processes wrote.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for file in fs::read_dir(self.dir.path().join("var/log")).unwrap() {
            text.push_str(&fs::read_to_string(file.unwrap().path()).unwrap());
        }
        text
    }
}

impl Process {
    /// Sends a signal by name, such as `-STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; returns its exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < DEADLINE, "did not end: {}", fs::read_to_string(&self.log).unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks it to stop and waits; returns its exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.end().await
    }

    /// A page of its admin listener, with the status line; empty while it does not listen.
    pub(crate) async fn page(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut text = String::new();
        if let Ok(mut stream) = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin)).await {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            if stream.write_all(request.as_bytes()).await.is_ok() {
                let _ = stream.read_to_string(&mut text).await;
            }
        }
        text
    }

    /// The value of a metric, 0 when it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        wait_for("readiness", async || self.page("/readyz").await.starts_with("HTTP/1.1 200")).await;
    }

    /// Waits until it holds the queue of events.
    pub(crate) async fn is_active(&self) {
        wait_for("activity", async || {
            (self.metric("overstory_engines_active{unit=\"Engine_events\"}").await - 1.0).abs() < 0.5
        })
        .await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds.
pub(crate) async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An event's message.
pub(crate) fn message(event: &Value) -> Outgoing {
    let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let words = ["connector", "connector_name", "event_type", "source_type", "component", "resource"].map(word);
    let key = RoutingKey::from_words(words.iter().map(String::as_str));
    Outgoing::json(topology::EVENTS, key, event.to_string().into_bytes().into())
}

/// A check of a resource of `host1`.
pub(crate) fn check(resource: &str, state: u8) -> Value {
    serde_json::json!({
        "connector": "test", "connector_name": "engines", "event_type": "check", "source_type": "resource",
        "component": "host1", "resource": resource, "state": state, "output": format!("state {state}"),
    })
}
