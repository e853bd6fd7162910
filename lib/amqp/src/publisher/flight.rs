//! Messages on their way through the publisher, and who waits for them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{PublishError, Receipt, check};
use crate::message::{Outgoing, cut};

pub(super) type Outcome = Result<Receipt, PublishError>;

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Publish(Outgoing, oneshot::Sender<Outcome>),
    PublishAll(Vec<Outgoing>, oneshot::Sender<Vec<Outcome>>),
    Direct(Outgoing, Instant, oneshot::Sender<Outcome>),
    Close(Instant, oneshot::Sender<Result<(), PublishError>>),
}

/// Who waits for a message.
#[derive(Debug)]
pub(super) enum Waiter {
    One(oneshot::Sender<Outcome>),
    Many(Arc<Many>, usize),
    /// Was answered already.
    Nobody,
}

/// The answers of a call that published many.
#[derive(Debug)]
pub(super) struct Many(Mutex<Answers>);

#[derive(Debug)]
struct Answers {
    outcomes: Vec<Outcome>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Outcome>>>,
}

impl Waiter {
    /// Tells the outcome. A caller that went away does not care.
    pub(super) fn finish(self, outcome: Outcome) {
        match self {
            Self::One(reply) => {
                let _ = reply.send(outcome);
            }
            Self::Many(many, index) => {
                let mut answers = many.0.lock().unwrap_or_else(PoisonError::into_inner);
                answers.outcomes[index] = outcome;
                answers.missing -= 1;
                if answers.missing == 0
                    && let Some(reply) = answers.reply.take()
                {
                    let _ = reply.send(std::mem::take(&mut answers.outcomes));
                }
            }
            Self::Nobody => {}
        }
    }

    /// Whether the caller has gone away.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::One(reply) if reply.is_closed())
    }
}

/// A message that was not sent yet.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) message: Outgoing,
    pub(super) waiter: Waiter,
}

/// Queues the messages of one call.
pub(super) fn enqueue_all(queue: &mut VecDeque<Item>, messages: Vec<Outgoing>, reply: oneshot::Sender<Vec<Outcome>>) {
    let answers = Answers {
        outcomes: messages.iter().map(|_| Err(PublishError::Closed)).collect(),
        missing: messages.len(),
        reply: Some(reply),
    };
    let many = Arc::new(Many(Mutex::new(answers)));
    for (index, message) in messages.into_iter().enumerate() {
        let waiter = Waiter::Many(Arc::clone(&many), index);
        match check(&message) {
            Ok(()) => queue.push_back(Item { message, waiter }),
            Err(error) => waiter.finish(Err(error)),
        }
    }
}

/// Where a message in flight came from, which decides what becomes of it when it fails.
#[derive(Debug)]
pub(super) enum Origin {
    /// From a caller; goes to the spool.
    Memory(Waiter),
    /// From a caller that wants the broker or nothing.
    Direct(Waiter, Instant),
    /// Is in the spool under this number.
    Spool(u64),
}

type Confirming = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Answer = Result<Verdict, lapin::Error>;

/// What the broker says about a message.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Whether a queue refused it.
    pub(super) refused: bool,
    /// The id of a message that was returned, which may be another one.
    returned: Option<String>,
}

impl From<Confirmation> for Verdict {
    fn from(confirmation: Confirmation) -> Self {
        let refused = confirmation.is_nack();
        let returned = confirmation.take_message();
        let id = |id: lapin::types::ShortString| id.as_str().to_owned();
        Self { refused, returned: returned.and_then(|message| message.properties.message_id().clone().map(id)) }
    }
}

enum Progress {
    Waiting(Confirming),
    Answered(Option<Answer>),
}

/// A message that was handed to the broker and is not settled.
pub(super) struct Flight {
    pub(super) message: Outgoing,
    pub(super) origin: Origin,
    pub(super) sent_at: Instant,
    progress: Progress,
}

impl Flight {
    /// Sends a message; the broker's answer is picked up later, so that many are under way at once.
    pub(super) fn start(channel: &Arc<Channel>, message: Outgoing, origin: Origin) -> Self {
        let channel = Arc::clone(channel);
        let exchange = cut(&message.exchange);
        let routing_key = cut(message.routing_key.as_str());
        let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
        let properties = message.properties();
        let body = message.body.clone();
        let confirming = async move {
            let confirm = channel.basic_publish(exchange, routing_key, options, &body, properties).await?;
            Ok(Verdict::from(confirm.await?))
        };
        let progress = Progress::Waiting(Box::pin(confirming));
        let mut flight = Self { message, origin, sent_at: Instant::now(), progress };
        // The first poll is what hands the frames over, in the order of the calls.
        flight.look();
        flight
    }

    /// Whether a caller waits for it who would take a place in the spool for an answer.
    pub(super) const fn is_awaited(&self) -> bool {
        matches!(&self.origin, Origin::Memory(Waiter::One(_) | Waiter::Many(..)))
    }

    /// Whether the broker has answered; the task is woken when it does.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.progress {
            Progress::Answered(_) => Poll::Ready(()),
            Progress::Waiting(confirming) => match confirming.as_mut().poll(context) {
                Poll::Ready(answer) => {
                    self.progress = Progress::Answered(Some(answer));
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    /// Picks the answer up if there is one, without asking to be woken.
    pub(super) fn look(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The message that the broker returned with this answer, which may be another one; told once.
    pub(super) fn returned_id(&mut self) -> Option<String> {
        match &mut self.progress {
            Progress::Answered(Some(Ok(verdict))) => verdict.returned.take(),
            _ => None,
        }
    }

    /// Takes the answer.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        match &mut self.progress {
            Progress::Answered(answer) => answer.take(),
            Progress::Waiting(_) => None,
        }
    }
}
