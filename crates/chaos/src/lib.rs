//! Chaos: real worker processes on a real store, faults that really hurt, and the truth about what they did.
//!
//! Owns the fault proxy for PostgreSQL connections, the server that counts effects, the plan of faults, and the run
//! that puts them together and judges it. Knows no SQL beyond what tells a COMMIT from the rest, and prints nothing.

pub mod effects;
pub mod plan;
pub mod proxy;
