//! Fields of machine documents.

use super::{
    AGENT, Claim, Feature, Others, SKILLS, Section, Shape, compatible, field, idle, legacy, needed, ours, ours_needed,
};

const HOOKS: Shape = Shape::OneOf(&[
    Shape::Text,
    Shape::Section(&HOOK_REF),
    Shape::List(&Shape::OneOf(&[Shape::Text, Shape::Section(&HOOK_REF)])),
]);
const TEXTS: Shape = Shape::List(&Shape::Text);

/// A machine document.
pub static MACHINE: Section = Section {
    name: "MachineWrapper",
    noun: "a machine document",
    others: Others::Refused,
    claims: Claim::Has("spec"),
    features: &[
        needed("spec", Shape::Word(&["flatmachine"]), "The kind of document: `flatmachine`."),
        Feature {
            required: false,
            ..needed("spec_version", Shape::Version, "The version of the format it is written for; major 4 at most.")
        },
        needed("data", Shape::Section(&MACHINE_DATA), "The machine."),
        field("metadata", Shape::Mapping, "Free data for people and tools."),
    ],
};

/// The machine itself.
pub static MACHINE_DATA: Section = Section {
    name: "MachineData",
    noun: "a machine",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        field("name", Shape::Text, "The machine's name; `unnamed-machine` by default."),
        field("expression_engine", Shape::Word(&["simple", "cel"]), "The language of conditions; `simple` by default."),
        field("context", Shape::TemplateMap, "The context a run starts with; templates see `input`."),
        field(
            "agents",
            Shape::MapOf(&Shape::OneOf(&[Shape::Text, Shape::Section(&AGENT), Shape::Section(&AGENT_REF)])),
            "Agents by name: a path, an inline document, or `{type, ref, config}`.",
        ),
        field(
            "machines",
            Shape::MapOf(&Shape::OneOf(&[Shape::Text, Shape::Section(&MACHINE), Shape::Section(&MACHINE_REF)])),
            "Child machines by name: a path or an inline document.",
        ),
        needed("states", Shape::MapOf(&Shape::Section(&STATE)), "The states by name."),
        field("settings", Shape::Section(&SETTINGS), "Ceilings and other settings."),
        field("persistence", Shape::Section(&PERSISTENCE), "Checked only: runs are kept in the configured store."),
        field("lifecycle_hooks", HOOKS, "Hooks called at the start and the end of a run."),
        legacy("hooks", HOOKS, "Until 2.x: lifecycle hooks that are also the hooks of states that declare none."),
        compatible("profiles", Shape::Any, "Path of the profile catalog, used when the folder has no `profiles.yml`."),
    ],
};

/// An agent reference with a type.
pub static AGENT_REF: Section = Section {
    name: "AgentRefConfig",
    noun: "an agent reference",
    others: Others::Refused,
    claims: Claim::HasNot("spec"),
    features: &[
        needed(
            "type",
            Shape::Word(&["flatagent", "claude-code", "codex-cli", "smolagents", "pi-agent"]),
            "What runs the agent; only `flatagent` is taken.",
        ),
        field("ref", Shape::Text, "Path of the agent document."),
        field("config", Shape::Mapping, "Laid over the document, one level deep."),
    ],
};

/// A child machine reference with a key.
pub static MACHINE_REF: Section = Section {
    name: "MachineReference",
    noun: "a machine reference",
    others: Others::Refused,
    claims: Claim::HasNot("spec"),
    features: &[
        field("path", Shape::Text, "Path of the machine document."),
        field("inline", Shape::Section(&MACHINE), "The machine document itself."),
        ours("contract", Shape::Section(&CONTRACT), "What its runs may spend, call and give back."),
    ],
};

/// What a child machine may do.
pub static CONTRACT: Section = Section {
    name: "ChildContract",
    noun: "a child's contract",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours("max_steps", Shape::Count, "Ceiling of steps of the child."),
        ours("max_depth", Shape::Count, "Ceiling of nesting below it."),
        ours("max_model_calls", Shape::Count, "Ceiling of attempts at model calls, of it and all below it."),
        ours("max_tool_calls", Shape::Count, "Ceiling of tool calls, of it and all below it."),
        ours("max_tokens", Shape::Count, "Ceiling of tokens in and out, of it and all below it."),
        ours("max_cost", Shape::Number, "Ceiling of cost in US dollars, of it and all below it."),
        ours("max_launches", Shape::Count, "Ceiling of children and launches started by it and all below it."),
        ours("timeout", Shape::Number, "Seconds of wall clock for it."),
        ours("beyond", Shape::Word(&["fail", "ask"]), "Whether a call beyond these ceilings fails or asks a person."),
        ours(
            "tools",
            TEXTS,
            "Tools and actions that it and all below it may call; `NAME*` stands for all whose names begin so.",
        ),
        ours("max_output_bytes", Shape::Count, "Bytes of its output, as JSON; a larger one fails it, or is cut."),
        ours(
            "larger_output",
            Shape::Word(&["fail", "cut"]),
            "What becomes of a larger output: the child fails, or its parent gets the beginning, its size and its hash.",
        ),
        ours("handoff", Shape::Section(&HANDOFF), "The envelope that it is handed; nothing else crosses."),
        ours(
            "declassified",
            TEXTS,
            "Parts of its output that have no label, each as a JSON Pointer: what they may say is bounded by its schema.",
        ),
    ],
};

