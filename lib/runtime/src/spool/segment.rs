//! One file of a spool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{MAX_RECORD_BYTES, Record};

const MAGIC: [u8; 8] = *b"OVSPOOL1";
const MARKER: [u8; 4] = [0xf5, b'R', b'E', b'C'];
/// Magic and the first record's number.
pub(super) const HEADER: usize = 16;
/// Marker, checksum, length, number and time.
pub(super) const RECORD_HEADER: usize = 28;
const SUFFIX: &str = ".seg";
/// Damage is searched for the next intact record in pieces of this size.
const SEARCH_BYTES: usize = 256 * 1024;

/// A segment: its file, and how much of it counts.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    first: u64,
    bytes: u64,
}

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Found {
    /// An intact record and the offset behind it.
    Record {
        /// The record.
        record: Record,
        /// Behind it.
        end: u64,
    },
    /// Bytes that are no record, up to the next one or the end of the file.
    Damage {
        /// Behind them.
        end: u64,
    },
    /// The end of the segment.
    End,
}

/// What opening a segment found in it.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) last_sequence: u64,
    pub(super) unreleased: u64,
}

/// The first numbers of the segments in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        firsts.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// The path of the segment whose first record has this number.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// Appends the file's form of a record to `out`.
pub(super) fn encode(out: &mut Vec<u8>, sequence: u64, at_ms: i64, payload: &[u8]) {
    let mut header = [0; RECORD_HEADER];
    header[..4].copy_from_slice(&MARKER);
    header[8..12].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    header[12..20].copy_from_slice(&sequence.to_le_bytes());
    header[20..28].copy_from_slice(&at_ms.to_le_bytes());
    let sum = checksum(&header, payload);
    header[4..8].copy_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
}

/// Covers length, number, time and payload.
fn checksum(header: &[u8; RECORD_HEADER], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[8..]);
    hasher.update(payload);
    hasher.finalize()
}

fn number<const N: usize>(header: &[u8; RECORD_HEADER], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[at..at + N]);
    bytes
}

