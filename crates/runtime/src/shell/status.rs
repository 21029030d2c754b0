//! Looks at a run without holding it.

use windlass_core::ids::RunId;
use windlass_core::run::{Run, Status};
use windlass_ports::store::{Head, Query};

use super::drive;
use super::engine::{Engine, EngineError};
use super::rest::{Waiting, waits};
use super::send::patiently;

/// Runs whose waits are looked up at most.
const RUNS_MAX: usize = 1_000;

/// A run as it is now.
#[derive(Clone, Debug)]
pub struct Report {
    /// At a glance.
    pub head: Head,
    /// In full.
    pub run: Run,
    /// What it and everything below it waits for.
    pub waits: Vec<Waiting>,
}

impl Engine {
    /// A run as it is stored, with what its tree waits for. None when there is no such run.
    ///
    /// # Errors
    /// A store that fails, or a run that cannot be read.
    pub async fn status(&self, run: &RunId) -> Result<Option<Report>, EngineError> {
        let core = &self.core;
        let Some(stored) = patiently(core, || core.parts.store.load(run.clone())).await? else { return Ok(None) };
        let head = stored.head.clone();
        let folded = drive::look(core, stored).await?;
        if head.status.is_final() && head.root != head.id {
            return Ok(Some(Report { head, run: folded, waits: Vec::new() }));
        }
        let rows = patiently(core, || core.parts.store.waits(run.clone(), true)).await?;
        let parked = [Status::Waiting, Status::Paused, Status::Attention, Status::Quarantined];
        let query =
            Query { statuses: parked.to_vec(), root: Some(head.root.clone()), limit: RUNS_MAX, ..Query::default() };
        let mut left = patiently(core, || core.parts.store.list(query.clone())).await?.heads;
        left.retain(|other| {
            let below = other.id.as_str().strip_prefix(run.as_str());
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with('~'))
        });
        Ok(Some(Report { head, run: folded, waits: waits(core, &left, rows).await? }))
    }
}
