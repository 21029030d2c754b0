//! Integration tests of the stores.

mod child;
mod conformance;
mod power;
mod processes;
mod sqlite;
