//! A request on a reading thread: goes from bucket to bucket and makes one batch at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use overstory_swarm::lzo::Work;

use super::batch::{Batch, Encoder};
use super::bucket::{Ahead, Opened, Reading, Walked, is_ours};
use super::buffers::Buffers;
use super::{After, BucketView, ReadRequest, Told};
use crate::bucket::{BucketNumber, KeyRange, Ranges};
use crate::damages::Damage;
use crate::disk::Disk;
use crate::filter::{Filter, LimitHit};
use crate::walk;

/// How long a step takes that finds nothing to send, looked at between windows and every few values.
const SLICE: Duration = Duration::from_millis(10);
/// Values that are filtered between two looks at the clock.
const BETWEEN: u32 = 64;
/// How long it is waited for what a bucket's file has become, at a time and as often, when that is not known at once.
const BECOMES: (Duration, u32) = (Duration::from_millis(1), 20_000);

/// What all jobs share.
pub(super) struct Means {
    pub(super) disk: Arc<dyn Disk>,
    /// For windows of files.
    pub(super) windows: Arc<Buffers>,
    /// For batches.
    pub(super) batches: Arc<Buffers>,
    /// Files that are open for reading.
    pub(super) files: Arc<AtomicUsize>,
}

/// What a step led to.
pub(super) enum Outcome {
    /// A batch.
    Batch(Batch),
    /// It has no view of the bucket that comes next.
    Views,
    /// It needs views anew, of the buckets behind this one; those that it was given are out of date.
    Rewind(Option<After>),
    /// Its time is over.
    Slice,
    /// There are no more records.
    End,
    /// It cannot go on.
    Failed(io::Error),
}

/// Gives a job what it reads, and takes what it has to tell.
pub(super) trait Feed {
    /// The next view; `Err(true)`: there are no more, `Err(false)`: none is here yet.
    fn next(&mut self) -> Result<BucketView, bool>;
    fn tell(&mut self, told: Told);
}

/// A request that is being answered.
pub(super) struct Job {
    channel: Arc<str>,
    ranges: Ranges,
    filter: Filter,
    encoder: Encoder,
    reading: Option<Box<Reading>>,
    /// The bucket after that, while its file is read ahead.
    ahead: Option<Ahead>,
    /// The bucket that was read last.
    done: Option<After>,
    /// The view of this bucket was found to be out of date.
    doubted: Option<BucketNumber>,
    /// How often in a row a file was another one than that of its view.
    outdated: u32,
    /// Records that were left out because the filter could not decide.
    undecided: u64,
    means: Arc<Means>,
}

impl Job {
    pub(super) fn new(request: ReadRequest, means: Arc<Means>) -> Self {
        let ReadRequest { channel, ranges, filter, shape, compress } = request;
        let encoder = Encoder::new(shape, compress, Arc::clone(&means.batches));
        let (reading, ahead, done, doubted) = (None, None, None, None);
        let (undecided, outdated) = (0, 0);
        Self { channel, ranges, filter, encoder, reading, ahead, done, doubted, outdated, undecided, means }
    }

    /// Works until there is a batch, or something is missing, or its time is over.
    pub(super) fn step(&mut self, work: &mut Work, feed: &mut dyn Feed, cancelled: &AtomicBool) -> Outcome {
        let end = Instant::now() + SLICE;
        loop {
            if self.reading.is_none() {
                match self.begin(feed) {
                    Ok(()) => {}
                    Err(Outcome::End) => return self.encoder.finish(work).map_or(Outcome::End, Outcome::Batch),
                    Err(outcome) => return outcome,
                }
            }
            let Some(reading) = &mut self.reading else { continue };
            if reading.is_read() && self.ahead.is_none() {
                self.ahead = feed.next().ok().map(|view| Ahead::new(&self.means.disk, view, &self.means.files));
            }
            let walked = walk(reading, &self.filter, &mut self.encoder, &mut self.undecided, end, cancelled);
            match walked {
                Ok(Walked::Paused) if !self.encoder.is_full() => return Outcome::Slice,
                Ok(Walked::Paused) => {
                    if let Some(batch) = self.encoder.finish(work) {
                        return Outcome::Batch(batch);
                    }
                }
                Ok(Walked::Part) => {}
                Ok(Walked::Damaged(damage)) => feed.tell(damage_of(reading, damage)),
                Ok(Walked::End) => {
                    self.done = Some(place(&self.ranges, reading.view.number));
                    self.reading = None;
                }
                Err(error) if is_ours(&error) => return Outcome::Failed(error),
                Err(error) => {
                    let damage = reading.give_up_file(why(&error));
                    feed.tell(damage_of(reading, damage));
                }
            }
            if Instant::now() > end || cancelled.load(Ordering::Relaxed) {
                return Outcome::Slice;
            }
        }
    }

