//! The async side of the runtime: everything that waits. Logic that can do without waiting is in the modules above.

mod engine;
mod programs;
mod submit;
mod status;
mod worker;
mod rest;
mod drive;
mod send;
mod execute;
mod shutdown;
mod observe;
mod clock;

pub use clock::SystemClock;
pub use engine::{Engine, EngineError, Parts, Scope, Settings};
pub use observe::{Failpoint, Observer, Point, Silent};
pub use rest::{Driven, Waiting};
pub use shutdown::Stop;
pub use status::Report;
pub use submit::{Submission, SubmitError, Submitted};
