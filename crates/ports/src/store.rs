//! The store as a port: where runs live, and the one way to change them.
//!
//! Everything that a decision changes is one [`Commit`], written whole or not at all, and only when the run is still
//! as it was when it was loaded. Whoever does not hold a run may only add to its inbox.

pub mod escrow;
mod fleet;
mod layer;
mod query;
pub mod rates;
mod trail;
mod upkeep;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::{Input, Sent};
pub use windlass_core::machine::Priority;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use crate::BoxFuture;

pub use fleet::{
    Beat, Claim, FENCED, Lease, Load, Object, POOL_DEFAULT, Put, Queueing, Reaped, Registration, STRIKES_MAX,
    STRIKES_SUSPECT, SWITCHES, WorkerRow, lost_too_often, strikes_after, switch_epoch, switch_key,
};
pub use layer::{Answer, Layer};
pub use query::{Page, Query};
pub use trail::{Deed, Grown, Kept, Mark, Pruning, Removed, Sealing, Trail, Unread, Unsealed};
pub use upkeep::{Depth, Finding, Pruned, Retention, Stats};

/// What can go wrong. A run is untouched by any of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or cannot be written now. Whether a write happened is not known.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored is not what was written.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store was written by a newer build.
    #[error("the store has schema {found}, this build knows up to {known}")]
    NewerSchema {
        /// The version found.
        found: u32,
        /// The newest version this build knows.
        known: u32,
    },
    /// The request makes no sense to the store.
    #[error("{0}")]
    Invalid(String),
    /// What is stored is encrypted and the key is not there, or is another one; or it is not encrypted and keys are there.
    /// Nothing was changed.
    #[error("{0}")]
    Key(String),
}

/// Whose disk is full, when nobody there knows the store by a name. Whoever does says it in this place.
pub const THE_STORE: &str = "the store";

/// How the text of a full disk begins.
const DISK_FULL: &str = "the disk of ";

impl StoreError {
    /// The disk of the store, or of something beside it, is full: nothing was written, reads go on, and what is tried
    /// again works once there is room. `whose` and `why` are for people.
    #[must_use]
    pub fn disk_full(whose: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Unavailable(format!("{DISK_FULL}{whose} is full: {why}"))
    }

    /// Whether it was made by [`StoreError::disk_full`].
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Unavailable(text) if text.starts_with(DISK_FULL))
    }
}

/// A process that holds runs. Unique for the life of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub Name);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one commit, so that one whose outcome is unknown can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(pub u128);

/// A run to be created.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// How it begins.
    pub start: Start,
    /// When.
    pub at: Timestamp,
    /// How it waits for a worker.
    pub queueing: Queueing,
}

impl NewRun {
    /// A run that waits in the ordinary way.
    #[must_use]
    pub fn new(start: Start, at: Timestamp) -> Self {
        Self { start, at, queueing: Queueing::default() }
    }
}

/// The answer to creating a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It is new.
    New,
    /// A run of that id exists already.
    Exists(Box<Head>),
    /// [`Queueing::queued_max`] runs of its tenant are in the queue: nothing was written.
    Full,
}

/// A stored run at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its id.
    pub id: RunId,
    /// Its lifecycle word. A run in the queue reads `queued` whatever it waited for before, as does one that nobody has
    /// held yet. A quarantined one reads `quarantined`.
    pub status: Status,
    /// Name of its machine.
    pub machine: Name,
    /// Its current state.
    pub state: Option<Name>,
    /// Its steps.
    pub step: u64,
    /// Decisions so far.
    pub version: u64,
    /// Fencing epoch.
    pub epoch: u64,
    /// Who holds it.
    pub owner: Option<WorkerId>,
    /// Who started it.
    pub parent: Option<RunId>,
    /// First ancestor.
    pub root: RunId,
    /// Nesting.
    pub depth: u32,
    /// Its tenant.
    pub tenant: Name,
    /// Bundle it is pinned to.
    pub bundle: Digest,
    /// Hash of its input.
    pub input: Digest,
    /// Earliest timer, or the time before which it is not claimed.
    pub wake_at: Option<Timestamp>,
    /// The pool whose workers take it.
    pub pool: Name,
    /// Its class.
    pub priority: Priority,
    /// Words to find it by.
    pub tags: BTreeMap<Name, Name>,
    /// Losses of its worker in a row with no progress in between, as [`strikes_after`] counts them.
    pub strikes: u32,
    /// Why it is quarantined, when it is.
    pub quarantine: Option<Name>,
    /// How often a person took it out of quarantine, or from the worker that held it.
    pub helped: u32,
    /// Tokens used, finished children included.
    pub tokens: u64,
    /// Micro-USD used, finished children included.
    pub cost_micros: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A run as stored: fold `records` over `snapshot`, or over the blank run of `start`.
