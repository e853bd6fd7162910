//! Fuzzes `overstory_logfiles::fuzzing`'s target of this name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overstory_logfiles::fuzzing::run("walk_damaged", data));
