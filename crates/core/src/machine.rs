//! A validated machine: what documents mean, with every name resolved. Built by `spec`, never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::budget::Ceilings;
use crate::contract::Contract;
use crate::handoff::Handoff;
use crate::ids::{Digest, Name};
use crate::near::Conversation;
use crate::select::Indexed;
use crate::skill::Skills;
use crate::table::Table;
use crate::value::Value;

/// A machine and everything it can start, compiled from one source bundle.
#[derive(Clone, Debug)]
pub struct Program {
    /// Hash of the bundle this was compiled from.
    pub bundle: Digest,
    /// The machine that a caller's run starts with.
    pub entry: Name,
    /// Every machine by its key: the path within the bundle, and `#name` for each inline step down.
    pub machines: BTreeMap<Name, Arc<Machine>>,
    /// Contracts of the tools and actions known when the bundle was made.
    pub tools: BTreeMap<Name, Arc<Contract>>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Key in the [`Program`].
    pub key: Name,
    /// The document's name for it.
    pub name: Name,
    /// The document's `spec_version`.
    pub spec_version: Name,
    /// Hash of the bundle, recorded by every run.
    pub bundle: Digest,
    /// The language of its conditions.
    pub engine: Engine,
    /// Initial context, in document order.
    pub context: Vec<(Name, Template)>,
    /// States in document order.
    pub states: IndexMap<Name, State>,
    /// The state that a run enters first.
    pub initial: Name,
    /// Agents by name.
    pub agents: BTreeMap<Name, Arc<Agent>>,
    /// Child machines: name used here to key in the [`Program`].
    pub machines: BTreeMap<Name, Name>,
    /// Contracts that tool loops and actions of this machine may use.
    pub tools: BTreeMap<Name, Arc<Contract>>,
    /// Catalog tools offered to every tool loop of this machine, beside the ones its agents declare.
    pub offered_tools: Vec<Name>,
    /// Catalog tools of which a tool loop shows those that fit, and finds others when the model asks.
    pub searched_tools: Vec<Name>,
    /// Hooks called at the start and the end of a run.
    pub lifecycle: Vec<Hook>,
    /// Ceilings that the document sets; a caller may lower them further.
    pub ceilings: Ceilings,
    /// JSON Schema of the input, when declared.
    pub input_schema: Option<Value>,
    /// JSON Schema of the output, when declared.
    pub output_schema: Option<Value>,
    /// What its children may do, by the names of [`Machine::machines`].
    pub child_contracts: BTreeMap<Name, ChildContract>,
    /// Which workers take its runs, and in which order.
    pub placement: Placement,
    /// Where what it is given comes from.
    pub provenance: Provenance,
    /// What happens when a conversation gets long.
    pub conversation: Conversation,
    /// Share of each ceiling of a run, in percent, from which it is nearly used up.
    pub near_percent: u8,
    /// Decision tables, by the actions that ask them.
    pub tables: BTreeMap<Name, Arc<Table>>,
    /// The skills that it uses.
    pub skills: Skills,
    /// What its searched tools and skills say, read once.
    pub tool_index: Indexed,
}

/// Where what a machine is given comes from, for the labels of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Nobody outside writes its input: it is not `untrusted` by itself.
    pub input_trusted: bool,
    /// Nobody outside writes the signals that it waits for.
    pub signals_trusted: bool,
    /// Parts of its input that are `secret`, as keys from the input inwards.
    pub secret_input: Vec<Vec<Name>>,
}

impl Machine {
    /// The tools and skills that its tool loops may find, always in the same order.
    pub fn findable(&self) -> impl Iterator<Item = &Contract> {
        let tools = self.searched_tools.iter().filter_map(|name| self.tools.get(name)).map(|contract| &**contract);
        tools.chain(self.skills.found().map(|skill| &*skill.contract))
    }

    /// The pool that a run in this state asks for; that of its parent, or the default one, when none.
    #[must_use]
    pub fn pool_of(&self, state: Option<&str>) -> Option<&Name> {
        self.placement.pool_of(state)
    }

