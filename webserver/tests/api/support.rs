//! A web server on a free port with an embedded store in a directory of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use actix_web::web;
use async_trait::async_trait;
use base64::Engine as _;
use overstory_amqp::Outgoing;
use overstory_model::clock::ManualClock;
use overstory_model::credential::hash_password;
use overstory_model::{Millis, Timestamp, permission};
use overstory_runtime::Shutdown;
use overstory_runtime::admin::Ready;
use overstory_runtime::home::Home;
use overstory_runtime::prometheus::Registry;
use overstory_store::config::StoreConfig;
use overstory_store::open::{EngineSide, open_engines, open_web};
use overstory_store::{Account, Accounts, Commit, Role};
use overstory_webserver::archive::ArchiveNow;
use overstory_webserver::broker::{BrokerWatch, QueueLength};
use overstory_webserver::config::Settings;
use overstory_webserver::engines::EngineMap;
use overstory_webserver::metrics::Metrics;
use overstory_webserver::server;
use overstory_webserver::sink::{EventSink, Taken};
use overstory_webserver::state::{AppState, Ports, Stores};
use overstory_webserver::supervised::{Action, ProcessView, ServiceControl, ServiceError};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time at which every test begins.
pub(crate) const NOW: i64 = 1_700_000_000;
/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A running server and what it stands on.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) sink: Arc<FakeSink>,
    pub(crate) broker: Arc<FakeBroker>,
    pub(crate) services: Arc<FakeServices>,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) engines: EngineSide,
    pub(crate) ready: Ready,
    pub(crate) shutdown: Shutdown,
    pub(crate) registry: Registry,
    pub(crate) task: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

/// Starts a server with the settings that tests use.
pub(crate) async fn start() -> Server {
    start_with(|_| ()).await
}

/// Starts a server after changing the settings.
pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Server {
    start_all(change, None).await
}

/// Starts a server with an archive of events.
pub(crate) async fn start_with_archive(archive: ArchiveNow) -> Server {
    start_all(|_| (), Some(archive)).await
}

async fn start_all(change: impl FnOnce(&mut Settings), archive: Option<ArchiveNow>) -> Server {
    let mut settings = Settings { workers: 1, ..Settings::default() };
    change(&mut settings);
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let config = StoreConfig::embedded(dir.path().join("store"));
    let engines = open_engines(&config, &home).await.unwrap();
    let side = open_web(&config, &home).await.unwrap();
    provision(side.accounts.as_ref()).await;
    let clock = Arc::new(ManualClock::new(Millis(NOW * 1000)));
    let (sink, broker, services) =
        (Arc::new(FakeSink::default()), Arc::new(FakeBroker::default()), Arc::new(FakeServices::default()));
    let registry = Registry::new();
    let accounts = side.accounts.clone();
    let ports = Ports {
        stores: Stores {
            alarms: side.alarms,
            entities: side.entities,
            metrics: side.metrics,
            runs: side.runs,
            accounts: side.accounts,
            name: "SQLite",
        },
        sink: sink.clone(),
        engines: Arc::new(|| {
            let next = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|to| (*to).to_owned()).collect());
            EngineMap::from([next("cleaner", &["alarms"]), next("alarms", &[]), next("stats", &[])])
        }),
        archive,
        broker: broker.clone(),
        services: services.clone(),
        clock: clock.clone(),
        metrics: Metrics::register(&registry).unwrap(),
    };
    let (ready, shutdown) = (Ready::default(), Shutdown::new());
    let runtime = tokio::runtime::Handle::current();
    let state = AppState::new(settings, ports, runtime, ready.clone(), shutdown.clone()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = web::Data::new(state);
    let task = tokio::spawn(server::serve(listener, state));
    Server { address, clock, sink, broker, services, accounts, engines, ready, shutdown, registry, task, _dir: dir }
}

