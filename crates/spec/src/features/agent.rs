//! Fields of agent, prompt and profile documents.

use super::{Claim, Feature, Others, Section, Shape, blocked, compatible, field, idle, legacy, needed};

const TEXTS: Shape = Shape::List(&Shape::Text);
const TOOLS: Shape = Shape::List(&Shape::Section(&TOOL));
const VERSION: Feature =
    field("spec_version", Shape::Version, "The version of the format it is written for; major 4 at most.");
const METADATA: Feature = field("metadata", Shape::Mapping, "Free data for people and tools.");
const RUNTIME: &str = "Refused: an agent that is a program stands in `[agents_cli]` of the configuration, and a profile names it as `provider`.";

/// What a profile may be, the more specific first.
pub(crate) const PROFILE_KINDS: &[Shape] = &[
    Shape::Section(&CLAUDE_CODE),
    Shape::Section(&CODEX_CLI),
    Shape::Section(&SMOLAGENTS),
    Shape::Section(&PI_AGENT),
    Shape::Section(&LLM_PROFILE),
    Shape::Section(&MODEL),
];

/// An agent document.
pub static AGENT: Section = Section {
    name: "AgentWrapper",
    noun: "an agent document",
    others: Others::Refused,
    claims: Claim::Has("spec"),
    features: &[
        needed("spec", Shape::Word(&["flatagent"]), "The kind of document: `flatagent`."),
        VERSION,
        needed(
            "data",
            Shape::OneOf(&[Shape::Section(&AGENT_DATA), Shape::Section(&LEGACY_AGENT)]),
            "The agent: a prompt and a profile; until 3.x a model and prompt fields.",
        ),
        field("metadata", Shape::Mapping, "Free data; `parsing`, `validation` and `mdap` rule voting states."),
    ],
};

/// A prompt and a profile.
pub static AGENT_DATA: Section = Section {
    name: "AgentData",
    noun: "an agent",
    others: Others::Refused,
    claims: Claim::HasEither("prompt", "profile"),
    features: &[
        needed(
            "prompt",
            Shape::OneOf(&[Shape::Text, Shape::Section(&PROMPT), Shape::Section(&PROMPT_DATA)]),
            "The prompt: a path, the fields, or an inline document.",
        ),
        needed(
            "profile",
            Shape::OneOf(&[Shape::Text, Shape::Section(&PROFILES)]),
            "The profile: a name in the catalog, or an inline catalog.",
        ),
    ],
};

/// An agent as written until 3.x.
pub static LEGACY_AGENT: Section = Section {
    name: "LegacyAgentData",
    noun: "an agent",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        legacy("name", Shape::Text, "The agent's name."),
        legacy(
            "model",
            Shape::OneOf(&[Shape::Text, Shape::Section(&LEGACY_MODEL)]),
            "The profile by name, or its settings with an optional `profile` below them.",
        ),
        legacy("system", Shape::Text, "System prompt."),
        legacy("user", Shape::Text, "User prompt."),
        legacy("instruction_suffix", Shape::Text, "Appended to the user prompt."),
        legacy("post_history_instructions", Shape::Text, "Appended to the last message of what is sent."),
        legacy("output", Shape::MapOf(&Shape::Section(&OUTPUT_FIELD)), "Fields of the answer."),
        legacy("tools", TOOLS, "Tools the model may call."),
        Feature { tier: super::Tier::Experimental, ..legacy("mcp", Shape::Section(&MCP), MCP_IDLE) },
    ],
};

const MCP_IDLE: &str = "A document connects no MCP server: write `[mcp.NAME]` in `windlass.toml`, accept its tools with `windlass tools accept NAME`, and name them in `data.settings.tools` of the machine.";

/// Model settings as written until 3.x.
pub static LEGACY_MODEL: Section = Section {
    name: "LegacyModel",
    noun: "`model`",
    others: Others::Passed,
    claims: Claim::Any,
    features: &[legacy("profile", Shape::Text, "The profile that the other keys are laid over.")],
};

/// A prompt document.
pub static PROMPT: Section = Section {
    name: "PromptWrapper",
    noun: "a prompt document",
    others: Others::Refused,
    claims: Claim::Has("data"),
    features: &[
        Feature { required: false, ..needed("spec", Shape::Word(&["prompt"]), "The kind of document: `prompt`.") },
        VERSION,
        needed("data", Shape::Section(&PROMPT_DATA), "The prompt."),
        METADATA,
    ],
};

/// The prompt itself.
pub static PROMPT_DATA: Section = Section {
    name: "PromptData",
    noun: "a prompt",
    others: Others::Refused,
    claims: Claim::HasNot("data"),
    features: &[
        field("name", Shape::Text, "The prompt's name."),
        field("system", Shape::Text, "System prompt; `You are a helpful assistant.` by default."),
        field("user", Shape::Text, "User prompt."),
        field("instruction_suffix", Shape::Text, "Appended to the user prompt after a blank line."),
        field("post_history_instructions", Shape::Text, "Appended to the last message of what is sent, never stored."),
        field(
            "output",
            Shape::MapOf(&Shape::Section(&OUTPUT_FIELD)),
            "Fields of the answer; sent as a schema and checked.",
        ),
        idle("mcp", Shape::Section(&MCP), MCP_IDLE),
        field("tools", TOOLS, "Tools the model may call."),
    ],
};

