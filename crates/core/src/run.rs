//! The state of one run: everything needed to go on, and nothing that cannot be rebuilt by folding its journal.

mod exec;
mod status;
mod whose;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::approval::Escalating;
use crate::audit;
use crate::basis::Basis;
use crate::breakers::Pulse;
use crate::budget::{Amounts, Ceilings, Ledger};
use crate::contract::Plan;
use crate::effect::{ChildStart, OpenCall, OpenTimer, OpenWait, Outcome};
use crate::escrow::Escrow;
use crate::failure::Failure;
use crate::hidden::Hidden;
use crate::ids::{Digest, EffectId, Name, RunId};
use crate::input::Ending;
use crate::label::{Labels, Marks};
use crate::machine::{ChildContract, HookKind};
use crate::overrides::{ModelOverride, Overrides};
use crate::policy::{Choice, Verdict};
use crate::skill::SkillRef;
use crate::time::Timestamp;
use crate::took::Took;
use crate::value::Value;

pub use exec::{
    Exec, LoopBounds, LoopState, OfferedTool, PendingState, PendingTool, Prefix, Raised, Sample, SampleState,
};
pub use status::{Hold, Status};
pub use whose::{Caller, Origin, Parent, TenantScope};

/// How a run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Its id.
    pub id: RunId,
    /// Hash of the bundle it is pinned to.
    pub bundle: Digest,
    /// Key of its machine in the program.
    pub machine: Name,
    /// Name of its machine.
    pub machine_name: Name,
    /// Its input.
    pub input: Value,
    /// Who started it, when that was a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The first ancestor; itself for a caller's run.
    pub root: RunId,
    /// Nesting: 0 for a caller's run.
    pub depth: u32,
    /// Whose it is.
    pub scope: TenantScope,
    /// Its bounds.
    pub ceilings: Ceilings,
    /// When it must have ended, when a parent sets that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Where it continues from, for a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What its parents allow it beside its bounds.
    #[serde(default, skip_serializing_if = "Terms::are_open")]
    pub terms: Terms,
    /// Whether the run keeps count of what each agent, tool and child used, and of how its calls go. Set when it begins;
    /// what was stored before that was counted is read as it was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
    /// Labels of its input, when a run that keeps them started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Marks>,
    /// Values of its input that are not shown.
    #[serde(default, skip_serializing_if = "Hidden::is_empty")]
    pub hidden: Hidden,
    /// Version of its audit rows, set when it begins; 0 before, and for a run that began when there was but one.
    #[serde(default, skip_serializing_if = "is_unset")]
    pub audit: u32,
    /// Who started it, and within which trace.
    #[serde(default, skip_serializing_if = "Caller::is_unknown")]
    pub caller: Caller,
    /// The model that its agents call in the place of those of their documents, when the run that started it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelOverride>,
}

impl Start {
    /// A run that a caller starts: nobody's child, of the default tenant, without bounds of its own.
    #[must_use]
    pub fn new(id: RunId, bundle: Digest, machine: Name, machine_name: Name, input: Value) -> Self {
        Self {
            root: id.clone(),
            id,
            bundle,
            machine,
            machine_name,
            input,
            parent: None,
            depth: 0,
            scope: TenantScope::default(),
            ceilings: Ceilings::default(),
            deadline: None,
            origin: None,
            terms: Terms::default(),
            watched: false,
            labels: None,
            hidden: Hidden::default(),
            audit: 0,
            caller: Caller::default(),
            model: None,
        }
    }

    /// What is not shown of its input, and of the context that a fork begins with.
    #[must_use]
    pub fn first_hidden(&self) -> Hidden {
        let mut hidden = self.hidden.clone();
        hidden.join(self.origin.as_ref().map(|origin| origin.hidden.clone()).unwrap_or_default());
        hidden
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_unset(version: &u32) -> bool {
    *version == 0
}

/// What a run may do by the contracts under which it and the runs above it were started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// The tools and actions that each contract allows, by name or by the beginning of names and `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Vec<Name>>,
    /// Bytes of its output at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Whether of a larger output the beginning is given, rather than none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut_output: bool,
}

impl Terms {
    /// Whether nothing is forbidden.
    #[must_use]
    pub fn are_open(&self) -> bool {
        self.tools.is_empty() && self.output_bytes.is_none()
    }

    /// Whether a tool or action may be called: every contract allows it.
    #[must_use]
    pub fn allow(&self, name: &str) -> bool {
        let fits = |pattern: &Name| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == &**pattern,
        };
        self.tools.iter().all(|allowed| allowed.iter().any(fits))
    }