    /// The decision table that a state asks by its action.
    #[must_use]
    pub fn table_of(&self, state: &State) -> Option<&Arc<Table>> {
        self.tables.get(state.action.as_ref()?)
    }

    /// The action of a state that somebody performs; none where a decision table does.
    #[must_use]
    pub fn performed<'s>(&self, state: &'s State) -> Option<&'s Name> {
        state.action.as_ref().filter(|action| !self.tables.contains_key(*action))
    }
}

/// What a machine allows one of its children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChildContract {
    /// Its bounds, carved out of what the parent has left.
    pub ceilings: Ceilings,
    /// The tools and actions of the child and of all below it, by name or by the beginning of names and `*`; all when none.
    pub tools: Option<Vec<Name>>,
    /// Bytes of its output at most.
    pub output_bytes: Option<u64>,
    /// Whether of a larger output the beginning is given, rather than none.
    pub cut_output: bool,
    /// What it is handed, where that is said: nothing else crosses.
    pub handoff: Option<Handoff>,
    /// Parts of its output that have no label, as keys from the output inwards. Its schema bounds them all.
    pub declassified: Vec<Vec<Name>>,
    /// JSON Schema that its output fits; null where nothing is declassified.
    pub output_schema: Value,
}

/// Which workers take the runs of a machine, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The pool whose workers take its runs.
    pub pool: Option<Name>,
    /// Pools of single states, by the state's name. With any of these there is a `pool` for all others.
    pub pools: BTreeMap<Name, Name>,
    /// The class in which its runs wait for a worker.
    pub priority: Option<Priority>,
}

/// Bytes of a pool's name.
const POOL_NAME_BYTES_MAX: usize = 64;

impl Placement {
    /// The pool that a run in this state asks for.
    #[must_use]
    pub fn pool_of(&self, state: Option<&str>) -> Option<&Name> {
        state.and_then(|state| self.pools.get(state)).or(self.pool.as_ref())
    }

    /// Whether a text can name a pool: up to 64 letters, digits, `.`, `_` and `-`.
    #[must_use]
    pub fn is_pool_name(text: &str) -> bool {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !text.is_empty() && text.len() <= POOL_NAME_BYTES_MAX && text.chars().all(fits)
    }
}

/// The order in which classes of runs are claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others.
    High,
    /// In between.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

impl Priority {
    /// All of them, first claimed first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == text)
    }
}

/// The language of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// The format's own small language.
    Simple,
    /// Common Expression Language.
    Cel,
}

/// A condition, already known to parse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// Its language.
    pub engine: Engine,
    /// Its text.
    pub source: Name,
}

/// Which rules a template text is rendered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// Values of a machine: a text that is exactly one expression keeps its type; lists and maps print as JSON.
    Machine,
    /// Prompts of an agent: always text.
    Prompt,
}

/// A value with parts to be filled in.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// Taken as it is.
    Literal(Value),
    /// A bare path such as `context.user.name`: the value there, or null.
    Path(Vec<Name>),
    /// Text with expressions, known to parse.
    Text {
        /// The rules.
        dialect: Dialect,
        /// The text.
        source: Name,
    },
    /// A list of templates.
    List(Vec<Template>),
    /// A mapping of templates, in document order.
    Map(Vec<(Name, Template)>),
}

impl Template {
    /// An empty mapping.
    #[must_use]
    pub fn empty_map() -> Self {
        Self::Map(Vec::new())
    }
}

