//! What processes did and what the world saw of it: plain records that simulated and real processes both write, one
//! JSON object a line, and the checks that find a broken promise in them.
//!
//! Pure: knows no store, no clock and no async runtime, but for [`collect`], which reads what a store has in the end.

pub mod check;
pub mod collect;
pub mod linear;
mod path;

use std::fmt;

use serde::{Deserialize, Serialize};
use windlass_core::audit;
use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::journal;
use windlass_core::run::{Start, Status};

/// The fault that may take claims back which nothing durable had followed: the server of the database is restarted.
pub const DATABASE_RESTARTED: &str = "restart the database";

pub use check::{Violation, check};
pub use collect::collect;

/// How an operation ended, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Result {
    /// It happened.
    Ok,
    /// It did not happen, and never will.
    Fail,
    /// Nobody knows.
    Info,
}

/// A lease as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The run.
    pub run: RunId,
    /// Its epoch.
    pub epoch: u64,
    /// The worker it was taken from, when that one did not let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<Name>,
}

/// What a process did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Created a run.
    Create {
        /// The run.
        run: RunId,
    },
    /// Became a worker, or gave a sign of life. Its leases are good until then, in milliseconds.
    Alive {
        /// The worker.
        worker: Name,
        /// The last moment at which nobody may take its runs.
        until: u64,
    },
    /// A worker ended, or was found to have ended.
    Down {
        /// The worker.
        worker: Name,
    },
    /// Claimed runs.
    Claim {
        /// For this worker.
        worker: Name,
        /// What it got.
        leases: Vec<Granted>,
    },
    /// Took a run from whoever held it, because a person said so.
    TakeOver {
        /// What it got.
        lease: Granted,
    },
    /// Committed a decision.
    Commit {
        /// The run.
        run: RunId,
        /// Epoch of the lease.
        epoch: u64,
        /// The run's version after it.
        version: u64,
        /// Hash of the journal row.
        row: Digest,
    },
    /// Saw a run at a version.
    Read {
        /// The run.
        run: RunId,
        /// The version.
        version: u64,
    },
    /// Put something into an inbox.
    Deliver {
        /// The run.
        run: RunId,
        /// Id of the message.
        id: Name,
    },
    /// Sent a signal.
    Signal {
        /// The signal.
        id: Name,
        /// The channel.
        channel: Name,
    },
    /// Changed an object that is compared and set.
    Put {
        /// Kind and key.
        object: Name,
        /// The revision it replaces; 0 when there must be none.
        expected: u64,
    },
    /// Read an object.
    Get {
        /// Kind and key.
        object: Name,
        /// Its revision; 0 when there is none.
        revision: u64,
    },
    /// A fault was made to happen.
    Fault {
        /// Which, and to whom. [`DATABASE_RESTARTED`] for one that may take claims back.
        what: Name,
    },
    /// Anything else that is of use to whoever reads the history.
    Other {
        /// What.
        what: Name,
    },
}

/// One operation of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who.
    pub process: Name,
    /// What.
    #[serde(flatten)]
    pub op: Op,
    /// Names the operation where it may be repeated, such as the id of a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<Name>,
    /// When it was begun, in milliseconds on the clock of whoever keeps the history.
    pub start: u64,
    /// When its end was known; equal to the last moment of the history when it never was.
    pub end: u64,
    /// How it ended.
    pub result: Result,
}

/// One call that reached the world, written down by the world itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Who called.
    pub process: Name,
    /// The idempotency key that came with the call.
    pub key: Name,
    /// The run it was for.
    pub run: RunId,
    /// The effect within the run.
    pub effect: EffectId,
    /// The attempt; 0 when the call does not say.
    pub attempt: u32,
    /// `model`, `tool`, `action`, `verify`, `hook`.
    pub kind: Name,
    /// Whom it called.
    pub target: Name,
    /// What it does to the world.
    pub class: Class,
    /// Whether a repeat is harmless.
    pub idempotency: Idempotency,
    /// Hash of the arguments.
    pub arguments: Digest,
    /// When it reached the world.
    pub at: u64,
    /// Whether it changed the world: not when it failed before, nor when a repeat was recognised by its key.
    pub happened: bool,
    /// What the world answered.
    pub result: Result,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of `{}` at {} ms by `{}`", self.kind, self.target, self.key, self.at, self.process)
    }
}

/// A journal row as it is in the end.
#[derive(Clone, Debug)]
pub struct Row {
    /// Hash of the row's bytes.
    pub digest: Digest,
    /// What it says.
    pub record: journal::Record,
}

/// A run as it is in the end.
#[derive(Clone, Debug)]
pub struct RunEnd {
    /// How it began.
    pub start: Start,
    /// Its lifecycle word.
    pub status: Status,
    /// Its version.
    pub version: u64,
    /// Its journal, oldest first.
    pub rows: Vec<Row>,
    /// Its audit rows, oldest first.
    pub audit: Vec<audit::Row>,
    /// Open waits.
    pub waits: u64,
    /// Whether something is in its inbox.
    pub inbox: u64,
}

/// Everything that is known about what happened.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What processes did, in the order in which it ended.
    pub records: Vec<Record>,
    /// What reached the world, in order.
    pub effects: Vec<Effect>,
    /// Every run as it is in the end.
    pub runs: Vec<RunEnd>,
}