async fn provision(accounts: &dyn Accounts) {
    let all = permission::ALL.iter().map(|(name, bits)| ((*name).to_owned(), *bits)).collect();
    let viewer = BTreeMap::from([(permission::ALARM_READ.to_owned(), permission::CAN)]);
    for (name, permissions) in [(permission::ADMIN_ROLE, all), ("viewer", viewer)] {
        accounts.put_role(&Role { name: name.to_owned(), description: String::new(), permissions }).await.unwrap();
    }
    let password_hash = hash_password(PASSWORD).unwrap();
    for (name, role, enabled) in [("admin", "admin", true), ("eve", "viewer", true), ("gone", "admin", false)] {
        let account = Account {
            name: name.to_owned(),
            password_hash: password_hash.clone(),
            roles: vec![role.to_owned()],
            enabled,
            created: Timestamp(NOW),
            generation: 1,
        };
        accounts.create_account(&account).await.unwrap();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The status and the document: what snapshots compare.
    pub(crate) fn pair(&self) -> (u16, Value) {
        (self.status, self.json())
    }
}

/// `Authorization: Basic` of a user with everybody's password.
pub(crate) fn basic(name: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: Basic {encoded}")
}

impl Server {
    /// A request of the admin account.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[&basic("admin", PASSWORD)], None).await
    }

    /// A JSON body sent by the admin account.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[&basic("admin", PASSWORD)], body).await
    }

    /// A request without body by the admin account.
    pub(crate) async fn put(&self, path: &str) -> Answer {
        self.request("PUT", path, &[&basic("admin", PASSWORD)], None).await
    }

    /// A JSON body.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[&str], body: &Value) -> Answer {
        let headers = [headers, &["Content-Type: application/json"]].concat();
        self.request(method, path, &headers, Some(body.to_string().as_bytes())).await
    }

    /// Any request.
    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        if let Some(body) = body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(body.unwrap_or_default()).await;
        read_answer(&mut stream).await
    }

    /// Writes a commit as the engines would.
    pub(crate) async fn commit(&self, commit: Commit) {
        let epoch = self.engines.engines.take_epoch("Engine_events", "test").await.unwrap();
        self.engines.engines.commit("Engine_events", epoch, commit).await.unwrap();
    }
}

/// Reads an answer until the server closes the connection.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is what an early refusal may look like.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// Keeps what it is given, or refuses it.
#[derive(Default)]
pub(crate) struct FakeSink {
    pub(crate) messages: Mutex<Vec<Outgoing>>,
    /// What becomes of the next ones; durable when nothing is said.
    pub(crate) fates: Mutex<Vec<Taken>>,
}

#[async_trait]
impl EventSink for FakeSink {
    async fn take(&self, messages: Vec<Outgoing>) -> Vec<Taken> {
        let mut fates = self.fates.lock().unwrap();
        let mut taken = Vec::new();
        for message in messages {
            let fate = if fates.is_empty() { Taken::Durable } else { fates.remove(0) };
            if fate == Taken::Durable {
                self.messages.lock().unwrap().push(message);
            }
            taken.push(fate);
        }
        taken
    }
}

/// A broker with set queues, and a count of how often it was asked.
#[derive(Default)]
pub(crate) struct FakeBroker {
    pub(crate) queues: Mutex<Option<Vec<QueueLength>>>,
    pub(crate) asked: Mutex<u32>,
}

#[async_trait]
impl BrokerWatch for FakeBroker {
    async fn queues(&self) -> Result<Vec<QueueLength>, String> {
        *self.asked.lock().unwrap() += 1;
        self.queues.lock().unwrap().clone().ok_or_else(|| "connection refused".to_owned())
    }
}

/// Two services: `collectd`, which starts and stops, and `webserver`, which is this process.
#[derive(Default)]
pub(crate) struct FakeServices {
    pub(crate) running: Mutex<bool>,
    pub(crate) away: Mutex<bool>,
    pub(crate) stop_signals: Mutex<Vec<String>>,
}

impl FakeServices {
    fn views(&self) -> Result<Vec<ProcessView>, ServiceError> {
        if *self.away.lock().unwrap() {
            return Err(ServiceError::Away("no socket".to_owned()));
        }
        let running = *self.running.lock().unwrap();
        let view = |name: &str, state: &str, pid: Option<i32>| ProcessView {
            name: name.to_owned(),
            service: name.to_owned(),
            state: state.to_owned(),
            pid,
            uptime_s: pid.map(|_| 5),
            restarts: 0,
            detail: String::new(),
        };
        let own_pid = i32::try_from(std::process::id()).unwrap();
        let collectd = if running { view("collectd", "RUNNING", Some(1)) } else { view("collectd", "STOPPED", None) };
        Ok(vec![collectd, view("webserver", "RUNNING", Some(own_pid))])
    }
}

#[async_trait]
impl ServiceControl for FakeServices {
    async fn list(&self) -> Result<Vec<ProcessView>, ServiceError> {
        self.views()
    }

    async fn status(&self, name: &str) -> Result<Vec<ProcessView>, ServiceError> {
        let views: Vec<_> = self.views()?.into_iter().filter(|view| view.service == name).collect();
        if views.is_empty() { Err(ServiceError::Unknown) } else { Ok(views) }
    }

    async fn act(&self, name: &str, action: Action) -> Result<(), ServiceError> {
        self.status(name).await?;
        let mut running = self.running.lock().unwrap();
        if action == Action::Restart && !*running {
            return Err(ServiceError::Failed("collectd crashed".to_owned()));
        }
        *running = action != Action::Stop;
        Ok(())
    }

    async fn signal_stop(&self, name: &str) -> Result<(), ServiceError> {
        self.stop_signals.lock().unwrap().push(name.to_owned());
        Ok(())
    }
}