#[derive(Clone, Debug)]
pub struct Stored {
    /// At a glance.
    pub head: Head,
    /// How it begins.
    pub start: Start,
    /// The latest snapshot: bytes of [`windlass_core::snapshot`].
    pub snapshot: Option<Vec<u8>>,
    /// Records after the snapshot, oldest first.
    pub records: Vec<JournalRow>,
    /// Whether its inbox has rows that no decision took.
    pub inbox: bool,
}

/// One row of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// The run's version after it.
    pub version: u64,
    /// Bytes of a [`windlass_core::journal::Record`], large values moved out.
    pub bytes: Vec<u8>,
    /// Blobs that the bytes refer to.
    pub blobs: Vec<Digest>,
}

/// What becomes of the lease with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The worker goes on.
    Hold,
    /// The run waits. The lease is kept after all when the inbox has something.
    Park {
        /// Earliest timer.
        wake_at: Option<Timestamp>,
    },
    /// The run goes back to the queue.
    HandBack,
    /// The run is over.
    End,
}

/// What the hot row says after a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadUpdate {
    /// Lifecycle word.
    pub status: Status,
    /// Current state.
    pub state: Option<Name>,
    /// Steps.
    pub step: u64,
    /// Tokens used.
    pub tokens: u64,
    /// Micro-USD used.
    pub cost_micros: u64,
    /// The bundle, which a migration changes.
    pub bundle: Digest,
    /// The pool that its next step asks for, when it is another one than before. Children created with the same commit
    /// that name no pool get the one before.
    pub pool: Option<Name>,
    /// Losses of its worker in a row that count on: none, but for a decision that is no progress, which only records that
    /// a call was lost. That has those of its lease.
    pub strikes: u32,
}

/// A wait as a row, found by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitRow {
    /// The wait.
    pub effect: EffectId,
    /// Its channel.
    pub channel: Name,
    /// What it is for.
    pub kind: WaitKind,
    /// When it gives up.
    pub due: Option<Timestamp>,
}

/// An input for another run.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The run.
    pub to: RunId,
    /// Makes a second delivery harmless.
    pub id: Name,
    /// The input.
    pub input: Input,
}

/// Everything one decision changes.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Names this commit.
    pub op: OpId,
    /// The lease it is made under.
    pub lease: Lease,
    /// Who holds the lease.
    pub worker: WorkerId,
    /// The version it was decided on; the row must still have it.
    pub expected: u64,
    /// The new hot row.
    pub head: HeadUpdate,
    /// The journal row, for version `expected + 1`.
    pub record: JournalRow,
    /// When it was decided.
    pub at: Timestamp,
    /// A snapshot of the run after this commit, when one is due.
    pub snapshot: Option<Vec<u8>>,
    /// Blobs that are new, by hash.
    pub blobs: Vec<(Digest, Vec<u8>)>,
    /// Audit rows, in order.
    pub audit: Vec<audit::Row>,
    /// Waits that opened. A buffered signal on the channel of a signal wait goes to this run's inbox at once: the
    /// oldest that names this run, or else the oldest that names none.
    pub waits_opened: Vec<WaitRow>,
    /// Waits that closed.
    pub waits_closed: Vec<EffectId>,
    /// Runs to create.
    pub children: Vec<NewRun>,
    /// Inputs for other runs. One for a run that has ended, or does not exist, is dropped.
    pub messages: Vec<Message>,
    /// Rows of this run's inbox that the decision used.
    pub taken: Vec<u64>,
    /// What becomes of the lease.
    pub keep: Keep,
    /// The [`switch_epoch`] under which it begins calls that change something, if it does; compared as it is written.
    pub begins: Option<u64>,
}

impl Commit {
    /// What every store refuses before it looks at the run.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a record of the wrong version, a final status without [`Keep::End`] or the other
    /// way round, and a blob that is not what its hash says.
    pub fn check(&self) -> Result<(), StoreError> {
        let run = &self.lease.run;
        if self.record.version != self.expected.saturating_add(1) {
            let (found, expected) = (self.record.version, self.expected);
            return Err(StoreError::Invalid(format!("the record of `{run}` has version {found} after {expected}")));
        }
        if self.head.status.is_final() != (self.keep == Keep::End) {
            let status = self.head.status.as_str();
            return Err(StoreError::Invalid(format!("`{run}` cannot be `{status}` with lease {:?}", self.keep)));
        }
        match self.blobs.iter().find(|(digest, bytes)| Digest::of(bytes) != *digest) {
            Some((digest, _)) => Err(StoreError::Invalid(format!("a blob of `{run}` is not `{}`", digest.short()))),
            None => Ok(()),
        }
    }
}

