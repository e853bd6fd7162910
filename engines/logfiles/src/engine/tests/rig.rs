//! An engine over a storage in a temporary directory, asked as the server asks it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use overstory_node::commit::Commits;
use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, NeoStream, Peer, Produced};
use overstory_node::stats::NodeStats;
use overstory_node::wake::{Sleeper, Waker};
use overstory_swarm::batch::{self, Pairs};
use overstory_swarm::legacy::dls::Request as Legacy;
use overstory_swarm::legacy::{Limits, Need, Status, reply};
use overstory_swarm::neo::Replies;
use overstory_swarm::neo::dls::Request as Neo;
use tempfile::TempDir;

use crate::bucket::KeyRange;
use crate::config::Compress;
use crate::disk::{Disk, SystemDisk};
use crate::engine::{EngineSettings, LogfilesEngine, Watch};
use crate::read::{Reads, ReadsOptions};
use crate::storage::{Storage, StorageOptions};

/// A test that hangs has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine with what it works on.
pub(super) struct Rig {
    pub(super) engine: Rc<LogfilesEngine>,
    pub(super) dir: TempDir,
}

/// Key and value.
pub(super) type Record = (u64, Vec<u8>);

pub(super) fn peer() -> Peer {
    Peer { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1), name: Rc::from("test") }
}

/// Runs a test with an engine that takes these keys.
pub(super) fn with_range<F: Future<Output = ()>>(range: KeyRange, test: impl FnOnce(Rig) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let dir = TempDir::new().unwrap();
        let engine = open(dir.path(), range);
        tokio::time::timeout(PATIENCE, test(Rig { engine, dir })).await.expect("the test takes too long");
    });
}

/// Runs a test with an engine that takes all keys.
pub(super) fn with_engine<F: Future<Output = ()>>(test: impl FnOnce(Rig) -> F) {
    with_range(KeyRange::ALL, test);
}

/// Opens an engine, and drives it.
pub(super) fn open(dir: &Path, range: KeyRange) -> Rc<LogfilesEngine> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let commits = Rc::new(Commits::new());
    let options = StorageOptions { boot_id: "boot".to_owned(), ..StorageOptions::default() };
    let (storage, _) = Storage::open(Arc::clone(&disk), dir, options, Rc::clone(&commits)).unwrap();
    let reads = Reads::new(disk, ReadsOptions { threads: 2, ..ReadsOptions::default() }).unwrap();
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 23_000);
    let settings = EngineSettings { address, range, compress: Compress::Auto };
    let stats = Rc::new(NodeStats::new::<LogfilesEngine>());
    let watch = Watch::new(crate::config::Thresholds::default(), dir.to_owned());
    let engine = Rc::new(LogfilesEngine::new(Rc::new(storage), reads, settings, stats, commits, watch));
    let driven = Rc::clone(&engine);
    tokio::task::spawn_local(async move { driven.drive().await });
    engine
}

impl Rig {
    /// The reply to a legacy request, to its end.
    pub(super) async fn ask(&self, request: &Legacy<'_>) -> Vec<u8> {
        let mut input = Vec::new();
        request.encode(&mut input);
        self.ask_bytes(&input).await.unwrap()
    }

    /// The reply to a legacy request as bytes; why the connection was closed, otherwise.
    pub(super) async fn ask_bytes(&self, input: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (waker, sleeper) = Sleeper::new();
        let mut out = Vec::new();
        match self.engine.legacy(&peer(), &waker, input, &mut out) {
            LegacyStep::Done { consumed, .. } => assert_eq!(consumed, input.len()),
            LegacyStep::Later { reply, .. } => out.extend(reply.await),
            LegacyStep::Stream { mut stream, .. } => loop {
                match stream.produce(&mut out) {
                    Produced::More => {}
                    Produced::Idle => sleeper.sleep().await,
                    Produced::Done => break,
                    Produced::Failed => return Err("failed"),
                }
            },
            LegacyStep::Close { reason } => return Err(reason),
            LegacyStep::Need(_) | LegacyStep::Sink { .. } | LegacyStep::Discard { .. } => panic!("no such step"),
        }
        Ok(out)
    }

    pub(super) async fn status(&self, request: &Legacy<'_>) -> Status {
        let reply = self.ask(request).await;
        assert_eq!(reply.len(), 4, "nothing but a status");
        Status::from_code(i32::from_le_bytes(reply.try_into().unwrap())).unwrap()
    }

    pub(super) async fn put(&self, channel: &str, key: u64, value: &[u8]) -> Status {
        let key = format!("{key:016x}");
        self.status(&Legacy::Put { channel: channel.as_bytes(), key: key.as_bytes(), value }).await
    }

    /// The records of an answer of batches.
    pub(super) async fn records(&self, request: &Legacy<'_>) -> Vec<Record> {
        batches(&self.ask(request).await).concat()
    }

    pub(super) async fn all(&self, channel: &str) -> Vec<Record> {
        self.records(&Legacy::GetAll { channel: channel.as_bytes() }).await
    }

    /// Begins a neo request; the messages so far, and what goes on.
    pub(super) fn neo(&self, request: &Neo<'_>, waker: &Waker) -> (Vec<Vec<u8>>, Option<Box<dyn NeoStream>>) {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.neo_payload(bytes[0], &bytes[2..], waker)
    }

    pub(super) fn neo_payload(
        &self,
        code: u8,
        payload: &[u8],
        waker: &Waker,
    ) -> (Vec<Vec<u8>>, Option<Box<dyn NeoStream>>) {
        let mut out = Vec::new();
        let peer = peer();
        let begun = self
            .engine
            .neo(NeoRequest { code, version: 0, payload, peer: &peer, waker }, &mut Replies::new(&mut out, 1));
        (messages(&out), if let Begun::Stream(stream) = begun { Some(stream) } else { None })
    }

    /// Asks by neo what is answered at once.
    pub(super) fn neo_now(&self, request: &Neo<'_>) -> Vec<u8> {
        let (messages, stream) = self.neo(request, &Waker::noop());
        assert!(stream.is_none() && messages.len() == 1, "{messages:?}");
        messages.concat()
    }
}

/// The payloads of messages.
pub(super) fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(u64::from_le_bytes(bytes[1..9].try_into().unwrap())).unwrap();
        all.push(bytes[18..10 + length].to_vec());
        bytes = &bytes[10 + length..];
    }
    all
}

/// The batches of a legacy reply that was Ok.
pub(super) fn batches(reply_bytes: &[u8]) -> Vec<Vec<Record>> {
    assert_eq!(reply_bytes[..4], Status::Ok.code().to_le_bytes());
    let (mut rest, mut all) = (&reply_bytes[4..], Vec::new());
    loop {
        let Need::Done { value, consumed } = reply::item(rest, &Limits::DEFAULT).unwrap() else { panic!("cut") };
        rest = &rest[consumed..];
        let Some(payload) = value else { break };
        let mut plain = Vec::new();
        batch::decode(payload, 16 << 20, &mut plain).unwrap();
        let record = |pair: Result<(&[u8], &[u8]), _>| {
            let (key, value) = pair.map_err(|_| ()).unwrap();
            let key = u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap();
            (key, value.to_vec())
        };
        all.push(Pairs::new(&plain).map(record).collect());
    }
    assert!(rest.is_empty());
    all
}

/// A PutBatch payload of records.
pub(super) fn payload(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = batch::BatchBuilder::new(16 << 20);
    for (key, value) in records {
        assert_eq!(builder.pair(key.as_bytes(), value), batch::Added::Yes);
    }
    let mut payload = Vec::new();
    builder.finish(&mut payload);
    payload
}
