//! The two units' work: the chain of engines over events, and collectdgw over the messages of a real collectd.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use overstory_amqp::{Delivery, topology};
use overstory_model::collectd::{Decoded, Message, Rates, TypesDb};
use overstory_model::event::{Limits, Note};
use overstory_model::ids::random_id;
use overstory_model::{Alarm, Entity, EntityId, EntityKind, Event, EventKind, Millis};
use overstory_store::commit::AlarmWrite;
use overstory_store::{Commit, EngineSide, Retention, StoreError};
use tokio::time::Instant;

use crate::engine::alarms::{self, resolve};
use crate::engine::cleaner::{Raw, clean};
use crate::engine::context::{self, Subject};
use crate::engine::metrics::StateMetric;
use crate::engine::{self, Draft, Engine, Refusal, collectdgw};
use crate::metrics::{EngineTally, Metrics};
use crate::unit::Work;
use crate::working::Working;

/// So many alarms are resolved in one commit.
const RESOLVE_AT_ONCE: u32 = 300;
/// Message ids are forgotten this often, in milliseconds.
const FORGET_EVERY_MS: i64 = 600_000;
/// Metrics are looked after this often, in milliseconds, or with each beat while there is more to do.
const MAINTAIN_EVERY_MS: i64 = 60_000;

/// What the engines are set to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engines after the cleaner, in their order.
    pub chain: Vec<Engine>,
    /// cleaner's bounds.
    pub limits: Limits,
    /// context.
    pub context: context::Settings,
    /// alarms.
    pub alarms: alarms::Settings,
    /// metrics.
    pub state_metric: StateMetric,
    /// How long points are kept.
    pub retention: Retention,
    /// collectdgw: the name under which it is a connector.
    pub connector_name: String,
    /// collectdgw: for so many series the latest count is remembered.
    pub series: usize,
    /// Bytes of entities and alarms that each unit keeps at hand.
    pub working_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chain: vec![Engine::Context, Engine::Alarms, Engine::Metrics],
            limits: Limits::default(),
            context: context::Settings::default(),
            alarms: alarms::Settings::default(),
            state_metric: StateMetric::default(),
            retention: Retention::default(),
            connector_name: "collectdgw".to_owned(),
            series: 50_000,
            working_bytes: 48 << 20,
        }
    }
}

/// A valid event on its way through the engines.
#[derive(Debug)]
pub struct Item {
    event: Event,
    subject: Subject,
    notes: Vec<Note>,
}

/// The chain of engines over `Engine_events`.
pub struct EventsWork {
    settings: Settings,
    store: EngineSide,
    working: Working,
    cleaner: EngineTally,
    chain: Vec<(Engine, EngineTally)>,
    forgot_at: Millis,
    maintained_at: Millis,
}

impl EventsWork {
    /// Makes the chain.
    #[must_use]
    pub fn new(settings: Settings, store: EngineSide, metrics: &Metrics) -> Self {
        Self {
            store,
            working: Working::new(settings.working_bytes),
            cleaner: metrics.engine(Engine::Cleaner),
            chain: settings.chain.iter().map(|engine| (*engine, metrics.engine(*engine))).collect(),
            forgot_at: Millis(0),
            maintained_at: Millis(0),
            settings,
        }
    }

    fn resolve(&mut self, settled: Vec<Alarm>, now: Millis, draft: &mut Draft) -> Commit {
        let mut commit = Commit::default();
        for stored in settled {
            let kind = match (&stored.v.resource, stored.v.component.as_str()) {
                (Some(_), _) => EntityKind::Resource,
                (None, "") => EntityKind::Connector,
                (None, _) => EntityKind::Component,
            };
            let entity = stored.entity.clone();
            let Some((alarm, step, notice)) = resolve(stored, kind, now.secs()) else { continue };
            if self.working.holds(&entity) {
                let slot = &mut self.working.slot(&entity).alarm;
                slot.alarm = Some(alarm);
                slot.new_steps.push(step);
                slot.dirty = true;
            } else {
                commit.alarms.push(AlarmWrite { alarm, new_steps: vec![step], is_new: false });
            }
            draft.notify(topology::ALERTS, &notice);
        }
        commit
    }

    async fn look_after_store(&mut self, now: Millis) -> Result<(), StoreError> {
        if now.since(self.maintained_at) >= MAINTAIN_EVERY_MS {
            let report = self.store.metrics.maintain(now, self.settings.retention).await?;
            if !report.more {
                self.maintained_at = now;
            }
        }
        if now.since(self.forgot_at) >= FORGET_EVERY_MS {
            self.store.engines.forget_seen(now.secs()).await?;
            self.forgot_at = now;
        }
        Ok(())
    }
}

#[async_trait]
impl Work for EventsWork {
    type Input = Item;

    fn needs_dedup(&self) -> bool {
        true
    }

    fn read(&mut self, delivery: &Delivery, now: Millis) -> Result<Item, Refusal> {
        let started = Instant::now();
        let raw = Raw {
            body: &delivery.body,
            size: delivery.size,
            oversized: delivery.oversized,
            routing_key: &delivery.routing_key,
            content_type: delivery.content_type.as_deref(),
        };
        let outcome = clean(&raw, now, &self.settings.limits).map(|parsed| Item {
            subject: Subject::of(&parsed.event),
            event: parsed.event,
            notes: parsed.notes,
        });
        self.cleaner.worked(started.elapsed());
        if outcome.is_err() {
            self.cleaner.errors.inc();
        }
        outcome
    }

    async fn load(&mut self, inputs: &[&Item]) -> Result<(), StoreError> {
        load(&mut self.working, &self.store, inputs.iter().flat_map(|item| item.subject.ids())).await
    }

