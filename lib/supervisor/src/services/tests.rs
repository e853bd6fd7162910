//! What one service's start, stop and status do, on the fake with a paused clock.

use super::*;
use crate::fake::{FakeProgram, FakeSupervisor};

struct Bench {
    _dir: tempfile::TempDir,
    fake: Arc<FakeSupervisor>,
    services: Services,
}

/// A prefix whose files define programs with that many processes each, on a fake with `loaded`.
fn bench(files: &[(&str, u32)], loaded: Vec<FakeProgram>) -> Bench {
    let keys = |count: u32| {
        let several = if count > 1 { "process_name=%(program_name)s-%(process_num)d\n" } else { "" };
        format!("numprocs={count}\n{several}")
    };
    let files: Vec<_> = files.iter().map(|(name, count)| (*name, keys(*count))).collect();
    bench_with(&files.iter().map(|(name, keys)| (*name, keys.as_str())).collect::<Vec<_>>(), loaded)
}

/// A prefix whose files define programs with those keys, on a fake with `loaded`.
fn bench_with(files: &[(&str, &str)], loaded: Vec<FakeProgram>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    std::fs::create_dir_all(layout.program_dir()).unwrap();
    for (name, keys) in files {
        let text = format!("[program:{name}]\ncommand=/bin/{name}\n{keys}");
        std::fs::write(layout.program_dir().join(format!("{name}.conf")), text).unwrap();
    }
    let fake = Arc::new(FakeSupervisor::new(loaded));
    let catalogue = Catalogue::load(&layout);
    let services = Services::with_supervisor(layout, catalogue, fake.clone());
    Bench { _dir: dir, fake, services }
}

impl Bench {
    async fn start(&self, name: &str) -> Vec<ActionOutcome> {
        self.services.start(&self.services.catalogue().resolve(name)).await.unwrap()
    }

    async fn stop(&self, name: &str) -> Vec<ActionOutcome> {
        self.services.stop(&self.services.catalogue().resolve(name)).await.unwrap()
    }

