//! Threads that make files and directories durable: many at a time, since a disk that is asked for much at once does it in
//! fewer turns.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::due::{Due, End};
use crate::disk::Disk;

/// So few are done sooner than other threads wake up.
const FEW: usize = 2;
/// What a thread needs of stack: it makes one call.
const STACK: usize = 128 << 10;

/// The threads, a bounded number. They are started when there is work for them, and end with this.
pub(super) struct Syncers {
    shared: Arc<Shared>,
    /// Locked as long as somebody has them work.
    threads: Mutex<Vec<JoinHandle<()>>>,
    limit: usize,
}

/// What is to be made durable.
pub(super) enum Task {
    File(Box<Due>),
    Dir(PathBuf),
}

/// What became of it.
pub(super) enum Made {
    File(Box<Due>, io::Result<End>),
    Dir(PathBuf, io::Result<()>),
}

struct Shared {
    disk: Arc<dyn Disk>,
    inside: Mutex<Inside>,
    /// There is something to do, or it is over.
    work: Condvar,
    /// Nothing is left, and nobody is at something.
    done: Condvar,
}

#[derive(Default)]
struct Inside {
    todo: Vec<Task>,
    made: Vec<Made>,
    busy: usize,
    ended: bool,
}

impl Syncers {
    /// No more than `limit` threads, with the one that calls.
    pub(super) fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        let (inside, work, done) = (Mutex::default(), Condvar::new(), Condvar::new());
        Self { shared: Arc::new(Shared { disk, inside, work, done }), threads: Mutex::default(), limit }
    }

    /// Does all of it, in any order, and something else at the same time. One at a time: others wait.
    pub(super) fn run<T>(&self, tasks: Vec<Task>, meanwhile: impl FnOnce() -> T) -> (Vec<Made>, T) {
        if tasks.len() <= FEW {
            let made = tasks.into_iter().map(|task| task.perform(&*self.shared.disk)).collect();
            return (made, meanwhile());
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = tasks.len().min(self.limit.saturating_sub(1));
        while threads.len() < wanted {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("logfiles-syncer".into()).stack_size(STACK);
            match thread.spawn(move || shared.work()) {
                Ok(thread) => threads.push(thread),
                // Those that are there do it, or the caller alone.
                Err(_) => break,
            }
        }
        self.shared.lock().todo = tasks;
        (0..wanted).for_each(|_| self.shared.work.notify_one());
        let other = meanwhile();
        let mut inside = self.shared.help(self.shared.lock());
        while inside.busy > 0 {
            inside = self.shared.done.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        (std::mem::take(&mut inside.made), other)
    }
}

impl Drop for Syncers {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.work.notify_all();
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is until it is over.
    fn work(&self) {
        let mut inside = self.lock();
        while !inside.ended {
            inside = self.help(inside);
            if inside.busy == 0 {
                self.done.notify_one();
            }
            let idle = |inside: &mut Inside| inside.todo.is_empty() && !inside.ended;
            inside = self.work.wait_while(inside, idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does what there is.
    fn help<'a>(&'a self, mut inside: MutexGuard<'a, Inside>) -> MutexGuard<'a, Inside> {
        while let Some(task) = inside.todo.pop() {
            inside.busy += 1;
            drop(inside);
            let made = task.perform(&*self.disk);
            inside = self.lock();
            inside.busy -= 1;
            inside.made.push(made);
        }
        inside
    }
}

impl Task {
    fn perform(self, disk: &dyn Disk) -> Made {
        match self {
            Self::File(due) => {
                let end = due.sync(disk);
                Made::File(due, end)
            }
            Self::Dir(dir) => {
                let synced = disk.sync_dir(&dir);
                Made::Dir(dir, synced)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::path::Path;

    use super::*;
    use crate::disk::sim::{Call, SimDisk};

    #[test]
    fn all_is_done_whatever_the_number_of_threads_and_what_fails_is_told() {
        for limit in [1, 2, 5] {
            let disk = SimDisk::new();
            let syncers = Syncers::new(Arc::new(disk.clone()), limit);
            for round in 0..50_u64 {
                let count = usize::try_from(round).unwrap() % 20;
                let tasks: Vec<Task> = (0..count).map(|_| Task::Dir("/".into())).collect();
                disk.fail(Call::SyncDir, 0, u64::from(count > 3), io::ErrorKind::Other);
                let (made, other) = syncers.run(tasks, || round);
                let failed = |made: &&Made| matches!(made, Made::Dir(dir, Err(_)) if dir == Path::new("/"));
                assert_eq!((made.len(), made.iter().filter(failed).count()), (count, usize::from(count > 3)));
                assert_eq!(other, round);
            }
            assert!(syncers.threads.lock().unwrap().len() < limit);
        }
    }
}
