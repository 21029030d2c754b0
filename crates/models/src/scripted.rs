//! The scripted provider: answers from a file, without network or key. It can be slow, rate limited, broken in the
//! middle, malformed or expensive, and what it does passes through the same tables and decoders as real providers.
//!
//! Two ways to tell requests apart. Conditions on the request itself (`agent`, `model`, `turn`, `match`, `regex`, …) give
//! the same answer in every process, so a resumed run gets what an undisturbed one gets: prefer them. `call`,
//! `agent_call`, `times` and `replies` by hit count within one process; a request sent again under the same
//! idempotency key counts once and gets the same answer, until it has been answered with a failure.

mod faults;
mod matching;
mod obey;
mod script;

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_core::ids::Name;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, ToolRequest, Usage};
use windlass_core::value::{Map, Value};

pub use script::{
    By, ErrorBody, FaultKind, Header, Pattern, Place, Response, Rule, SCRIPT_BYTES_MAX, Script, ScriptError, Texts,
    Tokens, ToolCall,
};

use crate::errors::{Fault, ProviderError, retry_after_ms};
use crate::openai::OpenAi;
use crate::prices::Rates;
use crate::wire::{self, Answer, StructuredOutput, Wire};
use matching::{Choice, Counted};

/// Idempotency keys whose answers are remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 10_000;

/// The scripts that this process answers from.
#[derive(Debug, Default)]
pub struct Scripts {
    default: Option<Arc<Live>>,
    named: BTreeMap<Name, Arc<Live>>,
    folder: Option<PathBuf>,
    loaded: Mutex<BTreeMap<Name, Arc<Live>>>,
}

impl Scripts {
    /// With the script for every request that names no other.
    #[must_use]
    pub fn default_script(mut self, script: Script) -> Self {
        self.default = Some(Arc::new(Live::new(script)));
        self
    }

    /// With a script that requests name by the model parameter `script`, or by the model's name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Name>, script: Script) -> Self {
        self.named.insert(name.into(), Arc::new(Live::new(script)));
        self
    }

    /// With a folder from which files are read that requests name by the model parameter `script`.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Whether the script of a name can be had.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, name: &str) -> Result<(), String> {
        if self.named.contains_key(name) { Ok(()) } else { self.load(name).map(|_| ()) }
    }

    /// The script for a model with these parameters.
    pub(crate) fn find(&self, model: &str, params: &Value) -> Result<Arc<Live>, Fault> {
        let Some(name) = params.get("script") else {
            return self.named.get(model).or(self.default.as_ref()).cloned().ok_or_else(|| {
                Fault::Unknown(format!("no script is given for the scripted model `{model}`; set the model's `script`"))
            });
        };
        let Some(name) = name.as_str() else {
            return Err(Fault::Unknown(format!("the model's `script` is a {}, not a file name", name.type_name())));
        };
        match self.named.get(name) {
            Some(live) => Ok(Arc::clone(live)),
            None => self.load(name).map_err(Fault::Unknown),
        }
    }

    fn load(&self, name: &str) -> Result<Arc<Live>, String> {
        let Some(folder) = &self.folder else { return Err(format!("no script of the name `{name}` is given")) };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = loaded.get(name) {
            return Ok(Arc::clone(live));
        }
        let path = folder.join(name);
        let text = read(&path).map_err(|e| format!("script `{}`: {e}", path.display()))?;
        let script = Script::parse(&text).map_err(|e| format!("script `{}`: {e}", path.display()))?;
        let live = Arc::new(Live::new(script));
        loaded.insert(name.into(), Arc::clone(&live));
        Ok(live)
    }
}

/// A file, up to one byte more than a script may have.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SCRIPT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// What a scripted call came to.
#[derive(Debug)]
pub(crate) struct Played {
    /// The answer, or why there is none.
    pub(crate) result: Result<Answer, Fault>,
    /// The cost, when the script says it.
    pub(crate) cost_micros: Option<u64>,
}

