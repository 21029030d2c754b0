//! Policies: Cedar rules and entities from files answer what runs ask, and a scanner looks at what leaves.
//!
//! Decisions are data with a rule id. Nothing here decides what follows from one, waits, or calls out.

mod diagnostic;
mod arguments;
mod schema;
mod entities;
mod source;
mod rules;
mod set;
mod question;
mod compare;
mod candidate;
mod judge;
mod live;
pub mod trial;
pub mod evidence;
pub mod trust;
pub mod scan;
pub mod redact;

pub use arguments::Arguments;
pub use candidate::{CandidateConfig, PLACES, place};
pub use compare::{Change, Compared, compare};
pub use diagnostic::{Finding, Findings, Severity};
pub use evidence::TrustConfig;
pub use live::{LivePolicy, Load};
pub use question::{Asked, Attributes, Subject};
pub use schema::{SCHEMA, STARTER};
pub use set::{Explanation, RuleSet};
pub use trust::{Scores, TrustBook};
