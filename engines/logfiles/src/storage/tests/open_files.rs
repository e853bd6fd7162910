//! How many files are open.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::*;
use crate::disk::{Disk, File, Named, Stat};

/// A disk that counts the files of channels that are open, and whose files are made durable only once it is let.
#[derive(Clone)]
struct CountingDisk {
    disk: SimDisk,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    syncing: AtomicUsize,
    may_sync: Mutex<bool>,
    let_go: Condvar,
}

struct CountedFile {
    file: Arc<dyn File>,
    counts: Arc<Counts>,
    counted: usize,
}

impl CountingDisk {
    fn counted(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        let counted = usize::from(path.starts_with("/data/log"));
        self.counts.open.fetch_add(counted, Ordering::SeqCst);
        Arc::new(CountedFile { file, counts: Arc::clone(&self.counts), counted })
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(self.counted, Ordering::SeqCst);
    }
}

impl File for CountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        if self.counted > 0 {
            self.counts.syncing.fetch_add(1, Ordering::SeqCst);
            let may = self.counts.may_sync.lock().unwrap();
            drop(self.counts.let_go.wait_while(may, |may| !*may).unwrap());
        }
        self.file.sync()
    }
}

impl Disk for CountingDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.counted(path, self.disk.open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.counted(path, self.disk.create(path)?))
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dirs(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Named>> {
        self.disk.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.disk.stat(path)
    }
}

/// A checkpoint on a slow disk kept the files that it had yet to make durable open beside as many that were written
/// meanwhile: twice what is allowed. Now it holds those alone that it works on.
#[test]
fn a_slow_checkpoint_keeps_no_files_open_that_the_writer_has_given_up() {
    const FILES: u16 = 32;
    /// Files that are made durable at the same time.
    const AT_ONCE: usize = 8;
    let disk = CountingDisk { disk: SimDisk::new(), counts: Arc::default() };
    let options = StorageOptions { open_files: FILES.into(), ..super::options() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let all = Arc::new(disk.clone());
        let (storage, _) = Storage::open(all, Path::new(DIR), options, Rc::new(Commits::new())).unwrap();
        let storage = Rc::new(storage);
        let driven = Rc::clone(&storage);
        let _drive = tokio::task::spawn_local(async move { driven.drive().await });
        let fill = async |buckets: std::ops::Range<u64>| {
            for bucket in buckets {
                storage.put("log", bucket << 12, b"value").unwrap();
            }
            storage.flush().await.unwrap();
        };
        let counts = &disk.counts;
        fill(0..FILES.into()).await;
        storage.state.borrow_mut().checkpoint();
        until("the checkpoint is held up", || counts.syncing.load(Ordering::SeqCst) == AT_ONCE).await;
        for turn in 1..5 {
            fill(turn * u64::from(FILES)..(turn + 1) * u64::from(FILES)).await;
            let open = counts.open.load(Ordering::SeqCst);
            assert!(open <= usize::from(FILES) + AT_ONCE, "{open}");
        }
        *counts.may_sync.lock().unwrap() = true;
        counts.let_go.notify_all();
        storage.close().await.unwrap();
    });
}
