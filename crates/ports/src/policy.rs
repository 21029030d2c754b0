//! Policy as a port.

use std::collections::BTreeMap;

use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::Machine;
use windlass_core::policy::{Choice, Question, Verdict};
use windlass_core::run::{Run, TenantScope};
use windlass_core::value::Value;

/// Whose questions are answered.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The run that a caller started, of which the asking one is a part.
    pub root: &'a RunId,
    /// For whom it works.
    pub scope: &'a TenantScope,
    /// Its machine.
    pub machine: &'a Machine,
    /// On which side of a candidate it was put before.
    pub kept: Option<&'a Choice>,
    /// The arguments of its tool calls, by the hashes that questions name. Empty unless [`Policy::reads_arguments`].
    pub arguments: &'a BTreeMap<Digest, Value>,
}

impl<'a> Asker<'a> {
    /// A run of `machine`.
    #[must_use]
    pub fn of(run: &'a Run, machine: &'a Machine, arguments: &'a BTreeMap<Digest, Value>) -> Self {
        Self { root: &run.start.root, scope: &run.start.scope, machine, kept: run.choice.as_deref(), arguments }
    }
}

/// Answers questions from a snapshot in memory: a check never waits.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// One verdict for each question that a run asks.
    fn answer(&self, asker: &Asker<'_>, questions: &[Question]) -> Vec<Verdict>;

    /// On which side of a candidate a run is; none where no candidate is tried. Answers to runs of one side are no answers
    /// to runs of another.
    fn choice(&self, _asker: &Asker<'_>) -> Option<Choice> {
        None
    }

    /// Whether a rule looks at arguments of tool calls. Only then are they gathered.
    fn reads_arguments(&self) -> bool {
        false
    }

    /// Hears of the answers that a decision used, once it is durable. Must not wait.
    fn judged(&self, _run: &Run, _verdicts: &[Verdict]) {}

    /// Stands for all that answers depend on beside the question and the [`Policy::choice`]: as long as it is the same, so is
    /// the answer to the same question. None where answers may change at any time.
    fn epoch(&self) -> Option<u64> {
        None
    }

    /// The version of the rules in force; none where there are none.
    fn version(&self) -> Option<Name> {
        None
    }

    /// Whether questions that were not asked are allowed: true only where no policy is configured.
    fn allow_unasked(&self) -> bool;
}

/// No policy: everything is allowed and nothing is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn answer(&self, _: &Asker<'_>, _: &[Question]) -> Vec<Verdict> {
        Vec::new()
    }

    fn allow_unasked(&self) -> bool {
        true
    }
}
