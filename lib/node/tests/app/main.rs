//! A node as a process: command line, files, sockets, signals, exit codes.
//!
//! This executable is the node as well: `app toynode -c ...` runs one. The tests start it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod instance;
mod toy;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use overstory_node::app;
use overstory_runtime::program;

use instance::{CONFIG, Instance, exists, until};

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("the_command_line_ends_with_the_published_codes", the_command_line_ends_with_the_published_codes),
    ("a_node_serves_soon_and_leaves_nothing_behind", a_node_serves_soon_and_leaves_nothing_behind),
    ("statistics_come_each_interval", statistics_come_each_interval),
    ("logs_are_reopened_by_signal_and_by_socket", logs_are_reopened_by_signal_and_by_socket),
    ("what_fails_before_the_data_never_touches_it", what_fails_before_the_data_never_touches_it),
    ("every_stopping_signal_saves_the_data", every_stopping_signal_saves_the_data),
    ("impatience_does_not_cut_a_save_short", impatience_does_not_cut_a_save_short),
    ("a_stop_during_the_load_saves_nothing", a_stop_during_the_load_saves_nothing),
    ("a_failure_is_told_and_ends_with_1", a_failure_is_told_and_ends_with_1),
    ("without_a_broker_the_report_waits_in_the_spool", without_a_broker_the_report_waits_in_the_spool),
    ("loose_parsing_accepts_what_it_does_not_know", loose_parsing_accepts_what_it_does_not_know),
    ("a_tool_runs_once_or_until_it_is_stopped", a_tool_runs_once_or_until_it_is_stopped),
];

fn main() -> ExitCode {
    let arguments = program::arguments();
    let programs: Vec<_> = arguments.iter().skip(1).cloned().collect();
    match programs.first().and_then(|name| name.to_str()) {
        Some("toynode") => return app::run::<toy::ToyNode>(programs),
        Some("toytool") => return app::run_tool::<toy::ToyTool>(programs),
        _ => {}
    }
    let wanted: Vec<&str> =
        programs.iter().filter_map(|text| text.to_str()).filter(|text| !text.starts_with('-')).collect();
    let given = |flag: &str| programs.iter().any(|text| text == flag);
    // None is ignored: a runner that asks for those must not be told all of them.
    if given("--list") && given("--ignored") {
        return ExitCode::SUCCESS;
    }
    if given("--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let is_meant = |name: &str, w: &str| if given("--exact") { name == w } else { name.contains(w) };
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| is_meant(name, w))) {
        let begin = Instant::now();
        let outcome = if catch_unwind(test).is_ok() { "ok" } else { "FAILED" };
        failed += u32::from(outcome != "ok");
        passed += u32::from(outcome == "ok");
        println!("test {name} ... {outcome} ({:.2} s)", begin.elapsed().as_secs_f64());
    }
    println!("test result: {}. {passed} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" });
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn the_command_line_ends_with_the_published_codes() {
    let instance = Instance::new("");
    fs::write(instance.path("broken.ini"), "no section\n").unwrap();
    fs::write(instance.path("unknown.ini"), format!("{CONFIG}[Toy]\nunheard_of = 1\n")).unwrap();
    for (args, code, out, err) in [
        (&["--version"][..], 0, "toynode version ", ""),
        (&["-h"], 0, "--override-config", ""),
        (&["--build-info"], 0, "toynode version ", ""),
        (&[], 2, "", "Type toynode -h for help"),
        (&["--nonsense"], 2, "", "Type toynode -h for help"),
        (&["-c", "none.ini"], 3, "", "none.ini: cannot be read"),
        (&["-c", "broken.ini"], 3, "", "broken.ini:1: "),
        (&["-c", "unknown.ini"], 1, "", "[Toy] unheard_of: no such key"),
        (&["-c", "config.ini", "-O", "Server.minval = 0"], 1, "", "the range of a node is what its file says"),
        (
            &["-c", "config.ini", "-O", "Server.port = 65500"],
            1,
            "",
            "-O: [Server] port = 65500: expected at most 65435",
        ),
        (&["-c", "config.ini", "--check-config"], 0, "ok\n", ""),
    ] {
        let output = instance.output("toynode", args);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(out) && stderr.contains(err), "{args:?}: {stdout}{stderr}");
    }
    assert!(!exists(&instance.path("trace")) && !exists(&instance.path("log")), "nothing was touched");
}