/// A script with its counts.
#[derive(Debug)]
pub(crate) struct Live {
    script: Script,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: u64,
    agents: BTreeMap<Name, u64>,
    hits: Vec<u64>,
    remembered: BTreeMap<String, Choice>,
    order: VecDeque<String>,
}

impl Live {
    fn new(script: Script) -> Self {
        Self { script, counts: Mutex::default() }
    }

    /// The prices of a model.
    pub(crate) fn rates(&self, model: &str) -> Option<Rates> {
        self.script.rates(model)
    }

    /// Plays one call. Dropping the future ends it at any point.
    pub(crate) async fn play(&self, request: &ModelRequest) -> Played {
        let Some(response) = self.choose(request).and_then(|choice| choice.response(&self.script)) else {
            return Played { result: Err(Fault::Unknown(nothing_applies(request))), cost_micros: None };
        };
        let result = perform(response, request).await;
        if result.is_err() {
            self.forget(&request.idempotency_key);
        }
        Played { cost_micros: response.cost_micros.filter(|_| result.is_ok()), result }
    }

    fn choose(&self, request: &ModelRequest) -> Option<Choice> {
        if !self.script.counts() {
            return matching::choose(&self.script, request, Counted { call: 1, agent_call: 1, hits: &[] });
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        if let Some(choice) = counts.remembered.get(&request.idempotency_key) {
            return Some(*choice);
        }
        counts.calls += 1;
        let agent_call = counts.agents.entry(request.agent.clone()).or_default();
        *agent_call += 1;
        let counted = Counted { call: counts.calls, agent_call: *agent_call, hits: &counts.hits };
        let choice = matching::choose(&self.script, request, counted)?;
        if let Choice::Rule { rule, .. } = choice {
            counts.hits.resize(self.script.rules.len(), 0);
            counts.hits[rule] += 1;
        }
        counts.remember(&request.idempotency_key, choice);
        Some(choice)
    }

    fn forget(&self, key: &str) {
        if self.script.counts() {
            self.counts.lock().unwrap_or_else(PoisonError::into_inner).remembered.remove(key);
        }
    }
}

impl Counts {
    fn remember(&mut self, key: &str, choice: Choice) {
        if key.is_empty() {
            return;
        }
        self.remembered.insert(key.to_owned(), choice);
        self.order.push_back(key.to_owned());
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.remembered.remove(&oldest);
        }
    }
}

fn nothing_applies(request: &ModelRequest) -> String {
    let last = request.messages.last().map(|m| matching::text(m).to_string()).unwrap_or_default();
    let start = &last[..last.floor_char_boundary(120)];
    let (agent, turn) = (&request.agent, matching::turn(request));
    format!(
        "no rule of the script applies to turn {turn} of agent `{agent}`, whose last message starts `{start}`; add a rule or a `default`"
    )
}

async fn perform(response: &Response, request: &ModelRequest) -> Result<Answer, Fault> {
    let timeout_ms = request.timeout_ms;
    if response.delay_ms >= timeout_ms {
        tokio::time::sleep(Duration::from_millis(timeout_ms)).await;
        return Err(Fault::TimedOut { after_ms: timeout_ms, sent: true });
    }
    if response.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(response.delay_ms)).await;
    }
    let rest = Duration::from_millis(timeout_ms - response.delay_ms);
    if let Some(status) = response.status {
        return Err(Fault::Refused(Box::new(refusal(response, status))));
    }
    let refused = |status, code: &str, message: &str| {
        let (code, message) = (Some(code.to_owned()), message.to_owned());
        Err(Fault::Refused(Box::new(ProviderError { status: Some(status), code, message, ..ProviderError::default() })))
    };
    match response.fault {
        None => answer(response, request),
        Some(FaultKind::Timeout) => {
            tokio::time::sleep(rest).await;
            Err(Fault::TimedOut { after_ms: timeout_ms, sent: true })
        }
        Some(FaultKind::ConnectionRefused) => Err(Fault::Unreachable("connection refused".to_owned())),
        Some(FaultKind::ConnectionLost) => Err(Fault::Lost("connection reset".to_owned())),
        Some(FaultKind::ContextLength) => {
            refused(400, "context_length_exceeded", "this model's maximum context length is exceeded")
        }
        Some(FaultKind::ContentFilter) => refused(400, "content_filter", "the request was filtered"),
        Some(kind) => match faults::damaged(&answer(response, request)?, kind, response.after_bytes) {
            Ok(answer) => Ok(answer),
            Err(Some(fault)) => Err(fault),
            Err(None) => {
                tokio::time::sleep(rest).await;
                Err(Fault::TimedOut { after_ms: timeout_ms, sent: true })
            }
        },
    }
}

