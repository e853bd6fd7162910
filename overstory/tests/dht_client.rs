//! Client, `swarm`, `dhtdump` and `dhtredist` against real dht nodes: processes of the shipped executable.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use overstory_client::dht::Selection;
use overstory_client::{ClientConfig, DhtClient, Identity, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_swarm::key::{HashRange, Key};
use overstory_testkit::ports::free_port_with;
use tempfile::TempDir;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_overstory");
const CHANNEL: &str = "records";

/// A dht node in a directory of its own; ended with this.
struct Node {
    dir: TempDir,
    port: u16,
    process: Child,
}

impl Node {
    fn start(range: HashRange) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("log")).unwrap();
        fs::write(dir.path().join("etc/credentials"), credentials()).unwrap();
        let port = free_port_with(&[100]);
        let config = format!(
            "[Server]\naddress = 127.0.0.1\nport = {port}\nminval = {:#018x}\nmaxval = {:#018x}\n\
             unix_socket_path = node.socket\n[Options_Memory]\nlock_memory = false\ndisable_direct_io = true\n\
             [Report]\nenabled = false\n[LOG.Root]\nlevel = info\nconsole = false\nfile = log/root.log\n",
            range.min(),
            range.max()
        );
        fs::write(dir.path().join("etc/config.ini"), config).unwrap();
        let process = spawn(dir.path());
        Self { dir, port, process }
    }

    fn restart(&mut self) {
        self.process = spawn(self.dir.path());
    }

    /// Ends the node as a power failure would.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn legacy(&self) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), self.port)
    }

    fn neo(&self) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), self.port + 100)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(EXECUTABLE);
    command.args(["dhtnode", "-c", "etc/config.ini"]).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn credentials() -> String {
    format!("admin:{}\n", "0".repeat(256))
}

fn registry(nodes: impl IntoIterator<Item = SocketAddrV4>) -> Registry {
    let mut registry = Registry::new();
    nodes.into_iter().for_each(|node| registry.add(node).unwrap());
    registry
}

async fn neo(nodes: &[Node]) -> DhtClient {
    let identity = Identity { name: "admin".to_owned(), key: ClientKey([0; 128]) };
    let config = ClientConfig::neo(registry(nodes.iter().map(Node::neo)), identity);
    DhtClient::connect(ClientConfig { connect_timeout: Duration::from_secs(20), ..config }).await.unwrap()
}

async fn legacy(nodes: &[Node]) -> DhtClient {
    let config = ClientConfig::legacy(registry(nodes.iter().map(Node::legacy)));
    DhtClient::connect(ClientConfig { connect_timeout: Duration::from_secs(20), ..config }).await.unwrap()
}

/// Equal ranges for so many nodes; the number is a power of two.
fn start(count: u64) -> Vec<Node> {
    let width = u64::MAX / count;
    let range = |index: u64| {
        let min = index * (width + u64::from(count > 1));
        HashRange::new(min, if index + 1 == count { u64::MAX } else { min + width }).unwrap()
    };
    (0..count).map(|index| Node::start(range(index))).collect()
}

fn value(key: u64) -> Vec<u8> {
    format!("value of {key}").into_bytes()
}

/// Every record of the channel, each counted.
async fn everything(client: &DhtClient) -> BTreeMap<u64, (Vec<u8>, usize)> {
    let mut all = BTreeMap::new();
    let mut records = client.get_all(CHANNEL, &Selection::default()).unwrap();
    while let Some(batch) = records.next().await {
        for (key, value) in batch.unwrap().records() {
            all.entry(key.0).or_insert_with(|| (value.to_vec(), 0)).1 += 1;
        }
    }
    all
}

fn nodes_file(dir: &Path, nodes: impl IntoIterator<Item = SocketAddrV4>) -> PathBuf {
    let path = dir.join("nodes");
    let lines: String = nodes.into_iter().map(|node| format!("{node}\n")).collect();
    fs::write(&path, lines).unwrap();
    path
}

