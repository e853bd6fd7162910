//! What the writer has done is taken in.

use overstory_node::commit::Commits;

use super::{OVERHEAD, State};
use crate::catalogue::Entry;
use crate::damages::Damages;
use crate::storage::SyncMode;
use crate::writer::{Done, Job, Key, Source};

impl State {
    /// Takes in what the writer has done.
    pub(in crate::storage) fn apply(&mut self, done: Vec<Done>, commits: &Commits, damages: &Damages) {
        for done in done {
            match done {
                Done::Wrote { key, source, entry } => self.wrote(key, source, entry),
                Done::Changed { key, entry } => self.changed(key, entry, damages),
                Done::Rewrote(count) => self.rewritten = count,
                Done::Missing(missing) => damages.missing(&missing),
                Done::Synced { commit, lost } => {
                    self.group = None;
                    if lost { commits.lost(commit) } else { commits.reached(commit) }
                }
                Done::Bad { key, why } => self.is_bad_now(key, why),
                Done::Mended(key) => drop(self.bad.remove(&key)),
                Done::Trouble(trouble) => {
                    self.trouble = trouble;
                    self.judge();
                }
                Done::SyncFailed(text) => {
                    self.sync_failed.get_or_insert(text);
                    if self.options.sync == SyncMode::Always {
                        commits.fail();
                    }
                    self.judge();
                }
                Done::Figures(figures) => {
                    if figures.checkpoints > self.figures.checkpoints {
                        self.durable_up_to = self.checkpoint_asked;
                    }
                    self.figures = figures;
                }
                // Who asked may have gone.
                Done::Answer(answer, result) => drop(answer.send(result)),
                Done::AnswerBool(answer, result) => drop(answer.send(result)),
            }
        }
        if self.behind && self.effort() < self.options.queue_bytes / 2 {
            self.behind = false;
            if self.options.sync == SyncMode::Interval {
                commits.reached(commits.made());
            }
        }
    }

    fn wrote(&mut self, key: Key, source: Source, entry: Entry) {
        // One that was removed meanwhile does not come back.
        let Some(bucket) = self.buckets.of(source) else { return };
        if let Some(format) = entry.format {
            bucket.format = format;
        }
        if let Some(chunk) = bucket.flying.pop_front() {
            self.is_done(&chunk);
        }
        self.catalogue.set(key.channel, key.number, entry);
        self.drop_if_done(source.at);
    }

    fn changed(&mut self, key: Key, entry: Option<Entry>, damages: &Damages) {
        damages.changed(self.catalogue.name(key.channel), key.number);
        let open = self.buckets.find(key);
        match entry {
            Some(entry) => self.catalogue.set(key.channel, key.number, entry),
            None if open.is_some() => self.catalogue.set(key.channel, key.number, Entry::EMPTY),
            None => drop(self.catalogue.forget(key.channel, key.number)),
        }
        match open.and_then(|at| self.buckets.get_mut(at)) {
            Some(bucket) => {
                if let Some(format) = entry.and_then(|entry| entry.format) {
                    bucket.format = format;
                }
            }
            None => self.give(Job::Release(key)),
        }
    }

    /// A bucket cannot be written: nothing more is taken for it, and others do not wait for it, up to a bound.
    fn is_bad_now(&mut self, key: Key, why: String) {
        self.bad.insert(key, why);
        let Some(at) = self.buckets.find(key) else { return };
        self.is_dropped(at);
        let limit = self.options.queue_bytes;
        for chunk in self.buckets.get_mut(at).into_iter().flat_map(|bucket| &mut bucket.flying) {
            let cost = chunk.bytes.len() + OVERHEAD;
            if !chunk.waits && self.waiting + cost <= limit {
                chunk.waits = true;
                self.waiting += cost;
                self.flying = self.flying.saturating_sub(cost);
                self.chunks = self.chunks.saturating_sub(1);
            }
        }
    }
}
