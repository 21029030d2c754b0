//! The async side of the runtime: everything that waits. Logic that can do without waiting is in the modules above.

mod engine;
mod member;
mod programs;
mod submit;
mod objects;
mod keys;
mod schedules;
mod approvals;
mod budgets;
mod switches;
mod settle;
mod status;
mod worker;
mod rest;
mod reap;
mod seal;
pub mod trail;
mod unfit;
mod missed;
mod drive;
mod send;
mod execute;
mod shutdown;
mod observe;
mod clock;

pub use clock::SystemClock;
pub use engine::{Engine, EngineError, Parts, Scope, Settings, Vitals};
pub use keys::{KeyError, Keyed};
pub use observe::{Called, Failpoint, Leaving, Meter, Meters, Observer, Point, Silent, Span, Tally};
pub use rest::{Driven, Waiting};
pub use schedules::{LATE_MS, Numbers, Plan, ScheduleError, SchedulePage, Schedules};
pub use shutdown::Stop;
pub use status::Report;
pub use submit::{Submission, SubmitError, Submitted};
pub use switches::{switch, switches, tell_held};
