//! One bucket that is being read: its file by windows, then what is only in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use super::BucketView;
use super::buffers::Buffers;
use crate::bucket::{KeyRange, Ranges};
use crate::disk::{Disk, File};
use crate::format::{FRONT, Format, HEADER, v2};
use crate::recovery::SHORTER;
use crate::walk::{Damage, Step, Walker};

/// Bytes that are read at a time, and asked of the system ahead of that.
const WINDOW: usize = 256 << 10;
/// Bytes that are read first behind a part of a file that was skipped: more than the header of a block.
const PEEK: usize = 4096;
/// A file of format 2 is read by its index from this length on, if only a part of the bucket is wanted.
const INDEXED: u64 = 4 << 20;

/// What is passed over where the disk cannot read; twice as much where it cannot behind that either.
const PAGE: u64 = 4096;
/// Places of a bucket that are passed over before the rest is given up: a disk takes long to say that it cannot read.
const GAPS: u32 = 100;

/// A bucket, from its first record to its last.
pub(super) struct Reading {
    pub(super) view: BucketView,
    ranges: Ranges,
    file: Option<OpenFile>,
    /// The front of the file, by which it is known again.
    front: [u8; HEADER],
    disk: Arc<dyn Disk>,
    count: Arc<AtomicUsize>,
    walker: Walker,
    /// Bytes of the file from `base` on, of which `filled` have been read.
    window: Vec<u8>,
    base: u64,
    filled: usize,
    /// The next of [`BucketView::tail`].
    tail: usize,
    /// The file is done with.
    in_tail: bool,
    /// What is missing at the end of the file, until it was told.
    missing: Option<Damage>,
    gaps: Gaps,
    buffers: Arc<Buffers>,
}

/// The places of a file that the disk cannot read.
#[derive(Default)]
struct Gaps {
    count: u32,
    /// The last of them: its end and its bytes.
    last: (u64, u64),
}

impl Gaps {
    /// Up to where to pass over what cannot be read at an offset; none if it was tried too often.
    fn pass(&mut self, at: u64) -> Option<u64> {
        let (end, bytes) = self.last;
        let bytes = if at == end && bytes > 0 { bytes.saturating_mul(2) } else { PAGE };
        let to = (at - at % PAGE).saturating_add(bytes);
        self.last = (to, bytes);
        self.count += 1;
        (self.count <= GAPS).then_some(to)
    }
}

/// An open file, counted.
pub(super) struct OpenFile {
    file: Arc<dyn File>,
    count: Arc<AtomicUsize>,
}

impl OpenFile {
    fn open(disk: &dyn Disk, view: &BucketView, count: &Arc<AtomicUsize>) -> io::Result<Self> {
        let file = disk.open(&view.path())?;
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file, count: Arc::clone(count) })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of opening a bucket.
pub(super) enum Opened {
    /// It can be read.
    Yes(Box<Reading>),
    /// Its file is not what the view says, or gone: the view may be too old.
    Stale,
    /// Its file became another one than that of the view.
    Outdated,
    /// It cannot be read.
    Fault(io::Error),
}

/// How far the reading of a bucket came.
pub(super) enum Walked {
    /// The visitor did not take a record.
    Paused,
    /// A part was gone through.
    Part,
    /// A damage was passed.
    Damaged(Damage),
    /// The bucket is at its end.
    End,
}

/// A file that is opened before its turn comes.
pub(super) struct Ahead {
    pub(super) view: BucketView,
    file: Option<io::Result<OpenFile>>,
    /// The file was closed until its turn comes.
    closed: bool,
    disk: Arc<dyn Disk>,
    count: Arc<AtomicUsize>,
}

impl Ahead {
    /// Opens a bucket's file and asks the system to read its front.
    pub(super) fn new(disk: &Arc<dyn Disk>, view: BucketView, count: &Arc<AtomicUsize>) -> Self {
        let file = (view.length != 0).then(|| OpenFile::open(&**disk, &view, count));
        if let Some(Ok(open)) = &file {
            open.file.will_read(0, view.length.min(WINDOW as u64));
        }
        Self { view, file, closed: false, disk: Arc::clone(disk), count: Arc::clone(count) }
    }

    /// Closes the file; it is opened again when its turn comes.
    pub(super) fn close(&mut self) {
        self.closed |= self.file.take_if(|file| file.is_ok()).is_some();
    }

