use overstory_model::{AlarmId, Timestamp};
use overstory_store::commit::{DEDUP_LIMIT, DEDUP_SECONDS, DEDUP_WINDOW};
use overstory_store::{Commit, EngineSide, Epoch, PageRequest, RangeQuery, StoreError};

use super::fixture::Fixture;
use super::model::*;

/// Checks that nothing of `batch(n)` is there.
async fn assert_nothing_of(store: &EngineSide, n: u64, outbox: usize) {
    assert_eq!(store.engines.seen(&[message(n)]).await.unwrap(), [false]);
    assert_eq!(store.alarms.get(&AlarmId(format!("a{n}"))).await.unwrap(), None);
    assert_eq!(store.outbox.pending(100).await.unwrap().len(), outbox);
}

pub(crate) async fn everything_of_a_commit_is_there_afterwards(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let numbers = store.engines.commit(UNIT, epoch, batch(1)).await.unwrap();
    drop(store);

    let store = fixture.engines().await;
    assert_eq!(store.engines.seen(&[message(1), message(2)]).await.unwrap(), [true, false]);
    let pending = store.outbox.pending(10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].number, numbers[0]);
    assert_eq!(pending[0].message, outgoing("m1"));
    let expected = alarm("a1", "load1", "web1", 2, NOW);
    assert_eq!(store.alarms.get(&expected.id).await.unwrap().unwrap(), expected);
    let steps = store.alarms.steps(&expected.id, PageRequest::default()).await.unwrap();
    assert_eq!(steps.items, [expected.v.state.clone(), expected.v.status.clone()]);

    // The web server sees the same.
    let web = fixture.web().await;
    let entities = web.entities.by_ids(&[entity("web1", 0).id]).await.unwrap();
    assert_eq!(entities[0].created, Timestamp(NOW));
    assert_eq!(entities[0].last_event_date, Timestamp(NOW + 5));
    let query = RangeQuery {
        series: key("web1", "cpu"),
        from: Timestamp(NOW).millis(),
        to: Timestamp(NOW + 1).millis(),
        step: None,
        aggregate: overstory_store::Aggregate::Avg,
        limit: 10,
    };
    let points = web.metrics.range(&query).await.unwrap();
    assert_eq!(points.len(), 1);
    assert_eq!((points[0].at, points[0].count), (Timestamp(NOW).millis(), 1));
    web.probe.ping().await.unwrap();
    let info = web.probe.info().await.unwrap();
    assert!(info.counts.contains(&("alarms", 1)), "{info:?}");
    assert!(info.bytes > 0);
}

pub(crate) async fn a_conflict_leaves_nothing_behind(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let mut commit = batch(1);
    // The last alarm of the commit is the one that does not fit.
    commit.alarms.push(changed(&alarm("missing", "disk", "web1", 1, NOW)));
    let error = store.engines.commit(UNIT, epoch, commit).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    assert_nothing_of(&store, 1, 0).await;
    assert_eq!(store.entities.by_ids(&[entity("web1", 0).id]).await.unwrap(), []);
    let series = store.metrics.series(&overstory_store::SeriesQuery::default()).await.unwrap();
    assert_eq!(series.total, 0);

    // What the failed commit learned of numbers must not be believed.
    store.engines.commit(UNIT, epoch, batch(2)).await.unwrap();
    let series = store.metrics.series(&overstory_store::SeriesQuery::default()).await.unwrap();
    assert_eq!((series.total, series.items[0].last_value), (1, Some(0.5)));
    assert_eq!(store.entities.by_ids(&[entity("web1", 0).id]).await.unwrap().len(), 1);
}

pub(crate) async fn a_process_that_was_taken_over_writes_nothing(fixture: &Fixture) {
    let (old, new) = (fixture.engines().await, fixture.engines().await);
    let first = old.engines.take_epoch(UNIT, "host/0").await.unwrap();
    old.engines.commit(UNIT, first, batch(1)).await.unwrap();
    let second = new.engines.take_epoch(UNIT, "host/1").await.unwrap();
    assert!(second > first);
    match old.engines.commit(UNIT, first, batch(2)).await.unwrap_err() {
        StoreError::Fenced { unit, held, current } => {
            assert_eq!((unit.as_str(), Epoch(held), Epoch(current)), (UNIT, first, second));
        }
        other => panic!("{other:?}"),
    }
    assert_nothing_of(&new, 2, 1).await;
    new.engines.commit(UNIT, second, batch(2)).await.unwrap();
}

