//! One state: what it does, where it leads, and which of its keys have no effect together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexSet;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::machine::{
    AgentCall, Call, Condition, Engine, Hook, HookKind, Launch, Mode, OnError, State, Targets, Template, Transition,
    Wait,
};
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Span, suggest};
use crate::eval;
use crate::syntax;
use crate::yaml::{Data, Entry, Node};

use super::settings::millis;
use super::table::Tables;
use super::{Lowering, execution, pairs, template};

/// The name of an item of `foreach`.
const BINDING_DEFAULT: &str = "item";
/// Names in every template, which an item must not hide.
const RESERVED: [&str; 3] = ["context", "input", "output"];

/// The names that the states of one machine may use.
pub(super) struct Names {
    /// The machine's key.
    pub(super) key: Name,
    pub(super) engine: Engine,
    pub(super) states: IndexSet<Name>,
    pub(super) agents: IndexSet<Name>,
    /// Child machines by name.
    pub(super) machines: BTreeMap<Name, Name>,
    /// Names of child machines in the document, those that could not be read included.
    pub(super) listed: IndexSet<Name>,
    /// Decision tables by name.
    pub(super) tables: Tables,
    /// Hooks of states that declare none.
    pub(super) hooks: Vec<Hook>,
}

impl Lowering<'_, '_> {
    pub(super) fn state(&mut self, entry: &Entry, names: &Names) -> Option<State> {
        let node = &entry.value;
        node.as_map()?;
        self.idle_keys(node);
        let hooks = match node.get("hooks") {
            Some(own) => self.hooks(Some(own)),
            None => names.hooks.clone(),
        };
        let call = self.call(node, names);
        let agent = self.agent_call(node, names);
        let timeout = node.get("timeout").and_then(|n| n.as_f64()).filter(|s| *s > 0.0).map(millis);
        let wait = template::text_at(node, "wait_for", &mut self.docs.sink)
            .map(|channel| Wait { channel, timeout_ms: timeout });
        let joins = call.as_ref().is_some_and(|c| !matches!(c.targets, Targets::One { .. }));
        let (asked, leads) = (names.tables.has(node.text("action")), names.tables.leads(node.text("action")));
        let state = State {
            name: entry.key.clone(),
            is_final: node.text("type").is_some_and(|kind| &**kind == "final"),
            action: self.action(node, &hooks, asked),
            arguments: node.get("arguments").map(|n| template::value(n, &mut self.docs.sink)),
            launch: self.launch(node, names),
            output: node
                .get("output")
                .filter(|n| n.as_map().is_some_and(|m| !m.is_empty()))
                .map(|n| template::value(n, &mut self.docs.sink)),
            output_to_context: template::mapping_at(node, "output_to_context", &mut self.docs.sink),
            hooks,
            on_error: self.on_error(node, names),
            transitions: self.transitions(node, names, leads),
            timeout_ms: timeout.filter(|_| wait.is_none() && !joins),
            call: call.map(|call| Call { timeout_ms: timeout.filter(|_| joins && wait.is_none()), ..call }),
            agent,
            wait,
        };
        if let Some(table) = state.action.as_ref().and_then(|action| names.tables.by_name.get(action)) {
            self.check_table(node, table, &state);
        }
        Some(state)
    }

    fn action(&mut self, node: &Node, hooks: &[Hook], by_table: bool) -> Option<Name> {
        let found = node.get("action")?;
        let name = found.as_str()?.clone();
        let is_tool = node.get("arguments").is_some();
        let by_hook = !is_tool && hooks.iter().any(|hook| hook.events.contains(&HookKind::Action));
        let unresolved_hook = !is_tool && node.get("hooks").is_some() && hooks.is_empty();
        if !by_table && !by_hook && !unresolved_hook && !self.around.tools.contains_key(&name) {
            let near = suggest(&name, self.around.tools.keys().map(|k| &**k)).filter(|s| s.starts_with("did"));
            let advice = match is_tool {
                true => "what has `arguments` is a configured tool; configure one of that name",
                false => "add `hooks` that perform actions to the state, or configure a tool of that name",
            };
            let advice = near.map_or(advice.to_owned(), |near| format!("{near} Otherwise {advice}"));
            let message = format!("nothing performs the action `{name}`");
            self.docs.sink.error(Rule::UnknownAction, found.span, message, advice);
        }
        Some(name)
    }

