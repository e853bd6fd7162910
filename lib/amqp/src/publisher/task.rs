//! The task that owns a publisher's connection.

mod overflow;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Event;
use overstory_model::clock::{Clock, SystemClock};
use overstory_runtime::Shutdown;
use overstory_runtime::backoff::Backoff;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::connection::{Link, Up, knows, open};
use super::flight::{Command, Flight, Item, Origin, Verdict, Waiter, enqueue_all};
use super::{PublishError, PublisherOptions, Receipt, Shared};
use crate::config::AmqpConfig;
use crate::dead;
use crate::error::AmqpError;
use crate::link;
use crate::message::Outgoing;
use crate::topology::Topology;

/// A broker that leaves the oldest message unanswered for so long is treated as away, though it is connected.
const STALL: Duration = Duration::from_secs(5);
/// How long new messages wait for a connection that is being made before they are spooled or refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a publisher whose handles are all gone may still take to finish.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the task was woken by.
enum Wake {
    Commands,
    NoMoreCommands,
    Settled(Vec<Flight>),
    Connect,
    Opened(Result<Box<Up>, AmqpError>),
    Event(Option<Event>),
    Due,
}

struct Closing {
    due: Instant,
    reply: Option<oneshot::Sender<Result<(), PublishError>>>,
}

pub(super) struct Task {
    config: AmqpConfig,
    name: String,
    topology: Topology,
    shutdown: Shutdown,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    inbox: Vec<Command>,
    link: Link,
    reconnect: Backoff,
    /// Whether the last attempt to connect failed.
    away: bool,
    /// Since when the broker asks us not to publish.
    blocked: Option<Instant>,
    window: usize,
    /// How much of the window is used; small after a refusal.
    open_window: usize,
    rejecting_until: Option<Instant>,
    rejections: Backoff,
    queue: VecDeque<Item>,
    direct: VecDeque<(Outgoing, Waiter, Instant)>,
    /// Dead letters in place of spooled messages that nobody takes, with their numbers.
    replaced: VecDeque<(u64, Outgoing)>,
    flights: VecDeque<Flight>,
    /// Ids of messages that the broker returned and whose confirmation was not seen yet.
    returned: HashSet<String>,
    backlog: Option<Backlog>,
    closing: Option<Closing>,
}

