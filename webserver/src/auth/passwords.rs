//! Checking passwords without letting the checks stop everything else.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use overstory_model::credential;
use tokio::sync::{Semaphore, oneshot};

use crate::error::ApiError;

/// So many checks may wait for their turn; more are refused at once.
const MAX_WAITING: usize = 32;
/// How long a check waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// A thread that had nothing to check for so long gives its memory back.
const IDLE: Duration = Duration::from_secs(60);

/// A password, the hash to compare it with, and where the answer goes.
struct Check {
    password: String,
    hash: Arc<str>,
    answer: oneshot::Sender<bool>,
}

/// Runs argon2 on threads of its own, a few at a time.
///
/// Each thread keeps the 19 MiB that a hash takes while there is something to check, so the memory is bounded however
/// much there is.
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    checks: SyncSender<Check>,
    /// A hash that no password matches, for accounts that are not there: they take as long as those that are.
    nobody: Arc<str>,
}

impl Passwords {
    pub(super) fn new(at_a_time: usize) -> io::Result<Self> {
        let nobody = credential::hash_password(&credential::random_token()).map_err(io::Error::other)?.into();
        let (checks, receiver) = sync_channel(at_a_time);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..at_a_time {
            let receiver = Arc::clone(&receiver);
            // They end when the sender is gone.
            std::thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&receiver))?;
        }
        Ok(Self { turns: Arc::new(Semaphore::new(at_a_time)), waiting: AtomicUsize::new(0), checks, nobody })
    }

    /// Whether `password` belongs to `hash`; without a hash it takes as long and is false.
    pub(super) async fn matches(&self, password: String, hash: Option<&str>) -> Result<bool, ApiError> {
        let _waiting = Waiting::enter(&self.waiting)?;
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = match turn {
            Ok(turn) => turn.map_err(ApiError::internal)?,
            Err(_) => return Err(busy()),
        };
        let known = hash.is_some();
        let hash: Arc<str> = hash.map_or_else(|| Arc::clone(&self.nobody), Arc::from);
        let (answer, matches) = oneshot::channel();
        // A client that went away gave its turn back before its check was done: then there may be no room.
        self.checks.try_send(Check { password, hash, answer }).map_err(|_| busy())?;
        Ok(matches.await.map_err(ApiError::internal)? && known)
    }
}

fn work(checks: &Mutex<Receiver<Check>>) {
    let mut verifier = credential::Verifier::default();
    loop {
        let check = checks.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(IDLE);
        let Check { password, hash, answer } = match check {
            Ok(check) => check,
            Err(RecvTimeoutError::Timeout) => {
                verifier = credential::Verifier::default();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Nobody may be waiting any more.
        let _ = answer.send(verifier.verify(&password, &hash));
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Result<Self, ApiError> {
        let entered = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING { Err(busy()) } else { Ok(entered) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy() -> ApiError {
    ApiError::unavailable("Too many logins at a time, try again later", "password checks are all taken")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[tokio::test]
    async fn unknown_accounts_never_match_and_the_queue_is_bounded() {
        let passwords = Passwords::new(1).unwrap();
        let hash = credential::hash_password("correct horse").unwrap();
        assert!(passwords.matches("correct horse".into(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches("wrong horse".into(), Some(&hash)).await.unwrap());
        assert!(!passwords.matches("correct horse".into(), None).await.unwrap());
        let all: Vec<_> = (0..MAX_WAITING).map(|_| Waiting::enter(&passwords.waiting).unwrap()).collect();
        assert!(passwords.matches("correct horse".into(), Some(&hash)).await.is_err());
        drop(all);
        assert!(passwords.matches("correct horse".into(), Some(&hash)).await.unwrap());
    }
}
