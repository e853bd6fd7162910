//! What the system alone can do: a thread of low priority, and the local time.
#![allow(unsafe_code, reason = "neither has a safe interface")]

use super::date::Local;

/// Sets the priority of this thread to the lowest, for the processor and the disk.
///
/// Not being allowed to is no failure: the thread works all the same.
pub(super) fn enter() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    /// The class that gets the disk when nobody else wants it.
    const IOPRIO_IDLE: libc::c_int = 3 << 13;
    // SAFETY: neither takes a pointer; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
    }
}

/// The local time of an instant; the epoch if the system cannot tell.
pub(super) fn local(unix_seconds: i64) -> Local {
    // SAFETY: all zeros is a valid value of this struct of numbers and a pointer.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values that live through the call.
    if unsafe { libc::localtime_r(&raw const unix_seconds, &raw mut parts) }.is_null() {
        return Local::new(1970, 1, 1, 0);
    }
    let part = |number: libc::c_int| u32::try_from(number).unwrap_or(0);
    let small = |number: libc::c_int| u8::try_from(number).unwrap_or(1);
    let year = u16::try_from(parts.tm_year + 1900).unwrap_or(1970);
    let second = part(parts.tm_hour) * 3600 + part(parts.tm_min) * 60 + part(parts.tm_sec);
    Local::new(year, small(parts.tm_mon + 1), small(parts.tm_mday), second)
}
