//! Runs the binary and looks at exit code, stdout and stderr together.

mod alerts;
mod approvals;
mod audit;
mod bad_input;
mod bench;
mod budgets;
mod bulk;
mod canary;
mod chaos;
#[path = "../../../telemetry/tests/it/collector.rs"]
mod collector;
mod debug;
mod fleet;
mod fsck;
mod help;
#[path = "../../../telemetry/tests/it/http.rs"]
mod http;
mod kit;
mod kit_on_postgresql;
mod labels;
mod life;
mod models;
mod notify;
mod policy;
mod preflight;
mod preview;
mod purity;
mod raise;
mod read_only;
mod readonly_switch;
mod redact;
mod restore;
mod runbooks;
mod saved;
mod schedules;
mod secrets;
mod signals;
mod sim;
mod slo;
mod telemetry;
mod tenants;
mod testing;
mod thinking;
mod tools;
mod trust;
mod upgrade;
