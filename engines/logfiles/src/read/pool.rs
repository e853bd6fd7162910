//! The threads, the queue of jobs and what each job has to do with its client.
//!
//! ```text
//!            ┌────────────── has views and room for a batch ─────────────┐
//!            ▼                                                           │
//! Queued ──thread──▶ Running ──▶ two batches ready, or nothing to read ──▶ Parked
//!   ▲                   │ │
//!   └── one batch, or ──┘ └──▶ Over: the end, a failure, or its client has gone
//!       its time is over
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use overstory_node::wake::Waker;
use overstory_swarm::lzo::Work;
use tokio::sync::Notify;

use super::buffers::Buffers;
use super::job::{Feed, Job, Means, Outcome};
use super::{After, Batch, BucketView, Next, ReadRequest, ReadsOptions, TAILS, Told, Usage};
use crate::disk::Disk;

/// Batches of a request that may be ready.
const READY: usize = 2;
/// With so many views left, more are fetched.
const FEW: usize = 16;
/// Bytes of windows and of batches that are kept to be used again, of each.
const KEPT: usize = 8 << 20;
/// What is found and not told yet, at most; more of it is not told.
const TOLD: usize = 1000;

/// The node thread's side.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    wakers: RefCell<Wakers>,
}

/// Who waits for which request.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Pool {
    pub(super) fn start(disk: Arc<dyn Disk>, options: ReadsOptions) -> io::Result<Self> {
        let means = Means {
            disk,
            windows: Arc::new(Buffers::new(KEPT)),
            batches: Arc::new(Buffers::new(KEPT)),
            files: Arc::default(),
        };
        let shared = Arc::new(Shared {
            means: Arc::new(means),
            options,
            queue: Mutex::default(),
            work: Condvar::new(),
            held: AtomicUsize::new(0),
            woken: Mutex::default(),
            told: Mutex::default(),
            news: Notify::new(),
        });
        let mut pool = Self { shared, threads: Vec::new(), wakers: RefCell::default() };
        for number in 1..=options.threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("read-{number}")).spawn(move || shared.run())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn add(&self, request: ReadRequest, waker: Waker) -> Slot {
        let mut wakers = self.wakers.borrow_mut();
        let index = wakers.free.pop().unwrap_or(wakers.slots.len());
        match wakers.slots.get_mut(index) {
            Some(slot) => *slot = Some(waker),
            None => wakers.slots.push(Some(waker)),
        }
        let channel = Arc::clone(&request.channel);
        let job = Box::new(Job::new(request, Arc::clone(&self.shared.means)));
        let state = State {
            phase: Phase::Parked(job),
            views: VecDeque::new(),
            after: None,
            all_views: false,
            round: 0,
            ready: VecDeque::new(),
            parked: 0,
            waiting: false,
            failed: false,
            undecided: 0,
        };
        Slot(Arc::new(Task { index, channel, cancelled: AtomicBool::new(false), state: Mutex::new(state) }))
    }

    pub(super) fn wake(&self, index: usize) {
        let waker = self.wakers.borrow().slots.get(index).cloned().flatten();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let wakers = self.wakers.borrow();
        Usage {
            requests: wakers.slots.len() - wakers.free.len(),
            ready_bytes: self.shared.held.load(Ordering::Relaxed),
            files: self.shared.means.files.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.over = true;
        queue.tasks.clear();
        drop(queue);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// A request, for its client.
pub(super) struct Slot(Arc<Task>);

/// Views that are wanted: those behind a bucket, for a round.
pub(super) type Wanted = (Option<After>, u64);

impl Slot {
    /// Which views are wanted, if any. They may have copies of write buffers: where memory is scarce they are for those
    /// who wait.
    pub(super) fn wants_views(&self, pool: &Pool) -> Option<Wanted> {
        let state = lock(&self.0.state);
        let wants = !state.all_views && state.views.len() <= FEW && !matches!(state.phase, Phase::Over);
        let wants = wants && (state.views.is_empty() || state.tail_bytes() < TAILS);
        let wants = wants && (state.waiting || !pool.shared.is_over_budget());
        wants.then_some((state.after, state.round))
    }

    /// Hands views over, the place of the last one, and whether they are all that there are.
    pub(super) fn give_views(
        &self,
        pool: &Pool,
        round: u64,
        views: &mut Vec<BucketView>,
        last: Option<After>,
        all: bool,
    ) {
        let mut state = lock(&self.0.state);
        if state.round == round {
            state.after = last.or(state.after);
            state.all_views = all;
            state.views.extend(views.drain(..));
            pool.shared.count_parked(&mut state);
            let asked = state.waiting;
            pool.shared.resume(&self.0, &mut state, asked);
        }
        // Those of an earlier round are out of date.
        views.clear();
    }

    pub(super) fn poll(&self, pool: &Pool) -> Next {
        let mut state = lock(&self.0.state);
        if let Some(batch) = state.ready.pop_front() {
            pool.shared.held.fetch_sub(batch.memory(), Ordering::Relaxed);
            pool.shared.resume(&self.0, &mut state, false);
            return Next::Batch(batch);
        }
        match state.phase {
            Phase::Over if state.failed => Next::Failed,
            Phase::Over => Next::End,
            _ => {
                state.waiting = true;
                pool.shared.resume(&self.0, &mut state, true);
                Next::Wait
            }
        }
    }

    pub(super) fn undecided(&self) -> u64 {
        lock(&self.0.state).undecided
    }

    pub(super) fn cancel(&self, pool: &Pool) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        let mut state = lock(&self.0.state);
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Parked(job) | Phase::Queued(job) => pool.shared.finish(&self.0, &mut state, &job),
            // The thread does the same when its step ends.
            Phase::Running => state.phase = Phase::Running,
            Phase::Over => {}
        }
        pool.shared.forget_ready(&mut state);
        drop(state);
        let mut wakers = pool.wakers.borrow_mut();
        if let Some(slot) = wakers.slots.get_mut(self.0.index) {
            *slot = None;
        }
        wakers.free.push(self.0.index);
    }
}

