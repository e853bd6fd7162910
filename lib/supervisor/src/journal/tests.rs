use super::*;
use crate::api::{ProcessName, ProcessState};

const LOG: &str = "\
2026-11-21 05:59:00,100 INFO exited: web (exit status 9; not expected)
2026-11-21 06:00:00,100 INFO supervisord started with pid 100
2026-11-21 06:00:01,123 INFO spawned: 'web' with pid 101
2026-11-21 06:00:02,123 INFO success: web entered RUNNING state, process has stayed up for > than 1 seconds (startsecs)
2026-11-21 06:00:03,123 WARN exited: web (terminated by SIGKILL; not expected)
2026-11-21 06:00:04,123 INFO spawned: 'web' with pid 102
2026-11-21 06:00:06,000 INFO exited: web (exit status 7; not expected)
2026-11-21 06:00:06,500 INFO spawned: 'web' with pid 103
2026-11-21 06:00:08,000 INFO spawned: 'db' with pid 104
2026-11-21 06:00:09,000 INFO stopped: db (terminated by SIGTERM (core dumped))
nonsense
2026-13-45 99:00:00,000 INFO spawned: 'web' with pid 1
";

fn info(name: &str, pid: i32, start: i64) -> ProcessInfo {
    ProcessInfo {
        name: ProcessName::lone(name),
        state: ProcessState::Running,
        pid: Some(pid),
        start,
        stop: 0,
        now: start,
        spawn_error: String::new(),
        exit_status: 0,
        stdout_log: None,
    }
}

/// 2026-11-21 06:00:06 as Unix seconds.
const AT: i64 = 1_795_240_806;

#[test]
fn exits_are_told_with_code_or_signal() {
    let journal = Journal::parse(LOG, &[info("web", 103, AT)]);
    let web = journal.history("web", AT + 3);
    assert_eq!(web.last_outcome, Some(ExitOutcome::Code(7)));
    assert_eq!((web.recent_starts, web.recent_exits, web.restarts), (3, 2, 2));
    assert!(web.is_crash_loop());
    let db = journal.history("db", AT + 10);
    assert_eq!(db.last_outcome, Some(ExitOutcome::Signal("SIGTERM (core dumped)".to_owned())));
    assert!(!db.is_crash_loop());
    assert_eq!(journal.history("none", AT), History::default());
}

#[test]
fn a_crash_loop_is_forgotten_after_a_minute() {
    let journal = Journal::parse(LOG, &[info("web", 103, AT)]);
    let web = journal.history("web", AT + 70);
    assert_eq!((web.recent_starts, web.restarts), (0, 2));
    assert!(!web.is_crash_loop());
}

#[test]
fn a_program_that_runs_longer_than_before_has_got_over_it() {
    let journal = Journal::parse(LOG, &[info("web", 103, AT)]);
    let web = journal.history("web", AT + 5);
    assert_eq!((web.longest_recent_run, web.present_run, web.recent_starts), (2, 5, 3));
    assert!(!web.is_crash_loop());
    // A program that lives for twenty seconds each time has not.
    let slow = "2026-11-21 06:00:00,000 INFO spawned: 'web' with pid 1\n2026-11-21 06:00:20,000 INFO exited: web (exit status 1)\n\
        2026-11-21 06:00:20,000 INFO spawned: 'web' with pid 2\n2026-11-21 06:00:40,000 INFO exited: web (exit status 1)\n\
        2026-11-21 06:00:40,000 INFO spawned: 'web' with pid 3\n";
    assert!(Journal::parse(slow, &[]).history("web", AT + 44).is_crash_loop());
}

#[test]
fn the_time_zone_of_the_log_is_found_from_a_start() {
    let hour_east = Journal::parse(LOG, &[info("web", 103, AT - 3600)]);
    assert_eq!(hour_east.history("web", AT - 3600 + 10).recent_starts, 3);
    let india = Journal::parse(LOG, &[info("web", 103, AT - 19_800)]);
    assert_eq!(india.history("web", AT - 19_800 + 10).recent_starts, 3);
}

#[test]
fn restarts_by_an_operator_are_no_crash_loop() {
    let mut text = String::new();
    for second in 0..5 {
        text += &format!("2026-11-21 06:00:0{second},000 INFO spawned: 'web' with pid 1{second}\n");
        text += &format!("2026-11-21 06:00:0{second},500 INFO stopped: web (exit status 0)\n");
    }
    let history = Journal::parse(&text, &[]).history("web", AT);
    assert_eq!((history.recent_starts, history.recent_exits), (5, 0));
    assert!(!history.is_crash_loop());
}

#[test]
fn a_program_that_restarts_itself_does_not_crash() {
    // The web server ends with 0 when it is told to restart, and supervisord starts it again: three times in half a
    // minute made it a crash loop.
    let story = |remark: &str| {
        let mut text = String::new();
        for second in [0, 10, 20] {
            text += &format!("2026-11-21 06:00:{second:02},000 INFO spawned: 'web' with pid 1{second}\n");
            text += &format!("2026-11-21 06:00:{:02},000 INFO exited: web (exit status 0; {remark})\n", second + 9);
        }
        text + "2026-11-21 06:00:30,000 INFO spawned: 'web' with pid 140\n"
    };
    let restarted = Journal::parse(&story("expected"), &[]).history("web", AT + 25);
    assert_eq!((restarted.recent_starts, restarted.recent_exits, restarted.restarts), (4, 0, 0));
    assert_eq!(restarted.last_outcome, Some(ExitOutcome::Code(0)));
    assert!(!restarted.is_crash_loop());
    // Code 0 before `startsecs` are over is not expected.
    let crashed = Journal::parse(&story("not expected"), &[]).history("web", AT + 25);
    assert_eq!((crashed.recent_exits, crashed.restarts), (3, 3));
    assert!(crashed.is_crash_loop());
}

#[test]
fn dates_count_from_1970() {
    assert_eq!(days_from_civil(1970, 1, 1), 0);
    assert_eq!(days_from_civil(2000, 2, 29), 11_016);
    assert_eq!(days_from_civil(2026, 11, 21) * 86_400 + 6 * 3600 + 6, AT);
}
