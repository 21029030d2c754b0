//! The tables `[hooks.NAME]`, `[tools.NAME]` and `[actions.NAME]` of the configuration, as read.
//!
//! Owns shapes and their documentation; what they mean together is checked in [`crate::build`].

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::contract::{Class, Idempotency, OnUnknown, Redact};
use windlass_core::machine::HookKind;

use crate::agents::CliAgentConfig;
use crate::build::{Site, paths, pointers};
use crate::limits::{LimitsConfig, OnLarge};
use crate::mcp::McpConfig;
use crate::sandbox::SandboxConfig;

/// Everything that machines can call beside models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogConfig {
    /// Hooks by the name that documents use. `"*"` takes every name that has no table of its own.
    pub hooks: BTreeMap<String, HookConfig>,
    /// Tools by the name that models use.
    pub tools: BTreeMap<String, ToolConfig>,
    /// Actions by the name that states use. An action without a table goes to the hooks of its state.
    pub actions: BTreeMap<String, ToolConfig>,
    /// MCP servers by name. Their tools exist once they are accepted: see `windlass tools`.
    pub mcp: BTreeMap<String, McpConfig>,
    /// Agents that are programs, by the name that documents use as their provider.
    pub agents_cli: BTreeMap<String, CliAgentConfig>,
    /// Where calls may go whose address this configuration does not hold.
    pub outbound: OutboundConfig,
}

/// Where calls may go whose address comes from a document or a model. Unless `hosts` or `tenants` says otherwise the public
/// Internet is open to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundConfig {
    /// Hosts with their port that are let through although they are not of the public Internet, such as
    /// `localhost:3000`. Those of `url` in `[hooks]`, `[tools]` and `[actions]`, and of `base_url` in `[providers]` and the
    /// model catalog, need no entry.
    pub allow: Vec<String>,
    /// The hosts that documents may name, and no others: `api.acme.com`, `api.acme.com:8443`, or `*.acme.com` for all names
    /// below one; without a port those of `http` and `https`. Default: every public host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// The same for documents in runs of a tenant, in place of `hosts`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, Vec<String>>,
    /// Whether a document may name the address of a model on this host, such as `http://localhost:11434`. Default: `true`;
    /// `false` in `prod-safe`.
    pub local_models: bool,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { allow: Vec::new(), hosts: None, tenants: BTreeMap::new(), local_models: true }
    }
}

/// One hook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// `webhook` (HTTP), `command` (a process for each event), `distributed-worker` (the format's work pools), `logging`
    /// or `metrics` (built-in observers).
    #[serde(rename = "type")]
    pub kind: String,
    /// The events sent to it. Default: all.
    #[schemars(with = "Option<Vec<String>>")]
    pub events: Option<Vec<HookKind>>,
    /// Whether `context` carries the run's metadata under `machine`. Default: false.
    pub include_machine: Option<bool>,
    /// Time for one attempt in milliseconds, at most 30000. Default: 30000.
    pub timeout_ms: Option<u64>,
    /// Bytes of an answer, at most 1048576. Default: 1048576.
    pub output_bytes_max: Option<u64>,
    /// `webhook`: the address that events are posted to.
    pub url: Option<String>,
    /// `webhook`: the same as `url`, as older documents spell it.
    pub endpoint: Option<String>,
    /// `webhook`: key sent as `Authorization: Bearer`, named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub api_key: Option<SecretRef>,
    /// `webhook`: further headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// `webhook`: further headers with secret values, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_headers: Option<BTreeMap<String, SecretRef>>,
    /// `command`: program and arguments; no shell reads them.
    pub command: Option<Vec<String>>,
    /// `command`: working directory, relative to the configuration file. Default: its folder.
    pub dir: Option<String>,
    /// `command`: environment variables passed on. Default: `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`.
    pub pass_env: Option<Vec<String>>,
    /// `command`: environment variables set.
    pub env: Option<BTreeMap<String, String>>,
    /// `command`: environment variables set to secrets, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_env: Option<BTreeMap<String, SecretRef>>,
}

