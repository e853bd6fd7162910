//! The logfiles node: records on disk by channel and timestamp, and the checker of its files.
//!
//! A channel is a directory of *buckets*, files that hold the records of 4,096 consecutive keys each. `storage` owns
//! them on the node's thread; everything that waits for a disk happens on other threads, through [`disk::Disk`].

mod rewrites;
mod writer;

pub mod bucket;
pub mod catalogue;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod damages;
pub mod disk;
pub mod engine;
pub mod filter;
pub mod format;
pub mod fuzzing;
pub mod logfilesnode;
pub mod read;
pub mod record;
pub mod recovery;
pub mod retention;
pub mod storage;
pub mod walk;
