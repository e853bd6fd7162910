//! The runtime that everything but the handlers runs on.
//!
//! Each of actix' workers has a runtime of its own. What outlives a request (connections to the store and to the
//! broker) must not be bound to one of them, so calls to the store are made on the program's runtime, with a deadline.

use std::time::Duration;

use overstory_store::StoreError;
use tokio::runtime::Handle;

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
}
