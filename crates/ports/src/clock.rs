//! Time and chance as a port.

use windlass_core::time::Timestamp;

/// Where `now` and seeds come from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present. Never goes back within one process.
    fn now(&self) -> Timestamp;

    /// A fresh random number.
    fn seed(&self) -> u64;
}
