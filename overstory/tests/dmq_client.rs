//! The client of queues and `swarm dmq` against real nodes: processes of the shipped executable.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use overstory_client::dmq::Delivery;
use overstory_client::{ClientConfig, DmqClient, Error, Identity, Registry};
use overstory_swarm::auth::ClientKey;
use overstory_testkit::ports::free_port;
use tempfile::TempDir;
use tokio::time::timeout;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_overstory");
const LONG: Duration = Duration::from_secs(60);

/// A queue node in a directory of its own; ended with this.
struct Node {
    dir: TempDir,
    ports: (u16, u16),
    process: Child,
}

impl Node {
    fn start(durability: &str, limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("log")).unwrap();
        fs::write(dir.path().join("etc/credentials"), credentials()).unwrap();
        let ports = (free_port(), free_port());
        let config = format!(
            "[Server]\naddress = 127.0.0.1\nport = {}\nneoport = {}\nchannel_size_limit = {limit}\n\
             unix_socket_path = node.socket\n[Queue]\ndurability = {durability}\n\
             [Report]\nenabled = false\n[LOG.Root]\nlevel = info\nconsole = false\nfile = log/root.log\n",
            ports.0, ports.1
        );
        fs::write(dir.path().join("etc/config.ini"), config).unwrap();
        let process = spawn(dir.path());
        Self { dir, ports, process }
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
        SocketAddrV4::new([127, 0, 0, 1].into(), self.ports.0)
    }

    fn neo(&self) -> SocketAddrV4 {
        SocketAddrV4::new([127, 0, 0, 1].into(), self.ports.1)
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
    command.args(["dmqnode", "-c", "etc/config.ini"]).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn credentials() -> String {
    format!("test:{}\n", "0".repeat(256))
}

fn config(nodes: &[Node], legacy: bool) -> ClientConfig {
    let mut registry = Registry::new();
    nodes.iter().for_each(|node| registry.add(if legacy { node.legacy() } else { node.neo() }).unwrap());
    let config = if legacy {
        ClientConfig::legacy(registry)
    } else {
        ClientConfig::neo(registry, Identity { name: "test".to_owned(), key: ClientKey([0; 128]) })
    };
    ClientConfig { connect_timeout: Duration::from_secs(20), ..config }
}

/// A client of both protocols, once all nodes are up.
async fn clients(nodes: &[Node]) -> (DmqClient, DmqClient) {
    let new = DmqClient::connect(config(nodes, false)).await.unwrap();
    (new, DmqClient::connect(config(nodes, true)).await.unwrap())
}

fn record(number: u64) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

fn number(record: &[u8]) -> u64 {
    std::str::from_utf8(record).unwrap().strip_prefix("record ").unwrap().parse().unwrap()
}

/// Consumes so many records and stops; what comes from one node is in order.
async fn consume(client: &DmqClient, channel: &str, subscriber: &str, count: usize) -> Vec<u64> {
    let mut consumer = client.consume(channel, subscriber).unwrap();
    let mut seen = Vec::new();
    let mut last = BTreeMap::new();
    while let Some(delivery) = timeout(LONG, consumer.next()).await.unwrap() {
        let Delivery::Records(batch) = delivery.unwrap() else { panic!("records") };
        for record in batch.records().map(number) {
            let before = last.insert(batch.node(), record);
            assert!(before < Some(record), "{before:?} before {record}");
            seen.push(record);
        }
        if seen.len() >= count {
            consumer.stop();
        }
    }
    seen.sort_unstable();
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_protocol_pushes_the_other_takes_from_many_nodes() {
    const COUNT: u64 = 3000;
    let nodes = [Node::start("overflow", 1 << 20), Node::start("memory", 1 << 20), Node::start("journal", 1 << 20)];
    let (new, old) = clients(&nodes).await;
    let all: Vec<u64> = (0..COUNT).collect();
    for (writer, reader, channel) in [(&old, &new, "a"), (&new, &old, "b"), (&new, &new, "c"), (&old, &old, "d")] {
        for number in 0..COUNT {
            let second = format!("{channel}-2");
            match number % 2 {
                0 => writer.push_multi(&[channel, &second], &record(number)).await.unwrap(),
                _ => writer.push(channel, &record(number)).await.unwrap(),
            }
        }
        let mut popped = Vec::new();
        for _ in 0..COUNT / 4 {
            popped.push(number(&reader.pop(&format!("{channel}-2")).await.unwrap().unwrap()));
        }
        popped.extend(consume(reader, &format!("{channel}-2"), "", (COUNT / 4) as usize).await);
        popped.sort_unstable();
        assert_eq!(popped, (0..COUNT).step_by(2).collect::<Vec<_>>());
        assert_eq!(consume(reader, channel, "", usize::try_from(COUNT).unwrap()).await, all);
        assert!(matches!(reader.pop(channel).await, Err(Error::Subscribed { .. })));
        assert!(old.channels().await.unwrap().contains(&channel.to_owned()));
    }
    // A stream of records, to two subscribers who were there before.
    for name in ["one", "two"] {
        subscribe(&new, "e", name).await;
    }
    let mut producer = old.produce(&["e", "f"]).unwrap();
    for number in 0..COUNT {
        producer.send(&record(number)).await.unwrap();
    }
    assert!(producer.finish().await.into_iter().all(|(_, taken)| taken.unwrap() == COUNT / 3));
    for name in ["one", "two"] {
        assert_eq!(consume(&new, "e", name, usize::try_from(COUNT).unwrap()).await, all);
    }
    let sizes = old.sizes_by_node(Some("f")).await.unwrap();
    assert!(sizes.into_iter().all(|(_, size)| size.unwrap().records == COUNT / 3));
    assert!(old.num_connections_by_node().await.unwrap().into_iter().all(|(_, number)| number.unwrap() > 0));
    // A channel that is removed ends its consumers.
    let mut consumer = new.consume("f", "").unwrap();
    let mut begun = BTreeSet::new();
    while begun.len() < nodes.len() {
        let Some(Ok(Delivery::Records(batch))) = timeout(LONG, consumer.next()).await.unwrap() else { panic!("f") };
        begun.insert(batch.node());
    }
    old.remove_channel("f").await.unwrap();
    while let Some(delivery) = timeout(LONG, consumer.next()).await.unwrap() {
        assert!(matches!(delivery, Ok(Delivery::Records(_) | Delivery::ChannelRemoved { .. })), "{delivery:?}");
    }
}

/// Subscribes and leaves.
async fn subscribe(client: &DmqClient, channel: &str, subscriber: &str) {
    let mut consumer = client.consume(channel, subscriber).unwrap();
    // Nothing tells that the nodes have it, except that they answer the Stop.
    assert!(timeout(Duration::from_secs(1), consumer.next()).await.is_err());
    consumer.stop();
    assert!(timeout(LONG, consumer.next()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_under_load_and_nothing_that_was_acknowledged_is_lost() {
    let mut nodes = [Node::start("journal", 64 << 20), Node::start("journal", 64 << 20)];
    drop(clients(&nodes).await);
    let config = ClientConfig { at_least_once: true, ..config(&nodes, false) };
    let client = DmqClient::start(config).unwrap();
    let (over, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let (client, over, next) = (client.clone(), Arc::clone(&over), Arc::clone(&next));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    // The other node is there: no push may fail.
                    client.push("load", &record(number)).await.unwrap();
                    acknowledged.push(number);
                }
                acknowledged
            })
        })
        .collect();
    let reached = async |count| {
        let from = next.load(Ordering::SeqCst);
        timeout(LONG, async {
            while next.load(Ordering::SeqCst) < from + count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    };
    reached(2000).await;
    nodes[0].kill();
    reached(2000).await;
    nodes[0].restart();
    drop(clients(&nodes).await);
    reached(2000).await;
    over.store(true, Ordering::SeqCst);
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut popped = Vec::new();
                while let Some(value) = client.pop("load").await.unwrap() {
                    popped.push(number(&value));
                }
                popped
            })
        })
        .collect();
    let mut popped = BTreeSet::new();
    for reader in readers {
        popped.extend(reader.await.unwrap());
    }
    assert!(acknowledged.is_subset(&popped), "{} of {}", popped.len(), acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_outlives_a_restart_of_its_node() {
    const COUNT: u64 = 20_000;
    let mut nodes = [Node::start("journal", 64 << 20)];
    let (new, old) = clients(&nodes).await;
    let mut producer = old.produce(&["c"]).unwrap();
    for number in 0..COUNT {
        producer.send(&record(number)).await.unwrap();
    }
    assert!(producer.finish().await.into_iter().all(|(_, taken)| taken.unwrap() == COUNT));
    let mut consumer = new.consume("c", "").unwrap();
    let (mut seen, mut lost, mut killed) = (BTreeMap::<u64, u32>::new(), 0, false);
    while (seen.len() as u64) < COUNT || lost == 0 {
        match timeout(LONG, consumer.next()).await.unwrap().unwrap().unwrap() {
            Delivery::Records(batch) => {
                batch.records().for_each(|record| *seen.entry(number(record)).or_default() += 1);
                if !std::mem::replace(&mut killed, true) {
                    nodes[0].kill();
                    nodes[0].restart();
                }
            }
            Delivery::Lost { .. } => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 1);
    // The batch that was delivered and not taken over came again, the others did not.
    let twice = seen.values().filter(|&&times| times == 2).count();
    assert!(seen.values().all(|&times| times <= 2) && twice > 0 && twice < 10_000, "{twice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_told() {
    let nodes = [Node::start("memory", 4096)];
    let (new, old) = clients(&nodes).await;
    for client in [&new, &old] {
        let mut pushed = 0;
        let error = loop {
            match client.push("small", &[7; 100]).await {
                Ok(()) => pushed += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NotPushed { .. } | Error::Full { .. }), "{error}");
        assert!(!error.effect_unknown() && error.is_retryable());
        // All or nothing: the other channel has room.
        assert!(client.push_multi(&["other", "small"], &[7; 100]).await.is_err());
        while client.pop("small").await.unwrap().is_some() {
            pushed -= 1;
        }
        assert_eq!((pushed, client.pop("other").await.unwrap()), (0, None));
    }
}

/// `swarm dmq` in a directory with a node's credentials.
struct Shell {
    dir: TempDir,
    node: String,
    old: String,
}

impl Shell {
    fn new(node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("client"), credentials()).unwrap();
        Self { dir, node: node.neo().to_string(), old: node.legacy().to_string() }
    }

    fn command(&self, legacy: bool, args: &[&str]) -> Command {
        let mut command = Command::new(EXECUTABLE);
        command.args(["swarm", "dmq"]).args(args).current_dir(self.dir.path());
        match legacy {
            true => command.args(["--legacy", "--node", &self.old]),
            false => command.args(["--node", &self.node, "--credentials", "client"]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, legacy: bool, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(legacy, args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        output
    }

    fn neo(&self, args: &[&str], input: &[u8]) -> Output {
        self.run(false, args, input)
    }

    fn legacy(&self, args: &[&str], input: &[u8]) -> Output {
        self.run(true, args, input)
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_dmq_works_in_pipes() {
    let nodes = [Node::start("journal", 256 << 20)];
    drop(clients(&nodes).await);
    let shell = Shell::new(&nodes[0]);
    // One record.
    assert!(shell.neo(&["push", "one", "a value"], b"").status.success());
    assert_eq!(shell.legacy(&["pop", "one"], b"").stdout, b"a value\n");
    assert_eq!(shell.neo(&["pop", "one"], b"").status.code(), Some(3));
    // A hundred thousand lines, through both protocols, keep their order.
    let lines: String = (0..100_000).map(|number| format!("line {number}\\t\n")).collect();
    let pushed = shell.neo(&["push", "lines,copy"], lines.as_bytes());
    assert!(
        pushed.status.success() && pushed.stderr.starts_with(b"100000 records pushed, 0 failed"),
        "{}",
        said(&pushed)
    );
    let popped = shell.neo(&["pop", "lines", "-n", "40000"], b"").stdout;
    let consumed = shell.neo(&["consume", "lines", "-n", "60000"], b"");
    assert!(consumed.status.success(), "{}", said(&consumed));
    assert!([popped, consumed.stdout].concat() == lines.as_bytes(), "the lines come back as they were");
    let consumed = shell.legacy(&["consume", "copy", "-n", "100000"], b"");
    assert!(consumed.stdout == lines.as_bytes(), "{}", said(&consumed));
    let produced = shell.legacy(&["produce", "lines,again"], lines.as_bytes());
    assert!(produced.status.success() && produced.stderr == b"100000 records produced\n", "{}", said(&produced));
    assert!(shell.legacy(&["consume", "lines", "--idle", "1"], b"").stdout == lines.as_bytes());
    assert!(shell.neo(&["pop", "again", "--all"], b"").stdout == lines.as_bytes());

    // Any bytes survive, in every form.
    let records: [&[u8]; 4] = [b"\0\n\r\t\\", b"\n", b"\xff\xfe", &[10; 70_000]];
    let framed: Vec<u8> = records
        .iter()
        .flat_map(|record| [&u32::try_from(record.len()).unwrap().to_le_bytes(), *record].concat())
        .collect();
    for format in ["--binary", "--json", "--base64"] {
        assert!(shell.neo(&["push", "bytes", "--binary"], &framed).status.success());
        let printed = shell.neo(&["pop", "bytes", "--all", format], b"").stdout;
        assert!(shell.legacy(&["push", "bytes", format, "--in-flight", "1"], &printed).status.success());
        assert_eq!(shell.neo(&["pop", "bytes", "--all", "--binary"], b"").stdout, framed, "{format}");
    }
    // What failed is named with its line.
    let wrong = shell.neo(&["push", "one"], b"good\n\nbad \\q\nlast\n");
    assert_eq!(wrong.status.code(), Some(1));
    for text in ["line 2: a record cannot be empty", "line 3: `\\q` is no escape", "2 records pushed, 2 failed"] {
        assert!(said(&wrong).contains(text), "{}", said(&wrong));
    }
    let cut = shell.neo(&["push", "one", "--binary"], b"\x01\0\0\0x\x09\0\0\0y");
    assert!(cut.status.code() == Some(1) && said(&cut).contains("record 2: the input ends within a record"));
    assert_eq!(shell.neo(&["pop", "one", "--all"], b"").stdout, b"good\nlast\nx\n");

    for (args, legacy) in [(&["push", "../x", "v"][..], false), (&["size"], false), (&["channels"], false)] {
        let refused = shell.run(legacy, args, b"");
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{args:?}");
    }
    assert_eq!(shell.legacy(&["consume", "c", "--subscriber", "s"], b"").status.code(), Some(2));
    assert!(shell.neo(&["push", "left", "v"], b"").status.success());
    let stats = String::from_utf8(shell.legacy(&["stats"], b"").stdout).unwrap();
    assert!(stats.contains(&format!("{}\tleft\t1\t", shell.old)) && stats.contains("\t*\t1\t"), "{stats}");
    assert!(shell.legacy(&["remove", "left"], b"").status.success());
    assert!(!String::from_utf8(shell.legacy(&["channels"], b"").stdout).unwrap().contains("left"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_consumer_leaves_what_it_has_not_printed() {
    const COUNT: u64 = 200_000;
    let nodes = [Node::start("journal", 256 << 20)];
    let (_, old) = clients(&nodes).await;
    let mut producer = old.produce(&["c"]).unwrap();
    for number in 0..COUNT {
        producer.send(&record(number)).await.unwrap();
    }
    assert!(producer.finish().await.into_iter().all(|(_, taken)| taken.unwrap() == COUNT));
    let shell = Shell::new(&nodes[0]);
    let mut child = shell.command(false, &["consume", "c"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    // The pipe is full: the command writes and is interrupted there.
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut printed = 1;
    for next in out.lines() {
        assert_eq!(number(next.unwrap().as_bytes()), printed);
        printed += 1;
    }
    assert_eq!((child.wait().unwrap().code(), line.as_str()), (Some(0), "record 0\n"));
    assert!(printed < COUNT);
    // A reader that goes away ends it; what was not taken over comes again.
    let mut child = shell.command(false, &["consume", "c"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(number(line.trim_end().as_bytes()), printed);
    drop(out);
    child.wait().unwrap();
    let rest = shell.neo(&["consume", "c", "--idle", "1"], b"").stdout;
    let rest: Vec<u64> = rest.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(number).collect();
    // Less what had been written into the pipe: its reader took that along.
    assert!(rest[0] >= printed && rest[0] < printed + 20_000, "{} after {printed}", rest[0]);
    assert!(rest.windows(2).all(|two| two[0] + 1 == two[1]) && rest.last() == Some(&(COUNT - 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_gone_takes_nothing_along_but_what_was_asked_for_ahead() {
    const COUNT: u64 = 20_000;
    let nodes = [Node::start("journal", 256 << 20)];
    let (_, old) = clients(&nodes).await;
    let mut producer = old.produce(&["consumed", "popped"]).unwrap();
    for number in 0..COUNT {
        producer.send(&record(number)).await.unwrap();
    }
    assert!(producer.finish().await.into_iter().all(|(_, taken)| taken.unwrap() == COUNT));
    let shell = Shell::new(&nodes[0]);
    let without_reader = |legacy, args: &[&str]| {
        let mut child = shell.command(legacy, args).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(!child.wait().unwrap().success(), "{args:?}");
    };
    let numbers = |output: Output| {
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(number).collect::<Vec<_>>()
    };
    // A batch that was not written as a whole is not taken over.
    without_reader(false, &["consume", "consumed"]);
    without_reader(false, &["consume", "consumed", "-n", "3"]);
    let some = shell.neo(&["consume", "consumed", "-n", "3"], b"");
    let told = said(&some);
    let some = numbers(some);
    assert_eq!(told, format!("{} records printed: a batch is taken over as a whole\n", some.len()));
    let rest = numbers(shell.neo(&["consume", "consumed", "--idle", "1"], b""));
    assert_eq!([some, rest].concat(), (0..COUNT).collect::<Vec<_>>());
    // Pops are done when they are sent.
    let mut first = 0;
    for (legacy, args, ahead) in [
        (false, &["pop", "popped", "--all"][..], 64),
        (false, &["pop", "popped", "-n", "10"], 10),
        (true, &["pop", "popped", "--all"], 1),
    ] {
        without_reader(legacy, args);
        let next = numbers(shell.neo(&["pop", "popped"], b""))[0];
        assert!(next > first && next <= first + ahead, "{next} after {first}: {args:?}");
        first = next + 1;
    }
    assert_eq!(numbers(shell.neo(&["pop", "popped", "--all"], b"")), (first..COUNT).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_leaves_a_node_alone_that_is_away_and_names_it() {
    const COUNT: u64 = 20_000;
    let mut nodes = [Node::start("memory", 64 << 20), Node::start("memory", 64 << 20)];
    drop(clients(&nodes).await);
    nodes[1].kill();
    let client = DmqClient::start(config(&nodes, true)).unwrap();
    let mut producer = client.produce(&["c"]).unwrap();
    for number in 0..COUNT {
        producer.send(&record(number)).await.unwrap();
    }
    let finished = producer.finish().await;
    let there = |node: &Node| finished.iter().find(|(address, _)| *address == node.legacy()).map(|(_, taken)| taken);
    assert!(matches!(there(&nodes[0]), Some(Ok(COUNT))), "{finished:?}");
    assert!(matches!(there(&nodes[1]), Some(Err(Error::Connect { .. }))), "{finished:?}");
}
