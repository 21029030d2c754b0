//! Puts new runs into the store, and takes over or reopens old ones.

use std::sync::Arc;

use windlass_core::budget::Ceilings;
use windlass_core::file;
use windlass_core::ids::{Digest, Name, RunId, RunIdError};
use windlass_core::input::Input;
use windlass_core::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use windlass_core::machine::{Machine, Program};
use windlass_core::run::{Caller, Origin, Start, Status, TenantScope, Terms};
use windlass_core::value::Value;
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Created, Head, Lease, NewRun, Query, Queueing, StoreError};

use super::drive::{self, Claimed, Parting};
use super::engine::{Engine, EngineError};
use super::send::patiently;
use super::shutdown::Stop;
use crate::commit;
use crate::versions::TAG;

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
    /// How it waits for a worker. What is not said here is as the machine says.
    pub queueing: Queueing,
    /// Who starts it, and within which trace.
    pub caller: Caller,
}

impl Submission {
    /// A run of the default tenant whose id is made, with no bounds but those of its machine.
    #[must_use]
    pub fn new(bundle: Bundle, program: Arc<Program>, input: Value) -> Self {
        Self {
            bundle,
            program,
            input,
            run_id: None,
            ceilings: Ceilings::default(),
            scope: TenantScope::default(),
            origin: None,
            queueing: Queueing::default(),
            caller: Caller::default(),
        }
    }
}

/// A run that was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// Its id.
    pub run_id: RunId,
    /// What the store has of it, when it was there before.
    pub existing: Option<Box<Head>>,
}

/// A run as it would be created.
pub(super) struct Prepared {
    pub(super) digest: Digest,
    /// The bundle; none when the store has it.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) run: NewRun,
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
    /// The input holds a file that is not what it says, in these words.
    #[error("the input holds {0}")]
    File(String),
    /// Too many runs of its tenant wait for a worker.
    #[error("the queue is full: {queued_max} runs of `{tenant}` wait, which is all that are taken of this class")]
    Full {
        /// The tenant.
        tenant: Name,
        /// How many may wait.
        queued_max: u32,
    },
    /// It asks for a pool, and so does its machine.
    #[error("the machine `{machine}` asks for the pool `{asked}` itself, so `{given}` cannot be given")]
    Pool {
        /// The machine.
        machine: Name,
        /// The machine's pool.
        asked: Name,
        /// The caller's pool.
        given: Name,
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
        let parts = &self.core.parts;
        let Prepared { digest, bytes, run } = self.prepare(submission)?;
        self.stow(digest, bytes).await?;
        let (id, input, tenant) = (run.start.id.clone(), run.start.input.clone(), run.start.scope.tenant.clone());
        let queued_max = run.queueing.queued_max.unwrap_or_default();
        match parts.store.create(run).await? {
            Created::Full => Err(SubmitError::Full { tenant, queued_max }),
            Created::New => Ok(Submitted { run_id: id, existing: None }),
            Created::Exists(head) if head.input == input.digest() => Ok(Submitted { run_id: id, existing: Some(head) }),
            Created::Exists(_) => Err(SubmitError::Conflict { run_id: id }),
        }
    }

