//! What makes written bytes durable: groups, checkpoints, the end.

use std::io;
use std::sync::Arc;

use super::due::{Due, Durable, Open};
use super::files::path;
use super::{Done, Job, Key, Trouble, Unwritten, Writer};
use crate::catalogue::Synced;

/// Touched buckets from which on a checkpoint does not wait for its time, so that memory and log stay small.
const MANY: usize = 20_000;

impl Writer {
    /// All that is touched, or only what is not durable.
    fn due(&mut self, touched: bool) -> Vec<Due> {
        let dirty = std::mem::take(&mut self.dirty);
        let keys: Vec<Key> = if touched {
            self.states.iter().filter(|(_, state)| state.touched).map(|(key, _)| *key).collect()
        } else {
            let (bad, good): (Vec<Key>, Vec<Key>) =
                dirty.into_iter().partition(|key| self.bad.has(*key) && self.files.get(*key).is_none());
            self.dirty.extend(bad);
            good
        };
        let mut due = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(state) = self.states.get_mut(&key) else { continue };
            self.unsynced = self.unsynced.saturating_sub(state.unsynced);
            due.push(Due {
                key,
                generation: state.generation,
                entry: state.entry,
                unsynced: std::mem::take(&mut state.unsynced),
                path: path(&state.place, state.number),
                file: self.files.get(key).map(|file| Open(Arc::downgrade(&file))),
                gone: false,
                closed: None,
            });
        }
        due
    }

    /// What could not be made durable because its file cannot be opened is that bucket's trouble, and is left for later.
    fn set_back(&mut self, buckets: &mut Vec<Due>) {
        for due in buckets.extract_if(.., |due| due.closed.is_some()) {
            let current = |state: &&mut super::run::State| state.generation == due.generation;
            let Some(state) = self.states.get_mut(&due.key).filter(current) else { continue };
            // That there is something: a checkpoint that is begun because of its bytes would not help.
            let unsynced = due.unsynced.min(1);
            state.unsynced += unsynced;
            self.unsynced += unsynced;
            if unsynced > 0 {
                self.dirty.insert(due.key);
            }
            let (place, number, entry) = (state.place.clone(), state.number, state.entry);
            self.files.renamed(&place, number);
            self.files.close(due.key);
            self.set_aside(&place, number, entry, due.closed.unwrap_or_default());
        }
    }

    /// Nothing that was written can be trusted to be durable any more, whatever a later call says.
    pub(super) fn cannot_sync(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.sync_failed, true) {
            tracing::error!(target: "node.storage", %error, "records cannot be made durable");
            self.out.push(Done::SyncFailed(error.to_string()));
            // The system has forgotten what it could not write, and may give the old content of the disk for it: the next
            // start asks for proof, as after a power cut.
            let _told = self.log.distrust();
        }
    }

    /// Makes durable what was written, in `always` mode.
    pub(super) fn sync_group(&mut self, commit: u64) -> Result<(), Trouble> {
        if self.sync_failed {
            return Ok(());
        }
        let mut durable = Durable::new(self.due(false), self.files.take_pending());
        let (syncers, log) = (Arc::clone(&self.syncers), &mut self.log);
        // An entry of the log whose bytes are not durable proves nothing: the two need no order.
        let logged = durable.make(&syncers, || log.sync());
        if let Err(error) = &durable.result {
            self.cannot_sync(error);
            return Ok(());
        }
        self.set_back(&mut durable.buckets);
        self.files.are_durable(durable.dirs);
        match logged {
            Ok(()) => {
                let lost = std::mem::take(&mut self.lost);
                self.out.push(Done::Synced { commit, lost });
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(Trouble::new("writing the catalogue", &error));
            }
            Err(error) => self.cannot_sync(&error),
        }
        Ok(())
    }

    pub(super) fn checkpoint_if_many(&mut self) {
        let is_free = self.checkpointing.is_none() && self.states.len() > MANY;
        if is_free && self.states.values().filter(|state| state.touched).count() > MANY {
            self.begin_checkpoint();
        }
    }

    /// Has what is touched made durable: by a thread of its own, while writing goes on. What was written up to now is
    /// the checkpoint.
    pub(super) fn begin_checkpoint(&mut self) {
        if self.sync_failed {
            return self.settled();
        }
        if self.checkpointing.is_some() {
            // What was written since that one began is for another one.
            self.checkpoint_again = true;
            return;
        }
        self.settling.append(&mut self.unsettled);
        if !self.states.values().any(|state| state.touched) {
            self.checkpoints += 1;
            return self.settled();
        }
        let mut durable = Durable::new(self.due(true), self.files.take_pending());
        let (syncers, queue) = (Arc::clone(&self.syncers), Arc::clone(&self.queue));
        if self.setup.always {
            // A group must not be told durable while something that it needs is still on its way: here and now.
            durable.make(&syncers, || ());
            if let Err(error) = &durable.result {
                self.cannot_sync(error);
                return self.settled();
            }
            self.set_back(&mut durable.buckets);
            queue.push(Job::Durable(Box::new(durable)));
            return;
        }
        let work = move || {
            durable.make(&syncers, || ());
            queue.push(Job::Durable(Box::new(durable)));
        };
        match std::thread::Builder::new().name("logfiles-sync".into()).spawn(work) {
            Ok(thread) => self.checkpointing = Some(thread),
            // What was taken is not known to be durable any more.
            Err(error) => {
                self.cannot_sync(&error);
                self.settled();
            }
        }
    }

    /// Answers those that wait for the checkpoint that has ended; if nothing becomes durable any more, all.
    fn settled(&mut self) {
        if self.sync_failed {
            self.settling.append(&mut self.unsettled);
        }
        let failed = self.sync_failed;
        let result = || if failed { Err(Unwritten("records cannot be made durable".into())) } else { Ok(()) };
        self.out.extend(self.settling.drain(..).map(|answer| Done::Answer(answer, result())));
    }

    /// Says in the log what is durable.
    pub(super) fn end_checkpoint(&mut self, durable: &mut Durable) -> io::Result<()> {
        if let Some(thread) = self.checkpointing.take() {
            let _ended = thread.join();
        }
        if let Err(error) = &durable.result {
            self.cannot_sync(error);
            self.settled();
            return Ok(());
        }
        self.set_back(&mut durable.buckets);
        let current = |writer: &Self, due: &Due| {
            !due.gone && writer.states.get(&due.key).is_some_and(|state| state.generation == due.generation)
        };
        let mut synced = Vec::with_capacity(durable.buckets.len());
        for due in &durable.buckets {
            if let Some(state) = self.states.get(&due.key).filter(|_| current(self, due)) {
                let more = state.entry.length != due.entry.length || state.torn;
                synced.push(Synced {
                    channel: Arc::clone(&state.place.name),
                    number: state.number,
                    entry: due.entry,
                    more,
                });
            }
        }
        self.log.checkpoint(&synced)?;
        self.files.are_durable(durable.dirs.clone());
        self.checkpoints += 1;
        for due in &durable.buckets {
            if !current(self, due) {
                continue;
            }
            let Some(state) = self.states.get_mut(&due.key) else { continue };
            state.touched = state.entry.length != due.entry.length || state.torn;
            if !state.touched && !state.held {
                self.files.close(due.key);
                self.forget(due.key);
            }
        }
        self.settled();
        Ok(())
    }

    /// The end: everything is durable, and the log says so. Where a full disk has no room for the log, that is made anew by
    /// the next start: nothing is lost.
    pub(super) fn close(mut self, said: &mut Vec<Done>) -> Result<(), Unwritten> {
        let is_full = |closed: &io::Result<()>| matches!(closed, Err(error) if is_full(error));
        let mut closed = self.finish();
        if is_full(&closed) {
            self.log.make_room();
            closed = self.finish();
        }
        if is_full(&closed) {
            closed = self.log.write_in_its_room().and_then(|()| self.finish());
        }
        said.append(&mut self.out);
        if self.sync_failed {
            return Err(Unwritten("records could not be made durable".into()));
        }
        let Err(error) = closed else { return Ok(()) };
        let discarded = self.log.discard();
        if is_full(&Err(io::Error::from(error.kind()))) && discarded.is_ok() {
            tracing::warn!(
                target: "node.storage",
                %error,
                "all records are saved, but there is no room for the catalogue: the next start makes it anew and counts the records again"
            );
            return Ok(());
        }
        Err(Unwritten(format!("the catalogue could not be written, all records are saved: {error}")))
    }

    /// Makes everything durable, and says so in the log. The error is the log's.
    fn finish(&mut self) -> io::Result<()> {
        self.make_all_durable()?;
        if self.sync_failed {
            // What was written is proved by what the log says of it.
            let _told = self.log.sync();
            return Ok(());
        }
        if self.states.values().any(|state| state.touched) {
            // The next start has to look at what could not be written or made durable.
            return self.log.sync();
        }
        self.log.close()
    }

    fn make_all_durable(&mut self) -> io::Result<()> {
        if let Some(thread) = self.checkpointing.take() {
            let _ended = thread.join();
            let mut jobs = std::collections::VecDeque::new();
            self.queue.drain(&mut jobs);
            for job in jobs {
                if let Job::Durable(mut durable) = job {
                    self.end_checkpoint(&mut durable)?;
                }
            }
        }
        if !self.sync_failed {
            let mut durable = Durable::new(self.due(true), self.files.take_pending());
            durable.make(&self.syncers, || ());
            self.end_checkpoint(&mut durable)?;
        }
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
