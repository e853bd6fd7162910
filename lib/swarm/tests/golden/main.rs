//! Every recorded conversation of the published nodes decodes into what its notes say, and encodes to the same bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod legacy;
mod neo;
mod vectors;

use std::collections::BTreeMap;

use vectors::{Node, Port};

/// What was recognised in a file: legacy requests, parts of legacy replies, neo requests, later neo messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    legacy_requests: usize,
    legacy_parts: usize,
    neo_requests: usize,
    neo_messages: usize,
}

impl Seen {
    fn figures(self) -> [usize; 4] {
        [self.legacy_requests, self.legacy_parts, self.neo_requests, self.neo_messages]
    }
}

fn replay(file: &str, node: Node) -> Seen {
    let mut seen = Seen::default();
    let mut legacy = BTreeMap::new();
    let mut neo = BTreeMap::new();
    for line in vectors::lines(file) {
        match line.port {
            Port::Legacy => {
                let connection = legacy.entry(line.connection).or_insert_with(|| legacy::Connection::new(file, node));
                connection.line(&line, &mut seen);
            }
            Port::Neo => {
                let connection = neo.entry(line.connection).or_insert_with(|| neo::Connection::new(node));
                connection.line(&line, &mut seen);
            }
        }
    }
    legacy.into_values().for_each(|connection| connection.finish());
    neo.into_values().for_each(|connection| connection.finish());
    seen
}

#[test]
fn every_recording_decodes_and_encodes_to_the_same_bytes() {
    let expected: BTreeMap<&str, [usize; 4]> = FILES.iter().copied().collect();
    let found = vectors::files();
    let mut wrong = Vec::new();
    for name in &found {
        let seen = replay(name, Node::of(name)).figures();
        if expected.get(name.as_str()) != Some(&seen) {
            wrong.push(format!("    ({name:?}, {seen:?}),"));
        }
    }
    for name in expected.keys() {
        assert!(found.iter().any(|file| file == name), "{name} is gone");
    }
    assert!(wrong.is_empty(), "not what was recognised so far:\n{}", wrong.join("\n"));
}

/// Every file, with the [figures](Seen::figures) of what is recognised in it. A new recording belongs here.
#[rustfmt::skip]
const FILES: &[(&str, [usize; 4])] = &[
    ("client-dht-legacy-listen", [8, 14, 0, 0]),
    ("client-dht-legacy-put-get", [9, 14, 0, 0]),
    ("client-dht-neo-get", [0, 0, 4, 11]),
    ("client-dht-neo-getall", [0, 0, 2, 7]),
    ("client-dht-neo-put", [0, 0, 4, 8]),
    ("client-dls-legacy-getrange", [8, 10, 0, 0]),
    ("client-dls-legacy-regex-malformed", [1, 1, 0, 0]),
    ("client-dls-neo-getrange", [0, 0, 1, 6]),
    ("client-dls-neo-put", [0, 0, 3, 6]),
    ("client-dmq-neo-consume", [0, 0, 1, 4]),
    ("client-dmq-neo-pop", [0, 0, 2, 4]),
    ("client-dmq-neo-push", [0, 0, 3, 6]),
    ("dht-legacy-channels", [9, 16, 0, 0]),
    ("dht-legacy-errors", [49, 40, 0, 0]),
    ("dht-legacy-getall", [12, 26, 0, 0]),
    ("dht-legacy-getall-batches", [2, 8, 0, 0]),
    ("dht-legacy-getall-mixed", [1, 3, 0, 0]),
    ("dht-legacy-handshake", [2, 4, 0, 0]),
    ("dht-legacy-listen", [9, 16, 0, 0]),
    ("dht-legacy-put-get", [16, 27, 0, 0]),
    ("dht-legacy-putbatch", [6, 8, 0, 0]),
    ("dht-legacy-putbatch-malformed", [3, 0, 0, 0]),
    ("dht-legacy-size-limit", [4, 5, 0, 0]),
    ("dht-legacy-value-too-big", [8, 12, 0, 0]),
    ("dht-legacy-wrong-node", [10, 15, 0, 0]),
    ("dht-neo-connect", [0, 0, 1, 2]),
    ("dht-neo-edge", [0, 0, 12, 24]),
    ("dht-neo-getall", [0, 0, 8, 40]),
    ("dht-neo-getall-control", [0, 0, 5, 30]),
    ("dht-neo-getall-late-control", [0, 0, 2, 8]),
    ("dht-neo-mirror", [2, 2, 19, 66]),
    ("dht-neo-mirror-overflow", [0, 0, 1, 12]),
    ("dht-neo-mirror-refresh-batches", [0, 0, 1, 7]),
    ("dht-neo-put-get", [0, 0, 16, 38]),
    ("dht-neo-remove-channel", [0, 0, 7, 14]),
    ("dht-neo-unsupported", [0, 0, 8, 9]),
    ("dht-neo-update", [0, 0, 15, 42]),
    ("dht-neo-wrong-node", [0, 0, 8, 16]),
    ("dht-redistribute", [10, 13, 2, 6]),
    ("dht-redistribute-node-to-node", [1, 1, 0, 0]),
    ("dls-legacy-channels", [6, 10, 0, 0]),
    ("dls-legacy-errors", [32, 25, 0, 0]),
    ("dls-legacy-filter", [16, 38, 0, 0]),
    ("dls-legacy-getall-batches", [1, 5, 0, 0]),
    ("dls-legacy-put-getrange", [16, 37, 0, 0]),
    ("dls-legacy-putbatch", [4, 6, 0, 0]),
    ("dls-legacy-regex-malformed", [7, 10, 0, 0]),
    ("dls-neo-getrange-batches", [0, 0, 5, 26]),
    ("dls-neo-getrange-errors", [0, 0, 11, 20]),
    ("dls-neo-getrange-filter", [0, 0, 10, 42]),
    ("dls-neo-put-getrange", [0, 0, 8, 28]),
    ("dls-neo-unsupported", [0, 0, 8, 8]),
    ("dls-redistribute", [8, 12, 0, 0]),
    ("dls-redistribute-node-to-node", [3, 3, 0, 0]),
    ("dmq-legacy-consume", [11, 20, 0, 0]),
    ("dmq-legacy-errors", [14, 7, 0, 0]),
    ("dmq-legacy-overflow", [21, 32, 0, 0]),
    ("dmq-legacy-pop-special", [5, 6, 0, 0]),
    ("dmq-legacy-produce", [16, 15, 0, 0]),
    ("dmq-legacy-push-pop", [13, 19, 0, 0]),
    ("dmq-neo-consume", [1, 1, 11, 36]),
    ("dmq-neo-consume-batches", [0, 0, 1, 5]),
    ("dmq-neo-edge", [0, 0, 12, 24]),
    ("dmq-neo-push-pop", [0, 0, 11, 22]),
    ("dmq-neo-subscribers", [1, 2, 10, 38]),
    ("dmq-neo-unsupported", [0, 0, 12, 13]),
    ("neo-auth-rejected", [0, 0, 0, 0]),
    ("neo-protocol-errors", [0, 0, 5, 6]),
];
