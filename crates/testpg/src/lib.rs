//! A PostgreSQL server for tests, from the programs of the host's package.
//!
//! Owns starting, sharing, breaking and stopping servers, and cutting connections. Knows nothing of the product. A
//! server that cannot be started fails the test that asked for it: nothing is skipped.

mod bouncer;
mod database;
mod host;
mod keeper;
mod proxy;
mod server;
mod shared;
mod sql;

pub use bouncer::Bouncer;
pub use database::Database;
pub use proxy::{Cut, Proxy};
pub use server::{Options, Server, Stop};
pub use sql::{Rows, SqlError};

/// A new, empty database on a server that all test processes share. It is gone when the value is dropped.
///
/// # Panics
/// No server can be started; the text says what is missing.
#[must_use]
pub fn database() -> Database {
    Database::create(shared::attach())
}

/// Stops a test with a text that says what to do.
#[track_caller]
fn must<T, E: std::fmt::Display>(result: Result<T, E>, what: impl std::fmt::Display) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}
