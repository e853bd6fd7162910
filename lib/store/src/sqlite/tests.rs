#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use overstory_model::Timestamp;
use overstory_model::ids::MessageId;

use super::*;
use crate::commit::{Commit, Engines, Outgoing};
use crate::outbox::Outbox;

fn large(n: u64) -> Commit {
    let message = Outgoing {
        exchange: String::new(),
        routing_key: String::new(),
        message_id: n.to_string(),
        content_type: String::new(),
        headers: vec![],
        body: vec![1; 50_000],
    };
    let seen = vec![MessageId::from_property(&n.to_string())];
    Commit { seen, at: Timestamp(0), outbox: vec![message], ..Commit::default() }
}

async fn limit_pages(db: &EnginesDb, pages: u32) {
    let limit = move |connection: &mut Connection, _: &mut EngineCaches| {
        Ok(connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?)
    };
    db.writer().unwrap().call(limit).await.unwrap();
}

#[tokio::test]
async fn a_file_that_may_not_grow_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = EnginesDb::open(dir.path()).unwrap();
    let epoch = db.take_epoch("unit", "test").await.unwrap();
    limit_pages(&db, 100).await;
    let mut full_at = 0;
    for n in 1..100 {
        if let Err(error) = db.commit("unit", epoch, large(n)).await {
            assert!(matches!(error, StoreError::Full(_)), "{error:?}");
            full_at = n;
            break;
        }
    }
    assert!(full_at > 1);
    let id = |n: u64| MessageId::from_property(&n.to_string());
    assert_eq!(db.seen(&[id(full_at - 1), id(full_at)]).await.unwrap(), [true, false]);
    assert_eq!(db.pending(1000).await.unwrap().len() as u64, full_at - 1);
    limit_pages(&db, 10_000).await;
    db.commit("unit", epoch, large(full_at)).await.unwrap();
    assert_eq!(db.seen(&[id(full_at)]).await.unwrap(), [true]);
}

#[tokio::test]
async fn the_log_is_emptied_when_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = EnginesDb::open(dir.path()).unwrap();
    let epoch = db.take_epoch("unit", "test").await.unwrap();
    db.commit("unit", epoch, large(1)).await.unwrap();
    let log = dir.path().join("engines.db-wal");
    assert!(log.metadata().unwrap().len() > 0);
    let emptied = async {
        while log.metadata().unwrap().len() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), emptied).await.unwrap();
    assert_eq!(db.pending(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let db = EnginesDb::open(&dir.path().join("store")).unwrap();
    db.take_epoch("unit", "test").await.unwrap();
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("store"), mode("store/engines.db"), mode("store/engines.db-wal")), (0o700, 0o600, 0o600));
}
