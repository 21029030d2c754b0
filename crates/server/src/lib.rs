//! What a process says about itself over HTTP: whether it is up, whether it is ready, and its numbers.
//!
//! Owns the listener and the routes. Serves nothing that starts or changes a run, and knows no SQL and no format.

pub mod metrics;
pub mod backup;
pub mod listen;
mod health;
mod writes;

pub use health::{Probe, router};
pub use listen::serve;
pub use metrics::{CostBound, CostObjective, Metrics, Stored};
