//! Groups: what is written and made durable together, and what the threads have done.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::format::Kind;
use super::log::{DEBT, Log, MUCH};
use super::segment;
use super::worker::{Done, Group, Job};
use crate::disk::DiskError;

impl Log {
    pub(super) fn settle(&mut self) -> Result<(), DiskError> {
        self.check()?;
        self.tell_released()?;
        if self.debt >= DEBT {
            self.work_off_debt();
        }
        if self.group.is_none() && self.wants_group() {
            self.begin_group()?;
        } else if self.urgent || self.pending.len() >= MUCH {
            self.write_pending()?;
        }
        self.urgent = false;
        Ok(())
    }

    fn wants_group(&self) -> bool {
        self.commits.made() > self.committing || self.wants_to_free()
    }

    /// Whether a segment could be removed if what was appended were durable.
    fn wants_to_free(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.free_after.is_some_and(|after| after > self.synced))
    }

    /// Begins a group if that lets a segment be removed.
    pub(super) fn free_soon(&mut self) {
        if self.trouble.failed.is_none() && self.group.is_none() && self.wants_to_free() {
            let begun = self.tell_released().and_then(|()| self.begin_group());
            report("beginning a group", begun);
        }
        self.remove_free();
    }

    fn begin_group(&mut self) -> Result<(), DiskError> {
        let (serial, at) = self.mark;
        match self.put_small(Kind::Mark, 0, serial, &at.to_le_bytes()) {
            // It only tells damage from what a crash cut short.
            Err(DiskError::Full(_)) => {}
            marked => marked?,
        }
        self.write_pending()?;
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.segments.back().map(|segment| (segment.serial, Arc::clone(&segment.file))));
        let mark = (self.last_serial(), self.pending_at);
        let group = Group { upto: self.appended, commit: self.commits.made(), mark };
        self.committing = group.commit;
        self.group = Some(group);
        if self.syncer.give(Job::Sync { files, group }) {
            return Ok(());
        }
        Err(self.fail("handing a group to the thread for", io::ErrorKind::BrokenPipe.into()))
    }

    /// The next thing that a thread has done.
    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Option<Done>> {
        self.done.poll_recv(cx)
    }

    /// Takes what the threads have done so far.
    pub(super) fn take_done(&mut self) {
        while let Ok(done) = self.done.try_recv() {
            self.finished(done);
        }
    }

    pub(super) fn finished(&mut self, done: Done) {
        match done {
            Done::Synced { group, result: Ok(()) } => {
                self.group = None;
                self.is_durable(group);
                if self.trouble.failed.is_none() && (self.wants_group() || !self.pending.is_empty()) {
                    let begun = self.tell_released().and_then(|()| self.begin_group());
                    report("beginning a group", begun);
                }
            }
            Done::Synced { result: Err(error), .. } => {
                let error = self.fail("making durable", error);
                report("making a group durable", Err(error));
            }
            Done::Prepared(Ok(fresh)) if self.next.is_none() && fresh.serial > self.last_serial() => {
                self.preparing = false;
                self.trouble.unprepared = false;
                (self.full_since, self.trouble.full) = (None, None);
                self.next = Some(fresh);
            }
            Done::Prepared(Ok(fresh)) => {
                // It comes too late: another one was made in its place.
                self.preparing = false;
                let _gone = std::fs::remove_file(segment::path(&self.dir, fresh.serial));
                self.prepare();
            }
            Done::Prepared(Err(error)) => {
                self.preparing = false;
                if !std::mem::replace(&mut self.trouble.unprepared, true) {
                    tracing::warn!(target: "dmqnode.journal", %error, "no segment can be prepared");
                }
            }
            Done::Removed { result: Ok(()), .. } => {
                self.removing = None;
                self.trouble.remove = None;
                self.full_since = None;
                self.prepare();
            }
            Done::Removed { serial, result: Err(error) } => {
                self.removing = Some((serial, true));
                self.trouble.remove = Some(format!("{}: {error}", segment::path(&self.dir, serial).display()));
            }
        }
        self.remove_free();
    }

    fn is_durable(&mut self, group: Group) {
        if group.upto >= self.synced {
            self.synced = group.upto;
            self.mark = group.mark;
            self.commits.reached(group.commit);
        }
    }

    /// What is left to do when nothing has happened for a while.
    pub(super) fn idle(&mut self) {
        if self.trouble.failed.is_some() {
            return;
        }
        if let Some((serial, true)) = self.removing {
            self.removing = Some((serial, !self.keeper.give(Job::Remove { serial })));
        }
        if self.group.is_none() && (self.appended > self.synced || !self.released.is_empty() || !self.untold.is_empty())
        {
            let begun = self.tell_released().and_then(|()| self.begin_group());
            report("beginning a group", begun);
        }
        self.remove_free();
        self.prepare();
    }

    pub(super) fn sync_now(&mut self) -> Result<(), DiskError> {
        self.check()?;
        self.tell_released()?;
        self.write_pending()?;
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.segments.back().map(|segment| (segment.serial, Arc::clone(&segment.file))));
        for (serial, file) in &files {
            if let Err(error) = self.files.sync(file, *serial) {
                return Err(self.fail("making durable", error));
            }
        }
        // Those that a group under way holds, it holds alone.
        while self.group.is_some() {
            if !self.syncer.is_there() {
                return Err(self.fail("waiting for the thread of", io::ErrorKind::BrokenPipe.into()));
            }
            std::thread::yield_now();
            self.take_done();
            self.check()?;
        }
        self.committing = self.commits.made();
        let mark = (self.last_serial(), self.pending_at);
        self.is_durable(Group { upto: self.appended, commit: self.committing, mark });
        Ok(())
    }
}

/// For failures that no caller waits for: they are findings, too.
fn report(doing: &str, result: Result<(), DiskError>) {
    if let Err(error) = result {
        tracing::error!(target: "dmqnode.journal", doing, %error, "the journal has failed");
    }
}
