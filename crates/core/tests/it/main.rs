//! Integration tests of the core: scenarios as data, replay, and the stored formats.

mod golden;
mod labels;
mod scenario;
mod scenarios;
mod select;
