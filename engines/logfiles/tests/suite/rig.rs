//! Logfiles nodes on free ports, opened and closed as the program does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use overstory_logfiles::bucket::KeyRange;
use overstory_logfiles::config::{Compress, LogfilesSettings, Thresholds, Unit};
use overstory_logfiles::engine::LogfilesEngine;
use overstory_logfiles::logfilesnode::LogfilesNode;
use overstory_logfiles::storage::SyncMode;
use overstory_node::app::{NodeContext, NodeProgram};
use overstory_node::levels::Levels;
use overstory_node::stats::NodeStats;
use overstory_replay::{Connection, Host, NeoClient};
use overstory_runtime::Shutdown;
use overstory_swarm::batch::{self, Added, BatchBuilder, Pairs, Refreshed};
use overstory_swarm::legacy::Status;
use overstory_swarm::legacy::dls::{Interval, Request};
use overstory_swarm::neo::dls::{GetRangeMessage, PutReply, Request as Neo};
use tempfile::TempDir;

/// A record: its key and its value.
pub(crate) type Record = (u64, Vec<u8>);

/// How a node is set up.
#[derive(Clone)]
pub(crate) struct Setup {
    /// What is different from the defaults.
    pub settings: LogfilesSettings,
    /// Where the data is; in a place of its own unless said.
    pub data: Option<PathBuf>,
    /// Records that are there from the beginning.
    pub records: Vec<(String, u64, Vec<u8>)>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = LogfilesSettings {
            range: KeyRange::ALL,
            cpu: None,
            read_threads: 2,
            compress: Compress::Auto,
            sync: SyncMode::Interval,
            write_after: Duration::from_millis(50),
            write_buffer: 64 << 10,
            checkpoint: Duration::from_secs(300),
            open_files: 64,
            queue_bytes: 64 << 20,
            format_v2: Vec::new().into_iter().collect(),
            compress_after: Vec::new().into_iter().collect(),
            delete_after: Vec::new().into_iter().collect(),
            unit: Unit::Seconds,
            level: 3,
            // However full the disk is on which the tests run.
            thresholds: Thresholds { disk_free: Levels::falling([-1.0; 3]), ..Thresholds::default() },
        };
        Self { settings, data: None, records: Vec::new() }
    }
}

impl Setup {
    pub(crate) fn at(data: &Path) -> Self {
        Self { data: Some(data.to_owned()), ..Self::default() }
    }

    /// With other settings.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut LogfilesSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// With everything durable before it is answered.
    pub(crate) fn always(self) -> Self {
        self.with(|settings| settings.sync = SyncMode::Always)
    }

    /// With new buckets in format 2.
    pub(crate) fn v2(self) -> Self {
        self.with(|settings| settings.format_v2 = [(String::new(), true)].into_iter().collect())
    }
}

/// How the engine begins and ends.
struct Logfiles {
    setup: Setup,
    data: PathBuf,
}

impl Host for Logfiles {
    type Engine = LogfilesEngine;

    async fn start(&mut self, stats: Rc<NodeStats>, shutdown: Shutdown) -> Rc<LogfilesEngine> {
        let context = NodeContext {
            stats,
            shutdown,
            config_file: PathBuf::new(),
            address: Ipv4Addr::LOCALHOST,
            port: 23_000,
            neo_port: 23_001,
            data_dir: self.data.clone(),
            instance: "test".to_owned(),
        };
        let engine = LogfilesNode::open(self.setup.settings.clone(), context).await.expect("a node that opens");
        for (channel, key, value) in &self.setup.records {
            engine.storage().put(channel, *key, value).unwrap();
        }
        engine
    }

    async fn stop(self, engine: Rc<LogfilesEngine>) {
        LogfilesNode::close(engine).await.expect("a node that saves everything");
    }
}

/// A node on a thread of its own; dropping it stops it in order.
pub(crate) struct Node {
    node: overstory_replay::Node<LogfilesEngine>,
    pub data: PathBuf,
    place: Option<TempDir>,
}

impl Deref for Node {
    type Target = overstory_replay::Node<LogfilesEngine>;

