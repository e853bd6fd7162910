//! Opens a journal: reads its segments in order, and what is damaged is reported, kept and passed over.

mod scan;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use overstory_node::commit::Commits;
use tokio::sync::mpsc::channel;

use super::closed;
use super::files::Files;
use super::format::{ENTRY_HEAD, FIRST_ENTRY, HEAD_BYTES, Head, Kind, SECOND_HEAD, VERSION, put};
use super::index::Spot;
use super::keep;
use super::log::{Log, Queue, Queues, Trouble, find};
use super::segment::{self, Segment};
use super::worker::{JOBS, Worker};
use super::{OpenError, Options, Recovered};
use crate::disk::{QueueId, RecoveredQueue};
use scan::{Scan, Scanned};

/// Most lines about what is damaged.
const MOST_PROBLEMS: usize = 200;
/// Smallest segment that is begun on a full disk.
const LEAST: u64 = 16 * 1024;
/// Smallest segment.
const SMALLEST: u64 = 64 * 1024;

/// A segment as it was found.
struct Found {
    segment: Segment,
    path: PathBuf,
    scanned: Scanned,
}

/// What the entries say.
#[derive(Default)]
struct State {
    queues: Queues,
    /// Segment and offset up to which all was durable.
    mark: (u64, u64),
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let doing = format!("{doing} {}", path.display());
    move |source| OpenError::Io { doing, source }
}

impl Log {
    pub(super) fn open(
        data: &Path,
        options: &Options,
        commits: Rc<Commits>,
        files: Box<dyn Files>,
    ) -> Result<(Self, Recovered), OpenError> {
        let dir = data.join("journal");
        fs::create_dir_all(&dir).map_err(failed("making", &dir))?;
        let lock = lock(&dir)?;
        let names = Arc::new(File::open(&dir).map_err(failed("opening", &dir))?);

        let mut recovered = Recovered::default();
        let mut state = State::default();
        let mut found = read_segments(data, &dir, &mut state, &mut recovered)?;
        let closed = closed::read(&dir).map_err(failed("reading what was closed in", &dir))?;
        check_closed(&dir, &closed, &mut found, &mut state, &mut recovered);
        let serials = found.iter().map(|(serial, _)| *serial).chain(closed.iter().map(|(serial, _)| *serial));
        let last_serial = serials.max().unwrap_or(0);
        let segments = judge(data, found.into_iter().filter_map(|(_, found)| found), &state, &*files, &mut recovered)?;
        let (queues, segments, dropped) = settle(state, segments, &mut recovered);

        let (send, done) = channel(JOBS);
        let place = || Self::place(&dir, &names, &*files);
        let syncer =
            Worker::start("journal-sync", place(), send.clone()).map_err(failed("starting a thread for", &dir))?;
        let keeper = Worker::start("journal-keep", place(), send).map_err(failed("starting a thread for", &dir))?;
        let mut log = Self {
            data: data.to_owned(),
            names: Arc::clone(&names),
            _lock: lock,
            segment_bytes: options.segment_bytes.max(SMALLEST),
            committing: commits.made(),
            commits,
            queues,
            segments,
            next: None,
            next_serial: last_serial + 1,
            preparing: false,
            removing: None,
            moving: None,
            debt: 0,
            pending: Vec::new(),
            pending_at: 0,
            appended: 0,
            synced: 0,
            mark: (0, 0),
            unsynced: Vec::new(),
            group: None,
            released: Vec::new(),
            untold: Vec::new(),
            full_since: None,
            urgent: false,
            buffer: Vec::new(),
            done,
            syncer,
            keeper,
            trouble: Trouble::default(),
            dir,
            files,
        };
        log.begin(&dropped)?;
        Ok((log, recovered))
    }

    /// What was found stays as it is: the log goes on in a segment of its own.
    fn begin(&mut self, dropped: &[QueueId]) -> Result<(), OpenError> {
        let path = segment::path(&self.dir, self.next_serial);
        closed::remove(&self.dir, &self.names).map_err(failed("removing what was closed in", &self.dir))?;
        let mut size = self.segment_bytes;
        let fresh = loop {
            match segment::make_durable(&self.dir, self.next_serial, size, &*self.files, &self.names) {
                // On a full disk a small one has to do, until what is taken makes room.
                Err(error) if error.kind() == io::ErrorKind::StorageFull && size > LEAST => {
                    size = (size / 2).max(LEAST)
                }
                made => break made.map_err(failed("making", &path))?,
            }
        };
        self.next_serial += 1;
        self.segments.push_back(Segment::new(fresh));
        self.pending_at = FIRST_ENTRY;
        self.mark = (self.last_serial(), FIRST_ENTRY);
        if let Some(segment) = self.segments.back().filter(|_| !dropped.is_empty()) {
            // Otherwise the marks that come would make them look acknowledged.
            let mut entries = Vec::new();
            dropped.iter().for_each(|queue| put(&mut entries, segment.salt, Kind::Removed, *queue, 0, &[]));
            let written = self.files.write(&segment.file, segment.serial, &entries, self.pending_at);
            let durable = written.and_then(|()| self.files.sync(&segment.file, segment.serial));
            durable.map_err(failed("writing", &path))?;
            self.pending_at += entries.len() as u64;
            self.mark = (self.last_serial(), self.pending_at);
        }
        self.see_what_is_free();
        self.prepare();
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed("locking", &path)(error)),
    }
}

