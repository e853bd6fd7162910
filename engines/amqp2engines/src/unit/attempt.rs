//! One try to work on a batch: from messages to a durable commit.

use std::any::Any;
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use overstory_amqp::{Delivery, dead};
use overstory_model::Timestamp;
use overstory_model::ids::MessageId;
use overstory_store::{Commit, OutboxEntry, Outgoing, StoreError};
use tokio::time::Instant;

use super::{GiveUp, Patience, Unit, WAKE, Work};
use crate::engine::{Draft, Refusal};

/// A dead letter's body is cut beyond this size: neither store nor broker could carry it.
const MAX_DEAD_BODY: usize = 8 << 20;
/// Header of a dead letter whose body was cut: its true size in bytes.
const TRUNCATED: &str = "x-overstory-truncated";

/// Messages that are not worked on, by their place in the batch.
pub(super) type Forced = BTreeMap<usize, Refusal>;

/// What a try counted; counts only when it succeeded.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    duplicates: u64,
    refused: Vec<&'static str>,
}

impl<W: Work> Unit<W> {
    /// Works on a batch until it is in the store, as long as there is hope.
    pub(super) async fn commit_patiently(&mut self, batch: &[&Delivery], forced: &mut Forced) -> Result<(), GiveUp> {
        let mut patience = Patience::new(self.options.patience);
        loop {
            let error = match self.attempt(batch, forced).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // The outcome of a commit whose answer was lost is not known either: what is at hand cannot be trusted, and
            // the next try asks the store anew which of these messages it has seen.
            self.work.forget();
            match error {
                StoreError::Fenced { .. } => return Err(GiveUp::Fenced),
                error if error.is_retryable() => self.wait_for_store(&mut patience, &error).await?,
                error => return Err(GiveUp::Refused(error)),
            }
        }
    }

    async fn attempt(&mut self, batch: &[&Delivery], forced: &mut Forced) -> Result<(), StoreError> {
        let batch: Vec<&Delivery> =
            batch.iter().copied().filter(|delivery| !delivery.headers.contains_key(WAKE)).collect();
        let ids: Vec<MessageId> = batch.iter().map(|delivery| dedup_id(delivery)).collect();
        let fresh = self.which_are_fresh(&batch, &ids).await?;
        let (mut commit, draft, tally) = loop {
            match self.decide(&batch, &fresh, forced).await? {
                Some(decided) => break decided,
                // One of them panicked: what it left half done is dropped, and the others are done again.
                None => self.work.forget(),
            }
        };
        if self.work.needs_dedup() {
            let kept = ids.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
            commit.seen = kept.map(|(id, _)| *id).collect();
        }
        if !commit.is_empty() || !commit.heard_of.is_empty() {
            self.write(commit).await?;
        }
        self.work.committed();
        let metrics = &self.parts.metrics;
        metrics.count_draft(&draft);
        metrics.done.inc_by(tally.done);
        metrics.duplicates.inc_by(tally.duplicates);
        for reason in tally.refused {
            metrics.refused(&self.options.queue, reason);
        }
        Ok(())
    }

    /// Says for each message whether it has to be worked on.
    async fn which_are_fresh(&mut self, batch: &[&Delivery], ids: &[MessageId]) -> Result<Vec<bool>, StoreError> {
        if !self.work.needs_dedup() {
            return Ok(vec![true; batch.len()]);
        }
        // A publisher that names its messages may send one twice as two new messages. What an unnamed one looks like
        // decides only when the broker says that it may have been delivered before: two alike are two.
        let doubtful: Vec<bool> =
            batch.iter().map(|delivery| delivery.redelivered || delivery.message_id.is_some()).collect();
        let asked: Vec<MessageId> =
            ids.iter().zip(&doubtful).filter(|(_, doubtful)| **doubtful).map(|(id, _)| *id).collect();
        let mut answers = match asked.is_empty() {
            true => Vec::new(),
            false => self.parts.store.engines.seen(&asked).await?,
        }
        .into_iter();
        let mut named = HashSet::with_capacity(batch.len());
        let fresh = batch.iter().zip(ids).zip(&doubtful).map(|((delivery, id), doubtful)| {
            let seen = *doubtful && answers.next().unwrap_or(false);
            let again = delivery.message_id.is_some() && !named.insert(*id);
            !seen && !again
        });
        Ok(fresh.collect())
    }

