//! Legacy: dmq.
