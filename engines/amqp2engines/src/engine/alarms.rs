//! alarms: made by a check that is not ok, followed through its states, resolved when it stayed ok.

use overstory_model::alarm::{AlarmValue, Initiator, MAX_STEPS};
use overstory_model::notice::{AlarmNotice, Change};
use overstory_model::{Alarm, AlarmId, EntityKind, Event, State, Status, Step, StepKind, Timestamp};

use crate::working::AlarmSlot;

/// Steps that end something are kept beyond [`MAX_STEPS`], up to so many in all.
pub const MAX_ENDING_STEPS: u32 = 2 * MAX_STEPS;
/// The author of what the platform does by itself.
const SYSTEM: &str = "system";

/// How the engine works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// An alarm that was ok for so many seconds ends.
    pub resolve_after_s: i64,
    /// So many distinct long outputs are kept.
    pub long_output_history: usize,
    /// So many tags are kept.
    pub tags: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { resolve_after_s: 60, long_output_history: 100, tags: 100 }
    }
}

/// Applies a check to the open alarm of its entity, or opens one.
///
/// Events count in the order of the queue, whatever time they carry. A time in the future counts as the present: else
/// the alarm of a source whose clock runs ahead would not end for as long. `random` gives random identifiers.
pub fn apply(
    slot: &mut AlarmSlot,
    event: &Event,
    state: State,
    now: Timestamp,
    settings: &Settings,
    random: &mut dyn FnMut() -> String,
) -> Option<AlarmNotice> {
    let at = event.at.secs().min(now);
    match &mut slot.alarm {
        Some(alarm) => {
            slot.dirty = true;
            take_event(alarm, event, now, settings);
            let previous = alarm.state();
            if state == previous {
                return None;
            }
            let kind = if state > previous { StepKind::StateInc } else { StepKind::StateDec };
            let steps = change_state(alarm, kind, state, event, at);
            keep_steps(alarm, &steps, &mut slot.new_steps);
            let change = if state > previous { Change::StateInc } else { Change::StateDec };
            Some(notice(alarm, change, event.entity_kind(), previous, steps, now))
        }
        None if state == State::Ok => None,
        None => {
            let (alarm, steps) = open(event, state, at, now, settings, random);
            slot.is_new = true;
            slot.dirty = true;
            slot.new_steps.extend(steps.iter().cloned());
            let notice = notice(&alarm, Change::Create, event.entity_kind(), State::Ok, steps, now);
            slot.alarm = Some(alarm);
            Some(notice)
        }
    }
}

/// Ends an alarm; `None` when it cannot end because it is not ok or has ended.
#[must_use]
pub fn resolve(mut alarm: Alarm, kind: EntityKind, now: Timestamp) -> Option<(Alarm, Step, AlarmNotice)> {
    if !alarm.is_open() || alarm.state() != State::Ok {
        return None;
    }
    let step = Step {
        kind: StepKind::Resolve,
        t: now,
        author: SYSTEM.to_owned(),
        message: String::new(),
        val: 0,
        initiator: Initiator::System,
    };
    alarm.v.resolved = Some(now);
    alarm.v.duration = Some(now.since(alarm.t));
    alarm.v.current_state_duration = Some(now.since(alarm.v.state.t));
    alarm.steps_count += 1;
    let notice = notice(&alarm, Change::Resolve, kind, State::Ok, vec![step.clone()], now);
    Some((alarm, step, notice))
}

fn open(
    event: &Event,
    state: State,
    at: Timestamp,
    now: Timestamp,
    settings: &Settings,
    random: &mut dyn FnMut() -> String,
) -> (Alarm, Vec<Step>) {
    let state_step = step(StepKind::StateInc, u8::from(state), event, at);
    let status_step = step(StepKind::StatusInc, u8::from(Status::Ongoing), event, at);
    let history = if event.long_output.is_empty() { Vec::new() } else { vec![event.long_output.clone()] };
    let mut alarm = Alarm {
        id: AlarmId(random()),
        t: now,
        entity: event.entity_id(),
        tags: Vec::new(),
        v: AlarmValue {
            state: state_step.clone(),
            status: status_step.clone(),
            connector: event.connector.clone(),
            connector_name: event.connector_name.clone(),
            component: event.component().to_owned(),
            resource: event.resource().map(str::to_owned),
            display_name: display_name(&random()),
            creation_date: now,
            last_update_date: at,
            last_event_date: now,
            initial_output: event.output.clone(),
            output: event.output.clone(),
            initial_long_output: event.long_output.clone(),
            long_output: event.long_output.clone(),
            long_output_history: history,
            events_count: 1,
            total_state_changes: 1,
            state_changes_since_status_update: 0,
            resolved: None,
            duration: None,
            current_state_duration: None,
            parents: Vec::new(),
            children: Vec::new(),
            infos: serde_json::Map::new(),
            infos_rule_version: serde_json::Map::new(),
        },
        steps_count: 2,
    };
    add_tags(&mut alarm, event, settings);
    (alarm, vec![state_step, status_step])
}