/// One field of an answer.
pub static OUTPUT_FIELD: Section = Section {
    name: "OutputFieldDef",
    noun: "an output field",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed(
            "type",
            Shape::Word(&["str", "int", "float", "bool", "json", "list", "object"]),
            "The type of the field.",
        ),
        field("description", Shape::Text, "What the field is, as the model reads it."),
        field("enum", TEXTS, "The values it may have."),
        field("required", Shape::Flag, "Whether an answer without it is refused; false by default."),
        field("items", Shape::Section(&OUTPUT_FIELD), "The items of a list."),
        field("properties", Shape::MapOf(&Shape::Section(&OUTPUT_FIELD)), "The fields of an object."),
    ],
};

/// A tool that a prompt declares.
pub static TOOL: Section = Section {
    name: "ToolDefinition",
    noun: "a tool",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed("type", Shape::Word(&["function"]), "Always `function`."),
        needed("function", Shape::Section(&TOOL_FUNCTION), "The function."),
    ],
};

/// The function of a tool.
pub static TOOL_FUNCTION: Section = Section {
    name: "ToolDefinition.function",
    noun: "a tool's `function`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed("name", Shape::Text, "The tool's name."),
        field("description", Shape::Text, "What it does, as the model reads it."),
        field("parameters", Shape::Mapping, "JSON Schema of its arguments."),
    ],
};

/// `mcp`.
pub static MCP: Section = Section {
    name: "MCPConfig",
    noun: "`mcp`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        idle("servers", Shape::MapOf(&Shape::Section(&MCP_SERVER)), MCP_IDLE),
        idle("tool_filter", Shape::Section(&TOOL_FILTER), MCP_IDLE),
        idle("tool_prompt", Shape::Text, MCP_IDLE),
    ],
};

/// An MCP server.
pub static MCP_SERVER: Section = Section {
    name: "MCPServerDef",
    noun: "an MCP server",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        idle("command", Shape::Text, MCP_IDLE),
        idle("args", TEXTS, MCP_IDLE),
        idle("env", Shape::MapOf(&Shape::Text), MCP_IDLE),
        idle("server_url", Shape::Text, MCP_IDLE),
        idle("headers", Shape::MapOf(&Shape::Text), MCP_IDLE),
        idle("timeout", Shape::Number, MCP_IDLE),
    ],
};

/// `mcp.tool_filter`.
pub static TOOL_FILTER: Section = Section {
    name: "ToolFilter",
    noun: "`tool_filter`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[idle("allow", TEXTS, MCP_IDLE), idle("deny", TEXTS, MCP_IDLE)],
};

/// A profile catalog document.
pub static PROFILES: Section = Section {
    name: "ProfileWrapper",
    noun: "a profile catalog",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        Feature {
            required: false,
            ..needed("spec", Shape::Word(&["flatprofile", "flatprofiles"]), "The kind of document: `flatprofile`.")
        },
        VERSION,
        needed("data", Shape::Section(&PROFILES_DATA), "The catalog."),
        METADATA,
    ],
};

/// The catalog itself.
pub static PROFILES_DATA: Section = Section {
    name: "ProfileWrapper.data",
    noun: "a profile catalog",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        needed("model_profiles", Shape::MapOf(&Shape::WhenUsed(PROFILE_KINDS)), "Profiles by name."),
        field("default", Shape::Text, "The profile whose keys are below every other."),
        field("override", Shape::Text, "The profile whose keys are above every other."),
    ],
};

/// Settings of a model.
pub static MODEL: Section = Section {
    name: "ModelConfig",
    noun: "a model profile",
    others: Others::Passed,
    claims: Claim::Any,
    features: &[
        field("name", Shape::Text, "The model, as `name` or `provider/name`."),
        field("provider", Shape::Text, "Who serves it: `openai`, `anthropic`, `scripted`, or one from configuration."),
        field("temperature", Shape::Number, "Passed to the provider."),
        field("max_tokens", Shape::Count, "Output tokens at most; always sent."),
        field("top_p", Shape::Number, "Passed to the provider."),
        field("top_k", Shape::Count, "Passed to the provider."),
        field("frequency_penalty", Shape::Any, "Passed to the provider."),
        field("presence_penalty", Shape::Any, "Passed to the provider."),
        field("seed", Shape::Any, "Passed to the provider."),
        field("base_url", Shape::Text, "Address of the provider's API."),
        field("stream", Shape::Flag, "Whether to ask for a stream."),
        field(
            "backend",
            Shape::Word(&["litellm", "aisuite", "codex", "copilot"]),
            "Checked only: `litellm` and `aisuite` change nothing, the others are refused.",
        ),
        idle("api", Shape::Text, "Passed to the provider like any other key."),
        blocked("oauth", "Refused: no provider of this build signs in by OAuth."),
        compatible("type", Shape::Text, "`llm`, also beside the model's own keys."),
        super::ours(
            "api_key",
            Shape::Text,
            "A key, `env:NAME` for the environment variable that holds it, or `secret:NAME`.",
        ),
        super::ours("timeout", Shape::Number, "Seconds for one attempt; 600 by default."),
        super::ours(
            "max_retries",
            Shape::Count,
            "Checked only: retries are the engine's, by `execution: {type: retry}`, so only 0 is true.",
        ),
    ],
};

