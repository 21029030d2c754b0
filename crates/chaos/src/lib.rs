//! Chaos: real worker processes on a real store, faults that really hurt, and the truth about what they did.
//!
//! Owns the fault proxy for PostgreSQL connections, the server that counts effects, the plan of faults, and the run
//! that puts them together and judges it. Knows no SQL beyond what tells a COMMIT from the rest, and prints nothing.

pub mod effects;
mod fleet;
mod judge;
pub mod machine;
mod member;
pub mod plan;
pub mod proxy;
pub mod record;
pub mod report;
mod run;
mod setup;
pub mod stand_in;

pub use fleet::Spawn;
pub use member::Place;
pub use report::{Report, Verdict};
pub use run::run;
pub use setup::{Cast, ChaosError, MakeEngine, Options, Restart, Scene};
