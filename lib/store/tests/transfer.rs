//! Copies from one kind of store to the other, and checks.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "contract/model.rs"]
#[allow(dead_code, reason = "the contract suite uses the rest")]
mod model;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use model::*;
use overstory_model::{AlarmId, Millis, StepKind, Timestamp};
use overstory_runtime::Home;
use overstory_store::transfer::{check, copy};
use overstory_store::{
    Account, Aggregate, AlarmQuery, AlarmWrite, Bucket, Commit, EngineRun, EngineSide, EntityQuery, PageRequest,
    RangeQuery, Retention, SeriesQuery, Session, StoreConfig, StoreError, StoreKind, WebSide, open_engines, open_web,
};
use overstory_testkit::mongo;

const ALL: PageRequest = PageRequest { page: 1, limit: 1, paginate: false };

async fn open(config: &StoreConfig) -> (EngineSide, WebSide) {
    let home = Home::at("/");
    (open_engines(config, &home).await.unwrap(), open_web(config, &home).await.unwrap())
}

async fn database() -> StoreConfig {
    tokio::task::spawn_blocking(|| mongo::shared().unwrap()).await.unwrap()
}

/// Something of every kind: points in all forms, more than one batch of alarms.
async fn fill(config: &StoreConfig) {
    let (store, web) = open(config).await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let retention = Retention { raw_s: 3600, five_minutes_s: 7200, hours_s: 86_400 };
    let points = (0..60).map(|n| point("web1", "cpu", (NOW + n * 120) * 1000, 1.0 + n as f64)).collect();
    store.engines.commit(UNIT, epoch, Commit { points, ..batch(1) }).await.unwrap();
    while store.metrics.maintain(Millis((NOW + 4 * 3600) * 1000), retention).await.unwrap().more {}
    let points = vec![point("web1", "cpu", (NOW + 3 * 3600) * 1000, -1.0), point("db1", "mem", NOW * 1000, 7.0)];
    store.engines.commit(UNIT, epoch, Commit { points, ..batch(2) }).await.unwrap();
    let longer = AlarmWrite {
        alarm: ended(&alarm("a1", "load1", "web1", 0, NOW), NOW + 60),
        new_steps: vec![step(StepKind::Resolve, 0, NOW + 60)],
        is_new: false,
    };
    let mut alarms = vec![longer];
    alarms.extend((10..1200).map(|n| new_alarm(&alarm(&format!("b{n}"), &format!("r{n}"), "web2", 1, NOW + n))));
    let heard_of = vec![(entity("web1", 0).id, Timestamp(NOW + 77))];
    let commit = Commit { alarms, heard_of, at: Timestamp(NOW), ..Commit::default() };
    store.engines.commit(UNIT, epoch, commit).await.unwrap();
    let run = EngineRun {
        engine: "alarms".to_owned(),
        instance: "host/0".to_owned(),
        active: true,
        at: Timestamp(NOW),
        pid: 1,
        events: 2,
        errors: 0,
        events_per_second: 0.5,
        seconds_per_event: 0.25,
    };
    store.runs.record(&[run]).await.unwrap();
    let account = Account {
        name: "admin".to_owned(),
        password_hash: "$argon2id$".to_owned(),
        roles: vec![],
        enabled: true,
        created: Timestamp(NOW),
        generation: 3,
    };
    web.accounts.create_account(&account).await.unwrap();
    let session = Session {
        token_hash: "t".to_owned(),
        account: "admin".to_owned(),
        generation: 3,
        created: Timestamp(NOW),
        expires: Timestamp(NOW + 9),
    };
    web.accounts.put_session(&session).await.unwrap();
}

/// Everything that can be asked, as text.
async fn everything(config: &StoreConfig) -> String {
    let (store, web) = open(config).await;
    let alarms = store.alarms.list(&AlarmQuery { page: ALL, ..AlarmQuery::default() }).await.unwrap();
    let ended = AlarmQuery { openness: overstory_store::Openness::Resolved, page: ALL, ..AlarmQuery::default() };
    let ended = store.alarms.list(&ended).await.unwrap();
    let steps = store.alarms.steps(&AlarmId("a1".to_owned()), ALL).await.unwrap();
    let entities = store.entities.list(&EntityQuery { page: ALL, ..EntityQuery::default() }).await.unwrap();
    let series = store.metrics.series(&SeriesQuery { page: ALL, ..SeriesQuery::default() }).await.unwrap();
    let mut points: Vec<Vec<Bucket>> = Vec::new();
    for step in [None, Some(300_000), Some(3_600_000)] {
        for series in [key("web1", "cpu"), key("db1", "mem")] {
            let (from, to) = (Millis(NOW * 1000), Millis((NOW + 86_400) * 1000));
            let query = RangeQuery { series, from, to, step, aggregate: Aggregate::Sum, limit: 10_000 };
            points.push(store.metrics.range(&query).await.unwrap());
        }
    }
    let outbox = store.outbox.pending(100).await.unwrap();
    let seen = store.engines.seen(&[message(1), message(2), message(3)]).await.unwrap();
    let runs = store.runs.list(Timestamp(NOW), 10).await.unwrap();
    let (accounts, session) = (web.accounts.accounts().await.unwrap(), web.accounts.session("t").await.unwrap());
    format!(
        "{alarms:#?}{ended:#?}{steps:#?}{entities:#?}{series:#?}{points:#?}{outbox:#?}{seen:?}{runs:#?}\
         {accounts:#?}{session:#?}"
    )
}

