use overstory_model::entity::Info;
use overstory_model::{Entity, EntityId, EntityKind, Timestamp};
use overstory_store::entities::EntitySort;
use overstory_store::{Commit, EngineSide, Entities, EntityQuery, PageRequest};

use super::fixture::Fixture;
use super::model::*;

async fn put(store: &EngineSide, entities: Vec<Entity>, heard_of: Vec<(EntityId, Timestamp)>) {
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let commit = Commit { entities, heard_of, at: Timestamp(NOW), ..Commit::default() };
    store.engines.commit(UNIT, epoch, commit).await.unwrap();
}

pub(crate) async fn entities_are_found_by_id(fixture: &Fixture) {
    let store = fixture.engines().await;
    put(&store, vec![entity("web1", NOW), entity("web2", NOW)], vec![]).await;
    let mut renamed = entity("web1", NOW);
    renamed.name = "front".to_owned();
    renamed.enabled = false;
    put(&store, vec![renamed.clone()], vec![]).await;
    let ids: Vec<_> = ["web1", "nobody"].iter().map(|id| EntityId((*id).to_owned())).collect();
    assert_eq!(store.entities.by_ids(&ids).await.unwrap(), [renamed]);
    assert_eq!(store.entities.by_ids(&[]).await.unwrap(), []);
}

pub(crate) async fn hearing_of_an_entity_never_goes_back(fixture: &Fixture) {
    let store = fixture.engines().await;
    let id = |id: &str| EntityId(id.to_owned());
    put(&store, vec![entity("web1", NOW)], vec![(id("web1"), Timestamp(NOW + 9)), (id("nobody"), Timestamp(NOW))])
        .await;
    put(&store, vec![], vec![(id("web1"), Timestamp(NOW + 3))]).await;
    let found = store.entities.by_ids(&[id("web1"), id("nobody")]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].last_event_date, Timestamp(NOW + 9));
    put(&store, vec![], vec![(id("web1"), Timestamp(NOW + 10))]).await;
    let found = store.entities.by_ids(&[id("web1")]).await.unwrap();
    assert_eq!(found[0].last_event_date, Timestamp(NOW + 10));
}

async fn names(entities: &dyn Entities, query: EntityQuery) -> (Vec<String>, u64) {
    let page = entities.list(&query).await.unwrap();
    (page.items.into_iter().map(|entity| entity.id.0).collect(), page.total)
}

pub(crate) async fn lists_are_filtered_sorted_and_paged(fixture: &Fixture) {
    let store = fixture.engines().await;
    let mut all = vec![entity("web1", NOW + 2), entity("db_1", NOW + 1), entity("dbx1", NOW)];
    let mut load = Entity::new(EntityId::resource("load", "web1"), "load", EntityKind::Resource, Timestamp(NOW + 3));
    load.component = Some("web1".to_owned());
    all.push(load);
    let value = serde_json::json!({"kept": 1});
    all[2].infos.insert("node".to_owned(), Info { name: "node".to_owned(), description: String::new(), value });
    all.push(Entity::new(EntityId::connector("test", "t1"), "t1", EntityKind::Connector, Timestamp(NOW)));
    put(&store, all, vec![(EntityId("dbx1".to_owned()), Timestamp(NOW + 9))]).await;

    let web = fixture.web().await.entities;
    let query = EntityQuery::default;
    let everything = ["db_1", "dbx1", "load/web1", "test/t1", "web1"].map(str::to_owned).to_vec();
    assert_eq!(names(&*web, query()).await, (everything, 5));
    let search = |text: &str| EntityQuery { search: Some(text.to_owned()), ..query() };
    assert_eq!(names(&*web, search("DB_")).await.0, ["db_1"]);
    assert_eq!(names(&*web, search("T1")).await.0, ["test/t1"]);
    assert_eq!(names(&*web, search("100%")).await.1, 0);
    let kinds = vec![EntityKind::Resource, EntityKind::Connector];
    assert_eq!(names(&*web, EntityQuery { kinds, ..query() }).await.0, ["load/web1", "test/t1"]);
    let component = Some("web1".to_owned());
    assert_eq!(names(&*web, EntityQuery { component, ..query() }).await.0, ["load/web1", "web1"]);
    let known = |info: &str| EntityQuery { info: Some(info.to_owned()), ..query() };
    assert_eq!(names(&*web, known("node")).await, (vec!["dbx1".to_owned()], 1));
    for unknown in ["value", "kept", "nod", "a.b", "$x", "'", "\""] {
        assert_eq!(names(&*web, known(unknown)).await.1, 0, "{unknown}");
    }
    let by = |sort_by, descending| EntityQuery { sort_by, descending, ..query() };
    assert_eq!(names(&*web, by(EntitySort::LastEvent, true)).await.0[..2], ["dbx1", "load/web1"]);
    let by_kind = names(&*web, by(EntitySort::Kind, false)).await.0;
    assert_eq!(by_kind, ["db_1", "dbx1", "web1", "test/t1", "load/web1"]);
    assert_eq!(names(&*web, by(EntitySort::Name, true)).await.0[0], "web1");
    let page = PageRequest { page: 2, limit: 2, paginate: true };
    assert_eq!(names(&*web, EntityQuery { page, ..query() }).await, (vec!["load/web1".into(), "test/t1".into()], 5));
    let page = PageRequest { page: 9, limit: 2, paginate: false };
    assert_eq!(names(&*web, EntityQuery { page, ..query() }).await.0.len(), 5);
}