    /// Reads, loads and decides; `None` when one of the messages made the engines panic and is now in `forced`.
    async fn decide(
        &mut self,
        batch: &[&Delivery],
        fresh: &[bool],
        forced: &mut Forced,
    ) -> Result<Option<(Commit, Draft, Tally)>, StoreError> {
        let now = self.parts.clock.now();
        let mut tally = Tally::default();
        let mut inputs = Vec::with_capacity(batch.len());
        for (place, delivery) in batch.iter().enumerate() {
            if !fresh.get(place).copied().unwrap_or(true) {
                tally.duplicates += 1;
                continue;
            }
            let input = match forced.get(&place) {
                Some(refusal) => Err(refusal.clone()),
                None => {
                    let work = &mut self.work;
                    catch_unwind(AssertUnwindSafe(|| work.read(delivery, now)))
                        .unwrap_or_else(|panic| Err(refuse(&*panic)))
                }
            };
            inputs.push((place, *delivery, input));
        }
        let readable: Vec<&W::Input> = inputs.iter().filter_map(|(_, _, input)| input.as_ref().ok()).collect();
        self.work.load(&readable).await?;
        let mut draft = Draft::default();
        for (place, delivery, input) in &inputs {
            match input {
                Ok(input) => {
                    let work = &mut self.work;
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.decide(input, now, &mut draft))) {
                        forced.insert(*place, refuse(&*panic));
                        return Ok(None);
                    }
                    tally.done += 1;
                }
                Err(refusal) => {
                    draft.outbox.push(self.dead_letter(delivery, refusal, now.secs()));
                    tally.refused.push(refusal.reason);
                }
            }
        }
        let mut commit = Commit {
            at: now.secs(),
            points: std::mem::take(&mut draft.points),
            outbox: std::mem::take(&mut draft.outbox),
            ..Commit::default()
        };
        self.work.finish(&mut commit);
        Ok(Some((commit, draft, tally)))
    }

    /// Commits, and has what it leaves in the outbox published.
    pub(super) async fn write(&mut self, commit: Commit) -> Result<(), StoreError> {
        let Some(tenure) = &self.tenure else {
            return Err(StoreError::Fenced { unit: self.options.queue.clone(), held: 0, current: 0 });
        };
        let messages = commit.outbox.clone();
        let started = Instant::now();
        let numbers = self.parts.store.engines.commit(&self.options.queue, tenure.epoch, commit).await?;
        self.parts.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.parts.watchdog.step();
        let entries =
            numbers.into_iter().zip(messages).map(|(number, message)| OutboxEntry { number, message }).collect();
        tenure.outbox.send(entries, &self.parts).await;
        Ok(())
    }

    fn dead_letter(&self, delivery: &Delivery, refusal: &Refusal, now: Timestamp) -> Outgoing {
        let letter = dead::dead_letter(delivery, &self.options.queue, refusal.reason, &refusal.detail, now);
        let mut headers: Vec<(String, String)> = letter.headers.into_iter().collect();
        let mut body = letter.body;
        if body.len() > MAX_DEAD_BODY {
            headers.push((TRUNCATED.to_owned(), body.len().to_string()));
            body.truncate(MAX_DEAD_BODY);
        }
        Outgoing {
            exchange: letter.exchange,
            routing_key: letter.routing_key.as_str().to_owned(),
            message_id: letter.message_id,
            content_type: letter.content_type,
            headers,
            body: body.to_vec(),
        }
    }
}

/// What a message is recognised by; one that an operator sent again from the dead letters counts as another.
pub(super) fn dedup_id(delivery: &Delivery) -> MessageId {
    match (&delivery.message_id, delivery.headers.get(dead::REPLAY)) {
        (Some(id), Some(times)) => MessageId::from_property(&format!("{id} replay {times}")),
        _ => delivery.id(),
    }
}

fn refuse(panic: &(dyn Any + Send)) -> Refusal {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Refusal { reason: "engine_panic", detail: text.unwrap_or("an engine panicked").to_owned() }
}