/// One tool or action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolConfig {
    /// `http` or `command`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it does, as a model reads it.
    pub description: Option<String>,
    /// What it does to the world: `read`, `write` or `danger`. Default: `write`.
    #[schemars(with = "Option<String>")]
    pub class: Option<Class>,
    /// Why a repeat is harmless: `none`, `key` (a repeat with the same key is dropped by the other side) or `natural`
    /// (the same arguments always have the same effect). Default: `none`.
    #[schemars(with = "Option<String>")]
    pub idempotency: Option<Idempotency>,
    /// What to do when a call may or may not have happened and must not be repeated: `ask` a person, `fail`, or
    /// `{ verify = "TOOL" }`, a tool of class `read`. Default: `ask`.
    pub on_unknown: Option<OnUnknownConfig>,
    /// When a person has to agree before a call leaves: `policy`, where a rule of the policy asks, or `always`. Default:
    /// `policy`.
    pub approval: Option<ApprovalConfig>,
    /// How long an approval is waited for, in milliseconds; then the call is refused. Default: 86400000, a day.
    pub approval_expires_ms: Option<u64>,
    /// Groups or channels that are asked too when nobody answers, one after another, at most 10. Each is told by a
    /// notification; see `[notify]`. Default: nobody.
    pub approval_escalate_to: Option<Vec<String>>,
    /// How long nobody answers before the next of `approval_escalate_to` is asked, in milliseconds.
    pub approval_escalate_after_ms: Option<u64>,
    /// For class `danger`: a call shows what it would do, and only what was shown is done, once. `{ tool = "TOOL" }` shows
    /// it by a tool of class `read` with the same arguments, `{ argument = "dry_run" }` by the same tool with this argument
    /// set to true. Not for actions. Default: calls leave without a plan.
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
    /// Time for one attempt in milliseconds. Default: 30000.
    pub timeout_ms: Option<u64>,
    /// Bytes of a result. Default: 1048576.
    pub output_bytes_max: Option<u64>,
    /// What happens to a result with more bytes than that: `refuse`, or `truncate`, which gives
    /// `{"truncated": true, "bytes", "text"}` with the beginning of it. Default: `refuse`.
    pub on_large: Option<OnLarge>,
    /// How much it is asked at once, and what happens beyond.
    pub limits: Option<LimitsConfig>,
    /// What a call costs beside others, 1 to 1000. Of tools that fit alike, models are shown the cheaper one first.
    /// Default: 1.
    pub cost_weight: Option<u32>,
    /// How long a call usually takes, in milliseconds, at most `timeout_ms`. Of tools that fit alike, models are shown the
    /// quicker one first; up to a second all count the same. Default: as if a second.
    pub latency_ms: Option<u64>,
    /// Whether nobody outside writes its answers: they are not `untrusted` then. Default: false.
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
    /// JSON Schema of the arguments. Default: any.
    pub input_schema: Option<serde_json::Value>,
    /// JSON Schema of the result. Default: any.
    pub output_schema: Option<serde_json::Value>,
    /// `http`: the method. Default: `GET` for class `read`, else `POST`.
    pub method: Option<String>,
    /// `http`: the address; `{name}` in its path or query is replaced by that argument, percent-encoded.
    pub url: Option<String>,
    /// `http`: where arguments go that the address does not use: `query` or `body`. Default: `query` for `GET`, `HEAD` and
    /// `DELETE`, else `body`.
    pub arguments: Option<ArgumentPlace>,
    /// `http`: key sent as `Authorization: Bearer`, named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub api_key: Option<SecretRef>,
    /// `http`: further headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// `http`: further headers with secret values, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_headers: Option<BTreeMap<String, SecretRef>>,
    /// `http`: how long the head of an answer may take, in milliseconds. Default: as `timeout_ms`.
    pub header_timeout_ms: Option<u64>,
    /// `http`: how long the body of an answer may stand still, in milliseconds. Default: as `timeout_ms`.
    pub idle_timeout_ms: Option<u64>,
    /// `command`: program and arguments; no shell reads them.
    pub command: Option<Vec<String>>,
    /// `command`: working directory, relative to the configuration file. Default: its folder.
    pub dir: Option<String>,
    /// `command`: environment variables passed on. Default: `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`.
    pub pass_env: Option<Vec<String>>,
    /// `command`: environment variables set.
    pub env: Option<BTreeMap<String, String>>,
    /// `command`: environment variables set to secrets, each named as `env:NAME`, `file:PATH` or `secret:NAME`.
    pub secret_env: Option<BTreeMap<String, SecretRef>>,
    /// `command`: what the process may use of the host. Default: no bounds.
    pub sandbox: Option<SandboxConfig>,
}

/// Parts of the calls of a tool that are not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedactConfig {
    /// Of its arguments, each as a JSON Pointer; of an action those of `{action, state, machine, run_id, context}`.
    pub arguments: Vec<String>,
    /// Of its results, each as a JSON Pointer.
    pub result: Vec<String>,
}

impl RedactConfig {
    /// What a contract says.
    pub(crate) fn lower(given: Option<&Self>) -> Redact {
        let Some(Self { arguments, result }) = given else { return Redact::default() };
        Redact { arguments: paths(Some(arguments)), result: paths(Some(result)) }
    }

    /// Says what of it cannot be used.
    pub(crate) fn check(site: &mut Site<'_>, before: &str, given: Option<&Self>) {
        let Some(Self { arguments, result }) = given else { return };
        pointers(site, before, "redact.arguments", Some(arguments));
        pointers(site, before, "redact.result", Some(result));
        if arguments.is_empty() && result.is_empty() {
            let hint = "name parts of `arguments` or of `result`, or leave it out";
            site.wrong(&format!("{before}redact"), "it names nothing", Some(hint));
        }
    }
}

