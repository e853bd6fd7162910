//! `hypcontrol` and `service` as operators run them, on a real supervisord with small programs as services.

#![allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use overstory_testkit::ports::free_port;
use overstory_testkit::supervisord::{SupervisordPrefix, is_live};

/// Appends what happens to `tmp/order`, and runs until it is told to end.
const ORDERLY: &str = "cd $(dirname $0)/..\n\
    echo \"$(basename $0) start\" >> tmp/order\n\
    trap 'echo \"$(basename $0) stop\" >> tmp/order; exit 0' TERM\n\
    while :; do sleep 0.05; done";

const FOREVER: &str = "exec sleep 1000";

struct Stack {
    prefix: SupervisordPrefix,
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

impl Stack {
    /// A prefix with these services per section.
    fn new(backend: &str, middleware: &str, frontend: &str) -> Self {
        let prefix = SupervisordPrefix::new().unwrap();
        let list = |names: &str| names.split_whitespace().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
        let section = |name: &str, names: &str| format!("[{name}]\nservices = [{}]\n", list(names));
        let text = section("BACKEND", backend) + &section("MIDDLEWARE", middleware) + &section("FRONTEND", frontend);
        prefix.write("etc/hypcontrol.conf", &text).unwrap();
        Self { prefix }
    }

    fn program(&self, name: &str, script: &str, keys: &[&str]) {
        self.prefix.program(name, script, keys).unwrap();
    }

    /// A program that listens on `port` as a broker does, `delay` seconds after its start.
    fn broker(&self, name: &str, port: u16, delay: f32, keys: &[&str]) {
        let python = format!(
            "import os, socket, sys, time\n\
             time.sleep({delay})\n\
             listener = socket.socket()\n\
             listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             listener.bind(('127.0.0.1', {port}))\n\
             open(os.environ['OVERSTORY_HOME'] + '/tmp/order', 'a').write('{name} listens\\n')\n\
             listener.listen()\n\
             while True:\n\
             \x20   peer, _ = listener.accept()\n\
             \x20   peer.recv(8)\n\
             \x20   peer.sendall(bytes([1, 0, 0, 0, 0, 1, 0, 0, 10, 0, 10, 0]))\n\
             \x20   peer.close()\n"
        );
        self.prefix.write(&format!("bin/{name}.py"), &python).unwrap();
        let ready = format!("hyp_ready=amqp:127.0.0.1:{port}");
        let command = format!("command=/usr/bin/python3 %(here)s/../../bin/{name}.py");
        self.prefix.section(name, &[&[command.as_str(), ready.as_str()], keys].concat()).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overstory"));
        command.args(line.split_whitespace()).env("OVERSTORY_HOME", self.prefix.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ran {
        let begun = Instant::now();
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr), took: begun.elapsed() }
    }

    fn spawn(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a command that has to succeed.
    fn done(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "{line}:\n{}{}", ran.out, ran.err);
        ran
    }

