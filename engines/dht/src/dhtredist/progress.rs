//! The progress bar of a redistribution, on a terminal only.

use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use overstory_client::DhtClient;
use overstory_runtime::terminal::stderr_is_terminal;

use super::plan::{self, Assignment, NodeState};

/// Characters of the bar.
const BAR: usize = 30;

/// What a node is expected to send away.
#[derive(Debug, Clone, Copy)]
struct Share {
    node: SocketAddrV4,
    before: u64,
    leaves: u64,
}

/// How far the redistribution is, judged by how many records the nodes have.
#[derive(Debug)]
pub(super) struct Progress {
    shares: Vec<Share>,
    total: u64,
    shown: AtomicU64,
    done: Mutex<Vec<SocketAddrV4>>,
    terminal: bool,
}

impl Progress {
    /// Asks the nodes how much they have. Without an answer there is no bar; nothing else depends on it.
    pub(super) async fn new(client: &DhtClient, plan: &[Assignment], nodes: &[NodeState]) -> Self {
        let sizes = client.sizes().await.unwrap_or_default();
        let shares: Vec<Share> = sizes
            .into_iter()
            .map(|size| {
                let range = plan::range_of(nodes, size.node);
                let target = plan.iter().find(|assignment| assignment.node == size.node);
                let stays = target.map_or(1.0, |assignment| plan::overlap(range, assignment.range));
                Share { node: size.node, before: size.records, leaves: portion(size.records, 1.0 - stays) }
            })
            .collect();
        let total = shares.iter().map(|share| share.leaves).sum();
        let terminal = stderr_is_terminal();
        Self { shares, total, shown: AtomicU64::new(0), done: Mutex::default(), terminal }
    }

    /// Draws the bar anew.
    pub(super) async fn show(&self, client: &DhtClient) {
        if !self.terminal || self.total == 0 {
            return;
        }
        let Ok(sizes) = client.sizes().await else { return };
        let done = self.done.lock().map(|done| done.clone()).unwrap_or_default();
        let mut moved = 0;
        let mut nodes = String::new();
        for share in self.shares.iter().filter(|share| share.leaves > 0) {
            let now = sizes.iter().find(|size| size.node == share.node).map_or(share.before, |size| size.records);
            let gone = if done.contains(&share.node) {
                share.leaves
            } else {
                share.before.saturating_sub(now).min(share.leaves)
            };
            moved += gone;
            nodes.push_str(&format!("  {} {} left", share.node, share.leaves - gone));
        }
        // New records come meanwhile: the bar never goes back.
        let moved = self.shown.fetch_max(moved, Ordering::Relaxed).max(moved);
        eprint!("\r\x1b[K{}{nodes}", bar(moved, self.total));
        let _ = io::stderr().flush();
    }

    /// Says something in a line of its own.
    pub(super) fn say(&self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    /// Notes that a node has its range and nothing left to send.
    pub(super) fn node_done(&self, node: SocketAddrV4, changed: bool) {
        if let Ok(mut done) = self.done.lock() {
            done.push(node);
        }
        self.clear();
        println!("{node}: {}", if changed { "done" } else { "done, its range is unchanged" });
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// The bar and its figures.
pub(super) fn bar(moved: u64, total: u64) -> String {
    let total = total.max(1);
    let moved = moved.min(total);
    let part = usize::try_from(u128::from(moved) * BAR as u128 / u128::from(total)).unwrap_or(BAR);
    let percent = u128::from(moved) * 100 / u128::from(total);
    format!("[{}{}] {percent:>3} % {moved} of about {total} records", "#".repeat(part), ".".repeat(BAR - part))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn portion(records: u64, share: f64) -> u64 {
    (records as f64 * share.clamp(0.0, 1.0)).round() as u64
}
