//! Processes that freeze and end.

use std::time::Duration;

use overstory_store::WebSide;
use overstory_testkit::broker;
use serde_json::Value;

use crate::rig::{Process, Rig, check, wait_for};

/// Two processes, the first of which is active.
async fn two(rig: &Rig) -> (Process, Process) {
    let first = rig.start(0);
    first.is_active().await;
    let second = rig.start(1);
    second.is_ready().await;
    (first, second)
}

/// Events of one entity: 1, 2, 1, 2, ...
fn alternating(count: usize) -> Vec<Value> {
    (0..count / 2).flat_map(|_| [check("a", 1), check("a", 2)]).collect()
}

async fn count(rig: &Rig, store: &WebSide) -> u64 {
    rig.alarm(store, "a/host1").await.map_or(0, |alarm| alarm.v.events_count)
}

/// The active process is stopped, the broker goes on filling its socket, the standby takes over and does that work;
/// then the first one goes on with what it has and what it remembers. Its epoch is over: nothing of that may reach the
/// store.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_writes_nothing_stale() {
    let rig = Rig::new(broker::shared().unwrap());
    let (first, second) = two(&rig).await;
    let store = rig.store().await;
    rig.events(&[check("a", 3)]).await;
    wait_for("the first event", async || count(&rig, &store).await == 1).await;
    first.signal("-STOP");
    rig.events(&alternating(400)).await;
    second.is_active().await;
    wait_for("the standby to do the work", async || count(&rig, &store).await == 401).await;
    first.signal("-CONT");
    rig.events(&[check("a", 3)]).await;
    wait_for("the last event", async || count(&rig, &store).await == 402).await;
    // The first one finds its commit refused or its connection closed, and stands by.
    let active = "overstory_engines_active{unit=\"Engine_events\"}";
    wait_for("the first to stand by", async || first.metric(active).await < 0.5).await;
    first.is_ready().await;
    all_once(&rig, &store, 402).await;
    assert_eq!(second.stop().await, Some(0));
    first.is_active().await;
    rig.events(&[check("a", 1)]).await;
    wait_for("the first to go on", async || count(&rig, &store).await == 403).await;
    assert_eq!(first.stop().await, Some(0));
}

/// Stopped in the middle of its work, perhaps of a commit: then the embedded store stays locked and the standby waits.
/// Whoever is the owner in the end, every event took effect once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_frozen_in_the_middle_of_its_work_does_no_harm() {
    let rig = Rig::new(broker::shared().unwrap());
    let (first, second) = two(&rig).await;
    let store = rig.store().await;
    rig.events(&[check("a", 3)]).await;
    for round in 1..=3 {
        let events = alternating(400);
        let (before, after) = events.split_at(200);
        rig.events(before).await;
        let frozen = if round % 2 == 1 { &first } else { &second };
        frozen.signal("-STOP");
        rig.events(after).await;
        // Longer than the heartbeat's limit, so that the broker gives its messages to the other one.
        tokio::time::sleep(Duration::from_secs(4)).await;
        frozen.signal("-CONT");
        wait_for("this round", async || count(&rig, &store).await == 1 + round * 400).await;
    }
    rig.events(&[check("a", 3)]).await;
    wait_for("the last event", async || count(&rig, &store).await == 1202).await;
    all_once(&rig, &store, 1202).await;
    assert_eq!([first.stop().await, second.stop().await], [Some(0); 2]);
}

/// Every event changed the state, in the order in which they were published.
async fn all_once(rig: &Rig, store: &WebSide, events: u64) {
    let alarm = rig.alarm(store, "a/host1").await.unwrap();
    assert_eq!((alarm.v.events_count, alarm.v.total_state_changes), (events, events));
    let steps = rig.steps(store, &alarm).await;
    let states: Vec<_> =
        steps.iter().filter(|step| step.kind.name().starts_with("state")).map(|step| step.val).collect();
    let between = usize::try_from(events).unwrap() - 2;
    let expected: Vec<i64> = [3].into_iter().chain([1, 2].into_iter().cycle().take(between)).chain([3]).collect();
    assert_eq!(states, expected);
    assert_eq!(rig.dead_letters().await.len(), 0);
}

/// A process is killed between commit and publishing as likely as not: the next one sends what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_replaced_by_its_standby() {
    let rig = Rig::new(broker::shared().unwrap());
    let first = rig.start(0);
    first.is_active().await;
    let second = rig.start(1);
    second.is_ready().await;
    let events: Vec<_> = (0..600).map(|n| check(&format!("r{}", n % 60), 1)).collect();
    rig.events(&events).await;
    first.kill();
    second.is_active().await;
    let store = rig.store().await;
    wait_for("every event to count once", async || {
        for n in 0..60 {
            let alarm = rig.alarm(&store, &format!("r{n}/host1")).await;
            if alarm.is_none_or(|alarm| alarm.v.events_count != 10) {
                return false;
            }
        }
        true
    })
    .await;
    assert_eq!(rig.dead_letters().await.len(), 0);
    assert_eq!(second.stop().await, Some(0));
}
