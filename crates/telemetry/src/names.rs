//! Names of spans and attributes. Those of OpenTelemetry for generative AI are still in development, so all of them are in
//! this file.

/// A run, from its beginning to its end.
pub(crate) const RUN: &str = "agent.run";
/// A call of a model.
pub(crate) const MODEL: &str = "llm.call";
/// A call of a tool, of an action of a state, or of a tool that finds out what became of another call.
pub(crate) const TOOL: &str = "tool.call";
/// A call of a hook.
pub(crate) const HOOK: &str = "hook.call";
/// A question to the rules.
pub(crate) const POLICY: &str = "policy.check";
/// What tools a model is shown.
pub(crate) const SELECT: &str = "agent.tool_select";
/// A turn of a tool loop: which tools the model wants.
pub(crate) const PLAN: &str = "agent.plan";

/// What is done: `invoke_workflow`, `invoke_agent`, `chat`, `execute_tool`.
pub(crate) const OPERATION: &str = "gen_ai.operation.name";
/// Who serves the model.
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
/// The model that was asked for.
pub(crate) const REQUEST_MODEL: &str = "gen_ai.request.model";
/// Why the model stopped.
pub(crate) const FINISH: &str = "gen_ai.response.finish_reasons";
/// Tokens in.
pub(crate) const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Tokens out.
pub(crate) const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Tokens read from a cache.
pub(crate) const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// The agent.
pub(crate) const AGENT: &str = "gen_ai.agent.name";
/// The machine.
pub(crate) const WORKFLOW: &str = "gen_ai.workflow.name";
/// The run.
pub(crate) const CONVERSATION: &str = "gen_ai.conversation.id";
/// The tool.
pub(crate) const TOOL_NAME: &str = "gen_ai.tool.name";
/// The call's key.
pub(crate) const CALL_ID: &str = "gen_ai.tool.call.id";
/// The code of the failure.
pub(crate) const ERROR: &str = "error.type";

/// The tenant.
pub(crate) const TENANT: &str = "windlass.tenant";
/// How the run ended.
pub(crate) const STATUS: &str = "windlass.run.status";
/// Its steps.
pub(crate) const STEPS: &str = "windlass.run.steps";
/// Its decisions.
pub(crate) const DECISIONS: &str = "windlass.run.decisions";
/// Cost in micro-USD.
pub(crate) const COST: &str = "windlass.cost_micros";
/// The attempt.
pub(crate) const ATTEMPT: &str = "windlass.attempt";
/// `read`, `write`, `danger`.
pub(crate) const CLASS: &str = "windlass.class";
/// Hash of the arguments.
pub(crate) const ARGUMENTS: &str = "windlass.arguments.hash";
/// The key by which a repeat is known.
pub(crate) const KEY: &str = "windlass.idempotency_key";
/// Bytes of the answer.
pub(crate) const ANSWER_BYTES: &str = "windlass.answer.bytes";
/// What was asked of the rules.
pub(crate) const ACTION: &str = "windlass.policy.action";
/// The state that a transition leads to.
pub(crate) const STATE: &str = "windlass.state";
/// What they said.
pub(crate) const ANSWER: &str = "windlass.policy.answer";
/// The rule.
pub(crate) const RULE: &str = "windlass.policy.rule";
/// The version of the rules.
pub(crate) const RULES: &str = "windlass.policy.version";
/// How many tools.
pub(crate) const TOOLS: &str = "windlass.tools.count";
