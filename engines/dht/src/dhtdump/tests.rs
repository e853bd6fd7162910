//! Tests of the dump process.
