//! What the fuzz targets in `fuzz/` do with their input. Here, so that a test can replay their seeds without a fuzzer.
//!
//! Each panics if a promise of this crate does not hold. Inputs are arbitrary bytes.

mod blocks;
mod filters;
mod input;
mod model;
#[cfg(test)]
mod tests;
mod walks;

/// What a target does with an input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also that of its directory of seeds, and its body.
pub const TARGETS: &[(&str, Body)] = &[
    ("walk_any", walks::any),
    ("walk_damaged", walks::damaged),
    ("walk_search", walks::search),
    ("walk_index", blocks::index),
    ("block_any", blocks::any),
    ("block_round_trip", blocks::round_trip),
    ("filter_substring", filters::substring),
    ("filter_pcre", filters::pcre),
];

/// Runs the target of this name; nothing happens if there is none.
pub fn run(name: &str, data: &[u8]) {
    if let Some((_, target)) = TARGETS.iter().find(|(target, _)| *target == name) {
        target(data);
    }
}
