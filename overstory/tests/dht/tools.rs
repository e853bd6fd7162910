//! `dhtdump` and `tcmcli` as processes: killed in the middle, and with the node gone.

use std::fs;
use std::process::Stdio;

use overstory_testkit::node::{NodeInstance, until};
use overstory_testkit::trouble::{random, some_microseconds};

use super::rig::{Records, await_dump, dump_bytes, generation, instance, put_all, read_dump, records, unfinished};

const CHANNELS: u64 = 40;
const RECORDS: u64 = 40;

fn name(channel: u64) -> String {
    format!("channel-{channel:02}")
}

/// A node that never dumps itself, with the configuration of a dhtdump that does beside it.
fn node_with_dump() -> NodeInstance {
    let node = instance();
    node.set("Server", "data_dir", "elsewhere");
    let config = format!(
        "[Dht]\naddress = 127.0.0.1\nport = {}\n[Dump]\ndata_dir = data\nperiod_s = 1\nmin_wait_s = 0\n\
         retry_wait_s = 1\n[LOG.Root]\nfile = log/dhtdump.log\nconsole = false\n[STATS]\n\
         file_name = log/dhtdump.stats.log\ninterval = 1\n",
        node.legacy.port()
    );
    fs::write(node.path("etc/dhtdump.ini"), config).unwrap();
    node
}

fn fill(node: &NodeInstance, generation: u32) {
    (0..CHANNELS).for_each(|channel| put_all(node, &name(channel), &records(0..RECORDS, generation)));
}

/// Every file is whole and of one of these generations.
fn check(node: &NodeInstance, from: u32, to: u32) {
    for channel in 0..CHANNELS {
        let dump: Records = read_dump(&node.path(&format!("data/{}.tcm", name(channel))));
        assert_eq!(dump.len() as u64, RECORDS);
        assert!(dump.iter().all(|(key, value)| (from..=to).contains(&generation(*key, value))));
    }
}

const ONCE: [&str; 3] = ["-c", "etc/dhtdump.ini", "-o"];

#[test]
fn a_dhtdump_that_is_killed_leaves_whole_files() {
    let node = node_with_dump();
    let process = node.start();
    fill(&node, 0);
    let done = node.run("dhtdump", &ONCE);
    assert_eq!(done.status.code(), Some(0), "{}", node.text("log/dhtdump.log"));
    check(&node, 0, 0);
    for round in 1..=5 {
        fill(&node, round);
        let mut dump = node.spawn("dhtdump", &ONCE);
        await_dump(&node, &name(random(CHANNELS)), || !dump.is_running());
        some_microseconds(3000);
        dump.kill();
        check(&node, round - 1, round);
        // What it left behind is in nobody's way.
        assert_eq!(node.run("dhtdump", &ONCE).status.code(), Some(0));
        check(&node, round, round);
        unfinished(&node).iter().for_each(|file| fs::remove_file(node.path("data").join(file)).unwrap());
    }
    process.kill();
}

#[test]
fn a_node_that_goes_away_in_the_middle_costs_no_file() {
    let node = node_with_dump();
    let process = node.start();
    fill(&node, 0);
    assert_eq!(node.run("dhtdump", &ONCE).status.code(), Some(0));
    assert_eq!(process.stop(), Some(0));
    for _ in 0..3 {
        let process = node.start();
        fill(&node, 1);
        let dump = node.spawn("dhtdump", &ONCE);
        await_dump(&node, &name(random(CHANNELS / 2)), || false);
        process.kill();
        assert_eq!(dump.ended(), Some(1));
        check(&node, 0, 1);
        assert!(unfinished(&node).is_empty(), "what is not complete is removed");
    }
    let log = node.text("log/dhtdump.log");
    assert!(log.contains(" Error [dhtdump.DumpCycle] - dump cycle failed"), "{log}");

    // One that goes on by itself tries again, and is over when it is told.
    let dump = node.spawn("dhtdump", &["-c", "etc/dhtdump.ini"]);
    let process = node.start();
    fill(&node, 2);
    let cycles = |log: &str| log.matches("dump cycle finished").count();
    let before = cycles(&node.text("log/dhtdump.log"));
    until("two cycles", || cycles(&node.text("log/dhtdump.log")) >= before + 2);
    check(&node, 2, 2);
    process.kill();
    let failed = node.text("log/dhtdump.log").matches("dump cycle failed").count();
    until("a cycle fails", || node.text("log/dhtdump.log").matches("dump cycle failed").count() > failed);
    let process = node.start();
    let before = cycles(&node.text("log/dhtdump.log"));
    until("it dumps again", || cycles(&node.text("log/dhtdump.log")) > before);
    assert_eq!(dump.stop(), Some(0));
    process.kill();
}

#[test]
fn tcmcli_reads_writes_and_verifies_what_nodes_dump() {
    let node = instance();
    fs::create_dir(node.path("data")).unwrap();
    let all = records(0..20, 1);
    fs::write(node.path("data/c.tcm"), dump_bytes(&all)).unwrap();
    let read = node.run("tcmcli", &["-r", "data/c.tcm"]);
    assert!(read.status.success());
    let text = String::from_utf8(read.stdout).unwrap();
    assert_eq!(text.lines().count(), 20);
    assert!(text.lines().next().unwrap().starts_with("0000000000000000:"));
    let mut write = node.command("tcmcli", &["-w", "data/copy.tcm"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut write.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(write.wait().unwrap().success());
    assert!(read_dump(&node.path("data/copy.tcm")) == all);
    let mut damaged = dump_bytes(&all);
    damaged.truncate(900);
    fs::write(node.path("data/cut.tcm"), damaged).unwrap();
    let read = node.run("tcmcli", &["-r", "data/cut.tcm"]);
    assert!(!read.status.success(), "what is damaged is told by the exit code");
    assert!(String::from_utf8(read.stdout).unwrap().lines().count() > 3, "and what is whole is shown");
    assert!(!node.run("tcmcli", &["-r", "data/none.tcm"]).status.success());
}
