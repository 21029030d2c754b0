//! The configuration: every key, its default, and where its value comes from.
//!
//! Flags win over the environment, that over `windlass.toml`, that over the preset, that over the defaults. An
//! unknown key is an error. The reference page is generated from the types here.

mod auth;
mod behaviour;
mod load;
mod quantity;
mod rates;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass::wire::ProviderConfig;
use windlass_core::breakers;
use windlass_core::budget::{self, Ceilings};
use windlass_server::CostBound;

pub(crate) use auth::{Auth, Issuer, MISSING};
pub(crate) use load::{Loaded, Origin, load, unknown_variables, variable};
pub(crate) use quantity::{Bytes, Span};
pub(crate) use rates::{RateLimit, limits as rate_limits};

/// The whole of `windlass.toml`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The set of defaults: `dev-safe`, `staging` or `prod-safe`.
    pub preset: Preset,
    /// Where runs are stored: `sqlite:PATH`, `postgres://HOST/DATABASE`, or `memory:` for nothing that lasts. A path is
    /// relative to the working directory. Default: `sqlite:.windlass/windlass.db`.
    pub store: StoreUrl,
    /// Encryption of what is stored. See docs/encryption.md.
    pub encryption: windlass::encryption::EncryptionConfig,
    /// A price book file, relative to this file. Default: the book that comes with this build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<PathBuf>,
    /// A model catalog file, relative to this file: models under names of your own, and fallback chains. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<PathBuf>,
    /// How documents are read.
    pub documents: Documents,
    /// How `windlass run` and `resume` behave.
    pub run: RunDefaults,
    /// Ceilings of every run that is started; a document or a flag may lower them.
    pub limits: Limits,
    /// What runs are to cost at most, by a name of yours. Nothing is stopped by them: `windlass budgets objectives` tells
    /// whether they are met.
    pub objectives: BTreeMap<String, Objective>,
    /// Rules over what runs may do.
    pub policy: PolicyTable,
    /// How scores of versions of agents follow from evidence.
    pub trust: windlass_policy::TrustConfig,
    /// The operator's own secrets, which `windlass secrets` keeps.
    pub secrets: SecretsTable,
    /// Where skills are found beside those registered in the store.
    pub skills: SkillsTable,
    /// What is looked for in prompts and in the arguments of tools and actions before they leave, each class `off`,
    /// `mask` (replaced) or `block` (the call fails with `policy.denied`). A class that is not named is off. `prod-safe`
    /// masks what opens something: keys, tokens and passwords.
    pub scan: windlass_policy::scan::ScanConfig,
    /// What has to be there before a machine runs.
    pub preflight: Preflight,
    /// Where calls may go whose address comes from a document or a model.
    pub outbound: windlass_tools::config::OutboundConfig,
    /// How this process works.
    pub worker: Worker,
    /// How many runs may wait and be worked on.
    pub queue: Queue,
    /// How `windlass serve` listens.
    pub serve: Serve,
    /// Whose tokens are taken for calls of tools over HTTP.
    pub auth: Auth,
    /// What is logged to stderr.
    pub log: Log,
    /// How long the audit trail is kept.
    pub audit: Audit,
    /// Where spans of runs and calls go.
    pub telemetry: Telemetry,
    /// Who serves models, by the name that documents use as `provider`. `openai`, `anthropic` and the like need no
    /// entry when their key is in the environment.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Hooks by the name that documents use; `"*"` catches every name that has none.
    pub hooks: BTreeMap<String, windlass_tools::config::HookConfig>,
    /// Tools by the name that models use.
    pub tools: BTreeMap<String, windlass_tools::config::ToolConfig>,
    /// Actions by the name that states use; an action without an entry goes to the hooks of its state.
    pub actions: BTreeMap<String, windlass_tools::config::ToolConfig>,
    /// MCP servers by name. A tool of theirs exists once its definition was accepted with `windlass tools accept`.
    pub mcp: BTreeMap<String, windlass_tools::mcp::McpConfig>,
    /// Agents that are programs, such as Claude Code and Codex, by the name that documents use as `provider`.
    pub agents_cli: BTreeMap<String, windlass_tools::agents::CliAgentConfig>,
    /// Channels by name over which `windlass serve` and `worker` tell people of questions and of runs in trouble.
    pub notify: BTreeMap<String, windlass_tools::NotifyConfig>,
}

