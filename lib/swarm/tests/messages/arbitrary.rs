//! Bytes that nobody has made on purpose, and requests with a few bytes changed: all that is promised to the fuzz targets
//! holds for them.

use overstory_swarm::fuzzing::TARGETS;
use proptest::collection::vec;
use proptest::prelude::*;

use super::parts::{Lists, parts};

/// Runs the targets that read requests, replies and messages.
fn check(input: &[u8]) {
    let mut found = 0;
    for (name, target) in TARGETS {
        if name.starts_with("legacy_") || (name.starts_with("neo_") && *name != "neo_frame") {
            target(input);
            found += 1;
        }
    }
    assert_eq!(found, 8);
}

/// Mostly small numbers, so that lengths are sometimes right.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![6 => Just(0u8), 3 => 1u8..40, 1 => any::<u8>()], 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_request_or_not(code in 0i32..40, rest in bytes(), raw in vec(any::<u8>(), 0..60)) {
        check(&raw);
        check(&[&code.to_le_bytes()[..], &rest].concat());
        check(&[&[u8::try_from(code).unwrap() % 12][..], &rest].concat());
    }
}

proptest! {
    #[test]
    fn requests_with_changed_bytes_are_requests_or_not(
        parts in parts(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut lists = Lists::default();
        let mut all = Vec::new();
        macro_rules! encoded {
            ($requests:expr) => {
                for request in $requests {
                    let mut bytes = Vec::new();
                    request.encode(&mut bytes);
                    all.push(bytes);
                }
            };
        }
        encoded!(parts.legacy_dht(&mut lists));
        encoded!(parts.legacy_dmq(&mut lists));
        encoded!(parts.legacy_dls(&mut lists));
        encoded!(parts.neo_dht());
        encoded!(parts.neo_dmq(&mut lists));
        encoded!(parts.neo_dls());
        for bytes in &mut all {
            for (index, byte) in &changes {
                let length = bytes.len();
                bytes[index.index(length)] = *byte;
            }
            check(bytes);
        }
    }
}