/// The envelope of a child's contract.
pub static HANDOFF: Section = Section {
    name: "Handoff",
    noun: "an envelope",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours("facts", TEXTS, "The facts that may cross, by name."),
        ours(
            "refs",
            TEXTS,
            "The references that may cross, by name: files, and texts that name what is kept elsewhere.",
        ),
        ours("max_bytes", Shape::Count, "Bytes of it, as JSON without the contents of files; 65,536 by default."),
    ],
};

/// `data.settings`.
pub static SETTINGS: Section = Section {
    name: "MachineSettings",
    noun: "`settings`",
    others: Others::Warned,
    claims: Claim::Any,
    features: &[
        field("max_steps", Shape::Count, "Ceiling of steps of a run."),
        field(
            "parallel_fallback",
            Shape::Word(&["sequential", "error"]),
            "Checked only: machines always run in parallel, so no fallback is taken.",
        ),
        field("max_depth", Shape::Count, "Ceiling of nesting of children and launches."),
        ours("max_model_calls", Shape::Count, "Ceiling of attempts at model calls, children included."),
        ours("max_tool_calls", Shape::Count, "Ceiling of tool calls, children included."),
        ours("max_tokens", Shape::Count, "Ceiling of tokens in and out, children included."),
        ours("max_cost", Shape::Number, "Ceiling of cost in US dollars, children included."),
        ours("max_launches", Shape::Count, "Ceiling of children and launches started, children included."),
        ours("timeout", Shape::Number, "Seconds of wall clock for a run."),
        ours(
            "beyond",
            Shape::Word(&["fail", "ask"]),
            "What happens to a call beyond `max_model_calls`, `max_tool_calls`, `max_tokens` or `max_cost`: it fails, or the \
             run waits for a person. Whoever else sets ceilings for the run has to say `ask` too.",
        ),
        ours(
            "near_percent",
            Shape::Count,
            "Share of each ceiling, in percent, from which it counts as nearly used up: it is recorded, and of cost and tokens \
             the run makes do with less; 80 by default.",
        ),
        ours("strict", Shape::Flag, "Whether warnings are errors."),
        ours(
            "tools",
            TEXTS,
            "Configured tools offered to every tool loop of the machine. `NAME*` stands for all whose names begin so: of \
             many the model sees those that fit and finds others with `find_tool`; a tool that changes something has to be \
             named in full.",
        ),
        ours("input_schema", Shape::Mapping, "JSON Schema that the input of its runs must fit."),
        ours("output_schema", Shape::Mapping, "JSON Schema that the machine's output must fit."),
        ours("labels", Shape::Section(&LABELS), "Where what its runs are given comes from."),
        ours(
            "conversation",
            Shape::Section(&CONVERSATION),
            "What happens when a conversation gets nearly as long as its model takes.",
        ),
        ours(
            "tables",
            Shape::MapOf(&Shape::Section(&TABLE)),
            "Decision tables by name; a state asks one with `action: NAME`.",
        ),
        ours("skills", Shape::Section(&SKILLS), "Skills that its agents and states use."),
        ours("pool", Shape::Text, "The pool whose workers take its runs; that of the parent run by default."),
        ours("pools", Shape::MapOf(&Shape::Text), "Pools of single states, by the state's name; needs `pool` too."),
        ours(
            "priority",
            Shape::Word(&["high", "normal", "low"]),
            "The class in which its runs wait for a worker; that of the parent run by default.",
        ),
    ],
};

