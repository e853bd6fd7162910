//! What the node tells of itself to operators.

use std::ops::ControlFlow;
use std::sync::Arc;

use overstory_model::State;
use overstory_node::inspect::{Finding, Inspect};
use overstory_node::stats::Fields;
use overstory_swarm::legacy::Status;

use super::rig::{with_engine, with_range};
use crate::bucket::{BucketNumber, KeyRange};
use crate::engine::Watch;
use crate::read::Told;

fn findings(engine: &impl Inspect) -> Vec<Finding> {
    let mut findings = Vec::new();
    engine.checks(&mut findings);
    // The disk of whoever runs this may be full.
    findings.retain(|finding| finding.check != "disk_free" && finding.check != "open_files");
    findings
}

#[test]
fn the_console_has_what_the_seed_showed() {
    with_range(KeyRange { low: 1, high: 2000 }, async |rig| {
        for key in 1..=20 {
            assert_eq!(rig.put(if key > 5 { "b" } else { "a" }, key, b"123").await, Status::Ok);
        }
        let facts = rig.engine.facts();
        assert_eq!((facts.range, facts.of_timestamps, facts.channels), (Some((1, 2000)), true, 2));
        assert!(facts.memory > 0 && facts.memory < 10 << 20);
        let totals = rig.engine.totals();
        assert_eq!((totals.records, totals.bytes), (20, 60));
        let mut channels = Vec::new();
        rig.engine.channels(None, &mut |name, totals| {
            channels.push((name.to_owned(), totals.records, totals.bytes));
            ControlFlow::Continue(())
        });
        assert_eq!(channels, [("a".to_owned(), 5, 15), ("b".to_owned(), 15, 45)]);
        let mut behind = Vec::new();
        rig.engine.channels(Some("a"), &mut |name, _| {
            behind.push(name.to_owned());
            ControlFlow::Break(())
        });
        assert_eq!(behind, ["b"]);
        let mut lines = Vec::new();
        rig.engine.console(&mut lines);
        assert!(lines[0].starts_with("2 buckets; "), "{lines:?}");
        let mut last = Fields::default();
        rig.engine.last_stats(&mut last);
        let keys: Vec<_> = last.entries().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["open_fds_limit", "open_fds_currently"]);
        let mut gauges = Vec::new();
        rig.engine.gauges(&mut gauges);
        assert!(gauges.iter().any(|gauge| gauge.name == "buckets" && gauge.value == 2));
        assert_eq!(findings(&*rig.engine), []);
    });
}

#[test]
fn damage_is_told_with_file_and_offset_and_the_rest_is_still_read() {
    with_engine(async |rig| {
        for key in 0..30_u64 {
            assert_eq!(rig.put("c", key, format!("value {key:02}").as_bytes()).await, Status::Ok);
        }
        rig.put("c", 0x1000, b"next bucket").await;
        rig.engine.storage().flush().await.unwrap();
        let path = rig.dir.path().join("c").join(BucketNumber::of(0).to_string());
        let mut bytes = std::fs::read(&path).unwrap();
        let offset = 16 + 10 * (17 + 8);
        bytes[offset + 16] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
        let keys: Vec<_> = rig.all("c").await.into_iter().map(|(key, _)| key).collect();
        let expected: Vec<_> = (0..30).filter(|key| *key != 10).chain([0x1000]).collect();
        assert_eq!(keys, expected);
        let found = loop {
            let found = findings(&*rig.engine);
            if !found.is_empty() {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((found.len(), found[0].check, found[0].state), (1, "corruption", State::Major));
        assert!(found[0].text.contains(&format!("c/0000000000/000 at {offset}")), "{}", found[0].text);
    });
}

#[test]
fn answers_with_gaps_are_told_for_a_while() {
    with_engine(async |rig| {
        rig.engine.hear(Told::Undecided { channel: Arc::from("c"), records: 3 });
        rig.engine.hear(Told::Failed { channel: Arc::from("c"), why: "no files left".to_owned() });
        let found: Vec<_> = findings(&*rig.engine).into_iter().map(|finding| (finding.check, finding.state)).collect();
        assert_eq!(found, [("pattern_limit", State::Minor), ("read", State::Major)]);
    });
}

#[test]
fn what_was_wrong_at_the_start_is_told() {
    let watch = Watch::default().problems(vec!["c/0000000000/000 was cut".to_owned(), "another".to_owned()]);
    let mut found = Vec::new();
    watch.findings(&mut found);
    found.retain(|finding| finding.check == "open");
    assert_eq!(found[0].text, "c/0000000000/000 was cut; 1 more, see root.log");
}