    fn deref(&self) -> &Self::Target {
        &self.node
    }
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let place = setup.data.is_none().then(|| tempfile::tempdir().unwrap());
        let data = place.as_ref().map_or_else(|| setup.data.clone().unwrap(), |place| place.path().join("data"));
        let node = overstory_replay::Node::start(Logfiles { setup, data: data.clone() });
        Self { node, data, place }
    }

    /// Stops it, and gives the place of the data if it is one of its own.
    pub(crate) fn stop(self) -> Option<TempDir> {
        let Self { node, place, .. } = self;
        drop(node);
        place
    }

    pub(crate) fn legacy(&self) -> Connection {
        Connection::open(self.legacy)
    }

    pub(crate) fn neo(&self) -> NeoClient {
        NeoClient::open(self, "test")
    }

    /// All records of a channel, in the order of a GetAll.
    pub(crate) fn all(&self, channel: &str) -> Vec<Record> {
        read(&mut self.legacy(), &Request::GetAll { channel: channel.as_bytes() })
    }

    /// Everything that was answered is in its file.
    pub(crate) fn flush(&self) {
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        self.with(move |engine| {
            let storage = Rc::clone(engine.storage());
            tokio::task::spawn_local(async move {
                storage.flush().await.unwrap();
                done.send(()).unwrap();
            });
        });
        is_done.recv_timeout(overstory_replay::PATIENCE).unwrap();
    }

    /// What GetSize says.
    pub(crate) fn size(&self) -> (u64, u64) {
        size(&mut self.legacy(), &Request::GetSize)
    }

    /// What GetChannelSize says.
    pub(crate) fn channel_size(&self, channel: &str) -> (u64, u64) {
        size(&mut self.legacy(), &Request::GetChannelSize { channel: channel.as_bytes() })
    }

    /// The channels, in their order.
    pub(crate) fn channels(&self) -> Vec<String> {
        let mut client = self.legacy();
        assert_eq!(client.ask(&Request::GetChannels), Status::Ok);
        let mut names = Vec::new();
        loop {
            match String::from_utf8(client.read_array()).unwrap() {
                name if name.is_empty() => return names,
                name => names.push(name),
            }
        }
    }

    /// What is found to be wrong: the checks' names and texts.
    pub(crate) fn findings(&self) -> Vec<(&'static str, String)> {
        self.with(|engine| {
            let mut findings = Vec::new();
            overstory_node::inspect::Inspect::checks(&**engine, &mut findings);
            findings.into_iter().map(|finding| (finding.check, finding.text)).collect()
        })
    }
}

/// Records and bytes of a GetSize or GetChannelSize.
fn size(client: &mut Connection, request: &Request<'_>) -> (u64, u64) {
    assert_eq!(client.ask(request), Status::Ok);
    client.read_array();
    client.read(2);
    let number = |client: &mut Connection| u64::from_le_bytes(client.read(8).try_into().unwrap());
    (number(client), number(client))
}

/// 16 hexadecimal digits.
pub(crate) fn hex(key: u64) -> [u8; 16] {
    format!("{key:016x}").into_bytes().try_into().unwrap()
}

/// A batch as PutBatch has it.
pub(crate) fn batch<'a>(records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let (mut builder, mut batch) = (BatchBuilder::new(16 << 20), Vec::new());
    for (key, value) in records {
        assert_eq!(builder.pair(key, value), Added::Yes);
    }
    builder.finish(&mut batch);
    batch
}

/// The same of records.
pub(crate) fn batch_of(records: &[Record]) -> Vec<u8> {
    let keys: Vec<[u8; 16]> = records.iter().map(|(key, _)| hex(*key)).collect();
    batch(keys.iter().zip(records).map(|(key, (_, value))| (&key[..], &value[..])))
}

/// Keys from one to another, as legacy has them.
pub(crate) fn interval<'a>(low: &'a [u8; 16], high: &'a [u8; 16]) -> Interval<'a> {
    Interval { low, high }
}

/// Puts a record by neo.
pub(crate) fn put_neo(client: &mut NeoClient, id: u64, channel: &str, key: u64, value: &[u8]) -> PutReply {
    let request = Neo::Put { channel: channel.as_bytes(), timestamp: key.cast_signed(), value };
    match client.ask(id, &request)[..] {
        [1] => PutReply::Put,
        [2] => PutReply::Error,
        ref other => panic!("{other:?}"),
    }
}

