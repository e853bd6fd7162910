//! What a start makes of the buckets that were being written to, one by one.

use std::io;
use std::path::{Path, PathBuf};

use crate::bucket::BucketNumber;
use crate::catalogue::state::{State, Touched};
use crate::catalogue::{Entry, Write};
use crate::checkpoint;
use crate::disk::{Disk, File};
use crate::format::{FRONT, Format, HEADER};
use crate::walk::{Summary, Walker, read_file};

use super::{Cut, DAMAGED, LastEnd, Missing, OpenReport, Unsynced, tail};

/// Up to so many bytes a file is read as a whole, though its end would do.
const SMALL: u64 = 4 << 20;
/// How much is copied at once.
const COPY: usize = 1 << 20;

/// A bucket that was read from its front to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What is in it: it ends with a whole record now, or with damage that is followed by records.
    pub entry: Entry,
    /// What was cut off.
    pub cut: Option<Cut>,
    /// Places that cannot be read.
    pub damages: u64,
}

impl Settled {
    /// The length of the file when it was looked at.
    pub(crate) fn length(&self) -> u64 {
        self.entry.length.saturating_add(self.cut.as_ref().map_or(0, |cut| cut.bytes))
    }
}

/// Reads a bucket from its front to its end. A part of a record at the end is kept in `.damaged/` and cut off: a record
/// that is written behind it would be taken for its value. The cut is not made durable.
///
/// For a bucket that is not [`Entry::counted`], or whose file has another length than [`Entry::length`], before it is
/// written to.
///
/// # Errors
/// The disk's; [`io::ErrorKind::NotFound`] if there is no file.
pub fn settle(disk: &dyn Disk, dir: &Path, channel: &str, number: BucketNumber) -> io::Result<Settled> {
    let file = open(disk, dir, channel, number)?;
    let length = file.len()?;
    let Some(format) = format(&*file, length)? else {
        let cut = cut(disk, dir, &*file, (channel, number), 0, length)?;
        return Ok(Settled { entry: Entry::EMPTY, cut, damages: 0 });
    };
    let mut walker = Walker::new(format, number, length);
    let summary = read_file(&*file, &mut walker, &mut |_, _| ())?;
    let format = walker.format();
    let mut entry =
        Entry { format: Some(format), counted: true, length, records: summary.records, bytes: summary.bytes };
    let mut damages = summary.damage_count;
    let mut gone = None;
    if let Some(from) = damaged_end(&summary) {
        // A record at the end of a file without parities is taken for a part of one if a few bytes follow it.
        let tail = tail::read(&*file, format, number, from, length)?;
        entry.records = entry.records.saturating_add(tail.records);
        entry.bytes = entry.bytes.saturating_add(tail.bytes);
        entry.length = tail.end;
        damages -= 1;
        gone = cut(disk, dir, &*file, (channel, number), tail.end, length)?;
    }
    Ok(Settled { entry, cut: gone, damages })
}

/// Where the damage begins that reaches to the end.
fn damaged_end(summary: &Summary) -> Option<u64> {
    // Of a file of very many damages the last ones are not known; then nothing is cut.
    let last = summary.damages.last().filter(|_| summary.damages.len() as u64 == summary.damage_count)?;
    (last.offset.saturating_add(last.bytes) == summary.end).then_some(last.offset)
}

/// Reads the buckets that the last process has written to. Gives those that are not durable.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, state: &mut State, report: &mut OpenReport) -> Vec<Unsynced> {
    let same_boot = report.end != LastEnd::PowerCut;
    let mut unsynced = Vec::new();
    for ((id, number), mut touched) in std::mem::take(&mut state.touched) {
        let Some(channel) = state.channels.get_mut(&id) else { continue };
        report.recovered += 1;
        touched.told = Some(touched.writes.len());
        let name = &*channel.name;
        let mut trouble = None;
        let found = match one(disk, dir, (name, number), &mut touched, same_boot, report) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A file that nobody got to make is not missed.
                if touched.base.length > 0 {
                    report.problem(format!("{name}/{number}: the file is gone"));
                }
                channel.buckets.remove(&number);
                continue;
            }
            Err(error) => {
                report.problem(format!("{name}/{number}: {error}"));
                trouble = Some(error.to_string());
                if !same_boot {
                    // The next start is in this boot, and must not take for made what nobody has proved.
                    touched.writes.clear();
                    touched.told = None;
                }
                Found { entry: touched.base, durable: false }
            }
        };
        channel.buckets.insert(number, found.entry);
        if !found.durable {
            unsynced.push(Unsynced { channel: name.into(), number, entry: found.entry, trouble });
            state.touched.insert((id, number), touched);
        }
    }
    unsynced
}