/// A set of defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Preset {
    /// For writing machines: warnings stay warnings, and keys written into documents are accepted.
    #[default]
    DevSafe,
    /// For trying what will go to production: warnings are errors and keys in documents are refused, as there; tools
    /// without a contract are accepted and nothing has a ceiling.
    Staging,
    /// For production: warnings are errors, keys in documents, tools without a contract and tools without a policy are
    /// refused, every run has ceilings, and keys, tokens and passwords in prompts and arguments are masked.
    ProdSafe,
}

/// Where runs are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct StoreUrl(pub String);

impl Default for StoreUrl {
    fn default() -> Self {
        Self("sqlite:.windlass/windlass.db".into())
    }
}

/// How long the audit trail is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// `windlass audit prune` removes nothing younger than this; at least `30d` in `prod-safe`. Default: `180d`.
    pub keep: Span,
}

/// What `prod-safe` keeps of the audit trail at least.
const AUDIT_KEPT_MIN: Span = Span(30 * 24 * 3_600_000);

impl Default for Audit {
    fn default() -> Self {
        Self { keep: Span(180 * 24 * 3_600_000) }
    }
}

/// What a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Otlp {
    /// Protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// Where spans of runs and calls go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// Address of an OTLP collector, such as `http://localhost:4318`; over HTTP `v1/traces` is added. The variables of
    /// OpenTelemetry (`OTEL_EXPORTER_OTLP_ENDPOINT` and others) win over it. Default: spans are not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What it speaks. `OTEL_EXPORTER_OTLP_PROTOCOL` wins over it. Default: `http/protobuf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Otlp>,
}

/// How documents are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Documents {
    /// Whether warnings are errors. Default: `false`; `true` in `prod-safe`.
    pub strict: bool,
    /// Whether a key may be written into a document. Default: `true`; `false` in `prod-safe`.
    pub inline_keys: bool,
    /// Whether a tool or action without `class` and `idempotency` is accepted, and a tool without `description` and
    /// `input_schema`. Default: `true`; `false` in `prod-safe`.
    pub undeclared_tools: bool,
    /// Whether a tool or action of class `danger` is accepted that has neither `plan` nor `approval = "always"`. Default:
    /// `true`; `false` in `prod-safe`.
    pub unguarded_danger: bool,
}

impl Default for Documents {
    fn default() -> Self {
        Self { strict: false, inline_keys: true, undeclared_tools: true, unguarded_danger: true }
    }
}

/// How `windlass run` and `resume` behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunDefaults {
    /// How long a command waits for timers before it exits with 7. Default: `60s`.
    pub wait: Span,
    /// The tenant of new runs. Default: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The user for whom new runs are started. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Default for RunDefaults {
    fn default() -> Self {
        Self { wait: Span(60_000), tenant: None, user: None }
    }
}

/// Ceilings of every run. What is not set has no ceiling but the document's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Steps of a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Children and launches of a run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<u64>,
    /// Model calls of a run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u64>,
    /// Tool calls of a run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// Tokens in and out of a run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Cost in millionths of a US dollar of a run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Nesting of child machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Wall clock from the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall: Option<Span>,
    /// What happens to a call beyond a ceiling of calls, tokens or cost: `fail`, or `ask`, whereupon the run waits for a
    /// person. Where a document sets ceilings too, both have to say `ask`. Default: `fail`.
    pub beyond: Beyond,
    /// What happens to a call of a model without a price where its run has a ceiling of cost, or a budget has a cap of it:
    /// `allow`, and it counts as nothing, or `refuse`, and it fails with `budget.exceeded` before it is sent. Answers from
    /// before and scripts cost nothing. Default: `allow`; `refuse` in `prod-safe`.
    pub unpriced: Unpriced,
    /// From when on breakers trip; 0 is never.
    pub breakers: Breakers,
    /// Limits of rates, which all workers of a store keep together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<RateLimit>,
}

