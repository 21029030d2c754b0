//! Agents that are programs (Claude Code, Codex, or one of your own) as models: one supervised process for each call, the
//! conversation on standard input, its JSON on standard output.
//!
//! Owns what is sent and how the output is read. Starting, bounds and the end of the process are those of commands.

mod read;

use std::sync::Arc;

use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::budget::{Amounts, Meter};
use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::Name;
use windlass_core::input::Quote;
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::trace::carried_in_environment;
use windlass_core::transcript::Message;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};

use crate::build::Site;
use crate::command::{self, Table};
use crate::config::SecretRef;
use crate::process::{Program, Trouble};
use crate::sandbox::SandboxConfig;

/// Bytes that an agent may write.
const OUTPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Parameters of a profile that are the engine's business.
const ENGINE_KEYS: &[&str] = &["max_retries", "timeout", "timeout_seconds"];
/// What stands for the model's name in a command.
const MODEL: &str = "{model}";
/// What stands for the budget of a call in a command, in US dollars.
const BUDGET: &str = "{budget_usd}";

/// What an agent writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentFormat {
    /// Claude Code with `--output-format json` or `stream-json`.
    #[default]
    ClaudeCode,
    /// Codex with `exec --json`.
    Codex,
    /// One JSON object: `{"content", "usage"?: {"input", "output", ...}, "cost_micros"?}`, or `{"error"}`.
    Json,
}

/// An agent that is a program. Documents name it as their provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CliAgentConfig {
    /// What it writes: `claude_code`, `codex`, or `json` for a program of your own.
    pub format: AgentFormat,
    /// Program and arguments; no shell reads them. `{model}` stands for the model of the document, and `{budget_usd}` for
    /// `budget_micros`. The conversation is on standard input. Default: Claude Code or Codex as they are installed.
    pub command: Option<Vec<String>>,
    /// Working directory, relative to the configuration file. Default: its folder.
    pub dir: Option<String>,
    /// Environment variables passed on. Default: `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, `TMPDIR`.
    pub pass_env: Option<Vec<String>>,
    /// Environment variables set.
    pub env: Option<std::collections::BTreeMap<String, String>>,
    /// Environment variables set to secrets, each named as `env:NAME` or `file:PATH`.
    pub secret_env: Option<std::collections::BTreeMap<String, SecretRef>>,
    /// What the process may use of the host. Default: no bounds.
    pub sandbox: Option<SandboxConfig>,
    /// What one call may cost, in micro-USD: reserved before it, and charged where the agent does not say what it cost.
    pub budget_micros: Option<u64>,
    /// Tokens that one call may use beside those of the conversation, which agents spend on turns of their own: reserved
    /// before it, and charged where the agent does not say. Default: 0.
    pub tokens_max: Option<u64>,
}

impl<'a> From<&'a CliAgentConfig> for Table<'a> {
    fn from(table: &'a CliAgentConfig) -> Self {
        Self {
            command: table.command.as_deref(),
            dir: table.dir.as_deref(),
            pass_env: table.pass_env.as_deref(),
            env: table.env.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            secret_env: table.secret_env.iter().flatten().map(|(k, v)| (k.as_str(), v)).collect(),
        }
    }
}

/// The agent of a table.
pub(crate) fn make(site: &mut Site<'_>, table: &CliAgentConfig) -> Option<Arc<dyn Model>> {
    let mut table = table.clone();
    if table.command.is_none() {
        table.command = installed(table.format, table.budget_micros.is_some());
    }
    let words = table.command.iter().flatten();
    if table.budget_micros.is_none() && words.clone().any(|word| word.contains(BUDGET)) {
        site.wrong("command", format!("`{BUDGET}` stands for `budget_micros`, which is not set"), None);
    }
    if table.budget_micros == Some(0) {
        site.wrong("budget_micros", "a budget of nothing allows no call", None);
    }
    let program = command::program(site, &Table::from(&table), table.sandbox.as_ref(), true)?;
    Some(Arc::new(CliAgent {
        name: site.name.into(),
        format: table.format,
        program,
        budget_micros: table.budget_micros,
        tokens_max: table.tokens_max.unwrap_or(0),
    }))
}

/// The command of an agent as it comes from its maker.
fn installed(format: AgentFormat, bounded: bool) -> Option<Vec<String>> {
    let words: Vec<&str> = match format {
        AgentFormat::ClaudeCode if bounded => {
            vec!["claude", "-p", "--output-format", "json", "--model", MODEL, "--max-budget-usd", BUDGET]
        }
        AgentFormat::ClaudeCode => vec!["claude", "-p", "--output-format", "json", "--model", MODEL],
        AgentFormat::Codex => vec!["codex", "exec", "--json", "--model", MODEL, "-"],
        AgentFormat::Json => return None,
    };
    Some(words.into_iter().map(str::to_owned).collect())
}

#[derive(Debug)]
struct CliAgent {
    name: Name,
    format: AgentFormat,
    program: Program,
    budget_micros: Option<u64>,
    tokens_max: u64,
}

fn refused(why: impl Into<String>) -> ModelResult {
    let failure = Failure::new(Code::ProviderInvalidRequest, why.into()).retry(Retry::Never);
    ModelResult { outcome: Err(failure), spent: Spent::Unsent }
}

