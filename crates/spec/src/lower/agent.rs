//! Agents: references to documents, prompts, and the rules of voting.
//!
//! Paths inside of an agent document are relative to the machine's folder, wherever the agent document stands.

use std::sync::Arc;

use windlass_core::ids::{Digest, Name};
use windlass_core::machine::{Agent, Dialect, ModelSettings, Template, VotingRules};
use windlass_core::value::Value;

use crate::check;
use crate::diagnostics::Rule;
use crate::eval;
use crate::features::{AGENT, PROMPT, PROMPT_DATA};
use crate::yaml::{Entry, Node};

use super::model::{Catalog, Wanted};
use super::{Lowering, output, overlaid, pairs, template};

/// The system prompt of an agent that has none.
const SYSTEM_DEFAULT: &str = "You are a helpful assistant.";

impl Lowering<'_, '_> {
    /// Lowers one entry of `agents`.
    pub(super) fn agent(&mut self, entry: &Entry, folder: &str, catalog: Option<&Arc<Catalog>>) -> Option<Agent> {
        let root = self.agent_document(entry, folder)?;
        let data = root.get("data").filter(|d| d.as_map().is_some())?.clone();
        let bundled = data.entry("prompt").is_some() || data.entry("profile").is_some();
        let prompt = if bundled { self.prompt(&data, folder)? } else { data.clone() };
        let settings = self.agent_model(&data, &entry.value, bundled, catalog)?;
        if let Some(mcp) = prompt.get("mcp").cloned() {
            self.mcp(&mcp);
        }
        let voting = self.voting(&root);
        let skills = super::skills::of_document(&root, &mut self.docs.sink);
        self.agent_skills.push((entry.key.clone(), skills));
        let sink = &mut self.docs.sink;
        if prompt.entry("user").is_none() {
            let message = format!("the prompt of `{}` has no `user` text", entry.key);
            sink.warn(Rule::MissingKey, prompt.span.line_only(), message, "add `user`");
        }
        let part =
            |key: &str, default: &str, sink: &mut _| template::prompt(prompt.get(key).map(|n| &**n), default, sink);
        let document = sink.path(prompt.span.file).into();
        let agent = Agent {
            name: entry.key.clone(),
            document,
            hash: Digest::ZERO,
            model: settings,
            system: part("system", SYSTEM_DEFAULT, sink),
            user: part("user", "", sink),
            instruction_suffix: part("instruction_suffix", "", sink),
            post_history: part("post_history_instructions", "", sink),
            output_schema: output::schema(prompt.get("output"), sink),
            tools: output::tools(&prompt, sink),
            voting,
        };
        Some(Agent { hash: hash(&agent), ..agent })
    }

    /// The agent document that an entry means.
    fn agent_document(&mut self, entry: &Entry, folder: &str) -> Option<Arc<Node>> {
        let node = &entry.value;
        if let Some(reference) = node.as_str() {
            let path = self.docs.path(folder, reference, node.span)?;
            let root = self.docs.document(&path, node.span)?;
            if !self.is_kind(&root, "flatagent") {
                return None;
            }
            self.check_once(&path, &root, &AGENT);
            return Some(root);
        }
        if node.entry("spec").is_some() {
            return self.is_kind(node, "flatagent").then(|| node.clone());
        }
        let kind = node.get("type")?;
        if kind.as_str().is_none_or(|kind| &**kind != "flatagent") {
            let word = kind.scalar_text().unwrap_or_default();
            let advice = match &*word {
                "claude-code" | "codex-cli" => {
                    "name the program as `[agents_cli.NAME]` in `windlass.toml`, and write a `flatagent` whose profile has \
                     `provider: NAME`"
                }
                _ => "use `type: flatagent`, or call the program as a tool or an action",
            };
            let message = format!("agents of type `{word}` cannot be run by this build");
            self.docs.sink.error(Rule::Blocked, kind.span, message, advice);
            return None;
        }
        let base = match node.get("ref").cloned() {
            Some(reference) => {
                let path = self.docs.path(folder, reference.as_str()?, reference.span)?;
                let root = self.docs.document(&path, reference.span)?;
                if !self.is_kind(&root, "flatagent") {
                    return None;
                }
                Some(root)
            }
            None => None,
        };
        let whole = match (base, node.get("config")) {
            (Some(base), Some(config)) => Arc::new(overlaid(&base, config)),
            (Some(base), None) => base,
            (None, Some(config)) => config.clone(),
            (None, None) => {
                let message = format!("the agent `{}` has neither `ref` nor `config`", entry.key);
                self.docs.sink.error(
                    Rule::MissingKey,
                    entry.key_span,
                    message,
                    "add the path of an agent document as `ref`",
                );
                return None;
            }
        };
        check::section(&whole, &AGENT, &mut self.docs.sink);
        self.is_kind(&whole, "flatagent").then_some(whole)
    }

    /// The prompt of an agent: a document, its fields, or a document inside of the agent.
    fn prompt(&mut self, data: &Node, folder: &str) -> Option<Arc<Node>> {
        let node = data.get("prompt")?.clone();
        let root = match node.as_str() {
            None => node,
            Some(reference) => {
                let path = self.docs.path(folder, reference, node.span)?;
                let root = self.docs.document(&path, node.span)?;
                let section = if PROMPT.is_meant(&root) { &PROMPT } else { &PROMPT_DATA };
                self.check_once(&path, &root, section);
                root
            }
        };
        if !self.is_kind(&root, "prompt") {
            return None;
        }
        let inner = root.get("data").cloned().unwrap_or(root);
        inner.as_map().is_some().then_some(inner)
    }