fn a_node_serves_soon_and_leaves_nothing_behind() {
    let instance = Instance::new("");
    let begin = Instant::now();
    let mut running = instance.serving(&[]);
    // One second is what is promised; this is a build for tests, on a machine that runs others beside it.
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let mut client = TcpStream::connect(instance.logged("legacy").unwrap()).unwrap();
    client.write_all(&7_i32.to_le_bytes()).unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(i32::from_le_bytes(answer), 7);
    assert_eq!(instance.text("node.pid"), format!("{}\n", running.pid()));
    assert_eq!(fs::metadata(instance.path("node.socket")).unwrap().permissions().mode() & 0o777, 0o775);
    assert_eq!(fs::metadata(instance.path("unix.socket")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(instance.ask("node.socket", "list-credentials"), "Registered credentials:\ntest\n");
    assert!(instance.ask("unix.socket", "show_version").starts_with("toynode version "));
    assert!(instance.text("log/version.log").contains(" Info [toynode.version] - toynode version "));
    until("the metrics follow", || {
        instance
            .get("/metrics")
            .unwrap()
            .contains("overstory_node_requests_total{protocol=\"legacy\",request=\"Echo\"} 1\n")
    });
    let second = instance.output("toynode", &["-c", "config.ini"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&format!("held by process {}", running.pid())), "{said}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    assert_eq!(instance.text("trace"), "open\nclosing\nclosed\n");
    for gone in ["node.pid", "node.socket", "unix.socket"] {
        assert!(!exists(&instance.path(gone)), "{gone}");
    }
    let log = instance.text("log/root.log");
    assert!(log.ends_with(" Info [toynode.main] - Event loop exited\n"), "{log}");
    assert!(log.contains("no report to the platform, there is no such file"));
}

fn statistics_come_each_interval() {
    let instance = Instance::new("");
    let mut running = instance.serving(&[]);
    let mut client = TcpStream::connect(instance.logged("legacy").unwrap()).unwrap();
    client.write_all(&1_i32.to_le_bytes()).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    until("the request is in a line", || instance.text("log/stats.log").contains(" request/Echo/handled:1 "));
    let lines_then = instance.text("log/stats.log").lines().count();
    until("another line", || instance.text("log/stats.log").lines().count() > lines_then);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    let text = instance.text("log/stats.log");
    let keys = |line: &str| -> Vec<String> {
        line.split(' ').skip(2).map(|field| field.rsplit_once(':').unwrap().0.to_owned()).collect()
    };
    let line = text.lines().find(|line| line.contains("request/Echo/handled:1 ")).unwrap();
    assert_eq!(
        keys(line).join(" "),
        "cpu_user cpu_system cpu_total vsz rss mem_percentage bytes_sent bytes_received handling_connections \
         handling_connections_pcnt handling_neo_connections handling_neo_connections_pcnt total_bytes total_records \
         channel/a/bytes channel/a/records channel/b/bytes channel/b/records old_request_versions_in_use \
         request/Echo/max_active request/Echo/handled request/Echo/mean_handled_time_micros \
         request/Echo/handled_10_micros request/Echo/handled_100_micros request/Echo/handled_1_ms \
         request/Echo/handled_10_ms request/Echo/handled_100_ms request/Echo/handled_over_100_ms \
         neo_request/Echo/max_active neo_request/Echo/handled action/echoed/records action/echoed/bytes logged_debug \
         logged_trace logged_verbose logged_info logged_warn logged_error logged_fatal"
    );
    assert!(
        line.contains(" bytes_sent:4 bytes_received:4 handling_connections:1 handling_connections_pcnt:0 "),
        "{line}"
    );
    assert!(line.contains(" total_bytes:30 total_records:2 channel/a/bytes:10 "), "{line}");
    let handled = text.matches("request/Echo/handled:1 ").count();
    assert_eq!(handled, 1, "counters begin anew");
    let seconds: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert!(seconds.windows(2).all(|pair| pair[0] < pair[1]), "one line each second: {seconds:?}");
}

fn logs_are_reopened_by_signal_and_by_socket() {
    let instance = Instance::new("");
    let mut running = instance.serving(&[]);
    fs::rename(instance.path("log/root.log"), instance.path("log/root.log.1")).unwrap();
    fs::rename(instance.path("log/stats.log"), instance.path("log/stats.log.1")).unwrap();
    running.signal(Signal::SIGUSR1);
    until("root.log is there again", || instance.text("log/root.log").contains("log files reopened"));
    assert!(exists(&instance.path("log/stats.log")));
    fs::rename(instance.path("log/root.log"), instance.path("log/root.log.2")).unwrap();
    assert_eq!(instance.ask("unix.socket", "reopen_files log/root.log log/stats.log"), "ACK\n");
    assert!(exists(&instance.path("log/root.log")));
    assert!(instance.ask("unix.socket", "reopen_files other.log").starts_with("ERROR: "));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    assert!(instance.text("log/root.log").contains("Event loop exited"));
}

fn what_fails_before_the_data_never_touches_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (override_, prepare, expected) in [
        (format!("Server.admin = 127.0.0.1:{port}"), "", "(admin)"),
        (format!("Server.port = {port}"), "", "in use"),
        ("LOG.Root.file = /dev/null/root.log".to_owned(), "", "/dev/null/root.log"),
        ("Server.x = 1".to_owned(), "", "no such key"),
        ("Server.legacy = true".to_owned(), "etc/credentials", "etc/credentials: line 1"),
        ("Server.legacy = true".to_owned(), "node.socket", "no socket"),
    ] {
        let instance = Instance::new("");
        if !prepare.is_empty() {
            fs::write(instance.path(prepare), "in the way\n").unwrap();
        }
        let output = instance.output("toynode", &["-c", "config.ini", "-O", &override_]);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stderr), instance.text("log/root.log"));
        assert_eq!(output.status.code(), Some(1), "{override_} {prepare}: {said}");
        assert!(said.contains(expected) && !exists(&instance.path("trace")), "{override_} {prepare}: {said}");
        assert!(!exists(&instance.path("node.pid")));
    }
}

