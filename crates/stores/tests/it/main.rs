//! Integration tests of the stores.

mod child;
mod conformance;
mod postgres;
mod power;
mod processes;
mod sqlite;