/// What runs are to cost at most: one of `p95_cost_micros` and `day_cost_micros`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Objective {
    /// Runs of this machine. Default: of all machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Runs of this tenant. Default: of all tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// 95 of 100 runs cost at most so many millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_cost_micros: Option<u64>,
    /// All runs of a day, in UTC, cost at most so many millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day_cost_micros: Option<u64>,
}

impl Objective {
    /// Its bound: a configuration has exactly one, or it is refused.
    pub(crate) fn bound(&self) -> CostBound {
        match (self.p95_cost_micros, self.day_cost_micros) {
            (Some(most), _) => CostBound::P95(most),
            (None, most) => CostBound::Day(most.unwrap_or_default()),
        }
    }
}

/// From when on breakers trip; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Breakers {
    /// Alike calls of a tool with alike answers in one tool loop, before it is shut off for the run. Default: `12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_calls: Option<u32>,
    /// Failed calls of a tool within a minute, before it is shut off for the run. Default: `10`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_calls: Option<u32>,
    /// Calls of a tool in a row that took 80 % of its timeout, before it is shut off for the run. Default: `5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<u32>,
    /// Failed attempts at models within a minute, before no more are made. Default: `250`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<u32>,
}

/// What happens to a call beyond a ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Beyond {
    /// It fails with `budget.exceeded`.
    #[default]
    Fail,
    /// Its run waits until a person raises the ceiling, or refuses.
    Ask,
}

/// What happens to a call of a model without a price where money has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unpriced {
    /// It is made, and counts as nothing.
    #[default]
    Allow,
    /// It fails with `budget.exceeded` before it is sent.
    Refuse,
}

impl Limits {
    /// The ceilings that a run starts with.
    #[must_use]
    pub(crate) fn ceilings(&self) -> Ceilings {
        Ceilings {
            steps: self.steps,
            launches: self.launches,
            model_calls: self.model_calls,
            tool_calls: self.tool_calls,
            tokens: self.tokens,
            cost_micros: self.cost_micros,
            depth: self.depth,
            wall_ms: self.wall.map(|span| span.0),
            beyond: match self.beyond {
                Beyond::Fail => budget::Beyond::Fail,
                Beyond::Ask => budget::Beyond::Ask,
            },
            unpriced: match self.unpriced {
                Unpriced::Allow => budget::Unpriced::Allow,
                Unpriced::Refuse => budget::Unpriced::Refuse,
            },
            breakers: breakers::Breakers {
                same_calls: self.breakers.same_calls,
                failed_calls: self.breakers.failed_calls,
                slow_calls: self.breakers.slow_calls,
                failed_attempts: self.breakers.failed_attempts,
            },
        }
    }
}

/// Rules over what runs may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PolicyTable {
    /// A folder with Cedar rules (`.cedar`) and entities (`.json`), relative to this file. What no rule permits is denied
    /// then. Default: no rules; everything is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A rule set that is tried beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<windlass_policy::CandidateConfig>,
    /// Whether tools and actions are refused where there are no rules. Default: `false`; `true` in `prod-safe`.
    pub required: bool,
    /// Whether commands show what models thought, and write it into exports. Without this its size and hash stand in its
    /// place. Providers get it back as it was either way. Default: `false`.
    pub show_thinking: bool,
}

/// What has to be there before a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Preflight {
    /// Whether `windlass run` starts nothing where a check of `windlass preflight` fails. Default: `false`; `true` in
    /// `prod-safe`.
    pub required: bool,
    /// Tags that every model has in the model catalog that a machine may call, such as a region: `["eu"]`. Default: none.
    pub tags: Vec<String>,
    /// The same for machines whose documents say `personal_data: true` in their `metadata`. Default: none.
    pub personal_data_tags: Vec<String>,
    /// Classes of `[scan]` that are not `off` for such machines. Default: `email` and `card_number`.
    pub personal_data_scan: Vec<windlass_policy::scan::Class>,
}

impl Default for Preflight {
    fn default() -> Self {
        use windlass_policy::scan::Class;
        let personal_data_scan = vec![Class::Email, Class::CardNumber];
        Self { required: false, tags: Vec::new(), personal_data_tags: Vec::new(), personal_data_scan }
    }
}