/// A request, as both sides know it.
struct Task {
    index: usize,
    channel: Arc<str>,
    cancelled: AtomicBool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    views: VecDeque<BucketView>,
    /// The bucket of the last view that was fetched.
    after: Option<After>,
    /// There are no views behind that.
    all_views: bool,
    /// Counts how often views were thrown away.
    round: u64,
    ready: VecDeque<Batch>,
    /// What the job keeps in memory while it is parked, with what the views have copied of write buffers.
    parked: usize,
    /// The client had asked in vain.
    waiting: bool,
    failed: bool,
    /// Records that were left out because the filter could not decide; known when it is over.
    undecided: u64,
}

enum Phase {
    Parked(Box<Job>),
    Queued(Box<Job>),
    Running,
    Over,
}

/// What the threads and the node's thread share.
pub(super) struct Shared {
    means: Arc<Means>,
    options: ReadsOptions,
    queue: Mutex<Queue>,
    work: Condvar,
    /// Bytes of ready batches and parked jobs.
    held: AtomicUsize,
    woken: Mutex<Vec<usize>>,
    told: Mutex<Vec<Told>>,
    /// Something was woken or told.
    pub(super) news: Notify,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Arc<Task>>,
    over: bool,
}

impl State {
    /// The bytes of the views' copies of write buffers.
    fn tail_bytes(&self) -> usize {
        self.views.iter().map(BucketView::tail_bytes).sum()
    }

    /// Has no views any more: those behind a bucket are to be fetched anew.
    fn forget_views(&mut self, after: Option<After>) {
        self.views.clear();
        (self.after, self.all_views, self.round) = (after, false, self.round + 1);
    }
}

