//! What a run asks of the world. Everything here is committed with the entries that asked for it, before it is done.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::approval::{Escalation, Question};
use crate::budget::{Amounts, Ceilings, Exceeded};
use crate::contract::{Class, Idempotency, may_repeat};
use crate::escrow::{Refusal, Share};
use crate::failure::Failure;
use crate::hidden::Hidden;
use crate::ids::{Digest, EffectId, Name, RunId};
use crate::input::Input;
use crate::label::Marks;
use crate::machine::HookKind;
use crate::policy::Ruled;
use crate::resource::Resource;
use crate::route::Choice;
use crate::run::Terms;
use crate::time::Timestamp;
use crate::transcript::Reply;
use crate::value::Value;

/// One effect of a decision, in the order decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Perform the open call of this id; its details are in [`crate::run::Run::calls`].
    Call(EffectId),
    /// Stop performing the call, if it is still out; its result no longer counts.
    Abandon(EffectId),
    /// Create a child run or a launch. The row is written with the decision, so a repeat creates no second child.
    Start(Box<ChildStart>),
    /// Deliver an input to another run's inbox, once.
    Tell {
        /// The run.
        to: RunId,
        /// Makes a second delivery harmless.
        id: Name,
        /// The input.
        input: Box<Input>,
    },
    /// A signal is waited for.
    OpenWait(EffectId),
    /// It is no longer.
    CloseWait(EffectId),
    /// Draw on budgets for the run, as [`Escrow::draw`](crate::escrow::Escrow::draw) says. The answer is an input.
    Draw(EffectId),
    /// Return what the run drew and holds for no call, under this number.
    GiveBack(EffectId),
    /// A timer runs.
    SetTimer(EffectId),
    /// It no longer does.
    CancelTimer(EffectId),
}

/// A run to be created with the decision of its parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStart {
    /// Derived id.
    pub id: RunId,
    /// Key of the machine in the program.
    pub machine: Name,
    /// Its input.
    pub input: Value,
    /// Its bounds.
    pub ceilings: Ceilings,
    /// What the parent holds for it; zero for a launch.
    pub allotment: Amounts,
    /// Whether the parent waits for it.
    pub awaited: bool,
    /// Nesting: 1 for a child of a caller's run.
    pub depth: u32,
    /// When it must have ended, if its parent must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Terms::are_open")]
    pub terms: Terms,
    /// Labels of its input; none where its parent keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Marks>,
    /// Values of its input that are not shown.
    #[serde(default, skip_serializing_if = "Hidden::is_empty")]
    pub hidden: Hidden,
    /// The rule that lets it start; none where none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Box<Ruled>>,
}

/// A call out of the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Ask a model. The request is rebuilt from the run, byte for byte, by [`crate::request`].
    Model {
        /// The agent.
        agent: Name,
        /// Which sample of the state asks.
        sample: u32,
    },
    /// Call a tool.
    Tool {
        /// The tool.
        tool: Name,
        /// The model's id of the call.
        call_id: Name,
        /// Arguments.
        arguments: Value,
        /// The hook that provides it; none for a tool of the catalog.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hook: Option<Name>,
        /// The plan that it applies, of a tool that goes by plans.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<Name>,
    },
    /// Call a hook. The body is rebuilt from the run by [`crate::request`].
    Hook {
        /// The hook.
        hook: Name,
        /// The event.
        event: HookKind,
    },
    /// Perform an action of the catalog.
    Action {
        /// The action.
        action: Name,
    },
    /// Ask a read tool whether another call happened.
    Verify {
        /// The read tool.
        tool: Name,
        /// The call in doubt.
        about: EffectId,
    },
}

impl Call {
    /// The kind as a word: `model`, `tool`, `hook`, `action`, `verify`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Tool { .. } => "tool",
            Self::Hook { .. } => "hook",
            Self::Action { .. } => "action",
            Self::Verify { .. } => "verify",
        }
    }

    /// The plan that it applies, of a tool that goes by plans.
    #[must_use]
    pub fn plan(&self) -> Option<&Name> {
        match self {
            Self::Tool { plan, .. } => plan.as_ref(),
            Self::Model { .. } | Self::Verify { .. } | Self::Hook { .. } | Self::Action { .. } => None,
        }
    }

    /// Whom it calls: agent, tool, hook or action.
    #[must_use]
    pub fn target(&self) -> &Name {
        match self {
            Self::Model { agent, .. } => agent,
            Self::Tool { tool, .. } | Self::Verify { tool, .. } => tool,
            Self::Hook { hook, .. } => hook,
            Self::Action { action } => action,
        }
    }
}

