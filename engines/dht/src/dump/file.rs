//! One dump file, from its temporary name to its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use overstory_swarm::key::Key;
use rand::RngExt;

use super::chunk::{ALIGNMENT, Chunk};
use super::data_dir::{DUMPING_SUFFIX, DataDir, FileStep};
use super::{DumpError, DumpOptions};
use crate::tcm::{RECORD_OVERHEAD, Writer};

/// Bytes after which what was written through the page cache is brought to the disk, so that the end need not wait for all.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// A file under its temporary name; removed when dropped before [`TempFile::commit`].
#[derive(Debug)]
pub(super) struct TempFile {
    dir: DataDir,
    channel: String,
    path: PathBuf,
    file: File,
    direct: bool,
    written: u64,
    synced: u64,
    committed: bool,
    /// The inode of the file in place when this one was made, if there was one.
    before: Option<u64>,
}

impl TempFile {
    pub(super) fn create(dir: &DataDir, channel: &str, options: DumpOptions) -> Result<Self, DumpError> {
        let name = |dir: &DataDir| {
            let mut random = rand::rng();
            let tail: String = (0..6).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
            dir.path().join(format!("{channel}.tcm.{tail}{DUMPING_SUFFIX}"))
        };
        let mut path = name(dir);
        let direct = !options.disable_direct_io;
        let opened = dir.seam.before(FileStep::Create).and_then(|()| {
            let mut attempts = 0;
            loop {
                match open_new(&path, direct) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempts < 16 => {
                        attempts += 1;
                        path = name(dir);
                    }
                    result => return result,
                }
            }
        });
        match opened {
            Ok((file, direct)) => Ok(Self {
                dir: dir.clone(),
                channel: channel.to_owned(),
                path,
                file,
                direct,
                written: 0,
                synced: 0,
                committed: false,
                before: inode(&dir.file(channel)),
            }),
            Err(source) => Err(DumpError { what: "create", path, source }),
        }
    }

    /// Appends bytes; all but the last have a length that is a multiple of [`ALIGNMENT`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DumpError> {
        self.write_all(bytes).map_err(|source| self.error("write", source))
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.dir.seam.before(FileStep::Write)?;
        if !bytes.len().is_multiple_of(ALIGNMENT) {
            self.end_direct()?;
        }
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    bytes = bytes.get(count..).unwrap_or_default();
                    if !count.is_multiple_of(ALIGNMENT) {
                        self.end_direct()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file system that took the flag and does not keep it.
                Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => self.end_direct()?,
                Err(error) => return Err(error),
            }
        }
        if !self.direct && self.written - self.synced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.synced = self.written;
            // It will not be read soon: the page cache is for others. Failing to say so harms nobody.
            let _advice = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(())
    }

    fn end_direct(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.direct) {
            let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
            fcntl(&self.file, FcntlArg::F_SETFL(flags & !OFlag::O_DIRECT))?;
        }
        Ok(())
    }

    /// Brings the file to the disk and puts it in its place; false when the channel was removed meanwhile, or when a
    /// dump that began after this one is there already: a node that stops while its dump process works is such a case.
    pub(super) fn commit(mut self) -> Result<bool, DumpError> {
        let dir = self.dir.clone();
        let step = |step| dir.seam.before(step);
        step(FileStep::Sync).and_then(|()| self.file.sync_all()).map_err(|source| self.error("sync", source))?;
        let place = dir.file(&self.channel);
        let replaced = dir.replace(&self.channel, || {
            // Held until the new name is there: other processes dump into the same directory.
            let _others = dir.keep_others_out();
            if self.is_overtaken(&place) {
                tracing::warn!(channel = %self.channel, "a dump that began later is there already and is kept");
                return Ok(false);
            }
            self.keep_old(&place)?;
            step(FileStep::Rename).and_then(|()| fs::rename(&self.path, &place)).map_err(|source| DumpError {
                what: "put in place",
                path: place.clone(),
                source,
            })?;
            Ok(true)
        });
        match replaced {
            None | Some(Ok(false)) => return Ok(false),
            Some(Err(error)) => return Err(error),
            Some(Ok(true)) => self.committed = true,
        }
        step(FileStep::SyncDir).and_then(|()| dir.sync()).map_err(|source| DumpError {
            what: "sync",
            path: dir.path().to_owned(),
            source,
        })?;
        Ok(true)
    }

    /// Whether the file in place was put there while this one was written, and was made after it. A file is made when
    /// its dump begins and keeps its birth time when it is renamed; where the file system tells none, nothing is
    /// overtaken. Times alone would not do: after the clock was set back every old file would be newer.
    fn is_overtaken(&self, place: &Path) -> bool {
        if inode(place) == self.before {
            return false;
        }
        let born = |metadata: io::Result<fs::Metadata>| metadata.and_then(|metadata| metadata.created());
        matches!((born(fs::metadata(place)), born(self.file.metadata())), (Ok(theirs), Ok(ours)) if theirs > ours)
    }

    /// Makes the old file `.tcm.backup`, without a moment at which its own name is missing.
    fn keep_old(&self, place: &Path) -> Result<(), DumpError> {
        let backup = self.dir.backup_file(&self.channel);
        let failed = |source| DumpError { what: "make", path: backup.clone(), source };
        // The name is this file's own, so that no other process uses it.
        let mut second = self.path.clone().into_os_string();
        second.push(".backup");
        second.push(DUMPING_SUFFIX);
        let linked = self.dir.seam.before(FileStep::Link).and_then(|()| fs::hard_link(place, &second));
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK | libc::ENOSYS)
                ) =>
            {
                tracing::warn!(channel = %self.channel, %error, "no backup of the old dump: the file system makes no links");
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        }
        let renamed = self.dir.seam.before(FileStep::Backup).and_then(|()| fs::rename(&second, &backup));
        if !self.dir.seam.killed() {
            // It is still there after a failure, and when both names meant one file already.
            let _gone = fs::remove_file(&second);
        }
        renamed.map_err(failed)
    }

    fn error(&self, what: &'static str, source: io::Error) -> DumpError {
        DumpError { what, path: self.path.clone(), source }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.committed || self.dir.seam.killed() {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(file = %self.path.display(), %error, "cannot remove the unfinished dump");
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Makes a file that is not there yet; whether it is written past the page cache.
fn open_new(path: &Path, direct: bool) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if direct {
        match options.clone().custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => return Ok((file, true)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // Some kernels make the file before they refuse the flag.
                let _gone = fs::remove_file(path);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((options.open(path)?, false))
}

/// A dump file that is written by the caller, record by record: for programs that get the records from elsewhere.
///
/// Blocks on the disk. Dropped without [`DumpFile::commit`] it leaves nothing behind.
#[derive(Debug)]
pub struct DumpFile {
    file: TempFile,
    chunk: Chunk,
    records: u64,
}

impl DumpFile {
    /// Begins the file of a channel, whose name has been checked.
    ///
    /// # Errors
    /// The temporary file cannot be made.
    pub fn create(dir: &DataDir, channel: &str, options: DumpOptions) -> Result<Self, DumpError> {
        let mut file = Self { file: TempFile::create(dir, channel, options)?, chunk: Chunk::new(), records: 0 };
        let mut head = Vec::new();
        Writer::begin(&mut head);
        file.push(&head)?;
        Ok(file)
    }

    /// Appends a record; one with an empty value is left out, as no reader takes it.
    ///
    /// # Errors
    /// The disk is full or fails; the file cannot be finished then.
    pub fn record(&mut self, key: Key, value: &[u8]) -> Result<(), DumpError> {
        if value.is_empty() {
            return Ok(());
        }
        self.push(&Writer::head(key, value.len()))?;
        self.push(value)?;
        self.records += 1;
        Ok(())
    }

    /// Records so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the file so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file.written + self.chunk.bytes().len() as u64
    }

    /// Ends the file, brings it to the disk and puts it in its place; returns its length in bytes.
    ///
    /// # Errors
    /// The disk is full or fails. The old file is untouched, unless only the directory could not be brought to the disk.
    pub fn commit(mut self) -> Result<u64, DumpError> {
        let mut tail = Vec::with_capacity(RECORD_OVERHEAD);
        Writer::finish(&mut tail, self.bytes());
        self.push(&tail)?;
        self.file.write(self.chunk.bytes())?;
        let bytes = self.file.written;
        self.file.commit()?;
        Ok(bytes)
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), DumpError> {
        loop {
            bytes = self.chunk.push(bytes);
            if !self.chunk.is_full() {
                return Ok(());
            }
            self.file.write(self.chunk.bytes())?;
            self.chunk.clear();
        }
    }
}
