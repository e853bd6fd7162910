use overstory_model::alarm::MAX_STEPS;
use overstory_model::{Alarm, AlarmId, StepKind, Timestamp};
use overstory_store::alarms::AlarmSort;
use overstory_store::{AlarmQuery, AlarmWrite, Alarms, Commit, EngineSide, Openness, PageRequest};

use super::fixture::Fixture;
use super::model::*;

async fn put(store: &EngineSide, alarms: Vec<AlarmWrite>) {
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    store.engines.commit(UNIT, epoch, Commit { alarms, at: Timestamp(NOW), ..Commit::default() }).await.unwrap();
}

fn ids(alarms: &[Alarm]) -> Vec<&str> {
    alarms.iter().map(|alarm| alarm.id.0.as_str()).collect()
}

async fn listed(alarms: &dyn Alarms, query: AlarmQuery) -> (Vec<String>, u64) {
    let page = alarms.list(&query).await.unwrap();
    (page.items.into_iter().map(|alarm| alarm.id.0).collect(), page.total)
}

pub(crate) async fn open_alarms_are_found_by_entity(fixture: &Fixture) {
    let store = fixture.engines().await;
    let old = ended(&alarm("old", "load", "web1", 0, NOW - 100), NOW - 50);
    let open = alarm("open", "load", "web1", 2, NOW);
    let other = alarm("other", "disk", "web1", 2, NOW);
    put(&store, vec![new_alarm(&old), new_alarm(&open), new_alarm(&other)]).await;
    let nobody = alarm("x", "nothing", "web1", 0, 0).entity;
    let found = store.alarms.open_of(&[nobody, open.entity.clone()]).await.unwrap();
    assert_eq!(found, [open]);
    assert_eq!(store.alarms.open_of(&[]).await.unwrap(), []);
}

pub(crate) async fn settled_alarms_come_oldest_first(fixture: &Fixture) {
    let store = fixture.engines().await;
    let settled = |id: &str, since| {
        let mut alarm = alarm(id, id, "web1", 0, NOW);
        alarm.v.state.t = Timestamp(NOW - 500);
        alarm.v.status.t = Timestamp(since);
        alarm
    };
    let written = [
        settled("late", NOW + 1),
        settled("second", NOW),
        settled("first", NOW - 10),
        ended(&settled("ended", NOW - 20), NOW),
        alarm("critical", "c", "web1", 3, NOW - 30),
    ];
    put(&store, written.iter().map(new_alarm).collect()).await;
    let found = store.alarms.settled(Timestamp(NOW), 10).await.unwrap();
    assert_eq!(ids(&found), ["first", "second"]);
    assert_eq!(ids(&store.alarms.settled(Timestamp(NOW), 1).await.unwrap()), ["first"]);
}

pub(crate) async fn steps_are_numbered_on_and_paged(fixture: &Fixture) {
    let store = fixture.engines().await;
    let mut alarm = alarm("a1", "load", "web1", 1, NOW);
    put(&store, vec![new_alarm(&alarm)]).await;
    alarm.v.state = step(StepKind::StateInc, 3, NOW + 1);
    alarm.steps_count = 4;
    let new_steps = vec![alarm.v.state.clone(), step(StepKind::StatusInc, 3, NOW + 2)];
    put(&store, vec![AlarmWrite { alarm: alarm.clone(), new_steps, is_new: false }]).await;

    let page = |page, limit| PageRequest { page, limit, paginate: true };
    let all = store.alarms.steps(&alarm.id, page(1, 10)).await.unwrap();
    assert_eq!(all.total, 4);
    assert_eq!(all.items.iter().map(|step| step.val).collect::<Vec<_>>(), [1, 1, 3, 3]);
    assert_eq!(all.items[2], alarm.v.state);
    let second = store.alarms.steps(&alarm.id, page(2, 3)).await.unwrap();
    assert_eq!((second.items, second.total), (vec![step(StepKind::StatusInc, 3, NOW + 2)], 4));
    let unknown = store.alarms.steps(&AlarmId("nobody".to_owned()), page(1, 3)).await.unwrap();
    assert_eq!((unknown.items, unknown.total), (vec![], 0));
    assert_eq!(store.alarms.get(&alarm.id).await.unwrap(), Some(alarm));
}

pub(crate) async fn steps_beyond_the_limit_are_kept_only_if_they_end_something(fixture: &Fixture) {
    let store = fixture.engines().await;
    let alarm = alarm("a1", "load", "web1", 1, NOW);
    let new_steps = (0..MAX_STEPS).map(|n| step(StepKind::StateInc, 1, NOW + i64::from(n))).collect();
    put(&store, vec![AlarmWrite { alarm: alarm.clone(), new_steps, is_new: true }]).await;
    let new_steps = vec![
        step(StepKind::StateInc, 3, NOW),
        step(StepKind::StateDec, 0, NOW + 5000),
        step(StepKind::StatusInc, 1, NOW),
        step(StepKind::Resolve, 1, NOW + 5001),
    ];
    put(&store, vec![AlarmWrite { alarm: alarm.clone(), new_steps, is_new: false }]).await;
    let page = PageRequest { page: MAX_STEPS / 100 + 1, limit: 100, paginate: true };
    let last = store.alarms.steps(&alarm.id, page).await.unwrap();
    assert_eq!(last.total, u64::from(MAX_STEPS) + 2);
    assert_eq!(last.items, [step(StepKind::StateDec, 0, NOW + 5000), step(StepKind::Resolve, 1, NOW + 5001)]);
}

