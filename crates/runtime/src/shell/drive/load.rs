//! Brings a claimed run into memory, and finds what it has to hear first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use windlass_core::ids::{Name, RunId};
use windlass_core::input::{Input, Sent};
use windlass_core::run::{Hold, Run, Stage, Status};
use windlass_ports::store::{InboxItem, Query, StoreError, Stored, WorkerId};

use super::{Claimed, Fault, Ready, Source, Work};
use crate::fold::{self, Folded, Tail};
use crate::recover;
use crate::shell::engine::{Core, EngineError};
use crate::shell::execute::Calls;
use crate::shell::programs::{Loaded, ProgramError};
use crate::shell::send::patiently;
use crate::shell::unfit::unlisted;
use crate::timers::Timers;

/// What this worker lacks to go on with a run; nothing where the run has yet to hear of what ends that it needs it.
async fn lacking(core: &Core, loaded: &Loaded, run: &Run) -> Result<Option<Name>, StoreError> {
    if loaded.lacks.is_some() {
        return Ok(loaded.lacks.clone());
    }
    let Some(model) = unlisted(&loaded.machine, run, &*core.parts.model) else { return Ok(None) };
    let inbox = patiently(core, || core.parts.store.inbox(run.id().clone())).await?;
    let is_remedy = |input: &Input| matches!(input, Input::ModelChanged(_) | Input::Cancel { .. });
    Ok((!inbox.iter().any(|item| is_remedy(&item.input))).then_some(model))
}

/// Children looked up at a time.
const PAGE: usize = 500;

impl<'a> Work<'a> {
    /// The run of a claim, with nothing begun.
    pub(super) async fn load(
        claimed: &'a Claimed,
        permit: Option<OwnedSemaphorePermit>,
        ready: &'a mut VecDeque<Ready>,
    ) -> Result<Self, Fault> {
        let core = &claimed.core;
        let mut inbox_flag = true;
        let (folded, pool, loaded) = match core.warm(&claimed.lease) {
            Some(warm) => (Folded { run: warm.run, tail: warm.tail }, warm.pool, warm.loaded),
            None => {
                let (folded, pool) = match core.parts.store.newborn(&claimed.lease) {
                    Some(start) => {
                        inbox_flag = false;
                        (Folded { run: Run::blank(start), tail: Tail::default() }, None)
                    }
                    None => {
                        let stored = stored(core, &claimed.lease.run).await?;
                        let pool = stored.head.pool.clone();
                        inbox_flag = stored.inbox;
                        (folded(core, stored).await?, Some(pool))
                    }
                };
                let loaded = program(core, &folded.run).await?;
                (folded, pool, loaded)
            }
        };
        if claimed.serving
            && let Some(lacks) = lacking(core, &loaded, &folded.run).await?
        {
            return Err(Fault::Unfit(lacks));
        }
        Ok(Self {
            claimed,
            permit,
            inbox_flag,
            run: folded.run,
            loaded,
            tail: folded.tail,
            pool,
            calls: Calls::default(),
            timers: Timers::default(),
            recovering: VecDeque::new(),
            ready,
            dropped: Vec::new(),
            inbox_seen: 0,
            inbox_left: 0,
            commits: 0,
            strikes: claimed.lease.strikes,
            leaving: false,
            grace_ends: None,
            rescuing: false,
            deciding: None,
            settling: None,
            warm: false,
            comparing: false,
            rejected: None,
        })
    }

    /// What a run has to hear or do first after a claim.
    pub(super) async fn open(&mut self) -> Result<(), Fault> {
        if self.run.hold.as_ref().is_some_and(Hold::is_read_only) {
            let core = &self.claimed.core;
            patiently(core, || core.look_at_switches()).await?;
        }
        if self.run.stage != Stage::Ended {
            match self.claimed.lease.taken_from.clone() {
                Some(from) => self.recover(&from).await?,
                None if self.run.hold.is_none() && !self.is_leaving() && !self.claimed.quiet => {
                    self.start_unsent(false);
                }
                None => {}
            }
        }
        let extra = self.claimed.extra.iter().cloned();
        self.ready.extend(extra.map(|input| Ready { input, source: Source::Memory }));
        Ok(())
    }

    /// Finds what the death of `from` left open.
    async fn recover(&mut self, from: &WorkerId) -> Result<(), Fault> {
        let core = &self.claimed.core;
        let store = &core.parts.store;
        let run = &self.run;
        let lost: Vec<Input> =
            recover::lost(run, |effect, attempt| store.was_sent(from, run.id(), effect, attempt)).collect();
        for input in &lost {
            // Until the loss is durable, this process answers for what the other one knew.
            if let Input::Lost { effect, sent: Sent::Maybe } = input
                && let Some(open) = run.calls.get(effect).filter(|open| recover::is_marked(open))
            {
                store.mark_sent(run.id(), *effect, open.attempt)?;
            }
        }
        self.recovering.extend(lost);
        if !self.run.children.is_empty() {
            let inbox = patiently(core, || store.inbox(self.run.id().clone())).await?;
            self.hear_missed(&inbox).await?;
        }
        Ok(())
    }

