//! The queue of jobs. What is in it is bounded by who gives the jobs: the storage counts the bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Job;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    jobs: VecDeque<Job>,
    abandoned: bool,
    /// The writer waits.
    waits: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, job: Job) {
        let mut inside = self.lock();
        inside.jobs.push_back(job);
        let waits = inside.waits;
        drop(inside);
        if waits {
            self.changed.notify_one();
        }
    }

    /// Nothing more will come, and nothing that is there matters any more.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.changed.notify_one();
    }

    /// Adds up to `limit` jobs to those at hand, and waits for one if there are none, not beyond `until`. False: abandoned.
    pub(super) fn take(&self, limit: usize, until: Option<Instant>, out: &mut VecDeque<Job>) -> bool {
        let mut inside = self.lock();
        while inside.jobs.is_empty() && out.is_empty() && !inside.abandoned {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            inside.waits = true;
            inside = match left {
                Some(left) => self.changed.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner),
            };
            inside.waits = false;
        }
        let count = inside.jobs.len().min(limit.saturating_sub(out.len()));
        out.extend(inside.jobs.drain(..count));
        !inside.abandoned
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().jobs.is_empty()
    }

    pub(super) fn wants_close(&self) -> bool {
        self.lock().jobs.iter().any(|job| matches!(job, Job::Close(_)))
    }

    /// Everything that is there.
    pub(super) fn drain(&self, out: &mut VecDeque<Job>) {
        out.append(&mut self.lock().jobs);
    }

    /// Waits for jobs that `matter` while nothing else can be done, for some time at most, and takes them out of their
    /// order. False: abandoned.
    pub(super) fn overtake(&self, time: Duration, matter: impl Fn(&Job) -> bool, out: &mut Vec<Job>) -> bool {
        let mut inside = self.lock();
        let there = |inside: &Inside| {
            inside.abandoned || inside.jobs.iter().any(|job| matter(job) || matches!(job, Job::Close(_)))
        };
        if !there(&inside) {
            inside.waits = true;
            let waited = self.changed.wait_timeout_while(inside, time, |inside| !there(inside));
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
            inside.waits = false;
        }
        let jobs = std::mem::take(&mut inside.jobs);
        for job in jobs {
            if matter(&job) { out.push(job) } else { inside.jobs.push_back(job) }
        }
        !inside.abandoned
    }
}