    fn launch(&mut self, node: &Node, names: &Names) -> Option<Launch> {
        let found = node.get("launch")?;
        let single = [found.clone()];
        let items = found.as_list().unwrap_or(&single);
        if items.is_empty() {
            self.docs.sink.error(Rule::WrongValue, found.span, "`launch` lists no machine", "name one, or remove it");
        }
        let machines = items
            .iter()
            .filter_map(|item| item.as_str().and_then(|name| self.target(name, item.span, names)))
            .collect();
        let input = self.input(node, "launch_input");
        Some(Launch { machines, input: Template::Map(input) })
    }

    fn input(&mut self, node: &Node, key: &str) -> Vec<(Name, Template)> {
        template::mapping_at(node, key, &mut self.docs.sink)
    }

    /// A child machine's name, known to exist.
    fn target(&mut self, name: &Name, span: Span, names: &Names) -> Option<Name> {
        match names.machines.get(name) {
            Some(key) => {
                self.starts.entry((names.key.clone(), key.clone())).or_insert(span);
                Some(name.clone())
            }
            None => {
                if !names.listed.contains(name) {
                    let advice = suggest(name, names.listed.iter().map(|n| &**n))
                        .unwrap_or_else(|| format!("add `{name}` to `machines` of this document"));
                    let message = format!("the machine `{name}` does not exist");
                    self.docs.sink.error(Rule::UnknownMachine, span, message, advice);
                }
                None
            }
        }
    }

    fn call(&mut self, node: &Node, names: &Names) -> Option<Call> {
        let mode = match node.text("mode").map(|mode| &**mode) {
            Some("any") => Mode::Any,
            _ => Mode::Settled,
        };
        let targets = match node.get("foreach") {
            Some(items) => self.foreach(node, items, names)?,
            None => {
                let found = node.get("machine")?;
                match (found.as_str(), found.as_list()) {
                    (Some(name), _) => {
                        let machine = self.target(name, found.span, names)?;
                        Targets::One { machine, input: Template::Map(self.input(node, "input")) }
                    }
                    (None, Some(items)) => self.many(node, found, items, names)?,
                    (None, None) => return None,
                }
            }
        };
        Some(Call { targets, mode, timeout_ms: None })
    }

    fn many(&mut self, node: &Node, found: &Node, items: &[Arc<Node>], names: &Names) -> Option<Targets> {
        if items.is_empty() {
            self.docs.sink.error(Rule::WrongValue, found.span, "`machine` lists no machine", "name one, or remove it");
        }
        let base = self.input(node, "input");
        let (mut targets, mut seen) = (Vec::new(), BTreeSet::new());
        for item in items {
            let (name, span) = match item.as_str() {
                Some(name) => (name.clone(), item.span),
                None => match item.get("name") {
                    Some(n) => match n.as_str() {
                        Some(name) => (name.clone(), n.span),
                        None => continue,
                    },
                    None => continue,
                },
            };
            if !seen.insert(name.clone()) {
                let message = format!("`{name}` is listed twice; the result has one place for each name");
                let advice = "give it a second name in `machines`, or use `foreach`";
                self.docs.sink.error(Rule::DuplicateName, span, message, advice);
                continue;
            }
            let Some(machine) = self.target(&name, span, names) else { continue };
            let own = template::mapping_at(item, "input", &mut self.docs.sink);
            targets.push((machine, Template::Map(laid_over(&base, own))));
        }
        (!targets.is_empty()).then_some(Targets::Many(targets))
    }

