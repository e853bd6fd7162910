//! What happens beside the requests: what the writer has done is taken in, buffers are written when their time has come.

use std::future::poll_fn;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Storage;
use crate::writer::{Answer, Done, Job, Unwritten};

impl Storage {
    /// Does what is due, until the storage is closed. One task of the node runs it.
    pub async fn drive(&self) {
        let (half, every) = {
            let state = self.state.borrow();
            (state.options.write_after / 2, state.options.checkpoint)
        };
        let mut tick: Option<Instant> = None;
        let mut checkpoint = Instant::now() + every;
        loop {
            let waits = self.state.borrow_mut().turn(&self.commits);
            if waits && tick.is_none() {
                tick = Some(Instant::now() + half);
            }
            tokio::select! {
                done = self.receive() => match done {
                    Some(done) => self.apply(done),
                    None => return self.is_alone(),
                },
                () = self.wake.notified() => {}
                () = sleep_until(tick.unwrap_or(checkpoint)), if tick.is_some() => {
                    tick = self.state.borrow_mut().tick().then(|| Instant::now() + half);
                }
                () = sleep_until(checkpoint) => {
                    checkpoint = Instant::now() + every;
                    self.state.borrow_mut().checkpoint();
                }
            }
        }
    }

    async fn receive(&self) -> Option<Vec<Done>> {
        poll_fn(|cx| self.done.borrow_mut().poll_recv(cx)).await
    }

    fn apply(&self, done: Vec<Done>) {
        self.state.borrow_mut().apply(done, &self.commits, &self.damages);
    }

    /// The writer has ended.
    fn is_alone(&self) {
        let mut state = self.state.borrow_mut();
        if !state.is_stopping() {
            tracing::error!(target: "node.storage", "the writer has ended");
            state.sync_failed = Some("the writer has ended, the node has to be started again".into());
            state.stop();
            self.commits.fail();
        }
    }

    /// Waits for the answer to a job, and takes in what was done meanwhile.
    pub(super) async fn ask<T>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Result<T, Unwritten> {
        let (answer, mut answered) = oneshot::channel();
        self.state.borrow().give(job(answer));
        // The drive does not know that somebody else has waited in its place.
        let _wakes = WakesDrive(self);
        loop {
            tokio::select! {
                biased;
                result = &mut answered => {
                    return result.unwrap_or_else(|_| Err(Unwritten("the writer has ended".into())));
                }
                done = self.receive() => match done {
                    Some(done) => self.apply(done),
                    None => {
                        self.is_alone();
                        let result = answered.try_recv();
                        return result.unwrap_or_else(|_| Err(Unwritten("the writer has ended".into())));
                    }
                },
            }
        }
    }

    /// Waits until everything that was put before is in its file. While the disk is full that takes until there is room.
    ///
    /// # Errors
    /// There are buckets that cannot be written, with records for them, or the writer has ended.
    pub async fn flush(&self) -> Result<(), Unwritten> {
        self.flush_good().await?;
        let state = self.state.borrow();
        match state.bad_buckets() {
            Some((_, first, records)) if records > 0 => Err(Unwritten(format!("{first}; {records} records wait"))),
            _ => Ok(()),
        }
    }

    /// Waits until everything that was put before is in its file, but for buckets that cannot be written.
    pub(super) async fn flush_good(&self) -> Result<(), Unwritten> {
        self.state.borrow_mut().seal_all();
        self.ask(Job::Flush).await
    }

    /// Waits until everything that was put into a channel before is durable, whatever the mode.
    ///
    /// # Errors
    /// Some of it cannot be written or made durable, or the writer has ended.
    pub async fn settle(&self, channel: &str) -> Result<(), Unwritten> {
        self.state.borrow_mut().seal_all();
        self.ask(Job::Settle).await?;
        let state = self.state.borrow();
        let bad = state.catalogue.channel(channel).and_then(|id| state.bad_of(id));
        bad.map_or(Ok(()), |(key, why)| Err(Unwritten(format!("{channel}/{} cannot be written: {why}", key.number))))
    }

    /// Writes what is left, makes everything durable and ends the writer. No record is taken from now on.
    ///
    /// # Errors
    /// Something could not be written or made durable; the next start recovers what is there.
    pub async fn close(&self) -> Result<(), Unwritten> {
        {
            let mut state = self.state.borrow_mut();
            state.stop();
            state.seal_all();
        }
        let closed = self.ask(Job::Close).await;
        if closed.is_ok() {
            self.commits.reached(self.commits.made());
        } else {
            self.commits.fail();
        }
        let writer = self.state.borrow_mut().writer.take();
        drop(writer);
        closed
    }
}

struct WakesDrive<'a>(&'a Storage);

impl Drop for WakesDrive<'_> {
    fn drop(&mut self) {
        self.0.wake.notify_one();
    }
}