impl Task {
    pub(super) fn new(
        config: AmqpConfig,
        options: &PublisherOptions,
        shutdown: Shutdown,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        backlog: Option<Backlog>,
    ) -> Self {
        let window = options.window.max(1);
        Self {
            topology: Topology::new(&config.queues),
            config,
            name: options.name.clone(),
            shutdown,
            shared,
            commands,
            inbox: Vec::new(),
            link: Link::Down { until: Instant::now() },
            reconnect: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            away: false,
            blocked: None,
            window,
            open_window: window,
            rejecting_until: None,
            rejections: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            queue: VecDeque::new(),
            direct: VecDeque::new(),
            replaced: VecDeque::new(),
            flights: VecDeque::new(),
            returned: HashSet::new(),
            backlog,
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.is_finished() {
            self.route().await;
            self.send().await;
            if self.is_finished() {
                break;
            }
            match self.wake().await {
                Wake::Commands => self.accept(),
                Wake::NoMoreCommands => {
                    self.closing = Some(Closing { due: Instant::now() + FAREWELL, reply: None });
                }
                Wake::Settled(flights) => self.settle(flights).await,
                Wake::Connect => {
                    let opening = open(self.config.clone(), self.name.clone(), self.topology.clone());
                    self.link = Link::Opening { since: Instant::now(), opening: Box::pin(opening) };
                }
                Wake::Opened(Ok(up)) => self.opened(up),
                Wake::Opened(Err(error)) => {
                    let delay = self.reconnect.next_delay();
                    if !std::mem::replace(&mut self.away, true) {
                        tracing::warn!(publisher = self.name, %error, "no connection to the broker, trying again");
                    }
                    self.link = Link::Down { until: Instant::now() + delay };
                }
                Wake::Event(event) => self.event(event).await,
                Wake::Due => {}
            }
        }
        self.end().await;
    }

    async fn wake(&mut self) -> Wake {
        let due = self.next_due();
        let Self { flights, link, commands, inbox, queue, window, closing, .. } = self;
        let room = window.saturating_sub(queue.len());
        tokio::select! {
            biased;
            settled = settled(flights), if !flights.is_empty() => Wake::Settled(settled),
            wake = changed(link) => wake,
            count = commands.recv_many(inbox, room), if room > 0 && closing.is_none() => {
                if count == 0 { Wake::NoMoreCommands } else { Wake::Commands }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::Due,
        }
    }

    /// When something has to be done though nothing happens.
    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let stall = self.flights.front().map(|flight| flight.sent_at + STALL);
        let opening = match &self.link {
            Link::Opening { since, .. } if !self.queue.is_empty() => Some(*since + PATIENCE),
            _ => None,
        };
        let blocked = self.blocked.filter(|_| !self.queue.is_empty()).map(|since| since + STALL);
        // What is over and could not be acted on yet waits for what hinders it, which wakes the task by itself.
        let waiting = [stall, opening, blocked, self.rejecting_until];
        let waiting = waiting.into_iter().flatten().filter(|due| *due > now);
        let closing = self.closing.as_ref().map(|closing| closing.due);
        let direct = self.direct.iter().map(|(_, _, due)| *due).min();
        waiting.chain(closing).chain(direct).min()
    }

    fn is_finished(&self) -> bool {
        let Some(closing) = &self.closing else { return false };
        let nothing_left = self.queue.is_empty() && self.direct.is_empty() && self.flights.is_empty();
        nothing_left || Instant::now() >= closing.due
    }

    fn accept(&mut self) {
        for command in std::mem::take(&mut self.inbox) {
            match command {
                Command::Publish(message, reply) => {
                    self.shared.published.fetch_add(1, Ordering::Relaxed);
                    self.queue.push_back(Item { message, waiter: Waiter::One(reply) });
                }
                Command::PublishAll(messages, reply) => {
                    self.shared.published.fetch_add(messages.len() as u64, Ordering::Relaxed);
                    enqueue_all(&mut self.queue, messages, reply);
                }
                Command::Direct(message, due, reply) => {
                    self.shared.published.fetch_add(1, Ordering::Relaxed);
                    self.direct.push_back((message, Waiter::One(reply), due));
                }
                Command::Close(due, reply) => self.closing = Some(Closing { due, reply: Some(reply) }),
            }
        }
        if self.closing.is_some() {
            // What other handles sent before is still answered.
            self.commands.close();
            while let Ok(command) = self.commands.try_recv() {
                self.inbox.push(command);
            }
            if !self.inbox.is_empty() {
                self.accept();
            }
        }
    }

    fn opened(&mut self, up: Box<Up>) {
        tracing::info!(publisher = self.name, "connected to the broker");
        self.reconnect.reset();
        self.away = false;
        self.blocked = None;
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.connected.store(true, Ordering::Relaxed);
        self.link = Link::Up(up);
    }

    async fn event(&mut self, event: Option<Event>) {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(publisher = self.name, reason, "the broker does not take messages for now");
                self.blocked = Some(Instant::now());
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!(publisher = self.name, "the broker takes messages again");
                self.blocked = None;
            }
            // Told of every channel; one on which an exchange was looked for in vain is none of ours.
            Some(Event::Error(error)) => {
                let Link::Up(up) = &self.link else { return };
                if !up.connection.status().connected() || !up.channel.status().connected() {
                    self.lost(&error.to_string()).await;
                }
            }
            None => self.lost("the connection ended").await,
            Some(_) => {}
        }
    }

    /// Throws the connection away; what was in flight goes to the spool or back to its caller.
    async fn lost(&mut self, reason: &str) {
        let Link::Up(up) = std::mem::replace(&mut self.link, Link::Down { until: Instant::now() }) else { return };
        let Up { connection, .. } = *up;
        tracing::warn!(publisher = self.name, reason, "lost the connection to the broker");
        self.shared.connected.store(false, Ordering::Relaxed);
        self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
        self.blocked = None;
        // A connection whose channel alone was closed is ended beside the work.
        tokio::spawn(link::close(connection));
        let (mut answered, mut unknown) = (Vec::new(), Vec::new());
        for mut flight in std::mem::take(&mut self.flights) {
            flight.look();
            self.returned.extend(flight.returned_id());
            match flight.answer() {
                Some(Ok(verdict)) => answered.push((flight, verdict)),
                _ => unknown.push(flight),
            }
        }
        self.settle_answered(answered).await;
        let mut orphans = Vec::new();
        for flight in unknown {
            match flight.origin {
                Origin::Memory(Waiter::Nobody) | Origin::Spool(_) => {}
                Origin::Memory(waiter) => orphans.push(Item { message: flight.message, waiter }),
                Origin::Direct(waiter, due) => self.direct.push_back((flight.message, waiter, due)),
            }
        }
        self.replaced.clear();
        self.returned.clear();
        self.rejecting_until = None;
        if self.backlog.is_some() {
            self.spool(orphans).await;
        } else {
            for orphan in orphans {
                orphan.waiter.finish(Err(PublishError::Unavailable));
            }
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.rewind();
        }
    }

    /// Whether the broker cannot take messages now, so that they should not wait for it.
    fn is_unusable(&self) -> bool {
        let hurry = self.backlog.is_some() && (self.closing.is_some() || self.shutdown.is_requested());
        match &self.link {
            Link::Up(_) => false,
            Link::Down { .. } => self.away,
            Link::Opening { since, .. } => self.away || hurry || since.elapsed() >= PATIENCE,
        }
    }

    fn is_stalled(&self) -> bool {
        self.flights.front().is_some_and(|flight| flight.sent_at.elapsed() >= STALL)
    }

    /// Moves messages that cannot be sent to the spool, or refuses them.
    async fn route(&mut self) {
        let now = Instant::now();
        let is_overdue = |(_, waiter, due): &(Outgoing, Waiter, Instant)| *due <= now || waiter.is_gone();
        if self.direct.iter().any(is_overdue) {
            let (overdue, left) = std::mem::take(&mut self.direct).into_iter().partition::<Vec<_>, _>(is_overdue);
            self.direct = left.into();
            for (_, waiter, _) in overdue {
                waiter.finish(Err(PublishError::Timeout));
            }
        }
        let (blocked, stalled) = (self.blocked.is_some(), self.is_stalled());
        let Some(backlog) = &self.backlog else {
            let blocked_long = self.blocked.is_some_and(|since| since.elapsed() >= STALL);
            if self.is_unusable() || stalled || blocked_long {
                for flight in self.flights.iter_mut().filter(|flight| flight.is_awaited()) {
                    let answered = Origin::Memory(Waiter::Nobody);
                    if let Origin::Memory(waiter) = std::mem::replace(&mut flight.origin, answered) {
                        waiter.finish(Err(PublishError::Unavailable));
                    }
                }
                for item in std::mem::take(&mut self.queue) {
                    item.waiter.finish(Err(PublishError::Unavailable));
                }
            }
            return;
        };
        if blocked || stalled {
            self.spool_flights(None).await;
        } else if backlog.is_empty() && self.rejecting_until.is_none() && !self.is_unusable() {
            return;
        }
        if !self.queue.is_empty() {
            let items = std::mem::take(&mut self.queue).into();
            self.spool(items).await;
        }
    }

    /// Fills the window.
    async fn send(&mut self) {
        let Link::Up(up) = &self.link else { return };
        if !up.channel.status().connected() {
            self.lost("the broker closed the channel").await;
            return;
        }
        if self.blocked.is_some() {
            return;
        }
        self.retry_refused();
        while self.flights.len() < self.open_window {
            let Some((message, origin)) = self.next_to_send().await else { break };
            let Link::Up(up) = &mut self.link else { return };
            match knows(up, &self.topology, &message.exchange).await {
                Ok(true) => self.flights.push_back(Flight::start(&up.channel, message, origin)),
                Ok(false) => {
                    let error = PublishError::NoExchange(message.exchange.clone());
                    self.nobody_takes(message, origin, error);
                }
                Err(error) => {
                    // Put where a lost connection finds it, or given back.
                    match origin {
                        Origin::Memory(waiter) => self.queue.push_front(Item { message, waiter }),
                        Origin::Direct(waiter, due) => self.direct.push_front((message, waiter, due)),
                        Origin::Spool(_) => {}
                    }
                    self.lost(&error.to_string()).await;
                    return;
                }
            }
        }
        if let Some(backlog) = &mut self.backlog
            && !backlog.is_empty()
            && let Err(error) = backlog.advance().await
        {
            tracing::error!(publisher = self.name, %error, "cannot release spooled messages");
        }
    }

    async fn next_to_send(&mut self) -> Option<(Outgoing, Origin)> {
        if let Some((message, waiter, due)) = self.direct.pop_front() {
            return Some((message, Origin::Direct(waiter, due)));
        }
        if let Some((number, message)) = self.replaced.pop_front() {
            return Some((message, Origin::Spool(number)));
        }
        if let Some(backlog) = &mut self.backlog
            && !backlog.is_empty()
        {
            if self.rejecting_until.is_some() || self.closing.is_some() {
                return None;
            }
            return match backlog.next(self.open_window).await {
                Ok(next) => next.map(|(number, message)| (message, Origin::Spool(number))),
                Err(error) => {
                    tracing::error!(publisher = self.name, %error, "cannot read the spool");
                    self.rejecting_until = Some(Instant::now() + self.rejections.next_delay());
                    None
                }
            };
        }
        self.queue.pop_front().map(|item| (item.message, Origin::Memory(item.waiter)))
    }

    /// Gives a message that has nowhere to go back to its caller; one that has its receipt becomes a dead letter.
    fn nobody_takes(&mut self, message: Outgoing, origin: Origin, error: PublishError) {
        match origin {
            Origin::Memory(waiter) | Origin::Direct(waiter, _) => waiter.finish(Err(error)),
            Origin::Spool(number) => {
                tracing::warn!(publisher = self.name, %error, "a spooled message becomes a dead letter");
                let now = SystemClock.now().secs();
                let letter = dead::undeliverable(&message, &self.name, &error.to_string(), now);
                self.replaced.push_back((number, letter));
            }
        }
    }

    /// Takes the broker's answers.
    async fn settle(&mut self, mut settled: Vec<Flight>) {
        if settled.iter().any(|flight| flight.message.mandatory) {
            // A returned message is told with the first confirmation that comes after it, of whichever message.
            for flight in self.flights.iter_mut().chain(&mut settled) {
                flight.look();
                self.returned.extend(flight.returned_id());
            }
        }
        let mut lost = None;
        let mut answered = Vec::with_capacity(settled.len());
        // From the last to the first, so that those that failed stand in order among the flights again and share
        // their fate.
        for mut flight in settled.into_iter().rev() {
            match flight.answer() {
                Some(Ok(verdict)) => answered.push((flight, verdict)),
                Some(Err(error)) => {
                    lost = Some(error);
                    self.flights.push_front(flight);
                }
                None => self.flights.push_front(flight),
            }
        }
        answered.reverse();
        self.settle_answered(answered).await;
        if let Some(error) = lost {
            self.lost(&error.to_string()).await;
        }
        if let Some(backlog) = &mut self.backlog
            && !backlog.is_empty()
            && let Err(error) = backlog.advance().await
        {
            tracing::error!(publisher = self.name, %error, "cannot release spooled messages");
        }
    }

    async fn settle_answered(&mut self, answered: Vec<(Flight, Verdict)>) {
        for (flight, verdict) in answered {
            let Flight { message, origin, .. } = flight;
            if verdict.refused {
                self.refused(message, origin).await;
                continue;
            }
            if message.mandatory && self.returned.remove(&message.message_id) {
                let error = PublishError::Unroutable {
                    exchange: message.exchange.clone(),
                    routing_key: message.routing_key.as_str().to_owned(),
                };
                self.nobody_takes(message, origin, error);
                continue;
            }
            self.shared.confirmed.fetch_add(1, Ordering::Relaxed);
            if self.open_window < self.window {
                self.open_window = (self.open_window * 2).min(self.window);
                self.rejections.reset();
            }
            match origin {
                Origin::Memory(waiter) | Origin::Direct(waiter, _) => waiter.finish(Ok(Receipt::Confirmed)),
                Origin::Spool(number) => {
                    if let Some(backlog) = &mut self.backlog {
                        backlog.confirmed(number);
                    }
                }
            }
        }
    }

    /// Says goodbye; what nobody answered goes to the spool.
    async fn end(mut self) {
        let mut unanswered = !self.queue.is_empty() || !self.direct.is_empty();
        self.spool_flights(None).await;
        let items = std::mem::take(&mut self.queue).into();
        self.spool(items).await;
        for flight in std::mem::take(&mut self.flights) {
            unanswered = true;
            if let Origin::Memory(waiter) | Origin::Direct(waiter, _) = flight.origin {
                waiter.finish(Err(PublishError::Unavailable));
            }
        }
        for item in std::mem::take(&mut self.queue) {
            item.waiter.finish(Err(PublishError::Unavailable));
        }
        self.shared.connected.store(false, Ordering::Relaxed);
        if let Link::Up(up) = self.link {
            link::close(up.connection).await;
        }
        if let Some(Closing { reply: Some(reply), .. }) = self.closing {
            // The caller may have given up.
            let _ = reply.send(if unanswered { Err(PublishError::Timeout) } else { Ok(()) });
        }
    }
}

/// Waits for the oldest flight and takes all that are settled, in order.
async fn settled(flights: &mut VecDeque<Flight>) -> Vec<Flight> {
    std::future::poll_fn(|context| {
        let mut settled = Vec::new();
        while let Some(flight) = flights.pop_front_if(|flight| flight.poll(context).is_ready()) {
            settled.push(flight);
        }
        if settled.is_empty() { Poll::Pending } else { Poll::Ready(settled) }
    })
    .await
}

/// Waits for something to happen to the connection.
async fn changed(link: &mut Link) -> Wake {
    match link {
        Link::Down { until } => {
            tokio::time::sleep_until(*until).await;
            Wake::Connect
        }
        Link::Opening { opening, .. } => Wake::Opened(opening.await),
        Link::Up(up) => Wake::Event(up.events.next().await),
    }
}
