//! Every recorded conversation of a dht node, played against this one.
//!
//! What the node sends must be what was recorded, byte for byte, with the exceptions of the recordings' README: order
//! of an iteration, compression, limits of batches, byte counts of sizes, nonces. Whatever differs otherwise differs on
//! purpose and stands in [`DIFFERENCES`] with the reason.

mod protocol;
mod records;

use overstory_replay::{Difference, Ours, Recording, Replay};
use overstory_swarm::key::HashRange;

use crate::rig::{Node, Setup};
use protocol::Dht;
use records::{batched_records, stored_before, with_target_port};

const BAD_NAME: &str = "neo names are checked: ../x would be a path outside of the data directory";
const READ_CREATES: &str = "a read creates no channel";
const TOO_LONG: &str = "an array over 10 MiB ends the connection at once instead of after its last byte";

const DIFFERENCES: &[Difference] = &[
    Difference::new("dht-neo-edge", 9, Ours::Payload(&[3]), "an empty value is refused"),
    Difference::new(
        "dht-neo-edge",
        12,
        Ours::Sends(&[1]),
        "there is no empty value, so the Get is answered: no record",
    ),
    Difference::new("dht-neo-edge", 15, Ours::Payload(&[2]), "there is no empty value: no record"),
    Difference::new("dht-neo-edge", 25, Ours::Payload(&[3]), BAD_NAME),
    Difference::new("dht-neo-edge", 28, Ours::Payload(&[3]), BAD_NAME),
    Difference::new("dht-neo-edge", 31, Ours::Payload(&[3]), BAD_NAME),
    Difference::new("dht-neo-edge", 40, Ours::Sends(&[3]), "a request that is cut short is answered: error"),
    Difference::new("dht-neo-remove-channel", 30, Ours::Sends(&[2]), "a client that may not is told so"),
    Difference::new("dht-neo-put-get", 51, Ours::Absent, READ_CREATES),
    Difference::new("dht-neo-put-get", 52, Ours::Absent, READ_CREATES),
    Difference::new("dht-neo-put-get", 53, Ours::Absent, READ_CREATES),
    Difference::new(
        "dht-neo-getall-late-control",
        19,
        Ours::Silent,
        "a late message to a request that is over is dropped: it must not end the other requests of the connection",
    ),
    Difference::new("dht-legacy-errors", 106, Ours::Closes, TOO_LONG),
    Difference::new("dht-legacy-errors", 108, Ours::Closes, TOO_LONG),
    Difference::new("dht-legacy-size-limit", 11, Ours::Any, "this node's records take less memory: more of them fit"),
];

/// The files, and what their node was told to do otherwise than the others.
fn setup(name: &str) -> Setup {
    let half = HashRange::new(0, 0x7fff_ffff_ffff_ffff).unwrap();
    let default = Setup::default();
    match name {
        "dht-legacy-wrong-node" | "dht-neo-wrong-node" => Setup { range: half, ..default },
        "dht-legacy-value-too-big" => Setup { range: half, batch_size: 1024, ..default },
        "dht-legacy-size-limit" => Setup { size_limit: 3_000_000, ..default },
        _ => default,
    }
}

fn play(name: &str) {
    let recording = Recording::read(name);
    let node = Node::start(Setup { records: stored_before(&recording), ..setup(name) });
    if name == "dht-legacy-size-limit" {
        fill(&node);
    }
    Replay::<Dht>::new(&node, &recording, DIFFERENCES).run();
}

/// Puts values of 60,000 bytes, and then of 30,000, until there is no room for another, wherever its key would lie.
fn fill(node: &Node) {
    node.with(|engine| {
        let mut store = engine.store().borrow_mut();
        for length in [60_000, 30_000] {
            for key in 1000..2000 {
                let _ = store.put("c", overstory_swarm::key::Key(key), &vec![b'x'; length]);
            }
        }
    });
}

macro_rules! play {
    ($($test:ident $file:literal)*) => {
        $(#[test] fn $test() { play($file); })*

        /// What is played by other tests than the ones above.
        const ELSEWHERE: &[&str] = &["dht-redistribute", "dht-redistribute-node-to-node"];

        #[test]
        fn every_recording_of_a_dht_is_played() {
            let played = [$($file),*];
            for name in Recording::names() {
                let ours = name.starts_with("dht-") || name.starts_with("client-dht-");
                let known = played.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
                assert!(!ours || known, "{name} is not played");
            }
            for difference in DIFFERENCES {
                assert!(played.contains(&difference.file), "{} is not played", difference.file);
            }
        }
    };
}

play! {
    client_legacy_listen "client-dht-legacy-listen"
    client_legacy_put_get "client-dht-legacy-put-get"
    client_neo_get "client-dht-neo-get"
    client_neo_get_all "client-dht-neo-getall"
    client_neo_put "client-dht-neo-put"
    legacy_channels "dht-legacy-channels"
    legacy_errors "dht-legacy-errors"
    legacy_get_all "dht-legacy-getall"
    legacy_get_all_batches "dht-legacy-getall-batches"
    legacy_get_all_mixed "dht-legacy-getall-mixed"
    legacy_handshake "dht-legacy-handshake"
    legacy_listen "dht-legacy-listen"
    legacy_put_batch "dht-legacy-putbatch"
    legacy_put_batch_malformed "dht-legacy-putbatch-malformed"
    legacy_put_get "dht-legacy-put-get"
    legacy_size_limit "dht-legacy-size-limit"
    legacy_value_too_big "dht-legacy-value-too-big"
    legacy_wrong_node "dht-legacy-wrong-node"
    neo_connect "dht-neo-connect"
    neo_edge "dht-neo-edge"
    neo_get_all "dht-neo-getall"
    neo_get_all_control "dht-neo-getall-control"
    neo_get_all_late_control "dht-neo-getall-late-control"
    neo_mirror "dht-neo-mirror"
    neo_mirror_overflow "dht-neo-mirror-overflow"
    neo_mirror_refresh_batches "dht-neo-mirror-refresh-batches"
    neo_put_get "dht-neo-put-get"
    neo_remove_channel "dht-neo-remove-channel"
    neo_unsupported "dht-neo-unsupported"
    neo_update "dht-neo-update"
    neo_wrong_node "dht-neo-wrong-node"
}

/// Both sides of the recorded redistribution: what the clients saw, and what the other node was sent.
#[test]
fn redistribution_moves_what_was_recorded() {
    let upper = HashRange::new(0x8000_0000_0000_0000, u64::MAX).unwrap();
    let other = Node::start(Setup { range: upper, ..Setup::default() });
    let node = Node::start(Setup::default());
    let recording = with_target_port(Recording::read("dht-redistribute"), other.legacy.port());
    Replay::<Dht>::new(&node, &recording, &[]).run();
    let sent = batched_records(&Recording::read("dht-redistribute-node-to-node"));
    assert_eq!(other.records("re"), sent);

    let fresh = Node::start(Setup { range: upper, ..Setup::default() });
    Replay::<Dht>::new(&fresh, &Recording::read("dht-redistribute-node-to-node"), &[]).run();
    assert_eq!(fresh.records("re"), sent);
}
