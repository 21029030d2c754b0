//! Integration tests of the stores.

mod child;
mod conformance;
mod encryption;
mod fairness;
mod postgres;
mod postgres_days;
mod postgres_doors;
mod postgres_draws;
mod postgres_faults;
mod postgres_rates;
mod postgres_switches;
mod power;
mod processes;
mod rekeys;
mod sqlite;
