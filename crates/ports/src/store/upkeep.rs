//! What the port says of keeping a store in order: what may be removed, what is wrong, numbers.

use serde::Serialize;
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;

use super::Priority;

/// Which finished runs to remove, with everything below them. Runs are removed by whole trees, and only once all of their
/// audit rows are sealed: rows that are kept are looked at by no sealer.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// Ended before this.
    pub ended_before: Option<Timestamp>,
    /// Keep this many of each machine, newest first.
    pub keep_per_machine: Option<u64>,
    /// Only runs of this machine.
    pub machine: Option<Name>,
    /// Only callers' runs with all of these tags; a tag without a value matches every value.
    pub tags: Vec<(Name, Option<Name>)>,
    /// Only these trees, by the ids of their first runs. What they held is to be gone: a store that can overwrites it, and
    /// all bundles that no run uses go too.
    pub trees: Option<Vec<RunId>>,
    /// Report, and remove nothing.
    pub dry_run: bool,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Runs.
    pub runs: u64,
    /// Journal rows.
    pub records: u64,
    /// Blobs that nothing refers to any more.
    pub blobs: u64,
    /// Bytes of all these, before compression by the file system.
    pub bytes: u64,
    /// Trees that stay for now, since some of their audit rows are not sealed.
    pub unsealed: u64,
    /// Bundles that no run uses and that stay, since they were stored lately and somebody may be about to use them. Only
    /// looked at when trees are named.
    pub recent: u64,
    /// Others read the log of the file, so that what was removed is still in it. Only looked at when trees are named.
    pub left_in_log: bool,
}

/// Something wrong in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The run concerned.
    pub run: Option<RunId>,
    /// The rule broken: `liveness`, `lease_and_queue`, `journal_gap`, `orphan`, `integrity`, `audit`, `blob`,
    /// `derived`, `budget`, `version`.
    pub rule: Name,
    /// What is wrong.
    pub message: String,
}

/// How many runs wait in a part of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// The pool.
    pub pool: Name,
    /// The class.
    pub priority: Priority,
    /// How many.
    pub runs: u64,
    /// When the one that waits longest began to.
    pub oldest: Timestamp,
}

/// Numbers about a store and what it did in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Version of the schema.
    pub schema: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// Runs by status word.
    pub runs: Vec<(String, u64)>,
    /// Commits made by this process.
    pub commits: u64,
    /// SQL statements run by this process for those commits.
    pub statements: u64,
    /// Transactions made by this process for those commits.
    pub transactions: u64,
    /// Commits refused as stale.
    pub stale: u64,
    /// Workers alive.
    pub workers: u64,
    /// When the run changed that has not changed for longest of those that a worker holds; none when none is held.
    pub held_since: Option<Timestamp>,
    /// Runs in the queue, by pool and class.
    pub queue: Vec<Depth>,
    /// Runs claimed by this process.
    pub claims: u64,
    /// Runs this process took back from workers that are gone.
    pub reaped: u64,
}
