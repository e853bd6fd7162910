//! Perf data in every form that sources send.