    /// Begins with it. With `doubt`, what does not fit to the view is a reason for a new one.
    pub(super) fn begin(self, ranges: &Ranges, buffers: &Arc<Buffers>, doubt: bool) -> Opened {
        let Self { view, mut file, closed, disk, count } = self;
        if closed {
            file = Some(OpenFile::open(&*disk, &view, &count));
        }
        if file.is_some() && view.is_outdated() {
            return Opened::Outdated;
        }
        let file = match file.transpose() {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if doubt { Opened::Stale } else { Opened::Fault(error) };
            }
            Err(error) => return Opened::Fault(error),
        };
        Reading::open(view, file, (disk, count), ranges, buffers, doubt).unwrap_or_else(Opened::Fault)
    }
}

impl Reading {
    fn open(
        mut view: BucketView,
        file: Option<OpenFile>,
        (disk, count): (Arc<dyn Disk>, Arc<AtomicUsize>),
        ranges: &Ranges,
        buffers: &Arc<Buffers>,
        doubt: bool,
    ) -> io::Result<Opened> {
        let mut window = buffers.take();
        let (mut filled, mut fault) = (0, None);
        let mut missing = None;
        if let Some(open) = &file {
            let length = open.file.len()?;
            if length < view.length {
                if doubt {
                    return Ok(Opened::Stale);
                }
                missing = Some(Damage { offset: length, bytes: view.length - length, why: SHORTER });
                view.length = length;
            }
            (filled, fault) = read_up(&*open.file, &mut window, 0, WINDOW, 0, view.length);
        }
        let front = window.get(..filled.min(FRONT)).unwrap_or_default();
        let found = Format::of(front);
        let front = front.first_chunk().copied().unwrap_or_default();
        let format = match (view.format, found) {
            (Some(known), Some(found)) if known != found && doubt => {
                return Ok(Opened::Stale);
            }
            // A plain one is looked through as all formats.
            (known, found) => known.or(found).unwrap_or(if fault.is_some() { Format::Plain } else { Format::V1 }),
        };
        let mut walker = Walker::new(format, view.number, view.length).with_ranges(*ranges);
        if let Some(open) = &file
            && format == Format::V2
            && view.length >= INDEXED
            && !whole(&view, ranges)
            && let Ok(Some(index)) = v2::Index::read(&*open.file, view.length)
        {
            walker = walker.with_index(index);
        }
        let buffers = Arc::clone(buffers);
        let ranges = *ranges;
        let mut reading = Self {
            view,
            ranges,
            file,
            front,
            disk,
            count,
            walker,
            window,
            base: 0,
            filled,
            tail: 0,
            in_tail: false,
            missing,
            gaps: Gaps::default(),
            buffers,
        };
        if let Some(error) = fault {
            reading.pass_over(error)?;
        }
        reading.read_ahead();
        Ok(Opened::Yes(Box::new(reading)))
    }

    /// Gives records to the visitor until it does not take one, or a window is done with.
    ///
    /// # Errors
    /// The file cannot be read; what is in memory still can ([`give_up_file`](Self::give_up_file)).
    pub(super) fn walk(&mut self, visit: &mut impl FnMut(u64, &[u8]) -> bool) -> io::Result<Walked> {
        if let Some(missing) = self.missing.take() {
            return Ok(Walked::Damaged(missing));
        }
        if self.in_tail {
            return Ok(self.walk_tail(visit));
        }
        let passed = self.walker.offset().checked_sub(self.base).and_then(|passed| usize::try_from(passed).ok());
        let window = self.window.get(..self.filled).unwrap_or_default();
        let window = passed.and_then(|passed| window.get(passed..)).unwrap_or_default();
        match self.walker.next(window, visit) {
            Step::Need(bytes) => {
                self.fill(bytes)?;
                Ok(Walked::Part)
            }
            Step::Paused => Ok(Walked::Paused),
            Step::Damaged(damage) => Ok(Walked::Damaged(damage)),
            Step::End => Ok(self.end_file()),
        }
    }

    fn end_file(&mut self) -> Walked {
        self.file = None;
        self.buffers.give(std::mem::take(&mut self.window));
        (self.base, self.filled) = (0, 0);
        self.next_tail()
    }

    /// Goes on with what is in memory; the damage that the rest of the file is.
    pub(super) fn give_up_file(&mut self, why: &'static str) -> Damage {
        let offset = self.walker.offset();
        let damage = Damage { offset, bytes: self.view.length.saturating_sub(offset), why };
        self.end_file();
        damage
    }

    fn next_tail(&mut self) -> Walked {
        self.in_tail = true;
        match self.view.tail.get(self.tail) {
            Some(tail) => {
                let walker = Walker::records(tail.framing, self.view.number, tail.bytes.len() as u64);
                self.walker = walker.with_ranges(self.ranges);
                Walked::Part
            }
            None => Walked::End,
        }
    }

