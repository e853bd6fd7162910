//! What is to be made durable of a bucket, and what became of that.

use std::io;
use std::path::PathBuf;
use std::sync::Weak;

use super::Key;
use super::bad::{is_closed, is_of_all};
use super::syncers::{Made, Syncers, Task};
use crate::catalogue::Entry;
use crate::disk::{Disk, File};

/// A bucket whose file is to be made durable.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: Key,
    pub(super) generation: u64,
    pub(super) entry: Entry,
    pub(super) unsynced: u64,
    pub(super) path: PathBuf,
    pub(super) file: Option<Open>,
    /// The file was not there any more.
    pub(super) gone: bool,
    /// It could not be opened, for this reason: what was written is not known to be durable.
    pub(super) closed: Option<String>,
}

/// Only while the writer has it open: files that are yet to be made durable do not count as open beside those.
pub(super) struct Open(pub(super) Weak<dyn File>);

impl std::fmt::Debug for Open {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("file")
    }
}

/// What was made durable for a checkpoint.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(super) buckets: Vec<Due>,
    pub(super) dirs: Vec<PathBuf>,
    pub(super) result: io::Result<()>,
}

/// What became of a file that was to be made durable.
pub(super) enum End {
    Durable,
    Gone,
    Closed(String),
}

impl Due {
    fn is(&mut self, end: End) {
        match end {
            End::Durable => {}
            End::Gone => self.gone = true,
            End::Closed(why) => self.closed = Some(why),
        }
    }

    pub(super) fn sync(&self, disk: &dyn Disk) -> io::Result<End> {
        match self.file.as_ref().and_then(|file| file.0.upgrade()) {
            Some(file) => file.sync().map(|()| End::Durable),
            None => match disk.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(End::Gone),
                Err(error) if !is_of_all(&error) => Ok(End::Closed(error.to_string())),
                file => file?.sync().map(|()| End::Durable),
            },
        }
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}

impl Durable {
    pub(super) fn new(buckets: Vec<Due>, dirs: Vec<PathBuf>) -> Self {
        Self { buckets, dirs, result: Ok(()) }
    }

    /// Makes files and directories durable, and does something else at the same time. Those that are gone, or cannot be
    /// opened, are marked; the result is the first error.
    pub(super) fn make<T>(&mut self, syncers: &Syncers, meanwhile: impl FnOnce() -> T) -> T {
        let (dirty, clean) = std::mem::take(&mut self.buckets).into_iter().partition(|due: &Due| due.unsynced > 0);
        self.buckets = clean;
        let files = Vec::into_iter(dirty).map(|due| Task::File(Box::new(due)));
        let (made, other) = syncers.run(files.chain(self.dirs.iter().cloned().map(Task::Dir)).collect(), meanwhile);
        let mut closed = Vec::new();
        for made in made {
            let result = match made {
                Made::File(mut due, end) => {
                    let result = end.map(|end| due.is(end));
                    self.buckets.push(*due);
                    result
                }
                Made::Dir(_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Made::Dir(dir, Err(error)) if is_closed(&error) => {
                    closed.push((dir, error));
                    Ok(())
                }
                Made::Dir(_, synced) => synced,
            };
            if self.result.is_ok() {
                self.result = result;
            }
        }
        for (dir, error) in closed {
            let mut within = self.buckets.iter_mut().filter(|due| due.path.starts_with(&dir)).peekable();
            if within.peek().is_none() && self.result.is_ok() {
                self.result = Err(error);
                continue;
            }
            within.for_each(|due| due.closed = Some(error.to_string()));
        }
        other
    }
}