    fn json(&self, line: &str) -> Vec<serde_json::Value> {
        self.run(line).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn pids(&self) -> Vec<i64> {
        let status = self.json("hypcontrol status --json").remove(0);
        status["services"].as_array().unwrap().iter().filter_map(|row| row["pid"].as_i64()).collect()
    }

    fn order(&self) -> Vec<String> {
        self.prefix.read("tmp/order").lines().map(str::to_owned).collect()
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// supervisord calls the broker RUNNING one second after its start, when it does not listen yet. Its clients must be
/// started when it does. The stop is the exact reverse, and quick although supervisord takes up to a second for each
/// group that it has loaded.
#[test]
fn each_section_is_ready_before_the_next_and_the_stop_is_the_reverse() {
    let stack = Stack::new("broker", "engines*", "web");
    stack.broker("broker", free_port(), 2.0, &["hyp_requires=epmd"]);
    stack.program("epmd", ORDERLY, &["startsecs=0"]);
    stack.program("engines", ORDERLY, &["numprocs=2"]);
    stack.program("web", ORDERLY, &[]);
    for spare in 0..8 {
        stack.program(&format!("spare{spare}"), FOREVER, &["priority=1"]);
    }
    let started = stack.done("hypcontrol start");
    assert_eq!(stack.order(), ["epmd start", "broker listens", "engines start", "engines start", "web start"]);
    assert!(started.out.contains("BACKEND broker RUNNING: amqp:127.0.0.1:"), "{}", started.out);
    assert!(started.out.contains("\nBACKEND broker READY after "), "{}", started.out);
    assert!(started.out.contains("\nall 4 services are ready ("), "{}", started.out);
    let status = stack.done("hypcontrol status");
    assert!(status.out.contains("BACKEND    ready      broker "), "{}", status.out);

    // Starting what runs verifies it and changes nothing.
    let pids = stack.pids();
    assert_eq!(pids.len(), 5);
    stack.done("hypcontrol start");
    assert_eq!(stack.pids(), pids);

    let stopped = stack.done("hypcontrol stop");
    assert!(stopped.took < Duration::from_secs(8), "{:?}", stopped.took);
    assert_eq!(stack.order()[5..], ["web stop", "engines stop", "engines stop", "epmd stop"]);
    assert_eq!(stack.prefix.children(), Vec::<i32>::new());
    assert_eq!(stack.run("hypcontrol status").code, Some(3));
    stack.done("hypcontrol stop");
}

/// One service of the backend crashes: what depends on it is left out with the reason, the rest of the section is
/// finished, and the report has the exit code and the last lines of the log, at once rather than at the timeout.
#[test]
fn a_failure_leaves_out_what_depends_on_it_and_is_reported() {
    let stack = Stack::new("bad good needy", "engine", "web");
    stack.program(
        "bad",
        "for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done; exit 7",
        &["hyp_ready=tcp:127.0.0.1:1"],
    );
    stack.program("good", FOREVER, &[]);
    stack.program("needy", FOREVER, &["hyp_after=bad"]);
    stack.program("engine", FOREVER, &[]);
    stack.program("web", FOREVER, &[]);
    let begun = Instant::now();
    let objects = stack.json("hypcontrol start --json");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let table = objects.last().unwrap();
    assert_eq!((&table["kind"], &table["ok"]), (&"table".into(), &false.into()));
    let row = |name: &str| table["services"].as_array().unwrap().iter().find(|r| r["service"] == name).unwrap().clone();
    assert_eq!(row("bad")["stage"], "FAILED");
    let report = &row("bad")["failures"][0];
    assert_eq!(report["exit"]["code"], 7);
    let lines = report["last_lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[9]), (10, &"line 11".into()));
    assert_eq!(row("good")["stage"], "READY");
    assert_eq!((&row("needy")["stage"], &row("needy")["detail"]), (&"SKIPPED".into(), &"bad failed".into()));
    assert_eq!(row("engine")["detail"], "bad (BACKEND) failed");
    assert_eq!(row("web")["stage"], "SKIPPED");

    let plain = stack.run("hypcontrol start");
    assert_eq!(plain.code, Some(1));
    assert!(plain.out.contains("bad: FAILED: ") && plain.out.contains("(exit code 7)\n  its log: "), "{}", plain.out);
    assert!(plain.out.contains("\n  | line 11\nnot everything is ready ("), "{}", plain.out);
    assert_eq!(stack.run("hypcontrol status").code, Some(1));
}

/// A service that never becomes ready fails after its own timeout, with what the probe met.
#[test]
fn a_service_that_never_answers_fails_with_what_was_met() {
    let stack = Stack::new("mute", "", "");
    // A port that was free a moment ago may be another test's by now; nobody listens on this one.
    stack.program("mute", FOREVER, &["hyp_ready=http:127.0.0.1:1/readyz", "hyp_timeout=2"]);
    let ran = stack.run("hypcontrol start");
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("not ready within 2 s: http:127.0.0.1:"), "{}", ran.out);
    assert!(ran.out.contains("/readyz: connection refused"), "{}", ran.out);
}

/// A program that dies after supervisord has called it RUNNING, and after it was ready, was reported as started.
#[test]
fn a_service_that_dies_after_it_was_ready_is_noticed() {
    let stack = Stack::new("dying", "", "web");
    // It ends once the service is started that waits for it to be ready, and that start takes two seconds.
    let dying = "cd $(dirname $0)/../tmp; until [ -e web ]; do sleep 0.05; done; rm web; exit 3";
    stack.program("dying", dying, &["autorestart=true"]);
    stack.program("web", &format!("touch $(dirname $0)/../tmp/web; {FOREVER}"), &["startsecs=2"]);
    let ran = stack.run("hypcontrol start");
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains("\nBACKEND dying FAILED after "), "{}", ran.out);
    assert!(ran.out.contains("dying: FAILED: ended after it was ready (exit code 3)"), "{}", ran.out);
}

/// Told not to wait, it starts everything and returns.
#[test]
fn without_waiting_everything_is_told_to_start() {
    let stack = Stack::new("slow", "", "web");
    let ready = format!("hyp_ready=tcp:127.0.0.1:{}", free_port());
    stack.program("slow", FOREVER, &[&ready]);
    stack.program("web", FOREVER, &["startsecs=5"]);
    let ran = stack.done("hypcontrol start --no-wait");
    assert!(ran.out.contains("2 services told to start"), "{}", ran.out);
    until("both", || stack.prefix.children().len() == 2);
    stack.done("hypcontrol stop --no-wait");
    until("the end", || stack.prefix.children().is_empty());
}

/// kill -9 of supervisord left every program running, and the next supervisord started each a second time.
#[test]
fn a_killed_supervisord_is_repaired_without_duplicates() {
    let stack = Stack::new("broker", "engines*", "web");
    stack.broker("broker", free_port(), 0.0, &[]);
    stack.program("engines", FOREVER, &["numprocs=2"]);
    stack.program("web", FOREVER, &[]);
    stack.done("hypcontrol start");
    let before = stack.prefix.children();
    assert_eq!(before.len(), 4);
    let supervisord = stack.prefix.supervisord_pid().unwrap();
    SupervisordPrefix::kill_hard(supervisord);
    until("its death", || !is_live(supervisord));
    let status = stack.run("hypcontrol status");
    assert_eq!((status.code, status.out.matches("its supervisord is dead").count()), (Some(3), 4), "{}", status.out);
    // Without the reaping the broker's port would be in use, too.
    let repaired = stack.done("hypcontrol start");
    assert_eq!(repaired.out.matches("\nended ").count() + 1, 4, "{}", repaired.out);
    let after = stack.prefix.children();
    assert_eq!(after.len(), 4, "{after:?}");
    assert!(before.iter().all(|pid| !is_live(*pid)));
    assert_eq!(stack.done("hypcontrol status").out.matches("STRAY").count(), 0);

    // Left behind by a second death, they are ended without a start.
    SupervisordPrefix::kill_hard(stack.prefix.supervisord_pid().unwrap());
    until("no supervisord", || stack.run("hypcontrol status").out.starts_with("supervisord does not run"));
    assert_eq!(stack.done("hypcontrol reap").out.lines().count(), 4);
    assert_eq!(stack.prefix.children(), Vec::<i32>::new());
    assert_eq!(stack.done("hypcontrol reap").out, "there are no strays\n");
}

/// Two at once wait for each other, and the second says for whom.
#[test]
fn two_at_once_wait_for_each_other() {
    let stack = Stack::new("broker", "", "web");
    stack.broker("broker", free_port(), 1.0, &[]);
    stack.program("web", FOREVER, &[]);
    let both = [stack.spawn("hypcontrol start"), stack.spawn("hypcontrol start")];
    let outputs = both.map(|child| child.wait_with_output().unwrap());
    assert!(outputs.iter().all(|o| o.status.success()), "{outputs:?}");
    let said: String = outputs.iter().map(|o| String::from_utf8_lossy(&o.stderr)).collect();
    assert_eq!(said.matches("hypcontrol: waiting for ").count(), 1, "{said}");
    assert!(said.contains("hypcontrol start (process "), "{said}");
    assert_eq!(stack.prefix.children().len(), 2);
}

/// Ctrl-C ends the command, not the services, and leaves no lock behind.
#[test]
fn an_interrupted_start_leaves_the_services_and_no_lock() {
    let stack = Stack::new("slow", "", "");
    let ready = format!("hyp_ready=tcp:127.0.0.1:{}", free_port());
    stack.program("slow", FOREVER, &[&ready]);
    let mut child = stack.spawn("hypcontrol start");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("slow RUNNING: tcp:")));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("services stay as they are"), "{said}");
    assert_eq!(stack.prefix.children().len(), 1);
    stack.done("hypcontrol stop");
}