/// The answer of a neo GetRange; nothing if it is refused.
pub(crate) fn get_range(client: &mut NeoClient, id: u64, request: &Neo<'_>) -> Option<Vec<Record>> {
    match client.ask(id, request)[..] {
        [1] => {}
        [3] => return None,
        ref other => panic!("{other:?}"),
    }
    let (mut records, mut plain) = (Vec::new(), Vec::new());
    loop {
        let message = client.read(id);
        match GetRangeMessage::decode(&message).unwrap() {
            GetRangeMessage::Records(block) => {
                batch::decode_block(block.plain_len, block.block, 16 << 20, &mut plain).unwrap();
                records.extend(Refreshed::new(&plain).map(|record| record.map(|(k, v)| (k, v.to_vec())).unwrap()));
                client.message(id, &[1]);
            }
            GetRangeMessage::Finished => {
                client.message(id, &[6]);
                return Some(records);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The neo GetRange of all timestamps of both signs, in the order of the keys.
pub(crate) fn all_neo(client: &mut NeoClient, id: u64, channel: &str) -> Vec<Record> {
    let request = Neo::GetRange { channel: channel.as_bytes(), low: i64::MIN, high: i64::MAX, filter: b"", mode: 0 };
    get_range(client, id, &request).unwrap()
}

/// Runs `logfiles_check` on a path; what it returns is its exit code.
pub(crate) fn check(path: &Path, more: &[&str]) -> u8 {
    let mut args = vec!["logfiles_check".into()];
    args.extend(more.iter().map(Into::into));
    args.push(path.into());
    let code = format!("{:?}", overstory_logfiles::check::run(args));
    (0..=4)
        .find(|code_of: &u8| format!("{:?}", std::process::ExitCode::from(*code_of)) == code)
        .expect("an exit code of logfiles_check")
}

/// Copies a directory as it is at one moment, as a kill would leave it. Files that are read one after the other while the
/// node writes are of different moments: a bucket with records of which the catalogue does not know. So all is read until
/// it is the same twice.
pub(crate) fn copy(from: &Path, to: &Path) {
    let mut tree = Tree::of(from);
    loop {
        let again = Tree::of(from);
        if again == tree {
            return tree.write(to);
        }
        tree = again;
    }
}

/// What is in a directory.
#[derive(PartialEq, Eq)]
struct Tree {
    modified: Option<SystemTime>,
    files: BTreeMap<OsString, Vec<u8>>,
    directories: BTreeMap<OsString, Self>,
}

impl Tree {
    fn of(path: &Path) -> Self {
        let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok();
        let mut tree = Self { modified, files: BTreeMap::new(), directories: BTreeMap::new() };
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            // What is being removed or renamed may be gone.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                tree.directories.insert(entry.file_name(), Self::of(&entry.path()));
            } else if let Ok(content) = std::fs::read(entry.path()) {
                tree.files.insert(entry.file_name(), content);
            }
        }
        tree
    }

    fn write(&self, path: &Path) {
        std::fs::create_dir_all(path).unwrap();
        for (name, content) in &self.files {
            std::fs::write(path.join(name), content).unwrap();
        }
        for (name, tree) in &self.directories {
            tree.write(&path.join(name));
        }
        // The node sees by it that no names have changed.
        if let Some(modified) = self.modified {
            std::fs::File::open(path).unwrap().set_modified(modified).unwrap();
        }
    }
}

/// Puts a record by legacy.
pub(crate) fn put(client: &mut Connection, channel: &str, key: u64, value: &[u8]) {
    let key = format!("{key:016x}");
    let request = Request::Put { channel: channel.as_bytes(), key: key.as_bytes(), value };
    assert_eq!(client.ask(&request), Status::Ok, "put to {channel}");
}

/// The answer of a request that reads by legacy.
pub(crate) fn read(client: &mut Connection, request: &Request<'_>) -> Vec<(u64, Vec<u8>)> {
    assert_eq!(client.ask(request), Status::Ok, "{}", request.name());
    let (mut records, mut plain) = (Vec::new(), Vec::new());
    loop {
        let batch = client.read_array();
        if batch.is_empty() {
            return records;
        }
        batch::decode(&batch, 16 << 20, &mut plain).unwrap();
        for pair in Pairs::new(&plain) {
            let (key, value) = pair.unwrap();
            let key = u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap();
            records.push((key, value.to_vec()));
        }
    }
}
