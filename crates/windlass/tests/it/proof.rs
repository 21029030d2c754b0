//! The crash proof: one machine with model calls, a tool loop over every class and idempotency, children, a launch, a
//! signal and a timer is cut at every numbered point, and killed at random moments; what an external counting server
//! saw, what the ledger says and what comes out must be what the promises allow.

mod machine;
mod place;
mod signature;
mod world;
mod wires;
mod worker;
mod lost;
mod course;
mod cuts;
mod kills;
mod forgetful;
mod answers;
mod unknown;
mod pairs;
mod rules;
mod nested;
mod branches;
mod bank;
mod switch;
mod turns;
