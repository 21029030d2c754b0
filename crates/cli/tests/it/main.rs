//! Runs the binary and looks at exit code, stdout and stderr together.

mod alerts;
mod approvals;
mod bad_input;
mod bench;
mod bulk;
mod chaos;
mod fleet;
mod fsck;
mod help;
mod kit;
mod kit_on_postgresql;
mod life;
mod policy;
mod preview;
mod purity;
mod read_only;
mod restore;
mod runbooks;
mod schedules;
mod signals;
mod sim;
mod slo;
mod tenants;
mod testing;
mod tools;
mod upgrade;