pub(crate) async fn lists_tell_open_from_ended(fixture: &Fixture) {
    let store = fixture.engines().await;
    let written = [
        alarm("open", "r1", "web1", 2, NOW),
        ended(&alarm("recent", "r2", "web1", 0, NOW + 1), NOW + 100),
        ended(&alarm("past", "r3", "web1", 0, NOW + 2), NOW + 50),
    ];
    put(&store, written.iter().map(new_alarm).collect()).await;
    let web = fixture.web().await.alarms;
    let query = |openness| AlarmQuery { openness, recent_since: Timestamp(NOW + 100), ..AlarmQuery::default() };
    let list = async |openness| listed(&*web, query(openness)).await;
    assert_eq!(list(Openness::OpenAndRecent).await, (vec!["open".into(), "recent".into()], 2));
    assert_eq!(list(Openness::Open).await.0, ["open"]);
    assert_eq!(list(Openness::Resolved).await.0, ["recent", "past"]);
}

pub(crate) async fn lists_are_searched_and_filtered(fixture: &Fixture) {
    let store = fixture.engines().await;
    let mut disk = alarm("a2", "disk_free", "db1", 3, NOW + 10);
    disk.v.output = "99% of /var used".to_owned();
    let mut conn = alarm("a3", "ping", "web1", 1, NOW + 20);
    conn.v.connector = "Nagios".to_owned();
    conn.v.connector_name = "central".to_owned();
    let written = [alarm("a1", "load", "web1", 2, NOW), disk.clone(), conn];
    put(&store, written.iter().map(new_alarm).collect()).await;
    let web = fixture.web().await.alarms;
    let query = AlarmQuery::default;
    let search = async |text: &str| listed(&*web, AlarmQuery { search: Some(text.to_owned()), ..query() }).await.0;
    assert_eq!(search("WEB1").await, ["a1", "a3"]);
    assert_eq!(search("99% of").await, ["a2"]);
    assert_eq!(search("disk_").await, ["a2"]);
    assert_eq!(search("diskX").await, [""; 0]);
    assert_eq!(search("nagios").await, ["a3"]);
    assert_eq!(search("CENTRAL").await, ["a3"]);
    assert_eq!(search("abc-a1").await, ["a1"]);
    assert_eq!(search("free/db").await, ["a2"]);
    assert_eq!(search("ping/web1").await, ["a3"]);
    assert_eq!(search("a.*1").await, [""; 0]);
    assert_eq!(search("(").await, [""; 0]);
    let list = async |query| listed(&*web, query).await.0;
    assert_eq!(list(AlarmQuery { entity: Some(disk.entity.clone()), ..query() }).await, ["a2"]);
    assert_eq!(list(AlarmQuery { states: vec![1, 2], ..query() }).await, ["a1", "a3"]);
    assert_eq!(list(AlarmQuery { from: Some(Timestamp(NOW + 10)), ..query() }).await, ["a2", "a3"]);
    assert_eq!(list(AlarmQuery { to: Some(Timestamp(NOW + 10)), ..query() }).await, ["a1", "a2"]);
    let both = AlarmQuery { search: Some("web1".into()), states: vec![1], ..query() };
    assert_eq!(list(both).await, ["a3"]);
}

pub(crate) async fn lists_are_sorted_by_each_key(fixture: &Fixture) {
    let store = fixture.engines().await;
    // In order of id each key puts b first, then c, then a.
    let mut a = alarm("a", "r3", "c3", 3, NOW + 3);
    let mut b = alarm("b", "r1", "c1", 1, NOW + 1);
    let mut c = alarm("c", "r2", "c2", 2, NOW + 2);
    for (alarm, n) in [(&mut a, 3), (&mut b, 1), (&mut c, 2)] {
        alarm.v.status.val = n;
        alarm.v.last_update_date = Timestamp(NOW + n);
        alarm.v.last_event_date = Timestamp(NOW + n);
        alarm.v.connector = format!("con{n}");
        alarm.v.output = format!("out{n}");
    }
    put(&store, [&a, &b, &c].map(new_alarm).to_vec()).await;
    let web = fixture.web().await.alarms;
    let all = [
        AlarmSort::T,
        AlarmSort::State,
        AlarmSort::Status,
        AlarmSort::LastUpdate,
        AlarmSort::LastEvent,
        AlarmSort::Component,
        AlarmSort::Resource,
        AlarmSort::Connector,
        AlarmSort::Output,
    ];
    for sort_by in all {
        let up = listed(&*web, AlarmQuery { sort_by, ..AlarmQuery::default() }).await.0;
        assert_eq!(up, ["b", "c", "a"], "{sort_by:?}");
        let down = listed(&*web, AlarmQuery { sort_by, descending: true, ..AlarmQuery::default() }).await.0;
        assert_eq!(down, ["a", "c", "b"], "{sort_by:?}");
    }
}

pub(crate) async fn lists_come_in_pages(fixture: &Fixture) {
    let store = fixture.engines().await;
    let written: Vec<_> =
        (0..25).map(|n| new_alarm(&alarm(&format!("{n:02}"), &n.to_string(), "web1", 1, NOW))).collect();
    put(&store, written).await;
    let web = fixture.web().await.alarms;
    let page = async |page, limit, paginate| {
        let page = PageRequest { page, limit, paginate };
        listed(&*web, AlarmQuery { page, ..AlarmQuery::default() }).await
    };
    // All have the same time: the id decides.
    assert_eq!(page(3, 10, true).await, (["20", "21", "22", "23", "24"].map(str::to_owned).to_vec(), 25));
    assert_eq!(page(4, 10, true).await, (vec![], 25));
    assert_eq!(page(4, 10, false).await.0.len(), 25);
}
