//! What is asked of all nodes by legacy, and is the same for all kinds of nodes.

use std::sync::Arc;

use overstory_swarm::legacy::{Limits, reply};

use super::{Limit, Opening, Pool, keep};
use crate::answers::{Answers, Size, each};
use crate::error::Error;

/// Sends a request whose reply is its status.
pub(crate) async fn done(pool: &Arc<Pool>, request: &impl Opening, limit: Limit) -> Result<(), Error> {
    pool.send(request, limit).await?.finish();
    Ok(())
}

/// Sends a request whose reply is one array.
pub(crate) async fn value(pool: &Arc<Pool>, request: &impl Opening, limit: Limit) -> Result<Vec<u8>, Error> {
    let mut lease = pool.send(request, limit).await?;
    let value = lease.read(limit, |input| Ok(keep(reply::array(input, &Limits::DEFAULT)?, <[u8]>::to_vec))).await?;
    lease.finish();
    Ok(value)
}

/// [`done`] at all nodes.
pub(crate) async fn all_done(pools: &[Arc<Pool>], request: &impl Opening, limit: Limit) -> Answers<()> {
    each(pools.to_vec(), Pool::of, |pool| async move { done(&pool, request, limit).await }).await
}

/// The names that each node lists.
pub(crate) async fn names(pools: &[Arc<Pool>], request: &impl Opening, limit: Limit) -> Answers<Vec<Vec<u8>>> {
    each(pools.to_vec(), Pool::of, |pool| async move {
        let mut lease = pool.send(request, limit).await?;
        let mut names = Vec::new();
        loop {
            let decode =
                |input: &[u8]| Ok(keep(reply::item(input, &Limits::DEFAULT)?, |name| name.map(<[u8]>::to_vec)));
            match lease.read(limit, decode).await? {
                Some(name) => names.push(name),
                None => break,
            }
        }
        lease.finish();
        Ok(names)
    })
    .await
}

/// The sizes that each node tells.
pub(crate) async fn sizes(pools: &[Arc<Pool>], request: &impl Opening, limit: Limit) -> Answers<Size> {
    each(pools.to_vec(), Pool::of, |pool| async move {
        let mut lease = pool.send(request, limit).await?;
        let node = pool.node();
        let decode = |input: &[u8]| {
            let size = reply::size(input, &Limits::DEFAULT)?;
            Ok(keep(size, |size| Size { node, records: size.records, bytes: size.bytes }))
        };
        let size = lease.read(limit, decode).await?;
        lease.finish();
        Ok(size)
    })
    .await
}

/// The number of connections that each node tells.
pub(crate) async fn connections(pools: &[Arc<Pool>], request: &impl Opening, limit: Limit) -> Answers<u64> {
    each(pools.to_vec(), Pool::of, |pool| async move {
        let mut lease = pool.send(request, limit).await?;
        let decode = |input: &[u8]| {
            Ok(keep(reply::connections(input, &Limits::DEFAULT)?, |connections| connections.connections))
        };
        let connections = lease.read(limit, decode).await?;
        lease.finish();
        Ok(connections)
    })
    .await
}
