//! The listener of a process, asked over real connections.

mod kit;
mod routes;
