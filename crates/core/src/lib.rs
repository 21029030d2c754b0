//! The heart of Windlass: decides what happens next in a run.
//!
//! A run is a pure state machine over a journal:
//!
//! ```text
//! standing(machine)                    -> questions  for the policy, the same for every input
//! plan(machine, run, input)            -> questions  for the policy, of this input
//! decide(machine, run, input, facts)   -> Decision   entries to record and effects to ask for
//! apply(run, entry)                                  replay folds this over the journal; it evaluates nothing
//! ```
//!
//! A decision is committed whole, in one transaction, before any of its effects is performed. An effect's result is
//! the next input. So a run can be stopped at any instant and continued by folding what was committed.
//!
//! This crate has no I/O, no async, no clock, no randomness and no logging, and no map without an order.

pub mod limits;
pub mod ids;
pub mod time;
pub mod value;
pub mod file;
pub mod json;
pub mod failure;
pub mod approval;
pub mod contract;
pub mod bounded;
pub mod label;
pub mod handoff;
pub mod near;
pub mod table;
pub mod machine;
pub mod eval;
pub mod transcript;
pub mod policy;
pub mod basis;
pub mod breakers;
pub mod budget;
pub mod escrow;
pub mod effect;
pub mod input;
pub mod audit;
pub mod seal;
pub mod trace;
pub mod journal;
pub mod run;
pub mod took;
pub mod snapshot;
pub mod redact;
pub mod hidden;
pub mod resource;
pub mod request;
pub mod retry;
pub mod route;
pub mod overrides;
pub mod select;
pub mod spawn;
pub mod skill;
mod output;
mod apply;
mod decide;

pub use apply::apply;
pub use decide::{Decision, Filled, Rejected, arguments, decide, decide_asking, plan, standing};
