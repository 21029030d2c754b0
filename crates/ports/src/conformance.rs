//! What every implementation of a port must do, as cases that its crate runs on it.

pub mod model;
pub mod store;
pub mod tool;