/// One of `data.settings.tables`.
pub static TABLE: Section = Section {
    name: "DecisionTable",
    noun: "a decision table",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours("file", Shape::Text, "Path of a CSV file with the rows; its first line has the names of the columns."),
        ours(
            "rows",
            Shape::List(&Shape::Mapping),
            "The rows in the place of a file: each a mapping of columns to cells.",
        ),
        ours(
            "hit",
            Shape::Word(&["first", "unique"]),
            "Whether the first row that fits is taken, the default, or one alone may fit.",
        ),
        ours_needed(
            "inputs",
            Shape::MapOf(&Shape::OneOf(&[Shape::Word(&["number", "text", "boolean"]), Shape::Section(&TABLE_INPUT)])),
            "What it reads: the type of each input, or its type and where it is read.",
        ),
        ours_needed(
            "outputs",
            Shape::MapOf(&Shape::Word(&["number", "text", "boolean", "state"])),
            "What it says: the type of each output. The run goes to the state that an output of type `state` names.",
        ),
    ],
};

/// One input of a decision table.
pub static TABLE_INPUT: Section = Section {
    name: "TableInput",
    noun: "an input of a decision table",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours_needed(
            "type",
            Shape::Word(&["number", "text", "boolean"]),
            "What it may be; a value that is not there is null.",
        ),
        ours("from", Shape::Templates, "A path or template that gives it; `context.NAME` by default."),
    ],
};

/// `data.settings.conversation`.
pub static CONVERSATION: Section = Section {
    name: "Conversation",
    noun: "`conversation`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours(
            "near_percent",
            Shape::Count,
            "Share of the model's `context_tokens`, in percent, from which a conversation is recorded as nearly too long; 80 \
             by default.",
        ),
        ours(
            "max_tokens",
            Shape::Count,
            "Tokens that count in place of `context_tokens` where they are fewer, or where the model catalog does not say those.",
        ),
        ours(
            "saving_percent",
            Shape::Count,
            "The same share while a budget, or a ceiling of cost or tokens, is nearly used up: a smaller one keeps what is \
             sent small then.",
        ),
        ours(
            "on_near",
            Shape::Text,
            "The state that the run goes to instead of making such a call, with what was said so far in \
             `context.last_conversation`; once until the agent of the state it left is done.",
        ),
    ],
};

/// `data.settings.labels`.
pub static LABELS: Section = Section {
    name: "Labels",
    noun: "`labels`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours(
            "input",
            Shape::Word(&["untrusted", "trusted"]),
            "Whether someone outside may write the input of its runs; `untrusted` by default.",
        ),
        ours(
            "signals",
            Shape::Word(&["untrusted", "trusted"]),
            "Whether someone outside may write the signals that it waits for; `untrusted` by default.",
        ),
        ours("secret", TEXTS, "Parts of the input that are secret, each as a JSON Pointer."),
    ],
};

/// One state.
pub static STATE: Section = Section {
    name: "StateDefinition",
    noun: "a state",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        field("type", Shape::Word(&["initial", "final"]), "Where a run starts, or where it ends."),
        field(
            "on_error",
            Shape::OneOf(&[Shape::Text, Shape::MapOf(&Shape::Text)]),
            "Where failures lead: a state, or states by failure name with `default` last.",
        ),
        field(
            "timeout",
            Shape::Number,
            "Seconds: of the wait with `wait_for`, for the children of a list or `foreach`, else for the state.",
        ),
        field("transitions", Shape::List(&Shape::Section(&TRANSITION)), "Ways out; the first true one is taken."),
        field("input", Shape::TemplateMap, "Input of the agent or of the child machines."),
        field("output", Shape::TemplateMap, "Output of the machine, in a final state."),
        field("output_to_context", Shape::TemplateMap, "What the state's result changes in the context, in order."),
        field("agent", Shape::Text, "The agent to call."),
        field("execution", Shape::Section(&EXECUTION), "How the agent is asked: once, with retries, or many times."),
        field(
            "sampling",
            Shape::Word(&["single", "multi"]),
            "Checked only: must agree with `execution`, which does the sampling.",
        ),
        field(
            "tool_loop",
            Shape::OneOf(&[Shape::Flag, Shape::Section(&TOOL_LOOP)]),
            "Lets the model call tools until it is done.",
        ),
        field("as", Shape::Text, "Name of the item of `foreach` in templates; `item` by default."),
        field("foreach", Shape::Text, "Gives the list; one child is started for each item."),
        field("key", Shape::Text, "Key of each child's result; without it the result is a list."),
        field(
            "machine",
            Shape::OneOf(&[Shape::Text, Shape::List(&Shape::OneOf(&[Shape::Text, Shape::Section(&MACHINE_INPUT)]))]),
            "Child machines to run and wait for.",
        ),
        field(
            "mode",
            Shape::Word(&["settled", "any"]),
            "When a state with several children goes on: when all have ended, or at the first success.",
        ),
        field(
            "action",
            Shape::Text,
            "Action to perform: by the decision table of that name, by the state's hooks, or by the configured tool of that name.",
        ),
        ours(
            "arguments",
            Shape::OneOf(&[Shape::TemplateMap, Shape::Text]),
            "What `action` is called with: then it is a configured tool, called as a model would call it, and its answer is the \
             state's output.",
        ),
        field("hooks", HOOKS, "Hooks of this state."),
        field("wait_for", Shape::Text, "Channel of the signal to wait for."),
        field("launch", Shape::OneOf(&[Shape::Text, TEXTS]), "Machines to start without waiting for them."),
        field("launch_input", Shape::TemplateMap, "Input of the launched machines."),
    ],
};