/// A port that somebody else has is found before anything is started, with its user and the setting that changes it.
#[test]
fn a_used_port_is_found_before_anything_is_started() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let stack = Stack::new("broker", "", "");
    let listen = format!("hyp_listen=127.0.0.1:{port} listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf");
    stack.broker("broker", port, 0.0, &[&listen]);
    let ran = stack.run("hypcontrol start");
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains(&format!("FAIL  ports: broker cannot listen on 127.0.0.1:{port}: ")), "{}", ran.out);
    assert!(ran.out.contains(&format!("(process {}) uses it", std::process::id())), "{}", ran.out);
    assert!(ran.out.contains("or change listeners.tcp.1 in etc/rabbitmq/rabbitmq.conf"), "{}", ran.out);
    assert!(stack.prefix.supervisord_pid().is_none());
    let findings = stack.json("hypcontrol check --json").remove(0);
    let failures: Vec<_> = findings.as_array().unwrap().iter().filter(|f| f["level"] == "failure").collect();
    assert_eq!((failures.len(), &failures[0]["subject"]), (1, &"ports".into()), "{findings}");
    drop(listener);
    stack.done("hypcontrol check");
}

/// A program that refuses its configuration is not started, and neither is anything else.
#[test]
fn a_refused_configuration_stops_the_start() {
    let stack = Stack::new("good", "", "web");
    stack.program("good", FOREVER, &[]);
    stack.program("web", FOREVER, &["hyp_check=%(here)s/../../bin/refuse --check-config"]);
    stack.prefix.write("bin/refuse", "").unwrap();
    let refuse = stack.prefix.path().join("bin/refuse");
    std::fs::write(&refuse, "#!/bin/sh\necho 'webserver.conf: [server] port = 99999: 1 to 65535' >&2\nexit 1\n")
        .unwrap();
    let _ = Command::new("chmod").arg("+x").arg(&refuse).status().unwrap();
    let ran = stack.run("hypcontrol start");
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("web refuses its own: webserver.conf: [server] port = 99999: 1 to 65535"), "{}", ran.out);
    assert!(stack.prefix.supervisord_pid().is_none());
}

