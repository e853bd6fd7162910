//! What happens to a store when processes, disks and servers fail.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "contract/model.rs"]
#[allow(dead_code, reason = "the contract suite uses the rest")]
mod model;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::*;
use overstory_model::{AlarmId, Timestamp};
use overstory_runtime::Home;
use overstory_runtime::program::variable;
use overstory_store::{
    Commit, EngineSide, Epoch, SeriesQuery, StoreConfig, StoreError, StoreKind, WebSide, open_engines, open_web,
};
use overstory_testkit::mongo::MongoServer;

const DIR: &str = "OVERSTORY_TEST_WRITER_DIR";
const WRITER: &str = "OVERSTORY_TEST_WRITER_UNIT";
const COUNT: &str = "OVERSTORY_TEST_WRITER_COUNT";

async fn engines(config: &StoreConfig) -> Result<EngineSide, StoreError> {
    open_engines(config, &Home::at("/")).await
}

async fn web(config: &StoreConfig) -> WebSide {
    open_web(config, &Home::at("/")).await.unwrap()
}

/// A commit that touches everything, of which each part can be found by `n`.
fn numbered(unit: &str, n: u64) -> Commit {
    let name = format!("{unit}-{n}");
    Commit {
        seen: vec![message(n)],
        at: Timestamp(NOW),
        entities: vec![entity(&name, NOW)],
        alarms: vec![new_alarm(&alarm(&name, "load", &name, 2, NOW))],
        points: (0..200).map(|i| point(&name, &format!("m{i}"), NOW * 1000, 1.0)).collect(),
        outbox: vec![outgoing(&name)],
        ..Commit::default()
    }
}

/// Commits until it is killed, or so many times; says `committed N` after each acknowledgement.
///
/// The other tests run this test in processes of their own; by itself it makes three commits.
#[tokio::test]
async fn a_writer_commits_and_says_so() {
    let own = tempfile::tempdir().unwrap();
    let dir = variable(DIR).unwrap_or_else(|| own.path().display().to_string());
    let unit = variable(WRITER).unwrap_or_else(|| "unit".to_owned());
    let count: u64 = variable(COUNT).map_or(3, |count| count.parse().unwrap());
    let store = engines(&StoreConfig::embedded(dir)).await.unwrap();
    let epoch = store.engines.take_epoch(&unit, "writer").await.unwrap();
    let first = next_number(&store, &unit).await;
    for n in first..first + count {
        store.engines.commit(&unit, epoch, numbered(&unit, n)).await.unwrap();
        println!("\ncommitted {n}");
    }
    assert_eq!(next_number(&store, &unit).await, first + count);
}

/// The first number of which there is no alarm.
async fn next_number(store: &EngineSide, unit: &str) -> u64 {
    let mut n = 1;
    while store.alarms.get(&AlarmId(format!("{unit}-{n}"))).await.unwrap().is_some() {
        n += 1;
    }
    n
}

