//! Answers ranges of keys with batches, made by threads of their own.

pub mod view;

pub use view::{After, BucketView, Tail, Views};
