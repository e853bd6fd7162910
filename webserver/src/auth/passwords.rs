//! Checking passwords without letting the checks stop everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overstory_model::credential;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// So many checks may wait for their turn; more are refused at once.
const MAX_WAITING: usize = 32;
/// How long a check waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// Runs argon2 on threads of its own, a few at a time.
#[derive(Debug)]
pub(super) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    runtime: Handle,
    /// A hash that no password matches, for accounts that are not there: they take as long as those that are.
    nobody: Arc<str>,
}

impl Passwords {
    pub(super) fn new(at_a_time: usize, runtime: Handle) -> Result<Self, credential::PasswordError> {
        let nobody = credential::hash_password(&credential::random_token())?.into();
        Ok(Self { turns: Arc::new(Semaphore::new(at_a_time)), waiting: AtomicUsize::new(0), runtime, nobody })
    }

    /// Whether `password` belongs to `hash`; without a hash it takes as long and is false.
    pub(super) async fn matches(&self, password: String, hash: Option<&str>) -> Result<bool, ApiError> {
        let _waiting = Waiting::enter(&self.waiting)?;
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = match turn {
            Ok(Ok(turn)) => turn,
            Ok(Err(error)) => return Err(ApiError::internal(error)),
            Err(_) => return Err(busy()),
        };
        let known = hash.is_some();
        let hash: Arc<str> = hash.map_or_else(|| Arc::clone(&self.nobody), Arc::from);
        let check = self.runtime.spawn_blocking(move || {
            let _turn = turn;
            credential::verify_password(&password, &hash)
        });
        Ok(check.await.map_err(ApiError::internal)? && known)
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
        let passwords = Passwords::new(1, Handle::current()).unwrap();
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
