//! Fuzzes `overstory_swarm::fuzzing`'s target of this name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| overstory_swarm::fuzzing::run("neo_dls", data));