/// What every event of an open alarm does to it.
fn take_event(alarm: &mut Alarm, event: &Event, now: Timestamp, settings: &Settings) {
    let v = &mut alarm.v;
    v.events_count += 1;
    v.last_event_date = now;
    if v.output != event.output {
        v.output.clone_from(&event.output);
    }
    if v.long_output != event.long_output {
        v.long_output.clone_from(&event.long_output);
        if !event.long_output.is_empty() {
            v.long_output_history.retain(|text| *text != event.long_output);
            v.long_output_history.push(event.long_output.clone());
            let surplus = v.long_output_history.len().saturating_sub(settings.long_output_history);
            v.long_output_history.drain(..surplus);
        }
    }
    if !event.tags.is_empty() {
        add_tags(alarm, event, settings);
    }
}

fn change_state(alarm: &mut Alarm, kind: StepKind, state: State, event: &Event, at: Timestamp) -> Vec<Step> {
    let status_before = alarm.status();
    let v = &mut alarm.v;
    v.state = step(kind, u8::from(state), event, at);
    v.last_update_date = at;
    v.total_state_changes += 1;
    v.state_changes_since_status_update += 1;
    let mut steps = vec![v.state.clone()];
    let status = if state == State::Ok { Status::Off } else { Status::Ongoing };
    if status != status_before {
        let kind = if status > status_before { StepKind::StatusInc } else { StepKind::StatusDec };
        v.status = step(kind, u8::from(status), event, at);
        v.state_changes_since_status_update = 0;
        steps.push(v.status.clone());
    }
    steps
}

/// Has `steps` stored as far as there is room: up to [`MAX_STEPS`] all, beyond it those to ok and to off.
fn keep_steps(alarm: &mut Alarm, steps: &[Step], new_steps: &mut Vec<Step>) {
    for step in steps {
        let limit = if step.val == 0 { MAX_ENDING_STEPS } else { MAX_STEPS };
        if alarm.steps_count < limit {
            alarm.steps_count += 1;
            new_steps.push(step.clone());
        }
    }
}

fn step(kind: StepKind, value: u8, event: &Event, at: Timestamp) -> Step {
    Step {
        kind,
        t: at,
        author: event.author.clone(),
        message: event.output.clone(),
        val: i64::from(value),
        initiator: event.initiator,
    }
}

fn notice(
    alarm: &Alarm,
    change: Change,
    source_type: EntityKind,
    previous: State,
    steps: Vec<Step>,
    now: Timestamp,
) -> AlarmNotice {
    AlarmNotice {
        change,
        timestamp: now,
        source_type,
        entity_id: alarm.entity.clone(),
        previous_state: u8::from(previous),
        steps,
        alarm: alarm.clone(),
    }
}

fn add_tags(alarm: &mut Alarm, event: &Event, settings: &Settings) {
    for (key, value) in &event.tags {
        if alarm.tags.len() >= settings.tags {
            return;
        }
        let tag = if value.is_empty() { key.clone() } else { format!("{key}: {value}") };
        if !alarm.tags.contains(&tag) {
            alarm.tags.push(tag);
        }
    }
}

/// Three groups of three: short enough to say over the telephone.
fn display_name(random: &str) -> String {
    let letters: Vec<char> = random.chars().filter(char::is_ascii_alphanumeric).take(9).collect();
    letters.chunks(3).map(|group| group.iter().collect::<String>().to_ascii_uppercase()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
pub(crate) mod tests;
