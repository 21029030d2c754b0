//! Hook references: which implementation a name has, and the events it takes part in.

use std::sync::Arc;

use windlass_core::ids::Name;
use windlass_core::machine::{Hook, HookKind};
use windlass_core::value::{Map, Value};

use crate::diagnostics::{Rule, Span, suggest};
use crate::yaml::Node;

use super::Lowering;

/// Hooks that need no configuration and only watch.
const OBSERVERS: [&str; 2] = ["logging", "metrics"];
/// The hook whose address a document gives.
const WEBHOOK: &str = "webhook";
/// The hook of the format's work pools, which needs no configuration.
const WORK_POOLS: &str = "distributed-worker";
/// The events of a webhook that a document addresses. It provides no tools.
const WEBHOOK_EVENTS: [HookKind; 9] = [
    HookKind::MachineStart,
    HookKind::MachineEnd,
    HookKind::StateEnter,
    HookKind::StateExit,
    HookKind::Transition,
    HookKind::Error,
    HookKind::Action,
    HookKind::ToolCalls,
    HookKind::ToolResult,
];

impl Lowering<'_, '_> {
    /// The hooks of a reference: a name, a mapping, or a list of both.
    pub(super) fn hooks(&mut self, node: Option<&Arc<Node>>) -> Vec<Hook> {
        let Some(node) = node else { return Vec::new() };
        let single = [node.clone()];
        let references = node.as_list().unwrap_or(&single);
        references.iter().filter_map(|reference| self.hook(reference)).collect()
    }

    fn hook(&mut self, reference: &Arc<Node>) -> Option<Hook> {
        let (name, span, args) = match reference.as_str() {
            Some(name) => (name.clone(), reference.span, None),
            None => {
                let name = reference.get("name")?;
                (name.as_str()?.clone(), name.span, reference.get("args"))
            }
        };
        let args = args.map_or_else(Value::empty_map, |args| self.arguments(args));
        let events = self.events(&name, &args, span)?;
        Some(Hook { name, args, events })
    }

    /// The arguments of a hook, with a key replaced by its reference.
    fn arguments(&mut self, args: &Node) -> Value {
        self.docs.refuse_credentials(args);
        let entries = args.as_map().unwrap_or_default();
        let pairs: Map = entries
            .iter()
            .map(|entry| {
                let key = (&*entry.key == "api_key").then(|| self.docs.key(&entry.value)).flatten();
                (entry.key.clone(), key.map_or_else(|| entry.value.to_value(), Value::Str))
            })
            .collect();
        Value::map(pairs)
    }

    fn events(&mut self, name: &Name, args: &Value, span: Span) -> Option<Vec<HookKind>> {
        let configured = &self.around.hooks;
        if let Some(events) = configured.get(&**name) {
            return Some(events.clone());
        }
        if OBSERVERS.contains(&&**name) {
            return Some(Vec::new());
        }
        if &**name == WORK_POOLS {
            return Some(vec![HookKind::Action]);
        }
        let addressed = ["url", "endpoint"].iter().any(|key| args.get(key).is_some_and(|v| v.as_str().is_some()));
        if &**name == WEBHOOK && addressed {
            return Some(WEBHOOK_EVENTS.to_vec());
        }
        if let Some(events) = configured.get("*") {
            return Some(events.clone());
        }
        let advice = match &**name {
            WEBHOOK => "give its address as `args: {url: ...}`".to_owned(),
            _ => {
                let known = configured.keys().map(String::as_str).chain(OBSERVERS).chain([WEBHOOK, WORK_POOLS]);
                let near = suggest(name, known).filter(|s| s.starts_with("did"));
                let configure = format!("configure `[hooks.{name}]` or `[hooks.\"*\"]` in `windlass.toml`");
                near.map_or(configure.clone(), |near| format!("{near} Otherwise {configure}"))
            }
        };
        self.docs.sink.error(Rule::UnknownHook, span, format!("the hook `{name}` is not configured"), advice);
        None
    }
}