/// The answer to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is durable.
    Applied {
        /// Whether the worker still holds the run.
        held: bool,
        /// Whether the run's inbox has something.
        inbox: bool,
        /// A read-only switch of the run was changed since [`Commit::begins`]: no call of class `write` or `danger` may
        /// leave before the switches were looked at again.
        switched: bool,
    },
    /// The lease or the version is not the current one: nothing was written.
    Stale,
}

/// Something in a run's inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxItem {
    /// Place in the inbox; grows.
    pub number: u64,
    /// The input's id.
    pub id: Name,
    /// The input.
    pub input: Input,
}

/// The answer to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the inbox.
    Accepted,
    /// It already was.
    Duplicate,
    /// No such run.
    NotFound,
    /// The run is over.
    Finished,
}

/// A message to whoever waits on a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Makes a second sending harmless.
    pub id: Name,
    /// The channel.
    pub channel: Name,
    /// Only this run.
    pub run: Option<RunId>,
    /// The data.
    pub data: Value,
    /// When it was sent.
    pub at: Timestamp,
}

impl Signal {
    /// What a wait of a run gets from this signal.
    #[must_use]
    pub fn message(&self, to: &RunId, wait: EffectId) -> Message {
        let input = Input::Signalled { wait, signal: self.id.clone(), data: self.data.clone() };
        Message { to: to.clone(), id: format!("signal:{}{wait}", self.id).into(), input }
    }
}

/// The answer to a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// It went to every run that waited on the channel.
    Delivered(Vec<RunId>),
    /// Nobody waits; the next run to wait on the channel gets it.
    Buffered,
    /// A signal of this id was sent before.
    Duplicate,
    /// No such run.
    NotFound,
    /// The run is over.
    Finished,
}

/// A durable store of runs.
pub trait Store: Send + Sync + fmt::Debug {
    /// Registers this process as a worker that lives until the handle is dropped or the process dies.
    fn join(&self, registration: Registration) -> BoxFuture<'_, Result<WorkerId, StoreError>>;

    /// A sign of life of a worker of this process. Its leases last as long as it comes in time.
    ///
    /// [`StoreError::NewerSchema`] says that it was taken, and that another process has brought the schema beyond what
    /// this build knows: it may finish what it holds, and must claim no more.
    fn beat(&self, worker: WorkerId, load: Load) -> BoxFuture<'_, Result<Beat, StoreError>>;

    /// The leases of a worker of this process, as if they were just claimed: for one that missed the answer to a claim.
    fn leases(&self, worker: WorkerId) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>>;

    /// Whether the leases of a worker of this process are surely still its own, as far as can be told without asking
    /// anyone. Asked right before a call leaves: a worker that slept through its lease must not send anything.
    fn is_current(&self, worker: &WorkerId) -> bool;

    /// A worker of this process ends. What it holds is at the front of the queue again, and was lost by it: its calls
    /// have to be dealt with. No loss is counted.
    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Puts the runs of workers that are gone into the queue again, and quarantines those that were lost
    /// again and again, at last alone ([`STRIKES_MAX`]). Safe to be done by everyone at any time. The answer has what
    /// claims of this handle took back since the last one too, so that each loss is told once.
    fn reap(&self) -> BoxFuture<'_, Result<Reaped, StoreError>>;

    /// Workers, alive ones first.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRow>, StoreError>>;

