//! The traits through which the runtime reaches the world, a fake of each, and one conformance suite per port.
//!
//! No driver and no async runtime here. A method exists only because the runtime or a command calls it.

pub mod store;
pub mod model;
pub mod quota;
pub mod tool;
pub mod clock;
pub mod compile;
pub mod policy;
pub mod notify;
pub mod fake;
pub mod conformance;

/// The future that port methods return.
pub type BoxFuture<'a, T> = futures::future::BoxFuture<'a, T>;