/// Reads all segments, in order.
fn read_segments(
    data: &Path,
    dir: &Path,
    state: &mut State,
    recovered: &mut Recovered,
) -> Result<Vec<(u64, Option<Found>)>, OpenError> {
    let mut serials = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("reading", dir))? {
        let name = entry.map_err(failed("reading", dir))?.file_name();
        match name.to_str().and_then(segment::serial_of) {
            Some(serial) => serials.push(serial),
            None if name == "lock" || name == closed::NAME || name == closed::UNFINISHED => {}
            None => problem(recovered, format!("{}: no segment, left alone", dir.join(name).display())),
        }
    }
    serials.sort_unstable();
    // Nothing is changed before all of them are known to be readable by this version.
    let mut heads = Vec::with_capacity(serials.len());
    for &serial in &serials {
        let path = segment::path(dir, serial);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed("opening", &path))?;
        let head = read_head(&file, serial);
        if let Some(Head { version, .. }) = head.filter(|head| head.version > VERSION) {
            return Err(OpenError::Version { path, version });
        }
        heads.push((serial, path, file, head));
    }
    let mut found = Vec::with_capacity(heads.len());
    let mut scan = Scan::new();
    for (serial, path, file, head) in heads {
        let size = file.metadata().map_err(failed("reading", &path))?.len();
        let Some(head) = head else {
            without_head(data, &path, serial, &file, size, recovered)?;
            found.push((serial, None));
            continue;
        };
        let scanned = scan
            .segment(&file, size, head.salt, &mut |entry, at, body| state.apply(serial, entry, at, body))
            .map_err(failed("reading", &path))?;
        if scanned.entries == 0 && scanned.holes.is_empty() {
            // It was prepared and never used.
            fs::remove_file(&path).map_err(failed("removing", &path))?;
            found.push((serial, None));
            continue;
        }
        let mut segment = Segment::new(segment::Fresh { serial, file, salt: head.salt, size });
        segment.end = scanned.end;
        found.push((serial, Some(Found { segment, path, scanned })));
    }
    Ok(found)
}

fn read_head(file: &File, serial: u64) -> Option<Head> {
    [0, SECOND_HEAD].into_iter().find_map(|at| {
        let mut bytes = [0; HEAD_BYTES];
        file.read_exact_at(&mut bytes, at).ok()?;
        Head::decode(&bytes).filter(|head| head.serial == serial)
    })
}

/// Compares what was found with what an orderly stop has left: what is not there was acknowledged and is gone.
fn check_closed(
    dir: &Path,
    closed: &[(u64, u64)],
    found: &mut [(u64, Option<Found>)],
    state: &mut State,
    recovered: &mut Recovered,
) {
    for &(serial, end) in closed {
        state.mark = state.mark.max((serial, end));
        let there = found.iter_mut().find(|(other, _)| *other == serial).and_then(|(_, found)| found.as_mut());
        match there {
            None => {
                let text = closed::missing(dir, serial, end);
                tracing::error!(target: "dmqnode.journal", serial, "a segment is missing");
                problem(recovered, text);
            }
            Some(Found { scanned, .. }) if scanned.end < end => {
                let is_hole = scanned.holes.last().is_some_and(|(from, _)| *from >= scanned.end);
                if !is_hole {
                    scanned.holes.push((scanned.end, end));
                }
            }
            Some(_) => {}
        }
    }
}

/// A file without a head is one that was being made, or it is damaged.
fn without_head(
    data: &Path,
    path: &Path,
    serial: u64,
    file: &File,
    size: u64,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    if !scan::is_zero(file, size.min(64 * 1024 * 1024)).map_err(failed("reading", path))? {
        let kept = keep::keep(data, path, serial, None);
        problem(
            recovered,
            format!("{}: neither of its heads is intact, nothing of it can be read; {kept}", path.display()),
        );
        if !kept.starts_with("kept") {
            return Ok(());
        }
    }
    fs::remove_file(path).map_err(failed("removing", path))
}

fn problem(recovered: &mut Recovered, text: String) {
    match recovered.problems.len() {
        ..MOST_PROBLEMS => recovered.problems.push(text),
        MOST_PROBLEMS => recovered.problems.push("and more".to_owned()),
        _ => {}
    }
}

