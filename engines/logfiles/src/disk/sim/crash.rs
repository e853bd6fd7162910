//! What a power cut leaves.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::world::{Content, PAGE, SECTOR, World};

/// What becomes of that which was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// All of it is lost.
    Loses,
    /// All of it is there.
    Keeps,
    /// Each page or sector, length and change of names for itself is there or not, by the seed: a page that is not has
    /// what was durable, or zeros.
    Any,
}

impl Crash {
    fn keeps(self, random: &mut StdRng) -> bool {
        match self {
            Self::Loses => false,
            Self::Keeps => true,
            Self::Any => random.random_bool(0.5),
        }
    }
}

impl World {
    pub(super) fn crash(&mut self, crash: Crash, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        self.rest();
        let mut lost = Vec::new();
        for op in std::mem::take(&mut self.pending) {
            // What builds on a change that is lost is lost with it.
            if lost.iter().any(|before| op.shares_a_name(before)) || !crash.keeps(&mut random) {
                lost.push(op);
            } else {
                self.make_durable(op);
            }
        }
        let mut inos: Vec<_> = self.nodes.keys().copied().collect();
        inos.sort_unstable();
        for ino in inos {
            let Some(node) = self.nodes.get_mut(&ino) else { continue };
            match &mut node.content {
                Content::Dir { live, durable, durable_changed } => {
                    live.clone_from(durable);
                    node.changed = *durable_changed;
                }
                Content::File { live, durable, dirty } => {
                    let (low, high) = (live.len().min(durable.len()), live.len().max(durable.len()));
                    let length = match crash {
                        Crash::Loses => durable.len(),
                        Crash::Keeps => live.len(),
                        Crash::Any => match random.random_range(0..4) {
                            0 => low,
                            1 => high,
                            _ => random.random_range(low..=high),
                        },
                    };
                    let mut content = durable.clone();
                    content.resize(high, 0);
                    for page in std::mem::take(dirty) {
                        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(live.len()));
                        // Now and then only a part of a page is written.
                        let is_torn = crash == Crash::Any && random.random_range(0..4) == 0;
                        let part = if is_torn { SECTOR } else { PAGE };
                        for start in (start..end).step_by(part) {
                            let end = end.min(start + part);
                            if crash.keeps(&mut random) {
                                content[start..end].copy_from_slice(&live[start..end]);
                            }
                        }
                    }
                    content.truncate(length);
                    durable.clone_from(&content);
                    *live = content;
                }
            }
        }
        self.sweep();
    }

    /// Forgets what no name leads to.
    fn sweep(&mut self) {
        let mut reached = std::collections::HashSet::new();
        let mut todo = vec![0];
        while let Some(ino) = todo.pop() {
            if reached.insert(ino)
                && let Some(Content::Dir { live, .. }) = self.nodes.get(&ino).map(|node| &node.content)
            {
                todo.extend(live.values());
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
    }
}