/// One transition.
pub static TRANSITION: Section = Section {
    name: "Transition",
    noun: "a transition",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        field("condition", Shape::Condition, "Must hold; without it the transition is always taken."),
        needed("to", Shape::Text, "The next state."),
    ],
};

/// `execution`.
pub static EXECUTION: Section = Section {
    name: "ExecutionConfig",
    noun: "`execution`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed("type", Shape::Word(&["default", "retry", "parallel", "mdap_voting"]), "How the agent is asked."),
        field("backoffs", Shape::List(&Shape::Number), "Retry: seconds between attempts; 2, 8, 16, 35 by default."),
        field("jitter", Shape::Number, "Retry: share of a pause by which it varies, 0 to 1; 0.1 by default."),
        field("n_samples", Shape::Count, "Parallel: number of samples; 3 by default."),
        field("k_margin", Shape::Count, "Voting: votes that win; 3 by default."),
        field("max_candidates", Shape::Count, "Voting: samples at most; 10 by default."),
        compatible(
            "retry_on_empty",
            Shape::Flag,
            "No effect: an empty answer is a failure wherever an output is declared.",
        ),
    ],
};

/// `tool_loop`.
pub static TOOL_LOOP: Section = Section {
    name: "ToolLoopStateConfig",
    noun: "`tool_loop`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        field("max_tool_calls", Shape::NumberTemplate, "Tool calls at most; 0 is no bound."),
        field("max_turns", Shape::NumberTemplate, "Model calls at most; 0 is no bound."),
        field("allowed_tools", TEXTS, "Only these tools, if any are listed."),
        field("denied_tools", TEXTS, "Never these tools."),
        field("tool_timeout", Shape::NumberTemplate, "Seconds for one tool call; 0 is no bound."),
        field("total_timeout", Shape::NumberTemplate, "Seconds for the whole loop; 0 is no bound."),
        field("max_cost", Shape::NumberTemplate, "US dollars at most; 0 is no bound."),
    ],
};

/// A machine with its own input.
pub static MACHINE_INPUT: Section = Section {
    name: "MachineInput",
    noun: "an entry of `machine`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed("name", Shape::Text, "The child machine."),
        field("input", Shape::TemplateMap, "Laid over the state's `input` for this child."),
    ],
};

/// A hook with arguments.
pub static HOOK_REF: Section = Section {
    name: "HooksRefConfig",
    noun: "a hook reference",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[needed("name", Shape::Text, "The hook."), field("args", Shape::Mapping, "Arguments for it.")],
};

/// `data.persistence`.
pub static PERSISTENCE: Section = Section {
    name: "PersistenceConfig",
    noun: "`persistence`",
    others: Others::Warned,
    claims: Claim::Any,
    features: &[
        field("enabled", Shape::Flag, "Checked only: every run is kept."),
        field("backend", Shape::Word(&["local", "sqlite", "memory"]), "Checked only: the store is configuration."),
        idle("db_path", Shape::Text, "No effect: the store is configuration."),
        idle("checkpoint_on", TEXTS, "No effect: every step is recorded."),
    ],
};

/// `context.machine`, which the runtime provides.
pub static MACHINE_RUNTIME: Section = Section {
    name: "MachineRuntimeMetadata",
    noun: "`context.machine`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        field("execution_id", Shape::Any, "Provided at run time: the run's id."),
        field("machine_name", Shape::Any, "Provided at run time: the machine's name."),
        field("parent_execution_id", Shape::Any, "Provided at run time: the parent run's id, or null."),
        field("spec_version", Shape::Any, "Provided at run time: the document's version."),
        field("step", Shape::Any, "Provided at run time: the number of the step."),
        field("current_state", Shape::Any, "Provided at run time: the state."),
        field("total_api_calls", Shape::Any, "Provided at run time: model calls so far."),
        field("total_cost", Shape::Any, "Provided at run time: dollars so far."),
        field("depth", Shape::Any, "Provided at run time: nesting below the first run."),
    ],
};
