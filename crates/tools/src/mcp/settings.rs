//! The table `[mcp.NAME]` of the configuration, as read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::contract::{Class, Idempotency};

use crate::config::{ApprovalConfig, OnUnknownConfig, PlanConfig, RampBudgetConfig, RedactConfig, SecretRef};
use crate::limits::LimitsConfig;
use crate::mcp::elicitation::ElicitationConfig;
use crate::mcp::oauth::OauthConfig;
use crate::sandbox::SandboxConfig;

/// One MCP server: a `command` or a `url`, and what its tools promise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpConfig {
    /// Program and arguments of a server over stdio; no shell reads them.
    pub command: Option<Vec<String>>,
    /// `command`: working directory, relative to the configuration file. Default: its folder.
    pub dir: Option<String>,
    /// `command`: environment variables passed on. Default: `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`.
    pub pass_env: Option<Vec<String>>,
    /// `command`: environment variables set.
    pub env: Option<BTreeMap<String, String>>,
    /// `command`: environment variables set to secrets, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_env: Option<BTreeMap<String, SecretRef>>,
    /// `command`: what the process may use of the host. Default: 4096 open files.
    pub sandbox: Option<SandboxConfig>,
    /// Address of a server over Streamable HTTP.
    pub url: Option<String>,
    /// `url`: key sent as `Authorization: Bearer`, named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub api_key: Option<SecretRef>,
    /// `url`: further headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// `url`: further headers with secret values, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_headers: Option<BTreeMap<String, SecretRef>>,
    /// `url`: how the server's authorization is met, for servers that ask for it with OAuth. Default: with the credentials
    /// of the other keys only.
    pub oauth: Option<OauthConfig>,
    /// The revision of the protocol: `auto`, `2026-07-28`, or `2025-11-25` for all that begin with `initialize`. Default:
    /// `auto`.
    pub protocol: Option<ProtocolConfig>,
    /// What happens to questions that the server asks: `decline`, or `defaults`, which accepts a form as the server filled
    /// it. Default: `decline`.
    pub elicitation: Option<ElicitationConfig>,
    /// How long a list of tools that the server gave a time to live may count, in milliseconds. Within it a call of class
    /// `read` does not ask for the list again; others always do. Default: 60000.
    pub list_ttl_ms_max: Option<u64>,
    /// What stands before the names of its tools. Default: the server's name and `__`.
    pub prefix: Option<String>,
    /// What its tools promise, by their names on the server. Each default is that of a tool without a contract.
    #[serde(default)]
    pub tools: BTreeMap<String, ContractConfig>,
}

/// Which revisions of the protocol are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProtocolConfig {
    /// Whichever the server speaks, the one without sessions first.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The one without sessions.
    #[serde(rename = "2026-07-28")]
    Modern,
    /// Those that begin with `initialize`.
    #[serde(rename = "2025-11-25")]
    Legacy,
}

/// What one tool of a server promises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContractConfig {
    /// The name that models and machines use instead of prefix and name.
    pub name: Option<String>,
    /// What it does to the world: `read`, `write` or `danger`. Default: `write`.
    #[schemars(with = "Option<String>")]
    pub class: Option<Class>,
    /// Why a repeat is harmless: `none`, `key` (the server drops a repeat with the same `io.windlass/idempotency-key` in
    /// `_meta`) or `natural`. Default: `none`.
    #[schemars(with = "Option<String>")]
    pub idempotency: Option<Idempotency>,
    /// What to do when a call may or may not have happened and must not be repeated: `ask` a person, `fail`, or
    /// `{ verify = "TOOL" }`, a tool of class `read`. Default: `ask`.
    pub on_unknown: Option<OnUnknownConfig>,
    /// Time for one attempt in milliseconds. Default: 30000.
    pub timeout_ms: Option<u64>,
    /// Bytes of a result. Default: 1048576.
    pub output_bytes_max: Option<u64>,
    /// What a call costs beside others, 1 to 1000. Of tools that fit alike, models are shown the cheaper one first.
    /// Default: 1.
    pub cost_weight: Option<u32>,
    /// How long a call usually takes, in milliseconds, at most `timeout_ms`. Of tools that fit alike, models are shown the
    /// quicker one first; up to a second all count the same. Default: as if a second.
    pub latency_ms: Option<u64>,
    /// Whether nobody outside writes its answers and its description: they are not `untrusted` then. Default: false.
    pub trusted: Option<bool>,
    /// Parts of its answers that are `secret`, each as a JSON Pointer. Default: none.
    pub secret: Option<Vec<String>>,
    /// Parts of its answers that have no label, each as a JSON Pointer: what they may say is bounded by its schema.
    /// Default: none.
    pub declassified: Option<Vec<String>>,
    /// Parts of its calls that are shown as `[redacted]` to people and other systems, as
    /// `{ arguments = [POINTER], result = [POINTER] }`. A pointer is a JSON Pointer; `*` stands for each item of a list and
    /// each value of a mapping. Default: none.
    pub redact: Option<RedactConfig>,
    /// Arguments that are the ids of what a call touches, each as a JSON Pointer, such as `/customer_id`: they stand in the
    /// audit rows of calls, with `[redacted]` for what is not shown. Default: none.
    pub resources: Option<Vec<String>>,
    /// When a person has to agree to a call before it leaves, as for other tools.
    pub approval: Option<ApprovalConfig>,
    /// How long an approval is waited for, in milliseconds, as for other tools.
    pub approval_expires_ms: Option<u64>,
    /// Groups or channels that are asked too when nobody answers, one after another, as for other tools.
    pub approval_escalate_to: Option<Vec<String>>,
    /// How long nobody answers before the next of `approval_escalate_to` is asked, in milliseconds.
    pub approval_escalate_after_ms: Option<u64>,
    /// For class `danger`: a call shows what it would do, and only what was shown is done, once. `{ tool = "TOOL" }` shows
    /// it by a tool of class `read` with the same arguments, `{ argument = "dry_run" }` by the same tool with this argument
    /// set to true. Default: calls leave without a plan.
    pub plan: Option<PlanConfig>,
    /// How long a plan may be applied, in milliseconds. Default: 900000, a quarter of an hour.
    pub plan_expires_ms: Option<u64>,
    /// Whether no call is made: it is recorded as one that would be, and read as `shadow_answer`. Default: false.
    pub shadow: Option<bool>,
    /// Which of a hundred runs make the calls, 0 to 100, by a hash of run and tool; the others read `shadow_answer`.
    /// Default: all.
    pub ramp_percent: Option<u32>,
    /// With `ramp_percent`: what the calls of all runs may use up together, for example
    /// `{ calls = 1000, failed_calls = 5, of_calls = 50 }`. Then no run makes them until `windlass tools resume`. Default:
    /// they go on whatever becomes of them.
    pub ramp_budget: Option<RampBudgetConfig>,
    /// With `shadow` or `ramp_percent`: what is read in place of an answer. Default: `{"shadow": true}`.
    pub shadow_answer: Option<serde_json::Value>,
    /// The kinds of errors that it may answer with, in words of yours, for whoever reads the contract. Default: none.
    pub errors: Option<Vec<String>>,
    /// What it does, as a model reads it in place of what the server says. Default: what the server says.
    pub description: Option<String>,
    /// How much it is asked at once, and what happens beyond.
    pub limits: Option<LimitsConfig>,
}
