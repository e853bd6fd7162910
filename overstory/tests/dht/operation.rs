//! Arguments, signals, sockets and logs: what an operator does to a dht node, and what it does in return.

use std::fs;
use std::net::TcpListener;

use overstory_replay::{NeoClient, system_time};
use overstory_swarm::legacy::Status;
use overstory_testkit::node::{ZERO_KEY, until};
use overstory_testkit::trouble::logged;

use super::client::{Legacy, admin};
use super::rig::{get_all, instance, put_all, read_dump, records};

#[test]
fn arguments_and_configuration_end_with_the_published_codes() {
    let node = instance();
    let text = node.text("etc/config.ini");
    fs::write(node.path("etc/unknown.ini"), text.replace("[Options_Memory]", "[Options_Memory]\nbutch_size = 1"))
        .unwrap();
    fs::write(node.path("etc/empty.ini"), text.replace("minval", "minvalue")).unwrap();
    fs::write(
        node.path("etc/reversed.ini"),
        text.replace("minval = 0x0000000000000000", "minval = 0xffffffffffffffff\n# ")
            .replace("maxval = 0xffffffffffffffff", "maxval = 1"),
    )
    .unwrap();
    let good = ["-c", "etc/config.ini"];
    for (args, code, out, err) in [
        (&["--version"][..], 0, "dhtnode version ", ""),
        (&["--build-info"], 0, "dhtnode version ", ""),
        (&["-h"], 0, "--override-config", ""),
        (&[], 2, "", "Type dhtnode -h for help"),
        (&["-c"], 2, "", "Type dhtnode -h for help"),
        (&["--what"], 2, "", "Type dhtnode -h for help"),
        (&["-c", "etc/none.ini"], 3, "", "etc/none.ini"),
        (&["-c", "etc/unknown.ini"], 1, "", "butch_size"),
        (&["-c", "etc/empty.ini"], 1, "", "minval"),
        (&["-c", "etc/reversed.ini"], 1, "", "minval"),
        (&["-c", "etc/config.ini", "--check-config"], 0, "ok\n", ""),
        (&["-c", "etc/unknown.ini", "--check-config"], 1, "", "butch_size"),
        (&["-c", "etc/config.ini", "-O", "Server.minval = 0"], 1, "", "minval"),
        (&["-c", "etc/config.ini", "-O", "Server.maxval=1"], 1, "", "maxval"),
        (&["-c", "etc/config.ini", "-O", "Options_Memory.batch_size = 12"], 1, "", "batch_size"),
        (&["-c", "etc/config.ini", "-O", "Server.port = 65436"], 1, "", "65435"),
    ] {
        let output = node.run("dhtnode", args);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(out) && stderr.contains(err), "{args:?}: {stdout}{stderr}");
    }
    assert!(!node.path("data").exists() && !node.path("log").exists(), "nothing was touched");
    // What the environment says overrides no more than what -O says.
    let output = node.command("dhtnode", &good).arg("--check-config").env("OVERSTORY_SERVER_MINVAL", "8").output();
    assert!(output.unwrap().status.success());
    let process = node.spawn("dhtnode", &["-c", "etc/unknown.ini", "--loose-config-parsing"]);
    until("it serves", || node.is_ready());
    logged(&node, " Warn ", "butch_size");
    assert_eq!(process.stop(), Some(0));
}

#[test]
fn every_stopping_signal_ends_with_a_dump_and_0() {
    let node = instance();
    for (round, signal) in (0..).zip(["-TERM", "-INT", "-QUIT"]) {
        let process = node.start();
        put_all(&node, "c", &records(round * 10..round * 10 + 10, 0));
        // An answer that is being made is no reason to wait for ever, and a silent client is none at all.
        let mut listener = Legacy::to(&node);
        let listen = overstory_swarm::legacy::dht::Request::Listen { channel: b"c" };
        assert_eq!(listener.ask(&listen), Status::Ok);
        let _silent = admin(&node);
        process.signal(signal);
        assert_eq!(process.ended(), Some(0), "{signal}");
        assert_eq!(read_dump(&node.path("data/c.tcm")), records(0..round * 10 + 10, 0), "{signal}");
        assert!(node.log().trim_end().ends_with("Event loop exited"), "{}", node.log());
        for gone in ["node.pid", "node.socket", "unix.socket"] {
            assert!(!node.path(gone).exists(), "{gone}");
        }
    }
    assert!(read_dump(&node.path("data/c.tcm.backup")).len() == 20, "the one before");
    // Signals that come while it saves do not cut the dump short.
    let process = node.start();
    for channel in 0..50 {
        put_all(&node, &format!("channel-{channel}"), &records(0..10, 1));
    }
    for signal in ["-TERM", "-INT", "-TERM", "-HUP"] {
        process.signal(signal);
    }
    assert_eq!(process.ended(), Some(0));
    for channel in 0..50 {
        assert_eq!(read_dump(&node.path(&format!("data/channel-{channel}.tcm"))).len(), 10);
    }
}