    fn walk_tail(&mut self, visit: &mut impl FnMut(u64, &[u8]) -> bool) -> Walked {
        let Some(tail) = self.view.tail.get(self.tail) else { return Walked::End };
        let passed = usize::try_from(self.walker.offset()).unwrap_or(usize::MAX);
        match self.walker.next(tail.bytes.get(passed..).unwrap_or_default(), visit) {
            Step::Paused => Walked::Paused,
            Step::Damaged(damage) => Walked::Damaged(damage),
            Step::Need(_) | Step::End => {
                self.tail += 1;
                self.next_tail()
            }
        }
    }

    /// Reads so that `needed` bytes are there from the walker's offset on.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        let offset = self.walker.offset();
        let end = self.base + self.filled as u64;
        let kept = match usize::try_from(end.saturating_sub(offset)) {
            Ok(kept @ 1..) if offset >= self.base => {
                self.window.copy_within(self.filled - kept..self.filled, 0);
                kept
            }
            _ => 0,
        };
        let size = if kept == 0 && offset > end { PEEK } else { WINDOW };
        let file = self.opened()?;
        (self.base, self.filled) = (offset, 0);
        let (filled, fault) = read_up(&*file, &mut self.window, kept, size.max(needed), offset, self.walker.end());
        self.filled = filled;
        match fault {
            Some(error) => self.pass_over(error)?,
            None if filled < needed => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
        self.read_ahead();
        Ok(())
    }

    /// Leaves out what the disk cannot read behind the window.
    fn pass_over(&mut self, error: io::Error) -> io::Result<()> {
        let at = self.base + self.filled as u64;
        let to = if is_ours(&error) { None } else { self.gaps.pass(at) };
        self.walker.leave_out(at, to.ok_or(error)?);
        Ok(())
    }

    /// The file, opened again if it was closed.
    fn opened(&mut self) -> io::Result<Arc<dyn File>> {
        if let Some(open) = &self.file {
            return Ok(Arc::clone(&open.file));
        }
        let open = OpenFile::open(&*self.disk, &self.view, &self.count)?;
        let mut front = [0; HEADER];
        let same = !self.view.is_outdated()
            && open.file.len()? >= self.view.length
            && open.file.read_at(&mut front, 0)? == HEADER;
        if !same || front != self.front {
            // Where its records are now cannot be known.
            return Err(io::ErrorKind::StaleNetworkFileHandle.into());
        }
        let file = Arc::clone(&open.file);
        self.file = Some(open);
        Ok(file)
    }

    /// What it keeps in memory, about.
    pub(super) fn memory(&self) -> usize {
        self.window.capacity() + self.walker.memory() + self.view.tail_bytes()
    }

    /// Gives back what can be read again.
    pub(super) fn slim(&mut self) {
        self.buffers.give(std::mem::take(&mut self.window));
        self.walker.slim();
        (self.base, self.filled) = (self.walker.offset(), 0);
    }

    /// Closes the file until more of it is wanted.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Asks the system for the window behind this one.
    fn read_ahead(&self) {
        let end = self.base + self.filled as u64;
        if end < self.view.length
            && let Some(open) = &self.file
        {
            open.file.will_read(end, (self.view.length - end).min(WINDOW as u64));
        }
    }

    /// Whether all of the file is in the window.
    pub(super) const fn is_read(&self) -> bool {
        self.base + self.filled as u64 >= self.view.length
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.window));
    }
}

/// Whether all keys of a bucket are wanted.
fn whole(view: &BucketView, ranges: &Ranges) -> bool {
    let holds = |range: KeyRange| range.holds(view.number.first_key()) && range.holds(view.number.last_key());
    ranges.iter().any(holds)
}

/// Reads behind the first `kept` bytes of a window, that lie at `offset` in the file, until it has `size` bytes or the
/// file is at its end, `length`, or cannot be read; says how many the window has then.
fn read_up(
    file: &dyn File,
    window: &mut Vec<u8>,
    kept: usize,
    size: usize,
    offset: u64,
    length: u64,
) -> (usize, Option<io::Error>) {
    let size = usize::try_from(length.saturating_sub(offset)).map_or(size, |left| left.min(size));
    if window.len() < size {
        window.resize(size, 0);
    }
    let mut filled = kept.min(size);
    while let Some(space @ [_, ..]) = window.get_mut(filled..size) {
        match file.read_at(space, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

/// Whether an error is not the file's: the request cannot be answered now, and must not seem to have been.
pub(super) fn is_ours(error: &io::Error) -> bool {
    let numbers = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM].map(|errno| errno as i32);
    error.kind() == io::ErrorKind::StaleNetworkFileHandle
        || error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}
