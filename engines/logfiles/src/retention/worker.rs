//! The thread that does the work on files.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::disk::Disk;

type Job = Box<dyn FnOnce(&dyn Disk) + Send>;

/// The longest rest after a piece of work.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// The thread's other end. The thread ends when this is dropped, after the piece that it is at.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    /// How many times as long as it worked it rests.
    rest: u32,
}

impl Worker {
    pub(super) fn start(disk: Arc<dyn Disk>, rest: u32) -> io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(1);
        let work = move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&*disk);
            }
        };
        std::thread::Builder::new().name("logfiles-keeper".into()).spawn(work)?;
        Ok(Self { jobs, rest })
    }

    /// Does a piece of work, and rests.
    pub(super) async fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the keeper's thread has ended");
        let (answer, answered) = oneshot::channel();
        let begin = Instant::now();
        let job: Job = Box::new(move |disk| {
            // Nobody waits for it any more: the node stops.
            let _ = answer.send(work(disk));
        });
        self.jobs.send(job).await.map_err(|_| ended())?;
        let result = answered.await.map_err(|_| ended())?;
        tokio::time::sleep((begin.elapsed() * self.rest).min(LONGEST_REST)).await;
        result
    }

    /// Does work in pieces until one says that it was the last.
    pub(super) async fn finish<T: Pieces>(&self, work: T) -> io::Result<T> {
        let mut work = work;
        loop {
            let (back, done) = self
                .perform(move |_| {
                    let done = work.piece()?;
                    Ok((work, done))
                })
                .await?;
            if done {
                return Ok(back);
            }
            work = back;
        }
    }
}

/// Work that is done in pieces.
pub(super) trait Pieces: Send + Sized + 'static {
    /// Does some of it. True: that was all.
    fn piece(&mut self) -> io::Result<bool>;
}
