#![allow(clippy::unwrap_used, reason = "tests")]

use overstory_swarm::key::HashRange;

use super::plan::{self, NodeState};
use super::progress::bar;

fn state(ip: u8, port: u16, min: u64, max: u64) -> NodeState {
    NodeState { node: format!("127.0.0.{ip}:{port}").parse().unwrap(), range: HashRange::new(min, max).unwrap() }
}

fn empty(ip: u8, port: u16) -> NodeState {
    state(ip, port, u64::MAX, 0)
}

const HALF: u64 = 1 << 63;

#[test]
fn ranges_cover_everything_for_any_number_of_nodes() {
    let cases = [HashRange::FULL, HashRange::new(0, HALF - 1).unwrap(), HashRange::new(HALF - 1, u64::MAX).unwrap()];
    for all in cases {
        for count in 1..=300 {
            let ranges = plan::divide(count, all);
            assert_eq!(ranges.len() as u64, count);
            assert_eq!((ranges[0].min(), ranges[ranges.len() - 1].max()), (all.min(), all.max()));
            assert!(ranges.windows(2).all(|pair| pair[0].max() + 1 == pair[1].min()), "{count}");
        }
    }
}

#[test]
fn three_nodes_get_the_published_ranges() {
    let ranges: Vec<_> = plan::divide(3, HashRange::FULL).iter().map(|range| (range.min(), range.max())).collect();
    assert_eq!(
        ranges,
        [(0, 0x5555_5555_5555_5555), (0x5555_5555_5555_5556, 0xaaaa_aaaa_aaaa_aaab), (0xaaaa_aaaa_aaaa_aaac, u64::MAX)]
    );
}

#[test]
fn extending_shares_everything_in_the_order_of_the_ranges() {
    let nodes = [empty(1, 3), state(1, 2, HALF, u64::MAX), state(1, 1, 0, HALF - 1)];
    let plan = plan::extend(&nodes).unwrap();
    let ports: Vec<u16> = plan.iter().map(|assignment| assignment.node.port()).collect();
    assert_eq!(ports, [1, 2, 3]);
    assert!(plan::changes(&plan, &nodes));
    // Once carried out, the same command has nothing to do.
    let after: Vec<_> = plan.iter().map(|a| NodeState { node: a.node, range: a.range }).collect();
    assert!(!plan::changes(&plan::extend(&after).unwrap(), &after));
}

#[test]
fn subdividing_halves_each_node_when_new_ones_can_be_dealt_out() {
    let nodes = [state(1, 1, 0, HALF - 1), state(2, 1, HALF, u64::MAX), empty(1, 2), empty(2, 2)];
    let plan = plan::subdivide(&nodes).unwrap();
    let quarter = 1 << 62;
    let range = |ip, port| plan.iter().find(|a| a.node == empty(ip, port).node).unwrap().range;
    assert_eq!(range(1, 1), HashRange::new(0, quarter - 1).unwrap());
    assert_eq!(range(1, 2), HashRange::new(quarter, HALF - 1).unwrap());
    assert_eq!(range(2, 2).max(), u64::MAX);
    // Three nodes for two: the server's range is shared as a whole.
    let nodes = [state(1, 1, 0, HALF - 1), state(1, 2, HALF, u64::MAX), empty(1, 3)];
    assert_eq!(plan::subdivide(&nodes).unwrap(), plan::extend(&nodes).unwrap());
    // Nobody on that server has anything.
    assert!(plan::subdivide(&[state(1, 1, 0, u64::MAX), empty(2, 1)]).is_err());
}

#[test]
fn ranges_that_do_not_fit_together_are_refused() {
    let overlap = [state(1, 1, 0, HALF), state(1, 2, HALF, u64::MAX)];
    let gap = [state(1, 1, 0, 5), state(1, 2, HALF, u64::MAX)];
    for nodes in [overlap, gap] {
        assert!(plan::extend(&nodes).is_err() && plan::subdivide(&nodes).is_err());
    }
}

#[test]
fn a_kept_plan_is_taken_up_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.redistribution");
    assert_eq!(plan::load(&path).unwrap(), None);
    let nodes = [state(1, 1, 0, u64::MAX), empty(1, 2)];
    let made = plan::extend(&nodes).unwrap();
    plan::save(&path, &made).unwrap();
    assert_eq!(plan::load(&path).unwrap(), Some(made.clone()));
    assert!(plan::same_nodes(&made, &nodes) && !plan::same_nodes(&made, &nodes[..1]));
    std::fs::write(&path, "127.0.0.1:1 0x0 0x5\n").unwrap();
    assert!(plan::load(&path).is_err(), "a plan with a gap would lose records");
}

#[test]
fn the_bar_says_how_far_it_is() {
    assert_eq!(bar(0, 0), "[..............................]   0 % 0 of about 1 records");
    assert_eq!(bar(50, 100), "[###############...............]  50 % 50 of about 100 records");
    assert_eq!(bar(500, 100), "[##############################] 100 % 100 of about 100 records");
}
