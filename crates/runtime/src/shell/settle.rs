//! Takes up what was sent to runs that nobody holds. Decides, and makes no call of theirs.

use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_ports::store::{Head, Query, WorkerId};

use super::drive::{self, Claimed, Parting};
use super::engine::{Engine, EngineError, Scope};
use super::send::patiently;
use super::shutdown::Stop;

/// Rounds at most: an order goes down a tree level by level, and what became of it comes up again.
const ROUNDS_MAX: usize = 64;
/// Runs listed at a time.
const PAGE_RUNS: usize = 500;

impl Engine {
    /// Lets a run and everything below it decide what lies in their inboxes. Runs that another process holds are left to
    /// it; a call that a decision asks for is left to whoever drives the run next.
    ///
    /// # Errors
    /// No such run, a run that this build cannot read, or a store that fails.
    pub async fn settle(&self, run: &RunId) -> Result<(), EngineError> {
        let core = &self.core;
        let stored = patiently(core, || core.parts.store.load(run.clone())).await?;
        let root = stored.ok_or_else(|| EngineError::NotFound(run.clone()))?.head.root;
        let worker = patiently(core, || core.worker()).await?;
        patiently(core, || core.parts.store.reap()).await?;
        let scope = Scope::Tree(run.clone());
        for _ in 0..ROUNDS_MAX {
            let mut moved = false;
            for head in self.unheld(&scope, &root).await? {
                moved |= self.take_up(&worker, &head).await?;
            }
            if !moved {
                break;
            }
        }
        Ok(())
    }

    /// Unfinished runs of the scope that nobody holds, parents before children.
    async fn unheld(&self, scope: &Scope, root: &RunId) -> Result<Vec<Head>, EngineError> {
        let core = &self.core;
        let open = Status::ALL.into_iter().filter(|status| !status.is_final() && *status != Status::Quarantined);
        let mut query =
            Query { statuses: open.collect(), root: Some(root.clone()), limit: PAGE_RUNS, ..Query::default() };
        let mut found = Vec::new();
        loop {
            let page = patiently(core, || core.parts.store.list(query.clone())).await?;
            found.extend(page.heads.into_iter().filter(|head| head.owner.is_none() && scope.includes(&head.id)));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        found.sort_by_key(|head| head.depth);
        Ok(found)
    }

    /// Whether a run decided anything.
    async fn take_up(&self, worker: &WorkerId, head: &Head) -> Result<bool, EngineError> {
        let core = &self.core;
        let store = &core.parts.store;
        if patiently(core, || store.inbox(head.id.clone())).await?.is_empty() {
            return Ok(false);
        }
        let Some(lease) = store.take_over(head.id.clone(), worker.clone(), Some(head.status)).await? else {
            return Ok(false);
        };
        let Some(mut claimed) = Claimed::new(core, worker, lease, &Stop::new()) else { return Ok(false) };
        claimed.quiet = true;
        let (_, parting, _) = drive::drive(claimed, None).await;
        if let Parting::Stranded(error) = parting {
            return Err(error);
        }
        let now = patiently(core, || store.load(head.id.clone())).await?;
        Ok(now.is_some_and(|now| now.head.version != head.version))
    }
}
