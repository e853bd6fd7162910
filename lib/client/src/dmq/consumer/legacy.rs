//! A Consume by legacy: the node sends what it has, and knows nothing of what was taken over.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::legacy::dmq::Request;
use overstory_swarm::legacy::{Limits, Need, ProtocolError, reply};
use tokio::sync::watch;

use super::{Batch, Delivery, Ended, Message, Sender};
use crate::config::ClientConfig;
use crate::error::Error;
use crate::legacy::{Lease, Limit, Pool};
use crate::stream::Want;

/// How long what a node has sent is waited for after a stop.
const REST: Duration = Duration::from_secs(2);

/// What is consumed where.
pub(super) struct Source {
    /// A connection of its own: a Consume takes it for as long as it runs.
    pool: Arc<Pool>,
    first: Duration,
    channel: String,
}

/// The values that have arrived, and whether the list ends behind them.
struct Values {
    plain: Vec<u8>,
    over: bool,
}

impl Source {
    pub(super) fn new(node: SocketAddrV4, config: &ClientConfig, channel: &str) -> Self {
        let pool = Pool::new(node, 1, 1, config.connect_timeout);
        Self { pool, first: config.request_timeout, channel: channel.to_owned() }
    }

    async fn serve(
        &self,
        tx: &Sender,
        control: &mut watch::Receiver<Want>,
        mut begun: impl FnMut() + Send,
    ) -> Result<Ended, Error> {
        let node = self.pool.node();
        let request = Request::Consume { channel: self.channel.as_bytes() };
        let mut lease = tokio::select! {
            lease = self.pool.send(&request, Limit::within(self.first)) => lease?,
            () = tx.closed() => return Ok(Ended::Complete),
            _ = control.wait_for(|want| *want == Want::Stop) => return Ok(Ended::Complete),
        };
        begun();
        loop {
            let want = *control.borrow_and_update();
            if want == Want::Stop {
                return self.rest(lease, tx).await;
            }
            let values = tokio::select! {
                // Suspended: nothing is read, so the node stops when the system's buffers are full.
                values = lease.read(Limit::None, whole), if want == Want::Run => values?,
                Ok(()) = control.changed() => continue,
                () = tx.closed() => return Ok(Ended::Complete),
            };
            if !deliver(node, values.plain, tx).await? {
                return Ok(Ended::Complete);
            }
            if values.over {
                lease.finish();
                let delivery = Ok(Delivery::ChannelRemoved { node });
                let _ = tx.send(Message { delivery, taken: None }).await;
                return Ok(Ended::Complete);
            }
        }
    }

    /// Delivers what the node had sent when it was stopped. The protocol has no Stop: the node sees that nothing more
    /// will be said to it, and closes.
    async fn rest(&self, mut lease: Lease, tx: &Sender) -> Result<Ended, Error> {
        lease.end_sending().await?;
        while let Ok(values) = lease.read(Limit::Each(REST), whole).await {
            if !deliver(self.pool.node(), values.plain, tx).await? || values.over {
                break;
            }
        }
        Ok(Ended::Complete)
    }
}

impl super::Source for Source {
    async fn consume(&self, tx: &Sender, control: &mut watch::Receiver<Want>, begun: impl FnMut() + Send) -> Ended {
        match self.serve(tx, control, begun).await {
            Ok(ended) => ended,
            Err(error @ (Error::Broken { .. } | Error::Connect { .. } | Error::Timeout { .. })) => Ended::Broken(error),
            Err(error @ (Error::OtherProtocol { .. } | Error::Protocol { .. })) => Ended::Broken(error),
            Err(error) => Ended::Refused(error),
        }
    }
}

/// Hands values over; false if nobody wants them.
async fn deliver(node: SocketAddrV4, plain: Vec<u8>, tx: &Sender) -> Result<bool, Error> {
    if plain.is_empty() {
        return Ok(true);
    }
    let batch = Batch::new(node, plain).map_err(|what| Error::protocol(node, what))?;
    Ok(tx.send(Message { delivery: Ok(Delivery::Records(batch)), taken: None }).await.is_ok())
}

/// Takes all values that have arrived as a whole; waits for one.
fn whole(input: &[u8]) -> Result<Need<Values>, ProtocolError> {
    let (mut at, mut end) = (0, 0);
    let over = loop {
        match reply::item(input.get(at..).unwrap_or_default(), &Limits::DEFAULT)? {
            Need::More(need) if at == 0 => return Ok(Need::More(need)),
            Need::More(_) => break false,
            Need::Done { value, consumed } => {
                at += consumed;
                if value.is_none() {
                    break true;
                }
                end = at;
            }
        }
    };
    let plain = input.get(..end).unwrap_or_default().to_vec();
    Ok(Need::Done { value: Values { plain, over }, consumed: at })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use overstory_swarm::wire::{put_array, put_end};

    use super::*;

    #[test]
    fn whole_values_are_taken_together_and_the_rest_waits() {
        let mut input = Vec::new();
        put_array(&mut input, b"one");
        put_array(&mut input, b"two");
        let both = input.clone();
        put_array(&mut input, b"three");
        for cut in 0..input.len() {
            let whole = whole(&input[..cut]).unwrap();
            match whole {
                Need::More(need) => assert!(cut < 11 && need > cut),
                Need::Done { value, consumed } => {
                    assert!(!value.over && value.plain.len() == consumed && consumed <= cut);
                    assert_eq!(consumed, if cut < both.len() { 11 } else { both.len() });
                }
            }
        }
        input.truncate(both.len());
        put_end(&mut input);
        input.extend_from_slice(b"more");
        let Need::Done { value, consumed } = whole(&input).unwrap() else { panic!("whole") };
        assert!(value.over && value.plain == both && consumed == both.len() + 8);
    }
}
