//! Policy as a port.

use windlass_core::machine::Machine;
use windlass_core::policy::{Question, Verdict};
use windlass_core::run::TenantScope;

/// Answers questions from a snapshot in memory: a check never waits.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// One verdict for each question that a run of `machine` for `scope` asks.
    fn answer(&self, scope: &TenantScope, machine: &Machine, questions: &[Question]) -> Vec<Verdict>;

    /// Stands for all that answers depend on beside the question: as long as it is the same, so is the answer to the same
    /// question. None where answers may change at any time.
    fn epoch(&self) -> Option<u64> {
        None
    }

    /// Whether questions that were not asked are allowed: true only where no policy is configured.
    fn allow_unasked(&self) -> bool;
}

/// No policy: everything is allowed and nothing is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn answer(&self, _: &TenantScope, _: &Machine, _: &[Question]) -> Vec<Verdict> {
        Vec::new()
    }

    fn allow_unasked(&self) -> bool {
        true
    }
}
