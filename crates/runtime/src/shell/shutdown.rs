//! How a worker is told to stop.

use tokio_util::sync::CancellationToken;

/// The two ways to stop a worker. Dropping neither stops it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Claim no more, let calls that are out finish within the grace, commit their results, give the runs back.
    pub graceful: CancellationToken,
    /// Return at once. Calls that are out are dropped; the runs can be taken over when this process ends.
    pub immediate: CancellationToken,
}

impl Stop {
    /// Not stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the worker should claim no more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.graceful.is_cancelled() || self.immediate.is_cancelled()
    }
}