fn start_writer(dir: &Path, unit: &str, count: u64) -> Child {
    Command::new("/proc/self/exe")
        .args(["--exact", "a_writer_commits_and_says_so", "--nocapture"])
        .env(DIR, dir)
        .env(WRITER, unit)
        .env(COUNT, count.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything of commit `n` is there, or nothing.
async fn assert_whole(store: &EngineSide, unit: &str, n: u64, is_there: bool) {
    let name = format!("{unit}-{n}");
    assert_eq!(store.engines.seen(&[message(n)]).await.unwrap(), [is_there], "seen {n}");
    assert_eq!(store.alarms.get(&AlarmId(name.clone())).await.unwrap().is_some(), is_there, "alarm {n}");
    assert_eq!(store.entities.by_ids(&[entity(&name, 0).id]).await.unwrap().len(), usize::from(is_there), "entity {n}");
    let series = SeriesQuery { entity: Some(name.clone()), ..SeriesQuery::default() };
    let page = store.metrics.series(&series).await.unwrap();
    assert_eq!(page.total, if is_there { 200 } else { 0 }, "series {n}");
    assert!(page.items.iter().all(|series| series.last_value == Some(1.0)), "points {n}");
    let outbox = store.outbox.pending(100_000).await.unwrap();
    assert_eq!(outbox.iter().any(|entry| entry.message.message_id == name), is_there, "outbox {n}");
}

#[tokio::test]
async fn commits_acknowledged_before_kill_9_are_there_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    let mut acknowledged = 0;
    for round in 0..12_u64 {
        let mut writer = start_writer(dir.path(), "unit", u64::MAX / 2);
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.filter_map(|line| line.strip_prefix("committed ").map(|n| n.parse::<u64>().unwrap()));
        // Each round dies at another place between two acknowledgements.
        let goal = acknowledged + 2 + round % 5;
        acknowledged = lines.find(|n| *n >= goal).expect("the writer ended by itself");
        let spin = Instant::now();
        while spin.elapsed() < Duration::from_micros(round * 700) {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        acknowledged = lines.last().unwrap_or(acknowledged);
        writer.wait().unwrap();

        let store = engines(&config).await.unwrap();
        for n in acknowledged.saturating_sub(8).max(1)..=acknowledged {
            assert_whole(&store, "unit", n, true).await;
        }
        // The next one may have become durable without having been acknowledged: whole, and it alone.
        let next = acknowledged + 1;
        let is_next_there = store.engines.seen(&[message(next)]).await.unwrap() == [true];
        assert_whole(&store, "unit", next, is_next_there).await;
        assert_whole(&store, "unit", next + 1, false).await;
    }
}

#[tokio::test]
async fn processes_that_write_at_the_same_time_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    let store = engines(&config).await.unwrap();
    let web = web(&config).await;
    let mut writers = [start_writer(dir.path(), "a", 60), start_writer(dir.path(), "b", 60)];
    let mut reads = 0;
    // Readers see whole commits all the while.
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        let alarms = web.alarms.list(&overstory_store::AlarmQuery::default()).await.unwrap().total;
        let entities = web.entities.list(&overstory_store::EntityQuery::default()).await.unwrap().total;
        assert!(entities >= alarms);
        reads += 1;
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success(), "a writer failed");
    }
    assert!(reads > 0);
    for unit in ["a", "b"] {
        assert_eq!(next_number(&store, unit).await, 61);
    }
    let log = fs::metadata(dir.path().join("engines.db-wal")).unwrap().len();
    assert!(log < 32 * 1024 * 1024, "the log has {log} bytes");
}

#[tokio::test]
async fn what_the_engines_have_not_made_yet_is_not_available() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path().join("store"));
    let web = web(&config).await;
    let error = web.alarms.list(&overstory_store::AlarmQuery::default()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.to_string().contains("engines.db")), "{error:?}");
    assert!(web.probe.ping().await.is_err());
    assert_eq!(web.accounts.accounts().await.unwrap(), []);
    let store = engines(&config).await.unwrap();
    web.probe.ping().await.unwrap();
    assert_eq!(web.alarms.list(&overstory_store::AlarmQuery::default()).await.unwrap().total, 0);
    // What only reads says so.
    let retention = overstory_store::Retention::default();
    assert!(matches!(web.metrics.maintain(Timestamp(NOW).millis(), retention).await, Err(StoreError::Failed(_))));

    // Another file in its place is noticed.
    drop(store);
    for name in ["engines.db", "engines.db-wal", "engines.db-shm"] {
        let _ = fs::remove_file(dir.path().join("store").join(name));
    }
    let store = engines(&config).await.unwrap();
    let epoch = store.engines.take_epoch("unit", "test").await.unwrap();
    store.engines.commit("unit", epoch, numbered("unit", 1)).await.unwrap();
    assert_eq!(web.alarms.list(&overstory_store::AlarmQuery::default()).await.unwrap().total, 1);
}