/// Stopping first and finding the configuration broken afterwards would leave every service down.
#[test]
fn a_restart_that_could_not_start_again_stops_nothing() {
    let stack = Stack::new("one", "two", "");
    stack.program("one", FOREVER, &[]);
    // Its file is read at each check, so it can be broken while the program runs.
    stack.prefix.write("etc/two.conf", "exit 0").unwrap();
    let check = format!("hyp_check=/bin/sh {}", stack.prefix.path().join("etc/two.conf").display());
    stack.program("two", FOREVER, &[check.as_str()]);
    stack.done("hypcontrol start");
    let before = stack.pids();

    stack.prefix.write("etc/two.conf", "echo two.conf: nonsense; exit 1").unwrap();
    let ran = stack.run("hypcontrol restart");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("two.conf: nonsense") && ran.out.contains("nothing was stopped"), "{}", ran.out);
    assert_eq!(stack.pids(), before, "all run on");

    stack.prefix.write("etc/two.conf", "exit 0").unwrap();
    stack.done("hypcontrol restart");
    assert!(stack.pids().iter().all(|pid| !before.contains(pid)), "all are new");
    stack.done("hypcontrol stop");
}

/// A program that ended with an error when it was stopped was called stopped, although it had not finished its work.
#[test]
fn a_stop_that_ends_with_an_error_is_told_and_the_rest_is_stopped() {
    let stack = Stack::new("store", "", "web");
    stack.program("store", "trap 'echo no room left; exit 1' TERM; while :; do sleep 0.05; done", &[]);
    stack.program("web", FOREVER, &[]);
    stack.program("shell", "trap 'exit 143' TERM; while :; do sleep 0.05; done", &[]);
    stack.program("stubborn", "trap '' TERM; while :; do sleep 0.05; done", &["stopwaitsecs=1"]);
    stack.done("hypcontrol start");
    stack.done("service shell start");
    stack.done("service stubborn start");
    for (name, exit) in [("store", "(exit code 1)"), ("stubborn", "(ended by SIGKILL)")] {
        let ran = stack.run(&format!("service {name} stop"));
        assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
        assert!(
            ran.err.contains(&format!("{name}: FAILED: was stopped and ")) && ran.err.contains(exit),
            "{}",
            ran.err
        );
        assert_eq!(stack.done(&format!("service {name} stop")).out, format!("{name}: already stopped\n"));
    }
    stack.done("service shell stop");
    stack.done("service store start");
    let ran = stack.run("hypcontrol stop");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("store: FAILED: was stopped and ended with an error (exit code 1)"), "{}", ran.out);
    assert!(ran.out.contains("FRONTEND web STOPPED") && ran.out.contains("| no room left"), "{}", ran.out);
    until("the end", || stack.prefix.children().is_empty());
}

