//! Integration tests of the stores.

mod child;
mod fairness;
mod conformance;
mod postgres;
mod postgres_days;
mod postgres_doors;
mod postgres_faults;
mod postgres_switches;
mod power;
mod processes;
mod sqlite;