    /// Those of a child with a contract. What it may call is never more than what its parent may.
    #[must_use]
    pub fn narrowed(&self, contract: Option<&ChildContract>) -> Self {
        let mut tools = self.tools.clone();
        tools.extend(contract.and_then(|contract| contract.tools.clone()));
        let output_bytes = contract.and_then(|contract| contract.output_bytes);
        Self { tools, output_bytes, cut_output: contract.is_some_and(|contract| contract.cut_output) }
    }
}

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before the first state: hooks for the start.
    #[default]
    Starting,
    /// In a state, before its body: hooks for entering.
    Entering,
    /// In a state's body.
    Working(Part),
    /// After the body: hooks for leaving.
    Exiting,
    /// A transition is to be chosen.
    Choosing,
    /// A transition was chosen: hooks for it.
    Moving {
        /// The target.
        to: Name,
        /// Which transition.
        index: u32,
    },
    /// The state failed and `on_error` has no answer: hooks for errors.
    Failing,
    /// The result is known: hooks for the end.
    Ending,
    /// The ending is decided: waiting for children that are being stopped.
    Draining,
    /// Over.
    Ended,
}

/// A part of a state's body, in the order they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `wait_for`.
    Wait,
    /// `action`.
    Action,
    /// `launch`.
    Launch,
    /// `machine`, `foreach`.
    Call,
    /// `agent`.
    Agent,
    /// `output_to_context` and the output of a final state.
    Output,
}

/// Hooks of one event, called one after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookChain {
    /// The event.
    pub event: HookKind,
    /// What it carries beside the context.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// Hooks dealt with so far.
    pub passed: u32,
    /// The call that is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<EffectId>,
    /// Its answer, not yet dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Outcome>,
}

/// Children that a state waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The shape of the result.
    pub shape: JoinShape,
    /// Whether the first success is enough.
    pub any: bool,
    /// A place for each child: its ending once it has one.
    pub slots: Vec<Option<Ending>>,
    /// Children without an ending.
    pub open: u32,
    /// The first success, when that is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<u32>,
}

/// The shape of a join's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinShape {
    /// The child's output.
    One,
    /// A mapping with these keys, slot by slot.
    Keys(Vec<Name>),
    /// A list.
    List,
}

/// A child that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenChild {
    /// Its place in the join; none once the join is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Whether the run waits for it, rather than having launched it.
    pub awaited: bool,
    /// What is held for it.
    pub allotment: Amounts,
    /// Whether it was asked to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// Key of its machine; empty where nobody counts.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub machine: Name,
    /// When it was started; 0 where that was not kept.
    #[serde(default, skip_serializing_if = "Timestamp::is_zero")]
    pub at: Timestamp,
}

