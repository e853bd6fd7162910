//! What there is where.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddrV4;

use overstory_client::{Answers, DlsClient, DmqClient, Error, Size};

use super::FAILED;
use super::commands::{Out, living};

/// Whoever can be asked what there is where.
pub(super) trait Inventory {
    async fn channels(&self) -> Result<Answers<Vec<String>>, Error>;
    async fn sizes(&self, channel: Option<&str>) -> Result<Answers<Size>, Error>;
    async fn connections(&self) -> Result<Answers<u64>, Error>;
}

macro_rules! inventory {
    ($($client:ty)*) => {$(
        impl Inventory for $client {
            async fn channels(&self) -> Result<Answers<Vec<String>>, Error> {
                self.channels_by_node().await
            }

            async fn sizes(&self, channel: Option<&str>) -> Result<Answers<Size>, Error> {
                self.sizes_by_node(channel).await
            }

            async fn connections(&self) -> Result<Answers<u64>, Error> {
                self.num_connections_by_node().await
            }
        }
    )*};
}

inventory! { DmqClient DlsClient }

/// Prints a line per node and channel, and one per node.
pub(super) async fn run(client: &impl Inventory, out: &mut Out) -> anyhow::Result<u8> {
    let (channels, mut code) = living(client.channels().await?);
    let channels: BTreeMap<SocketAddrV4, BTreeSet<String>> =
        channels.into_iter().map(|(node, names)| (node, names.into_iter().collect())).collect();
    // Who is away was named once.
    let there = |node: &SocketAddrV4| channels.contains_key(node);
    let names: BTreeSet<&String> = channels.values().flatten().collect();
    let mut sizes: BTreeMap<(SocketAddrV4, &str), Size> = BTreeMap::new();
    for name in names {
        for (node, size) in client.sizes(Some(name)).await? {
            match size {
                Ok(size) if channels.get(&node).is_some_and(|names| names.contains(name)) => {
                    sizes.insert((node, name), size);
                }
                Err(error) if there(&node) => {
                    eprintln!("swarm: {error}");
                    code = FAILED;
                }
                _ => {}
            }
        }
    }
    for ((node, channel), Size { records, bytes, .. }) in sizes {
        writeln!(out, "{node}\t{channel}\t{records}\t{bytes}")?;
    }
    let totals = client.sizes(None).await?.into_iter().filter(|(node, _)| there(node)).collect();
    let (totals, failed) = living(totals);
    let connections = client.connections().await?.into_iter().filter(|(node, _)| there(node)).collect();
    let (connections, unknown) = living(connections);
    let connections: BTreeMap<SocketAddrV4, u64> = connections.into_iter().collect();
    for (node, Size { records, bytes, .. }) in totals {
        let connections = connections.get(&node).map_or_else(|| "-".to_owned(), u64::to_string);
        writeln!(out, "{node}\t*\t{records}\t{bytes}\t{connections}")?;
    }
    Ok(code.max(failed).max(unknown))
}
