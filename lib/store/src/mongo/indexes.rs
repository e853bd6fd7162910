//! The indexes; made when the store is opened, which does nothing when they are there.

use mongodb::bson::{Document, doc};
use mongodb::error::Result;
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::name;

pub(super) async fn create(database: &Database) -> Result<()> {
    let open = doc! { "v.resolved": null };
    let one_open = IndexOptions::builder()
        .name("one_open_alarm_per_entity".to_owned())
        .unique(true)
        .partial_filter_expression(open)
        .build();
    let one_open = IndexModel::builder().keys(doc! { "d": 1 }).options(one_open).build();
    let all = [
        (
            name::ALARMS,
            vec![
                one_open,
                plain(doc! { "t": 1 }),
                plain(doc! { "d": 1, "t": 1 }),
                plain(doc! { "v.resolved": 1, "v.state.val": 1, "last_step": 1 }),
            ],
        ),
        (name::STEPS, vec![unique(doc! { "alarm": 1, "n": 1 })]),
        (name::ENTITIES, vec![plain(doc! { "component": 1 })]),
        (name::SERIES, vec![unique(doc! { "entity": 1, "metric": 1 })]),
        (name::BLOCKS, vec![unique(doc! { "bucket": 1, "shard": 1, "n": 1 })]),
        (name::RUNS, vec![unique(doc! { "series": 1, "start": 1 }), plain(doc! { "start": 1 })]),
        (name::FIVE, vec![unique(doc! { "series": 1, "start": 1 }), plain(doc! { "start": 1 })]),
        (name::HOURS, vec![unique(doc! { "series": 1, "start": 1 }), plain(doc! { "start": 1 })]),
        (name::SESSIONS, vec![plain(doc! { "expires": 1 })]),
    ];
    for (collection, indexes) in all {
        database.collection::<Document>(collection).create_indexes(indexes).await?;
    }
    // A transaction may only create collections in newer servers: all are made before.
    let present = database.list_collection_names().await?;
    for collection in [name::OUTBOX, name::SEEN, name::UNITS, name::COUNTERS, name::ENGINE_RUNS] {
        if !present.iter().any(|name| name == collection)
            && let Err(error) = database.create_collection(collection).await
            && !is_there(&error)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Whether another process made the collection meanwhile.
fn is_there(error: &mongodb::error::Error) -> bool {
    const NAMESPACE_EXISTS: i32 = 48;
    matches!(error.kind.as_ref(), mongodb::error::ErrorKind::Command(failure) if failure.code == NAMESPACE_EXISTS)
}

fn plain(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).build()
}

fn unique(keys: Document) -> IndexModel {
    IndexModel::builder().keys(keys).options(IndexOptions::builder().unique(true).build()).build()
}