/// The state of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// How it began.
    pub start: Start,
    /// Decisions so far.
    pub version: u64,
    /// The time of the last one.
    pub now: Timestamp,
    /// The time of the first one.
    pub started_at: Timestamp,
    /// Whether it has begun: it has its bounds and its first context.
    pub started: bool,
    /// Its data; a mapping, without the metadata that templates see as `context.machine`.
    pub context: Value,
    /// Steps so far; the number of the current one.
    pub step: u64,
    /// The current state; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Name>,
    /// Where it is.
    pub stage: Stage,
    /// What the current state produced so far.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Children started in this step.
    pub ordinal: u32,
    /// Hooks being called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HookChain>,
    /// Children being waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// Agent being asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Box<Exec>>,
    /// The state to go to next, when a tool loop chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Name>,
    /// Failure being handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Effects named so far.
    pub effects: u64,
    /// Calls that are not settled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<EffectId, OpenCall>,
    /// Open waits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waits: BTreeMap<EffectId, OpenWait>,
    /// Running timers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timers: BTreeMap<EffectId, OpenTimer>,
    /// Questions for which others are asked when nobody answers, by their wait.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub escalating: BTreeMap<EffectId, Escalating>,
    /// Plans of calls that were made, applied ones too, by their id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<Name, Plan>,
    /// Children that have not ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<RunId, OpenChild>,
    /// What it may use and has used.
    pub ledger: Ledger,
    /// What it holds of the budgets that bind it and others.
    #[serde(default, skip_serializing_if = "Escrow::is_empty")]
    pub escrow: Escrow,
    /// How its calls go.
    #[serde(default, skip_serializing_if = "Pulse::is_empty")]
    pub pulse: Pulse,
    /// Ceilings about which a warning was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned: Vec<crate::budget::Meter>,
    /// States that were left to shorten their conversation, and have not ended since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortened: Vec<Name>,
    /// Steps to a better tier that its calls made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub escalations: u32,
    /// Models that its agents call in the place of those of their documents.
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
    /// What model calls used by the tier of their link; calls without a tier are not in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<Name, Amounts>,
    /// Successful model calls of this run.
    pub api_calls: u64,
    /// Why it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// A stop that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Name>,
    /// What it had cost, in micro-USD, when it last went on after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_when_reopened: Option<u64>,
    /// How it ends, once that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Where its data came from.
    #[serde(default, skip_serializing_if = "Labels::is_blank")]
    pub labels: Labels,
    /// Values that are not shown.
    #[serde(default, skip_serializing_if = "Hidden::is_empty")]
    pub hidden: Hidden,
    /// On which side of a rule set that is tried it is, from the first answer that it used on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Box<Choice>>,
    /// The skills that it has used, in the order of their first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<SkillRef>,
    /// End of its audit chain.
    pub audit: audit::Chain,
    /// The worker that took the last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Name>,
    /// What the last decision was taken under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Box<Basis>>,
    /// When it entered its state; 0 for a run that began before that was kept.
    #[serde(default, skip_serializing_if = "Timestamp::is_zero")]
    pub entered_at: Timestamp,
    /// How long that took which the last decision ended.
    #[serde(skip)]
    pub took: Took,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Run {
    /// The state before the first entry. Folding a journal starts here.
    #[must_use]
    pub fn blank(start: Start) -> Self {
        Self {
            hidden: start.first_hidden(),
            overrides: Overrides::begun_with(start.model.clone()),
            start,
            skills: Vec::new(),
            version: 0,
            now: Timestamp::default(),
            started_at: Timestamp::default(),
            started: false,
            context: Value::empty_map(),
            step: 0,
            state: None,
            stage: Stage::Starting,
            output: Value::Null,
            ordinal: 0,
            hooks: None,
            join: None,
            exec: None,
            jump: None,
            failure: None,
            effects: 0,
            calls: BTreeMap::new(),
            waits: BTreeMap::new(),
            timers: BTreeMap::new(),
            escalating: BTreeMap::new(),
            plans: BTreeMap::new(),
            children: BTreeMap::new(),
            ledger: Ledger::default(),
            escrow: Escrow::default(),
            pulse: Pulse::default(),
            warned: Vec::new(),
            shortened: Vec::new(),
            escalations: 0,
            tiers: BTreeMap::new(),
            api_calls: 0,
            hold: None,
            cancel: None,
            cost_when_reopened: None,
            ending: None,
            labels: Labels::default(),
            choice: None,
            audit: audit::Chain::default(),
            worker: None,
            basis: None,
            entered_at: Timestamp::default(),
            took: Took::default(),
        }
    }

    /// Stays on the side of a candidate rule set on which the answers of a decision put it.
    pub(crate) fn keep_choice(&mut self, verdicts: &[Verdict]) {
        if let Some(choice) = verdicts.iter().rev().find_map(|verdict| verdict.choice.as_ref()) {
            self.choice = Some(choice.clone());
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        &self.start.id
    }

    /// Whether any call is out or about to go out.
    #[must_use]
    pub fn has_calls_out(&self) -> bool {
        self.calls.values().any(OpenCall::is_out)
    }

    /// Its status, derived: never stored apart from what it is derived from.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.stage == Stage::Ended {
            return match &self.ending {
                Some(Ending::Completed { .. }) => Status::Completed,
                Some(Ending::Cancelled { .. }) => Status::Cancelled,
                Some(Ending::Failed { .. }) | None => Status::Failed,
            };
        }
        match &self.hold {
            Some(_) | None if self.has_calls_out() || self.escrow.asked.is_some() => return Status::Running,
            Some(Hold::Paused { .. } | Hold::ReadOnly { .. }) => return Status::Paused,
            Some(Hold::Attention { .. }) => return Status::Attention,
            None => {}
        }
        if self.waits.values().any(|wait| !matches!(wait.kind, crate::effect::WaitKind::Signal)) {
            return Status::Attention;
        }
        if self.waits.is_empty() && self.timers.is_empty() && !self.awaits_children() {
            Status::Running
        } else {
            Status::Waiting
        }
    }

    /// Whether a child that it waits for has not ended.
    #[must_use]
    pub fn awaits_children(&self) -> bool {
        self.children.values().any(|child| child.awaited)
    }

    /// When the earliest timer is due. None while the run is held: its timers fire once it goes on.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.hold.is_some() && self.ending.is_none() {
            return None;
        }
        self.timers.values().map(|timer| timer.due).min()
    }

    /// What this run and its finished children used.
    #[must_use]
    pub fn used(&self) -> &Amounts {
        &self.ledger.settled
    }

    /// The start of a child, as the child's own first input.
    #[must_use]
    pub fn child_start(&self, child: &ChildStart, machine_name: Name) -> Start {
        Start {
            id: child.id.clone(),
            bundle: self.start.bundle,
            machine: child.machine.clone(),
            machine_name,
            input: child.input.clone(),
            parent: Some(Parent { run: self.id().clone(), awaited: child.awaited }),
            root: self.start.root.clone(),
            depth: child.depth,
            scope: self.start.scope.clone(),
            ceilings: child.ceilings,
            deadline: child.deadline,
            origin: None,
            terms: child.terms.clone(),
            watched: false,
            labels: child.labels.clone(),
            hidden: child.hidden.clone(),
            audit: 0,
            caller: self.start.caller.clone(),
            model: self.overrides.inherited(),
        }
    }
}