/// One state.
#[derive(Clone, Debug)]
pub struct State {
    /// Its name.
    pub name: Name,
    /// Whether a run ends here.
    pub is_final: bool,
    /// Wait for a signal; then nothing else of the body is done.
    pub wait: Option<Wait>,
    /// Action to perform.
    pub action: Option<Name>,
    /// What the action is called with: then it is a tool of the catalog, and none of the state's hooks performs it.
    pub arguments: Option<Template>,
    /// Machines to start without waiting.
    pub launch: Option<Launch>,
    /// Child machines to run and wait for.
    pub call: Option<Call>,
    /// Agent to call.
    pub agent: Option<AgentCall>,
    /// Output mapping of a final state.
    pub output: Option<Template>,
    /// What the state's result changes in the context, in document order.
    pub output_to_context: Vec<(Name, Template)>,
    /// Hooks of this state.
    pub hooks: Vec<Hook>,
    /// Where failures lead.
    pub on_error: OnError,
    /// Ways out, first true one taken.
    pub transitions: Vec<Transition>,
    /// Time for one visit, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// A hook by name. Where it is implemented is configuration, looked up when it is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// The name in documents and configuration.
    pub name: Name,
    /// The document's arguments for it.
    pub args: Value,
    /// The events it takes part in. Built-in observers take part in none.
    pub events: Vec<HookKind>,
}

/// The kinds of hook events, as named on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// A run starts.
    MachineStart,
    /// A run is about to complete.
    MachineEnd,
    /// A state is entered.
    StateEnter,
    /// A state has done its work.
    StateExit,
    /// A transition is about to be taken.
    Transition,
    /// A state failed and no `on_error` applies.
    Error,
    /// An action is performed.
    Action,
    /// A model asked for tools.
    ToolCalls,
    /// A tool is called that nothing else implements.
    ToolCall,
    /// A tool answered.
    ToolResult,
    /// Which tools the hook provides.
    ToolsList,
}

impl HookKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::MachineStart,
        Self::MachineEnd,
        Self::StateEnter,
        Self::StateExit,
        Self::Transition,
        Self::Error,
        Self::Action,
        Self::ToolCalls,
        Self::ToolCall,
        Self::ToolResult,
        Self::ToolsList,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MachineStart => "machine_start",
            Self::MachineEnd => "machine_end",
            Self::StateEnter => "state_enter",
            Self::StateExit => "state_exit",
            Self::Transition => "transition",
            Self::Error => "error",
            Self::Action => "action",
            Self::ToolCalls => "tool_calls",
            Self::ToolCall => "tool_call",
            Self::ToolResult => "tool_result",
            Self::ToolsList => "tools_list",
        }
    }
}

/// `wait_for`.
#[derive(Clone, Debug)]
pub struct Wait {
    /// The channel.
    pub channel: Template,
    /// Time to wait, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// `launch`.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Names in [`Machine::machines`]; repeats start several.
    pub machines: Vec<Name>,
    /// Input of each.
    pub input: Template,
}

/// `machine` and `foreach`.
#[derive(Clone, Debug)]
pub struct Call {
    /// What is started.
    pub targets: Targets,
    /// When the state goes on.
    pub mode: Mode,
    /// Time to wait for the children, in milliseconds. Honoured for lists and `foreach`.
    pub timeout_ms: Option<u64>,
}

/// The children of a state.
#[derive(Clone, Debug)]
pub enum Targets {
    /// One child; its output is the result and its failure the state's.
    One {
        /// Name in [`Machine::machines`].
        machine: Name,
        /// Its input.
        input: Template,
    },
    /// Several children; the result maps names to outputs.
    Many(Vec<(Name, Template)>),
    /// One child for each item of a list.
    Foreach {
        /// Name in [`Machine::machines`].
        machine: Name,
        /// Must give a list.
        items: Template,
        /// The item's name in templates.
        binding: Name,
        /// Input of each child, with the item in scope.
        input: Template,
        /// Key of each child's result, with the item in scope; without one the result is a list.
        key: Option<Template>,
    },
}

/// When a state with several children goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// When all have ended; failures are part of the result.
    Settled,
    /// At the first success by journal order; the others are cancelled.
    Any,
}

