//! The fleet's part of the port: workers, who gets which run next, and the small objects beside the runs.
//!
//! Plain data. What a store does with it is said at the methods of [`Store`](super::Store).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;

use super::{Priority, WorkerId};

/// What a process says about itself when it becomes a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The host's name.
    pub host: String,
    /// The process id there.
    pub pid: u32,
    /// The build.
    pub build: String,
    /// The pools it works for; every pool when empty.
    pub pools: Vec<Name>,
    /// Runs it decides on at the same time.
    pub claim_slots: u32,
    /// Calls it has out at the same time.
    pub call_slots: u32,
    /// Ids of the keys that it has for an encrypted store, the one that it encrypts with first. The store says them when
    /// the worker joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Name>,
}

/// What a worker does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Runs it holds.
    pub held: u32,
    /// Calls that are out.
    pub calls: u32,
    /// It claims no more.
    pub draining: bool,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The store's time.
    pub now: Timestamp,
    /// Whether the worker still counts as alive. When it does not, all its leases are void and it has to join again.
    pub is_alive: bool,
    /// How soon the next heartbeat is wanted, in milliseconds.
    pub again_ms: u64,
    /// How many runs the worker holds as far as the store knows; none of a store whose answers cannot be lost. More than
    /// it knows of itself, again and again, says that it missed the answer to a claim: see
    /// [`Store::leases`](super::Store::leases).
    pub held: Option<u64>,
}

/// A worker as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// What it said when it joined.
    pub registration: Registration,
    /// What it did at its last heartbeat.
    pub load: Load,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// Whether it counts as alive.
    pub is_alive: bool,
    /// Runs that it holds.
    pub runs: u64,
}

/// What was taken from workers that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reaped {
    /// The workers.
    pub workers: Vec<WorkerId>,
    /// Runs that are in the queue again.
    pub runs: u64,
    /// Runs that are quarantined.
    pub quarantined: Vec<RunId>,
    /// No other worker lives, and [`changed`](super::Store::changed) is sure to tell when one joins: until then nobody
    /// can be lost. A store that cannot be sure says false.
    pub alone: bool,
}

impl Reaped {
    /// The same with what was taken later, which tells who lives now.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        self.workers.extend(later.workers);
        self.workers.sort();
        self.workers.dedup();
        self.quarantined.extend(later.quarantined);
        self.quarantined.sort();
        Self { runs: self.runs + later.runs, alone: later.alone, ..self }
    }
}

/// The pool of runs that ask for none.
pub const POOL_DEFAULT: &str = "default";

/// Stands for whoever may have held a run before a fence. No worker has this id, so nothing is known of what it sent.
pub const FENCED: &str = "fenced";

/// Strikes with which a run is suspect: it is claimed and driven alone. No loss in company makes more of them, because what
/// killed the worker may have been another run.
pub const STRIKES_SUSPECT: u32 = 2;
/// Strikes with which a run is quarantined, by a loss of a worker that held nothing else. A suspect that had company has
/// three such losses ahead of it: where workers are killed from outside again and again, one proves little.
pub const STRIKES_MAX: u32 = STRIKES_SUSPECT + 3;

/// The strikes of a run after one more loss of its worker in a row, which held nothing else or had company. Who was alone
/// the second time is one loss from quarantine: three losses in all.
#[must_use]
pub fn strikes_after(strikes: u32, alone: bool) -> u32 {
    match (strikes, alone) {
        (0, _) => 1,
        (1, true) => STRIKES_MAX - 1,
        (_, true) => strikes + 1,
        (_, false) => strikes.max(STRIKES_SUSPECT),
    }
}

/// Why a run is quarantined after losses of its workers, the last of which was that of `worker`.
#[must_use]
pub fn lost_too_often(worker: &str) -> Name {
    format!("its workers were lost one after another, at last with no other run, with no progress in between, last `{worker}`")
        .into()
}