#[tokio::test]
async fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    drop(engines(&config).await.unwrap());
    let path = dir.path().join("engines.db");
    let mut file = File::options().write(true).open(&path).unwrap();
    file.write_all(b"this is not a database, whatever its name").unwrap();
    for error in [
        engines(&config).await.unwrap_err(),
        web(&config).await.alarms.get(&AlarmId("a".to_owned())).await.unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::Corrupt { file, .. } if file.ends_with("engines.db")), "{error:?}");
        assert!(error.to_string().contains("overstory store check") && !error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn a_page_of_rubbish_is_an_error_and_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    let store = engines(&config).await.unwrap();
    let epoch = store.engines.take_epoch("unit", "test").await.unwrap();
    for n in 1..=200 {
        let commit = Commit { points: vec![], ..numbered("unit", n) };
        store.engines.commit("unit", epoch, commit).await.unwrap();
    }
    drop(store);
    let path = dir.path().join("engines.db");
    let mut file = File::options().write(true).open(&path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 12..pages {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[0x5a; 4096]).unwrap();
    }
    let query = overstory_store::AlarmQuery {
        page: overstory_store::PageRequest { page: 1, limit: 500, paginate: true },
        ..Default::default()
    };
    let error = web(&config).await.alarms.list(&query).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn files_of_later_versions_and_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    drop(engines(&config).await.unwrap());
    let path = dir.path().join("engines.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 7).unwrap();
    drop(file);
    for error in [
        engines(&config).await.unwrap_err(),
        web(&config).await.alarms.get(&AlarmId("a".to_owned())).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::TooNew { found: 7, known: 1 }), "{error:?}");
    }
    fs::remove_file(&path).unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch("CREATE TABLE photos (id INTEGER)").unwrap();
    drop(file);
    let error = engines(&config).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
}

const FULL_DISK: &str = "OVERSTORY_TEST_FULL_DISK";

/// Runs itself again with a disk of 3 MB of its own, which ends with that process.
#[test]
fn a_full_disk_takes_nothing_and_gives_nothing_away() {
    if variable(FULL_DISK).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(fill_the_disk(Path::new("/mnt")));
        return;
    }
    let may_mount = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !may_mount.expect("unshare (util-linux) is needed").success() {
        eprintln!("no file systems can be mounted here; sqlite::tests limits the file instead");
        return;
    }
    let script = "mount -t tmpfs -o size=3m none /mnt && exec \"$0\" \"$@\"";
    let again = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(fs::read_link("/proc/self/exe").unwrap())
        .args(["--exact", "a_full_disk_takes_nothing_and_gives_nothing_away", "--nocapture"])
        .env(FULL_DISK, "yes")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&again.stdout) + String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && output.contains("the disk was full"), "{output}");
}