    fn decide(&mut self, input: &Item, now: Millis, draft: &mut Draft) {
        let Item { event, subject, notes } = input;
        draft.take_notes(notes);
        let mut started = Instant::now();
        for (engine, tally) in &self.chain {
            match engine {
                Engine::Context => {
                    if context::apply(event, subject, &mut self.working, now.secs(), &self.settings.context) {
                        draft.note("shared_identity");
                    }
                }
                Engine::Alarms => {
                    if let EventKind::Check { state } = event.kind {
                        let slot = self.working.slot(&subject.entity);
                        if slot.entity.as_ref().is_none_or(|entity| entity.enabled) {
                            let settings = &self.settings.alarms;
                            let slot = &mut slot.alarm;
                            let notice = alarms::apply(slot, event, state, now.secs(), settings, &mut random_id);
                            if let Some(notice) = notice {
                                draft.notify(topology::ALERTS, &notice);
                            }
                        }
                    }
                }
                Engine::Metrics => {
                    engine::metrics::apply(event, &subject.entity, self.settings.state_metric, &mut draft.points);
                }
                Engine::Cleaner | Engine::Collectdgw | Engine::Stats | Engine::Archive => {}
            }
            let ended = Instant::now();
            tally.worked(ended - started);
            started = ended;
        }
    }

    fn finish(&mut self, commit: &mut Commit) {
        self.working.write(commit);
    }

    fn committed(&mut self) {
        self.working.committed();
    }

    fn forget(&mut self) {
        self.working.forget();
    }

    async fn beat(&mut self, now: Millis, draft: &mut Draft) -> Result<Option<Commit>, StoreError> {
        if self.settings.chain.contains(&Engine::Alarms) {
            let before = now.secs().plus(-self.settings.alarms.resolve_after_s);
            let settled = self.store.alarms.settled(before, RESOLVE_AT_ONCE).await?;
            if !settled.is_empty() {
                return Ok(Some(self.resolve(settled, now, draft)));
            }
        }
        self.look_after_store(now).await?;
        Ok(None)
    }
}

/// The work of collectdgw over `Engine_collectdgw`.
pub struct CollectdWork {
    settings: Settings,
    store: EngineSide,
    working: Working,
    rates: Rates,
    types: Arc<TypesDb>,
    tally: EngineTally,
}

impl CollectdWork {
    /// Makes the engine with the table of types that it reads counts by.
    #[must_use]
    pub fn new(settings: Settings, store: EngineSide, metrics: &Metrics, types: Arc<TypesDb>) -> Self {
        Self {
            store,
            working: Working::new(settings.working_bytes / 8),
            rates: Rates::new(settings.series),
            types,
            tally: metrics.engine(Engine::Collectdgw),
            settings,
        }
    }
}

#[async_trait]
impl Work for CollectdWork {
    type Input = Decoded;

    /// The same point again replaces itself.
    fn needs_dedup(&self) -> bool {
        false
    }

    fn read(&mut self, delivery: &Delivery, now: Millis) -> Result<Decoded, Refusal> {
        let started = Instant::now();
        let message = Message {
            content_type: delivery.content_type.as_deref(),
            routing_key: &delivery.routing_key,
            body: &delivery.body,
            received: now,
        };
        let outcome = if delivery.oversized {
            Err(Refusal { reason: "oversized", detail: format!("{} bytes", delivery.size) })
        } else {
            collectdgw::read(&message, &self.types)
        };
        self.tally.worked(started.elapsed());
        if outcome.is_err() {
            self.tally.errors.inc();
        }
        outcome
    }

    async fn load(&mut self, inputs: &[&Decoded]) -> Result<(), StoreError> {
        let name = &self.settings.connector_name;
        let ids: HashSet<EntityId> = inputs.iter().flat_map(|decoded| collectdgw::ids_of(decoded, name)).collect();
        load(&mut self.working, &self.store, ids.iter()).await
    }

    fn decide(&mut self, input: &Decoded, now: Millis, draft: &mut Draft) {
        let started = Instant::now();
        collectdgw::apply(
            input,
            &self.settings.connector_name,
            &mut self.rates,
            &mut self.working,
            now.secs(),
            &self.settings.context,
            draft,
        );
        self.tally.work_ns.inc_by(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn finish(&mut self, commit: &mut Commit) {
        self.working.write(commit);
    }

    fn committed(&mut self) {
        self.working.committed();
    }

    /// Entities and alarms may be stale; the latest counts are those of messages, whoever worked on them since.
    fn forget(&mut self) {
        self.working.forget();
    }

    async fn beat(&mut self, _now: Millis, _draft: &mut Draft) -> Result<Option<Commit>, StoreError> {
        Ok(None)
    }
}

/// Loads what of `ids` is not at hand.
async fn load<'a>(
    working: &mut Working,
    store: &EngineSide,
    ids: impl Iterator<Item = &'a EntityId> + Send,
) -> Result<(), StoreError> {
    let missing: HashSet<&EntityId> = ids.filter(|id| !working.holds(id)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<EntityId> = missing.into_iter().cloned().collect();
    let entities = store.entities.by_ids(&missing).await?;
    let alarms = store.alarms.open_of(&missing).await?;
    let mut entities: HashMap<EntityId, Entity> =
        entities.into_iter().map(|entity| (entity.id.clone(), entity)).collect();
    let mut alarms: HashMap<EntityId, Alarm> = alarms.into_iter().map(|alarm| (alarm.entity.clone(), alarm)).collect();
    for id in missing {
        let (entity, alarm) = (entities.remove(&id), alarms.remove(&id));
        working.fill(id, entity, alarm);
    }
    Ok(())
}
