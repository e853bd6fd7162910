//! The thread: takes jobs in order, stands still while writing fails.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::bad::BadBuckets;
use super::files::Files;
use super::syncers::Syncers;
use super::{Answer, Done, Figures, Job, Key, Place, Queue, Setup, Trouble, Unwritten};
use crate::bucket::BucketNumber;
use crate::catalogue::{ChannelId, Entry, Log};
use crate::disk::Disk;
use crate::format::v2;

/// Jobs that are taken at once, and chunks that share one sync of the log.
const RUN: usize = 128;

/// Files that are made durable at the same time while requests wait for it, and in the background.
const GROUP_SYNCS: usize = 64;
const CHECKPOINT_SYNCS: usize = 8;

/// A bucket that the writer has at hand: it was written to since it was durable, or the node has a buffer for it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) place: Place,
    pub(super) number: BucketNumber,
    pub(super) entry: Entry,
    /// Changes when the file is another one.
    pub(super) generation: u64,
    /// The log knows that it is written to.
    pub(super) touched: bool,
    /// Bytes that are not durable.
    pub(super) unsynced: u64,
    /// The node has a buffer for it.
    pub(super) held: bool,
    /// The file has been looked at.
    pub(super) looked_at: bool,
    /// A write has failed and may have left something behind the last record.
    pub(super) torn: bool,
}

/// The thread's state.
pub(crate) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) log: Log,
    pub(super) setup: Setup,
    pub(super) queue: Arc<Queue>,
    done: mpsc::Sender<Vec<Done>>,
    pub(super) out: Vec<Done>,
    todo: VecDeque<Job>,
    pub(super) states: HashMap<Key, State>,
    pub(super) files: Files,
    /// Buckets with bytes that are not durable.
    pub(super) dirty: BTreeSet<Key>,
    pub(super) unsynced: u64,
    generations: u64,
    pub(super) encoder: v2::Encoder,
    pub(super) scratch: Vec<u8>,
    trouble: Option<Trouble>,
    pub(super) bad: BadBuckets,
    /// Something of this group will not be durable with it.
    pub(super) lost: bool,
    pub(super) sync_failed: bool,
    pub(super) checkpoints: u64,
    pub(super) syncers: Arc<Syncers>,
    pub(super) checkpointing: Option<std::thread::JoinHandle<()>>,
    /// A checkpoint was asked for while one was under way.
    pub(super) checkpoint_again: bool,
    /// Who waits for the checkpoint that is under way, and for the one behind it.
    pub(super) settling: Vec<Answer<()>>,
    pub(super) unsettled: Vec<Answer<()>>,
    /// Channels and buckets whose removal has overtaken their writes; the latter up to a serial number.
    pub(super) gone: HashSet<ChannelId>,
    pub(super) obsolete: HashMap<Key, u64>,
    told: Figures,
    /// Rewrites that were begun, and told to be done.
    pub(super) rewrites: (u64, u64),
}

