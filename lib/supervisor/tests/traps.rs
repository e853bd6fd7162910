//! What supervisord does that surprises people, each met on a real one and shown to be dealt with.

#![allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]

use std::time::Duration;

use futures_util::future::join_all;
use overstory_supervisor::daemon::Upkeep;
use overstory_supervisor::journal::ExitOutcome;
use overstory_supervisor::process_table::{self, StrayKind};
use overstory_supervisor::services::{ActionOutcome, Condition, Done, Services};
use overstory_supervisor::{Daemon, Layout, ProcessInfo, ProcessName, ProcessState};
use overstory_testkit::supervisord::{SupervisordPrefix, is_live};
use tokio::time::{Instant, sleep};

const FOREVER: &str = "exec sleep 1000";

fn prefix() -> SupervisordPrefix {
    SupervisordPrefix::new().unwrap()
}

fn open(prefix: &SupervisordPrefix) -> Services {
    Services::open(prefix.path())
}

async fn start(services: &Services, name: &str) -> Vec<ActionOutcome> {
    services.start(&services.catalogue().resolve(name)).await.unwrap()
}

async fn started(services: &Services, name: &str) {
    for outcome in start(services, name).await {
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }
}

async fn pid(services: &Services, name: &str) -> i32 {
    services.supervisor().process(&name.parse().unwrap()).await.unwrap().pid.unwrap()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The interface says exit status 0 for a program that died with 7 within startsecs. Operators were left with "Exited
/// too quickly". supervisord's own log has the code, and the failure comes with it, at once.
#[tokio::test]
async fn the_exit_code_of_a_quick_crash_comes_from_the_log() {
    let prefix = prefix();
    prefix.program("web", "echo one; echo two; exit 7", &[]).unwrap();
    let services = open(&prefix);
    let begun = Instant::now();
    let failure = start(&services, "web").await.remove(0).result.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(6), "reported after {:?}", begun.elapsed());
    assert_eq!(services.supervisor().process(&ProcessName::lone("web")).await.unwrap().exit_status, 0);
    assert_eq!(failure.exit, Some(ExitOutcome::Code(7)));
    assert_eq!(failure.last_lines[failure.last_lines.len() - 2..], ["one", "two"]);
    assert_eq!(failure.log.unwrap(), prefix.path().join("var/log/web.log"));
}

/// With startsecs=0 a program that exits at once was RUNNING for an instant, and one look took it for started.
#[tokio::test]
async fn a_program_without_startsecs_that_exits_at_once_has_failed() {
    let prefix = prefix();
    prefix.program("job", "exit 5", &["startsecs=0", "autorestart=false"]).unwrap();
    let services = open(&prefix);
    let failure = start(&services, "job").await.remove(0).result.unwrap_err();
    assert_eq!(failure.exit, Some(ExitOutcome::Code(5)));
}

/// A program that dies after startsecs is restarted for ever, and each look that meets it alive says RUNNING.
#[tokio::test]
async fn a_program_that_keeps_dying_after_startsecs_is_a_crash_loop() {
    let prefix = prefix();
    prefix.program("loop", "sleep 0.3; exit 3", &["startsecs=0", "autorestart=true"]).unwrap();
    prefix.program("steady", FOREVER, &[]).unwrap();
    let services = open(&prefix);
    started(&services, "steady").await;
    start(&services, "loop").await;
    until("crash loop", async || {
        let all = services.list().await.unwrap();
        assert_ne!(all.iter().find(|s| s.service == "steady").unwrap().state, Condition::CrashLoop);
        all.iter().any(|s| s.service == "loop" && s.state == Condition::CrashLoop)
    })
    .await;
    // Stopped while it is between two lives, it must not come back. If it dies by itself just then, that is told.
    let stopped = services.stop(&services.catalogue().resolve("loop")).await.unwrap().remove(0);
    match stopped.result {
        Ok(done) => assert_eq!(done, Done::Stopped),
        Err(failure) => assert_eq!(failure.reason, "was stopped and ended with an error", "{failure:?}"),
    }
    let info = services.supervisor().process(&ProcessName::lone("loop")).await.unwrap();
    assert!(info.state.is_down() && info.pid.is_none(), "{info:?}");
}