impl Segment {
    /// Makes a segment whose name survives a crash.
    pub(super) fn create(dir: &Path, first: u64) -> io::Result<Self> {
        let path = path(dir, first);
        // Left by a crash between making the file and writing its first record: it holds nothing.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&first.to_le_bytes());
        file.write_all(&header)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { path, file, first, bytes: HEADER as u64 })
    }

    /// Opens a segment and goes through its records. In the `newest` one a record that was cut short is removed.
    pub(super) fn open(dir: &Path, first: u64, released: u64, newest: bool) -> io::Result<(Self, Content)> {
        let path = path(dir, first);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = file.metadata()?.len();
        let mut segment = Self { path, file, first, bytes };
        let mut content = Content { last_sequence: first.saturating_sub(1), unreleased: 0 };
        if bytes < HEADER as u64 {
            segment.cut(0)?;
            segment.file.write_all_at(&MAGIC, 0)?;
            segment.file.write_all_at(&first.to_le_bytes(), 8)?;
            segment.bytes = HEADER as u64;
            return Ok((segment, content));
        }
        let mut offset = HEADER as u64;
        loop {
            match segment.next(offset)? {
                Found::Record { record, end } => {
                    content.last_sequence = content.last_sequence.max(record.sequence);
                    content.unreleased += u64::from(record.sequence > released);
                    offset = end;
                }
                Found::Damage { end } => {
                    if newest && end == segment.bytes && segment.cut_short(offset)? {
                        tracing::info!(path = %segment.path.display(), offset, bytes = end - offset,
                            "removed a spooled record that was cut short");
                        segment.cut(offset)?;
                        break;
                    }
                    segment.set_aside(dir, offset, end);
                    if newest && end == segment.bytes {
                        segment.cut(offset)?;
                        // Numbers in the damage may have been receipted; they are not given again.
                        content.last_sequence += (end - offset) / RECORD_HEADER as u64 + 1;
                        break;
                    }
                    offset = end;
                }
                Found::End => break,
            }
        }
        Ok((segment, content))
    }

    /// Appends records and waits for the disk; after a failure the segment is as before.
    pub(super) fn append(&mut self, block: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(block, self.bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.bytes += block.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.bytes)?;
                Err(error)
            }
        }
    }

    /// Looks at what stands at `offset`.
    pub(super) fn next(&self, offset: u64) -> io::Result<Found> {
        if offset >= self.bytes {
            return Ok(Found::End);
        }
        if let Some((record, end)) = self.record_at(offset)? {
            return Ok(Found::Record { record, end });
        }
        let mut at = offset + 1;
        while at < self.bytes {
            let piece = self.piece(at)?;
            let hit = piece.windows(MARKER.len()).position(|window| window == MARKER);
            match hit {
                Some(hit) if self.record_at(at + hit as u64)?.is_some() => {
                    return Ok(Found::Damage { end: at + hit as u64 });
                }
                Some(hit) => at += hit as u64 + 1,
                // A marker may begin in the last bytes of this piece.
                None => at += (piece.len().saturating_sub(MARKER.len() - 1)).max(1) as u64,
            }
        }
        Ok(Found::Damage { end: self.bytes })
    }

    fn piece(&self, at: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.bytes - at).unwrap_or(usize::MAX).min(SEARCH_BYTES);
        let mut piece = vec![0; length];
        self.file.read_exact_at(&mut piece, at)?;
        Ok(piece)
    }

    /// The record at `offset`, if an intact one stands there.
    fn record_at(&self, offset: u64) -> io::Result<Option<(Record, u64)>> {
        let Some((header, length)) = self.header_at(offset)? else { return Ok(None) };
        let start = offset + RECORD_HEADER as u64;
        let end = start + length as u64;
        if end > self.bytes {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, start)?;
        if checksum(&header, &payload).to_le_bytes() != number::<4>(&header, 4) {
            return Ok(None);
        }
        let sequence = u64::from_le_bytes(number(&header, 12));
        let at_ms = i64::from_le_bytes(number(&header, 20));
        Ok(Some((Record { sequence, at_ms, payload }, end)))
    }

    /// The header at `offset` and the payload's length, if they look like one.
    fn header_at(&self, offset: u64) -> io::Result<Option<([u8; RECORD_HEADER], usize)>> {
        if self.bytes - offset < RECORD_HEADER as u64 {
            return Ok(None);
        }
        let mut header = [0; RECORD_HEADER];
        self.file.read_exact_at(&mut header, offset)?;
        let length = u32::from_le_bytes(number(&header, 8)) as usize;
        Ok((header[..4] == MARKER && length <= MAX_RECORD_BYTES).then_some((header, length)))
    }

    /// Whether what stands at `offset` is a record whose end was never written, rather than one that was changed.
    fn cut_short(&self, offset: u64) -> io::Result<bool> {
        if self.bytes - offset < RECORD_HEADER as u64 {
            return Ok(true);
        }
        let header = self.header_at(offset)?;
        Ok(header.is_some_and(|(_, length)| offset + (RECORD_HEADER + length) as u64 > self.bytes))
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Copies damaged bytes to a file of their own and says whether that was news.
    pub(super) fn set_aside(&self, dir: &Path, from: u64, to: u64) -> bool {
        let aside = dir.join(format!("damaged-{:020}-{from}", self.first));
        let copy = || -> io::Result<()> {
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            let mut at = from;
            while at < to {
                let mut piece = self.piece(at)?;
                piece.truncate(usize::try_from(to - at).unwrap_or(usize::MAX));
                out.write_all(&piece)?;
                at += piece.len() as u64;
            }
            Ok(())
        };
        match copy() {
            Ok(()) => {
                tracing::error!(path = %self.path.display(), offset = from, bytes = to - from, aside = %aside.display(),
                    "spooled records are damaged, kept aside and passed over");
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => {
                tracing::error!(path = %self.path.display(), offset = from, bytes = to - from, %error,
                    "spooled records are damaged and cannot be kept aside, passed over");
                true
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}
