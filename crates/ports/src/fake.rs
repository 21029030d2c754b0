//! Stand-ins for the ports that live in memory: for tests, for simulation, and as the plain statement of what a real
//! one must do.

mod hint;
mod manual_clock;
mod memory_store;

pub use manual_clock::ManualClock;
pub use memory_store::MemoryStore;
