//! Looking for runs: what a list is asked, and a page of it.

use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;

use super::Head;

/// Which runs to list. Newest first.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only these statuses; all when empty.
    pub statuses: Vec<Status>,
    /// Only runs of this machine.
    pub machine: Option<Name>,
    /// Only children of this run.
    pub parent: Option<RunId>,
    /// Only this caller's run and everything below it.
    pub root: Option<RunId>,
    /// Only runs that no run started.
    pub roots_only: bool,
    /// Only runs of this tenant.
    pub tenant: Option<Name>,
    /// Only runs of this pool.
    pub pool: Option<Name>,
    /// Only runs with all of these tags; a tag without a value matches every value.
    pub tags: Vec<(Name, Option<Name>)>,
    /// Only runs created at or after this.
    pub created_from: Option<Timestamp>,
    /// Only runs created before this.
    pub created_before: Option<Timestamp>,
    /// After this cursor.
    pub cursor: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// One page of a list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The runs.
    pub heads: Vec<Head>,
    /// Where the next page starts; none on the last.
    pub next: Option<String>,
}