fn run(program: &str, args: &[&str], dir: &Path, input: &[u8]) -> Output {
    let mut command = Command::new(EXECUTABLE);
    command.arg(program).args(args).current_dir(dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_and_four_nodes_serve_one_client() {
    for count in [2, 4] {
        let nodes = start(count);
        let (new, old) = (neo(&nodes).await, legacy(&nodes).await);
        assert_eq!(new.ranges().check(false), Ok(()));
        for key in 0..400 {
            let client = if key % 2 == 0 { &new } else { &old };
            client.put(CHANNEL, Key(key), &value(key)).await.unwrap();
        }
        for client in [&new, &old] {
            for key in 0..400 {
                assert_eq!(client.get(CHANNEL, Key(key)).await.unwrap(), Some(value(key)));
            }
            let all = everything(client).await;
            assert!(all.len() == 400 && all.iter().all(|(key, (found, times))| *found == value(*key) && *times == 1));
            assert_eq!(client.channels().await.unwrap(), [CHANNEL]);
        }
        let sizes = old.sizes().await.unwrap();
        assert!(sizes.iter().all(|size| size.records > 0), "every node has a part: {sizes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_node_joins_under_load_and_nothing_is_lost_or_doubled() {
    const BEFORE: u64 = 20_000;
    let mut nodes = start(2);
    let client = neo(&nodes).await;
    for first in (0..BEFORE).step_by(500) {
        let puts = (first..first + 500).map(|key| {
            let client = client.clone();
            tokio::spawn(async move { client.put(CHANNEL, Key(key), &value(key)).await })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap().unwrap();
        }
    }
    nodes.push(Node::start(HashRange::EMPTY));
    let dir = tempfile::tempdir().unwrap();
    let file = nodes_file(dir.path(), nodes.iter().map(Node::legacy));
    // The third node has to be up before it is asked for its range.
    legacy_up(&nodes[2]).await;

    let over = Arc::new(AtomicBool::new(false));
    let (loading, until) = (client.clone(), Arc::clone(&over));
    let load = tokio::spawn(async move {
        let mut key = BEFORE;
        while !until.load(Ordering::SeqCst) {
            loading.put(CHANNEL, Key(key), &value(key)).await.unwrap();
            let earlier = key.wrapping_mul(7919) % BEFORE;
            assert_eq!(loading.get(CHANNEL, Key(earlier)).await.unwrap(), Some(value(earlier)), "{earlier}");
            key += 1;
        }
        key
    });
    let path = file.to_str().unwrap().to_owned();
    let at = dir.path().to_owned();
    let moved = tokio::task::spawn_blocking(move || run("dhtredist", &["-S", &path, "-x"], &at, b"")).await.unwrap();
    over.store(true, Ordering::SeqCst);
    let last = load.await.unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert!(!dir.path().join("nodes.redistribution").exists());

    let all = everything(&neo(&nodes).await).await;
    assert_eq!(all.len() as u64, last);
    assert!(all.iter().all(|(key, (found, times))| *found == value(*key) && *times == 1));
    // Legacy asks for the ranges anew, and they fit together.
    let sizes = legacy(&nodes).await.sizes().await.unwrap();
    let third = last / 3;
    assert!(sizes.iter().all(|size| size.records.abs_diff(third) < third / 10), "{sizes:?}");
    let again = run("dhtredist", &["-S", file.to_str().unwrap(), "-x"], dir.path(), b"");
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).ends_with("nothing to change\n"));
}

async fn legacy_up(node: &Node) {
    let client = DhtClient::start(ClientConfig::legacy(registry([node.legacy()]))).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async { while client.versions().await.is_err() {} }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dhtdump_saved_is_there_after_the_node_was_killed() {
    let mut nodes = start(1);
    let client = neo(&nodes).await;
    for key in 0..1000 {
        client.put(CHANNEL, Key(key), &value(key)).await.unwrap();
    }
    let dir = nodes[0].dir.path().to_owned();
    let config = format!(
        "[Dht]\naddress = 127.0.0.1\nport = {}\n[Dump]\ndata_dir = data\ndisable_direct_io = true\n\
         [Report]\nenabled = false\n[LOG.Root]\nlevel = info\nconsole = false\nfile = log/dump.log\n",
        nodes[0].port
    );
    fs::write(dir.join("etc/dump.ini"), config).unwrap();
    for _ in 0..2 {
        let dumped = run("dhtdump", &["-c", "etc/dump.ini", "--oneshot"], &dir, b"");
        assert_eq!(dumped.status.code(), Some(0), "{}", String::from_utf8_lossy(&dumped.stderr));
    }
    assert!(dir.join("data/records.tcm").exists() && dir.join("data/records.tcm.backup").exists());
    nodes[0].kill();
    // Without its node the dump fails, says so, and leaves the good file alone.
    let before = fs::read(dir.join("data/records.tcm")).unwrap();
    let failed = run("dhtdump", &["-c", "etc/dump.ini", "-o"], &dir, b"");
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(fs::read(dir.join("data/records.tcm")).unwrap(), before);
    nodes[0].restart();
    let all = everything(&neo(&nodes).await).await;
    assert!(all.len() == 1000 && all.iter().all(|(key, (found, _))| *found == value(*key)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_works_in_pipes() {
    let nodes = start(2);
    drop(neo(&nodes).await);
    let dir = tempfile::tempdir().unwrap();
    let file = nodes_file(dir.path(), nodes.iter().map(Node::neo));
    fs::write(dir.path().join("client"), credentials()).unwrap();
    let base = ["dht", "--nodes", file.to_str().unwrap(), "--credentials", "client"];
    let swarm = |args: &[&str], input: &[u8]| run("swarm", &[&base[..], args].concat(), dir.path(), input);

    let binary = b"\x00\xfftab\tline\n";
    assert!(swarm(&["put", CHANNEL, "0x11"], binary).status.success());
    assert_eq!(swarm(&["get", CHANNEL, "17"], b"").stdout, binary);
    assert_eq!(swarm(&["get", CHANNEL, "18"], b"").status.code(), Some(3));
    assert_eq!(swarm(&["exists", CHANNEL, "17"], b"").stdout, b"yes\n");
    assert_eq!(swarm(&["put", CHANNEL, "x", "v"], b"").status.code(), Some(2));
    for wrong in [&["put", "../x", "1", "v"][..], &["put", CHANNEL, "1"], &["size"], &["connections"], &["version"]] {
        let refused = swarm(wrong, b"");
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{wrong:?}");
    }
    let old = nodes_file(dir.path(), nodes.iter().map(Node::legacy));
    let mirror = ["dht", "--legacy", "--nodes", old.to_str().unwrap(), "mirror", CHANNEL];
    assert_eq!(run("swarm", &mirror, dir.path(), b"").status.code(), Some(2));
    nodes_file(dir.path(), nodes.iter().map(Node::neo));
    assert!(swarm(&["remove", CHANNEL, "17"], b"").status.success());
    assert_eq!(swarm(&["remove", CHANNEL, "17"], b"").status.code(), Some(3));

    let lines: String = (0..5000).map(|key| format!("{key}\tvalue of {key}\\n\n")).collect();
    let stored = swarm(&["put", CHANNEL, "--bulk"], lines.as_bytes());
    assert!(stored.status.success() && stored.stderr.starts_with(b"5000 records stored, 0 failed"));
    let printed = swarm(&["getall", CHANNEL], b"");
    let mut sorted: Vec<_> = printed.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    sorted.sort_unstable();
    assert_eq!((sorted.len(), sorted[17]), (5000, &b"0x0000000000000011\tvalue of 17\\n"[..]));
    // What was printed is read again, in every form.
    for format in ["--json", "--base64"] {
        let printed = swarm(&["getall", CHANNEL, format], b"").stdout;
        assert!(swarm(&["put", "copy", "--bulk", format], &printed).status.success());
    }
    assert_eq!(swarm(&["getall", "copy", "--keys", "--limit", "10"], b"").stdout.split(|b| *b == b'\n').count(), 11);
    assert_eq!(swarm(&["getall", "copy", "--filter", "of 4999"], b"").stdout.split(|b| *b == b'\n').count(), 2);

    let broken = swarm(&["put", CHANNEL, "--bulk"], b"1\tgood\nno tab\n");
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("line 2: a record is `key TAB value`"));
    fs::write(dir.path().join("client"), format!("admin:{}\n", "1".repeat(256))).unwrap();
    let refused = swarm(&["channels"], b"");
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refused to authenticate `admin`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_works_with_the_nodes_that_are_there() {
    let mut nodes = start(2);
    let client = neo(&nodes).await;
    for key in 0..100 {
        client.put(CHANNEL, Key(key), &value(key)).await.unwrap();
    }
    // Whose keys are whose is up to the hash of a key.
    let ranges: BTreeMap<_, _> = client.ranges().iter().collect();
    let at = |node: &Node| (0..100).filter(|key| ranges[&node.neo()].contains(Key(*key))).collect::<Vec<u64>>();
    let (here, gone) = (at(&nodes[0]), at(&nodes[1]));
    drop(client);
    nodes[1].kill();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("client"), credentials()).unwrap();
    for legacy in [false, true] {
        let side = if legacy { Node::legacy } else { Node::neo };
        let file = nodes_file(dir.path(), nodes.iter().map(side));
        let away = side(&nodes[1]).to_string();
        let base = ["dht", "--nodes", file.to_str().unwrap()];
        let how: &[&str] = if legacy { &["--legacy"] } else { &["--credentials", "client"] };
        let swarm = |time: &str, args: &[&str]| {
            run("swarm", &[&base[..], how, &["--timeout", time], args].concat(), dir.path(), b"")
        };
        let (mine, other) = (here[0].to_string(), gone[0].to_string());
        let found = swarm("600", &["get", CHANNEL, &mine]);
        assert_eq!((found.status.code(), found.stdout), (Some(0), value(here[0])));
        let part = here.len();
        let all: [(&[&str], usize); 3] = [(&["channels"], 1), (&["ranges"], 1), (&["getall", CHANNEL], part)];
        for (args, lines) in all {
            let told = swarm("1", args);
            assert_eq!(told.stdout.iter().filter(|&&byte| byte == b'\n').count(), lines, "{args:?}");
            assert_eq!(told.status.code(), Some(1), "{args:?}");
            assert!(String::from_utf8_lossy(&told.stderr).contains(&away), "{args:?}");
        }
        let failed = swarm("1", &["get", CHANNEL, &other]);
        assert_eq!((failed.status.code(), failed.stdout.len()), (Some(1), 0));
        assert!(String::from_utf8_lossy(&failed.stderr).contains(&format!("away: {away}")));
        // The port of the other protocol.
        let wrong = if legacy { nodes[0].neo() } else { nodes[0].legacy() }.to_string();
        let base = ["dht", "--node", &wrong, "--timeout", "1", "channels"];
        let refused = run("swarm", &[&base[..], how].concat(), dir.path(), b"");
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("does not answer as a") && !said.contains("cannot connect"), "{said}");
    }
}