    fn agent_model(
        &mut self,
        data: &Arc<Node>,
        agent: &Node,
        bundled: bool,
        catalog: Option<&Arc<Catalog>>,
    ) -> Option<ModelSettings> {
        let node = data.get(if bundled { "profile" } else { "model" }).cloned();
        let span = node.as_ref().map_or(agent.span, |n| n.span).line_only();
        let wanted = match &node {
            None => Wanted::Default,
            Some(node) => match node.as_str() {
                Some(name) => Wanted::Named(name.clone(), node.span),
                None if node.as_map().is_none() => return None,
                None if bundled => Wanted::Own(node),
                None => Wanted::Keys(node),
            },
        };
        if bundled && node.is_none() {
            return None;
        }
        if !bundled && let Some(node) = node.as_ref().filter(|n| n.as_map().is_some()) {
            check::section(node, &crate::features::MODEL, &mut self.docs.sink);
        }
        self.model(wanted, catalog, span)
    }

    /// Takes keys out of MCP servers: their environment and headers usually are.
    fn mcp(&mut self, mcp: &Node) {
        for server in pairs(mcp, "servers") {
            for place in ["env", "headers"] {
                if let Some(values) = server.value.get(place).cloned() {
                    self.docs.keys_of(&values);
                }
            }
        }
    }

    /// How a voting state reads and checks this agent's answers.
    fn voting(&mut self, root: &Node) -> VotingRules {
        let Some(metadata) = root.get("metadata").cloned() else { return VotingRules::default() };
        let mut parsing = Vec::new();
        for entry in pairs(&metadata, "parsing") {
            let Some(pattern) = entry.value.get("pattern") else { continue };
            let Some(text) = pattern.as_str() else { continue };
            if let Err(failure) = eval::check_pattern(text) {
                let message = format!("the pattern of `{}` is no regular expression: {}", entry.key, failure.message);
                self.docs.sink.error(Rule::BadSchema, pattern.span, message, ());
            }
            let kind: Name = entry.value.text("type").cloned().unwrap_or_else(|| "str".into());
            if !matches!(&*kind, "str" | "int" | "json") {
                let span = entry.value.get("type").map_or(pattern.span, |n| n.span);
                let message = format!("`{}` cannot be read as `{kind}`", entry.key);
                self.docs.sink.error(Rule::WrongValue, span, message, "use `str`, `int` or `json`");
            }
            parsing.push((entry.key.clone(), text.clone(), kind));
        }
        let validation = metadata.get("validation").filter(|n| n.as_map().is_some()).map(|node| {
            let schema = node.to_value();
            if let Err(failure) = eval::check_schema(&schema) {
                let message = format!("`validation` is no JSON Schema: {}", failure.message);
                self.docs.sink.error(Rule::BadSchema, node.span, message, ());
            }
            schema
        });
        let number = |key: &str| metadata.get("mdap").and_then(|m| m.get(key)).and_then(|n| n.as_u64());
        let small = |key: &str| number(key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        VotingRules {
            parsing,
            validation,
            max_tokens: number("max_response_tokens"),
            margin: small("k_margin"),
            candidates: small("max_candidates"),
        }
    }
}

/// The hash of everything that makes an agent what it is.
fn hash(agent: &Agent) -> Digest {
    let model = &agent.model;
    let optional = |text: &Option<Name>| text.clone().map_or(Value::Null, Value::Str);
    let tools = agent.tools.iter().map(|tool| {
        Value::object([
            ("name", Value::Str(tool.name.clone())),
            ("description", Value::Str(tool.description.clone())),
            ("parameters", tool.parameters.clone()),
        ])
    });
    let parsing =
        agent.voting.parsing.iter().map(|(name, pattern, kind)| {
            Value::list([name, pattern, kind].into_iter().cloned().map(Value::Str).collect())
        });
    let count = |number: Option<u32>| number.map_or(Value::Null, |n| Value::Int(i64::from(n)));
    Value::object([
        ("provider", Value::Str(model.provider.clone())),
        ("model", Value::Str(model.model.clone())),
        ("base_url", optional(&model.base_url)),
        ("max_tokens", model.max_tokens.map_or(Value::Null, Value::count)),
        ("stream", Value::Bool(model.stream)),
        ("params", model.params.clone()),
        ("timeout_ms", Value::count(model.timeout_ms)),
        ("system", text_of(&agent.system)),
        ("user", text_of(&agent.user)),
        ("instruction_suffix", text_of(&agent.instruction_suffix)),
        ("post_history", text_of(&agent.post_history)),
        ("output_schema", agent.output_schema.clone().unwrap_or_default()),
        ("tools", Value::list(tools.collect())),
        ("parsing", Value::list(parsing.collect())),
        ("validation", agent.voting.validation.clone().unwrap_or_default()),
        ("voting_max_tokens", agent.voting.max_tokens.map_or(Value::Null, Value::count)),
        ("margin", count(agent.voting.margin)),
        ("candidates", count(agent.voting.candidates)),
    ])
    .digest()
}

/// A prompt's text with a mark of how it is rendered.
fn text_of(template: &Template) -> Value {
    match template {
        Template::Literal(value) => value.clone(),
        Template::Text { dialect: Dialect::Prompt, source } => Value::list(vec![Value::Str(source.clone())]),
        other => Value::str(format!("{other:?}")),
    }
}