    fn foreach(&mut self, node: &Node, items: &Arc<Node>, names: &Names) -> Option<Targets> {
        let sink = &mut self.docs.sink;
        let list = template::value(items, sink);
        if let (Template::Literal(Value::Str(text)), true) = (&list, items.as_str().is_some()) {
            let message = format!("`foreach` gives the text `{text}`, not a list");
            sink.error(Rule::WrongValue, items.span, message, format!("write `context.{text}` or a template"));
        }
        let binding = node.get("as");
        let name = binding.and_then(|n| n.as_str().cloned()).unwrap_or_else(|| BINDING_DEFAULT.into());
        if let Some(node) = binding.filter(|_| !is_identifier(&name) || RESERVED.contains(&&*name)) {
            let message = format!("`{name}` cannot name an item in templates");
            sink.error(
                Rule::WrongValue,
                node.span,
                message,
                "use letters, digits and `_`, and none of the names in use",
            );
        }
        let Some(found) = node.get("machine") else {
            let span = node.entry("foreach").map_or(items.span, |e| e.key_span);
            sink.error(Rule::MissingKey, span, "`foreach` needs `machine`", "name the machine to start for each item");
            return None;
        };
        let target = match (found.as_str(), found.as_list()) {
            (Some(_), _) => found,
            (None, Some([only])) => only,
            _ => {
                sink.error(
                    Rule::WrongType,
                    found.span,
                    "`foreach` starts one machine for each item",
                    "name one machine",
                );
                return None;
            }
        };
        let key = template::text_at(node, "key", sink);
        let span = target.get("name").map_or(target.span, |n| n.span);
        let machine_name = target.as_str().or_else(|| target.text("name"))?.clone();
        let machine = self.target(&machine_name, span, names)?;
        let base = self.input(node, "input");
        let own = template::mapping_at(target, "input", &mut self.docs.sink);
        let input = Template::Map(laid_over(&base, own));
        Some(Targets::Foreach { machine, items: list, binding: name, input, key })
    }

    fn agent_call(&mut self, node: &Node, names: &Names) -> Option<AgentCall> {
        let found = node.get("agent")?;
        let name = found.as_str()?.clone();
        if !names.agents.contains(&name) {
            let advice = suggest(&name, names.agents.iter().map(|n| &**n))
                .unwrap_or_else(|| format!("add `{name}` to `agents` of this document"));
            self.docs.sink.error(Rule::UnknownAgent, found.span, format!("the agent `{name}` does not exist"), advice);
        }
        let execution = execution::execution(node, &mut self.docs.sink);
        let tool_loop = execution::tool_loop(node, &execution, &mut self.docs.sink);
        Some(AgentCall { agent: name, input: Template::Map(self.input(node, "input")), execution, tool_loop })
    }

    fn on_error(&mut self, node: &Node, names: &Names) -> OnError {
        let Some(found) = node.get("on_error") else { return OnError::default() };
        if let Some(state) = found.as_str() {
            self.known_state(state, found.span, names);
            return OnError { by_name: Vec::new(), default: Some(state.clone()) };
        }
        let mut on_error = OnError::default();
        for entry in found.as_map().unwrap_or_default() {
            let Some(state) = entry.value.as_str() else { continue };
            self.known_state(state, entry.value.span, names);
            if entry.key.contains('.') && Code::parse(&entry.key).is_none() {
                let message = format!("no failure has the code `{}`", entry.key);
                let advice = suggest(&entry.key, Code::ALL.iter().map(|code| code.as_str()));
                self.docs.sink.warn(Rule::NoEffect, entry.key_span, message, advice);
            }
            if &*entry.key == "default" {
                on_error.default = Some(state.clone());
            } else {
                on_error.by_name.push((entry.key.clone(), state.clone()));
            }
        }
        on_error
    }

    fn known_state(&mut self, state: &Name, span: Span, names: &Names) {
        if !names.states.contains(state) {
            let advice = suggest(state, names.states.iter().map(|n| &**n));
            self.docs.sink.error(Rule::UnknownState, span, format!("the state `{state}` does not exist"), advice);
        }
    }

