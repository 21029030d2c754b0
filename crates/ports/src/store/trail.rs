//! The audit trail of a store beside its runs: seals over chains, rows of runs that were removed, and what people did.
//!
//! Rows of runs are written with their decisions, by [`super::Commit`]; nothing here adds to them.

use std::fmt;

use windlass_core::audit::{self, Act, Chain};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{Last, Segment};
use windlass_core::time::Timestamp;

use super::StoreError;
use crate::BoxFuture;

/// How far a store's audit rows are sealed. Only the store that gave it can read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Place among the rows of runs.
    pub rows: i64,
    /// Place among the rows of acts.
    pub acts: i64,
    /// What was seen, where rows have no order.
    pub seen: String,
    /// Place among the rows of before there were seals; none when all of them are sealed.
    pub backlog: Option<String>,
}

/// A chain that grew since the last seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// The tenant.
    pub tenant: Name,
    /// The run, or [`windlass_core::seal::ACTS`].
    pub run: RunId,
    /// Its end.
    pub chain: Chain,
}

/// What is not sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsealed {
    /// Grows with every seal: the right to make the next one.
    pub epoch: u64,
    /// When the last one was made, by the store's time.
    pub sealed_at: Timestamp,
    /// The store's time.
    pub now: Timestamp,
    /// Chains that grew, each once.
    pub chains: Vec<Grown>,
    /// The last segment of each of their tenants.
    pub last: Vec<(Name, Last)>,
    /// How far this goes.
    pub mark: Mark,
    /// There is more after it.
    pub more: bool,
    /// Chains whose end cannot be read, and which are left out.
    pub unread: Vec<Unread>,
    /// What says how far seals go cannot be true: everything is to be sealed once more, beginning with this.
    pub lost: Option<String>,
}

/// A chain that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The tenant.
    pub tenant: Name,
    /// The run, or [`windlass_core::seal::ACTS`].
    pub run: RunId,
    /// Why.
    pub message: String,
}

/// Segments to be stored.
#[derive(Clone, Debug)]
pub struct Sealing {
    /// The epoch they were made under; another sealer's makes this one void.
    pub epoch: u64,
    /// How far they go.
    pub mark: Mark,
    /// When, by the store's time.
    pub at: Timestamp,
    /// The segments.
    pub segments: Vec<Segment>,
}

/// Audit rows of a run that was removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Place in the order of removals.
    pub number: u64,
    /// The run.
    pub run: RunId,
    /// Its tenant.
    pub tenant: Name,
    /// Its rows, in order; why they cannot be read when that is so.
    pub rows: Result<Vec<audit::Row>, String>,
}

/// Of what the removed runs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// All that had this id.
    Run(RunId),
    /// All of a tenant.
    Tenant(Name),
}

/// What is to be removed of the trail of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// The tenant.
    pub tenant: Name,
    /// Its segments up to this number.
    pub segments: u64,
    /// Its acts up to this number.
    pub acts: u64,
    /// Rows of removed runs, by the numbers of their removals.
    pub kept: Vec<u64>,
}

/// The audit trail of a store.
pub trait Trail: Send + Sync + fmt::Debug {
    /// Chains that grew since the last seal: as many rows as `limit` are looked at. Everything that was committed before
    /// is in this answer or in a later one. A chain that cannot be read holds up no other.
    fn unsealed(&self, limit: usize) -> BoxFuture<'_, Result<Unsealed, StoreError>>;

    /// Stores segments. False when another sealer was faster: nothing was written.
    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Segments of a tenant after a number, in order.
    fn segments(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Segment>, StoreError>>;

    /// Tenants that have segments, acts or rows of removed runs, by name.
    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Name>, StoreError>>;

    /// Rows of removed runs after a number.
    fn kept(&self, of: Removed, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Kept>, StoreError>>;

    /// Adds to what people did in a tenant. False when the act is not the next one: nothing was written.
    fn act(&self, tenant: Name, act: Act) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// What people did in a tenant after a number, in order.
    fn acts(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Act>, StoreError>>;

    /// Removes what is no longer wanted of a trail, all of it or nothing. That the rest can be checked without is for the
    /// caller to see to.
    fn cut(&self, pruning: Pruning) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The last act of a tenant.
    fn last_act(&self, tenant: Name) -> BoxFuture<'_, Result<Option<Act>, StoreError>>;
}

/// Tries to be the next to add an act.
const TRIES_MAX: u32 = 64;

/// An act without its place.
#[derive(Clone, Debug)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Name,
    /// What, as `noun.verb`.
    pub action: Name,
    /// To what.
    pub subject: Name,
    /// More about it.
    pub detail: Option<Name>,
}

impl dyn Trail + '_ {
    /// Adds to what people and processes did in a tenant. Durable when it returns.
    ///
    /// # Errors
    /// The store fails, or others add all the time.
    pub async fn note(&self, tenant: &Name, deed: Deed) -> Result<Act, StoreError> {
        let Deed { at, actor, action, subject, detail } = deed;
        for _ in 0..TRIES_MAX {
            let last = self.last_act(tenant.clone()).await?;
            let (number, previous) = last.map_or((1, Digest::ZERO), |last| (last.number + 1, last.hash()));
            let (actor, action) = (actor.clone(), action.clone());
            let act = Act { number, at, actor, action, subject: subject.clone(), detail: detail.clone(), previous };
            if self.act(tenant.clone(), act.clone()).await? {
                return Ok(act);
            }
        }
        Err(StoreError::Unavailable(format!("others add to the audit trail of `{tenant}` all the time")))
    }
}
