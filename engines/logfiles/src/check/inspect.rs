//! Reads a file to its end and tells what is damaged in it.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::find::Bucket;
use super::progress::{Counted, Progress};
use crate::disk::{Disk, File, SystemDisk};
use crate::format::{FRONT, Format};
use crate::walk::{Damage, Summary, Walker, read_file};

/// How often a file is read again that changed meanwhile: a running node may write to it.
const TURNS: usize = 5;

/// What a file was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspection {
    /// None: a file that is empty, or of another kind.
    pub(super) format: Option<Format>,
    /// The first damage is that of the file's header: all that it says is known.
    pub(super) header_only: bool,
    pub(super) summary: Summary,
}

/// Reads the file.
///
/// # Errors
/// It cannot be read.
pub(super) fn inspect(bucket: &Bucket, progress: &Progress) -> io::Result<Inspection> {
    if bucket.is_gzip() {
        return gzip(bucket, progress);
    }
    let file = Counted::new(SystemDisk.open(&bucket.path)?, progress);
    let mut turn = 0;
    loop {
        turn += 1;
        let length = file.len()?;
        let read = once(bucket, &file, length);
        let is_good = matches!(&read, Ok(inspection) if inspection.is_clean());
        if is_good || turn == TURNS || file.len()? == length {
            return read;
        }
    }
}

fn once(bucket: &Bucket, file: &dyn File, length: u64) -> io::Result<Inspection> {
    let mut front = [0; FRONT];
    let front_len = file.read_at(&mut front, 0)?;
    let Some(format) = front.get(..front_len).and_then(Format::of) else {
        let summary = Summary { good_len: length, end: length, ..Summary::default() };
        return Ok(Inspection { format: None, header_only: false, summary });
    };
    let mut walker = Walker::new(format, bucket.number, length);
    let summary = read_file(file, &mut walker, &mut |_, _| {})?;
    let header_only = format != Format::Plain && summary.damages.first().is_some_and(|damage| damage.offset == 0);
    Ok(Inspection { format: Some(walker.format()), header_only, summary })
}

/// Whether a compressed file can be read.
fn gzip(bucket: &Bucket, progress: &Progress) -> io::Result<Inspection> {
    let file = Counted::new(SystemDisk.open(&bucket.path)?, progress);
    let end = file.len()?;
    let mut summary = Summary { good_len: end, end, ..Summary::default() };
    let mut decoder = MultiGzDecoder::new(Sequential { file: &file, offset: 0 });
    if let Err(error) = io::copy(&mut decoder, &mut io::sink()) {
        let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput, io::ErrorKind::UnexpectedEof];
        if !kinds.contains(&error.kind()) {
            return Err(error);
        }
        summary.good_len = 0;
        summary.damage_count = 1;
        summary.damaged_bytes = end;
        summary.damages.push(Damage { offset: 0, bytes: end, why: "the compressed file cannot be read to its end" });
    }
    Ok(Inspection { format: None, header_only: false, summary })
}

/// A file from front to back.
struct Sequential<'a> {
    file: &'a dyn File,
    offset: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
