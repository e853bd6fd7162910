//! The whole stack, installed as an operator does, doing what it is for and surviving what happens to it.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use overstory_tests::http::Client;
use overstory_tests::stack::{Stack, processes_of};
use overstory_tests::wait_for;
use serde_json::{Value, json};

/// The host's name as the connector and the engines report it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_owned()
}

/// Lets the engines resolve alarms after three seconds instead of a minute.
fn resolve_quickly(stack: &Stack) {
    let file = stack.prefix().join("etc/engines/alarms.conf");
    let text = fs::read_to_string(&file).unwrap();
    let changed: String = text
        .lines()
        .map(|line| {
            if line.starts_with("resolve_after_s") {
                "resolve_after_s = 3\n".to_owned()
            } else {
                line.to_owned() + "\n"
            }
        })
        .collect();
    assert_ne!(text, changed, "alarms.conf has no resolve_after_s");
    fs::write(file, changed).unwrap();
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn a_fresh_install_shows_the_host_takes_events_and_leaves_nothing_behind() {
    let stack = Stack::install(&["--start"]).unwrap();
    let api = stack.admin().unwrap();
    let host = host();

    // The host's series, the engines' own statistics and the host's entity are there within 20 seconds.
    for metric in ["cpu/percent-user", "memory/memory-used"] {
        let path = format!("/api/v4/metrics?entity={host}&metric={metric}");
        wait_for(&format!("series {metric}"), seconds(20), || {
            let answer = api.get_ok(&path)?;
            Ok(answer["data"].as_array().filter(|list| !list.is_empty()).map(|_| ()))
        })
        .unwrap();
    }
    wait_for("the engines' statistics", seconds(20), || {
        let answer = api.get_ok("/api/v4/metrics?search=cps_evt_per_sec&limit=100")?;
        Ok(answer["data"].as_array().filter(|list| !list.is_empty()).map(|_| ()))
    })
    .unwrap();
    let entities = api.get_ok(&format!("/api/v4/entities?search={host}&limit=100")).unwrap();
    assert!(entities["data"].as_array().unwrap().iter().any(|entity| entity["_id"] == host.as_str()), "{entities}");

    // A configuration that the operator changes counts after a restart of its service.
    resolve_quickly(&stack);
    stack.call("service", &["amqp2engines", "restart"]).unwrap();

    // A subscriber of canopsis.alerts hears of the alarm; the API shows it; OK resolves it.
    let mut alerts = Tail::start(&stack, "*.*.*.resource.storm.disk-7");
    let event = |state: u8| {
        json!({"connector": "test", "connector_name": "stack", "event_type": "check", "source_type": "resource",
            "component": "storm", "resource": "disk-7", "state": state, "output": "the disk is full"})
        .to_string()
    };
    stack.call("send_event", &["-j", &event(3)]).unwrap();
    let alarm = wait_for("the alarm", seconds(15), || {
        let answer = api.get_ok("/api/v4/alarms?opened=true&search=disk-7")?;
        Ok(answer["data"].as_array().and_then(|list| list.first().cloned()))
    })
    .unwrap();
    assert_eq!(alarm["v"]["state"]["val"], 3);
    assert_eq!(alarm["v"]["status"]["val"], 1);
    assert_eq!(alarm["entity"]["_id"], "disk-7/storm");
    stack.call("send_event", &["-j", &event(0)]).unwrap();
    wait_for("the end of the alarm", seconds(20), || {
        let answer = api.get_ok("/api/v4/alarms?opened=false&search=disk-7")?;
        Ok(answer["data"].as_array().filter(|list| !list.is_empty()).map(|_| ()))
    })
    .unwrap();
    let mut changes = Vec::new();
    while changes.last().is_none_or(|change| change != "resolve") {
        changes.push(alerts.next()["body"]["change"].as_str().unwrap().to_owned());
    }
    assert_eq!(changes.first().map(String::as_str), Some("create"));
    drop(alerts);

    // The 2015 dialect, with a state in a string.
    let old = json!({"connector": "nagios", "connector_name": "old", "event_type": "check", "source_type": "component",
        "component": "relic", "state": "2", "state_type": "1", "output": "x", "perf_data": "load1=0.25;5;10;0;"});
    stack.call("send_event", &["-j", &old.to_string()]).unwrap();
    wait_for("the alarm of the 2015 event", seconds(15), || {
        let answer = api.get_ok("/api/v4/alarms?opened=true&search=relic")?;
        Ok(answer["data"].as_array().and_then(|list| list.first().cloned()).filter(|a| a["v"]["state"]["val"] == 2))
    })
    .unwrap();
    assert!(api.get_ok("/api/v4/metrics?entity=relic&metric=load1").unwrap()["data"][0].is_object());

    // Stopping leaves no process of the prefix behind.
    let health = api.get_ok("/api/v4/healthcheck").unwrap();
    assert!(health["services"].as_array().unwrap().iter().all(|service| service["is_running"] == true), "{health}");
    stack.call("hypcontrol", &["stop"]).unwrap();
    wait_for("no process is left", seconds(5), || {
        let left = stack.processes()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(Some(()))
    })
    .unwrap();
    let prefix = stack.prefix();
    drop(stack);
    assert_eq!(processes_of(&prefix).unwrap(), []);
    assert!(!prefix.exists(), "purge left {}", prefix.display());
}

/// A subscriber of `canopsis.alerts`.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    /// Starts it and waits until the broker knows of its queue.
    fn start(stack: &Stack, key: &str) -> Self {
        let mut command = stack.command("amqp2tty");
        command.args(["canopsis.alerts", "--key", key, "--json"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        wait_for("the subscription", seconds(30), || {
            let bindings = stack.call("rabbitmqctl", &["-q", "list_bindings", "-p", "canopsis", "routing_key"])?;
            Ok(Some(()).filter(|()| bindings.lines().any(|line| line == key)))
        })
        .unwrap();
        Self { child, lines }
    }

    /// The next message as JSON.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pid of a supervised program, from `hypcontrol status --json`.
fn pid(stack: &Stack, program: &str) -> anyhow::Result<Option<u64>> {
    let status = stack.status()?;
    let services = status["services"].as_array().cloned().unwrap_or_default();
    Ok(services
        .iter()
        .find(|service| service["name"] == program)
        .filter(|service| service["state"] == "RUNNING")
        .and_then(|service| service["pid"].as_u64()))
}

fn kill_9(pid: u64) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn every_program_that_is_killed_comes_back_and_the_stack_is_whole() {
    let stack = Stack::install(&["--start"]).unwrap();
    let programs =
        ["collectd", "amqp2engines:amqp2engines-0", "amqp2engines:amqp2engines-1", "webserver", "rabbitmq-server"];
    for program in programs {
        let before =
            pid(&stack, program).unwrap().unwrap_or_else(|| panic!("{program} does not run: {:?}", stack.status()));
        kill_9(before);
        wait_for(&format!("{program} again"), seconds(60), || {
            Ok(pid(&stack, program)?.filter(|after| *after != before))
        })
        .unwrap();
    }
    // Whole again: an event passes from the API to an alarm.
    passes_an_event(&stack, "after-kills");

    // supervisord itself: its programs are stopped and started anew, none twice.
    let supervisord = fs::read_to_string(stack.prefix().join("var/run/supervisord.pid")).unwrap();
    kill_9(supervisord.trim().parse().unwrap());
    stack.call("hypcontrol", &["start"]).unwrap();
    let processes = stack.processes().unwrap();
    for word in ["bin/webserver", "bin/collectd", "beam.smp", "/supervisord -c"] {
        let found: Vec<_> = processes.iter().filter(|(_, line)| line.contains(word)).collect();
        assert_eq!(found.len(), 1, "{word}: {processes:#?}");
    }
    passes_an_event(&stack, "after-supervisord");
}

/// The instance `name` as `GET /api/v4/nodes` shows it, once `wanted` holds.
fn node(api: &Client, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("{name} in the list of nodes"), seconds(60), || {
        let answer = api.get_ok(&format!("/api/v4/nodes?search={name}/"))?;
        Ok(answer["data"].as_array().and_then(|list| list.first().cloned()).filter(|node| wanted(node)))
    })
    .unwrap()
}

#[test]
fn nodes_are_added_to_a_running_stack_seen_killed_and_removed() {
    let stack = Stack::install(&["--start"]).unwrap();
    let api = stack.admin().unwrap();
    let before = wait_for("the web server's pid", seconds(10), || pid(&stack, "webserver")).unwrap();
    stack.call("overstory", &["add", "dht", "a", "--share", "1/2", "--start"]).unwrap();
    stack.call("overstory", &["add", "dht", "b", "--share", "2/2", "--dump-process", "--start"]).unwrap();
    assert_eq!(pid(&stack, "webserver").unwrap(), Some(before), "adding a node restarted another service");

    // One client, both nodes: each record is where its key belongs.
    let etc = stack.prefix().join("etc");
    let file = |name: &str| etc.join(name).display().to_string();
    let (nodes, credentials) = (file("nodes/dht.nodes"), file("secrets/dht.credentials"));
    let swarm = |arguments: &[&str]| {
        let flags = ["dht", "--nodes", &nodes, "--credentials", &credentials];
        stack.call("swarm", &[&flags[..], arguments].concat())
    };
    for key in 0..100 {
        swarm(&["put", "test", &key.to_string(), &format!("value {key}")]).unwrap();
    }
    assert_eq!(swarm(&["get", "test", "77"]).unwrap().trim_end(), "value 77");

    // The layout: who has what, and that nothing is missing.
    let a = node(&api, "dht-a", |node| node["records"] == 50);
    let b = node(&api, "dht-b", |node| node["records"] == 50);
    node(&api, "dhtdump-b", |node| node["status"] == "running");
    assert_eq!((&a["type"], &a["status"], &a["host"]), (&json!("dht"), &json!("running"), &json!(host())));
    assert_eq!((&a["range"]["max"], &b["range"]["min"]), (&json!("0x7fffffffffffffff"), &json!("0x8000000000000000")));
    let layout = api.get_ok("/api/v4/nodes?type=dht").unwrap();
    assert_eq!(layout["meta"]["total_count"], 2);
    assert_eq!((&layout["coverage"][0]["running"], &layout["coverage"][0]["complete"]), (&json!(2), &json!(true)));

    // An orderly restart keeps the records; what is killed comes back with those of its last dump.
    stack.call("service", &["dht-a", "restart"]).unwrap();
    let killed = pid(&stack, "dht-a").unwrap().unwrap();
    kill_9(killed);
    wait_for("another dht-a", seconds(30), || Ok(pid(&stack, "dht-a")?.filter(|pid| *pid != killed))).unwrap();
    wait_for("its records", seconds(30), || {
        let all = swarm(&["getall", "test"])?;
        Ok(Some(()).filter(|()| all.lines().count() == 100))
    })
    .unwrap();
    let status = stack.command("hypcontrol").arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("dht-a accepts its own") && said.contains("dhtdump-b accepts its own"), "{said}");

    // Gone: no process, no program, no data, nothing in the list.
    stack.call("overstory", &["remove", "dht", "a", "--purge"]).unwrap();
    stack.call("overstory", &["remove", "dht", "b", "--purge"]).unwrap();
    wait_for("an empty list", seconds(30), || {
        let answer = api.get_ok("/api/v4/nodes")?;
        Ok(Some(()).filter(|()| answer["meta"]["total_count"] == 0))
    })
    .unwrap();
    let left: Vec<_> = stack.processes().unwrap().into_iter().filter(|(_, line)| line.contains("dht")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(stack.prefix().join("srv")).unwrap().count(), 0);
    assert_eq!(stack.call("overstory", &["list"]).unwrap(), "");
    assert_eq!(pid(&stack, "webserver").unwrap(), Some(before));
    assert_eq!(stack.call("overstory", &["dead", "list"]).unwrap().trim(), "no dead letters");
}

#[test]
fn queue_nodes_are_added_to_a_running_stack_seen_filled_and_removed() {
    let stack = Stack::install(&["--start"]).unwrap();
    let api = stack.admin().unwrap();
    let before = wait_for("the web server's pid", seconds(10), || pid(&stack, "webserver")).unwrap();
    stack.call("overstory", &["add", "dmq", "a", "--durability", "journal", "--start"]).unwrap();
    stack.call("overstory", &["add", "queue", "tracking", "--channel-size", "1000", "--start"]).unwrap();
    assert_eq!(pid(&stack, "webserver").unwrap(), Some(before), "adding a node restarted another service");
    let swarm = |group: &str, arguments: &[&str]| {
        let etc = stack.prefix().join("etc");
        let nodes = etc.join(format!("nodes/{group}.nodes")).display().to_string();
        let credentials = etc.join(format!("secrets/{group}.credentials")).display().to_string();
        let flags = ["dmq", "--nodes", &nodes, "--credentials", &credentials];
        stack.call("swarm", &[&flags[..], arguments].concat())
    };
    for number in 0..20 {
        swarm("dmq", &["push", "clicks", &format!("click {number}")]).unwrap();
    }
    assert_eq!(swarm("dmq", &["pop", "clicks"]).unwrap(), "click 0\n");

    // Nine records of 92 bytes are nine tenths of the queue.
    for _ in 0..9 {
        swarm("tracking", &["push", "views", &"v".repeat(92)]).unwrap();
    }

    // Both are in the list, without a part of the hash space; the full one has an alarm.
    let dmq = node(&api, "dmq-a", |node| node["records"] == 19);
    let (kind, program, status) = (&dmq["type"], &dmq["program"], &dmq["status"]);
    assert_eq!((kind, program, status), (&json!("dmq"), &json!("dmqnode"), &json!("running")));
    assert_eq!((&dmq["range"], &dmq["group"], &dmq["host"]), (&Value::Null, &json!("dmq"), &json!(host())));
    // What else is wrong with this machine, such as its disk, is in the alarm, too.
    let is_full = |node: &Value| node["alarm"]["output"].as_str().is_some_and(|said| said.contains("views 90 %"));
    let queue = node(&api, "queue-tracking", |node| node["records"] == 9 && is_full(node));
    assert_eq!((&queue["type"], &queue["group"]), (&json!("queue"), &json!("tracking")));
    assert!(queue["alarm"]["state"].as_u64() >= Some(2), "{queue}");
    let layout = api.get_ok("/api/v4/nodes?type=dmq,queue").unwrap();
    assert_eq!((&layout["meta"]["total_count"], &layout["coverage"]), (&json!(2), &json!([])));

    // Room again: the alarm turns to ok. hypcontrol looks after both like after anything else.
    for _ in 0..9 {
        swarm("tracking", &["pop", "views"]).unwrap();
    }
    node(&api, "queue-tracking", |node| node["records"] == 0 && !is_full(node));
    let services = stack.status().unwrap()["services"].as_array().unwrap().clone();
    for name in ["dmq-a", "queue-tracking"] {
        let ready = |service: &Value| service["name"] == name && service["state"] == "RUNNING";
        assert!(services.iter().any(ready), "{name}: {services:?}");
    }
    let check = stack.command("hypcontrol").arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("dmq-a accepts its own") && said.contains("queue-tracking accepts its own"), "{said}");

    // Killed, then the whole stack stopped and started: what was answered is there.
    let killed = pid(&stack, "dmq-a").unwrap().unwrap();
    kill_9(killed);
    wait_for("another dmq-a", seconds(30), || Ok(pid(&stack, "dmq-a")?.filter(|pid| *pid != killed))).unwrap();
    let next = wait_for("its records", seconds(30), || Ok(swarm("dmq", &["pop", "clicks"]).ok())).unwrap();
    assert_eq!(next, "click 1\n");
    stack.call("hypcontrol", &["stop"]).unwrap();
    stack.call("hypcontrol", &["start"]).unwrap();
    assert_eq!(swarm("dmq", &["pop", "clicks", "--all"]).unwrap().lines().count(), 18);

    stack.call("overstory", &["remove", "dmq", "a", "--purge"]).unwrap();
    stack.call("overstory", &["remove", "queue", "tracking", "--purge"]).unwrap();
    let api = stack.admin().unwrap();
    wait_for("an empty list", seconds(30), || {
        let answer = api.get_ok("/api/v4/nodes")?;
        Ok(Some(()).filter(|()| answer["meta"]["total_count"] == 0))
    })
    .unwrap();
    let named = |line: &str| line.contains("dmqnode") || line.contains("queuenode");
    let left: Vec<_> = stack.processes().unwrap().into_iter().filter(|(_, line)| named(line)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(stack.prefix().join("srv")).unwrap().count(), 0);
    assert_eq!(stack.call("overstory", &["dead", "list"]).unwrap().trim(), "no dead letters");
}

