//! What every implementation of `Supervisor` keeps: run on a real supervisord and on the fake.

#![allow(clippy::unwrap_used, reason = "a failing test is what an unwrap is for here")]

use std::time::Duration;

use overstory_supervisor::fake::{FakeProgram, FakeSupervisor};
use overstory_supervisor::journal::{ExitOutcome, Journal, TAIL_BYTES};
use overstory_supervisor::xmlrpc::fault;
use overstory_supervisor::{Daemon, Layout, ProcessInfo, ProcessName, ProcessState, Supervisor, SupervisorError};
use overstory_testkit::supervisord::SupervisordPrefix;
use tokio::time::{Instant, sleep};

/// The programs that an implementation must have loaded: `steady` runs for ever, `hasty` exits with 7 at once and is
/// tried twice, `bare` exits with 0 at once without `startsecs`, `absent` has no command, `pair` has two members.
fn fake() -> FakeSupervisor {
    let at_once = Duration::from_millis(20);
    FakeSupervisor::new(vec![
        FakeProgram::new("steady"),
        FakeProgram { start_retries: 1, ..FakeProgram::new("hasty") }.that_exits(at_once, 7),
        FakeProgram { start_secs: 0, ..FakeProgram::new("bare") }.that_exits(at_once, 0),
        FakeProgram { is_missing: true, ..FakeProgram::new("absent") },
        FakeProgram::member("pair", "pair-0"),
        FakeProgram::member("pair", "pair-1"),
    ])
}

async fn real() -> (SupervisordPrefix, Daemon) {
    let prefix = SupervisordPrefix::new().unwrap();
    let forever = "exec sleep 1000";
    prefix.program("steady", forever, &[]).unwrap();
    prefix.program("hasty", "exit 7", &["startretries=1"]).unwrap();
    prefix.program("bare", "exit 0", &["startsecs=0"]).unwrap();
    prefix.section("absent", &["command=/nowhere/absent"]).unwrap();
    prefix.program("pair", forever, &["numprocs=2"]).unwrap();
    let daemon = Daemon::new(Layout::new(prefix.path()));
    daemon.ensure_up().await.unwrap();
    (prefix, daemon)
}

#[tokio::test]
async fn the_real_one_keeps_the_contract() {
    let (_prefix, daemon) = real().await;
    keeps_the_contract(daemon.client()).await;
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    keeps_the_contract(&fake()).await;
}

async fn wait_for(supervisor: &dyn Supervisor, name: &str, state: ProcessState) -> ProcessInfo {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let info = supervisor.process(&name.parse().unwrap()).await.unwrap();
        if info.state == state {
            return info;
        }
        assert!(Instant::now() < deadline, "{name} is {} and should be {state}", info.state);
        sleep(Duration::from_millis(5)).await;
    }
}

fn code(result: Result<(), SupervisorError>) -> Option<i64> {
    result.unwrap_err().fault_code()
}

/// Starts a program that ends at once: supervisord refuses the start when it sees the end while it still answers.
async fn start_hasty(supervisor: &dyn Supervisor, name: &ProcessName) {
    match supervisor.start(name).await {
        Ok(()) => {}
        Err(error) => assert_eq!(error.fault_code(), Some(fault::SPAWN_ERROR), "{error}"),
    }
}

async fn keeps_the_contract(supervisor: &dyn Supervisor) {
    let steady = ProcessName::lone("steady");
    assert!(supervisor.identity().await.unwrap().pid > 0);
    assert_eq!(supervisor.processes().await.unwrap().len(), 6);
    assert_eq!(supervisor.reread().await.unwrap(), Default::default());

    // Stopped: there is nothing to stop or to signal.
    assert_eq!(code(supervisor.stop(&steady).await), Some(fault::NOT_RUNNING));
    assert_eq!(code(supervisor.signal(&steady, "TERM").await), Some(fault::NOT_RUNNING));
    assert_eq!(code(supervisor.start(&ProcessName::lone("nobody")).await), Some(fault::BAD_NAME));

    // Started: STARTING for startsecs, then RUNNING, with one process.
    supervisor.start(&steady).await.unwrap();
    let starting = supervisor.process(&steady).await.unwrap();
    assert_eq!(starting.state, ProcessState::Starting);
    assert_eq!(code(supervisor.start(&steady).await), Some(fault::ALREADY_STARTED));
    assert_eq!(code(supervisor.remove_group("steady").await), Some(fault::STILL_RUNNING));
    let running = wait_for(supervisor, "steady", ProcessState::Running).await;
    assert!(running.pid.is_some() && running.pid == starting.pid);

    // A command that does not exist is refused at once and never tried.
    assert_eq!(code(supervisor.start(&ProcessName::lone("absent")).await), Some(fault::NO_FILE));

    // Crashing within startsecs: BACKOFF, then FATAL; the exit code is in the log only.
    let hasty = ProcessName::lone("hasty");
    start_hasty(supervisor, &hasty).await;
    wait_for(supervisor, "hasty", ProcessState::Backoff).await;
    assert_eq!(code(supervisor.start(&hasty).await), Some(fault::ALREADY_STARTED));
    let fatal = wait_for(supervisor, "hasty", ProcessState::Fatal).await;
    assert_eq!((fatal.pid, fatal.exit_status), (None, 0));
    assert!(fatal.spawn_error.starts_with("Exited too quickly"), "{}", fatal.spawn_error);
    let log = supervisor.read_main_log(TAIL_BYTES).await.unwrap();
    let journal = Journal::parse(&log, &[supervisor.process(&steady).await.unwrap()]);
    let history = journal.history("hasty", fatal.now);
    assert_eq!(history.last_outcome, Some(ExitOutcome::Code(7)));
    assert_eq!((history.recent_starts, history.recent_exits), (2, 2), "{log}");
    start_hasty(supervisor, &hasty).await;
    wait_for(supervisor, "hasty", ProcessState::Backoff).await;
    supervisor.stop(&hasty).await.unwrap();
    wait_for(supervisor, "hasty", ProcessState::Stopped).await;

    // Without startsecs it is RUNNING at once, and an instant end is EXITED, never BACKOFF or FATAL.
    supervisor.start(&ProcessName::lone("bare")).await.unwrap();
    let exited = wait_for(supervisor, "bare", ProcessState::Exited).await;
    assert_eq!(exited.exit_status, 0);

    // Members of a group are named with it.
    supervisor.start(&"pair:pair-1".parse().unwrap()).await.unwrap();
    wait_for(supervisor, "pair:pair-1", ProcessState::Running).await;
    assert_eq!(supervisor.process(&"pair:pair-0".parse().unwrap()).await.unwrap().state, ProcessState::Stopped);

    // Stopped: it ends, and its group can be unloaded and loaded again.
    supervisor.stop(&steady).await.unwrap();
    wait_for(supervisor, "steady", ProcessState::Stopped).await;
    supervisor.remove_group("steady").await.unwrap();
    assert_eq!(code(supervisor.remove_group("steady").await), Some(fault::BAD_NAME));
    assert_eq!(supervisor.reread().await.unwrap().added, ["steady"]);
    supervisor.add_group("steady").await.unwrap();
    assert_eq!(code(supervisor.add_group("steady").await), Some(fault::ALREADY_ADDED));

    // Shut down: nobody answers any more.
    supervisor.shutdown().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !supervisor.processes().await.is_err_and(|e| e.is_not_running()) {
        assert!(Instant::now() < deadline, "it still answers");
        sleep(Duration::from_millis(10)).await;
    }
}