    /// Begins with the next bucket.
    fn begin(&mut self, feed: &mut dyn Feed) -> Result<(), Outcome> {
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => match feed.next() {
                Ok(view) => Ahead::new(&self.means.disk, view, &self.means.files),
                Err(true) => return Err(Outcome::End),
                Err(false) => return Err(Outcome::Views),
            },
        };
        let number = ahead.view.number;
        let view = ahead.view.clone();
        match ahead.begin(&self.ranges, &self.means.windows, self.doubted != Some(number)) {
            Opened::Yes(reading) => {
                self.encoder.begin_bucket(number);
                self.outdated = 0;
                self.reading = Some(reading);
                Ok(())
            }
            Opened::Stale => {
                self.doubted = Some(number);
                Err(Outcome::Rewind(self.done))
            }
            Opened::Outdated => {
                self.outdated += 1;
                match self.outdated {
                    1 => {}
                    2.. if self.outdated < BECOMES.1 => pause(),
                    _ => return Err(Outcome::Failed(io::ErrorKind::StaleNetworkFileHandle.into())),
                }
                Err(Outcome::Rewind(self.done))
            }
            Opened::Fault(error) if is_ours(&error) => Err(Outcome::Failed(error)),
            Opened::Fault(error) => {
                let (channel, bytes) = (Arc::clone(&self.channel), view.length);
                feed.tell(Told::Damage(Damage { channel, number, offset: 0, bytes, why: why(&error) }));
                // What is in memory is given all the same.
                self.ahead = Some(Ahead::new(&self.means.disk, BucketView { length: 0, ..view }, &self.means.files));
                Ok(())
            }
        }
    }

    /// The records that were left out because the filter could not decide.
    pub(super) const fn undecided(&self) -> u64 {
        self.undecided
    }

    /// Whether it is within a bucket, or has opened the next.
    pub(super) const fn is_within(&self) -> bool {
        self.reading.is_some() || self.ahead.is_some()
    }

    /// The last bucket of which it has taken the view.
    pub(super) fn taken(&self) -> Option<After> {
        let reading = self.reading.as_ref().map(|reading| &reading.view);
        let view = self.ahead.as_ref().map(|ahead| &ahead.view).or(reading);
        view.map(|view| place(&self.ranges, view.number)).or(self.done)
    }

    /// What it keeps in memory while it waits, about.
    pub(super) fn memory(&self) -> usize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.view.tail_bytes());
        self.reading.as_ref().map_or(0, |reading| reading.memory()) + ahead
    }

    /// Gives back the memory of what can be read again; whether it forgot the view of the bucket that comes next.
    pub(super) fn slim(&mut self) -> bool {
        if let Some(reading) = &mut self.reading {
            reading.slim();
        }
        self.ahead.take_if(|ahead| ahead.view.tail_bytes() > 0).is_some()
    }

    /// Closes the file that can be opened again.
    pub(super) fn close(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.close();
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.close();
        }
    }
}

fn walk(
    reading: &mut Reading,
    filter: &Filter,
    encoder: &mut Encoder,
    undecided: &mut u64,
    end: Instant,
    cancelled: &AtomicBool,
) -> io::Result<Walked> {
    if filter.is_none() {
        return reading.walk(&mut |key, value| encoder.add(key, value));
    }
    let mut left = BETWEEN;
    reading.walk(&mut |key, value| {
        if left == 0 {
            if Instant::now() > end || cancelled.load(Ordering::Relaxed) {
                return false;
            }
            left = BETWEEN;
        }
        left -= 1;
        match filter.matches(value) {
            Ok(true) => encoder.add(key, value),
            Ok(false) => true,
            Err(LimitHit) => {
                // That took long.
                left = 0;
                *undecided += 1;
                true
            }
        }
    })
}

/// Where a bucket is in the answer.
pub(super) fn place(ranges: &Ranges, number: BucketNumber) -> After {
    let has = |range: KeyRange| range.first_bucket() <= number && number <= range.last_bucket();
    (ranges.iter().position(has).unwrap_or_default(), number)
}

fn damage_of(reading: &Reading, damage: walk::Damage) -> Told {
    let walk::Damage { offset, bytes, why } = damage;
    let BucketView { channel, number, .. } = &reading.view;
    Told::Damage(Damage { channel: Arc::clone(channel), number: *number, offset, bytes, why })
}

fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "the file is missing",
        io::ErrorKind::PermissionDenied => "the file may not be read",
        io::ErrorKind::UnexpectedEof => "the file is shorter than it was",
        _ => "reading the file fails",
    }
}

/// Lets the thread that rewrites a bucket come further.
#[expect(clippy::disallowed_methods, reason = "a rename that another thread has begun takes no longer than this")]
fn pause() {
    std::thread::sleep(BECOMES.0);
}