    /// The run of a submission as it would be created, and the bundle to be stored before it.
    pub(super) fn prepare(&self, submission: Submission) -> Result<Prepared, SubmitError> {
        let Submission { bundle, program, input, run_id, ceilings, scope, origin, queueing, caller } = submission;
        check(&input)?;
        let input = match file::completed(&input).map_err(SubmitError::File)? {
            Some(whole) => check(&whole).map(|()| whole)?,
            None => input,
        };
        let id = match run_id {
            Some(id) => match RunId::new(id.as_str()) {
                Ok(id) => id,
                Err(source) => return Err(SubmitError::Id { run_id: id, source }),
            },
            None => self.fresh_id(),
        };
        let machine = program.machines.get(&program.entry);
        let machine = machine.ok_or_else(|| SubmitError::NoEntry(program.entry.to_string()))?;
        let mut queueing = self.queueing(queueing, machine)?;
        if let Some(version) = &caller.version {
            queueing.tags.insert(TAG.into(), version.clone());
        }
        let now = self.core.parts.clock.now();
        let (digest, bytes) = match self.core.programs.stored_lately(&program, now) {
            Some(digest) => (digest, None),
            None => {
                let bytes = bundle.encode();
                (Digest::of(&bytes), Some(bytes))
            }
        };
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
            terms: Terms::default(),
            watched: false,
            labels: None,
            hidden: windlass_core::hidden::Hidden::default(),
            audit: 0,
            caller,
            model: None,
        };
        self.core.programs.keep(digest, program);
        Ok(Prepared { digest, bytes, run: NewRun { start, at: now, queueing } })
    }

    /// Stores the bundle of a submission, unless the store has it.
    pub(super) async fn stow(&self, digest: Digest, bytes: Option<Vec<u8>>) -> Result<(), StoreError> {
        let Some(bytes) = bytes else { return Ok(()) };
        let parts = &self.core.parts;
        parts.store.put_bundle(digest, bytes).await?;
        self.core.programs.stored(digest, parts.clock.now());
        Ok(())
    }

    /// What the caller says, then what the machine says, and how many may wait.
    fn queueing(&self, given: Queueing, machine: &Machine) -> Result<Queueing, SubmitError> {
        let asked = commit::queueing(machine);
        if let (Some(given), Some(asked)) = (&given.pool, &asked.pool)
            && given != asked
        {
            let (asked, given) = (asked.clone(), given.clone());
            return Err(SubmitError::Pool { machine: machine.name.clone(), asked, given });
        }
        let priority = given.priority.or(asked.priority);
        let queued_max =
            given.queued_max.or_else(|| self.core.parts.settings.queued_max_of(priority.unwrap_or_default()));
        Ok(Queueing { pool: given.pool.or(asked.pool), priority, queued_max, ..given })
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
                let _asking = core.missed.asking();
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
    /// A run that does not exist or has not failed, one that failed of a call of which nobody knows whether it happened,
    /// unless that may be done twice (`anyway`), or a store that fails.
    pub async fn retry(&self, run: &RunId, anyway: bool) -> Result<(), EngineError> {
        self.reopen(run, Input::Retry { anyway }).await
    }

    /// Lets a failed run go past its last state: what is given counts as the output of that state, which does nothing.
    /// The run is in the queue afterwards.
    ///
    /// # Errors
    /// A run that does not exist, has not failed, or failed before its first state, or a store that fails.
    pub async fn skip(&self, run: &RunId, output: Value, by: Name, reason: Name) -> Result<(), EngineError> {
        self.reopen(run, Input::Skip { output, by, reason }).await
    }

    async fn reopen(&self, run: &RunId, input: Input) -> Result<(), EngineError> {
        let core = &self.core;
        let stored = patiently(core, || core.parts.store.load(run.clone())).await?;
        let stored = stored.ok_or_else(|| EngineError::NotFound(run.clone()))?;
        let why = match &input {
            Input::Skip { .. } => "it has not failed",
            _ => "only a run that has failed can be tried again",
        };
        let not_failed =
            || EngineError::Rejected { run: run.clone(), reason: windlass_core::Rejected::NotNow(why.into()) };
        if stored.head.status != Status::Failed {
            return Err(not_failed());
        }
        let worker = patiently(core, || core.worker()).await?.clone();
        let _asking = core.missed.asking();
        let taking = core.parts.store.take_over(run.clone(), worker.clone(), Some(Status::Failed));
        let lease = taking.await?.ok_or_else(not_failed)?;
        self.decide_alone(lease, input).await
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
            (Parting::Ended | Parting::Parked(_) | Parting::Unfit(_) | Parting::HandedBack | Parting::Lost, None) => {
                Ok(())
            }
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
