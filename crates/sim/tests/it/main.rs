//! The simulator on machines that use everything, and on bugs that were put in.

mod bugs;
mod determinism;
mod golden;
mod kit;