fn every_stopping_signal_saves_the_data() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let instance = Instance::new("");
        let mut running = instance.serving(&[]);
        running.signal(signal);
        assert_eq!(running.ended(), Some(0), "{signal}");
        assert!(instance.text("trace").ends_with("closed\n"), "{signal}");
    }
}

fn impatience_does_not_cut_a_save_short() {
    let instance = Instance::new("[Toy]\nclose_ms = 1500\n");
    let mut running = instance.serving(&[]);
    running.signal(Signal::SIGTERM);
    until("it saves", || instance.text("trace").contains("closing"));
    assert!(instance.get("/readyz").unwrap().contains(" 503 "), "it is watched while it saves");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT] {
        running.signal(signal);
    }
    assert_eq!(running.ended(), Some(0));
    assert!(instance.text("trace").ends_with("closed\n"));
    assert!(instance.text("log/root.log").contains("stopping already"));
}

fn a_stop_during_the_load_saves_nothing() {
    let instance = Instance::new("[Toy]\nopen_ms = 60000\n");
    let mut running = instance.start("toynode", &["-c", "config.ini"]);
    until("it loads", || instance.get("/readyz").is_some_and(|text| text.contains("waiting for data")));
    until("it loads", || exists(&instance.path("trace")));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    assert_eq!(instance.text("trace"), "open\n");
}

fn a_failure_is_told_and_ends_with_1() {
    for (toy, said) in [("fail_open = true", "every record is out of range"), ("fail_close = true", "disk full")] {
        let instance = Instance::new(&format!("[Toy]\n{toy}\n"));
        let mut running = instance.start("toynode", &["-c", "config.ini"]);
        if toy.starts_with("fail_close") {
            until("it serves", || instance.get("/readyz").is_some_and(|text| text.contains(" 200 ")));
            running.signal(Signal::SIGTERM);
        }
        assert_eq!(running.ended(), Some(1), "{toy}");
        let log = instance.text("log/root.log");
        assert!(log.contains(&format!(" Fatal [toynode.main] - {said}\n")), "{log}");
    }
}

fn without_a_broker_the_report_waits_in_the_spool() {
    let instance = Instance::new("[Toy]\nfail_close = true\n[Report]\ninstance = toy-a\n");
    fs::create_dir_all(instance.path("etc/secrets")).unwrap();
    fs::write(instance.path("etc/secrets/amqp"), "secret\n").unwrap();
    // Nobody listens there.
    fs::write(instance.path("etc/amqp.conf"), "[broker]\nport = 1\n").unwrap();
    let mut running = instance.serving(&[]);
    running.signal(Signal::SIGTERM);
    let begin = Instant::now();
    assert_eq!(running.ended(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(10), "the node waited for the broker: {:?}", begin.elapsed());
    let spool = instance.path("var/spool/toy-a");
    let text = |entry: fs::DirEntry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
    let spooled: String = fs::read_dir(&spool).unwrap().map(|entry| text(entry.unwrap())).collect();
    assert!(spooled.contains("swarm.toy.perf.resource.") && spooled.contains(".toy-a"), "the first perf event");
    assert!(spooled.contains("\"state\":\"running\"") && spooled.contains("\"instance\":\"toy-a\""));
    assert!(spooled.contains("\"output\":\"stopped: disk full\"") && spooled.contains("\"state\":\"stopped\""));
}

fn loose_parsing_accepts_what_it_does_not_know() {
    let instance = Instance::new("[Unheard]\nof = 1\n");
    let mut running = instance.serving(&["--loose-config-parsing"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    assert!(instance.text("log/root.log").contains("Warn [toynode.config] - config.ini:"));
}

fn a_tool_runs_once_or_until_it_is_stopped() {
    let config = "[LOG.Root]\nfile = log/root.log\nconsole = false\n[STATS]\ninterval = 1\n";
    let instance = Instance::new("");
    fs::write(instance.path("config.ini"), config).unwrap();
    let output = instance.output("toytool", &["-c", "config.ini", "--oneshot"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let log = instance.text("log/root.log");
    assert!(log.contains(" Info [toytool.main] - working (instance=") && log.contains("Event loop exited"), "{log}");
    let stats = instance.text("log/stats.log");
    assert!(
        stats.contains(" mem_percentage:")
            && stats.contains(" records_written:5 channel/a/records_written:5 logged_debug:0 ")
    );
    let mut running = instance.start("toytool", &["-c", "config.ini"]);
    until("it works", || instance.text("log/root.log").matches("working").count() == 2);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
}