impl Shared {
    pub(super) fn take_woken(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.woken))
    }

    pub(super) fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut lock(&self.told))
    }

    fn wake(&self, task: &Task) {
        lock(&self.woken).push(task.index);
        self.news.notify_one();
    }

    fn tell(&self, told: Told) {
        let mut list = lock(&self.told);
        if list.len() < TOLD {
            list.push(told);
        }
        drop(list);
        self.news.notify_one();
    }

    fn is_over_budget(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.options.ready_bytes
    }

    /// Puts a parked job into the queue if it can go on and may: `asked` says that its client waits for it.
    fn resume(&self, task: &Arc<Task>, state: &mut State, asked: bool) {
        let Phase::Parked(job) = &state.phase else { return };
        let can = job.is_within() || state.all_views || !state.views.is_empty();
        let may = state.ready.len() < READY && (!self.is_over_budget() || (asked && state.ready.is_empty()));
        if !can || !may {
            return;
        }
        self.held.fetch_sub(std::mem::take(&mut state.parked), Ordering::Relaxed);
        if let Phase::Parked(job) = std::mem::replace(&mut state.phase, Phase::Over) {
            self.enqueue(task, state, job);
        }
    }

    fn enqueue(&self, task: &Arc<Task>, state: &mut State, mut job: Box<Job>) {
        self.bound_files(&mut job);
        state.phase = Phase::Queued(job);
        lock(&self.queue).tasks.push_back(Arc::clone(task));
        self.work.notify_one();
    }

    /// Lets a job wait for its client.
    fn park(&self, task: &Task, state: &mut State, mut job: Box<Job>) {
        let memory = job.memory() + state.tail_bytes();
        if self.held.load(Ordering::Relaxed) + memory > self.options.ready_bytes {
            let missing = job.slim();
            if missing || state.tail_bytes() > 0 {
                state.forget_views(job.taken());
                // It may be fetching those that are out of date just now.
                self.wake(task);
            }
        }
        self.bound_files(&mut job);
        state.phase = Phase::Parked(job);
        self.count_parked(state);
    }

    /// A job that does not run keeps its files open only while there are few.
    fn bound_files(&self, job: &mut Job) {
        if self.means.files.load(Ordering::Relaxed) > self.options.open_files {
            job.close();
        }
    }

    /// Counts what a parked job and its views keep in memory.
    fn count_parked(&self, state: &mut State) {
        let Phase::Parked(job) = &state.phase else { return };
        let now = job.memory() + state.tail_bytes();
        self.held.fetch_add(now, Ordering::Relaxed);
        self.held.fetch_sub(std::mem::replace(&mut state.parked, now), Ordering::Relaxed);
    }

    /// A job is over.
    fn finish(&self, task: &Task, state: &mut State, job: &Job) {
        state.phase = Phase::Over;
        state.views.clear();
        self.held.fetch_sub(std::mem::take(&mut state.parked), Ordering::Relaxed);
        state.undecided = job.undecided();
        if job.undecided() != 0 {
            self.tell(Told::Undecided { channel: Arc::clone(&task.channel), records: job.undecided() });
        }
    }

    fn forget_ready(&self, state: &mut State) {
        for batch in state.ready.drain(..) {
            self.held.fetch_sub(batch.memory(), Ordering::Relaxed);
        }
    }

    /// A thread: takes the job at the front of the queue and lets it make a batch, again and again.
    fn run(&self) {
        let mut work = Work::new();
        while let Some(task) = self.next_task() {
            let mut state = lock(&task.state);
            let mut job = match std::mem::replace(&mut state.phase, Phase::Running) {
                Phase::Queued(job) => job,
                other => {
                    // It was cancelled meanwhile.
                    state.phase = other;
                    continue;
                }
            };
            if self.is_over_budget() && !(state.waiting && state.ready.is_empty()) {
                // It became scarce while the job was in the queue; the client will ask.
                self.park(&task, &mut state, job);
                continue;
            }
            drop(state);
            let mut feed = TaskFeed { shared: self, task: &task };
            let step = || job.step(&mut work, &mut feed, &task.cancelled);
            let outcome = catch_unwind(AssertUnwindSafe(step))
                .unwrap_or_else(|_| Outcome::Failed(io::Error::other("a reader broke down")));
            self.conclude(&task, job, outcome);
        }
    }

    fn next_task(&self) -> Option<Arc<Task>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.over {
                return None;
            }
            if let Some(task) = queue.tasks.pop_front() {
                return Some(task);
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Decides what becomes of a job after a step.
    fn conclude(&self, task: &Arc<Task>, job: Box<Job>, outcome: Outcome) {
        let mut state = lock(&task.state);
        if task.cancelled.load(Ordering::Relaxed) {
            self.finish(task, &mut state, &job);
            self.forget_ready(&mut state);
            return;
        }
        let mut wake = std::mem::take(&mut state.waiting);
        match outcome {
            Outcome::Batch(batch) => {
                self.held.fetch_add(batch.memory(), Ordering::Relaxed);
                state.ready.push_back(batch);
                if state.ready.len() < READY && !self.is_over_budget() {
                    self.enqueue(task, &mut state, job);
                } else {
                    self.park(task, &mut state, job);
                }
            }
            Outcome::Slice => {
                state.waiting = wake;
                wake = false;
                self.enqueue(task, &mut state, job);
            }
            Outcome::Views if state.all_views || !state.views.is_empty() => {
                // They came just now.
                state.waiting = wake;
                wake = false;
                self.enqueue(task, &mut state, job);
            }
            Outcome::Views => {
                self.park(task, &mut state, job);
                wake = true;
            }
            Outcome::Rewind(done) => {
                state.forget_views(done);
                self.park(task, &mut state, job);
                wake = true;
            }
            Outcome::End => self.finish(task, &mut state, &job),
            Outcome::Failed(error) => {
                state.failed = true;
                self.finish(task, &mut state, &job);
                self.tell(Told::Failed { channel: Arc::clone(&task.channel), why: error.to_string() });
            }
        }
        drop(state);
        if wake {
            self.wake(task);
        }
    }
}

struct TaskFeed<'a> {
    shared: &'a Shared,
    task: &'a Task,
}

impl Feed for TaskFeed<'_> {
    fn next(&mut self) -> Result<BucketView, bool> {
        let mut state = lock(&self.task.state);
        let view = state.views.pop_front().ok_or(state.all_views)?;
        let few = state.views.len() == FEW && !state.all_views;
        drop(state);
        if few {
            self.shared.wake(self.task);
        }
        Ok(view)
    }

    fn tell(&mut self, told: Told) {
        self.shared.tell(told);
    }
}

/// What a panic left behind is whole: nothing that can panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