/// What there is to do next.
enum Next {
    Goes,
    Ends,
    /// With what is lost.
    Closes(Answer<()>, Option<String>),
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        log: Log,
        setup: Setup,
        queue: Arc<Queue>,
        done: mpsc::Sender<Vec<Done>>,
        unsynced: Vec<(Place, BucketNumber, Entry, Option<String>)>,
    ) -> io::Result<Self> {
        let at_once = if setup.always { GROUP_SYNCS } else { CHECKPOINT_SYNCS };
        let mut writer = Self {
            syncers: Arc::new(Syncers::new(Arc::clone(&disk), at_once)),
            files: Files::new(Arc::clone(&disk), setup.dir.clone(), setup.open_files),
            encoder: v2::Encoder::new(setup.level)?,
            disk,
            log,
            setup,
            queue,
            done,
            out: Vec::new(),
            todo: VecDeque::new(),
            states: HashMap::new(),
            dirty: BTreeSet::new(),
            unsynced: 0,
            generations: 0,
            scratch: Vec::new(),
            trouble: None,
            bad: BadBuckets::default(),
            lost: false,
            sync_failed: false,
            checkpoints: 0,
            checkpointing: None,
            checkpoint_again: false,
            settling: Vec::new(),
            unsettled: Vec::new(),
            gone: HashSet::new(),
            obsolete: HashMap::new(),
            told: Figures::default(),
            rewrites: (0, 0),
        };
        for (place, number, entry, trouble) in unsynced {
            let key = Key { channel: place.id, number };
            let mut state = writer.new_state(place, number, entry);
            (state.touched, state.unsynced) = (true, if trouble.is_some() { 1 } else { entry.length.max(1) });
            writer.unsynced += state.unsynced;
            writer.states.insert(key, state);
            writer.dirty.insert(key);
            let place = writer.states[&key].place.clone();
            match trouble {
                Some(why) => writer.was_bad(place, number, entry, why),
                None => writer.files.renamed(&place, number),
            }
        }
        Ok(writer)
    }

    pub(super) fn new_state(&mut self, place: Place, number: BucketNumber, entry: Entry) -> State {
        self.generations += 1;
        State {
            place,
            number,
            entry,
            generation: self.generations,
            touched: false,
            unsynced: 0,
            held: false,
            looked_at: false,
            torn: false,
        }
    }

    /// Works until the storage is closed, or nobody wants to know any more.
    pub(crate) fn run(mut self) {
        loop {
            if !self.queue.take(RUN, self.bad.retry_at(), &mut self.todo) {
                return;
            }
            let next = match self.retry_if_due().and_then(|()| self.step()) {
                Ok(next) => {
                    if self.trouble.take().is_some() {
                        tracing::info!(target: "node.storage", "records are written again");
                        self.out.push(Done::Trouble(None));
                    }
                    next
                }
                Err(trouble) => self.stand_still(trouble),
            };
            let is_heard = self.tell();
            match next {
                Next::Goes if is_heard => {}
                Next::Goes | Next::Ends => return,
                Next::Closes(answer, lost) => {
                    let done = self.done.clone();
                    let mut said = Vec::new();
                    let closed = self.close(&mut said);
                    let closed = lost.map_or(closed, |lost| Err(Unwritten(lost)));
                    said.push(Done::Answer(answer, closed));
                    // If nobody listens it is closed all the same.
                    let _heard = done.blocking_send(said);
                    return;
                }
            }
        }
    }

    /// Says what was done. False: nobody listens.
    fn tell(&mut self) -> bool {
        if self.todo.is_empty() {
            (self.gone, self.obsolete) = self.still_hidden();
            let figures = Figures {
                unsynced_bytes: self.unsynced,
                open_files: self.files.open() as u64,
                touched: self.states.len() as u64,
                checkpoints: self.checkpoints,
            };
            if std::mem::replace(&mut self.told, figures) != figures {
                self.out.push(Done::Figures(figures));
            }
        }
        self.tell_out()
    }

    /// Says what is in the list; a rewrite that was begun is done by now, or will not be.
    pub(super) fn tell_out(&mut self) -> bool {
        let (begun, told) = self.rewrites;
        if begun != told {
            self.out.push(Done::Rewrote(begun));
            self.rewrites.1 = begun;
        }
        self.out.is_empty() || self.done.blocking_send(std::mem::take(&mut self.out)).is_ok()
    }

    /// Says that a bucket, or a whole channel, becomes another file: before it does.
    pub(super) fn will_be_other(&mut self, place: &Place, number: Option<BucketNumber>) {
        self.rewrites.0 = self.setup.rewrites.begin(&place.name, number);
    }

    /// What was removed out of turn matters until the queue is empty.
    fn still_hidden(&mut self) -> (HashSet<ChannelId>, HashMap<Key, u64>) {
        if self.gone.is_empty() && self.obsolete.is_empty() || !self.queue.is_empty() {
            return (std::mem::take(&mut self.gone), std::mem::take(&mut self.obsolete));
        }
        Default::default()
    }

    fn step(&mut self) -> Result<Next, Trouble> {
        if matches!(self.todo.front(), Some(Job::Write(_))) {
            let mut run = VecDeque::new();
            while let Some(Job::Write(_)) = self.todo.front()
                && run.len() < RUN
                && let Some(Job::Write(chunk)) = self.todo.pop_front()
            {
                run.push_back(chunk);
            }
            let written = self.write_run(&mut run);
            for chunk in run.into_iter().rev() {
                self.todo.push_front(Job::Write(chunk));
            }
            written?;
            self.checkpoint_if_many();
            return Ok(Next::Goes);
        }
        let Some(job) = self.todo.pop_front() else { return Ok(Next::Goes) };
        match job {
            Job::Sync { commit } => {
                if let Err(trouble) = self.sync_group(commit) {
                    self.todo.push_front(Job::Sync { commit });
                    return Err(trouble);
                }
            }
            Job::Checkpoint => self.begin_checkpoint(),
            Job::Durable(mut durable) => {
                if let Err(error) = self.end_checkpoint(&mut durable) {
                    self.todo.push_front(Job::Durable(durable));
                    return Err(Trouble::new("writing a checkpoint", &error));
                }
                if std::mem::take(&mut self.checkpoint_again) {
                    self.begin_checkpoint();
                }
            }
            Job::Release(key) => self.release(key),
            Job::Settle(answer) => {
                self.unsettled.push(answer);
                self.begin_checkpoint();
            }
            Job::Flush(answer) => self.out.push(Done::Answer(answer, Ok(()))),
            Job::Close(answer) => {
                let lost = self.last_try();
                return Ok(Next::Closes(answer, lost));
            }
            other => self.rewrite(other),
        }
        Ok(Next::Goes)
    }

    /// A job overtakes those that cannot be done now if it makes room.
    fn makes_room(job: &Job) -> bool {
        matches!(job, Job::RemoveChannel { .. } | Job::RemoveBucket { .. })
    }

    fn stand_still(&mut self, trouble: Trouble) -> Next {
        let known = self.trouble.replace(trouble.clone());
        if known.as_ref() != Some(&trouble) {
            tracing::error!(target: "node.storage", full = trouble.full, what = trouble.text, "records cannot be written");
            self.out.push(Done::Trouble(Some(trouble.clone())));
        }
        // Whatever it failed at before: each try may be at another bucket.
        if known.is_some() && self.wants_close() {
            return self.give_up(&trouble);
        }
        let mut overtaking: Vec<Job> = Vec::new();
        for job in std::mem::take(&mut self.todo) {
            if Self::makes_room(&job) { overtaking.push(job) } else { self.todo.push_back(job) }
        }
        if !self.tell() {
            return Next::Ends;
        }
        let time =
            if overtaking.is_empty() && !self.wants_close() { self.setup.retry } else { std::time::Duration::ZERO };
        if !self.queue.overtake(time, Self::makes_room, &mut overtaking) {
            return Next::Ends;
        }
        for job in overtaking {
            match &job {
                Job::RemoveChannel { place, .. } => {
                    self.gone.insert(place.id);
                }
                Job::RemoveBucket { place, number, before, .. } => {
                    self.obsolete.insert(Key { channel: place.id, number: *number }, *before);
                }
                _ => {}
            }
            self.rewrite(job);
        }
        Next::Goes
    }

    fn wants_close(&self) -> bool {
        self.queue.wants_close() || self.todo.iter().any(|job| matches!(job, Job::Close(_)))
    }

    /// The node stops while nothing can be written: what is in the files is made durable.
    fn give_up(&mut self, trouble: &Trouble) -> Next {
        let mut records = self.bad.records();
        let mut next = Next::Ends;
        self.queue.drain(&mut self.todo);
        for job in std::mem::take(&mut self.todo) {
            match job {
                Job::Write(chunk) if !self.is_obsolete(&chunk) => records += chunk.records,
                Job::Durable(mut durable) => {
                    // What the log has no room for is said again by the close.
                    let _said = self.end_checkpoint(&mut durable);
                }
                Job::Close(answer) => next = Next::Closes(answer, None),
                _ => {}
            }
        }
        if let Next::Closes(_, lost) = &mut next {
            *lost = (records > 0).then(|| format!("{records} records are lost: {}", trouble.text));
        }
        next
    }

    /// Forgets a bucket whose file is gone.
    pub(super) fn forget(&mut self, key: Key) {
        self.dirty.remove(&key);
        if let Some(state) = self.states.remove(&key) {
            self.unsynced = self.unsynced.saturating_sub(state.unsynced);
        }
    }

    fn release(&mut self, key: Key) {
        self.files.close(key);
        if let Some(state) = self.states.get_mut(&key) {
            state.held = false;
            if !state.touched {
                self.states.remove(&key);
            }
        }
    }
}
