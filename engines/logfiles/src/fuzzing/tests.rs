//! Replays the seeds of the fuzz targets, so that what a fuzzer once found stays found on every toolchain.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;

use super::TARGETS;

proptest! {
    /// Mostly small numbers, so that lengths are sometimes right.
    #[test]
    fn bytes_that_nobody_has_made_on_purpose_keep_every_promise(
        data in vec(prop_oneof![6 => Just(0_u8), 3 => 1_u8..40, 2 => any::<u8>()], 0..400)
    ) {
        // Patterns take long: they have tests of their own.
        TARGETS.iter().filter(|(name, _)| *name != "filter_pcre").for_each(|(_, target)| target(&data));
    }
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect()
}

#[test]
fn every_seed_keeps_every_promise() {
    for (name, target) in TARGETS {
        let seeds = fuzz().join("seeds").join(name);
        let files = names(&seeds);
        assert!(files.len() >= 5, "{name} has {} seeds", files.len());
        for file in files {
            let data = fs::read(seeds.join(&file)).expect("a seed");
            let result = std::panic::catch_unwind(|| target(&data));
            assert!(result.is_ok(), "{name}/{file}");
        }
    }
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("seeds")), targets);
    let programs: BTreeSet<_> = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), programs);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("the manifest of the fuzz targets");
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in the manifest");
    }
}