/// The agent of a state and how it is called.
#[derive(Clone, Debug)]
pub struct AgentCall {
    /// Name in [`Machine::agents`].
    pub agent: Name,
    /// Its input.
    pub input: Template,
    /// How often and how it is asked.
    pub execution: Execution,
    /// Whether the model may call tools in a loop.
    pub tool_loop: Option<ToolLoop>,
}

/// How an agent is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Execution {
    /// Once.
    Once,
    /// Again after transient failures.
    Retry {
        /// Pauses in milliseconds; attempts are one more than pauses.
        backoffs_ms: Vec<u64>,
        /// Share of a pause by which it varies, 0 to 1.
        jitter: f64,
    },
    /// Several times at once, all successes are the result.
    Parallel {
        /// Number of samples.
        samples: u32,
    },
    /// Again and again until one answer leads.
    Voting {
        /// Votes by which the winner leads, or which it has.
        margin: u32,
        /// Samples at most.
        candidates: u32,
    },
}

/// Bounds of a tool loop. Templates give numbers; zero and null mean no bound.
#[derive(Clone, Debug)]
pub struct ToolLoop {
    /// Tool calls.
    pub max_tool_calls: Template,
    /// Model turns.
    pub max_turns: Template,
    /// Dollars.
    pub max_cost: Template,
    /// Seconds for one tool call.
    pub tool_timeout: Template,
    /// Seconds for the loop.
    pub total_timeout: Template,
    /// Only these tools, if not empty.
    pub allowed_tools: Vec<Name>,
    /// Never these tools.
    pub denied_tools: Vec<Name>,
}

/// Where the failures of a state lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnError {
    /// Pairs of name and state; see [`crate::failure::Failure::names`].
    pub by_name: Vec<(Name, Name)>,
    /// For every other failure.
    pub default: Option<Name>,
}

/// One way out of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Must hold; absent means always.
    pub condition: Option<Condition>,
    /// The next state.
    pub to: Name,
}

/// A model with instructions.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Name in the machine.
    pub name: Name,
    /// The file that its prompt stands in.
    pub document: Name,
    /// Hash of the agent's resolved definition.
    pub hash: Digest,
    /// Which model, and how.
    pub model: ModelSettings,
    /// System prompt.
    pub system: Template,
    /// User prompt.
    pub user: Template,
    /// Appended to the user prompt after a blank line when it renders to something.
    pub instruction_suffix: Template,
    /// Appended to the last message of what is sent, never stored.
    pub post_history: Template,
    /// JSON Schema that the answer must fit.
    pub output_schema: Option<Value>,
    /// Tools the document declares: `{name, description, parameters}`.
    pub tools: Vec<ToolDefinition>,
    /// How a voting state reads and checks a candidate.
    pub voting: VotingRules,
}

/// Which model is called, and with what.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ModelSettings {
    /// The provider's name: `openai`, `anthropic`, `scripted`, or one from configuration.
    pub provider: Name,
    /// The model's name, as the provider knows it.
    pub model: Name,
    /// Address, when the document names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<Name>,
    /// Reference to a key, when the document named one. The key itself is never here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
    /// Output tokens at most, when the document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Whether to ask for a stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// `temperature`, `top_p`, `seed` and every further key, passed to the provider.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Time for one attempt in milliseconds.
    pub timeout_ms: u64,
}

/// A tool as a model sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ToolDefinition {
    /// Its name.
    pub name: Name,
    /// What it does.
    pub description: Name,
    /// JSON Schema of its arguments.
    pub parameters: Value,
}

/// How a voting state reads and checks a candidate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VotingRules {
    /// Fields read from the text: name, regular expression (group 1), type `str`, `int` or `json`.
    pub parsing: Vec<(Name, Name, Name)>,
    /// JSON Schema that a candidate must fit.
    pub validation: Option<Value>,
    /// Answers longer than this many tokens (four characters each) do not count.
    pub max_tokens: Option<u64>,
    /// Overrides the state's margin.
    pub margin: Option<u32>,
    /// Overrides the state's number of candidates.
    pub candidates: Option<u32>,
}
