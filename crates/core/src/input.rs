//! Everything that can happen to a run, and the facts that come with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::approval;
use crate::basis::Basis;
use crate::budget::{Amounts, Ceilings};
use crate::effect::{Outcome, Spent};
use crate::escrow::{Budgets, Drawn};
use crate::failure::Failure;
use crate::hidden::Hidden;
use crate::ids::{Digest, EffectId, Name, RunId};
use crate::label::Marks;
use crate::overrides::ModelChange;
use crate::policy::{Question, Verdict};
use crate::route::Chain;
use crate::run::Start;
use crate::time::Timestamp;
use crate::value::Value;

/// One thing that happened. Closed: whoever reads this enum knows every way a run can change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The run begins.
    Started(Box<Start>),
    /// An attempt at a call ended.
    Settled {
        /// The call.
        effect: EffectId,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// What it cost.
        spent: Spent,
    },
    /// The process that held the run died while this call was open.
    Lost {
        /// The call.
        effect: EffectId,
        /// Whether it may have left the process. Known not to when the process died before it was sent.
        sent: Sent,
    },
    /// A draw on budgets was answered.
    Drawn {
        /// The draw.
        number: EffectId,
        /// The answer.
        answer: Drawn,
    },
    /// A signal arrived for an open wait.
    Signalled {
        /// The wait.
        wait: EffectId,
        /// The signal.
        signal: Name,
        /// Its data.
        data: Value,
    },
    /// A timer fired.
    TimerFired {
        /// The timer.
        timer: EffectId,
    },
    /// A child ended.
    ChildEnded {
        /// The child.
        child: RunId,
        /// How.
        ending: Ending,
        /// What it and everything below it used.
        used: Amounts,
        /// Labels of its output; none where it keeps none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Marks>,
        /// Values of its output or failure that are not shown.
        #[serde(default, skip_serializing_if = "Hidden::is_empty")]
        hidden: Hidden,
    },
    /// Somebody let a child, or a run below it, use more than it was given.
    ChildRaised {
        /// The child.
        child: RunId,
        /// By so much.
        amounts: Amounts,
    },
    /// Someone wants the run to stop.
    Cancel {
        /// Why.
        reason: Name,
    },
    /// Someone wants the run to hold.
    Pause {
        /// Why.
        reason: Name,
    },
    /// The hold ends.
    Unpause,
    /// A call that changes something is to leave while a read-only switch is on: the run holds until that is off.
    HoldWrites {
        /// Why the switch is on, and who turned it on.
        reason: Name,
    },
    /// The read-only switch is off again.
    FreeWrites,
    /// Someone wants a failed run to try its last state again.
    Retry {
        /// Also where nobody knows whether the call that it failed of happened, which may do it twice.
        anyway: bool,
    },
    /// Someone wants a failed run to go past its last state.
    Skip {
        /// What counts as the state's output.
        output: Value,
        /// Who.
        by: Name,
        /// Why; empty when it was not said.
        reason: Name,
    },
    /// A person answered an approval.
    Approved(Box<approval::Reply>),
    /// The ceilings changed.
    BudgetRaised {
        /// The new ones, replacing those named.
        ceilings: Ceilings,
        /// Who.
        by: Name,
    },
    /// Somebody said which model agents call from here on.
    ModelChanged(Box<ModelChange>),
    /// The run goes on under another bundle.
    Migrated {
        /// The bundle.
        bundle: Digest,
        /// Key of the machine in it.
        machine: Name,
    },
}

impl Input {
    /// The kind as a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Settled { .. } => "settled",
            Self::Lost { .. } => "lost",
            Self::Drawn { .. } => "drawn",
            Self::Signalled { .. } => "signalled",
            Self::TimerFired { .. } => "timer_fired",
            Self::ChildEnded { .. } => "child_ended",
            Self::ChildRaised { .. } => "child_raised",
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Unpause => "unpause",
            Self::HoldWrites { .. } => "hold_writes",
            Self::FreeWrites => "free_writes",
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Approved(_) => "approved",
            Self::BudgetRaised { .. } => "budget_raised",
            Self::ModelChanged(_) => "model_changed",
            Self::Migrated { .. } => "migrated",
        }
    }
}

/// Whether a lost call may have left its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// It did not.
    No,
    /// It may have.
    Maybe,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With an output.
    Completed {
        /// The output.
        output: Value,
    },
    /// With a failure.
    Failed {
        /// The failure.
        failure: Failure,
        /// The state it happened in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Name>,
    },
    /// By request.
    Cancelled {
        /// Why.
        reason: Name,
    },
}

/// Everything from outside the run that a decision uses, as values. What is used is journaled.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The store's time as last seen plus a monotonic clock, never below the run's last entry.
    pub now: Timestamp,
    /// For jitter. Journaled where used, as the time it led to.
    pub seed: u64,
    /// Who decides; none where nobody keeps count of workers.
    pub worker: Option<Name>,
    /// What it is decided under; none where nobody keeps it.
    pub basis: Option<Basis>,
    /// Prices of the machine's agents, for reservations: agent name to quote.
    pub quotes: Arc<BTreeMap<Name, Quote>>,
    /// What else is known of the models of the machine's agents: agent name to it.
    pub traits: Arc<BTreeMap<Name, Traits>>,
    /// Fallback chains of the machine's agents, as they can be used now: agent name to chain. An agent without one is
    /// called as its document says.
    pub routes: Arc<BTreeMap<Name, Chain>>,
    /// The budgets that bind the run and others, as they were last read.
    pub budgets: Arc<Budgets>,
    /// Tools whose ramp has stopped, as it was last read.
    pub stopped_ramps: Arc<BTreeSet<Name>>,
    /// Answers to the questions of [`crate::standing`], the same for many decisions.
    pub standing: Arc<[Verdict]>,
    /// Answers to the questions of [`crate::plan`].
    pub verdicts: Vec<Verdict>,
    /// Whether questions without an answer are allowed: true where no policy is configured.
    pub allow_unasked: bool,
    /// Whether a rule looks at arguments of tools: what a state calls a tool with is then part of the question.
    pub reads_arguments: bool,
}

impl Facts {
    /// The answer to a question, when it was asked.
    #[must_use]
    pub fn verdict(&self, question: &Question) -> Option<&Verdict> {
        self.verdicts.iter().chain(&*self.standing).find(|verdict| verdict.question == *question)
    }
}

/// The price of an agent's model, from the price book. Micro-USD per million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Version of the price book.
    pub version: Name,
    /// What a call may use beside its own input and output, as a program does that asks more than once.
    pub beyond: Amounts,
}

/// What is known of a model beside its price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Tokens of a conversation that it takes.
    pub context_tokens: Option<u64>,
    /// Whether its calls cost nothing, as answers from before and scripts do.
    pub is_free: bool,
}
