//! The deterministic simulator: the real engine on a virtual clock, several simulated processes over the store in memory,
//! faults drawn from one seed, an outside world that writes down what reached it, and the checker of histories.
//!
//! One seed is one schedule, bit for bit: no thread, no wall clock, no randomness but that of the seed, no map without
//! an order.

mod bank;
mod bug;
mod clock;
mod faults;
pub mod history;
mod nemesis;
mod outside;
mod people;
mod placeholder;
mod process;
mod setup;
mod simulate;
mod store;
mod verdict;
mod world;

pub use bug::Bug;
pub use faults::{Fault, Faults, UnknownFault};
pub use placeholder::placeholder;
pub use setup::{Setup, SetupError};
pub use simulate::{Options, Outcome, SimError, Simulation};
