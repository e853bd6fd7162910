//! Instances of nodes as operators add, run and remove them, on a real supervisord with the real node.

#![allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use overstory_testkit::supervisord::SupervisordPrefix;
use serde_json::Value;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_overstory");
const OK: i32 = 200;

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A prefix with a supervisord. Prefixes of tests do not know of each other: they take turns, so that nobody takes the
/// ports that another one was given and does not listen on yet.
struct Stack(SupervisordPrefix, #[expect(dead_code, reason = "a lock, held until it is dropped")] File);

impl Stack {
    fn new() -> Self {
        let turn = File::create(std::env::temp_dir().join("overstory-instances-tests.lock")).unwrap();
        turn.lock().unwrap();
        let prefix = SupervisordPrefix::new().unwrap();
        let nodes = ["dhtnode", "dhtdump", "dmqnode", "queuenode", "logfilesnode"];
        for name in nodes.iter().chain(&["overstory", "service", "hypcontrol"]) {
            symlink(EXECUTABLE, prefix.path().join("bin").join(name)).unwrap();
        }
        let patterns = "services = [\"dht*\", \"dhtdump*\", \"dmq*\", \"queue*\", \"logfiles*\"]\n";
        let sections = format!("[BACKEND]\nservices = []\n[MIDDLEWARE]\n{patterns}[FRONTEND]\n");
        prefix.write("etc/hypcontrol.conf", &sections).unwrap();
        Self(prefix, turn)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(EXECUTABLE);
        command.args(line.split_whitespace()).env("OVERSTORY_HOME", self.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ran {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    fn succeeds(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{line}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// An instance as `overstory list --json` shows it.
    fn instance(&self, name: &str) -> Value {
        let list = self.succeeds("list --json");
        let mut lines = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["instance"] == name).unwrap_or_else(|| panic!("{name} is not in {list}"))
    }

    fn port(&self, name: &str) -> u16 {
        u16::try_from(self.instance(name)["port"].as_u64().unwrap()).unwrap()
    }

    fn pid(&self, service: &str) -> Option<i32> {
        let status = self.run(&format!("service {service} status --json"));
        let status: Value = serde_json::from_str(&status.out).unwrap();
        status[0]["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap())
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at a condition that has a deadline")]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn array(bytes: &[u8]) -> Vec<u8> {
    [&u64::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

/// Sends a legacy request and returns the status; nothing when the node is not there.
fn ask(port: u16, code: i32, fields: &[&[u8]]) -> Option<(i32, TcpStream)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut request = code.to_le_bytes().to_vec();
    fields.iter().for_each(|field| request.extend(array(field)));
    stream.write_all(&request).ok()?;
    let mut status = [0; 4];
    stream.read_exact(&mut status).ok()?;
    Some((i32::from_le_bytes(status), stream))
}

fn put(port: u16, key: &str, value: &str) -> i32 {
    ask(port, 1, &[b"channel", key.as_bytes(), value.as_bytes()]).unwrap().0
}

fn get(port: u16, key: &str) -> Option<String> {
    let (status, mut stream) = ask(port, 7, &[b"channel", key.as_bytes()])?;
    assert_eq!(status, OK);
    let mut length = [0; 8];
    stream.read_exact(&mut length).unwrap();
    let mut value = vec![0; usize::try_from(u64::from_le_bytes(length)).unwrap()];
    stream.read_exact(&mut value).unwrap();
    Some(String::from_utf8(value).unwrap())
}

/// Every key of a template, those in comments uncommented.
fn with_every_key(template: &str) -> String {
    template.lines().map(|line| line.strip_prefix(';').unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn the_templates_name_keys_that_the_programs_know_with_values_they_take() {
    let dir = tempfile::tempdir().unwrap();
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
    for (program, file) in [
        ("dhtnode", "dht/config.ini"),
        ("dhtdump", "dht/dump.ini"),
        ("dmqnode", "dmq/config.ini"),
        ("queuenode", "queue/config.ini"),
        ("logfilesnode", "logfiles/config.ini"),
    ] {
        let template = fs::read_to_string(etc.join(file)).unwrap();
        for text in [template.clone(), with_every_key(&template)] {
            let path = dir.path().join("config.ini");
            fs::write(&path, text).unwrap();
            let mut command = Command::new(EXECUTABLE);
            command.args([program, "--check-config", "-c"]).arg(&path).current_dir(dir.path());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn two_instances_are_added_run_survive_a_kill_and_are_removed() {
    let stack = Stack::new();
    let told = stack.succeeds("add dht a --share 1/2 --start");
    assert!(told.contains("dht-a: ready"), "{told}");
    let first = stack.pid("dht-a").unwrap();
    let told = stack.succeeds("add dht b --share 2/2 --dump-process --dump-period 3600 --start");
    assert!(!told.contains("warning") && told.contains("dht-b: ready"), "{told}");
    assert_eq!(stack.pid("dht-a"), Some(first), "adding one restarted the other");
    assert!(stack.pid("dhtdump-b").is_some());
    let check = stack.run("hypcontrol check");
    for service in ["dht-a", "dht-b", "dhtdump-b"] {
        assert!(check.out.contains(&format!("{service} accepts its own")), "{}{}", check.out, check.err);
    }
    let (a, b) = (stack.port("dht-a"), stack.port("dht-b"));
    // Key 0 lies at position 0; key 1, its bits in reverse, in the upper half.
    assert_eq!(put(a, "0000000000000000", "low"), OK);
    assert_eq!(put(b, "0000000000000001", "high"), OK);
    assert_ne!(put(b, "0000000000000000", "low"), OK);

    // Orderly: the record is in the file and comes back.
    stack.succeeds("service dht-a restart");
    let value = wait_for("dht-a", || get(a, "0000000000000000"));
    assert_eq!(value, "low");
    // Not orderly: supervisord starts it again.
    let killed = stack.pid("dht-a").unwrap();
    SupervisordPrefix::kill_hard(killed);
    wait_for("another dht-a", || stack.pid("dht-a").filter(|pid| *pid != killed));
    assert_eq!(wait_for("dht-a", || get(a, "0000000000000000")), "low");

    // Removing ends it with a dump; what is kept can be read.
    let told = stack.succeeds("remove dht a");
    let kept = told.lines().find_map(|line| line.strip_prefix("  its data is in ")).unwrap();
    assert!(fs::metadata(Path::new(kept).join("data/channel.tcm")).unwrap().len() > 0);
    assert!(stack.pid("dht-b").is_some());
    stack.succeeds("remove dht b --purge");
    assert_eq!(stack.succeeds("list"), "");
    let status = stack.succeeds("service --status-all");
    assert!(!status.contains("dht"), "{status}");
    assert!(!stack.path().join("etc/nodes/dht.nodes").exists());
    let program_files = fs::read_dir(stack.path().join("etc/supervisord.d")).unwrap().count();
    assert_eq!(program_files, 0);
}

/// A node that cannot write its records ends with an error: that is no good stop, and removing it would hide it.
#[test]
fn a_node_that_could_not_write_its_records_is_not_removed() {
    let stack = Stack::new();
    stack.succeeds("add dht a --start");
    assert_eq!(put(stack.port("dht-a"), "0000000000000000", "low"), OK);
    // A file where the directory was stops root, too.
    let data = stack.path().join("srv/dht-a/data");
    let aside = stack.path().join("srv/dht-a/aside");
    fs::rename(&data, &aside).unwrap();
    fs::write(&data, "").unwrap();
    let ran = stack.run("remove dht a");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("(exit code ") && ran.err.contains("nothing was removed"), "{}", ran.err);
    assert_eq!(stack.instance("dht-a")["instance"], "dht-a");
    // It is stopped by now; that its end was no good one is not forgotten.
    assert_eq!(stack.run("remove dht a").code, Some(1));
    // Mended and repeated.
    fs::remove_file(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
    stack.succeeds("service dht-a start");
    assert_eq!(wait_for("dht-a", || ask(stack.port("dht-a"), 1, &[b"channel", b"0000000000000001", b"x"])).0, OK);
    stack.succeeds("remove dht a");
    assert_eq!(stack.succeeds("list"), "");
}

#[test]
fn many_additions_at_once_get_ports_of_their_own_and_one_of_a_name_wins() {
    let stack = Stack::new();
    let lines = ["a --share 1/4", "b --share 2/4", "c --share 3/4", "a --share 1/4"];
    let start = |line: &&str| {
        let mut command = stack.command(&format!("add dht {line}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running: Vec<_> = lines.iter().map(start).collect();
    let codes: Vec<_> = running.into_iter().map(|child| child.wait_with_output().unwrap().status.code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 3, "{codes:?}");
    let mut ports: Vec<_> = ["dht-a", "dht-b", "dht-c"].map(|name| stack.port(name)).to_vec();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    let list = stack.succeeds("list");
    assert!(list.contains("warning: no node of the group dht has 0xc000000000000000..0xffffffffffffffff"), "{list}");
}

/// Pushes lines into the channel `q` of a group, given one per line.
fn push(stack: &Stack, group: &str, numbers: std::ops::Range<u32>) {
    let mut command = stack.command(&format!("swarm dmq --group {group} push q"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: String = numbers.map(|number| format!("{number:04}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{group}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes up to so many records out of the channel `q` of a group.
fn pop(stack: &Stack, group: &str, number: u32) -> Vec<u32> {
    let ran = stack.run(&format!("swarm dmq --group {group} pop q -n {number}"));
    assert!(matches!(ran.code, Some(0 | 3)), "{group}: {}{}", ran.out, ran.err);
    ran.out.lines().map(|line| line.parse().unwrap()).collect()
}

/// Kills the node of a service and waits until its successor serves.
fn kill_and_wait(stack: &Stack, service: &str) {
    let killed = stack.pid(service).unwrap();
    SupervisordPrefix::kill_hard(killed);
    wait_for(&format!("another {service}"), || stack.pid(service).filter(|pid| *pid != killed));
    let port = stack.port(service);
    wait_for(service, || TcpStream::connect(("127.0.0.1", port)).ok());
}

/// A queue of each durability: what each keeps over a restart, over a kill, and when it is removed.
#[test]
fn queues_of_every_durability_are_added_run_survive_and_are_removed() {
    let stack = Stack::new();
    let told = stack.succeeds("add dmq over --channel-size 4K --start");
    assert!(told.contains("dmq-over: ready") && !told.contains("warning"), "{told}");
    let first = stack.pid("dmq-over").unwrap();
    stack.succeeds("add dmq keep --durability journal --group keep --start");
    stack.succeeds("add queue mem --size q=1M --start");
    assert_eq!(stack.pid("dmq-over"), Some(first), "adding one restarted another");
    let shown = stack.instance("queue-mem");
    assert_eq!((&shown["type"], &shown["group"], &shown["range"]), (&"queue".into(), &"mem".into(), &Value::Null));
    assert_eq!(shown["neo_port"], shown["port"].as_u64().unwrap() + 100);
    let check = stack.run("hypcontrol check");
    for service in ["dmq-over", "dmq-keep", "queue-mem"] {
        assert!(check.out.contains(&format!("{service} accepts its own")), "{}{}", check.out, check.err);
    }

    let all = [("dmq-over", "dmq"), ("dmq-keep", "keep"), ("queue-mem", "mem")];
    for (service, group) in all {
        push(&stack, group, 0..500);
        assert_eq!(pop(&stack, group, 100), (0..100).collect::<Vec<_>>(), "{service}");
        // Orderly: nothing is lost, nothing comes twice, whatever the durability.
        stack.succeeds(&format!("service {service} restart"));
        wait_for(service, || TcpStream::connect(("127.0.0.1", stack.port(service))).ok());
        assert_eq!(pop(&stack, group, 100), (100..200).collect::<Vec<_>>(), "{service}");
        // Not orderly.
        kill_and_wait(&stack, service);
        let left = pop(&stack, group, 1000);
        match group {
            "keep" => assert_eq!(left, (200..500).collect::<Vec<_>>()),
            "mem" => assert!(left.is_empty(), "{left:?}"),
            // What was in memory only is gone; the rest is there once and in order.
            _ => assert!(left.is_sorted_by(|a, b| a < b) && left.iter().all(|n| (200..500).contains(n)), "{left:?}"),
        }
        push(&stack, group, 500..600);
    }

    // A full queue without a disk refuses; what it has taken stays.
    stack.succeeds("add queue full --channel-size 100 --start");
    let mut taken = 0;
    while stack.run("swarm dmq --group full push q 0123456789").code == Some(0) {
        taken += 1;
        assert!(taken < 100, "a queue of 100 bytes takes everything");
    }
    assert_eq!(taken, 5);
    assert_eq!(stack.succeeds("swarm dmq --group full pop q --all").lines().count(), 5);

    // Removing ends it orderly; what is kept has the records.
    let kept = |line: &str| {
        let told = stack.succeeds(line);
        Path::new(told.lines().find_map(|line| line.strip_prefix("  its data is in ")).unwrap()).to_owned()
    };
    assert!(fs::metadata(kept("remove queue mem").join("data/q.rq")).unwrap().len() > 0);
    let journal = fs::read_dir(kept("remove dmq keep").join("data/journal")).unwrap().flatten();
    assert!(journal.map(|file| file.metadata().unwrap().len()).sum::<u64>() > 0);
    stack.succeeds("remove dmq over --purge");
    assert_eq!(stack.run("remove dmq full").code, Some(1), "another kind's instance");
    stack.succeeds("remove queue full --purge");
    assert_eq!(stack.succeeds("list"), "");
    let status = stack.succeeds("service --status-all");
    assert!(!status.contains("dmq") && !status.contains("queue"), "{status}");
    assert_eq!(fs::read_dir(stack.path().join("etc/nodes")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(stack.path().join("srv")).unwrap().count(), 1, "removed alone");
}

/// Puts records at these timestamps into the channel `c` of a group of logfiles nodes.
fn put_at(stack: &Stack, group: &str, timestamps: std::ops::Range<u32>) {
    let mut command = stack.command(&format!("swarm logfiles --group {group} put c --timestamps"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: String = timestamps.map(|at| format!("{at}\trecord {at}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{group}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The timestamps in the channel `c` of a group, in order of time; each record is what was put there.
fn stamps(stack: &Stack, group: &str) -> Vec<u32> {
    let ran = stack.run(&format!("swarm logfiles --group {group} getall c --sorted"));
    assert!(matches!(ran.code, Some(0 | 3)), "{group}: {}{}", ran.out, ran.err);
    let stamp = |line: &str| {
        let (at, value) = line.split_once('\t').unwrap();
        assert_eq!(value, format!("record {at}"));
        at.parse().unwrap()
    };
    ran.out.lines().map(stamp).collect()
}

/// Nodes of each sync mode: what each keeps over a restart, over a kill, and when it is removed.
#[test]
fn logfiles_nodes_are_added_run_survive_and_are_removed() {
    let stack = Stack::new();
    let told = stack.succeeds("add logfiles a --format v2 --start");
    assert!(told.contains("logfiles-a: ready") && !told.contains("warning"), "{told}");
    let first = stack.pid("logfiles-a").unwrap();
    stack.succeeds("add logfiles keep --sync always --group keep --start");
    assert_eq!(stack.pid("logfiles-a"), Some(first), "adding one restarted another");
    let shown = stack.instance("logfiles-keep");
    assert_eq!((&shown["type"], &shown["group"]), (&"logfiles".into(), &"keep".into()));
    assert_eq!(shown["range"]["max"], "0xffffffffffffffff");
    let check = stack.run("hypcontrol check");
    for service in ["logfiles-a", "logfiles-keep"] {
        assert!(check.out.contains(&format!("{service} accepts its own")), "{}{}", check.out, check.err);
    }
    for (service, group) in [("logfiles-a", "logfiles"), ("logfiles-keep", "keep")] {
        put_at(&stack, group, 0..10_000);
        // Orderly: all is there.
        stack.succeeds(&format!("service {service} restart"));
        wait_for(service, || TcpStream::connect(("127.0.0.1", stack.port(service))).ok());
        assert_eq!(stamps(&stack, group), (0..10_000).collect::<Vec<_>>(), "{service}");
        // Not orderly.
        put_at(&stack, group, 10_000..20_000);
        kill_and_wait(&stack, service);
        let left = stamps(&stack, group);
        assert_eq!(left.get(..10_000), Some(&(0..10_000).collect::<Vec<_>>()[..]), "{service}");
        if group == "keep" {
            assert_eq!(left.len(), 20_000);
        } else {
            // What was in its buffers is gone; the rest is there once.
            assert!(left.is_sorted_by(|a, b| a < b) && left.last() < Some(&20_000), "{}", left.len());
        }
    }

    // Removing ends it orderly; what is kept is whole, and in the formats that were asked for.
    for (name, version) in [("a", 2), ("keep", 1)] {
        let told = stack.succeeds(&format!("remove logfiles {name}"));
        let kept = Path::new(told.lines().find_map(|line| line.strip_prefix("  its data is in ")).unwrap());
        let data = kept.join("data");
        assert_eq!(fs::read(data.join("c/0000000000/000")).unwrap()[0], version);
        stack.succeeds(&format!("logfiles_check -c {}", data.display()));
    }
    assert_eq!(stack.succeeds("list"), "");
    assert!(!stack.succeeds("service --status-all").contains("logfiles"));
    assert_eq!(fs::read_dir(stack.path().join("etc/nodes")).unwrap().count(), 0);
}

/// Nodes that share out the timestamps: each has its own, clients need not know.
#[test]
fn logfiles_nodes_share_out_timestamps() {
    let stack = Stack::new();
    stack.succeeds("add logfiles old --maxval 999 --start");
    let told = stack.succeeds("add logfiles new --minval 1000 --start");
    assert!(!told.contains("warning"), "{told}");
    put_at(&stack, "logfiles", 900..1100);
    assert_eq!(stamps(&stack, "logfiles"), (900..1100).collect::<Vec<_>>());
    for name in ["logfiles-old", "logfiles-new"] {
        let port = stack.port(name);
        let size = stack.succeeds(&format!("swarm logfiles --node 127.0.0.1:{port} --legacy size c"));
        assert!(size.contains("\t100\t"), "{name}: {size}");
    }
    let list = stack.succeeds("list");
    assert!(list.contains("timestamps up to 999,") && list.contains("timestamps from 1000 on,"), "{list}");
    let refused = stack.run("add logfiles x --minval 5");
    assert!(refused.err.contains("timestamps from 5 on overlap: logfiles-new has"), "{}", refused.err);
    // A node that is away: what the other one has still comes, and it is said that this is not all.
    stack.succeeds("service logfiles-old stop");
    let ran = stack.run("swarm logfiles getall c --sorted");
    assert_eq!((ran.code, ran.out.lines().count()), (Some(1), 100), "{}", ran.err);
    stack.succeeds("remove logfiles old --purge");
    stack.succeeds("remove logfiles new --purge");
}

#[test]
fn what_the_template_and_an_option_say_together_is_checked_before_anything_is_added() {
    let stack = Stack::new();
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
    for kind in ["dmq", "queue"] {
        let template = fs::read_to_string(etc.join(kind).join("config.ini")).unwrap();
        let file = format!("etc/{kind}/config.ini");
        fs::create_dir_all(stack.path().join("etc").join(kind)).unwrap();
        stack.0.write(&file, &template.replace(";example_ =", "example_ =")).unwrap();
        let ran = stack.run(&format!("add {kind} a --size example_a=1M"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        for text in ["nothing was added", &file, "example_a", "the beginning of"] {
            assert!(ran.err.contains(text), "{text} is not in {}", ran.err);
        }
        assert_eq!(stack.succeeds("list"), "");
        assert!(!stack.path().join(format!("srv/{kind}-a")).exists());
        assert!(!stack.path().join(format!("etc/supervisord.d/{kind}-a.conf")).exists());
        stack.succeeds(&format!("add {kind} a --size example_=1M --size other=2M"));
        stack.succeeds(&format!("remove {kind} a --purge"));
    }
}

#[test]
fn a_template_that_a_logfiles_node_does_not_take_adds_nothing() {
    let stack = Stack::new();
    let etc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc");
    let template = fs::read_to_string(etc.join("logfiles/config.ini")).unwrap();
    fs::create_dir_all(stack.path().join("etc/logfiles")).unwrap();
    stack.0.write("etc/logfiles/config.ini", &template.replace("\nmode = interval", "\nmode = never")).unwrap();
    let ran = stack.run("add logfiles a");
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    for text in ["nothing was added", "etc/logfiles/config.ini", "mode", "never", "always"] {
        assert!(ran.err.contains(text), "{text} is not in {}", ran.err);
    }
    assert!(!stack.path().join("srv/logfiles-a").exists());
    // An option counts more than the template.
    stack.succeeds("add logfiles a --sync always");
    stack.succeeds("remove logfiles a --purge");
}

/// Kills `overstory add` at many moments: afterwards the instance is there as a whole or not at all, and the next
/// command works.
#[test]
#[expect(clippy::disallowed_methods, reason = "the moment at which it is killed is what the rounds go through")]
fn an_addition_killed_at_any_moment_leaves_all_or_nothing() {
    let stack = Stack::new();
    let kinds = [
        ("dht", "--range empty"),
        ("dmq", "--durability journal"),
        ("queue", "--group q"),
        ("logfiles", "--sync always"),
    ];
    for (round, (kind, options)) in kinds.iter().cycle().take(24).enumerate() {
        let line = format!("add {kind} k{round} {options}");
        let mut child = stack.command(&line).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::try_from(round).unwrap() * 2));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for (kind, options) in kinds {
        let last = stack.run(&format!("add {kind} last {options}"));
        assert_eq!(last.code, Some(0), "{}{}", last.out, last.err);
    }
    let list = stack.run("list");
    assert_eq!((list.code, list.err.as_str()), (Some(0), ""), "{}", list.out);
    let listed = |kind: &str| list.out.lines().filter(|line| line.starts_with(&format!("{kind}-"))).count();
    let all: usize = kinds.iter().map(|(kind, _)| listed(kind)).sum();
    let present = fs::read_dir(stack.path().join("srv")).unwrap().count();
    let program_files = fs::read_dir(stack.path().join("etc/supervisord.d")).unwrap().count();
    assert_eq!((present, program_files), (all, all), "{}", list.out);
    for (group, kind) in [("dht", "dht"), ("dmq", "dmq"), ("q", "queue"), ("logfiles", "logfiles")] {
        let nodes = fs::read_to_string(stack.path().join(format!("etc/nodes/{group}.nodes"))).unwrap();
        assert_eq!(nodes.lines().filter(|line| !line.starts_with('#')).count(), listed(kind), "{nodes}");
    }
}