#[tokio::test]
async fn a_copy_there_and_back_holds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let first = StoreConfig::embedded(dir.path().join("first"));
    fill(&first).await;
    let original = everything(&first).await;
    assert!(original.contains("value: -1.0") && original.contains("b1199"));

    let server = database().await;
    let mut reports = Vec::new();
    copy(&first, &server, false, |progress| reports.push(progress)).await.unwrap();
    assert!(reports.iter().any(|progress| (progress.what, progress.done) == ("alarms", 1192)), "{reports:?}");
    assert_eq!(everything(&server).await, original);

    let back = StoreConfig::embedded(dir.path().join("back"));
    copy(&server, &back, false, |_| {}).await.unwrap();
    assert_eq!(everything(&back).await, original);
    for config in [&first, &server, &back] {
        assert_eq!(check(config, |_| {}).await.unwrap(), [""; 0]);
    }

    // Work goes on in the copies as it would have in the original.
    for config in [&first, &server, &back] {
        let (store, _) = open(config).await;
        let epoch = store.engines.take_epoch(UNIT, "host/1").await.unwrap();
        let numbers = store.engines.commit(UNIT, epoch, batch(3)).await.unwrap();
        assert_eq!((epoch.0, numbers), (2, vec![3]));
        assert_eq!(store.engines.seen(&[message(1), message(3)]).await.unwrap(), [true, true]);
    }
}

#[tokio::test]
async fn a_copy_does_not_overwrite_and_is_not_made_of_a_store_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (full, other) =
        (StoreConfig::embedded(dir.path().join("full")), StoreConfig::embedded(dir.path().join("other")));
    fill(&full).await;
    let server = database().await;

    let using = open(&full).await;
    let error = copy(&full, &server, false, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(using);
    // The copy was begun: the database is not to be used, and the next copy begins anew.
    let error = open_engines(&server, &Home::at("/")).await.unwrap_err();
    assert!(overstory_runtime::program::chain(&error).contains("not finished"), "{error:?}");
    copy(&full, &server, false, |_| {}).await.unwrap();

    let error = copy(&full, &server, false, |_| {}).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(why) if why.contains("not empty")), "{error:?}");
    copy(&full, &server, true, |_| {}).await.unwrap();
    let error = copy(&server, &full, false, |_| {}).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict(why) if why.contains("alarms")), "{error:?}");
    let using = open(&other).await;
    let error = copy(&server, &other, false, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(using);
    copy(&server, &other, false, |_| {}).await.unwrap();
    copy(&server, &full, true, |_| {}).await.unwrap();
    assert_eq!(everything(&full).await, everything(&other).await);
    let error = copy(&full, &other, true, |_| {}).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
}

#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig::embedded(dir.path());
    fill(&config).await;
    assert_eq!(check(&config, |_| {}).await.unwrap(), [""; 0]);
    let StoreKind::Embedded { path } = &config.kind else { unreachable!() };

    let file = rusqlite::Connection::open(path.join("engines.db")).unwrap();
    file.execute("UPDATE alarms SET doc = '{\"_id\": 1}' WHERE id = 'b700'", []).unwrap();
    drop(file);
    let problems = check(&config, |_| {}).await.unwrap();
    assert!(problems.len() == 1 && problems[0].contains("alarms"), "{problems:?}");

    overwrite(&path.join("engines.db"), 20);
    let problems = check(&config, |_| {}).await.unwrap();
    assert!(!problems.is_empty() && problems[0].contains("engines.db"), "{problems:?}");
}

fn overwrite(file: &Path, page: u64) {
    let mut file = File::options().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(page * 4096)).unwrap();
    file.write_all(&[0x33; 4096]).unwrap();
}