pub(crate) async fn units_are_fenced_apart(fixture: &Fixture) {
    let store = fixture.engines().await;
    let events = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let collectd = store.engines.take_epoch("Engine_collectdgw", "host/1").await.unwrap();
    assert_eq!((events, collectd), (Epoch(1), Epoch(1)));
    store.engines.take_epoch("Engine_collectdgw", "host/0").await.unwrap();
    store.engines.commit(UNIT, events, batch(1)).await.unwrap();
    let error = store.engines.commit("nobody", Epoch(1), batch(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { current: 0, .. }), "{error:?}");
}

pub(crate) async fn a_second_open_alarm_of_an_entity_is_refused(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let commit = |alarms| Commit { alarms, at: Timestamp(NOW), ..Commit::default() };
    let first = alarm("a1", "load", "web1", 2, NOW);
    let second = alarm("a2", "load", "web1", 1, NOW);
    store.engines.commit(UNIT, epoch, commit(vec![new_alarm(&first)])).await.unwrap();
    for refused in [new_alarm(&second), new_alarm(&first)] {
        let error = store.engines.commit(UNIT, epoch, commit(vec![refused])).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    }
    // Once the first has ended, in the same commit whatever the order, there is room for the next.
    let both = vec![new_alarm(&second), changed(&ended(&first, NOW + 1))];
    store.engines.commit(UNIT, epoch, commit(both)).await.unwrap();
    let reopened = store.engines.commit(UNIT, epoch, commit(vec![changed(&first)])).await.unwrap_err();
    assert!(matches!(reopened, StoreError::Conflict(_)), "{reopened:?}");
    assert_eq!(store.alarms.open_of(std::slice::from_ref(&first.entity)).await.unwrap(), [second]);
}

pub(crate) async fn an_alarm_that_is_not_new_must_exist(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let alarms = vec![changed(&alarm("a1", "load", "web1", 2, NOW))];
    let error = store.engines.commit(UNIT, epoch, Commit { alarms, ..Commit::default() }).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
    assert!(!error.is_retryable());
}

pub(crate) async fn messages_are_known_once_committed(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    assert_eq!(store.engines.seen(&[]).await.unwrap(), [false; 0]);
    let commit = |seen| Commit { seen, at: Timestamp(NOW), ..Commit::default() };
    store.engines.commit(UNIT, epoch, commit(vec![message(1), message(2)])).await.unwrap();
    assert_eq!(store.engines.seen(&[message(2), message(3), message(1)]).await.unwrap(), [true, false, true]);
    store.engines.commit(UNIT, epoch, commit(vec![message(3), message(1)])).await.unwrap();
    assert_eq!(store.engines.seen(&[message(3)]).await.unwrap(), [true]);
}

pub(crate) async fn the_other_process_knows_the_messages_too(fixture: &Fixture) {
    let (one, other) = (fixture.engines().await, fixture.engines().await);
    let commit = |n| Commit { seen: vec![message(n)], at: Timestamp(NOW), ..Commit::default() };
    let epoch = one.engines.take_epoch(UNIT, "host/0").await.unwrap();
    one.engines.commit(UNIT, epoch, commit(1)).await.unwrap();
    assert_eq!(other.engines.seen(&[message(1)]).await.unwrap(), [true]);
    // Back and forth: records of both are in the memory of both.
    let epoch = other.engines.take_epoch(UNIT, "host/1").await.unwrap();
    other.engines.commit(UNIT, epoch, commit(2)).await.unwrap();
    let epoch = one.engines.take_epoch(UNIT, "host/0").await.unwrap();
    one.engines.commit(UNIT, epoch, commit(3)).await.unwrap();
    for store in [&one, &other] {
        let known = store.engines.seen(&[message(1), message(2), message(3), message(4)]).await.unwrap();
        assert_eq!(known, [true, true, true, false]);
    }
}