#[test]
fn logfiles_nodes_are_added_to_a_running_stack_seen_filled_killed_and_removed() {
    let stack = Stack::install(&["--start"]).unwrap();
    let api = stack.admin().unwrap();
    let before = wait_for("the web server's pid", seconds(10), || pid(&stack, "webserver")).unwrap();
    stack.call("overstory", &["add", "logfiles", "old", "--maxval", "999999999", "--start"]).unwrap();
    let options = ["--minval", "1000000000", "--sync", "always", "--format", "v2", "--start"];
    stack.call("overstory", &[&["add", "logfiles", "new"], &options[..]].concat()).unwrap();
    assert_eq!(pid(&stack, "webserver").unwrap(), Some(before), "adding a node restarted another service");
    let swarm = |arguments: &[&str]| stack.call("swarm", &[&["logfiles"], arguments].concat());
    for number in 0..20 {
        let (early, late) = (format!("{}", 900_000_000 + number), format!("{}", 1_700_000_000 + number * 10_000));
        swarm(&["put", "access", &format!("early {number}"), "--timestamp", &early]).unwrap();
        swarm(&["put", "access", &format!("late {number}"), "--timestamp", &late]).unwrap();
    }
    let range = ["getrange", "access", "900000019", "1700010000", "--sorted"];
    assert_eq!(swarm(&range).unwrap(), "900000019\tearly 19\n1700000000\tlate 0\n1700010000\tlate 1\n");

    // Both are in the list with their timestamps, which together are all.
    let old = node(&api, "logfiles-old", |node| node["records"] == 20);
    let new = node(&api, "logfiles-new", |node| node["records"] == 20);
    let (kind, program, status) = (&old["type"], &old["program"], &old["status"]);
    assert_eq!((kind, program, status), (&json!("logfiles"), &json!("logfilesnode"), &json!("running")));
    assert_eq!((&old["group"], &old["host"], &old["channels"]), (&json!("logfiles"), &json!(host()), &json!(1)));
    assert_eq!(old["range"], json!({"min": "0x0000000000000000", "max": "0x000000003b9ac9ff"}));
    assert_eq!(new["range"], json!({"min": "0x000000003b9aca00", "max": "0xffffffffffffffff"}));
    let layout = api.get_ok("/api/v4/nodes?type=logfiles").unwrap();
    assert_eq!((&layout["meta"]["total_count"], &layout["coverage"][0]["complete"]), (&json!(2), &json!(true)));

    // hypcontrol looks after them like after anything else.
    let services = stack.status().unwrap()["services"].as_array().unwrap().clone();
    for name in ["logfiles-old", "logfiles-new"] {
        let ready = |service: &Value| service["name"] == name && service["state"] == "RUNNING";
        assert!(services.iter().any(ready), "{name}: {services:?}");
    }
    let check = stack.command("hypcontrol").arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("logfiles-old accepts its own") && said.contains("logfiles-new accepts its own"), "{said}");

    // Killed, then the whole stack stopped and started: what was answered is there.
    let killed = pid(&stack, "logfiles-new").unwrap().unwrap();
    kill_9(killed);
    wait_for("another logfiles-new", seconds(30), || Ok(pid(&stack, "logfiles-new")?.filter(|pid| *pid != killed)))
        .unwrap();
    let all = wait_for("its records", seconds(30), || Ok(swarm(&["getall", "access"]).ok())).unwrap();
    assert_eq!(all.lines().count(), 40);
    stack.call("hypcontrol", &["stop"]).unwrap();
    let data = |name: &str| stack.prefix().join(format!("srv/logfiles-{name}/data")).display().to_string();
    stack.call("logfiles_check", &[&data("old"), &data("new")]).unwrap();
    stack.call("hypcontrol", &["start"]).unwrap();
    assert_eq!(swarm(&["getall", "access", "--contains", "late"]).unwrap().lines().count(), 20);

    stack.call("overstory", &["remove", "logfiles", "old", "--purge"]).unwrap();
    stack.call("overstory", &["remove", "logfiles", "new", "--purge"]).unwrap();
    let api = stack.admin().unwrap();
    wait_for("an empty list", seconds(30), || {
        let answer = api.get_ok("/api/v4/nodes")?;
        Ok(Some(()).filter(|()| answer["meta"]["total_count"] == 0))
    })
    .unwrap();
    let left: Vec<_> = stack.processes().unwrap().into_iter().filter(|(_, line)| line.contains("logfiles")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(stack.prefix().join("srv")).unwrap().count(), 0);
    assert_eq!(stack.call("overstory", &["dead", "list"]).unwrap().trim(), "no dead letters");
}

