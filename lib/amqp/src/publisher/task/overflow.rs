//! What the publisher's task does with messages that the broker cannot take.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::super::backlog::encoded;
use super::super::flight::{Flight, Item, Origin, Outcome, Waiter};
use super::super::{PublishError, Receipt};
use super::Task;
use crate::message::Outgoing;

impl Task {
    /// Writes messages to the spool and gives their callers their receipts.
    pub(super) async fn spool(&mut self, items: Vec<Item>) {
        let Some(backlog) = &mut self.backlog else { return };
        if items.is_empty() {
            return;
        }
        match backlog.append(items.iter().map(|item| encoded(&item.message)).collect()).await {
            Ok(numbers) => {
                let mut left = numbers.end - numbers.start;
                for item in items {
                    let outcome = if left > 0 { Ok(Receipt::Spooled) } else { Err(PublishError::SpoolFull) };
                    item.waiter.finish(outcome);
                    left = left.saturating_sub(1);
                }
            }
            Err(error) => {
                tracing::error!(publisher = self.name, %error, "cannot write the spool");
                // The cause goes to the first caller; the others are refused with the same consequence.
                let mut outcome: Outcome = Err(error.into());
                for item in items {
                    item.waiter.finish(std::mem::replace(&mut outcome, Err(PublishError::SpoolFull)));
                }
            }
        }
    }

    /// Writes what is in flight from callers to the spool, where a confirmation will still find it. A message that was
    /// `refused` goes first and is sent again later.
    pub(super) async fn spool_flights(&mut self, refused: Option<Item>) {
        let Some(backlog) = &mut self.backlog else { return };
        if refused.is_none() && !self.flights.iter().any(Flight::is_awaited) {
            return;
        }
        let in_flight = self.flights.iter().filter(|flight| flight.is_awaited());
        let messages = refused.iter().map(|item| &item.message).chain(in_flight.map(|flight| &flight.message));
        let payloads = messages.map(encoded).collect();
        let (mut numbers, error) = match backlog.append(payloads).await {
            Ok(numbers) => (numbers, None),
            Err(error) => (0..0, Some(error)),
        };
        let outcome = |number: Option<u64>| match number {
            Some(_) => Ok(Receipt::Spooled),
            None => Err(PublishError::SpoolFull),
        };
        if let Some(error) = &error {
            tracing::error!(publisher = self.name, %error, "cannot write the spool");
        }
        if let Some(item) = refused {
            let number = numbers.next();
            item.waiter.finish(outcome(number));
            if let Some(number) = number {
                backlog.is_under_way(number);
            }
        }
        for flight in self.flights.iter_mut().filter(|flight| flight.is_awaited()) {
            let number = numbers.next();
            let origin = number.map_or(Origin::Memory(Waiter::Nobody), Origin::Spool);
            if let Origin::Memory(waiter) = std::mem::replace(&mut flight.origin, origin) {
                waiter.finish(outcome(number));
            }
            if let Some(number) = number {
                backlog.is_under_way(number);
            }
        }
    }

    /// Once the pause after a refusal is over and everything under way is answered, the spool is read again.
    pub(super) fn retry_refused(&mut self) {
        let over = self.rejecting_until.is_some_and(|until| Instant::now() >= until);
        let under_way = self.flights.iter().any(|flight| matches!(flight.origin, Origin::Spool(_)));
        if over && !under_way {
            self.rejecting_until = None;
            if let Some(backlog) = &mut self.backlog {
                backlog.rewind();
            }
        }
    }

    /// A queue is full.
    pub(super) async fn refused(&mut self, message: Outgoing, origin: Origin) {
        self.shared.rejected.fetch_add(1, Ordering::Relaxed);
        match origin {
            Origin::Direct(waiter, _) => waiter.finish(Err(PublishError::Rejected)),
            Origin::Memory(waiter) if self.backlog.is_none() => waiter.finish(Err(PublishError::Rejected)),
            Origin::Memory(waiter) => {
                self.pause_for_refusal();
                self.spool_flights(Some(Item { message, waiter })).await;
            }
            Origin::Spool(_) => self.pause_for_refusal(),
        }
    }

    pub(super) fn pause_for_refusal(&mut self) {
        if self.rejecting_until.is_none() {
            tracing::debug!(publisher = self.name, "a queue is full, spooling");
            self.rejecting_until = Some(Instant::now() + self.rejections.next_delay());
        }
        self.open_window = 1;
    }
}