/// `service NAME restart` stopped the good program first, and left a broken one behind.
#[test]
fn a_service_whose_configuration_is_refused_is_neither_stopped_nor_started() {
    let stack = Stack::new("", "two", "");
    stack.prefix.write("etc/two.conf", "exit 0").unwrap();
    let check = format!("hyp_check=/bin/sh {}", stack.prefix.path().join("etc/two.conf").display());
    stack.program("two", FOREVER, &[check.as_str()]);
    stack.done("service two start");
    let before = stack.pids();
    stack.prefix.write("etc/two.conf", "echo two.conf: nonsense; exit 1").unwrap();
    let ran = stack.run("service two restart");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("two.conf: nonsense") && ran.err.contains("nothing was stopped"), "{}", ran.err);
    assert_eq!(stack.pids(), before, "it runs on");
    // What runs is left as it is by a start, and may be stopped whatever its file says.
    assert_eq!(stack.done("service two start").out, "two: already started\n");
    stack.done("service two stop");
    let ran = stack.run("service two start");
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("nothing was started"), "{}", ran.err);
    stack.prefix.write("etc/two.conf", "exit 0").unwrap();
    stack.done("service two restart");
    assert_ne!(stack.pids(), before);
    stack.done("hypcontrol stop");
}

/// A broken `hypcontrol.conf` is named with its key; it must not keep anybody from stopping.
#[test]
fn a_broken_configuration_is_named_and_does_not_prevent_a_stop() {
    let stack = Stack::new("web", "", "");
    stack.program("web", FOREVER, &[]);
    stack.done("hypcontrol start");
    stack.prefix.write("etc/hypcontrol.conf", "[BACKEND]\nservices = [\"web\"]\nservice = 1\n").unwrap();
    let ran = stack.run("hypcontrol start");
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("hypcontrol.conf") && ran.err.contains("service"), "{}", ran.err);
    let stopped = stack.done("hypcontrol stop");
    assert!(stopped.err.contains("stopping everything at once"), "{}", stopped.err);
    assert_eq!(stack.prefix.children(), Vec::<i32>::new());
}