fn refusal(response: &Response, status: u16) -> ProviderError {
    let header = response.retry_after.as_ref();
    ProviderError {
        status: Some(status),
        kind: response.error.kind.clone(),
        code: response.error.code.clone(),
        message: response.error.message.clone().unwrap_or_else(|| "the script says so".to_owned()),
        retry_after_ms: header.and_then(|h| retry_after_ms(&h.0, jiff::Timestamp::now())),
        ..ProviderError::default()
    }
}

fn answer(response: &Response, request: &ModelRequest) -> Result<Answer, Fault> {
    let last = || request.messages.last().map(|m| matching::text(m).to_string()).unwrap_or_default();
    let content = match (&response.content, &response.json, &response.echo_request) {
        (Some(text), ..) => Some(text.to_string()),
        (None, Some(value), _) => Some(value.to_json()),
        (None, None, Some(keys)) => Some(echo(request, keys)?),
        (None, None, None) => response.echo.then(last),
    };
    let turn = matching::turn(request);
    let content = content.or_else(|| response.obey.then(|| obey::words(request)));
    let mut tool_calls = if response.obey { obey::calls(request, turn) } else { Vec::new() };
    for (index, call) in response.tool_calls.iter().enumerate() {
        let arguments = match &call.arguments {
            Value::Str(text) => wire::arguments(text),
            Value::Null => Value::empty_map(),
            other => other.clone(),
        };
        let id = call.id.clone().unwrap_or_else(|| format!("call_{turn}_{index}").into());
        tool_calls.push(ToolRequest { id, name: call.name.clone(), arguments });
    }
    let implied = if tool_calls.is_empty() { Finish::Stop } else { Finish::ToolUse };
    let usage = match (response.usage, response.no_usage) {
        (Some(tokens), _) => tokens.into(),
        (None, true) => Usage::default(),
        (None, false) => estimated(request, content.as_deref().unwrap_or_default(), &tool_calls),
    };
    Ok(Answer {
        has_content: content.is_some(),
        content: content.unwrap_or_default(),
        tool_calls,
        finish: response.finish.unwrap_or(implied),
        finish_word: None,
        usage,
        attachments: Value::Null,
        id: None,
        model: Some(request.model.clone()),
        service_tier: None,
    })
}

fn echo(request: &ModelRequest, keys: &[Name]) -> Result<String, Fault> {
    let body = OpenAi.body(request, StructuredOutput::Object)?;
    if keys.is_empty() {
        return Ok(body.to_json());
    }
    let picked = keys.iter().map(|key| (key.clone(), body.get(key).cloned().unwrap_or_default()));
    Ok(Value::map(picked.collect::<Map>()).to_json())
}

/// Four characters to the token, rounded up.
fn estimated(request: &ModelRequest, content: &str, calls: &[ToolRequest]) -> Usage {
    let tokens = |characters: usize| Some((characters as u64).div_ceil(4));
    let asked: usize = request.messages.iter().map(|m| matching::text(m).chars().count()).sum();
    let called: usize = calls.iter().map(|c| c.name.chars().count() + c.arguments.to_json().chars().count()).sum();
    Usage { input: tokens(asked), output: tokens(content.chars().count() + called), ..Usage::default() }
}