/// How a run waits for a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queueing {
    /// The pool whose workers take it: that of its parent when none is named, [`POOL_DEFAULT`] without a parent.
    pub pool: Option<Name>,
    /// Its class: that of its parent when none is named.
    pub priority: Option<Priority>,
    /// It is not claimed before, unless something comes into its inbox.
    pub not_before: Option<Timestamp>,
    /// Words to find it by: those of its parent as well.
    pub tags: BTreeMap<Name, Name>,
    /// It is refused when this many runs of its tenant are in the queue already, those that are not to be claimed yet
    /// not counted. Children, which are created with the commit of their parent, are never refused.
    pub queued_max: Option<u32>,
}

/// The exclusive right to decide for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Grows with every claim; a write with an older one changes nothing.
    pub epoch: u64,
    /// The dead process whose calls have to be dealt with: the one that held the run when it was last decided on, when
    /// it did not let go. Stays until the next commit, whoever takes the run in between.
    pub taken_from: Option<WorkerId>,
    /// Losses of its worker in a row, as [`strikes_after`] counts them, with no progress in between: with no decision, or
    /// none but that calls were lost. With [`STRIKES_SUSPECT`] a claim takes it with nothing else, and it is to be driven
    /// alone; with [`STRIKES_MAX`] it is quarantined and nobody gets it.
    pub strikes: u32,
    /// The run's own class, whatever its machine says.
    pub priority: Priority,
}

impl Lease {
    /// Whether the run may only be driven alone.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.strikes >= STRIKES_SUSPECT
    }
}

/// Which runs a worker wants.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who claims.
    pub worker: WorkerId,
    /// How many at most.
    pub limit: usize,
    /// Only this caller's run and everything below it, first come, first served. Whoever drives one tree drives it
    /// whole: neither pools nor classes nor the bound of its tenant are looked at.
    pub within: Option<RunId>,
    /// Runs whose time has come by now are claimable.
    pub now: Timestamp,
    /// Only runs of these pools; of every pool when empty.
    pub pools: Vec<Name>,
    /// No run of a tenant of which workers hold this many already. Runs of a tenant may be held beyond it for a moment
    /// when several workers claim at once.
    pub tenant_held_max: Option<u32>,
    /// The lowest class first, so that it is not forgotten.
    pub lowest_first: bool,
}

impl Claim {
    /// Any run of the store, in the ordinary order.
    #[must_use]
    pub fn any(worker: WorkerId, limit: usize, now: Timestamp) -> Self {
        Self { worker, limit, within: None, now, pools: Vec::new(), tenant_held_max: None, lowest_first: false }
    }
}

/// Something small that is kept beside the runs and changed by whoever read it last: a schedule, a run key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key, unique for its kind.
    pub key: Name,
    /// Grows with every change, also when the object is removed and made again: of one key no revision comes twice.
    pub revision: u64,
    /// What it is.
    pub bytes: Vec<u8>,
}

/// A change of an [`Object`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What it is for, such as `schedule`.
    pub kind: Name,
    /// Its key.
    pub key: Name,
    /// The revision that it replaces; 0 when there must be none.
    pub expected: u64,
    /// The new bytes; none removes it.
    pub bytes: Option<Vec<u8>>,
}

/// The kind of the objects that are read-only switches: one for the environment, one for each tenant that has one. Their
/// revisions are compared with [`Commit::begins`](super::Commit::begins); what their bytes say is the runtime's.
pub const SWITCHES: &str = "read_only";

/// The key of the switch of a tenant, or of the whole environment.
#[must_use]
pub fn switch_key(tenant: Option<&str>) -> Name {
    tenant.map_or_else(|| "environment".into(), |tenant| format!("tenant:{tenant}").into())
}

/// The epoch of the switches of a run: the sum of the revisions of that of the environment and that of its tenant, 0 for
/// one that there is not. Every change of either makes another one.
#[must_use]
pub fn switch_epoch(environment: u64, tenant: u64) -> u64 {
    environment.saturating_add(tenant)
}
