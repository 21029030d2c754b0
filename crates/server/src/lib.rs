//! What a process serves over HTTP: whether it is up and ready, its numbers, and calls of tools for whoever shows a token.
//!
//! Owns the listener, the routes, and who may use them. Starts runs by the engine alone, and knows no SQL and no format.

pub mod auth;
pub mod calls;
pub mod metrics;
pub mod backup;
pub mod listen;
mod health;
mod request;
mod writes;

pub use health::{Probe, router};
pub use listen::serve;
pub use metrics::{CostBound, CostObjective, Metrics, Stored};