/// Sets the `enabled` of a section of a configuration file.
fn enable(stack: &Stack, file: &str, section: &str) {
    let file = stack.prefix().join("etc").join(file);
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once(&format!("\n[{section}]\n")).unwrap();
    let changed = after.replacen("\nenabled = false\n", "\nenabled = true\n", 1);
    assert_ne!(changed, after, "{} has no enabled = false in [{section}]", file.display());
    fs::write(file, format!("{before}\n[{section}]\n{changed}")).unwrap();
}

#[test]
fn every_event_is_kept_and_read_back() {
    let stack = Stack::install(&["--start"]).unwrap();
    let api = stack.admin().unwrap();
    let installed = fs::metadata(stack.prefix().join("etc/initial-admin-password")).unwrap().modified().unwrap();
    let from = installed.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let events = |question: &str| format!("/api/v4/events?from={from}&to={}{question}", from + 900);
    let answer = api.get(&events("")).unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text);

    // As OPERATIONS says.
    let options = ["--sync", "always", "--compress-after", "events-=2", "--delete-after", "events-=397", "--start"];
    stack.call("overstory", &[&["add", "logfiles", "events"], &options[..]].concat()).unwrap();
    enable(&stack, "engines/archive.conf", "engine");
    enable(&stack, "webserver.conf", "archive");
    stack.call("service", &["amqp2engines", "restart"]).unwrap();
    stack.call("service", &["webserver", "restart"]).unwrap();
    let api = stack.admin().unwrap();

    let event = |resource: &str, output: &str| {
        json!({"connector": "test", "connector_name": "stack", "event_type": "check", "source_type": "resource",
            "component": "keeper", "resource": resource, "state": 1, "output": output, "extra": {"kept": [1, 2]}})
    };
    let sent = [event("disk-1", "first"), event("disk-10", "another's"), event("disk-1", "second")];
    for event in &sent {
        stack.call("send_event", &["-j", &event.to_string()]).unwrap();
    }
    let found = |question: &str, count: usize| {
        wait_for(question, seconds(30), || {
            let answer = api.get_ok(&events(question))?;
            Ok(answer["data"].as_array().filter(|list| list.len() >= count).cloned())
        })
        .unwrap()
    };
    let kept = found("&entity=disk-1/keeper", 2);
    let outputs: Vec<_> = kept.iter().map(|event| event["event"]["output"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["first", "second"]);
    assert_eq!((&kept[0]["entity"], &kept[0]["event"]["extra"]), (&json!("disk-1/keeper"), &sent[0]["extra"]));
    assert_eq!(found("&component=keeper", 3).len(), 3);
    // What the host's connector sends is there, too.
    found(&format!("&component={}", host()), 1);

    // While the node is away, and its reader with it, nothing of the platform stops; later all is there.
    stack.call("service", &["logfiles-events", "stop"]).unwrap();
    let away = api.get(&events("&component=keeper")).unwrap();
    assert_eq!(away.status, 503, "{}", away.text);
    passes_an_event(&stack, "while-away");
    stack.call("service", &["logfiles-events", "start"]).unwrap();
    assert_eq!(found("&entity=while-away", 1)[0]["event"]["state"], 3);
    assert_eq!(found("&component=keeper", 3).len(), 3);
    stack.call("hypcontrol", &["stop"]).unwrap();
    let data = stack.prefix().join("srv/logfiles-events/data").display().to_string();
    stack.call("logfiles_check", &[&data]).unwrap();
}

