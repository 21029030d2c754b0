//! What decisions about a run go by beside the run: read from what this process knows.

use std::sync::Arc;

use windlass_core::input::{Facts, Input};

use super::perform::during;
use super::{Fault, Work};
use crate::shell::engine::Core;
use crate::shell::{budgets, ramps};

impl Work<'_> {
    /// What a decision about `input` goes by.
    pub(super) async fn facts(&mut self, core: &Core, input: &Input) -> Result<Facts, Fault> {
        let budgets = during(&mut self.calls, self.ready, budgets::known(core)).await?;
        let stopped_ramps = match self.loaded.is_ramped {
            true => during(&mut self.calls, self.ready, ramps::stopped(core)).await?,
            false => Arc::default(),
        };
        let parts = &core.parts;
        let facts = Facts {
            now: self.now(),
            seed: parts.clock.seed(),
            worker: Some(self.claimed.worker.0.clone()),
            basis: parts.basis(),
            quotes: Arc::clone(&self.loaded.quotes),
            traits: Arc::clone(&self.loaded.traits),
            routes: Arc::new(self.routes(input)),
            budgets,
            stopped_ramps,
            standing: Arc::default(),
            verdicts: Vec::new(),
            allow_unasked: parts.policy.allow_unasked(),
            reads_arguments: false,
        };
        Ok(match facts.allow_unasked {
            true => facts,
            false => self.loaded.judged(&*parts.policy, facts, (&self.run, input), &[]),
        })
    }
}