pub(crate) async fn old_messages_beyond_the_window_are_forgotten(fixture: &Fixture) {
    let (store, other) = (fixture.engines().await, fixture.engines().await);
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let chunk = DEDUP_WINDOW / 4;
    let commit = |n: u64, at| Commit {
        seen: (n * chunk..(n + 1) * chunk).map(message).collect(),
        at: Timestamp(at),
        ..Commit::default()
    };
    for n in 0..6 {
        store.engines.commit(UNIT, epoch, commit(n, NOW)).await.unwrap();
    }
    let first_of_each: Vec<_> = (0..6).map(|n| message(n * chunk)).collect();
    assert_eq!(other.engines.seen(&first_of_each).await.unwrap(), [true; 6]);
    // All are young.
    assert_eq!(store.engines.forget_seen(Timestamp(NOW + DEDUP_SECONDS)).await.unwrap(), 0);
    // All are old, but four make up the window.
    assert_eq!(store.engines.forget_seen(Timestamp(NOW + DEDUP_SECONDS + 1)).await.unwrap(), 2 * chunk);
    let left = [false, false, true, true, true, true];
    assert_eq!(store.engines.seen(&first_of_each).await.unwrap(), left);
    assert_eq!(fixture.engines().await.engines.seen(&first_of_each).await.unwrap(), left);
    // Young ones stay as long as they are not too many.
    for n in 6..=(DEDUP_LIMIT / chunk + 2) {
        store.engines.commit(UNIT, epoch, commit(n, NOW)).await.unwrap();
    }
    assert!(store.engines.forget_seen(Timestamp(NOW)).await.unwrap() >= chunk);
    assert_eq!(store.engines.seen(&[message(2 * chunk)]).await.unwrap(), [false]);
}

pub(crate) async fn the_outbox_keeps_its_order_until_done(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    let mut numbers = Vec::new();
    for n in 0..5 {
        let outbox = (0..3).map(|i| outgoing(&format!("{n}.{i}"))).collect();
        let commit = Commit { outbox, at: Timestamp(NOW), ..Commit::default() };
        numbers.extend(store.engines.commit(UNIT, epoch, commit).await.unwrap());
    }
    assert!(numbers.is_sorted() && numbers.len() == 15);
    let pending = store.outbox.pending(4).await.unwrap();
    let ids: Vec<_> = pending.iter().map(|entry| entry.message.message_id.as_str()).collect();
    assert_eq!(ids, ["0.0", "0.1", "0.2", "1.0"]);
    store.outbox.done(&[numbers[0], numbers[2]]).await.unwrap();
    store.outbox.done(&[numbers[0]]).await.unwrap();
    store.outbox.done(&[]).await.unwrap();
    let left: Vec<_> = store.outbox.pending(100).await.unwrap().into_iter().map(|entry| entry.number).collect();
    assert_eq!(left.len(), 13);
    assert_eq!(left[..2], [numbers[1], numbers[3]]);
}

pub(crate) async fn outbox_numbers_are_not_given_twice(fixture: &Fixture) {
    let commit = || Commit { outbox: vec![outgoing("m")], at: Timestamp(NOW), ..Commit::default() };
    let mut last = 0;
    for _ in 0..3 {
        let store = fixture.engines().await;
        let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
        let numbers = store.engines.commit(UNIT, epoch, commit()).await.unwrap();
        assert!(numbers[0] > last);
        last = numbers[0];
        store.outbox.done(&numbers).await.unwrap();
    }
}

pub(crate) async fn an_empty_commit_is_still_fenced(fixture: &Fixture) {
    let store = fixture.engines().await;
    let epoch = store.engines.take_epoch(UNIT, "host/0").await.unwrap();
    assert_eq!(store.engines.commit(UNIT, epoch, Commit::default()).await.unwrap(), [0_u64; 0]);
    store.engines.take_epoch(UNIT, "host/1").await.unwrap();
    let error = store.engines.commit(UNIT, epoch, Commit::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error:?}");
}
