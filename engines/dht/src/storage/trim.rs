//! Gives free blocks of the allocator back to the system.
#![allow(unsafe_code, reason = "the allocator's own function has no safe interface")]

/// Gives back what the allocator keeps of freed blocks.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and the allocator keeps its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
