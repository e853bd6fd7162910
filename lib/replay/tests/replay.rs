//! A replay fails where it has to.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use overstory_node::engine::{Begun, Engine, LegacyStep, NeoRequest, Peer, Support};
use overstory_node::stats::{NodeStats, RequestSpec};
use overstory_node::wake::Waker;
use overstory_replay::replay::Unit;
use overstory_replay::{Difference, Host, Line, Node, Ours, Protocol, Recording, Replay};
use overstory_runtime::Shutdown;
use overstory_swarm::neo::Replies;

/// Answers each legacy code with the next one; 9 ends the connection, 8 is not answered.
struct Next;

impl Engine for Next {
    const LEGACY_REQUESTS: &'static [RequestSpec] = &[];
    const NEO_REQUESTS: &'static [RequestSpec] = &[];
    const ACTIONS: &'static [&'static str] = &[];

    fn legacy(&self, _: &Peer, _: &Waker, input: &[u8], out: &mut Vec<u8>) -> LegacyStep {
        let Some(code) = input.first_chunk().map(|code| i32::from_le_bytes(*code)) else { return LegacyStep::Need(4) };
        if code == 9 {
            return LegacyStep::Close { reason: "nine" };
        }
        if code != 8 {
            out.extend((code + 1).to_le_bytes());
        }
        LegacyStep::Done { consumed: 4, request: 0 }
    }

    fn supports(&self, _: u8, _: u8) -> Support {
        Support::UnknownCode
    }

    fn neo(&self, _: NeoRequest<'_>, _: &mut Replies<'_>) -> Begun {
        Begun::Done
    }
}

struct Start;

impl Host for Start {
    type Engine = Next;

    async fn start(&mut self, _: Rc<NodeStats>, _: Shutdown) -> Rc<Next> {
        Rc::new(Next)
    }

    async fn stop(self, _: Rc<Next>) {}
}

struct Exact;

impl Protocol for Exact {
    type Engine = Next;
}

struct Loose;

impl Protocol for Loose {
    type Engine = Next;

    fn legacy_unit(code: i32, _: usize) -> Unit {
        if code == 3 { Unit::Own } else { Unit::Exact }
    }
}

/// What one side sent: the client's codes are positive here, the node's negative, and 0 is its event.
fn recording(codes: &[i32], event: &str) -> Recording {
    let line = |(index, code): (usize, &i32)| Line {
        number: index + 1,
        conn: 1,
        neo: false,
        from_client: *code > 0,
        bytes: if *code == 0 { Vec::new() } else { code.abs().to_le_bytes().to_vec() },
        note: event.to_owned(),
    };
    Recording { name: "toy".to_owned(), lines: codes.iter().enumerate().map(line).collect() }
}

fn plays<P: Protocol<Engine = Next>>(recording: &Recording, differences: &[Difference]) -> bool {
    let node = Node::start(Start);
    catch_unwind(AssertUnwindSafe(|| Replay::<P>::new(&node, recording, differences).run())).is_ok()
}

#[test]
fn the_same_bytes_pass_and_others_do_not() {
    assert!(plays::<Exact>(&recording(&[1, -2, 5, -6], ""), &[]));
    assert!(!plays::<Exact>(&recording(&[1, -2, 5, -7], ""), &[]));
    assert!(plays::<Loose>(&recording(&[1, -2, 3, -7], ""), &[]));
    assert!(!plays::<Loose>(&recording(&[1, -3, 3, -7], ""), &[]));
}

#[test]
fn events_have_to_happen() {
    assert!(plays::<Exact>(&recording(&[9, 0], "node closes the connection"), &[]));
    assert!(!plays::<Exact>(&recording(&[1, 0], "node closes the connection"), &[]));
    assert!(plays::<Exact>(&recording(&[8, 0], "nothing for 0.3 s"), &[]));
    assert!(!plays::<Exact>(&recording(&[1, 0], "nothing for 0.3 s"), &[]));
    assert!(!plays::<Exact>(&recording(&[9, 0], "nothing for 0.3 s"), &[]));
}

#[test]
fn a_difference_has_to_be_one() {
    let six = [Difference::new("toy", 4, Ours::Payload(&[6, 0, 0, 0]), "it is so")];
    assert!(plays::<Exact>(&recording(&[1, -2, 5, -7], ""), &six));
    assert!(!plays::<Exact>(&recording(&[1, -2, 5, -6], ""), &six));
    assert!(!plays::<Exact>(&recording(&[1, -2], ""), &six));
    let sends = [Difference::new("toy", 2, Ours::Sends(&[2, 0, 0, 0]), "it answers")];
    assert!(plays::<Exact>(&recording(&[1, 0], "nothing for 0.3 s"), &sends));
    let others = [Difference::new("another file", 1, Ours::Closes, "not played here")];
    assert!(plays::<Exact>(&recording(&[1, -2], ""), &others));
}