/// Exit codes: 0 running or done, 1 failed, 3 stopped, 4 unknown; a question starts nothing and is answered in
/// milliseconds.
#[test]
fn service_tells_the_truth_in_its_exit_code_and_at_once() {
    let stack = Stack::new("", "", "");
    stack.program("web", FOREVER, &[]);
    stack.program("bad", "echo no; exit 7", &[]);
    stack.program("e", FOREVER, &["numprocs=2"]);
    assert_eq!(stack.run("service web status").code, Some(3));
    assert_eq!(stack.run("service nobody status").code, Some(4));
    assert!(stack.prefix.supervisord_pid().is_none());
    assert_eq!(stack.done("service web start").out, "web: started\n");
    assert_eq!(stack.done("service web start").out, "web: already started\n");
    let quickest = (0..20).map(|_| stack.done("service web status").took).min().unwrap();
    assert!(quickest < Duration::from_millis(20), "{quickest:?}");
    let bad = stack.run("service bad start");
    assert_eq!(bad.code, Some(1));
    assert!(bad.err.starts_with("bad: FAILED: BACKOFF: Exited too quickly (exit code 7)\n  its log: "), "{}", bad.err);
    assert!(bad.err.contains("var/log/bad.log\n  | no\n"), "{}", bad.err);
    let status = stack.run("service bad status");
    assert_eq!(status.code, Some(1));
    assert!(status.out.contains(" BACKOFF ") || status.out.contains(" FATAL "), "{}", status.out);
    assert_eq!(stack.done("service e* mstart").out, "e:e-0: started\ne:e-1: started\n");
    assert_eq!(stack.done("service e:e-1 stop").out, "e:e-1: stopped\n");
    assert_eq!(stack.run("service e status").code, Some(3));
    let all = stack.done("service --status-all");
    assert_eq!(all.out.lines().count(), 4, "{}", all.out);
    assert_eq!(stack.done("service web restart").out, "web: restarted\n");
    assert_eq!(stack.done("service web stop").out, "web: stopped\n");
    assert_eq!(stack.done("service web stop").out, "web: already stopped\n");
    assert_eq!(stack.run("service web dance").code, Some(2));
}

/// Logs are shown from their end on, and followed until the reader goes.
#[test]
fn logs_are_shown_and_followed() {
    let stack = Stack::new("", "", "");
    stack.program("web", "echo one; echo two; echo three; exec sleep 1000", &[]);
    stack.done("service web start");
    assert_eq!(stack.done("service web logs -n 2").out, "two\nthree\n");
    let mut child = stack.spawn("service web logs -f -n 1");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "three");
    stack.prefix.write("var/log/web.log", "one\ntwo\nthree\nfour\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "four");
    interrupt(&child);
    child.wait().unwrap();
}

/// Called by root, the tools work as the prefix's owner: nothing that they start or write belongs to root.
#[test]
fn root_becomes_the_owner_of_the_prefix() {
    let stack = Stack::new("web", "", "");
    stack.program("web", FOREVER, &[]);
    let own = std::fs::metadata(stack.prefix.path()).unwrap().uid();
    let expected = if own == 0 {
        let changed = Command::new("chown").args(["-R", "nobody"]).arg(stack.prefix.path()).status().unwrap();
        assert!(changed.success());
        std::fs::metadata(stack.prefix.path()).unwrap().uid()
    } else {
        own
    };
    stack.done("hypcontrol start");
    let children = stack.prefix.children();
    assert_eq!(children.len(), 1);
    let supervisord = stack.prefix.supervisord_pid().unwrap();
    for pid in [supervisord, children[0]] {
        assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), expected);
    }
    for file in ["var/run/hyp.lock", "var/log/supervisord.log", "var/log/web.log"] {
        assert_eq!(std::fs::metadata(stack.prefix.path().join(file)).unwrap().uid(), expected, "{file}");
    }
    stack.done("hypcontrol stop");
}
