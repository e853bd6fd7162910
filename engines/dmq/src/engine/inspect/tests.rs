use super::*;

fn totals(bytes_memory: u64, limit: u64) -> QueueTotals {
    QueueTotals { bytes_memory, limit, ..QueueTotals::default() }
}

#[test]
fn the_fullest_queues_are_listed_in_their_order() {
    for count in [0, 1, 1999, 2000, 2001, 4000, 9000] {
        let mut fullest = Fullest::default();
        for n in 0..count {
            fullest.add(&format!("q{n:05}"), totals(n * 7919 % 10_007, 10_007));
        }
        let listed = fullest.finish();
        assert!(listed.is_sorted_by_key(|(place, ..)| *place));
        let mut found: Vec<u64> = listed.iter().map(|(_, _, totals)| totals.bytes_memory).collect();
        let mut expected: Vec<u64> = (0..count).map(|n| n * 7919 % 10_007).collect();
        expected.sort_unstable_by_key(|bytes| Reverse((bytes * 100 / 10_007, *bytes)));
        expected.truncate(LISTED);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{count}");
    }
}

#[test]
fn the_default_subscriber_is_shown_as_its_channel() {
    assert_eq!((shown("@topic"), shown("sub1@topic"), shown("plain")), ("topic", "sub1@topic", "plain"));
}

fn found(picture: &Picture, thresholds: &Thresholds) -> Vec<(State, String)> {
    let mut findings = Vec::new();
    fullness(picture, thresholds, &mut findings);
    waiting(picture, thresholds, &mut findings);
    findings.into_iter().map(|finding| (finding.state, finding.text)).collect()
}

#[test]
fn the_worst_full_queue_decides_and_the_others_are_named() {
    let picture = |percent: f64| Picture {
        fullest: vec![(percent, "@topic".into()), (percent - 5.0, "b".into())],
        ..Picture::default()
    };
    let of = |percent| found(&picture(percent), &Thresholds::default());
    assert_eq!(of(79.9), []);
    assert_eq!(of(80.0), [(State::Minor, "full: topic 80 %".to_owned())]);
    assert_eq!(of(94.0), [(State::Major, "full: topic 94 %, b 89 %".to_owned())]);
    assert_eq!(of(120.0), [(State::Critical, "full: topic 120 %, b 115 %".to_owned())]);
}

#[test]
fn records_that_wait_too_long_are_found_unless_that_is_off() {
    let waiting = vec![(Duration::from_secs(400), "a".into(), 0), (Duration::from_secs(300), "@b".into(), 2)];
    let picture = Picture { waiting, ..Picture::default() };
    let text = "records wait: a 400 s (no consumer), b 300 s (consumers take none)".to_owned();
    assert_eq!(found(&picture, &Thresholds::default()), [(State::Minor, text)]);
    let off = Thresholds { wait_age: None, ..Thresholds::default() };
    assert_eq!(found(&picture, &off), []);
    let longer = Thresholds { wait_age: Some(Duration::from_secs(401)), ..Thresholds::default() };
    assert_eq!(found(&picture, &longer), []);
}
