//! The working set: entities and open alarms, as the store has them and as the batch at hand changed them.
//!
//! It is a cache that is exact while this process holds the epoch: nobody else can write then. After anything but a
//! successful commit it is dropped as a whole. Bounded by the estimated size of what it holds.

use std::collections::HashMap;

use overstory_model::{Alarm, Entity, EntityId, Step};
use overstory_store::Commit;
use overstory_store::commit::AlarmWrite;

/// What of an entity the next commit writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum EntityWrite {
    /// Nothing.
    #[default]
    None,
    /// The time of the last event.
    Heard,
    /// All of it.
    Whole,
}

/// The open alarm of an entity, and what the batch did to it.
#[derive(Debug, Default)]
pub struct AlarmSlot {
    /// The alarm, if one is open.
    pub alarm: Option<Alarm>,
    /// Steps that are not in the store yet.
    pub new_steps: Vec<Step>,
    /// Whether the alarm is not in the store yet.
    pub is_new: bool,
    /// Whether the alarm differs from the stored one.
    pub dirty: bool,
}

/// What is known of one entity.
#[derive(Debug, Default)]
pub struct Slot {
    /// The entity, if it exists.
    pub entity: Option<Entity>,
    /// Its open alarm.
    pub alarm: AlarmSlot,
    write: EntityWrite,
    touched: bool,
    used: u64,
    weight: usize,
}

impl Slot {
    /// Has the whole entity written.
    pub fn write_entity(&mut self) {
        self.write = EntityWrite::Whole;
    }

    /// Has the time of the last event written.
    pub fn write_heard(&mut self) {
        self.write = self.write.max(EntityWrite::Heard);
    }

    /// What the next commit writes of the entity.
    #[must_use]
    pub const fn entity_write(&self) -> EntityWrite {
        self.write
    }

    fn estimate(&self, id: &EntityId) -> usize {
        let entity = self.entity.as_ref().map_or(0, |entity| {
            size_of::<Entity>()
                + 3 * entity.name.len()
                + entity.component.as_ref().map_or(0, String::len)
                + entity.infos.len() * 1024
        });
        let alarm = self.alarm.alarm.as_ref().map_or(0, |alarm| {
            let v = &alarm.v;
            let texts = [&v.output, &v.long_output, &v.initial_output, &v.initial_long_output, &v.component];
            let history: usize = v.long_output_history.iter().map(|text| text.len() + 24).sum();
            texts.iter().map(|text| text.len()).sum::<usize>() + history + alarm.tags.len() * 64 + 512
        });
        size_of::<Self>() + 2 * id.0.len() + entity + alarm
    }
}

/// The working set of one unit.
#[derive(Debug)]
pub struct Working {
    slots: HashMap<EntityId, Slot>,
    touched: Vec<EntityId>,
    weight: usize,
    limit: usize,
    clock: u64,
}

impl Working {
    /// Makes an empty set that holds about `limit` bytes between batches.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { slots: HashMap::new(), touched: Vec::new(), weight: 0, limit, clock: 0 }
    }

    /// Whether the entity's state is here.
    #[must_use]
    pub fn holds(&self, id: &EntityId) -> bool {
        self.slots.contains_key(id)
    }

    /// Takes over what the store has for an entity that is not held yet.
    pub fn fill(&mut self, id: EntityId, entity: Option<Entity>, alarm: Option<Alarm>) {
        let slot = Slot { entity, alarm: AlarmSlot { alarm, ..AlarmSlot::default() }, ..Slot::default() };
        let weight = slot.estimate(&id);
        self.weight += weight;
        if let Some(old) = self.slots.insert(id, Slot { weight, ..slot }) {
            self.weight -= old.weight;
        }
    }

    /// The slot of an entity, to be changed; an entity that was not filled in counts as unknown.
    pub fn slot(&mut self, id: &EntityId) -> &mut Slot {
        if !self.slots.contains_key(id) {
            self.slots.insert(id.clone(), Slot::default());
        }
        self.clock += 1;
        let clock = self.clock;
        let touched = &mut self.touched;
        let slot = self.slots.entry(id.clone()).or_default();
        slot.used = clock;
        if !slot.touched {
            slot.touched = true;
            touched.push(id.clone());
        }
        slot
    }

    /// The entities that this batch touched.
    pub fn touched(&self) -> impl Iterator<Item = (&EntityId, &Slot)> {
        self.touched.iter().filter_map(|id| self.slots.get(id).map(|slot| (id, slot)))
    }

    /// Writes all changes into `commit`.
    pub fn write(&mut self, commit: &mut Commit) {
        for id in &self.touched {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            match (slot.write, &slot.entity) {
                (EntityWrite::Whole, Some(entity)) => commit.entities.push(entity.clone()),
                (EntityWrite::Heard, Some(entity)) => commit.heard_of.push((id.clone(), entity.last_event_date)),
                _ => {}
            }
            if slot.alarm.dirty
                && let Some(alarm) = &slot.alarm.alarm
            {
                commit.alarms.push(AlarmWrite {
                    alarm: alarm.clone(),
                    new_steps: std::mem::take(&mut slot.alarm.new_steps),
                    is_new: slot.alarm.is_new,
                });
            }
        }
    }

    /// What was written is in the store now. Resolved alarms are let go, and what was not used for longest if there is
    /// too much.
    pub fn committed(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.write = EntityWrite::None;
            slot.touched = false;
            slot.alarm.is_new = false;
            slot.alarm.dirty = false;
            slot.alarm.new_steps.clear();
            if slot.alarm.alarm.as_ref().is_some_and(|alarm| !alarm.is_open()) {
                slot.alarm.alarm = None;
            }
            let weight = slot.estimate(&id);
            self.weight = (self.weight + weight).saturating_sub(std::mem::replace(&mut slot.weight, weight));
        }
        if self.weight > self.limit {
            self.evict();
        }
    }

    /// Drops everything: it may differ from what the store has.
    pub fn forget(&mut self) {
        self.slots.clear();
        self.touched.clear();
        self.weight = 0;
    }

    /// How many entities are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn evict(&mut self) {
        let mut by_use: Vec<(u64, usize)> = self.slots.values().map(|slot| (slot.used, slot.weight)).collect();
        by_use.sort_unstable();
        let goal = self.limit / 10 * 9;
        let mut weight = self.weight;
        let mut oldest_kept = 0;
        for (used, size) in by_use {
            if weight <= goal {
                break;
            }
            weight -= size;
            oldest_kept = used + 1;
        }
        self.slots.retain(|_, slot| slot.used >= oldest_kept);
        self.weight = self.slots.values().map(|slot| slot.weight).sum();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use overstory_model::{EntityKind, Timestamp};

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let mut working = Working::new(20_000);
        let id = |n: usize| EntityId::component(&format!("c{n}"));
        for n in 0..1000 {
            let slot = working.slot(&id(n));
            slot.entity = Some(Entity::new(id(n), "c", EntityKind::Component, Timestamp(0)));
            slot.write_entity();
            let mut commit = Commit::default();
            working.write(&mut commit);
            assert_eq!(commit.entities.len(), 1);
            working.committed();
            working.slot(&id(0));
            working.committed();
        }
        assert!(working.len() < 100, "{}", working.len());
        assert!(working.holds(&id(999)) && working.holds(&id(0)) && !working.holds(&id(1)));
    }
}