    async fn states(&self) -> Vec<(String, &'static str)> {
        let all = self.services.list().await.unwrap();
        all.into_iter().map(|s| (s.name.to_string(), s.state.as_str())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_is_started_once_and_stopped_once() {
    let bench = bench(&[("web", 1)], vec![FakeProgram::new("web")]);
    assert_eq!(bench.start("web").await[0].result, Ok(Done::Started));
    assert_eq!(bench.start("web").await[0].result, Ok(Done::AlreadyStarted));
    assert_eq!(bench.states().await, [("web".to_owned(), "RUNNING")]);
    assert_eq!(bench.stop("web").await[0].result, Ok(Done::Stopped));
    assert_eq!(bench.stop("web").await[0].result, Ok(Done::AlreadyStopped));
    assert_eq!(bench.states().await, [("web".to_owned(), "STOPPED")]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_reported_at_once_with_the_exit_code_from_the_log() {
    let web = FakeProgram::new("web").that_exits(Duration::from_millis(200), 7);
    let bench = bench(&[("web", 1)], vec![web]);
    let begun = Instant::now();
    let failure = bench.start("web").await[0].result.clone().unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(failure.exit, Some(ExitOutcome::Code(7)));
    assert!(failure.reason.starts_with("BACKOFF: Exited too quickly"), "{}", failure.reason);
}

#[tokio::test(start_paused = true)]
async fn without_startsecs_an_instant_exit_is_still_a_failure() {
    let web = FakeProgram { start_secs: 0, ..FakeProgram::new("web") }.that_exits(Duration::from_millis(1), 0);
    let bench = bench(&[("web", 1)], vec![web]);
    let failure = bench.start("web").await[0].result.clone().unwrap_err();
    assert_eq!((failure.reason.as_str(), failure.exit), ("ended", Some(ExitOutcome::Code(0))));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_keeps_dying_after_startsecs_is_a_crash_loop() {
    let web = FakeProgram::new("web").that_exits(Duration::from_secs(3), 2);
    let bench = bench(&[("web", 1)], vec![web]);
    assert_eq!(bench.start("web").await[0].result, Ok(Done::Started));
    tokio::time::sleep(Duration::from_secs(9)).await;
    let status = bench.services.list().await.unwrap().remove(0);
    assert_eq!((status.state, status.restarts), (Condition::CrashLoop, 2));
    assert!(status.is_failed());
    // Stopped between its end and its revival, it stays stopped.
    bench.fake.kill(&ProcessName::lone("web"));
    assert_eq!(bench.stop("web").await[0].result, Ok(Done::Stopped));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.states().await, [("web".to_owned(), "STOPPED")]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_command_is_told_in_words() {
    let web = FakeProgram { is_missing: true, ..FakeProgram::new("web") };
    let bench = bench(&[("web", 1)], vec![web]);
    let failure = bench.start("web").await[0].result.clone().unwrap_err();
    assert_eq!(failure.reason, "the command does not exist: /bin/web");
}

#[tokio::test(start_paused = true)]
async fn a_start_applies_the_configuration_of_its_own_service_only() {
    let bench = bench(&[("db", 1), ("web", 1)], vec![FakeProgram::new("db"), FakeProgram::new("web")]);
    let slower = |name| FakeProgram { start_secs: 5, ..FakeProgram::new(name) };
    bench.fake.write_files(vec![slower("db"), slower("web"), FakeProgram::new("other")]);
    assert_eq!(bench.start("web").await[0].result, Ok(Done::Started));
    let diff = bench.fake.reread().await.unwrap();
    assert_eq!((diff.changed, diff.added), (vec!["db".to_owned()], vec!["other".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_new_member_waits_for_the_restart_of_its_group() {
    let old = vec![FakeProgram::member("e", "e-0"), FakeProgram::member("e", "e-1")];
    let bench = bench(&[("e", 3)], old.clone());
    bench.fake.start(&old[0].name).await.unwrap();
    bench.fake.start(&old[1].name).await.unwrap();
    let pids: Vec<_> = bench.fake.processes().await.unwrap().into_iter().map(|i| i.pid).collect();
    bench.fake.write_files([old, vec![FakeProgram::member("e", "e-2")]].concat());
    let outcomes = bench.start("e").await;
    let failure = outcomes[0].result.as_ref().unwrap_err();
    assert!(failure.reason.contains("`service e restart`"), "{}", failure.reason);
    assert!(outcomes[1].note.as_ref().unwrap().contains("`service e restart` applies it"));
    let after: Vec<_> = bench.fake.processes().await.unwrap().into_iter().map(|i| i.pid).collect();
    assert_eq!(pids, after, "the members that ran were disturbed");
    let all = bench.services.restart(&bench.services.catalogue().resolve("e")).await.unwrap();
    assert!(all.len() == 3 && all.iter().all(|o| o.result.is_ok()), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn unreadable_files_leave_the_loaded_set_usable() {
    let bench = bench(&[("web", 1), ("new", 1)], vec![FakeProgram::new("web")]);
    bench.fake.set_syntax_error(Some("x.conf line 3"));
    let outcome = bench.start("web").await.remove(0);
    assert_eq!(outcome.result, Ok(Done::Started));
    assert!(outcome.note.unwrap().contains("x.conf line 3"));
    let failure = bench.start("new").await.remove(0).result.unwrap_err();
    assert!(failure.reason.contains("x.conf line 3"), "{}", failure.reason);
}

#[tokio::test(start_paused = true)]
async fn what_a_service_requires_is_started_before_it() {
    let loaded = vec![FakeProgram::new("epmd"), FakeProgram::new("rabbit"), FakeProgram::new("web")];
    let bench =
        bench_with(&[("epmd", ""), ("rabbit", "hyp_requires=epmd\n"), ("web", "hyp_requires=rabbit\n")], loaded);
    let names = |outcomes: Vec<ActionOutcome>| -> Vec<String> {
        assert!(outcomes.iter().all(|o| o.result == Ok(Done::Started)), "{outcomes:?}");
        outcomes.into_iter().map(|o| o.name.to_string()).collect()
    };
    assert_eq!(names(bench.start("web").await), ["epmd", "rabbit", "web"]);
    bench.stop("web").await;
    assert_eq!(names(bench.start("web").await), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_requirement_fails_is_not_started() {
    let epmd = FakeProgram::new("epmd").that_exits(Duration::from_millis(10), 1);
    let bench = bench_with(&[("epmd", ""), ("rabbit", "hyp_requires=epmd\n")], vec![epmd, FakeProgram::new("rabbit")]);
    let outcomes = bench.start("rabbit").await;
    assert_eq!(outcomes[1].result.as_ref().unwrap_err().reason, "needs epmd, which failed");
    assert_eq!(bench.states().await[1], ("rabbit".to_owned(), "STOPPED"));
}

/// A file with a mistake in it took its running service out of every list.
#[tokio::test(start_paused = true)]
async fn what_runs_is_listed_although_its_definition_is_gone() {
    let mut bench = bench(&[("web", 1), ("db", 1)], vec![FakeProgram::new("web"), FakeProgram::new("db")]);
    bench.start("web").await;
    for name in ["web", "db"] {
        let file = bench.services.layout().program_dir().join(format!("{name}.conf"));
        std::fs::write(file, "[program:\n").unwrap();
    }
    let layout = bench.services.layout().clone();
    let catalogue = Catalogue::load(&layout);
    assert!(catalogue.problems.iter().all(|problem| problem.contains(".conf:1")), "{:?}", catalogue.problems);
    assert_eq!(catalogue.problems.len(), 2);
    bench.services = Services::with_supervisor(layout, catalogue, bench.fake.clone());
    // What does not run and is not defined is nothing.
    assert_eq!(bench.states().await, [("web".to_owned(), "RUNNING")]);
}

#[tokio::test(start_paused = true)]
async fn without_supervisord_everything_is_stopped() {
    let bench = bench(&[("web", 1)], vec![FakeProgram::new("web")]);
    bench.fake.shutdown().await.unwrap();
    assert_eq!(bench.states().await, [("web".to_owned(), "STOPPED")]);
    assert_eq!(bench.stop("web").await[0].result, Ok(Done::AlreadyStopped));
}

/// A node whose dump had failed ended with code 1, and its stop was called a good one.
#[tokio::test(start_paused = true)]
async fn an_end_with_an_error_is_a_failed_stop_and_the_rest_is_stopped() {
    let loaded = vec![
        FakeProgram::new("node").that_stops_with(1),
        FakeProgram::new("good").that_stops_with(4),
        FakeProgram::new("shell").that_stops_with(143),
        FakeProgram { ends_in: None, ..FakeProgram::new("slow") },
        FakeProgram::new("web"),
    ];
    let files = [("node", ""), ("good", "exitcodes=0,4\n"), ("shell", ""), ("slow", ""), ("web", "")];
    let bench = bench_with(&files, loaded);
    bench.start("*").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let outcomes = bench.stop("*").await;
    let of = |name: &str| outcomes.iter().find(|o| o.name.name == name).unwrap().result.clone();
    assert_eq!(of("node").unwrap_err().exit, Some(ExitOutcome::Code(1)));
    assert_eq!(of("slow").unwrap_err().exit, Some(ExitOutcome::Signal("SIGKILL".to_owned())));
    for name in ["good", "shell", "web"] {
        assert_eq!(of(name), Ok(Done::Stopped), "{name}");
    }
    assert!(bench.states().await.iter().all(|(_, state)| *state == "STOPPED"));
    // It is known afterwards, and a restart tells of it and goes on.
    let node = bench.services.catalogue().process(&ProcessName::lone("node")).unwrap();
    let infos = bench.services.infos().await.unwrap();
    assert!(bench.services.failed_stop(node, &infos).await.is_some());
    assert_eq!(bench.start("node").await[0].result, Ok(Done::Started));
    let again = bench.services.restart(&bench.services.catalogue().resolve("node")).await.unwrap();
    assert!(again[0].result.is_err() && again[1].result == Ok(Done::Started), "{again:?}");
}
