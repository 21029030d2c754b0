//! Drives runs: claims them, decides, commits, performs effects, lets go. The only code that calls `decide`.
//!
//! What has to be decided about leases, timers, recovery and commits is in modules without I/O, clock or async
//! runtime; `shell` alone knows tokio and the ports. Nothing here knows a document format, SQL or a wire protocol.

pub mod payload;
pub mod fold;
pub mod claim;
pub mod lease;
pub mod timers;
pub mod recover;
pub mod commit;
pub mod events;
mod shell;

pub use events::Seen;
pub use shell::{
    Driven, Engine, EngineError, Failpoint, Observer, Parts, Point, Report, Scope, Settings, Silent, Stop, Submission,
    SubmitError, Submitted, SystemClock, Waiting,
};