    /// The next loss of a call. A cancel or a pause that came before it was heard goes first: what it stops must not leave
    /// once more.
    pub(super) fn recovered(&mut self) -> Option<Ready> {
        let is_open = |run: &Run, input: &Input| match input {
            Input::Lost { effect, .. } => run.calls.contains_key(effect),
            _ => true,
        };
        self.recovering.retain(|input| is_open(&self.run, input));
        self.recovering.front()?;
        let stops = |ready: &Ready| matches!(ready.input, Input::Cancel { .. } | Input::Pause { .. });
        if let Some(place) = self.ready.iter().position(stops) {
            let ready = self.ready.remove(place)?;
            if matches!(ready.source, Source::Inbox(_)) {
                self.inbox_left -= 1;
            }
            return Some(ready);
        }
        let input = self.recovering.pop_front()?;
        Some(Ready { input, source: Source::Memory })
    }

    /// Children that ended without a word. A store that keeps its promises has none.
    async fn hear_missed(&mut self, inbox: &[InboxItem]) -> Result<(), Fault> {
        let core = &self.claimed.core;
        let ended = ended_children(core, self.run.id()).await?;
        for child in recover::missed(&self.run, ended, inbox) {
            let folded = folded(core, stored(core, &child).await?).await?.run;
            let Some(ending) = folded.ending.clone() else { continue };
            tracing::warn!(run_id = %self.run.id(), child = %child, "the end of a child had not arrived");
            let mut used = folded.ledger.settled;
            used.add(&folded.ledger.granted);
            let labels = windlass_core::label::of_result(&folded, &ending);
            let hidden = folded.hidden.within_ending(&ending);
            let input = Input::ChildEnded { child, ending, used, labels, hidden };
            self.ready.push_back(Ready { input, source: Source::Memory });
        }
        Ok(())
    }
}

async fn ended_children(core: &Core, parent: &RunId) -> Result<Vec<RunId>, StoreError> {
    let mut query = Query {
        statuses: vec![Status::Completed, Status::Failed, Status::Cancelled],
        parent: Some(parent.clone()),
        limit: PAGE,
        ..Query::default()
    };
    let mut ended = Vec::new();
    loop {
        let page = patiently(core, || core.parts.store.list(query.clone())).await?;
        ended.extend(page.heads.into_iter().map(|head| head.id));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(ended),
        }
    }
}

/// A claimed run as stored.
async fn stored(core: &Core, run: &RunId) -> Result<Stored, Fault> {
    let stored = patiently(core, || core.parts.store.load(run.clone())).await?;
    Ok(stored.ok_or_else(|| StoreError::Corrupt(format!("the claimed run `{run}` does not exist")))?)
}

async fn folded(core: &Core, stored: Stored) -> Result<Folded, Fault> {
    let mut blobs = BTreeMap::new();
    for digest in fold::references(&stored.records) {
        if let Some(bytes) = patiently(core, || core.parts.store.blob(digest)).await? {
            blobs.insert(digest, bytes);
        }
    }
    Ok(fold::fold(stored.start, stored.snapshot.as_deref(), &stored.records, &blobs)?)
}

/// What a stored run folds to, for those who only look.
pub(in crate::shell) async fn look(core: &Core, stored: Stored) -> Result<Run, EngineError> {
    let id = stored.start.id.clone();
    match folded(core, stored).await {
        Ok(folded) => Ok(folded.run),
        Err(Fault::Store(error)) => Err(EngineError::Store(error)),
        Err(Fault::Fold(source)) => Err(EngineError::Fold { run: id, source }),
        Err(fault @ (Fault::Program(_) | Fault::Unfit(_) | Fault::Invariant(_))) => {
            Err(EngineError::Stranded { run: id, message: fault.to_string() })
        }
    }
}

async fn program(core: &Arc<Core>, run: &Run) -> Result<Loaded, Fault> {
    let parts = &core.parts;
    patiently(core, || async {
        match core.programs.machine(run.start.bundle, &run.start.machine, parts).await {
            Ok(loaded) => Ok(Ok(loaded)),
            Err(ProgramError::Store(error)) => Err(error),
            Err(ProgramError::Unusable(why)) => Ok(Err(why)),
        }
    })
    .await?
    .map_err(Fault::Program)
}
