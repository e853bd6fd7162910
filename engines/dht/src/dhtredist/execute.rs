//! Sends the requests, waits until all nodes are done, and looks whether they are.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use overstory_client::{DhtClient, Error};
use overstory_swarm::key::HashRange;
use tokio::time::{Instant, sleep};

use super::plan::{self, Assignment, NodeState};
use super::progress::Progress;

/// The wait before a request that failed is sent again, as the published tool has it.
const RETRY: Duration = Duration::from_secs(2);
/// How long a node may be away, or refuse, before this gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries a plan out.
///
/// Nodes that only gain come first: they have nothing to send, and must take records when the others begin. Those work
/// at the same time.
pub(super) async fn run(client: &DhtClient, plan: &[Assignment], nodes: &[NodeState]) -> anyhow::Result<()> {
    let progress = Arc::new(Progress::new(client, plan, nodes).await);
    let gains = |assignment: &&Assignment| {
        let before = plan::range_of(nodes, assignment.node);
        before.is_empty() || (before != assignment.range && plan::overlap(before, assignment.range) >= 1.0)
    };
    for assignment in plan.iter().filter(gains) {
        let before = plan::range_of(nodes, assignment.node);
        one(client, plan, *assignment, before, &progress).await?;
    }
    let rest = plan
        .iter()
        .filter(|assignment| !gains(assignment))
        .map(|assignment| one(client, plan, *assignment, plan::range_of(nodes, assignment.node), &progress));
    let work = futures(rest.collect());
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = sleep(Duration::from_secs(1)) => progress.show(client).await,
        }
    };
    progress.clear();
    outcome?;
    verify(client, plan).await
}

/// Waits for all, or for the first that fails.
async fn futures<F: Future<Output = anyhow::Result<()>>>(all: Vec<F>) -> anyhow::Result<()> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut failed = None;
        all.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(outcome) => {
                failed = failed.take().or(outcome.err());
                false
            }
        });
        match failed {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None if all.is_empty() => std::task::Poll::Ready(Ok(())),
            None => std::task::Poll::Pending,
        }
    })
    .await
}

/// Has one node take its new range and send the rest away; again when that fails.
async fn one(
    client: &DhtClient,
    plan: &[Assignment],
    assignment: Assignment,
    before: HashRange,
    progress: &Progress,
) -> anyhow::Result<()> {
    let Assignment { node, range } = assignment;
    // All others, not only those of this node's old range: what an interrupted run left behind goes too.
    let others: Vec<(SocketAddrV4, HashRange)> = plan
        .iter()
        .filter(|other| other.node != node && !other.range.is_empty())
        .map(|other| (other.node, other.range))
        .collect();
    let mut trouble: Option<(String, Instant)> = None;
    loop {
        let error = match client.redistribute(node, range, &others).await {
            Ok(()) => {
                progress.node_done(node, before != range);
                return Ok(());
            }
            Err(error) => error,
        };
        // The node may be at it already: then it refuses a second request until it is done.
        let busy = matches!(error, Error::Node { .. })
            && client.responsible_range(node).await.is_ok_and(|now| now == range && before != range);
        let text = if busy { format!("{node}: is moving records already; waiting for it") } else { error.to_string() };
        let since = match &trouble {
            Some((last, since)) if *last == text => *since,
            _ => {
                progress.say(&text);
                Instant::now()
            }
        };
        if !error.is_retryable() || (!busy && since.elapsed() > PATIENCE) {
            return Err(error).context("a node does not take its new range");
        }
        trouble = Some((text, since));
        sleep(RETRY).await;
    }
}

/// Looks whether every node has the range it was to have.
async fn verify(client: &DhtClient, plan: &[Assignment]) -> anyhow::Result<()> {
    for assignment in plan {
        let now = client.responsible_range(assignment.node).await?;
        if now != assignment.range {
            bail!("{} has the range {}, and not the planned one", assignment.node, super::show(now));
        }
    }
    println!("\nrecords of the nodes now:");
    for size in client.sizes().await? {
        println!("  {} {} records", size.node, size.records);
    }
    Ok(())
}
