//! Integration tests of the core: scenarios as data, replay, and the stored formats.

mod attempts;
mod audit;
mod bounds;
mod golden;
mod handoff;
mod labels;
mod scenario;
mod scenarios;
mod select;
