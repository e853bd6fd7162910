//! Gives memory that was freed back to the system.
//!
//! The allocator keeps freed blocks for later. After queues or records have drained that may be most of the process, and
//! nobody else can use it.
#![allow(unsafe_code, reason = "the allocator's own functions have no safe interface")]

use crate::stats::process::anonymous_memory;

/// What may be kept beside what is in use, in bytes.
const KEPT: u64 = 32 << 20;

/// So many looks in a row have to find too much: what is freed for a moment is needed again.
const LOOKS: u32 = 5;

/// Watches the allocator of a process whose data lies in it.
#[derive(Debug, Default)]
pub struct Heap {
    found: u32,
}

impl Heap {
    /// Looks once, about once a second; after some looks at a heap of which more is free than a quarter and 32 MiB of what
    /// is in use, gives it back. Costs some ten microseconds, giving back a millisecond for each 10 MB or so.
    pub fn look(&mut self) {
        let Some((resident, used)) = anonymous_memory().zip(in_use()) else { return };
        let too_much = resident > used.saturating_add(used / 4).saturating_add(KEPT);
        self.found = if too_much { self.found + 1 } else { 0 };
        if self.found >= LOOKS {
            self.found = 0;
            give_back();
        }
    }
}

/// Gives back what the allocator keeps of freed blocks.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and the allocator keeps its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that were allocated and not freed; none where the allocator does not tell.
fn in_use() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes no pointer, and the allocator keeps its own locks.
        let told = unsafe { libc::mallinfo2() };
        Some((told.uordblks as u64).saturating_add(told.hblkhd as u64))
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Blocks that stay lie between those that are freed, so that nothing but a look gives these back.
    #[test]
    fn what_is_freed_is_given_back_after_some_looks() {
        let (mut freed, mut stay) = (Vec::new(), Vec::new());
        for _ in 0..4000 {
            freed.push(vec![1_u8; 60_000]);
            stay.push(vec![1_u8; 16]);
        }
        let full = anonymous_memory().unwrap_or_default();
        drop(freed);
        let mut heap = Heap::default();
        for _ in 1..LOOKS {
            heap.look();
        }
        let before = anonymous_memory().unwrap_or_default();
        heap.look();
        let after = anonymous_memory().unwrap_or_default();
        assert!(full > 240_000_000 && before > 200_000_000 && after < 60_000_000, "{full}, {before}, {after}");
        assert_eq!(stay.len(), 4000);
    }
}