struct Found {
    entry: Entry,
    durable: bool,
}

fn one(
    disk: &dyn Disk,
    dir: &Path,
    (name, number): (&str, BucketNumber),
    touched: &mut Touched,
    same_boot: bool,
    report: &mut OpenReport,
) -> io::Result<Found> {
    let file = open(disk, dir, name, number)?;
    let length = file.len()?;
    let format = format(&*file, length)?;
    let base = touched.base;
    let other = base.format.is_some() && format.is_some_and(|format| Some(format) != base.format);
    if touched.replaced || other || length < base.length {
        let settled = settle(disk, dir, name, number)?;
        let missing = Missing::of_settled(disk, dir, (name, number), &base, &settled);
        match missing.filter(|_| !touched.replaced) {
            Some(missing) => report.missing(missing),
            None if touched.replaced => {}
            None => report.problem(format!("{name}/{number}: not the file that was written to; it is read as it is")),
        }
        if settled.damages > 0 {
            report.problem(format!("{name}/{number}: {} damaged places", settled.damages));
        }
        report.cut.extend(settled.cut);
        // It is not known which of its bytes are on the disk.
        file.sync()?;
        return Ok(Found { entry: settled.entry, durable: true });
    }
    // What was written is there if the machine went on; else it is if it has the checksum that it had.
    if same_boot {
        let written = touched.writes.iter().fold(base, grown);
        let missing = Missing::of_length(disk, dir, (name, number), &written, length);
        missing.into_iter().for_each(|missing| report.missing(missing));
    }
    let mut entry = Entry { format, ..base };
    let mut kept = 0;
    for write in &touched.writes {
        let follows = write.offset == entry.length && write.end() <= length;
        if !follows || !(same_boot || has_crc(&*file, write)?) {
            break;
        }
        entry = grown(entry, write);
        kept += 1;
    }
    if kept < touched.writes.len() {
        touched.writes.truncate(kept);
        touched.told = None;
    }
    // Blocks have checksums of their own.
    if let Some(format) = format.filter(|format| same_boot || *format == Format::V2) {
        let tail = tail::read(&*file, format, number, entry.length, length)?;
        let (offset, end) = (entry.length, tail.end);
        let write = Write { offset, length: end - offset, records: tail.records, bytes: tail.bytes, crc: tail.crc };
        entry = grown(entry, &write);
        touched.writes.extend(Some(write).filter(|write| write.length > 0));
    }
    if entry.length < HEADER as u64 {
        entry.format = None;
    }
    report.cut.extend(cut(disk, dir, &*file, (name, number), entry.length, length)?);
    if !same_boot {
        // What was read after the machine had started came from the disk.
        touched.base = entry;
        touched.writes.clear();
        touched.told = None;
    }
    // Not so that nothing is behind it: a start before this one may have cut it off, and was killed.
    Ok(Found { entry, durable: false })
}

fn grown(entry: Entry, write: &Write) -> Entry {
    Entry {
        length: write.end(),
        records: entry.records.saturating_add(write.records),
        bytes: entry.bytes.saturating_add(write.bytes),
        ..entry
    }
}

fn has_crc(file: &dyn File, write: &Write) -> io::Result<bool> {
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; COPY.min(usize::try_from(write.length).unwrap_or(COPY))];
    let mut at = write.offset;
    while at < write.end() {
        let want = usize::try_from(write.end() - at).unwrap_or(COPY).min(buffer.len());
        let read = buffer.get_mut(..want).map_or(Ok(0), |buffer| file.read_at(buffer, at))?;
        if read == 0 {
            return Ok(false);
        }
        crc.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(crc.finalize() == write.crc)
}

/// Looks at the buckets that a published node has named in its `checkpoint.dat`. It was writing to them, and they may end
/// with a part of a record. What is whole stays, wherever the checkpoint is.
pub(super) fn published(disk: &dyn Disk, dir: &Path, state: &mut State, report: &mut OpenReport) {
    let lines = match checkpoint::read(disk, dir) {
        Ok(None) => return,
        Ok(Some((lines, bad))) => {
            if bad > 0 {
                report.problem(format!("{}: {bad} lines that say nothing", checkpoint::FILE));
            }
            lines
        }
        Err(error) => return report.problem(format!("{}: {error}", checkpoint::FILE)),
    };
    for line in lines {
        let Some(channel) = state.channels.values_mut().find(|channel| channel.name == line.channel) else { continue };
        let Some(entry) = channel.buckets.get_mut(&line.number) else { continue };
        let was = *entry;
        let length = disk.stat(&path(dir, &line.channel, line.number)).map(|stat| stat.length);
        match end_of(disk, dir, &line, report) {
            Ok(found) => {
                let length = length.unwrap_or(found.length);
                let missing = Missing::of_length(disk, dir, (&line.channel, line.number), &was, length);
                missing.into_iter().for_each(|missing| report.missing(missing));
                *entry = found;
            }
            Err(error) => report.problem(format!("{}/{}: {error}", line.channel, line.number)),
        }
        report.recovered += 1;
    }
}

