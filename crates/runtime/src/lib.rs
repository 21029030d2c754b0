//! Drives runs: claims them, decides, commits, performs effects, lets go. The only code that calls `decide`.
//!
//! What has to be decided about leases, timers, recovery and commits is in modules without I/O, clock or async
//! runtime; `shell` alone knows tokio and the ports. Nothing here knows a document format, SQL or a wire protocol.

pub mod payload;
pub mod fold;
pub mod claim;
pub mod lease;
pub mod suspect;
pub mod timers;
pub mod recover;
pub mod commit;
pub mod derived;
pub mod events;
pub mod schedule;
pub mod versions;
pub mod keys;
pub mod switch;
pub mod ramp;
pub mod rates;
pub mod quota;
pub mod capture;
pub mod notice;
pub mod seal;
pub mod audit;
mod shell;

pub use events::Seen;
pub use shell::beside;
pub use shell::captures;
pub use shell::trail;
pub use shell::{ALARMS, Answered, NOTICES, Notifier, alarm, answer, blobs, store_time};
pub use shell::{
    Called, Driven, Engine, EngineError, Failpoint, Leaving, Meter, Meters, Observer, Parts, Point, Report, Scope,
    Settings, Silent, Span, Stop, Submission, SubmitError, Submitted, SystemClock, Tally, Vitals, Waiting,
};
pub use shell::{KeyError, Keyed, LATE_MS, Numbers, Plan, ScheduleError, SchedulePage, Schedules};
pub use shell::{Publication, Published, VersionError, Versions, VersionsPage};
pub use shell::{SharedQuotas, quotas};
pub use shell::{ramps, resume_ramp};
pub use shell::{switch as set_switch, switches, tell_held};
