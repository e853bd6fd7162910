//! Makes a stream that waits run again.
