//! The listener of a process, asked over real connections.

mod calls;
mod kit;
mod routes;
