//! Out of the queues.

use std::io::Write as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use overstory_client::DmqClient;
use overstory_client::dmq::Delivery;
use overstory_runtime::program;
use tokio::time::{Instant, sleep_until};

use super::{Consume, Pop};
use crate::swarm::commands::Out;
use crate::swarm::output::Progress;
use crate::swarm::{FAILED, NOT_FOUND};

/// Pops that are under way at a time, by neo: their answers come in order. When standard output goes away no more
/// records than these are lost, so each of them is written before another one is asked for.
const IN_FLIGHT: usize = 64;

/// Pops records and prints them in their order. What was asked for is printed, whatever happens.
pub(super) async fn pop(client: &DmqClient, pop: &Pop, legacy: bool, out: &mut Out) -> anyhow::Result<u8> {
    // Over several connections the order would be lost.
    let in_flight = if legacy { 1 } else { IN_FLIGHT };
    let mut left = if pop.all { u64::MAX } else { pop.number };
    let mut interrupted = pin!(program::interrupted());
    let mut progress = Progress::new(true);
    // Many that wait for a node do not keep their order.
    client.any_ready().await?;
    let (mut running, mut failure) = (FuturesOrdered::new(), None);
    loop {
        while left > 0 && running.len() < in_flight {
            left -= 1;
            running.push_back(client.pop(&pop.channel));
        }
        let mut popped = tokio::select! {
            biased;
            popped = running.next() => popped,
            _ = &mut interrupted, if left > 0 => {
                left = 0;
                continue;
            }
        };
        if popped.is_none() {
            break;
        }
        // This one, and those that are there as well.
        while let Some(answer) = popped {
            match answer {
                Ok(Some(record)) => {
                    pop.records.write(out, &record)?;
                    progress.add(1, record.len() as u64);
                }
                Ok(None) => left = 0,
                Err(error) => {
                    left = 0;
                    failure.get_or_insert(error);
                }
            }
            popped = running.next().now_or_never().flatten();
        }
        out.flush()?;
    }
    progress.clear();
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(if progress.records() == 0 { NOT_FOUND } else { 0 }),
    }
}

/// Prints records as they come. A batch is taken over once all of it is written: an error before that ends the
/// connections without a word, and a node that redelivers has the batch again.
pub(super) async fn consume(client: &DmqClient, consume: &Consume, out: &mut Out) -> anyhow::Result<u8> {
    let mut consumer = client.consume(&consume.channel, &consume.subscriber)?;
    let mut interrupted = pin!(program::interrupted());
    let idle = consume.idle.map(Duration::from_secs);
    let number = consume.number.unwrap_or(u64::MAX);
    let mut progress = Progress::new(true);
    let (mut stopped, mut code) = (false, 0);
    let mut until = idle.map(|idle| Instant::now() + idle);
    loop {
        if progress.records() >= number && !std::mem::replace(&mut stopped, true) {
            consumer.stop();
        }
        let delivery = tokio::select! {
            biased;
            // The user does not wait for a node that says nothing: the second time it is the end.
            _ = &mut interrupted => {
                if std::mem::replace(&mut stopped, true) {
                    return Ok(FAILED);
                }
                consumer.stop();
                interrupted.set(program::interrupted());
                continue;
            }
            delivery = consumer.next() => delivery,
            () = wait(until), if !stopped => {
                stopped = true;
                consumer.stop();
                continue;
            }
        };
        match delivery {
            None => break,
            Some(Ok(Delivery::Records(batch))) => {
                for record in batch.records() {
                    consume.records.write(out, record)?;
                }
                // What is taken over, by the next turn of the loop, has left this process.
                out.flush()?;
                progress.add(batch.len() as u64, batch.bytes() as u64);
                until = idle.map(|idle| Instant::now() + idle);
            }
            Some(Ok(Delivery::Lost { cause, .. })) => {
                progress.clear();
                eprintln!("swarm: {cause}; trying again");
            }
            Some(Ok(Delivery::ChannelRemoved { node })) => {
                progress.clear();
                eprintln!("swarm: {node}: the channel was removed");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                progress.clear();
                eprintln!("swarm: {error}");
                code = FAILED;
            }
        }
    }
    progress.clear();
    if consume.number.is_some() {
        let printed = progress.records();
        let more = if printed > number { ": a batch is taken over as a whole" } else { "" };
        eprintln!("{printed} records printed{more}");
    }
    Ok(code)
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