/// Sends a critical event for `component` and waits for its alarm.
fn passes_an_event(stack: &Stack, component: &str) {
    let event = json!({"connector": "test", "connector_name": "stack", "event_type": "check", "component": component,
        "source_type": "component", "state": 3, "output": "x"});
    wait_for("the event is taken", seconds(30), || stack.call("send_event", &["-j", &event.to_string()]).map(Some))
        .unwrap();
    let api = wait_for("login", seconds(30), || stack.admin().map(Some)).unwrap();
    wait_for("the alarm", seconds(40), || {
        let answer = api.get_ok(&format!("/api/v4/alarms?opened=true&search={component}"))?;
        Ok(answer["data"].as_array().filter(|list| !list.is_empty()).map(|_| ()))
    })
    .unwrap();
}

#[test]
fn a_real_collectd_gives_the_hosts_series() {
    let stack = Stack::install(&["--start"]).unwrap();
    let amqp = fs::read_to_string(stack.prefix().join("etc/amqp.conf")).unwrap();
    let port = amqp.lines().find_map(|line| line.strip_prefix("port = ")).unwrap().trim().to_owned();
    let password = fs::read_to_string(stack.prefix().join("etc/secrets/amqp")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().display();
    let configuration = format!(
        "Hostname \"real.example.org\"\nFQDNLookup false\nInterval 1\nBaseDir \"{base}\"\nPIDFile \"{base}/pid\"\n\
         PluginDir \"/usr/lib/collectd\"\nTypesDB \"/usr/share/collectd/types.db\"\n\
         LoadPlugin cpu\nLoadPlugin memory\nLoadPlugin load\nLoadPlugin amqp\n\
         <Plugin cpu>\n  ReportByCpu false\n  ValuesPercentage true\n</Plugin>\n\
         <Plugin amqp>\n  <Publish \"overstory\">\n    Host \"127.0.0.1\"\n    Port \"{port}\"\n    VHost \"canopsis\"\n\
         User \"overstory\"\n    Password \"{}\"\n    Exchange \"amq.topic\"\n    Format \"JSON\"\n    StoreRates true\n\
         </Publish>\n</Plugin>\n",
        password.trim()
    );
    let file = directory.path().join("collectd.conf");
    fs::write(&file, configuration).unwrap();
    let mut collectd = Command::new("/usr/sbin/collectd").arg("-f").arg("-C").arg(&file).spawn().unwrap();
    let api = stack.admin().unwrap();
    let found = ["cpu/percent-user", "memory/memory-used", "load/load/shortterm"].iter().try_for_each(|metric| {
        let path = format!("/api/v4/metrics?entity=real.example.org&metric={metric}");
        wait_for(metric, seconds(30), || {
            let answer = api.get_ok(&path)?;
            Ok(answer["data"].as_array().filter(|list| !list.is_empty()).map(|_| ()))
        })
    });
    collectd.kill().unwrap();
    collectd.wait().unwrap();
    found.unwrap();
}

#[test]
fn no_tick_of_the_connector_is_lost_while_the_broker_is_away_for_a_minute() {
    let stack = Stack::install(&[]).unwrap();
    let file = stack.prefix().join("etc/collectd.conf");
    let text = fs::read_to_string(&file).unwrap();
    let changed: Vec<_> =
        text.lines().map(|line| if line.starts_with("interval_s") { "interval_s = 1" } else { line }).collect();
    fs::write(&file, changed.join("\n") + "\n").unwrap();
    stack.call("hypcontrol", &["start"]).unwrap();
    let api = stack.admin().unwrap();
    let path = format!("/api/v4/metrics?entity={}&metric=load/load/shortterm&from=0&to=4000000000", host());
    let ticks = || -> anyhow::Result<Vec<i64>> {
        let points = api.get_ok(&path)?["data"]["points"].as_array().cloned().unwrap_or_default();
        Ok(points.iter().filter_map(|point| point["t"].as_f64()).map(|t| t.floor() as i64).collect())
    };
    let first = wait_for("the first ticks", seconds(20), || Ok(ticks()?.get(2).copied())).unwrap();

    stack.call("service", &["rabbitmq-server", "stop"]).unwrap();
    let down = wait_for("a minute", seconds(90), || Ok(Some(now()).filter(|now| *now >= first + 60))).unwrap();
    stack.call("service", &["rabbitmq-server", "start"]).unwrap();

    // Every tick that was taken has its point: the spool was drained, none was lost and none came twice.
    wait_for("ticks after the outage", seconds(60), || {
        Ok(Some(()).filter(|()| ticks().is_ok_and(|all| all.last().is_some_and(|last| *last > down + 5))))
    })
    .unwrap();
    let conf = fs::read_to_string(file).unwrap();
    let admin = conf.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap().trim_matches('"').to_owned();
    wait_for("as many points as ticks", seconds(20), || {
        let metrics = Client::anonymous(&admin).get("/metrics")?.text;
        let taken = metrics.lines().find_map(|line| line.strip_prefix("overstory_collectd_ticks_total "));
        let (taken, stored) = (taken.context("no ticks")?.parse::<usize>()?, ticks()?);
        let during = stored.iter().filter(|second| (first..=down).contains(second)).count();
        ensure!(stored.len() == taken && during > 50, "{taken} ticks, {} points, {during} of the outage", stored.len());
        Ok(Some(()))
    })
    .unwrap();
    assert_eq!(stack.call("overstory", &["dead", "list"]).unwrap().trim(), "no dead letters");
}

/// The present Unix second.
fn now() -> i64 {
    let output = Command::new("date").arg("+%s").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}