/// A command that is missing is refused at once and never becomes FATAL.
#[tokio::test]
async fn a_missing_command_is_named() {
    let prefix = prefix();
    prefix.section("absent", &["command=/nowhere/absent --now"]).unwrap();
    let failure = start(&open(&prefix), "absent").await.remove(0).result.unwrap_err();
    assert_eq!(failure.reason, "the command does not exist: /nowhere/absent --now");
}

/// A SIGTERM that comes between the fork and the exec of a program is lost, and a stop then took stopwaitsecs. The
/// program here ignores its first SIGTERM in the same way; the second one comes after half a second.
#[tokio::test]
async fn a_stop_right_after_the_start_does_not_hang() {
    let prefix = prefix();
    let deaf_once = "trap 'trap \"exit 0\" TERM' TERM; touch armed; while :; do sleep 0.05; done";
    let directory = format!("directory={}", prefix.path().join("tmp").display());
    prefix.program("web", deaf_once, &["startsecs=0", "stopwaitsecs=30", &directory]).unwrap();
    let services = open(&prefix);
    services.ensure_up().await.unwrap();
    services.supervisor().start(&ProcessName::lone("web")).await.unwrap();
    until("the trap", async || prefix.path().join("tmp/armed").exists()).await;
    let begun = Instant::now();
    let outcome = services.stop(&services.catalogue().resolve("web")).await.unwrap().remove(0);
    assert_eq!(outcome.result, Ok(Done::Stopped));
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(10), "{took:?}");
}

/// The second signal would make one of our programs give up what it is finishing: one that has run for a while, and so
/// has certainly had the first, gets no second.
#[tokio::test]
async fn a_program_that_takes_its_time_to_end_is_not_hurried() {
    let prefix = prefix();
    let counts = "trap 'echo TERM; n=1' TERM; touch armed; while [ -z \"$n\" ]; do sleep 0.05; done; sleep 1 & \
                  wait $!; wait $!; exit 0";
    let directory = format!("directory={}", prefix.path().join("tmp").display());
    prefix.program("web", counts, &["stopwaitsecs=30", &directory]).unwrap();
    let services = open(&prefix);
    started(&services, "web").await;
    let process = pid(&services, "web").await;
    until("two seconds of life", async || {
        process_table::age_of(process).is_some_and(|age| age > Duration::from_secs(2))
    })
    .await;
    let outcome = services.stop(&services.catalogue().resolve("web")).await.unwrap().remove(0);
    assert_eq!(outcome.result, Ok(Done::Stopped));
    assert_eq!(prefix.read("var/log/web.log"), "TERM\n");
}