/// A call that has been committed and has not been settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenCall {
    /// What is called.
    pub call: Call,
    /// 1 for the first try.
    pub attempt: u32,
    /// What it does to the world.
    pub class: Class,
    /// Whether a repeat is harmless.
    pub idempotency: Idempotency,
    /// Hash of the canonical arguments or request.
    pub arguments: Digest,
    /// Held in the ledger for this attempt.
    pub reserved: Amounts,
    /// Time for one attempt in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of the answer.
    pub output_bytes_max: u64,
    /// When the attempt was committed.
    pub at: Timestamp,
    /// The timer after which the next attempt starts; none while an attempt is out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<EffectId>,
    /// In doubt: waiting for [`Call::Verify`] or for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// Attempts that were lost with the process that made them.
    #[serde(default, skip_serializing_if = "none_lost")]
    pub losses: u32,
    /// The question to a person whether it may leave; none when nobody is asked, or somebody has agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Box<Question>>,
    /// The rule, or `contract`, by which a person was asked and agreed to this call with these arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Name>,
    /// The link of a fallback chain that the attempt takes; none for a call without a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Choice>>,
    /// What is held for this attempt of the budgets that apply to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Share>,
    /// It waits until enough has been drawn from budgets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draws: bool,
    /// What it takes, while the ceilings of the run have too little for it and nothing is held.
    #[serde(default, skip_serializing_if = "Amounts::is_zero")]
    pub wants: Amounts,
    /// Input tokens of a model call that its provider may have in a cache: those that the same conversation sent to the
    /// same model before, as far as anybody said; 0 where nothing was. What it did read is in the answer. None for other
    /// calls, and for calls recorded before this was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_expected: Option<u64>,
    /// Output tokens that a model call asks for at most, where its profile names no maximum and a budget, or a ceiling that
    /// it waits for, holds only with one. None elsewhere, and for calls recorded before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_max: Option<u64>,
    /// Parts of its arguments that whoever is asked about it is not shown, as the contract says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub veiled: Vec<Vec<Name>>,
    /// The rule that let it go or asked about it; none where no rule was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruled: Option<Box<Ruled>>,
    /// The ids of what it touches, as its contract says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// What is read in its place: it is not made. None for a call that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Value>,
}

fn none_lost(losses: &u32) -> bool {
    *losses == 0
}

impl OpenCall {
    /// Whether an attempt of this call is out, or about to go out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.backoff.is_none() && self.doubt.is_none() && self.approval.is_none() && !self.draws
    }

    /// What the first audit row of an attempt says: `intended`, or `shadowed` where it is not to be made.
    #[must_use]
    pub fn intention(&self) -> &'static str {
        if self.shadow.is_some() { "shadowed" } else { "intended" }
    }

    /// Whether it may simply be sent again when nobody knows whether it happened. What is not made at all always may.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        self.shadow.is_some() || may_repeat(self.class, self.idempotency)
    }
}

/// How a doubt about a call is being resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// By a read tool.
    Verifying(EffectId),
    /// By a person: the wait that carries the question.
    Asking(EffectId),
    /// By nobody: it counts as unknown, and the call fails.
    Failing,
}

impl Doubt {
    /// The way as a word: `verify`, `ask`, `fail`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Verifying(_) => "verify",
            Self::Asking(_) => "ask",
            Self::Failing => "fail",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A model answered.
    Replied(Box<Reply>),
    /// A tool, hook or action answered; null for an empty answer.
    Returned(Value),
    /// It failed.
    Failed(Failure),
}

impl Outcome {
    /// What it gave, as audit rows hash it; none where it failed.
    #[must_use]
    pub fn answer(&self) -> Option<Cow<'_, Value>> {
        match self {
            Self::Replied(reply) => {
                let mut parts = vec![Value::Str(reply.content.clone())];
                for call in &reply.tool_calls {
                    parts.extend([Value::Str(call.id.clone()), Value::Str(call.name.clone()), call.arguments.clone()]);
                }
                Some(Cow::Owned(Value::list(parts)))
            }
            Self::Returned(value) => Some(Cow::Borrowed(value)),
            Self::Failed(_) => None,
        }
    }
}

/// What an attempt cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spent {
    /// It never left: not even an attempt is counted.
    Unsent,
    /// No tokens and no money: the other side refused it.
    Nothing,
    /// So many tokens and micro-USD.
    Known {
        /// Tokens in and out.
        tokens: u64,
        /// Cost.
        cost_micros: u64,
    },
    /// Each meter as far as somebody said it.
    Metered {
        /// Tokens in and out.
        tokens: Said,
        /// Cost in micro-USD.
        cost_micros: Said,
    },
    /// Not known: charged at the reservation.
    Unknown,
}

/// What somebody said that an attempt used of one meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// So much: charged as it is.
    Exactly(u64),
    /// So much, and maybe more: charged at the reservation if that is more. Zero where nothing was said.
    AtLeast(u64),
}

/// A signal that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWait {
    /// The channel.
    pub channel: Name,
    /// What it is for.
    pub kind: WaitKind,
    /// When it gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// When it was opened, of a wait that a run has; 0 where that was not kept.
    #[serde(default, skip_serializing_if = "Timestamp::is_zero")]
    pub at: Timestamp,
}