    /// The ways out. Where a table says which one is taken, none of them hides those after it.
    fn transitions(&mut self, node: &Node, names: &Names, led: bool) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let mut always = false;
        for item in node.get("transitions").and_then(|n| n.as_list()).unwrap_or_default() {
            let Some(to) = item.get("to").filter(|n| n.as_str().is_some()) else { continue };
            let Some(state) = to.as_str() else { continue };
            self.known_state(state, to.span, names);
            if always && !led {
                let message = format!("the transition to `{state}` is never taken");
                let advice = "the one before it has no condition; move that to the end";
                self.docs.sink.warn(Rule::NoEffect, to.span, message, advice);
            }
            let condition = self.condition(item, names.engine);
            always |= condition.is_none();
            transitions.push(Transition { condition, to: state.clone() });
        }
        transitions
    }

    fn condition(&mut self, transition: &Node, engine: Engine) -> Option<Condition> {
        let found = transition.get("condition")?;
        let text: Name = match &found.data {
            Data::Bool(b) => b.to_string().into(),
            Data::Str { text, .. } if text.trim().is_empty() => return None,
            Data::Str { text, .. } => text.clone(),
            Data::Null | Data::Int(_) | Data::Float(_) | Data::List(_) | Data::Map(_) => return None,
        };
        if let Err(failure) = eval::check_condition(engine, &text) {
            let hint = text.contains("{{").then_some("write the expression without `{{ }}`");
            let what = "the condition does not parse";
            syntax::report(Rule::BadCondition, what, found.span, &failure, hint, &mut self.docs.sink);
        }
        Some(Condition { engine, source: text })
    }

    /// Warns of keys that do nothing where they stand.
    fn idle_keys(&mut self, node: &Node) {
        let has = |key: &str| node.entry(key).is_some();
        let is_final = node.text("type").is_some_and(|kind| &**kind == "final");
        let several = has("foreach") || node.get("machine").is_some_and(|n| n.as_list().is_some());
        let acts = ["agent", "machine", "foreach"].iter().any(|key| has(key));
        let mut idle: Vec<(&str, &str)> = Vec::new();
        if has("wait_for") {
            let body = ["action", "arguments", "launch", "machine", "foreach", "agent", "output"];
            idle.extend(body.iter().map(|key| (*key, "a state with `wait_for` only waits")));
        }
        for (key, works, why) in [
            ("as", has("foreach"), "it belongs to `foreach`"),
            ("key", has("foreach"), "it belongs to `foreach`"),
            ("mode", several, "it belongs to a list of machines or `foreach`"),
            ("execution", has("agent"), "it belongs to `agent`"),
            ("sampling", has("agent"), "it belongs to `agent`"),
            ("tool_loop", has("agent"), "it belongs to `agent`"),
            ("arguments", has("action"), "it belongs to `action`"),
            ("launch_input", has("launch"), "it belongs to `launch`"),
            ("input", acts, "it belongs to `agent` or `machine`; launches have `launch_input`"),
            ("output", is_final, "only a final state has an output; others use `output_to_context`"),
            ("transitions", !is_final, "a final state is the end"),
        ] {
            if !works {
                idle.push((key, why));
            }
        }
        for (key, why) in idle {
            if let Some(entry) = node.entry(key) {
                self.docs.sink.warn(Rule::NoEffect, entry.key_span, format!("`{key}` has no effect here"), why);
            }
        }
        for entry in pairs(node, "output_to_context").filter(|e| &*e.key == "machine") {
            let advice = "choose another name; `context.machine` holds the run's own data";
            self.docs.sink.warn(Rule::NoEffect, entry.key_span, "`context.machine` is overwritten", advice);
        }
    }
}

/// One mapping laid over another, key by key.
fn laid_over(base: &[(Name, Template)], own: Vec<(Name, Template)>) -> Vec<(Name, Template)> {
    let mut result = base.to_vec();
    for (key, value) in own {
        match result.iter_mut().find(|(known, _)| *known == key) {
            Some(pair) => pair.1 = value,
            None => result.push((key, value)),
        }
    }
    result
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