impl CliAgent {
    /// The program with the words of this call.
    fn words(&self, model: &str) -> Result<Program, String> {
        if model.starts_with('-') || model.contains('\0') {
            return Err(format!("`{}` cannot be told the model `{model}`: it reads as an option", self.name));
        }
        let usd = self.budget_micros.map(|micros| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
        let mut program = self.program.clone();
        for word in &mut program.argv {
            *word = word.replace(MODEL, model).replace(BUDGET, usd.as_deref().unwrap_or_default());
        }
        Ok(program)
    }

    /// What cannot be said to a program that has tools and settings of its own.
    fn unsayable(&self, request: &ModelRequest) -> Option<String> {
        let of = |what: &str| Some(format!("the agent `{}` is a program: {what}", self.name));
        if !request.tools.is_empty() {
            return of("it has tools of its own and takes none");
        }
        if let Some(file) = request.files.first() {
            return of(&format!("it does not take the file `{}`", file.name));
        }
        let mut keys = request.params.as_map().into_iter().flatten().filter(|(_, value)| !value.is_null());
        match keys.find(|(key, _)| !ENGINE_KEYS.contains(&&***key)) {
            Some((key, _)) => of(&format!("it has no parameter `{key}`; its command is configured")),
            None => None,
        }
    }

    async fn ask(&self, request: ModelRequest) -> ModelResult {
        if let Some(why) = self.unsayable(&request) {
            return refused(why);
        }
        let program = match self.words(&request.model) {
            Ok(program) => program,
            Err(why) => return refused(why),
        };
        let trace = carried_in_environment(&request.idempotency_key, request.trace.as_ref());
        let mut env = vec![("WINDLASS_IDEMPOTENCY_KEY", &*request.idempotency_key)];
        env.extend(trace.iter().map(|(name, value)| (*name, value.as_str())));
        let input = match self.format {
            AgentFormat::ClaudeCode | AgentFormat::Codex => said(&request.messages).into_bytes(),
            AgentFormat::Json => command::line(&body(&request)),
        };
        match program.run(&env, input, request.timeout_ms, OUTPUT_BYTES_MAX).await {
            Ok(ended) => read::result(self.format, &self.name, &ended, |text| program.redacted(text)),
            Err(trouble) => self.failed(trouble, request.timeout_ms),
        }
    }

    fn failed(&self, trouble: Trouble, timeout_ms: u64) -> ModelResult {
        let name = &self.name;
        let (code, text, retry, spent) = match trouble {
            Trouble::NotStarted(error) => {
                let text = format!("`{name}`: its program or its working directory cannot be used: {error}");
                (Code::ProviderUnreachable, text, Retry::Never, Spent::Unsent)
            }
            Trouble::TimedOut => {
                let text = format!("`{name}` had not ended after {timeout_ms} ms, and was killed");
                (Code::ProviderTimeout, text, Retry::Backoff, Spent::Unknown)
            }
            Trouble::TooLarge => {
                let text = format!("`{name}` wrote more than {OUTPUT_BYTES_MAX} bytes");
                (Code::ProviderMalformed, text, Retry::Never, Spent::Unknown)
            }
            Trouble::Broken(error) => {
                let text = format!("the pipes of `{name}` broke: {error}");
                (Code::ProviderTruncated, text, Retry::Backoff, Spent::Unknown)
            }
        };
        ModelResult { outcome: Err(Failure::new(code, text).retry(retry)), spent }
    }
}

impl Model for CliAgent {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        self.ask(request).boxed()
    }

    fn quote(&self, _: &ModelSettings) -> Option<Quote> {
        let beyond =
            Amounts::ZERO.with(Meter::CostMicros, self.budget_micros.unwrap_or(0)).with(Meter::Tokens, self.tokens_max);
        (!beyond.is_zero()).then(|| Quote { input: 0, output: 0, version: "configured".into(), beyond })
    }
}

/// The conversation as text. One question stands as it is; a longer one says who spoke.
fn said(messages: &[Message]) -> String {
    let turns = messages.iter().filter(|message| !matches!(message, Message::System { .. })).count();
    let mut parts = Vec::with_capacity(messages.len());
    for message in messages {
        match message {
            Message::System { content } => parts.push(content.to_string()),
            Message::User { content } if turns == 1 => parts.push(content.to_string()),
            Message::User { content } => parts.push(format!("User:\n{content}")),
            Message::Assistant { content, .. } => parts.push(format!("You answered:\n{content}")),
            Message::Tool { content, .. } => parts.push(format!("A tool answered:\n{content}")),
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts.join("\n\n")
}

/// What a program of one's own reads.
fn body(request: &ModelRequest) -> Value {
    let messages = serde_json::to_value(&request.messages).unwrap_or_default();
    Value::object([
        ("model", Value::Str(request.model.clone())),
        ("messages", messages.into()),
        ("output_schema", request.output_schema.clone().unwrap_or_default()),
        ("max_tokens", request.max_tokens.map_or(Value::Null, Value::count)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_stands_as_it_is() {
        let user = |text: &str| Message::User { content: text.into() };
        let system = Message::System { content: "Be brief.".into() };
        let answer = Message::Assistant { content: "4".into(), tool_calls: vec![], attachments: Value::Null };
        assert_eq!(said(&[system.clone(), user("2+2?")]), "Be brief.\n\n2+2?");
        let long = [system, user("2+2?"), answer, user("As JSON.")];
        assert_eq!(said(&long), "Be brief.\n\nUser:\n2+2?\n\nYou answered:\n4\n\nUser:\nAs JSON.");
    }
}
