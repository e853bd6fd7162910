//! A Consume by neo, on a connection of its own: when that ends, the node knows what was not taken over.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use overstory_swarm::neo::dmq::{ConsumeMessage, Request};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::{Batch, Delivery, Ended, Message, Sender};
use crate::error::Error;
use crate::neo::Identity;
use crate::neo::conn::Conn;
use crate::neo::core::Event;
use crate::stream::Want;

/// Bytes that are read at once: a usual batch.
const READ: usize = 128 << 10;

/// What is consumed where.
pub(super) struct Source {
    pub(super) node: SocketAddrV4,
    pub(super) identity: Identity,
    pub(super) connect_timeout: Duration,
    pub(super) stop_timeout: Duration,
    pub(super) channel: String,
    pub(super) subscriber: String,
}

/// What a turn of the connection has brought.
#[derive(Default)]
struct Arrived {
    started: bool,
    batch: Option<Vec<u8>>,
    end: Option<End>,
    wrong: bool,
}

enum End {
    Stopped,
    Removed,
    Failed,
    Unsupported,
}

impl Arrived {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Item(payload) | Event::Last(payload) => match ConsumeMessage::decode(payload) {
                Ok(ConsumeMessage::Started) => self.started = true,
                Ok(ConsumeMessage::Records(batch)) if self.batch.is_none() => self.batch = Some(batch.to_vec()),
                Ok(ConsumeMessage::ChannelRemoved) => self.end = Some(End::Removed),
                Ok(ConsumeMessage::Error) => self.end = Some(End::Failed),
                _ => self.wrong = true,
            },
            Event::Stopped => self.end = Some(End::Stopped),
            Event::Unsupported => self.end = Some(End::Unsupported),
            Event::Value(_) => self.wrong = true,
        }
    }
}

impl super::Source for Source {
    async fn consume(&self, tx: &Sender, control: &mut watch::Receiver<Want>, begun: impl FnMut() + Send) -> Ended {
        let connecting = Conn::connect(self.node, &self.identity, self.connect_timeout, READ);
        let connected = tokio::select! {
            connected = connecting => connected,
            () = tx.closed() => return Ended::Complete,
            _ = control.wait_for(|want| *want == Want::Stop) => return Ended::Complete,
        };
        let outcome = match connected {
            Ok(conn) => self.serve(conn, tx, control, begun).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(ended) => ended,
            Err(error @ (Error::Rejected { .. } | Error::Unsupported { .. } | Error::Node { .. })) => {
                Ended::Refused(error)
            }
            Err(error) => Ended::Broken(error),
        }
    }
}

impl Source {
    async fn serve(
        &self,
        mut conn: Conn<()>,
        tx: &Sender,
        control: &mut watch::Receiver<Want>,
        mut begun: impl FnMut() + Send,
    ) -> Result<Ended, Error> {
        let node = self.node;
        let request = Request::Consume { channel: self.channel.as_bytes(), subscriber: self.subscriber.as_bytes() };
        let Some(id) = conn.core.begin(&request, ()) else { return Err(Error::QueueFull { node }) };
        let taken = Arc::new(Notify::new());
        // Whether a batch is with the application.
        let mut delivered = false;
        let mut stopping = None;
        loop {
            let want = *control.borrow_and_update();
            if want == Want::Stop && !delivered && stopping.is_none() {
                conn.core.stop(id);
                stopping = Some(Instant::now() + self.stop_timeout);
            }
            let mut arrived = Arrived::default();
            tokio::select! {
                biased;
                // What is wanted may have changed just before.
                () = taken.notified(), if delivered && want != Want::Suspend => match *control.borrow() {
                    Want::Run => {
                        delivered = false;
                        conn.core.go_on(id);
                    }
                    // The Stop takes the batch over as well.
                    Want::Stop => delivered = false,
                    Want::Suspend => taken.notify_one(),
                },
                turned = conn.turn(|&mut (), event| { arrived.take(event); false }) => turned?,
                Ok(()) = control.changed() => {}
                () = tx.closed() => return Ok(Ended::Complete),
                () = until(stopping) => return Err(Error::Timeout { node, after: self.stop_timeout }),
            }
            let Arrived { started, batch, end, wrong } = arrived;
            if started {
                begun();
            }
            if wrong || (batch.is_some() && delivered) {
                return Err(Error::protocol(node, "a message out of turn in a Consume"));
            }
            if let Some(batch) = batch {
                let batch = Batch::new(node, batch).map_err(|what| Error::protocol(node, what))?;
                if batch.is_empty() {
                    conn.core.go_on(id);
                } else {
                    delivered = true;
                    let delivery = Ok(Delivery::Records(batch));
                    if tx.send(Message { delivery, taken: Some(Arc::clone(&taken)) }).await.is_err() {
                        return Ok(Ended::Complete);
                    }
                }
            }
            match end {
                None => {}
                Some(End::Stopped) => return Ok(Ended::Complete),
                Some(End::Removed) => {
                    let delivery = Ok(Delivery::ChannelRemoved { node });
                    let _ = tx.send(Message { delivery, taken: None }).await;
                    return Ok(Ended::Complete);
                }
                Some(End::Failed) => return Err(Error::Node { node }),
                Some(End::Unsupported) => return Err(Error::Unsupported { node, request: "Consume" }),
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