    /// Stores a bundle under its hash.
    fn put_bundle(&self, digest: Digest, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A blob or a bundle by its hash.
    fn blob(&self, digest: Digest) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>>;

    /// Creates a run in the queue, once.
    fn create(&self, run: NewRun) -> BoxFuture<'_, Result<Created, StoreError>>;

    /// Takes runs that are in the queue. Classes in order, and within a class from each tenant that waits in turn, so
    /// that one with many runs does not hold up the others; runs of one tenant and class first come, first served. Of
    /// runs that are suspect only the first is taken, and nothing with it.
    ///
    /// Runs whose time has come are put into the queue first, and those whose owner is known to be dead at its front,
    /// whoever may take them then: this is [`Store::reap`] too, whose next answer tells of them.
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Vec<Lease>, StoreError>>;

    /// Takes one run from whoever holds it, alive or not, and out of quarantine. The other's writes change nothing from
    /// then on. None when there is no such run, it has ended otherwise than by a failure, or its status is not the
    /// expected one.
    fn take_over(
        &self,
        run: RunId,
        worker: WorkerId,
        expected: Option<Status>,
    ) -> BoxFuture<'_, Result<Option<Lease>, StoreError>>;

    /// A run as stored.
    fn load(&self, run: RunId) -> BoxFuture<'_, Result<Option<Stored>, StoreError>>;

    /// The start of a run that was just claimed, when the store has it in memory and there was nothing else to read at
    /// the time of the claim: no decision and no inbox. Told once; [`Store::load`] and [`Store::inbox`] tell the same.
    fn newborn(&self, _: &Lease) -> Option<Start> {
        None
    }

    /// Writes a decision, whole or not at all. On [`StoreError::Unavailable`] the outcome is unknown until
    /// [`Store::was_committed`] tells.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>>;

    /// Whether the commit of this id is durable.
    fn was_committed(&self, run: RunId, op: OpId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Ends the quarantine of a run: it is in the queue again, with no losses counted. False when it has none.
    fn requeue(&self, run: RunId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Voids every lease and every worker, and quarantines every unfinished run with this reason: what is in the store
    /// may be older than what its runs have done. Their open calls may have left since, so whoever takes such a run next
    /// takes it from [`FENCED`]. Gives back how many were quarantined by this.
    fn fence(&self, reason: Name) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Gives a run back to the queue, or parks it, without a decision.
    fn release(&self, lease: Lease, worker: WorkerId, keep: Keep) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A run's inbox, oldest first.
    fn inbox(&self, run: RunId) -> BoxFuture<'_, Result<Vec<InboxItem>, StoreError>>;

    /// Adds to a run's inbox, and puts the run in the queue when nobody holds it and it is not quarantined.
    fn deliver(&self, message: Message) -> BoxFuture<'_, Result<Delivered, StoreError>>;

    /// Sends a signal.
    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<Signalled, StoreError>>;

    /// When the next parked run is due, within a tree or at all.
    fn next_due(&self, within: Option<RunId>) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>>;

    /// Resolves when another process, or another part of this one, may have put something in the queue or in an
    /// inbox, or has joined. A hint: it may come for nothing.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Notes, in a way that survives the death of this process, that a call is about to leave it. Cheap, not durable
    /// against power loss: [`Store::was_sent`] answers [`Sent::Maybe`] whenever it cannot be sure.
    ///
    /// # Errors
    /// The note cannot be made; the call must not leave.
    fn mark_sent(&self, run: &RunId, effect: EffectId, attempt: u32) -> Result<(), StoreError>;

    /// The call is settled and durable; its mark may be reused.
    fn clear_sent(&self, run: &RunId, effect: EffectId, attempt: u32);

    /// Whether a call of a dead worker may have left its process.
    fn was_sent(&self, worker: &WorkerId, run: &RunId, effect: EffectId, attempt: u32) -> Sent;

    /// An object.
    fn object(&self, kind: Name, key: Name) -> BoxFuture<'_, Result<Option<Object>, StoreError>>;

    /// Objects of a kind in the order of their keys, after a key.
    fn objects(&self, kind: Name, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<Object>, StoreError>>;

    /// Changes an object when it is still as expected. False when it is not: nothing was written. Every commit that is
    /// durable after a change of [`SWITCHES`] has seen it.
    fn put_object(&self, put: Put) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Answers a draw on budgets, or a return of what was drawn, in one transaction over all scopes that it names: see
    /// [`escrow`]. The same number again gets the answer of the first, an older one changes nothing.
    fn draw(&self, draw: Draw) -> BoxFuture<'_, Result<Drawn, StoreError>>;

    /// Rows of a journal after a version, oldest first.
    fn journal(&self, run: RunId, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<JournalRow>, StoreError>>;

    /// Audit rows of a run, oldest first. Those of a removed run are in [`Trail::kept`].
    fn audit(&self, run: RunId) -> BoxFuture<'_, Result<Vec<audit::Row>, StoreError>>;

    /// Token buckets that all processes of the store share.
    fn rates(&self) -> &dyn rates::Rates;

    /// The audit trail beside the rows of runs.
    fn trail(&self) -> &dyn Trail;

    /// Open waits of a run and, with `tree`, of everything below it.
    fn waits(&self, run: RunId, tree: bool) -> BoxFuture<'_, Result<Vec<(RunId, WaitRow)>, StoreError>>;

    /// Ids of all runs after one, in the order of their bytes: for going through a store whose rows may be damaged.
    fn ids(&self, after: Option<RunId>, limit: usize) -> BoxFuture<'_, Result<Vec<RunId>, StoreError>>;

    /// Lists runs.
    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Removes finished runs. Ids of signals that were used before [`Retention::ended_before`] are forgotten.
    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned, StoreError>>;

    /// Checks everything that can be checked without a machine.
    fn fsck(&self) -> BoxFuture<'_, Result<Vec<Finding>, StoreError>>;

    /// Numbers.
    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>>;

    /// Copies the store to a new file while it is in use.
    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>>;
}