impl OpenWait {
    /// A wait that is about to be opened.
    #[must_use]
    pub fn new(channel: Name, kind: WaitKind, due: Option<Timestamp>) -> Self {
        Self { channel, kind, due, at: Timestamp::default() }
    }
}

/// The channel of waits for a decision about a tool.
#[must_use]
pub fn tool_channel(server: &str, tool: &str) -> Name {
    format!("{TOOL_CHANNEL}{server}/{tool}").into()
}

/// The server and the tool of such a channel.
#[must_use]
pub fn tool_of_channel(channel: &str) -> Option<(&str, &str)> {
    channel.strip_prefix(TOOL_CHANNEL)?.split_once('/')
}

const TOOL_CHANNEL: &str = "tool_changed/";

/// What a wait is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// `wait_for` of a state.
    Signal,
    /// A person says whether a call happened: signal data `{"happened": bool, "result"?: any}`.
    Outcome {
        /// The call in doubt.
        effect: EffectId,
    },
    /// A person says whether a call may leave. Such a wait has no channel: it is answered by
    /// [`Input::Approved`](crate::input::Input::Approved) alone.
    Approval {
        /// The call to be approved.
        effect: EffectId,
        /// Hash of what is shown, see [`crate::approval::shown`].
        shown: Digest,
    },
    /// The tool of a call is not what was accepted. A person accepts it as it is, or lets the accepted one run again; a
    /// signal on the wait's channel, [`tool_channel`], says that they did, and the call is judged again.
    ToolChanged {
        /// The call, which has not left.
        effect: EffectId,
        /// Who serves the tool.
        server: Name,
        /// The tool, as that server names it.
        tool: Name,
    },
    /// A budget has too little for a call: its cap is raised, a new period begins, or a person answers as to an approval.
    /// A signal on its channel, [`channel`](crate::escrow::channel), says that it may have more.
    Budget {
        /// The call.
        effect: EffectId,
        /// Hash of what is shown, see [`crate::approval::shown`].
        shown: Digest,
        /// Which budget, and what of it.
        refusal: Box<Refusal>,
    },
    /// A ceiling of the run has too little for a call: it is raised, other calls leave more of it, or a person answers as
    /// to an approval. Such a wait has no channel.
    Ceiling {
        /// The call.
        effect: EffectId,
        /// Hash of what is shown, see [`crate::approval::shown`].
        shown: Digest,
        /// Which ceiling, and what of it.
        over: Exceeded,
    },
    /// A person says whether a transition may be taken; answered as an approval is.
    Transition {
        /// From this state.
        from: Name,
        /// To this one.
        to: Name,
        /// Which transition of the state.
        index: u32,
        /// The rule that asks.
        rule: Name,
        /// Version of its rule set; empty where that was not kept.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        version: Name,
        /// Why it asks.
        reason: Name,
        /// Hash of what is shown, see [`crate::approval::shown_transition`].
        shown: Digest,
        /// Who else is asked when nobody answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        escalation: Option<Escalation>,
    },
}

impl WaitKind {
    /// The kind as a word: `signal`, `outcome`, `tool_changed`, `approval`, `budget`, `ceiling`, `transition`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Outcome { .. } => "outcome",
            Self::ToolChanged { .. } => "tool_changed",
            Self::Approval { .. } => "approval",
            Self::Budget { .. } => "budget",
            Self::Ceiling { .. } => "ceiling",
            Self::Transition { .. } => "transition",
        }
    }

    /// Whether a person answers it as an approval.
    #[must_use]
    pub fn is_question(&self) -> bool {
        match self {
            Self::Approval { .. } | Self::Budget { .. } | Self::Ceiling { .. } | Self::Transition { .. } => true,
            Self::Signal | Self::Outcome { .. } | Self::ToolChanged { .. } => false,
        }
    }

    /// Hash of what is shown, of a question.
    #[must_use]
    pub fn shown(&self) -> Option<Digest> {
        match self {
            Self::Approval { shown, .. }
            | Self::Budget { shown, .. }
            | Self::Ceiling { shown, .. }
            | Self::Transition { shown, .. } => Some(*shown),
            Self::Signal | Self::Outcome { .. } | Self::ToolChanged { .. } => None,
        }
    }
}

/// A timer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTimer {
    /// When it fires.
    pub due: Timestamp,
    /// What then.
    pub purpose: TimerPurpose,
}

/// What happens when a timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerPurpose {
    /// The run is out of time.
    RunDeadline,
    /// The state is out of time.
    StateTimeout,
    /// A wait gives up.
    WaitTimeout {
        /// The wait.
        wait: EffectId,
    },
    /// Nobody has answered a question: somebody else is asked.
    Escalation {
        /// The wait that carries it.
        wait: EffectId,
    },
    /// The children are out of time.
    JoinTimeout,
    /// A long chain of moves goes on in a decision of its own.
    Continue,
    /// A call is tried again.
    Backoff {
        /// The call.
        call: EffectId,
    },
}
