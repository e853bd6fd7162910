#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use overstory_model::{EventKind, Millis, Source};

use super::*;

/// A check of a resource of `host1`, sent by `nagios/poller1`.
pub(crate) fn check(resource: &str, state: u8, at: Millis) -> Event {
    Event {
        kind: EventKind::Check { state: State::try_from(state).unwrap() },
        connector: "nagios".to_owned(),
        connector_name: "poller1".to_owned(),
        source: Source::Resource { component: "host1".to_owned(), resource: resource.to_owned() },
        at,
        output: format!("state {state}"),
        long_output: String::new(),
        author: "nagios.poller1".to_owned(),
        initiator: Initiator::External,
        samples: Vec::new(),
        tags: BTreeMap::new(),
        extra: serde_json::Map::new(),
    }
}

struct Bench {
    slot: AlarmSlot,
    settings: Settings,
    made: u32,
}

impl Bench {
    fn new() -> Self {
        Self { slot: AlarmSlot::default(), settings: Settings::default(), made: 0 }
    }

    fn event(&mut self, event: &Event, now: i64) -> Option<AlarmNotice> {
        let EventKind::Check { state } = event.kind else { panic!() };
        let made = &mut self.made;
        let mut random = || {
            *made += 1;
            format!("{made:08x}-0000")
        };
        apply(&mut self.slot, event, state, Timestamp(now), &self.settings, &mut random)
    }

    fn check(&mut self, state: u8, at: i64, now: i64) -> Option<AlarmNotice> {
        self.event(&check("disk", state, Timestamp(at).millis()), now)
    }

    fn alarm(&self) -> &Alarm {
        self.slot.alarm.as_ref().unwrap()
    }

    fn kept(&self) -> Vec<(&'static str, i64)> {
        self.slot.new_steps.iter().map(|step| (step.kind.name(), step.val)).collect()
    }
}

#[test]
fn the_published_example_opens_an_alarm() {
    let mut bench = Bench::new();
    let mut event = check("R", 2, Millis(990_000));
    (event.output, event.long_output) = ("O".to_owned(), "L".to_owned());
    let notice = bench.event(&event, 1000).unwrap();
    assert_eq!((notice.change, notice.previous_state), (Change::Create, 0));
    assert_eq!(notice.routing_key().as_str(), "nagios.poller1.create.resource.host1.R");
    let alarm = bench.alarm();
    assert!(bench.slot.is_new && bench.slot.dirty);
    assert_eq!(
        (alarm.t, alarm.v.creation_date, alarm.v.last_event_date),
        (Timestamp(1000), Timestamp(1000), Timestamp(1000))
    );
    assert_eq!(alarm.v.last_update_date, Timestamp(990));
    assert_eq!((alarm.v.initial_output.as_str(), alarm.v.output.as_str()), ("O", "O"));
    assert_eq!(
        (alarm.v.initial_long_output.as_str(), alarm.v.long_output_history.as_slice()),
        ("L", &["L".to_owned()][..])
    );
    assert_eq!((alarm.v.total_state_changes, alarm.v.events_count, alarm.steps_count), (1, 1, 2));
    let expected = |kind, val| Step {
        kind,
        t: Timestamp(990),
        author: "nagios.poller1".to_owned(),
        message: "O".to_owned(),
        val,
        initiator: Initiator::External,
    };
    assert_eq!(alarm.v.state, expected(StepKind::StateInc, 2));
    assert_eq!(alarm.v.status, expected(StepKind::StatusInc, 1));
    assert_eq!(bench.slot.new_steps, [alarm.v.state.clone(), alarm.v.status.clone()]);
    assert_eq!(alarm.v.display_name, "000-000-020");
}

#[test]
fn an_ok_check_without_an_alarm_does_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.check(0, 10, 10), None);
    assert!(bench.slot.alarm.is_none() && !bench.slot.dirty);
}

#[test]
fn states_go_up_and_down_and_off_is_a_status() {
    let mut bench = Bench::new();
    let mut changes = Vec::new();
    for (state, now) in [(1, 10), (1, 20), (3, 30), (2, 40), (0, 50), (0, 60), (1, 70)] {
        if let Some(notice) = bench.check(state, now, now) {
            changes.push((notice.change.name(), notice.previous_state, notice.steps.len()));
        }
    }
    assert_eq!(
        changes,
        [("create", 0, 2), ("stateinc", 1, 1), ("statedec", 3, 1), ("statedec", 2, 2), ("stateinc", 0, 2)]
    );
    assert_eq!(
        bench.kept(),
        [
            ("stateinc", 1),
            ("statusinc", 1),
            ("stateinc", 3),
            ("statedec", 2),
            ("statedec", 0),
            ("statusdec", 0),
            ("stateinc", 1),
            ("statusinc", 1)
        ]
    );
    let v = &bench.alarm().v;
    assert_eq!((v.events_count, v.total_state_changes, v.state_changes_since_status_update), (7, 5, 0));
    assert_eq!((v.last_update_date, v.last_event_date), (Timestamp(70), Timestamp(70)));
}

