//! The entries of a journal: what happened in a run, in the past tense, as results and never as expressions.
//!
//! One decision is one [`Record`]: stored as one row, never changed. Old versions are upgraded when read.

mod kind;
mod record;

use serde::{Deserialize, Serialize};

use crate::approval;
use crate::basis::Basis;
use crate::budget::{Amounts, Ceilings, Meter};
use crate::contract::Plan;
use crate::effect::{ChildStart, Doubt, OpenCall, OpenTimer, OpenWait, Outcome};
use crate::escrow::{Drawn, Share};
use crate::failure::Failure;
use crate::hidden::Hidden;
use crate::ids::{Digest, EffectId, Name, RunId};
use crate::input::Ending;
use crate::label::Marks;
use crate::machine::HookKind;
use crate::overrides::ModelChange;
use crate::policy::{Denial, Ruled, Verdict};
use crate::resource::Resource;
use crate::route::Choice;
use crate::run::{Exec, Hold, Join, OfferedTool, Raised, Stage, Start};
use crate::skill::SkillUsed;
use crate::time::Timestamp;
use crate::transcript::{Message, ToolRequest};
use crate::value::Value;

pub use record::{DecodeError, FORMAT, Record};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A decision was taken. Opens every record and carries the facts it used.
    Decided {
        /// The time it was taken at.
        at: Timestamp,
        /// The kind of its input.
        input: Name,
        /// The worker that took it, where that is another one than took the decision before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Name>,
        /// What it was taken under, where that is not what the decision before was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<Box<Basis>>,
        /// Policy answers used.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        verdicts: Vec<Verdict>,
    },
    /// The run began.
    RunStarted(Box<Start>),
    /// Top-level keys of the context changed.
    ContextChanged {
        /// New values.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(Name, Value)>,
        /// Keys that are gone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<Name>,
    },
    /// Labels of the run's data changed.
    LabelsChanged {
        /// What stood on these paths and within them gives way.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cleared: Vec<Vec<Name>>,
        /// Labels that are added.
        #[serde(default, skip_serializing_if = "Marks::is_empty")]
        marks: Marks,
    },
    /// Values came up that are not shown.
    ValuesHidden {
        /// The values.
        hidden: Hidden,
    },
    /// A state was entered; counts as a step.
    StateEntered {
        /// The state.
        state: Name,
    },
    /// The run moved on within its state, or between states.
    StageReached {
        /// Where it is now.
        stage: Stage,
    },
    /// Hooks of an event are called from here, one after another.
    HooksStarted {
        /// The event.
        event: HookKind,
        /// What the event carries beside the context: target state, failure text, output, tool.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        detail: Value,
    },
    /// One hook has been dealt with.
    HookPassed {
        /// What the event carries from here on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        detail: Value,
    },
    /// All hooks of the event have been dealt with.
    HooksEnded,
    /// What the state produced so far.
    OutputProduced {
        /// The value.
        output: Value,
    },
    /// A call is about to leave.
    CallIntended {
        /// Its id.
        effect: EffectId,
        /// The call.
        call: Box<OpenCall>,
    },
    /// A call is about to leave again.
    AttemptStarted {
        /// Its id.
        effect: EffectId,
        /// Number of the attempt.
        attempt: u32,
        /// Held in the ledger for it.
        reserved: Amounts,
        /// The link of a fallback chain that it takes; none when it is made as the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        route: Option<Box<Choice>>,
        /// Hash of what it sends, where that is not what the one before sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<Digest>,
        /// What it takes, where the ceilings have too little for it and nothing is held.
        #[serde(default, skip_serializing_if = "Amounts::is_zero")]
        wants: Amounts,
        /// Output tokens that it asks for at most, where the attempts before it asked for none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_max: Option<u64>,
        /// The rule that lets it go, where that is another one than that of the attempt before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ruled: Option<Box<Ruled>>,
    },
    /// An attempt failed and another one will follow.
    AttemptFailed {
        /// The call.
        effect: EffectId,
        /// The attempt.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// What it used.
        used: Amounts,
        /// Whether `used` is the reservation because the true use is unknown.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        estimated: bool,
        /// The timer after which it is tried again; none when it is tried at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backoff: Option<EffectId>,
    },
    /// A call waits for a person before it leaves.
    ApprovalAsked {
        /// The call.
        effect: EffectId,
        /// The wait that carries the question.
        wait: EffectId,
        /// The rule that asks, or `contract`.
        rule: Name,
        /// Version of its rule set; empty where there is none.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        version: Name,
        /// Why it asks.
        reason: Name,
        /// Who else is asked when nobody answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        escalation: Option<approval::Escalation>,
    },
    /// Nobody answered a question: somebody else is asked too.
    ApprovalEscalated {
        /// The wait that carries it.
        wait: EffectId,
        /// The how manieth time, from 1.
        level: u32,
        /// Who: a group or a channel.
        to: Name,
    },
    /// A person said whether a transition may be taken, or nobody did in time.
    TransitionAnswered {
        /// The wait that carried the question.
        wait: EffectId,
        /// From this state.
        from: Name,
        /// To this one.
        to: Name,
        /// How.
        answer: approval::Answer,
        /// Who answered; empty when nobody did.
        by: Name,
        /// Why.
        reason: Name,
        /// Hash of what was shown.
        shown: Digest,
    },
    /// What a call would do was shown.
    PlanMade {
        /// Its id.
        id: Name,
        /// What it is bound to.
        plan: Plan,
    },
    /// A plan is applied: no other call may name it.
    PlanApplied {
        /// Its id.
        id: Name,
    },
    /// A person answered, or nobody did in time.
    ApprovalAnswered {
        /// The call.
        effect: EffectId,
        /// How.
        answer: approval::Answer,
        /// Who answered; empty when nobody did.
        by: Name,
        /// Why.
        reason: Name,
        /// The arguments it leaves with, when those were changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<Value>,
        /// The ids of what it touches with those.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        resources: Vec<Resource>,
    },
    /// A call that waited is let go, by another rule or rule set than let it wait.
    CallAllowed {
        /// The call.
        effect: EffectId,
        /// The rule.
        ruled: Box<Ruled>,
    },
    /// The ceilings have enough for a call that waited for more of them: what it takes is held.
    RoomHeld {
        /// The call.
        effect: EffectId,
    },
    /// A call waits until enough has been drawn from budgets for it.
    DrawAwaited {
        /// The call.
        effect: EffectId,
    },
    /// A draw on budgets is about to be made.
    DrawAsked {
        /// Its number.
        number: EffectId,
        /// The call that it is made for.
        call: EffectId,
        /// What that call takes, and by which versions of the budgets.
        shares: Vec<Share>,
    },
    /// A draw was answered.
    DrawAnswered {
        /// The draw.
        number: EffectId,
        /// The answer.
        answer: Drawn,
    },
    /// What was drawn is held for a call that is about to leave.
    ShareHeld {
        /// The call.
        effect: EffectId,
        /// What is held for it.
        shares: Vec<Share>,
    },
    /// What was drawn and is held for no call is returned.
    SharesReturned {
        /// The number of the return.
        number: EffectId,
    },
    /// The process that held a call died, and it is not known whether the call happened.
    DoubtRaised {
        /// The call.
        effect: EffectId,
        /// How the doubt is being resolved.
        doubt: Doubt,
    },
    /// Somebody said whether a call in doubt happened.
    DoubtResolved {
        /// The call.
        effect: EffectId,
        /// `happened`, `not_happened` or `unknown`.
        found: Name,
        /// Who: the person of a signal that says so, a tool, `contract` or `policy`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Name>,
    },
    /// The rules or a contract did not let something happen.
    Denied(Box<Denial>),
    /// A call ended.
    CallSettled {
        /// The call.
        effect: EffectId,
        /// The attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
        /// What it used.
        used: Amounts,
        /// Whether `used` is the reservation because the true use is unknown.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        estimated: bool,
    },
    /// A call no longer matters. What it used is charged at its reservation if it may have left.
    CallAbandoned {
        /// The call.
        effect: EffectId,
        /// What it used.
        used: Amounts,
        /// Whether `used` is the reservation.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        estimated: bool,
    },
    /// A signal is waited for.
    WaitOpened {
        /// Its id.
        effect: EffectId,
        /// The wait.
        wait: OpenWait,
    },
    /// A wait ended.
    WaitClosed {
        /// The wait.
        effect: EffectId,
        /// The signal that ended it; none when it timed out or no longer matters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<Name>,
    },
    /// A timer runs.
    TimerSet {
        /// Its id.
        effect: EffectId,
        /// The timer.
        timer: OpenTimer,
    },
    /// A timer ended.
    TimerEnded {
        /// The timer.
        effect: EffectId,
        /// Whether it fired, rather than being cancelled.
        fired: bool,
    },
    /// The state waits for children from here.
    JoinStarted {
        /// What it waits for.
        join: Join,
    },
    /// A child or launch was started.
    ChildStarted {
        /// The child.
        child: Box<ChildStart>,
        /// Its place in the join; none for a launch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
    },
    /// A child ended.
    ChildSettled {
        /// The child.
        child: RunId,
        /// How.
        ending: Ending,
        /// What it and everything below it used.
        used: Amounts,
    },
    /// Somebody let a child, or a run below it, use more than it was given: the ceilings rise by as much.
    ChildRaised {
        /// The child.
        child: RunId,
        /// By so much.
        amounts: Amounts,
    },
    /// A child was asked to stop.
    ChildCancelled {
        /// The child.
        child: RunId,
        /// Why.
        reason: Name,
    },
    /// The state no longer waits for children.
    JoinEnded,
    /// An agent is asked from here.
    AgentStarted {
        /// Its prompt and samples.
        exec: Box<Exec>,
    },
    /// Which tools the model may call.
    ToolsListed {
        /// The tools.
        tools: Vec<OfferedTool>,
    },
    /// Messages were added to a sample's conversation.
    MessagesAdded {
        /// The sample.
        sample: u32,
        /// The messages.
        messages: Vec<Message>,
        /// Whether this is the one repair of an answer that did not fit.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repair: bool,
    },
    /// A sample has its result.
    SampleDone {
        /// The sample.
        sample: u32,
        /// What it produced.
        output: Value,
    },
    /// An answer was not good enough and is asked for anew, at a better tier.
    Escalated {
        /// The sample.
        sample: u32,
        /// To where, and why.
        raised: Raised,
    },
    /// A sample failed for good.
    SampleFailed {
        /// The sample.
        sample: u32,
        /// Why.
        failure: Failure,
    },
    /// One more sample is wanted.
    SampleAdded,
    /// The model answered in a tool loop.
    TurnTaken {
        /// What it said.
        message: Message,
        /// Tools to call, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pending: Vec<ToolRequest>,
        /// What the turn cost in micro-USD.
        cost_micros: u64,
    },
    /// The hooks have seen the tool calls of the turn.
    ToolCallsSeen {
        /// Calls that the hooks want skipped, by id or tool name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip: Vec<Name>,
    },
    /// A tool call of the turn has its answer.
    ToolAnswered {
        /// Its place in the turn.
        index: u32,
        /// The answer.
        content: Name,
        /// Whether the tool failed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        /// Whether the tool was really called.
        counted: bool,
    },
    /// A tool call of the turn has been dealt with.
    ToolPassed {
        /// Its place in the turn.
        index: u32,
        /// Messages that the hooks want said after the turn.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steering: Vec<Message>,
    },
    /// Something went wrong again and again: a breaker has tripped.
    BreakerTripped {
        /// Which, of [`crate::breakers::NAMES`].
        breaker: Name,
        /// The tool or action that is shut off for the run, or the agent for which no more attempts are made.
        target: Name,
        /// How often it happened.
        count: u32,
        /// Why, for people and models.
        why: Name,
        /// Whether the target is an agent.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_agent: bool,
    },
    /// The tool loop ends for this reason.
    LoopStopped {
        /// `complete`, `max_turns`, `max_tool_calls`, `cost_limit`, `timeout`, `aborted`, `transition`.
        reason: Name,
        /// The state to go to, for `transition`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Name>,
    },
    /// A row of a decision table fitted.
    RowFired {
        /// The table.
        table: Name,
        /// Number of the row, from 1.
        row: u32,
        /// Name of the row, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<Name>,
        /// What it was found by, by the names of the columns.
        inputs: Value,
        /// The state that the run goes to, where the row names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Name>,
    },
    /// A skill is used.
    SkillUsed(Box<SkillUsed>),
    /// The agent has been asked; its result is the state's output.
    AgentEnded,
    /// A transition was chosen.
    TransitionTaken {
        /// From this state.
        from: Name,
        /// To this state.
        to: Name,
        /// Which of the state's transitions, from 0; none when a hook or an error led there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
    },
    /// The state failed.
    FailureRaised {
        /// Why.
        failure: Failure,
    },
    /// A failure was handled by going to another state.
    FailureRouted {
        /// From this state.
        from: Name,
        /// To this state.
        to: Name,
        /// The name in `on_error` that matched, or `hook`.
        by: Name,
    },
    /// The run holds until someone lets it go.
    HoldPlaced {
        /// Why.
        hold: Hold,
    },
    /// It goes on.
    HoldLifted,
    /// A stop was asked for.
    CancelRequested {
        /// Why.
        reason: Name,
    },
    /// A ceiling is nearly reached.
    CeilingNear {
        /// Which.
        meter: Meter,
        /// Used or held.
        used: u64,
        /// The bound.
        ceiling: u64,
    },
    /// A conversation is nearly as long as its model takes.
    ConversationNear {
        /// Whose.
        agent: Name,
        /// The model that is to be called.
        model: Name,
        /// About how many tokens it has.
        tokens: u64,
        /// How many the model takes, or how many it should have at most where that is less.
        context_tokens: u64,
        /// Of what so much is used up that a shorter one counts as long. None where it would at any time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saving: Option<Name>,
    },
    /// The ceilings changed.
    CeilingsChanged {
        /// The new ones.
        ceilings: Ceilings,
        /// Who changed them.
        by: Name,
    },
    /// The ending is decided; children that still run are being stopped.
    EndingDecided {
        /// The ending.
        ending: Ending,
    },
    /// The run is over.
    RunEnded,
    /// A failed run tries its last state again.
    RunReopened,
    /// The state of a reopened run is not tried again: what was given counts as its output.
    StateSkipped {
        /// The state.
        state: Name,
        /// Who wanted it.
        by: Name,
        /// Why; empty when it was not said.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        reason: Name,
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