fn end_of(disk: &dyn Disk, dir: &Path, line: &checkpoint::Line, report: &mut OpenReport) -> io::Result<Entry> {
    let (channel, number) = (&*line.channel, line.number);
    let file = open(disk, dir, channel, number)?;
    let length = file.len()?;
    if length > SMALL
        && line.offset >= HEADER as u64
        && let Some(format) = format(&*file, length)?
    {
        let mut walker = Walker::new(format, number, length).starting_at(line.offset);
        let summary = read_file(&*file, &mut walker, &mut |_, _| ())?;
        // No record begins there if not even the first one is good.
        if summary.damages.first().is_none_or(|damage| damage.offset > line.offset) {
            let mut entry = Entry { format: Some(format), counted: false, length, records: 0, bytes: 0 };
            if let Some(from) = damaged_end(&summary) {
                entry.length = tail::read(&*file, format, number, from, length)?.end;
                report.cut.extend(cut(disk, dir, &*file, (channel, number), entry.length, length)?);
            }
            return Ok(entry);
        }
    }
    let settled = settle(disk, dir, channel, number)?;
    if settled.damages > 0 {
        report.problem(format!("{channel}/{number}: {} damaged places", settled.damages));
    }
    report.cut.extend(settled.cut);
    Ok(settled.entry)
}

/// Where the file of a bucket is.
pub(crate) fn path(dir: &Path, channel: &str, number: BucketNumber) -> PathBuf {
    let mut path = dir.join(channel);
    path.push(number.slot().to_string());
    path.push(number.file_name());
    path
}

/// Opens for writing what is there.
fn open(disk: &dyn Disk, dir: &Path, channel: &str, number: BucketNumber) -> io::Result<std::sync::Arc<dyn File>> {
    let path = path(dir, channel, number);
    disk.stat(&path)?;
    disk.create(&path)
}

/// The format of a file of some length; none if it has no header.
pub(crate) fn format(file: &dyn File, length: u64) -> io::Result<Option<Format>> {
    let mut front = [0; FRONT];
    let wanted = usize::try_from(length).unwrap_or(FRONT).min(FRONT);
    let mut had = 0;
    while had < wanted {
        match front.get_mut(had..wanted).map_or(Ok(0), |front| file.read_at(front, had as u64))? {
            0 => break,
            read => had += read,
        }
    }
    Ok(front.get(..had).and_then(Format::of))
}

/// Cuts a file, if it is longer; the bytes go to `.damaged/`.
fn cut(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn File,
    (channel, number): (&str, BucketNumber),
    at: u64,
    length: u64,
) -> io::Result<Option<Cut>> {
    if at >= length {
        return Ok(None);
    }
    // Where they cannot be kept the file is cut all the same: it must end with a record.
    let kept = keep(disk, dir, file, (channel, number), at, length).ok();
    file.set_len(at)?;
    Ok(Some(Cut { channel: channel.into(), number, offset: at, bytes: length - at, kept }))
}

fn keep(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn File,
    (channel, number): (&str, BucketNumber),
    from: u64,
    length: u64,
) -> io::Result<PathBuf> {
    let path = free_name(disk, dir, &format!("{channel}-{}-{}-{from}", number.slot(), number.file_name()))?;
    let copy = disk.create(&path)?;
    let copied = copy_part(file, &*copy, from, length);
    if copied.is_err() {
        // The room is given back to those who need it more.
        let _ = disk.remove(&path);
    }
    copied.map(|()| path)
}

fn copy_part(file: &dyn File, copy: &dyn File, from: u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY.min(usize::try_from(length - from).unwrap_or(COPY))];
    let mut at = from;
    while at < length {
        let read = file.read_at(&mut buffer, at)?;
        let part = buffer.get(..read).filter(|part| !part.is_empty());
        let Some(part) = part else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        copy.write_all_at(part, at - from)?;
        at += read as u64;
    }
    Ok(())
}

/// A name in `.damaged/` that no file has yet.
pub(super) fn free_name(disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<PathBuf> {
    let damaged = dir.join(DAMAGED);
    disk.create_dirs(&damaged)?;
    let mut path = damaged.join(name);
    for again in 1..1000 {
        match disk.stat(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
            Ok(_) => path = damaged.join(format!("{name}.{again}")),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