#[test]
fn changes_since_the_status_changed_are_counted() {
    let mut bench = Bench::new();
    for (at, state) in [1, 2, 3, 2].into_iter().enumerate() {
        bench.check(state, i64::try_from(at).unwrap(), 10);
    }
    assert_eq!(bench.alarm().v.state_changes_since_status_update, 3);
}

#[test]
fn events_count_in_the_order_of_the_queue() {
    let mut bench = Bench::new();
    bench.check(1, 100, 100);
    bench.check(3, 40, 101);
    assert_eq!(bench.alarm().state(), State::Critical);
    assert_eq!(bench.alarm().v.last_update_date, Timestamp(40));
}

#[test]
fn a_time_in_the_future_counts_as_now() {
    let mut bench = Bench::new();
    bench.check(2, 50_000, 100);
    assert_eq!(bench.alarm().v.state.t, Timestamp(100));
    assert_eq!(bench.alarm().last_step_at(), Timestamp(100));
}

#[test]
fn the_history_of_long_outputs_holds_distinct_ones_the_latest_last() {
    let mut bench = Bench::new();
    bench.settings.long_output_history = 3;
    for text in ["a", "b", "a", "", "c", "d"] {
        let mut event = check("disk", 1, Millis(0));
        event.long_output = text.to_owned();
        bench.event(&event, 1);
    }
    assert_eq!(bench.alarm().v.long_output_history, ["a", "c", "d"]);
    assert_eq!(bench.alarm().v.initial_long_output, "a");
}

#[test]
fn tags_become_labels_once() {
    let mut bench = Bench::new();
    for value in ["prod", "prod", "test"] {
        let mut event = check("disk", 1, Millis(0));
        event.tags = [("env".to_owned(), value.to_owned()), ("web".to_owned(), String::new())].into();
        bench.event(&event, 1);
    }
    assert_eq!(bench.alarm().tags, ["env: prod", "web", "env: test"]);
}

#[test]
fn beyond_the_limit_only_steps_that_end_something_are_kept() {
    let mut bench = Bench::new();
    for at in 0..6000 {
        let state = [1, 2, 0][usize::try_from(at).unwrap() % 3];
        bench.check(state, at, at);
    }
    let alarm = bench.alarm();
    assert_eq!(alarm.steps_count, MAX_ENDING_STEPS);
    assert_eq!(bench.slot.new_steps.len(), usize::try_from(MAX_ENDING_STEPS).unwrap());
    assert!(bench.slot.new_steps[usize::try_from(MAX_STEPS).unwrap()..].iter().all(|step| step.val == 0));
    assert_eq!((alarm.v.total_state_changes, alarm.v.events_count), (6000, 6000));
}

#[test]
fn an_alarm_that_is_ok_can_end_and_only_once() {
    let mut bench = Bench::new();
    bench.check(2, 10, 10);
    assert!(resolve(bench.alarm().clone(), EntityKind::Resource, Timestamp(20)).is_none(), "it is not ok");
    bench.check(0, 30, 30);
    let (alarm, step, notice) = resolve(bench.alarm().clone(), EntityKind::Resource, Timestamp(90)).unwrap();
    assert_eq!((alarm.v.resolved, alarm.v.duration), (Some(Timestamp(90)), Some(80)));
    assert_eq!(alarm.v.current_state_duration, Some(60));
    assert_eq!((step.kind, alarm.steps_count), (StepKind::Resolve, 5));
    assert_eq!((notice.change, notice.steps.len()), (Change::Resolve, 1));
    assert!(resolve(alarm, EntityKind::Resource, Timestamp(91)).is_none(), "it has ended");
}

#[test]
fn after_the_end_a_new_alarm_is_opened() {
    let mut bench = Bench::new();
    bench.check(2, 10, 10);
    let first = bench.alarm().id.clone();
    bench.slot = AlarmSlot::default();
    let notice = bench.check(1, 20, 20).unwrap();
    assert_eq!(notice.change, Change::Create);
    assert_ne!(bench.alarm().id, first);
}
