//! Decisions: one handler for each input, then the run is driven as far as it goes without the world.

use crate::audit;
use crate::effect::Effect;
use crate::eval::Evaluator;
use crate::input::{Facts, Input, Needs};
use crate::journal::Entry;
use crate::machine::Machine;
use crate::run::Run;

/// What a decision asks to be recorded and done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Entries, in order; the run has been advanced by exactly these.
    pub entries: Vec<Entry>,
    /// Effects, in order, to be performed after the entries are durable.
    pub effects: Vec<Effect>,
    /// Audit rows of the entries, in order.
    pub audit: Vec<audit::Row>,
}

/// Why an input does not apply to a run as it is. Nothing is recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The run is over.
    #[error("the run has ended")]
    Ended,
    /// The input refers to something that is not open.
    #[error("{0} is not open in this run")]
    NotOpen(String),
    /// The run is not in a state for this.
    #[error("{0}")]
    NotNow(String),
}

/// What must be known before `input` can be decided.
#[must_use]
pub fn plan(_machine: &Machine, _run: &Run, _input: &Input) -> Needs {
    Needs::default()
}

/// Decides what follows from `input`. On `Ok` the run has been advanced by the decision's entries, exactly as
/// [`crate::apply`] would; on `Err` it is unchanged.
///
/// # Errors
/// The input does not apply to the run as it is.
pub fn decide(
    _machine: &Machine,
    _evaluator: &dyn Evaluator,
    _run: &mut Run,
    _input: Input,
    _facts: &Facts,
) -> Result<Decision, Rejected> {
    Ok(Decision::default())
}