/// When a person has to agree before a call leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalConfig {
    /// Where a rule of the policy asks.
    Policy,
    /// Always.
    Always,
}

/// What shows what a call would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanConfig {
    /// This tool of class `read`, with the same arguments.
    Tool(String),
    /// The same tool with this argument set to true.
    Argument(String),
}

/// What the calls of a ramp may use up, all runs together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RampBudgetConfig {
    /// The most calls, each attempt for itself. Default: any number.
    pub calls: Option<u64>,
    /// The most of the latest `of_calls` that may fail. Default: any number.
    pub failed_calls: Option<u32>,
    /// The latest calls that are looked at, 1 to 1000. Default: 100.
    pub of_calls: Option<u32>,
}

/// What to do about a call whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownConfig {
    /// Wait for a person's decision.
    Ask,
    /// Fail the call with `tool.outcome_unknown`.
    Fail,
    /// Ask this tool of class `read`.
    Verify(String),
}

impl OnUnknownConfig {
    pub(crate) fn lower(&self) -> OnUnknown {
        match self {
            Self::Ask => OnUnknown::Ask,
            Self::Fail => OnUnknown::Fail,
            Self::Verify(tool) => OnUnknown::Verify { tool: tool.as_str().into() },
        }
    }
}

/// Where an HTTP tool puts arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArgumentPlace {
    /// Query parameters.
    Query,
    /// A JSON body.
    Body,
}

/// The name of a secret: `env:NAME`, `file:PATH` or `secret:NAME`. A secret itself is refused, so that none is ever in a
/// file, a message or a store.
#[derive(Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretRef(String);

impl SecretRef {
    /// Reads a reference.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, name) = text.split_once(':')?;
        (matches!(scheme, "env" | "file" | "secret") && !name.trim().is_empty()).then(|| Self(text.to_owned()))
    }

    /// The reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({})", self.0)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(
                "a secret is named as `env:NAME`, `file:PATH` or `secret:NAME`, never written here",
            )
        })
    }
}

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `tools.refund.url`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
}

/// Every mistake that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// In the order of the keys; at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "`{}`: {}", problem.key, problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, " (hint: {hint})")?;
            }
        }
        Ok(())
    }
}

impl HookConfig {
    /// The keys that belong to some types only and are given.
    pub(crate) fn special(&self) -> Vec<&'static str> {
        let Self {
            kind: _,
            events,
            include_machine,
            timeout_ms,
            output_bytes_max,
            url,
            endpoint,
            api_key,
            headers,
            secret_headers,
            command,
            dir,
            pass_env,
            env,
            secret_env,
        } = self;
        given(&[
            ("events", events.is_some()),
            ("include_machine", include_machine.is_some()),
            ("timeout_ms", timeout_ms.is_some()),
            ("output_bytes_max", output_bytes_max.is_some()),
            ("url", url.is_some()),
            ("endpoint", endpoint.is_some()),
            ("api_key", api_key.is_some()),
            ("headers", headers.is_some()),
            ("secret_headers", secret_headers.is_some()),
            ("command", command.is_some()),
            ("dir", dir.is_some()),
            ("pass_env", pass_env.is_some()),
            ("env", env.is_some()),
            ("secret_env", secret_env.is_some()),
        ])
    }
}

impl ToolConfig {
    /// The keys that belong to some types only and are given.
    pub(crate) fn special(&self) -> Vec<&'static str> {
        let Self {
            kind: _,
            description: _,
            class: _,
            approval: _,
            approval_expires_ms: _,
            approval_escalate_to: _,
            approval_escalate_after_ms: _,
            plan: _,
            plan_expires_ms: _,
            shadow: _,
            ramp_percent: _,
            ramp_budget: _,
            shadow_answer: _,
            errors: _,
            idempotency: _,
            on_unknown: _,
            timeout_ms: _,
            output_bytes_max: _,
            on_large: _,
            limits: _,
            cost_weight: _,
            latency_ms: _,
            trusted: _,
            secret: _,
            declassified: _,
            redact: _,
            resources: _,
            input_schema: _,
            output_schema: _,
            method,
            url,
            arguments,
            api_key,
            headers,
            secret_headers,
            header_timeout_ms,
            idle_timeout_ms,
            command,
            dir,
            pass_env,
            env,
            secret_env,
            sandbox,
        } = self;
        given(&[
            ("method", method.is_some()),
            ("url", url.is_some()),
            ("arguments", arguments.is_some()),
            ("api_key", api_key.is_some()),
            ("headers", headers.is_some()),
            ("secret_headers", secret_headers.is_some()),
            ("header_timeout_ms", header_timeout_ms.is_some()),
            ("idle_timeout_ms", idle_timeout_ms.is_some()),
            ("command", command.is_some()),
            ("dir", dir.is_some()),
            ("pass_env", pass_env.is_some()),
            ("env", env.is_some()),
            ("secret_env", secret_env.is_some()),
            ("sandbox", sandbox.is_some()),
        ])
    }
}

fn given(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect()
}
