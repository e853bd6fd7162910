//! The wish to stop, passed to every task.

use tokio_util::sync::CancellationToken;

/// Tells tasks that the program is to end. Clones share the wish.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Makes one that nobody has requested yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether stopping was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until stopping is asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// One that can be requested alone, and is when this one is.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// The token, for libraries that take one.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }
}
