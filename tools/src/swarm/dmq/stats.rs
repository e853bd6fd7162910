//! What there is where.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddrV4;

use overstory_client::{DmqClient, Size};

use crate::swarm::commands::{Out, living};

/// Prints a line per node and channel, and one per node.
pub(super) async fn run(client: &DmqClient, out: &mut Out) -> anyhow::Result<u8> {
    let (channels, mut code) = living(client.channels_by_node().await?);
    let channels: BTreeMap<SocketAddrV4, BTreeSet<String>> =
        channels.into_iter().map(|(node, names)| (node, names.into_iter().collect())).collect();
    // Who is away was named once.
    let there = |node: &SocketAddrV4| channels.contains_key(node);
    let names: BTreeSet<&String> = channels.values().flatten().collect();
    let mut sizes: BTreeMap<(SocketAddrV4, &str), Size> = BTreeMap::new();
    for name in names {
        for (node, size) in client.sizes_by_node(Some(name)).await? {
            match size {
                Ok(size) if channels.get(&node).is_some_and(|names| names.contains(name)) => {
                    sizes.insert((node, name), size);
                }
                Err(error) if there(&node) => {
                    eprintln!("swarm: {error}");
                    code = crate::swarm::FAILED;
                }
                _ => {}
            }
        }
    }
    for ((node, channel), Size { records, bytes, .. }) in sizes {
        writeln!(out, "{node}\t{channel}\t{records}\t{bytes}")?;
    }
    let totals = client.sizes_by_node(None).await?.into_iter().filter(|(node, _)| there(node)).collect();
    let (totals, failed) = living(totals);
    let connections = client.num_connections_by_node().await?.into_iter().filter(|(node, _)| there(node)).collect();
    let (connections, unknown) = living(connections);
    let connections: BTreeMap<SocketAddrV4, u64> = connections.into_iter().collect();
    for (node, Size { records, bytes, .. }) in totals {
        let connections = connections.get(&node).map_or_else(|| "-".to_owned(), u64::to_string);
        writeln!(out, "{node}\t*\t{records}\t{bytes}\t{connections}")?;
    }
    Ok(code.max(failed).max(unknown))
}