#[test]
fn a_second_start_and_a_taken_port_end_before_the_data_is_touched() {
    let node = instance();
    let process = node.start();
    put_all(&node, "c", &records(0..10, 0));
    let second = node.run("dhtnode", &["-c", "etc/config.ini"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("held by process {}", process.pid())), "{said}");
    // Without a pid file the ports tell.
    let other = instance();
    for port in [node.legacy.port(), node.legacy.port() - 100] {
        other.set("Server", "port", &port.to_string());
        let output = other.run("dhtnode", &["-c", "etc/config.ini"]);
        assert_eq!(output.status.code(), Some(1));
        let log = other.log();
        assert!(log.contains(" Fatal [dhtnode.main] - cannot listen on 127.0.0.1:"), "{log}");
        assert!(!other.path("data").exists(), "no data directory yet");
        assert!(!other.path("node.pid").exists() && !other.path("node.socket").exists());
    }
    assert_eq!(get_all(&node, "c").len(), 10, "the first one serves on");
    assert!(node.path("node.socket").exists(), "and has its socket");
    assert_eq!(node.ask("node.socket", "list-credentials"), "Registered credentials:\nadmin\ntest\n");
    process.kill();
    // What a killed one left behind is in nobody's way.
    assert!(node.path("node.pid").exists() && node.path("node.socket").exists());
    let process = node.start();
    assert_eq!(process.stop(), Some(0));

    // A data directory that cannot be one, a wrong credentials file, a port that the admin listener wants.
    fs::remove_dir_all(node.path("data")).unwrap();
    fs::write(node.path("data"), "a file").unwrap();
    assert_eq!(node.launch().ended(), Some(1));
    assert!(node.log().contains("cannot open the data directory"), "{}", node.log());
    fs::remove_file(node.path("data")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    node.set("Server", "admin", &taken.local_addr().unwrap().to_string());
    assert_eq!(node.launch().ended(), Some(1));
    assert!(node.log().contains("(admin)"));
    fs::write(node.path("etc/credentials"), "admin:12\n").unwrap();
    assert_eq!(node.launch().ended(), Some(1));
    assert!(!node.path("data").exists());
}

#[test]
fn logs_are_reopened_and_credentials_updated_while_it_serves() {
    let node = instance();
    let process = node.start();
    let mut legacy = Legacy::to(&node);
    let mut test = NeoClient::greet(node.neo);
    assert!(test.authenticate(system_time(), "test", ZERO_KEY));
    fs::rename(node.path("log/root.log"), node.path("log/root.log.1")).unwrap();
    process.signal("-HUP");
    until("root.log is there again", || node.log().contains("log files reopened"));
    fs::rename(node.path("log/stats.log"), node.path("log/stats.log.1")).unwrap();
    assert_eq!(node.ask("unix.socket", "reopen_files log/stats.log"), "ACK\n");
    until("statistics go on", || node.text("log/stats.log").contains(" total_records:"));
    assert!(node.ask("unix.socket", "reopen_files nothing.log").starts_with("ERROR: "));
    assert!(node.ask("unix.socket", "show_version").starts_with("dhtnode version "));
    assert_eq!(node.ask("node.socket", "format-disk"), "Command not found\n");
    assert_eq!(node.ask("node.socket", "update-credentials now"), "Error: No command arguments expected\n");

    fs::write(node.path("etc/credentials"), "broken\n").unwrap();
    assert!(node.ask("node.socket", "update-credentials").starts_with("Error updating credentials: "));
    assert!(NeoClient::greet(node.neo).authenticate(system_time(), "test", ZERO_KEY), "the old ones hold");
    fs::write(node.path("etc/credentials"), format!("admin:{ZERO_KEY}\nnew:{}\n", "ab".repeat(128))).unwrap();
    assert_eq!(node.ask("node.socket", "update-credentials"), "Credentials updated.\n");
    assert_eq!(test.connection.until_closed(), b"", "who is not known any more has to go");
    assert!(!NeoClient::greet(node.neo).authenticate(system_time(), "test", ZERO_KEY));
    assert!(NeoClient::greet(node.neo).authenticate(system_time(), "new", &"ab".repeat(128)));
    assert_eq!(legacy.put("c", 1, b"x"), Status::Ok);
    assert_eq!(process.stop(), Some(0));
}

/// Every key that the published node reads (protocol §4.1), and nothing else.
const PUBLISHED: &str = "
; Sample configuration
[Server]
address = 127.0.0.1
port = PORT
minval = 0x0000000000000000
maxval = 0xffffffffffffffff
data_dir = data
connection_limit = 5000
backlog = 2048
unix_socket_path = dhtnode.socket

[Performance]
write_flush_ms = 250
redist_memory_limit_mulitplier = 1.1

// In memory
[Options_Memory]
size_limit = 0
lock_memory = true
allow_out_of_range = load
abort_after_all_out_of_range = 10000
disable_direct_io = false
bnum = 0
batch_size = 65535

[LOG]
buffer_size = 2048

[LOG.Root]
level = info
propagate = true
console = false
file = log/root.log
file_layout = date
console_layout = simple
syslog = false
additive = true

[LOG.swarm]
level = warn

[STATS]
file_name = log/stats.log
interval = 30
socket_path = /nowhere/collectd.socket
app_name = dhtnode
app_instance = 1
default_type = dht
hostname = host

[VERSION]
default_version_log = true

[PidLock]
path = dhtnode.pid

[UNIX_SOCKET]
path = dhtnode-unix.socket
mode = 660
";

#[test]
fn a_published_configuration_starts_unchanged() {
    let node = instance();
    let text = PUBLISHED.replace("PORT", &node.legacy.port().to_string());
    fs::write(node.path("etc/config.ini"), &text).unwrap();
    let process = node.launch();
    until("it serves", || {
        std::net::TcpStream::connect(node.legacy).is_ok() && node.log().contains("Starting DHT node")
    });
    assert_eq!(Legacy::to(&node).put("c", 1, b"x"), Status::Ok);
    let get = overstory_swarm::neo::dht::Request::Get { channel: b"c", key: overstory_swarm::key::Key(1) };
    assert_eq!(admin(&node).ask(1, &get), [2]);
    assert!(node.text("log/version.log").contains("dhtnode version "));
    assert!(node.path("dhtnode.pid").exists() && node.path("data/deleted").is_dir());
    assert_eq!(process.stop(), Some(0));
    assert_eq!(read_dump(&node.path("data/c.tcm")).len(), 1);
    assert_eq!(node.text("etc/config.ini"), text);
}

#[test]
fn a_removed_channel_does_not_come_back() {
    let node = instance();
    let process = node.start();
    put_all(&node, "stays", &records(0..10, 0));
    put_all(&node, "goes", &records(0..10, 0));
    assert_eq!(process.stop(), Some(0));
    let process = node.start();
    let remove = overstory_swarm::legacy::dht::Request::RemoveChannel { channel: b"goes" };
    assert_eq!(Legacy::to(&node).ask(&remove), Status::Ok);
    assert!(!node.path("data/goes.tcm").exists());
    assert_eq!(read_dump(&node.path("data/deleted/goes.tcm")).len(), 10);
    process.kill();
    let process = node.start();
    assert_eq!(Legacy::to(&node).channels(), ["stays"]);
    process.kill();
}

#[test]
fn the_size_limit_holds_on_both_ports_and_through_a_restart() {
    let node = instance();
    node.set("Options_Memory", "size_limit", "3000000");
    let process = node.start();
    let mut legacy = Legacy::to(&node);
    let mut stored = 0;
    while legacy.put("c", stored, &[7; 60_000]) == Status::Ok {
        stored += 1;
    }
    assert!((20..=50).contains(&stored), "{stored} records of 60,000 bytes");
    assert_eq!(legacy.put("c", stored, &[7; 60_000]), Status::OutOfMemory);
    let put = overstory_swarm::neo::dht::Request::Put {
        channel: b"c",
        key: overstory_swarm::key::Key(stored),
        value: &[7; 60_000],
    };
    assert_eq!(admin(&node).ask(1, &put), [3]);
    until("it is found", || node.metric("overstory_node_finding_state{check=\"memory\"}").is_some());
    assert_eq!(process.stop(), Some(0));
    let process = node.start();
    assert_eq!(get_all(&node, "c").len() as u64, stored);
    process.kill();
}
