//! Memory for segments: slots of 64 KiB of address space, of which only the pages that are written take memory.
#![allow(unsafe_code, reason = "maps memory that is given back page by page, which no safe interface offers")]

use std::io;
use std::ptr::NonNull;

/// Bytes of a slot.
pub(super) const SLOT: usize = 64 * 1024;
/// Bytes of a page, the unit in which memory is taken and given back.
pub(super) const PAGE: usize = 4096;
/// Slots that are mapped at a time.
const REGION_SLOTS: usize = 1024;

/// The bytes of a slot.
pub(super) type Bytes = [u8; SLOT];

/// A slot that was taken; given back with [`Pages::give_back`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    /// The same slot under a second name, to put a new segment in the place of the one that has it.
    pub(super) fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

/// All slots of a store.
#[derive(Debug, Default)]
pub(super) struct Pages {
    regions: Vec<NonNull<Bytes>>,
    free: Vec<Slot>,
    /// Slots of the newest region that were never taken.
    fresh: usize,
}

// SAFETY: the mappings belong to this value alone; nothing is tied to the thread that made them.
unsafe impl Send for Pages {}

/// Pages that hold `bytes` bytes.
pub(super) const fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE)
}

impl Pages {
    /// Takes a slot, none of whose pages takes memory yet.
    ///
    /// # Errors
    /// The system has no more address space.
    pub(super) fn take(&mut self) -> io::Result<Slot> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        if self.fresh == 0 {
            self.regions.push(map_region()?);
            self.fresh = REGION_SLOTS;
        }
        let index = self.regions.len() * REGION_SLOTS - self.fresh;
        let slot = u32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.fresh -= 1;
        Ok(Slot(slot))
    }

    /// Returns a slot of which the first `pages` pages were written.
    pub(super) fn give_back(&mut self, slot: Slot, pages: usize) {
        self.release(&slot, 0, pages);
        self.free.push(slot);
    }

    /// Gives the memory of the pages from `from` to before `until` back to the system.
    pub(super) fn release(&mut self, slot: &Slot, from: usize, until: usize) {
        let until = until.min(SLOT / PAGE);
        if from >= until {
            return;
        }
        let address = self.address(slot);
        // SAFETY: the range lies within the slot, which is mapped; `&mut self` rules out references into it. The pages
        // read as zeros afterwards, which is a valid value of bytes.
        unsafe {
            let start = address.as_ptr().cast::<u8>().add(from * PAGE).cast();
            let length = (until - from) * PAGE;
            if libc::madvise(start, length, libc::MADV_DONTNEED) != 0 {
                // Locked memory has an advice of its own, since Linux 5.18; on older ones it is kept.
                libc::madvise(start, length, libc::MADV_DONTNEED_LOCKED);
            }
        }
    }

    /// Lets the first `pages` pages of a slot take memory at once, which is quicker than one after the other when they
    /// are written.
    pub(super) fn populate(&mut self, slot: &Slot, pages: usize) {
        let length = pages.min(SLOT / PAGE) * PAGE;
        // SAFETY: the range lies within the slot, which is mapped, and its bytes stay what they are. A kernel before
        // 5.14 refuses; the pages then come when they are written.
        unsafe {
            libc::madvise(self.address(slot).as_ptr().cast(), length, libc::MADV_POPULATE_WRITE);
        }
    }

    /// The bytes of a slot.
    #[inline]
    pub(super) fn bytes(&self, slot: &Slot) -> &Bytes {
        // SAFETY: the slot is mapped as long as `self` lives, and written only through `&mut self`.
        unsafe { self.address(slot).as_ref() }
    }

    /// The bytes of a slot, to write them.
    #[inline]
    pub(super) fn bytes_mut(&mut self, slot: &Slot) -> &mut Bytes {
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference to any slot.
        unsafe { self.address(slot).as_mut() }
    }

    #[inline]
    fn address(&self, slot: &Slot) -> NonNull<Bytes> {
        let index = slot.0 as usize;
        let region = self.regions[index / REGION_SLOTS];
        // SAFETY: a region has `REGION_SLOTS` slots.
        unsafe { region.add(index % REGION_SLOTS) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for region in self.regions.drain(..) {
            // SAFETY: the region was mapped with this length, and no reference into it outlives `self`.
            unsafe {
                libc::munmap(region.as_ptr().cast(), SLOT * REGION_SLOTS);
            }
        }
    }
}

fn map_region() -> io::Result<NonNull<Bytes>> {
    let length = SLOT * REGION_SLOTS;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new private mapping, which nothing else refers to.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Huge pages would fill the parts of slots that are not written.
    // SAFETY: the range was just mapped. A kernel without huge pages refuses, which is as good.
    unsafe {
        libc::madvise(address, length, libc::MADV_NOHUGEPAGE);
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

/// Keeps all memory of the process, now and later, from being swapped out (`lock_memory`).
///
/// Pages are locked when they are first written: locking all address space at once would fill every slot.
///
/// # Errors
/// The process may not lock memory (`RLIMIT_MEMLOCK`).
pub fn lock_memory() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: takes no pointer.
    if unsafe { libc::mlockall(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