/// `oauth` of a model.
pub static OAUTH: Section = Section {
    name: "OAuthConfig",
    noun: "`oauth`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        blocked("provider", "Refused with `oauth`."),
        blocked("auth_file", "Refused with `oauth`."),
        blocked("refresh", "Refused with `oauth`."),
        blocked("originator", "Refused with `oauth`."),
        blocked("timeout_seconds", "Refused with `oauth`."),
        blocked("max_retries", "Refused with `oauth`."),
        blocked("token_url", "Refused with `oauth`."),
        blocked("client_id", "Refused with `oauth`."),
    ],
};

/// A profile that names its runtime.
pub static LLM_PROFILE: Section = Section {
    name: "LLMProfile",
    noun: "a profile",
    others: Others::Refused,
    claims: Claim::Has("model"),
    features: &[
        Feature { required: false, ..needed("type", Shape::Word(&["llm"]), "What runs the prompt: `llm`.") },
        needed("model", Shape::Section(&MODEL), "The model."),
    ],
};

/// Claude Code as a runtime.
pub static CLAUDE_CODE: Section = Section {
    name: "ClaudeCodeProfile",
    noun: "a `claude-code` profile",
    others: Others::Refused,
    claims: Claim::Is("type", "claude-code"),
    features: &[
        blocked("type", RUNTIME),
        blocked("model", RUNTIME),
        blocked("effort", RUNTIME),
        blocked("permission_mode", RUNTIME),
        blocked("system_prompt", RUNTIME),
        blocked("append_system_prompt", RUNTIME),
        blocked("dangerously_skip_permissions", RUNTIME),
        blocked("tools", RUNTIME),
        blocked("max_budget_usd", RUNTIME),
        blocked("add_dirs", RUNTIME),
        blocked("claude_bin", RUNTIME),
        blocked("working_dir", RUNTIME),
        blocked("timeout", RUNTIME),
        blocked("max_continuations", RUNTIME),
        blocked("exit_sentinel", RUNTIME),
        blocked("continuation_prompt", RUNTIME),
        blocked("mcp_config", RUNTIME),
        blocked("rate_limit_delay", RUNTIME),
        blocked("rate_limit_jitter", RUNTIME),
    ],
};

/// Codex CLI as a runtime.
pub static CODEX_CLI: Section = Section {
    name: "CodexCliProfile",
    noun: "a `codex-cli` profile",
    others: Others::Refused,
    claims: Claim::Is("type", "codex-cli"),
    features: &[
        blocked("type", RUNTIME),
        blocked("model", RUNTIME),
        blocked("reasoning_effort", RUNTIME),
        blocked("sandbox", RUNTIME),
        blocked("approval_policy", RUNTIME),
        blocked("dangerously_bypass_approvals_and_sandbox", RUNTIME),
        blocked("add_dirs", RUNTIME),
        blocked("codex_bin", RUNTIME),
        blocked("working_dir", RUNTIME),
        blocked("timeout", RUNTIME),
        blocked("skip_git_repo_check", RUNTIME),
        blocked("ephemeral", RUNTIME),
        blocked("search", RUNTIME),
        blocked("config_overrides", RUNTIME),
        blocked("feature_enable", RUNTIME),
        blocked("feature_disable", RUNTIME),
        blocked("rate_limit_delay", RUNTIME),
        blocked("rate_limit_jitter", RUNTIME),
        blocked("use_app_server", RUNTIME),
        blocked("session_source", RUNTIME),
    ],
};

/// Smolagents as a runtime.
pub static SMOLAGENTS: Section = Section {
    name: "SmolagentsProfile",
    noun: "a `smolagents` profile",
    others: Others::Refused,
    claims: Claim::Is("type", "smolagents"),
    features: &[blocked("type", RUNTIME), blocked("ref", RUNTIME), blocked("config", RUNTIME)],
};

/// Pi-agent as a runtime.
pub static PI_AGENT: Section = Section {
    name: "PiAgentProfile",
    noun: "a `pi-agent` profile",
    others: Others::Refused,
    claims: Claim::Is("type", "pi-agent"),
    features: &[
        blocked("type", RUNTIME),
        blocked("ref", RUNTIME),
        blocked("runner", RUNTIME),
        blocked("node", RUNTIME),
        blocked("cwd", RUNTIME),
        blocked("env", RUNTIME),
        blocked("timeout", RUNTIME),
        blocked("agent_config", RUNTIME),
    ],
};
