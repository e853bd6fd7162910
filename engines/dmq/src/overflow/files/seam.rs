//! What tests see and decide of the files of the overflows on their thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;

/// What was done to a file.
#[derive(Debug, Clone)]
pub(in crate::overflow) enum Op {
    Open { name: String },
    Write { name: String, offset: u64, bytes: Vec<u8> },
    SetLen { name: String, len: u64 },
    Punch { name: String, from: u64, to: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
}

thread_local! {
    static LOG: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
    static ROOM: Cell<u64> = const { Cell::new(u64::MAX) };
    static BROKEN: Cell<bool> = const { Cell::new(false) };
    static POSITIONS_FULL: Cell<bool> = const { Cell::new(false) };
    static WITHOUT_FALLOCATE: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn note(op: impl FnOnce() -> Op) {
    LOG.with_borrow_mut(|log| log.as_mut().map(|log| log.push(op())));
}

pub(super) fn write(name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if BROKEN.get() {
        return Err(io::Error::from_raw_os_error(5));
    }
    if POSITIONS_FULL.get() && name.starts_with("overflow.positions") {
        return Err(io::ErrorKind::StorageFull.into());
    }
    note(|| Op::Write { name: name.to_owned(), offset, bytes: bytes.to_vec() });
    Ok(())
}

pub(super) fn allocate(name: &str, to: u64) -> io::Result<()> {
    let positions = POSITIONS_FULL.get() && name.starts_with("overflow.positions");
    if positions || name == "overflow.dat" && to > ROOM.get() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

pub(super) fn without_fallocate() -> bool {
    WITHOUT_FALLOCATE.get()
}

/// Begins to record.
pub(in crate::overflow) fn record() {
    LOG.set(Some(Vec::new()));
}

/// So many things were done since [`record`].
pub(in crate::overflow) fn count() -> usize {
    LOG.with_borrow(|log| log.as_ref().map_or(0, Vec::len))
}

/// Ends the record.
pub(in crate::overflow) fn recorded() -> Vec<Op> {
    LOG.take().unwrap_or_default()
}

/// Lets the data file grow to this size only.
pub(in crate::overflow) fn set_room(bytes: u64) {
    ROOM.set(bytes);
}

/// Leaves no room for the positions, or does.
pub(in crate::overflow) fn set_positions_full(full: bool) {
    POSITIONS_FULL.set(full);
}

/// Makes all writes fail, or not.
pub(in crate::overflow) fn set_broken(broken: bool) {
    BROKEN.set(broken);
}

/// Behaves like a file system without `fallocate`.
pub(in crate::overflow) fn set_without_fallocate(without: bool) {
    WITHOUT_FALLOCATE.set(without);
}
