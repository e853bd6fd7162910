//! The runtime that everything but the handlers runs on.
//!
//! Each of actix' workers has a runtime of its own. What outlives a request (connections to the store and to the
//! broker) must not be bound to one of them, so calls to the store are made on the program's runtime, with a deadline.

use std::time::Duration;

use overstory_store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::ApiError;

/// A handle to the program's runtime.
#[derive(Debug, Clone)]
pub struct Shared {
    runtime: Handle,
    deadline: Duration,
}

impl Shared {
    /// Uses `runtime`, and gives up on what takes longer than `deadline`.
    #[must_use]
    pub const fn new(runtime: Handle, deadline: Duration) -> Self {
        Self { runtime, deadline }
    }

    /// The runtime.
    #[must_use]
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Awaits a call to the store.
    ///
    /// # Errors
    /// 503 when the store is away or too slow, 500 when it failed.
    pub async fn store<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run("The store is not available", call).await?.map_err(ApiError::from)
    }

    /// Awaits anything that has to run on the program's runtime; `what` is said when it takes too long.
    ///
    /// # Errors
    /// 503 when it takes too long, 500 when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let task = self.runtime.spawn(call);
        let abort = task.abort_handle();
        match tokio::time::timeout(self.deadline, task).await {
            Ok(joined) => joined.map_err(ApiError::internal),
            Err(_) => {
                abort.abort();
                Err(ApiError::unavailable(what, format_args!("no answer within {:?}", self.deadline)))
            }
        }
    }

    /// As [`Self::run`], for what has no effect: it ends when nobody waits for it any more.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_while_wanted<T: Send + 'static>(
        &self,
        what: &'static str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (wanted, unwanted) = oneshot::channel::<()>();
        let call = async move {
            tokio::select! {
                done = call => Some(done),
                // Nothing is sent: it is dropped with the one who waits.
                _ = unwanted => None,
            }
        };
        let done = self.run(what, call).await;
        drop(wanted);
        done?.ok_or_else(|| ApiError::internal("a call ended though it was wanted"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::sync::Arc;

    use super::*;

    /// A search of the archive went on when its client had gone, while its turn was given to the next one: any number of
    /// them could run at the same time.
    #[tokio::test]
    async fn what_nobody_waits_for_any_more_ends() {
        let shared = Shared::new(Handle::current(), Duration::from_secs(60));
        let (held, begun) = (Arc::new(()), Arc::new(tokio::sync::Notify::new()));
        let (turn, begins) = (Arc::clone(&held), Arc::clone(&begun));
        let waiting = shared.run_while_wanted("late", async move {
            let _turn = turn;
            begins.notify_one();
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = waiting => panic!("it has no end"),
            () = begun.notified() => {}
        }
        let ended = async {
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        assert_eq!(shared.run_while_wanted("late", async { 7 }).await.unwrap(), 7);
    }
}
