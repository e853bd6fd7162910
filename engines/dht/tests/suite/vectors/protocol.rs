//! What of the dht's protocol a replay has to know.

use overstory_dht::engine::DhtEngine;
use overstory_replay::client::{NeoClient, message};
use overstory_replay::recording::neo_message;
use overstory_replay::replay::{Aside, Batches, Iteration, Unit};
use overstory_replay::{Line, Node, Protocol};
use overstory_swarm::key::Key;
use overstory_swarm::legacy::dht::code as legacy;
use overstory_swarm::neo::dht::{Request as Neo, code};

use super::records::{Form, records_of};

pub(crate) enum Dht {}

impl Protocol for Dht {
    type Engine = DhtEngine;

    fn legacy_unit(code: i32, unit: usize) -> Unit {
        match (code, unit) {
            (legacy::GET_ALL | legacy::GET_ALL_FILTER, 1..) => Unit::Batches(|batch| records_of(batch, Form::Pairs)),
            (legacy::GET_ALL_KEYS, 1..) => Unit::Batches(|batch| records_of(batch, Form::Keys)),
            // A number of bytes, which has the recorded node's memory overhead in it.
            (legacy::GET_SIZE | legacy::GET_CHANNEL_SIZE, 4) => Unit::Own,
            _ => Unit::Exact,
        }
    }

    fn batches(payload: &[u8]) -> Option<Batches> {
        match Neo::decode(payload[0], &payload[2..]) {
            Ok(Neo::GetAll(get)) => Some(Batches {
                type_byte: 7,
                read: match get.keys_only {
                    true => |array| records_of(&array[8..], Form::Keys),
                    false => |array| records_of(&array[8..], Form::Pairs),
                },
                end: Some(8),
                iteration: Some(Iteration {
                    channel: String::from_utf8_lossy(get.channel).into_owned(),
                    after: get.after.map(|key| key.0.to_le_bytes().to_vec()),
                    whole: !get.keys_only && get.filter.is_empty(),
                }),
            }),
            Ok(Neo::Mirror { .. }) => Some(Batches {
                type_byte: 9,
                read: |array| records_of(&array[8..], Form::Refresh),
                end: None,
                iteration: None,
            }),
            _ => None,
        }
    }

    /// A control that the client sends on seeing Started has to come before the iteration is over. Whether it does is
    /// a matter of microseconds, so it is sent along with the request.
    fn sent_along<'a>(lines: &'a [Line], request: &Line) -> Option<&'a Line> {
        control_after_started(lines, request)
    }

    fn left_out(note: &str) -> Option<(usize, u8)> {
        let count = note.strip_prefix("(here followed ")?.split(' ').next()?;
        Some((count.parse().unwrap(), 7))
    }

    fn aside(node: &Node<DhtEngine>, line: &Line) -> Aside {
        assert!(line.note.contains("meanwhile 263144 Puts"), "line {}: {}", line.number, line.note);
        put_many(node);
        Aside::Done
    }
}

/// The control that follows when a GetAll that is not suspended has started, if there is one.
fn control_after_started<'a>(lines: &'a [Line], request: &Line) -> Option<&'a Line> {
    let (_, payload) = neo_message(&request.bytes)?;
    if payload.len() < 3 || payload[0] != code::GET_ALL || payload[2] != 0 {
        return None;
    }
    let mut next = lines.iter().skip(request.number).filter(|line| line.conn == request.conn);
    let (supported, started, control) = (next.next()?, next.next()?, next.next()?);
    assert!(!supported.from_client && !started.from_client);
    let is_control = control.from_client && matches!(neo_message(&control.bytes), Some((_, [1..=3])));
    is_control.then_some(control)
}

/// The puts that fill the queue of a Mirror.
fn put_many(node: &Node<DhtEngine>) {
    let mut client = NeoClient::open(node, "test");
    let mut sent = 0u64;
    while sent < 263_144 {
        let burst = (263_144 - sent).min(2000);
        let mut bytes = Vec::new();
        for number in sent..sent + burst {
            let key = Key(number % 1000);
            let value = format!("v{}", key.0 % 10);
            let mut payload = Vec::new();
            Neo::Put { channel: b"of", key, value: value.as_bytes() }.encode(&mut payload);
            bytes.extend(message(number + 1, &payload));
        }
        client.connection.send(&bytes);
        for number in sent..sent + burst {
            assert_eq!((client.read(number + 1), client.read(number + 1)), (vec![0xfd], vec![1]));
        }
        sent += burst;
    }
}