/// The operator's own secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SecretsTable {
    /// The file that has them, relative to this file. Only its owner may read and write it. Default:
    /// `.windlass/secrets.json`.
    pub file: PathBuf,
    /// Secrets that something else keeps: by name, the program that writes the value to stdout, and its arguments. No shell
    /// reads them; the program runs in the folder of this file. See docs/secrets.md.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, Vec<String>>,
    /// How long such a program may take. Default: `10s`.
    pub timeout: Span,
    /// How old its answer may be before it is asked again, in the background. Default: `5m`.
    pub fresh: Span,
}

impl Default for SecretsTable {
    fn default() -> Self {
        let (timeout, fresh) = (Span(10_000), Span(300_000));
        Self { file: ".windlass/secrets.json".into(), commands: BTreeMap::new(), timeout, fresh }
    }
}

/// Where skills are found. See docs/skills.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SkillsTable {
    /// Folders with packs of skills, relative to this file: each is a pack, or has packs in it. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathBuf>,
}

/// How this process works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Worker {
    /// Runs worked on at the same time. Default: `256`.
    pub claim_slots: usize,
    /// Calls out at the same time. Default: `64`.
    pub call_slots: usize,
    /// The pools whose runs `windlass serve` and `worker` drive. Default: every pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// How long an interrupted process lets calls finish before it hands its runs back. Default: `10s`.
    pub grace: Span,
    /// Threads of this process. Default: `2`.
    pub threads: usize,
}

impl Default for Worker {
    fn default() -> Self {
        Self { claim_slots: 256, call_slots: 64, pools: Vec::new(), grace: Span(10_000), threads: 2 }
    }
}

/// How many runs may wait and be worked on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Queue {
    /// Runs of one tenant that may wait for a worker. New runs of class `low` are refused when half as many wait, those
    /// of class `normal` at nine tenths. Default: no bound; `100000` in `prod-safe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Runs of one tenant that all workers of the store work on at the same time. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_held_max: Option<u32>,
}

/// How `windlass serve` listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Serve {
    /// The address for health checks, metrics and calls. Default: `127.0.0.1:8377`.
    pub listen: Listen,
    /// Whether calls of tools are served. Without issuers in `[auth]` there are none: `true` is refused then. Default:
    /// where there are issuers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<bool>,
    /// The names that this server has in `Host` of calls, without a port: others are refused. Default: those of the loopback
    /// when it listens there, else any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How callers reach this server, such as `https://tools.acme.io`: told to whoever has no token that is taken. Default:
    /// `http://` and what the request has as `Host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Listen(#[schemars(with = "String")] pub SocketAddr);

impl Default for Listen {
    fn default() -> Self {
        Self(SocketAddr::from(([127, 0, 0, 1], 8377)))
    }
}

/// What is logged to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `windlass_runtime=debug`. Default: `warn`.
    pub filter: String,
    /// `text` or `json`. Default: `text`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "warn".into(), format: LogFormat::Text }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Preset {
    /// The keys that the preset sets, as TOML.
    #[must_use]
    pub(crate) fn keys(self) -> &'static str {
        match self {
            Self::DevSafe => "",
            Self::Staging => "[documents]\nstrict = true\ninline_keys = false\n",
            Self::ProdSafe => concat!(
                "[documents]\nstrict = true\ninline_keys = false\nundeclared_tools = false\n",
                "unguarded_danger = false\n",
                "[limits]\nsteps = 1000\nmodel_calls = 1000\ntool_calls = 1000\nlaunches = 1000\n",
                "tokens = 10000000\ncost_micros = 10000000\nunpriced = \"refuse\"\n",
                "[queue]\nmax = 100000\n",
                "[outbound]\nlocal_models = false\n",
                "[policy]\nrequired = true\n",
                "[preflight]\nrequired = true\n",
                "[scan]\nprivate_key = \"mask\"\nconnection_string = \"mask\"\njwt = \"mask\"\naws_key = \"mask\"\n",
                "github_token = \"mask\"\nslack_token = \"mask\"\nservice_key = \"mask\"\nassigned_secret = \"mask\"\n",
            ),
        }
    }

    /// The name.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DevSafe => "dev-safe",
            Self::Staging => "staging",
            Self::ProdSafe => "prod-safe",
        }
    }
}

impl Config {
    /// The JSON Schema of `windlass.toml`.
    #[must_use]
    pub(crate) fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}
