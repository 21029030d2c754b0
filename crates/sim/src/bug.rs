//! Bugs put in on purpose, to see that they are found: each is a store that breaks one promise.

use std::fmt;

use windlass_core::ids::Digest;
use windlass_core::journal::Record;
use windlass_ports::store::{Claim, Commit, Committed, Keep, Lease, OpId, Query, Store, StoreError};

use crate::store::{SimStore, at_once};

/// A promise of the store that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Decisions count whatever lease they are made under.
    NoFence,
    /// A decision is written twice.
    DoubleSettle,
    /// A decision is acknowledged and not written.
    DroppedAcknowledgement,
    /// A message is acknowledged and not written.
    LostInboxRow,
    /// A run parks although its inbox has something, and nobody is told.
    LostWakeup,
    /// A run is given to another worker while its own is alive.
    EarlyTakeOver,
    /// Nobody is ever told of a claim whose answer was lost.
    ForgottenClaim,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoFence,
        Self::DoubleSettle,
        Self::DroppedAcknowledgement,
        Self::LostInboxRow,
        Self::LostWakeup,
        Self::EarlyTakeOver,
        Self::ForgottenClaim,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFence => "no fence",
            Self::DoubleSettle => "double settle",
            Self::DroppedAcknowledgement => "dropped acknowledgement",
            Self::LostInboxRow => "lost inbox row",
            Self::LostWakeup => "wakeup lost at parking",
            Self::EarlyTakeOver => "take-over while alive",
            Self::ForgottenClaim => "forgotten claim",
        })
    }
}

impl SimStore {
    fn one_in(&self, n: u32) -> bool {
        self.world.draw(|rng| rng.u32(..n)) == 0
    }

    /// Whether a message is lost by this store.
    pub(crate) fn loses_inbox(&self) -> bool {
        self.bug == Some(Bug::LostInboxRow) && self.one_in(3)
    }

    /// What heartbeats tell of the runs that a worker holds.
    pub(crate) fn tells(&self, held: Option<u64>) -> Option<u64> {
        held.filter(|_| !matches!(self.bug, Some(Bug::ForgottenClaim | Bug::LostWakeup)))
    }

    /// Writes a decision as this store does.
    pub(crate) fn apply(&self, commit: Commit) -> Result<Committed, StoreError> {
        let inner = |commit: Commit| at_once(self.inner.commit(commit));
        match self.bug {
            Some(Bug::NoFence) => match inner(commit.clone())? {
                Committed::Stale => inner(self.made_current(commit)),
                applied @ Committed::Applied { .. } => Ok(applied),
            },
            Some(Bug::DroppedAcknowledgement) if self.one_in(20) => {
                Ok(Committed::Applied { held: commit.keep == Keep::Hold, inbox: false, switched: false })
            }
            Some(Bug::DoubleSettle) if self.one_in(10) => {
                let answer = inner(commit.clone())?;
                if let Some(again) = repeated(commit) {
                    let _second = inner(again);
                }
                Ok(answer)
            }
            Some(Bug::LostWakeup) if matches!(commit.keep, Keep::Park { .. }) => {
                let answer = inner(commit)?;
                // The run is kept for the sake of its inbox, and its worker is told that it parked.
                Ok(match answer {
                    Committed::Applied { .. } => Committed::Applied { held: false, inbox: false, switched: false },
                    Committed::Stale => Committed::Stale,
                })
            }
            _ => inner(commit),
        }
    }

    /// The commit as it would have to be to count.
    fn made_current(&self, mut commit: Commit) -> Commit {
        if let Ok(Some(stored)) = at_once(self.inner.load(commit.lease.run.clone())) {
            commit.lease.epoch = stored.head.epoch;
            commit.worker = stored.head.owner.unwrap_or(commit.worker);
        }
        commit
    }

    /// A run of a worker that is alive.
    pub(crate) fn steal(&self, claim: &Claim) -> Option<Lease> {
        if !self.one_in(4) {
            return None;
        }
        let page = at_once(self.inner.list(Query { limit: 100, ..Query::default() })).ok()?;
        let other = |owner: &windlass_ports::store::WorkerId| *owner != claim.worker;
        let head = page.heads.into_iter().find(|head| head.owner.as_ref().is_some_and(other))?;
        at_once(self.inner.take_over(head.id, claim.worker.clone(), None)).ok()?
    }
}

/// The same decision once more, for the version after it.
fn repeated(mut commit: Commit) -> Option<Commit> {
    let mut record = Record::decode(&commit.record.bytes).ok()?;
    record.version += 1;
    commit.expected += 1;
    commit.record.version += 1;
    commit.record.bytes = record.encode();
    let seed = Digest::of(&commit.record.bytes);
    commit.op = OpId(u128::from_le_bytes(*seed.0.first_chunk()?));
    // What its audit rows say must follow the chain; a second set would be found by that alone.
    commit.audit.clear();
    Some(commit)
}
