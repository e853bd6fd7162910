//! Nothing is lost and nothing counts twice, whatever is killed.

use std::time::Duration;

use overstory_amqp::Outgoing;
use overstory_testkit::broker::PrivateBroker;

use crate::rig::{Rig, check, message, wait_for};

const EVENTS: usize = 20_000;
const ENTITIES: usize = 100;
const PER_ENTITY: usize = EVENTS / ENTITIES;

/// Event `n`: entity `n % ENTITIES`, whose states go 1, 2, 3, 1, ... so that each event adds one step.
fn event(n: usize) -> Outgoing {
    message(&check(&format!("r{}", n % ENTITIES), state(n / ENTITIES)))
}

fn state(turn: usize) -> u8 {
    [1, 2, 3][turn % 3]
}

/// 20,000 numbered events while the engines are killed five times and the broker is stopped once and killed once.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_take_effect_once_each() {
    let broker = PrivateBroker::start().unwrap();
    let rig = Rig::new(broker.vhost().unwrap());
    let mut engines = rig.start(0);
    engines.is_active().await;
    let store = rig.store().await;
    let publish = async {
        for chunk in 0..EVENTS / 200 {
            rig.publish((chunk * 200..(chunk + 1) * 200).map(event).collect()).await;
        }
        rig.spool_is_empty().await;
    };
    let done = async || {
        let counts = (0..ENTITIES).step_by(10);
        let mut sum = 0;
        for n in counts {
            sum += rig.alarm(&store, &format!("r{n}/host1")).await.map_or(0, |alarm| alarm.v.events_count);
        }
        usize::try_from(sum).unwrap() * 10
    };
    let disturb = async {
        for round in 1..=5 {
            // Wherever it is then: reading, deciding, committing, acknowledging.
            wait_for("some progress", async || done().await >= round * EVENTS / 7).await;
            engines.kill();
            match round {
                2 => broker.kill().await.unwrap(),
                4 => broker.stop().await.unwrap(),
                _ => {}
            }
            engines = rig.start(0);
            if round % 2 == 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                broker.start_again().await.unwrap();
            }
        }
        engines
    };
    let ((), engines) = tokio::join!(publish, disturb);
    wait_for("the last event", async || {
        let mut counts = Vec::new();
        for n in 0..ENTITIES {
            counts.push(rig.alarm(&store, &format!("r{n}/host1")).await.map_or(0, |alarm| alarm.v.events_count));
        }
        counts.iter().all(|count| usize::try_from(*count).unwrap() >= PER_ENTITY)
    })
    .await;
    for n in 0..ENTITIES {
        let alarm = rig.alarm(&store, &format!("r{n}/host1")).await.unwrap();
        assert_eq!(usize::try_from(alarm.v.events_count).unwrap(), PER_ENTITY, "r{n}");
        assert_eq!(usize::try_from(alarm.v.total_state_changes).unwrap(), PER_ENTITY, "r{n}");
        assert_eq!(alarm.v.state.val, i64::from(state(PER_ENTITY - 1)), "r{n}");
        let states: Vec<_> = rig
            .steps(&store, &alarm)
            .await
            .iter()
            .filter(|step| step.kind.name().starts_with("state"))
            .map(|step| step.val)
            .collect();
        let expected: Vec<_> = (0..PER_ENTITY).map(|turn| i64::from(state(turn))).collect();
        assert_eq!(states, expected, "r{n}");
    }
    assert_eq!(rig.dead_letters().await.len(), 0, "{}", rig.logs());
    assert_eq!(engines.stop().await, Some(0));
}