/// `update` of a group with a new member stopped all its members and left them stopped.
#[tokio::test]
async fn a_member_added_to_a_group_does_not_disturb_the_others() {
    let prefix = prefix();
    prefix.program("e", FOREVER, &["numprocs=2"]).unwrap();
    let services = open(&prefix);
    started(&services, "e").await;
    let before = (pid(&services, "e:e-0").await, pid(&services, "e:e-1").await);
    prefix.program("e", FOREVER, &["numprocs=3"]).unwrap();
    let services = open(&prefix);
    let outcomes = start(&services, "e").await;
    let refused: Vec<_> = outcomes.iter().filter_map(|o| o.result.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{outcomes:?}");
    assert!(refused[0].reason.contains("`service e restart`"), "{}", refused[0].reason);
    assert_eq!((pid(&services, "e:e-0").await, pid(&services, "e:e-1").await), before);
    let outcomes = services.restart(&services.catalogue().resolve("e")).await.unwrap();
    assert!(outcomes.len() == 3 && outcomes.iter().all(|o| o.result == Ok(Done::Started)), "{outcomes:?}");
}

/// supervisord parses every file at once; whoever loaded what had changed restarted services of other people.
#[tokio::test]
async fn the_configuration_of_another_service_is_not_applied() {
    let prefix = prefix();
    prefix.program("mine", FOREVER, &[]).unwrap();
    prefix.program("theirs", FOREVER, &[]).unwrap();
    let services = open(&prefix);
    started(&services, "mine").await;
    started(&services, "theirs").await;
    let theirs = pid(&services, "theirs").await;
    services.stop(&services.catalogue().resolve("mine")).await.unwrap();
    for name in ["mine", "theirs", "new"] {
        prefix.program(name, &format!("echo changed; {FOREVER}"), &["startsecs=2"]).unwrap();
    }
    let services = open(&prefix);
    started(&services, "mine").await;
    assert_eq!(prefix.read("var/log/mine.log"), "changed\n");
    assert_eq!(pid(&services, "theirs").await, theirs);
    let diff = services.supervisor().reread().await.unwrap();
    assert_eq!((diff.changed, diff.added), (vec!["theirs".to_owned()], vec!["new".to_owned()]));
    // Its own start says that it runs as it was before.
    let outcome = start(&services, "theirs").await.remove(0);
    assert_eq!(outcome.result, Ok(Done::AlreadyStarted));
    assert!(outcome.note.unwrap().contains("`service theirs restart`"));
}

/// A syntax error in any file makes the whole reload fail; what is loaded goes on and can be started.
#[tokio::test]
async fn a_syntax_error_keeps_the_running_set() {
    let prefix = prefix();
    prefix.program("web", FOREVER, &[]).unwrap();
    prefix.program("idle", FOREVER, &[]).unwrap();
    let services = open(&prefix);
    started(&services, "web").await;
    let web = pid(&services, "web").await;
    prefix.write("etc/supervisord.d/broken.conf", "[program:broken]\ncommand=/bin/true\nnumprocs=three\n").unwrap();
    prefix.program("fresh", FOREVER, &[]).unwrap();
    let services = open(&prefix);
    assert!(services.catalogue().problems[0].contains("broken.conf"), "{:?}", services.catalogue().problems);
    let outcome = start(&services, "idle").await.remove(0);
    assert_eq!(outcome.result, Ok(Done::Started));
    let note = outcome.note.unwrap();
    assert!(note.contains("the loaded one stays") && note.contains("three"), "{note}");
    assert_eq!(pid(&services, "web").await, web);
    let failure = start(&services, "fresh").await.remove(0).result.unwrap_err();
    assert!(failure.reason.starts_with("its configuration cannot be read"), "{}", failure.reason);
}

/// A log with terminal colours and NUL is sent as XML that no parser takes, and one with bytes that are not UTF-8 is
/// not handed out at all.
#[tokio::test]
async fn a_log_with_any_bytes_can_be_read() {
    let prefix = prefix();
    prefix.program("colour", &format!("printf 'a\\033[31mred\\000\\001end\\n'; {FOREVER}"), &[]).unwrap();
    prefix.program("binary", "printf 'bad \\377\\376 bytes\\n'; exit 1", &[]).unwrap();
    let services = open(&prefix);
    started(&services, "colour").await;
    let tail = services.supervisor().tail_log(&ProcessName::lone("colour"), 0, 1000).await.unwrap();
    assert_eq!(tail.text, "a\u{1b}[31mred\0\u{1}end\n");
    assert_eq!((tail.next_offset, tail.overflow), (15, false));
    let failure = start(&services, "binary").await.remove(0).result.unwrap_err();
    assert_eq!(failure.last_lines.last().unwrap(), "bad \u{FFFD}\u{FFFD} bytes");
}

/// `%(here)s` is the folder of the included file, not that of the main one.
#[tokio::test]
async fn here_is_the_folder_of_the_included_file() {
    let prefix = prefix();
    prefix.program("web", "echo hello; exec sleep 1000", &["hyp_ready=unix:%(here)s/../../var/run/web.sock"]).unwrap();
    let services = open(&prefix);
    started(&services, "web").await;
    assert_eq!(prefix.read("var/log/web.log"), "hello\n");
    let loaded = services.supervisor().process(&ProcessName::lone("web")).await.unwrap().stdout_log;
    let defined = &services.catalogue().service("web").unwrap().processes[0];
    assert_eq!(loaded, defined.stdout_log);
    let ours = format!("unix:{}", prefix.path().join("etc/supervisord.d/../../var/run/web.sock").display());
    assert_eq!(defined.ready[0].to_string(), ours);
}

/// Several starts at once raced: two supervisords, or a program started twice.
#[tokio::test]
async fn starts_at_the_same_time_start_one_supervisord_and_one_process() {
    let prefix = prefix();
    prefix.program("web", FOREVER, &[]).unwrap();
    prefix.program("db", FOREVER, &[]).unwrap();
    let names = ["web", "db", "web", "web", "db", "web"];
    let all = join_all(names.map(async |name| start(&open(&prefix), name).await)).await;
    assert!(all.iter().flatten().all(|o| o.result.is_ok()), "{all:?}");
    assert_eq!(prefix.children().len(), 2);
}

/// A second supervisord on the same socket ends with "Another program is already listening on a port". The first one
/// stays, and we never get there: an answer on the socket is asked for first.
#[tokio::test]
async fn a_second_supervisord_is_not_started() {
    let prefix = prefix();
    let daemon = Daemon::new(Layout::new(prefix.path()));
    assert_eq!(daemon.ensure_up().await.unwrap(), Upkeep::Started);
    let first = daemon.identity().await.unwrap().unwrap();
    assert_eq!(daemon.ensure_up().await.unwrap(), Upkeep::WasUp);
    let conf = prefix.path().join("etc/supervisord.conf");
    let second = std::process::Command::new("supervisord").arg("-c").arg(conf).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert_eq!(daemon.identity().await.unwrap().unwrap(), first);
}

/// A killed supervisord leaves its socket and its pid file, and its programs run on. The next one starts each of them a
/// second time. They are found by their environment, told apart from helpers of what runs, and ended.
#[tokio::test]
async fn what_a_killed_supervisord_left_behind_is_found_and_ended() {
    let prefix = prefix();
    prefix.program("web", FOREVER, &[]).unwrap();
    prefix.program("deaf", "trap '' TERM; while :; do sleep 0.1; done", &["stopwaitsecs=1"]).unwrap();
    prefix.program("helped", "setsid sleep 1000 & exec sleep 1000", &[]).unwrap();
    let services = open(&prefix);
    for name in ["web", "deaf"] {
        started(&services, name).await;
    }
    let orphans = (pid(&services, "web").await, pid(&services, "deaf").await);
    let first = services.daemon().unwrap().identity().await.unwrap().unwrap().pid;
    SupervisordPrefix::kill_hard(first);
    until("its death", async || !is_live(first)).await;
    assert!(prefix.socket().exists());
    assert!(services.daemon().unwrap().identity().await.unwrap().is_none());
    assert!(is_live(orphans.0) && is_live(orphans.1));
    let strays = process_table::find_strays(&prefix.socket(), None, &[]);
    assert_eq!(strays.len(), 2, "{strays:?}");

    // On the stale socket a new one comes up; `web` then runs twice.
    started(&services, "web").await;
    started(&services, "helped").await;
    let daemon = services.daemon().unwrap().identity().await.unwrap().map(|identity| identity.pid);
    let infos: Vec<ProcessInfo> = services.infos().await.unwrap();
    let strays = process_table::find_strays(&prefix.socket(), daemon, &infos);
    let found: Vec<_> = strays.iter().map(|s| (s.service.to_string(), s.pid, s.kind, s.duplicate)).collect();
    assert_eq!(
        found,
        [
            ("deaf".to_owned(), orphans.1, StrayKind::Orphan, false),
            ("web".to_owned(), orphans.0, StrayKind::Orphan, true),
        ]
    );
    let patience = |_: &ProcessName| Duration::from_millis(500);
    let ended = process_table::reap(&prefix.socket(), services.supervisor(), patience).await.unwrap();
    assert!(ended.len() >= 2 && !is_live(orphans.0) && !is_live(orphans.1), "{ended:?}");
    let after = services.infos().await.unwrap();
    assert!(after.iter().filter(|i| i.state == ProcessState::Running).count() == 2, "{after:?}");

    // A helper of a service that has been stopped is left over.
    services.stop(&services.catalogue().resolve("helped")).await.unwrap();
    let left = process_table::find_strays(&prefix.socket(), daemon, &services.infos().await.unwrap());
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].service.to_string().as_str(), left[0].kind), ("helped", StrayKind::Leftover));
}

/// Without an installation the error says what is missing, and a supervisord that refuses its configuration is quoted.
#[tokio::test]
async fn what_keeps_supervisord_from_starting_is_said() {
    let prefix = prefix();
    let error = |prefix: &SupervisordPrefix| {
        let daemon = Daemon::new(Layout::new(prefix.path()));
        async move { daemon.ensure_up().await.unwrap_err().to_string() }
    };
    prefix.program("bad", FOREVER, &["startsecs=soon"]).unwrap();
    let refused = error(&prefix).await;
    assert!(refused.contains("soon") && refused.contains("program:bad"), "{refused}");
    std::fs::remove_file(prefix.path().join("etc/supervisord.conf")).unwrap();
    let missing = error(&prefix).await;
    assert!(missing.ends_with("supervisord.conf is missing: this prefix holds no installation"), "{missing}");
}
