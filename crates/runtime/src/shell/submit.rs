//! Puts new runs into the store, and takes over or reopens old ones.

use std::sync::Arc;

use windlass_core::budget::Ceilings;
use windlass_core::ids::{RunId, RunIdError};
use windlass_core::input::Input;
use windlass_core::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use windlass_core::machine::Program;
use windlass_core::run::{Origin, Start, Status, TenantScope};
use windlass_core::value::Value;
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Created, Head, Lease, NewRun, Query, StoreError};

use super::drive::{self, Claimed, Parting};
use super::engine::{Engine, EngineError};
use super::send::patiently;
use super::shutdown::Stop;

/// A run that is wanted.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What it is pinned to.
    pub bundle: Bundle,
    /// The program of the bundle.
    pub program: Arc<Program>,
    /// Its input.
    pub input: Value,
    /// Its id; one is made when there is none.
    pub run_id: Option<RunId>,
    /// Its bounds; those of the machine apply as well.
    pub ceilings: Ceilings,
    /// Whose it is.
    pub scope: TenantScope,
    /// Where it continues from, for a fork.
    pub origin: Option<Origin>,
}

/// A run that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// Its id.
    pub run_id: RunId,
    /// What the store has of it, when it was there before.
    pub existing: Option<Box<Head>>,
}

/// Why a run cannot be submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another run has this id.
    #[error("run `{run_id}` exists already with another input")]
    Conflict {
        /// The id.
        run_id: RunId,
    },
    /// Too many runs of its tenant wait for a worker.
    #[error("the queue is full")]
    Full,
    /// The id cannot be a caller's.
    #[error("`{run_id}` cannot be the id of a new run: {source}")]
    Id {
        /// The id.
        run_id: RunId,
        /// Why.
        source: RunIdError,
    },
    /// The input is too large.
    #[error("the input has {bytes} bytes, at most {VALUE_BYTES_MAX} are taken")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// The input is nested too deeply.
    #[error("the input is nested {depth} deep, at most {VALUE_DEPTH_MAX} is taken")]
    TooDeep {
        /// Its depth.
        depth: usize,
    },
    /// The program has no machine to start.
    #[error("the program has no machine `{0}`")]
    NoEntry(String),
}

impl Engine {
    /// Creates a run in the queue. The same id with the same input gives the run that is there.
    ///
    /// # Errors
    /// An id that is taken by a run with another input, an input beyond the bounds, a store that fails.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        let Submission { bundle, program, input, run_id, ceilings, scope, origin } = submission;
        check(&input)?;
        let parts = &self.core.parts;
        let id = match run_id {
            Some(id) => match RunId::new(id.as_str()) {
                Ok(id) => id,
                Err(source) => return Err(SubmitError::Id { run_id: id, source }),
            },
            None => self.fresh_id(),
        };
        let machine = program.machines.get(&program.entry);
        let machine = machine.ok_or_else(|| SubmitError::NoEntry(program.entry.to_string()))?;
        let bytes = bundle.encode();
        let digest = windlass_core::ids::Digest::of(&bytes);
        let start = Start {
            id: id.clone(),
            bundle: digest,
            machine: program.entry.clone(),
            machine_name: machine.name.clone(),
            input,
            parent: None,
            root: id.clone(),
            depth: 0,
            scope,
            ceilings: machine.ceilings.tighter(&ceilings),
            deadline: None,
            origin,
        };
        self.core.programs.keep(digest, program);
        parts.store.put_bundle(digest, bytes).await?;
        let input = start.input.clone();
        match parts.store.create(NewRun::new(start, parts.clock.now())).await? {
            Created::New => Ok(Submitted { run_id: id, existing: None }),
            Created::Exists(head) if head.input == input.digest() => Ok(Submitted { run_id: id, existing: Some(head) }),
            Created::Full => Err(SubmitError::Full),
            Created::Exists(_) => Err(SubmitError::Conflict { run_id: id }),
        }
    }

    /// Takes every unfinished run of a tree from whoever holds it, alive or not. Driving goes on with them. Gives
    /// back how many were taken.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn take_over(&self, root: &RunId) -> Result<usize, EngineError> {
        let core = &self.core;
        let worker = patiently(core, || core.worker()).await?.clone();
        let mut query = Query { root: Some(root.clone()), limit: 500, ..Query::default() };
        let mut taken = 0;
        loop {
            let page = patiently(core, || core.parts.store.list(query.clone())).await?;
            for head in page.heads.iter().filter(|head| !head.status.is_final()) {
                if head.owner.as_ref().is_none_or(|owner| *owner == worker) {
                    continue;
                }
                if let Some(lease) = core.parts.store.take_over(head.id.clone(), worker.clone(), None).await? {
                    core.orphan(lease);
                    taken += 1;
                }
            }
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(taken),
            }
        }
    }

    /// Lets a failed run try its last state again. It is in the queue afterwards.
    ///
    /// # Errors
    /// A run that does not exist or has not failed, or a store that fails.
    pub async fn retry(&self, run: &RunId) -> Result<(), EngineError> {
        let core = &self.core;
        let stored = patiently(core, || core.parts.store.load(run.clone())).await?;
        let stored = stored.ok_or_else(|| EngineError::NotFound(run.clone()))?;
        let not_failed = || EngineError::Rejected {
            run: run.clone(),
            reason: windlass_core::Rejected::NotNow("only a run that has failed can be tried again".into()),
        };
        if stored.head.status != Status::Failed {
            return Err(not_failed());
        }
        let worker = patiently(core, || core.worker()).await?.clone();
        let lease = core.parts.store.take_over(run.clone(), worker.clone(), Some(Status::Failed));
        let lease = lease.await?.ok_or_else(not_failed)?;
        self.decide_alone(lease, Input::Retry).await
    }

    /// Decides one input for a run and gives it back to the queue.
    async fn decide_alone(&self, lease: Lease, input: Input) -> Result<(), EngineError> {
        let core = &self.core;
        let worker = core.worker().await?.clone();
        let stop = Stop::new();
        stop.graceful.cancel();
        let run = lease.run.clone();
        let Some(mut claimed) = Claimed::new(core, &worker, lease, &stop) else { return Ok(()) };
        claimed.leaving.store(true, std::sync::atomic::Ordering::Release);
        claimed.extra.push(input);
        let (_, parting, rejected) = drive::drive(claimed, None).await;
        match (parting, rejected) {
            (Parting::Stranded(error), _) => Err(error),
            (_, Some(reason)) => Err(EngineError::Rejected { run, reason }),
            (Parting::Ended | Parting::Parked(_) | Parting::HandedBack | Parting::Lost, None) => Ok(()),
        }
    }

    /// A run id that sorts by time.
    fn fresh_id(&self) -> RunId {
        let clock = &self.core.parts.clock;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&clock.seed().to_le_bytes());
        random[8..].copy_from_slice(&clock.seed().to_le_bytes()[..2]);
        let id = uuid::Builder::from_unix_timestamp_millis(clock.now().0, &random).into_uuid();
        RunId::stored(&id.to_string())
    }
}

fn check(input: &Value) -> Result<(), SubmitError> {
    let bytes = input.size_bytes();
    if bytes > VALUE_BYTES_MAX {
        return Err(SubmitError::TooLarge { bytes });
    }
    let depth = input.depth();
    if depth > VALUE_DEPTH_MAX {
        return Err(SubmitError::TooDeep { depth });
    }
    Ok(())
}
