#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bad;
mod crash;
mod full;
mod missing;
mod open_files;
mod races;
mod reads;
mod stand_still;
mod stop;
mod use_case;

use std::future::Future;
use std::time::Duration;

use super::*;
use crate::disk::sim::SimDisk;
use crate::format::Format;
use crate::record::Framing;
use crate::walk::{self, Step, Walker};

pub(super) const DIR: &str = "/data";
pub(super) const BOOT: &str = "a-boot";

pub(super) fn options() -> StorageOptions {
    StorageOptions {
        write_buffer_size: 4096,
        write_after: Duration::from_millis(20),
        retry: Duration::from_millis(5),
        boot_id: BOOT.into(),
        ..StorageOptions::default()
    }
}

pub(super) fn always() -> StorageOptions {
    StorageOptions { sync: SyncMode::Always, ..options() }
}

/// Runs a test with a storage that is driven, and drops it without closing it.
pub(super) fn with_storage<F: Future>(
    disk: &SimDisk,
    options: StorageOptions,
    test: impl FnOnce(Rc<Storage>, Rc<Commits>) -> F,
) -> F::Output {
    with_opened(disk, options, test).unwrap()
}

/// The same, if the storage can be opened.
pub(super) fn with_opened<F: Future>(
    disk: &SimDisk,
    options: StorageOptions,
    test: impl FnOnce(Rc<Storage>, Rc<Commits>) -> F,
) -> Result<F::Output, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let (storage, commits) = try_open(disk, options)?;
        let driven = Rc::clone(&storage);
        let drive = tokio::task::spawn_local(async move { driven.drive().await });
        let result = test(Rc::clone(&storage), commits).await;
        drive.abort();
        Ok(result)
    })
}

pub(super) fn open(disk: &SimDisk, options: StorageOptions) -> (Rc<Storage>, Rc<Commits>) {
    try_open(disk, options).unwrap()
}

fn try_open(disk: &SimDisk, options: StorageOptions) -> Result<(Rc<Storage>, Rc<Commits>), OpenError> {
    let commits = Rc::new(Commits::new());
    let (storage, _) = Storage::open(Arc::new(disk.clone()), Path::new(DIR), options, Rc::clone(&commits))?;
    Ok((Rc::new(storage), commits))
}

/// Waits until something is so, and fails when it never is.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what} never came true");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) type Records = Vec<(u64, Vec<u8>)>;

/// All records of a channel as a reader gets them: whole, in order, without damage.
pub(super) fn read(storage: &Storage, disk: &dyn Disk, channel: &str) -> Records {
    let mut views = Vec::new();
    storage.views(channel, &Ranges::one(KeyRange::ALL), None, usize::MAX, &mut views);
    let mut records = Vec::new();
    for view in views {
        read_view(&view, disk, &mut records);
    }
    records
}

pub(super) fn read_view(view: &BucketView, disk: &dyn Disk, records: &mut Records) {
    if let Some(format) = view.format.filter(|_| view.length > 0) {
        let file = disk.open(&view.path()).unwrap();
        let mut walker = Walker::new(format, view.number, view.length);
        let summary =
            walk::read_file(&*file, &mut walker, &mut |key, value| records.push((key, value.to_vec()))).unwrap();
        assert_eq!(summary.damage_count, 0, "{:?} of {}", summary.damages, view.path().display());
    }
    for tail in &view.tail {
        let mut walker = Walker::records(tail.framing, view.number, tail.bytes.len() as u64);
        loop {
            let at = usize::try_from(walker.offset()).unwrap();
            let mut take = |key: u64, value: &[u8]| {
                records.push((key, value.to_vec()));
                true
            };
            match walker.next(&tail.bytes[at..], &mut take) {
                Step::End => break,
                step => assert!(matches!(step, Step::Paused), "{step:?}"),
            }
        }
    }
}

pub(super) fn totals(storage: &Storage) -> (u64, u64) {
    let totals = storage.totals();
    (totals.records, totals.bytes)
}

/// Files of the data directory that belong to channels.
pub(super) fn bucket_files(disk: &SimDisk) -> Vec<String> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter_map(|path| path.strip_prefix("/data/").map(str::to_owned)).filter(|path| path.contains('/')).collect()
}