async fn fill_the_disk(disk: &Path) {
    let config = StoreConfig::embedded(disk.join("store"));
    let store = engines(&config).await.unwrap();
    let epoch = store.engines.take_epoch("unit", "test").await.unwrap();
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut full_at = 0;
    for n in 1..1000 {
        match store.engines.commit("unit", epoch, numbered("unit", n)).await {
            Ok(_) => {}
            Err(StoreError::Full(_)) => {
                full_at = n;
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(full_at > 1);
    println!("the disk was full at commit {full_at}");
    assert_whole(&store, "unit", full_at - 1, true).await;
    assert_whole(&store, "unit", full_at, false).await;
    // It stays full, and reading goes on.
    let error = store.engines.commit("unit", epoch, numbered("unit", full_at)).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    // Once there is room the same commit succeeds, without a restart.
    fs::remove_file(&ballast).unwrap();
    store.engines.commit("unit", epoch, numbered("unit", full_at)).await.unwrap();
    assert_whole(&store, "unit", full_at, true).await;
    drop(store);
    let store = engines(&config).await.unwrap();
    assert_whole(&store, "unit", full_at, true).await;
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_server_that_goes_away_is_not_available_until_it_is_back() {
    let server = std::sync::Arc::new(blocking(|| MongoServer::start().unwrap()).await);
    let config = server.store();
    let store = engines(&config).await.unwrap();
    let epoch = store.engines.take_epoch("unit", "test").await.unwrap();
    store.engines.commit("unit", epoch, numbered("unit", 1)).await.unwrap();

    let other = std::sync::Arc::clone(&server);
    blocking(move || other.kill().unwrap()).await;
    let began = Instant::now();
    let error = store.engines.commit("unit", epoch, numbered("unit", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)) && error.is_retryable(), "{error:?}");
    assert!(matches!(store.alarms.open_of(&[entity("x", 0).id]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.probe.ping().await, Err(StoreError::Unavailable(_))));
    // Each of the three looks for the server for three seconds, once more after a connection broke.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    // Opening it says so too.
    assert!(matches!(engines(&config).await, Err(StoreError::Unavailable(_))));

    let other = std::sync::Arc::clone(&server);
    blocking(move || other.start_again().unwrap()).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.engines.commit("unit", epoch, numbered("unit", 2)).await {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error:?}");
    }
    // What was acknowledged before the crash is there, and the commit that failed in between was not written twice.
    for n in [1, 2] {
        assert_whole(&store, "unit", n, true).await;
    }
    assert_eq!(store.outbox.pending(10).await.unwrap().len(), 2);
    assert_eq!(store.engines.take_epoch("unit", "test").await.unwrap(), Epoch(epoch.0 + 1));
    blocking(move || drop(server)).await;
}

#[tokio::test]
async fn databases_of_later_versions_are_refused() {
    let config = blocking(|| overstory_testkit::mongo::shared().unwrap()).await;
    let StoreKind::MongoDb { uri, database } = &config.kind else { panic!("{config:?}") };
    drop(engines(&config).await.unwrap());
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let meta = client.database(database).collection::<mongodb::bson::Document>("overstory");
    let later = mongodb::bson::doc! { "$set": { "version": 7_i64 } };
    meta.update_one(mongodb::bson::doc! { "_id": "schema" }, later).await.unwrap();
    let error = engines(&config).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 7, known: 1 }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_available_within_seconds() {
    let port = overstory_testkit::ports::free_port();
    let config = StoreConfig::mongodb(format!("mongodb://127.0.0.1:{port}/"), "nothing");
    let began = Instant::now();
    assert!(matches!(engines(&config).await, Err(StoreError::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(10));
    let config = StoreConfig::mongodb("not a connection string", "nothing");
    assert!(matches!(engines(&config).await, Err(StoreError::Failed(_))));
}

/// Two processes that commit under the same epoch number of different units conflict in the counters only: both succeed.
#[tokio::test]
async fn transactions_that_collide_are_tried_again() {
    let config = blocking(|| overstory_testkit::mongo::shared().unwrap()).await;
    let (one, other) = (engines(&config).await.unwrap(), engines(&config).await.unwrap());
    let commit = async |store: &EngineSide, unit: &str| {
        let epoch = store.engines.take_epoch(unit, "test").await.unwrap();
        for n in 1..=10 {
            let commit = Commit { points: vec![point(unit, "m", NOW + n, 1.0)], ..batchless(unit, n as u64) };
            store.engines.commit(unit, epoch, commit).await.unwrap();
        }
    };
    tokio::join!(commit(&one, "a"), commit(&other, "b"));
    let numbers: Vec<u64> = one.outbox.pending(100).await.unwrap().iter().map(|entry| entry.number).collect();
    assert_eq!(numbers.len(), 20);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
}

fn batchless(unit: &str, n: u64) -> Commit {
    Commit { outbox: vec![outgoing(&format!("{unit}-{n}"))], at: Timestamp(NOW), ..Commit::default() }
}