impl State {
    /// Takes an intact entry.
    fn apply(&mut self, serial: u64, entry: &super::format::Entry, at: u64, body: &[u8]) {
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match entry.kind {
            Kind::Created => {
                let queue = Queue { name: name(body), defined_in: serial, ..Queue::default() };
                self.queues.insert(entry.queue, queue);
            }
            Kind::Defined => {
                let queue = self.queues.entry(entry.queue).or_default();
                queue.index.skip_to(number(body).unwrap_or(0));
                (queue.name, queue.defined_in) = (name(body.get(8..).unwrap_or_default()), serial);
            }
            Kind::Removed => {
                self.queues.remove(&entry.queue);
            }
            Kind::Record => {
                let spot = Spot { number: entry.number, at, length: entry.length };
                self.queues.entry(entry.queue).or_default().index.insert(serial, spot);
            }
            Kind::Released => {
                let to = number(body).unwrap_or(0);
                let index = &mut self.queues.entry(entry.queue).or_default().index;
                index.release(entry.number, to, &mut |_| {});
                index.skip_to(to);
            }
            Kind::Mark => self.mark = self.mark.max((entry.number, number(body).unwrap_or(0))),
            Kind::End | Kind::Void => {}
        }
    }
}

/// Numbers that a working journal writes are far below this.
fn number(body: &[u8]) -> Option<u64> {
    super::format::body_number(body).filter(|number| *number <= scan::LARGEST)
}

/// Tells what a crash cut short from what is damaged, and brings the segments in order.
fn judge(
    data: &Path,
    found: impl Iterator<Item = Found>,
    state: &State,
    files: &dyn Files,
    recovered: &mut Recovered,
) -> Result<VecDeque<Segment>, OpenError> {
    let mut segments = VecDeque::new();
    for Found { mut segment, path, scanned } in found {
        let (torn, damaged): (Vec<_>, Vec<_>) =
            scanned.holes.iter().copied().partition(|hole| (segment.serial, hole.0) >= state.mark);
        if !damaged.is_empty() {
            let kept = keep::keep(data, &path, segment.serial, Some(segment.salt));
            segment.damaged = true;
            for (from, to) in damaged {
                let text = format!("{}: damaged from {from} to {to}; {kept}", path.display());
                tracing::error!(target: "dmqnode.journal", file = %path.display(), from, to, "a damaged segment");
                problem(recovered, text);
            }
        }
        recovered.unfinished += torn.iter().map(|(from, to)| to - from).sum::<u64>();
        if !(segment.damaged || scanned.ended && torn.is_empty()) {
            close(&mut segment, &scanned, &torn).map_err(failed("closing", &path))?;
        }
        if segment.serial >= state.mark.0 || !scanned.ended || !torn.is_empty() {
            // A process that was killed has written it, and not made it durable.
            files.sync(&segment.file, segment.serial).map_err(failed("making durable", &path))?;
        }
        segments.push_back(segment);
    }
    Ok(segments)
}

/// Closes a segment that was in use when the process ended: what a crash cut short is cut off or filled, so that it
/// is not taken for damage later.
fn close(segment: &mut Segment, scanned: &Scanned, torn: &[(u64, u64)]) -> io::Result<()> {
    let file = &segment.file;
    for &(from, to) in torn.iter().filter(|(from, _)| *from < scanned.end) {
        // At least one entry was there, so a head has room; larger than all of memory it is not.
        let length = (to - from).checked_sub(ENTRY_HEAD as u64).and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length {
            let mut fill = Vec::new();
            put(&mut fill, segment.salt, Kind::Void, 0, 0, &vec![0; length]);
            file.write_all_at(&fill, from)?;
        }
    }
    if scanned.ended {
        return Ok(());
    }
    let mut end = Vec::new();
    put(&mut end, segment.salt, Kind::End, 0, 0, &[]);
    file.set_len(scanned.end)?;
    file.write_all_at(&end, scanned.end)?;
    segment.size = scanned.end + end.len() as u64;
    segment.end = segment.size;
    Ok(())
}

/// Gives records their places, and counts what each segment holds. Ends with the queues of which nothing is to be kept,
/// too.
fn settle(
    State { mut queues, mark }: State,
    mut segments: VecDeque<Segment>,
    recovered: &mut Recovered,
) -> (Queues, VecDeque<Segment>, Vec<QueueId>) {
    let mut ids: Vec<QueueId> = queues.keys().copied().collect();
    ids.sort_unstable();
    let mut dropped = Vec::new();
    for id in ids {
        let Some(queue) = queues.get_mut(&id) else { continue };
        queue.index.settle();
        let (records, bytes) = queue.index.totals();
        if queue.defined_in == 0 && !queue.index.begins().any(|begin| begin < mark) {
            // What made it was cut short, and nothing of it was acknowledged.
            recovered.unfinished += bytes + records * ENTRY_HEAD as u64;
            queues.remove(&id);
            dropped.push(id);
            continue;
        }
        if queue.defined_in == 0 {
            queue.name = format!("recovered-{id}");
            problem(recovered, format!("the name of queue {id} is lost; its records are in \"{}\"", queue.name));
        }
        for held in queue.index.held() {
            if let Some(segment) = find(&mut segments, held.segment) {
                segment.add(held.records, held.bytes);
            }
        }
        if let Some(segment) = find(&mut segments, queue.defined_in) {
            segment.define(queue.name.len(), true);
        }
        recovered.queues.push(RecoveredQueue { queue: id, name: queue.name.clone(), records, bytes });
    }
    (queues, segments, dropped)
}
