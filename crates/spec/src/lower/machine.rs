//! One machine document: its states, agents and children.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use windlass_core::ids::{Digest, Name};
use windlass_core::machine::{Agent, ChildContract, Engine, Machine, State, Template};
use windlass_core::select::Indexed;
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Span};
use crate::features::{MACHINE, MACHINE_RUNTIME};
use crate::source::folder_of;
use crate::yaml::{Entry, Node};

use super::model::Catalog;
use super::skills::{self, User};
use super::state::Names;
use super::{Lowering, Waiting, graph, handoff, pairs, settings, template};

/// The version taken for a document that names none.
const VERSION_DEFAULT: &str = "4.2.1";
/// The name of a machine that has none.
const NAME_DEFAULT: &str = "unnamed-machine";

impl Lowering<'_, '_> {
    /// Lowers one machine and puts its children on the list.
    pub(super) fn machine(&mut self, waiting: Waiting) -> Option<Machine> {
        let Waiting { key, root, folder, catalog } = waiting;
        let data = root.get("data").filter(|d| d.as_map().is_some())?.clone();
        let spec_version = self.version(&root);
        let is_cel = data.text("expression_engine").is_some_and(|word| &**word == "cel");
        let engine = if is_cel { Engine::Cel } else { Engine::Simple };
        let legacy_hooks = self.legacy_hooks(&data);
        let agents = self.agents(&data, &folder, catalog.as_ref());
        let mut machines = self.children(&key, &data, &folder, catalog.as_ref());
        let by_agents = std::mem::take(&mut self.agent_skills);
        let brought = self.skills(User { key: &key, data: &data, catalog: catalog.as_ref(), by_agents });
        machines.extend(brought.machines);
        self.note_declassified(&key, &data);
        let mut lifecycle = self.hooks(data.get("lifecycle_hooks"));
        if data.get("lifecycle_hooks").is_none() {
            lifecycle.clone_from(&legacy_hooks);
        }
        let tables = self.tables(&data, &folder);
        let names = Names {
            tables,
            key: key.clone(),
            engine,
            states: pairs(&data, "states").map(|e| e.key.clone()).collect(),
            agents: pairs(&data, "agents").map(|e| e.key.clone()).collect(),
            machines: machines.clone(),
            listed: pairs(&data, "machines").map(|e| e.key.clone()).chain(skills::named_machines(&data)).collect(),
            hooks: legacy_hooks,
        };
        let states = self.states(&data, &names);
        let initial = self.initial(&data, &states)?;
        self.check_asked(&names.tables, states.values());
        let around = data.get("settings");
        let conversation = settings::conversation(around, &states, &mut self.docs.sink);
        let ways_in = [&initial].into_iter().chain(&conversation.on_near);
        self.check_loops(&data, &states, &brought.skills);
        let (input_schema, output_schema) = self.schemas(&key, &data);
        graph::check_reach(&data, &states, ways_in, &lifecycle, &mut self.docs.sink);
        let mut tools = settings::tools(around, &self.around.tools, &mut self.docs.sink);
        self.within_pack(&key, &data, &mut tools);
        let sink = &mut self.docs.sink;
        settings::persistence(&data, sink);
        let mut child_contracts = contracts(&data, &self.around.tools, sink);
        child_contracts.extend(brought.contracts);
        handoff::check(&data, &child_contracts, sink);
        Some(Machine {
            key,
            name: data.text("name").cloned().unwrap_or_else(|| NAME_DEFAULT.into()),
            spec_version,
            bundle: Digest::ZERO,
            engine,
            context: context(&data, sink),
            placement: settings::placement(around, &states, sink),
            provenance: settings::provenance(around, sink),
            conversation,
            near_percent: settings::near_percent(around, sink),
            states,
            initial,
            agents: skills::hashed(agents, &brought.skills),
            machines,
            tools: self.around.tools.clone(),
            offered_tools: tools.offered,
            searched_tools: tools.searched,
            lifecycle,
            ceilings: settings::ceilings(around, sink),
            tables: names.tables.by_name,
            input_schema,
            output_schema,
            child_contracts,
            skills: brought.skills,
            tool_index: Indexed::default(),
        })
    }

    /// The version that a document is written for.
    fn version(&mut self, root: &Node) -> Name {
        let named = root.get("spec_version").and_then(|v| v.scalar_text());
        if named.is_none() && root.entry("spec").is_some() {
            let span = root.span;
            let first_line = Span { end_line: span.line, end_column: span.column + 1, ..span };
            let advice = format!("add `spec_version: \"{VERSION_DEFAULT}\"`");
            self.docs.sink.warn(Rule::MissingKey, first_line, "the document names no version", advice);
        }
        named.unwrap_or_else(|| VERSION_DEFAULT.into())
    }

    /// The schemas of the machine's input and output.
    fn schemas(&mut self, key: &Name, data: &Node) -> (Option<Value>, Option<Value>) {
        if let Some(given) = self.pack_schemas(key, data) {
            return given;
        }
        let (around, sink) = (data.get("settings"), &mut self.docs.sink);
        (settings::schema(around, "input_schema", sink), settings::schema(around, "output_schema", sink))
    }

    /// `data.hooks` of documents until 2.x.
    fn legacy_hooks(&mut self, data: &Node) -> Vec<windlass_core::machine::Hook> {
        let Some(entry) = data.entry("hooks").cloned() else { return Vec::new() };
        let message = "`hooks` of a machine belongs to versions until 2.x of the format";
        let advice = "use `lifecycle_hooks`, and `hooks` in the states that need them";
        self.docs.sink.warn(Rule::Compatibility, entry.key_span, message, advice);
        self.hooks(Some(&entry.value))
    }

    fn agents(&mut self, data: &Node, folder: &str, catalog: Option<&Arc<Catalog>>) -> BTreeMap<Name, Agent> {
        pairs(data, "agents")
            .filter_map(|entry| self.agent(entry, folder, catalog).map(|agent| (entry.key.clone(), agent)))
            .collect()
    }

    /// The child machines: their names here and their keys.
    fn children(
        &mut self,
        parent: &Name,
        data: &Node,
        folder: &str,
        catalog: Option<&Arc<Catalog>>,
    ) -> BTreeMap<Name, Name> {
        let mut children = BTreeMap::new();
        let used: BTreeSet<Name> = started(data).into_iter().collect();
        for entry in pairs(data, "machines") {
            if let Some(key) = self.child(parent, entry, folder, catalog, used.contains(&entry.key)) {
                children.insert(entry.key.clone(), key);
            }
        }
        children
    }

    fn child(
        &mut self,
        parent: &Name,
        entry: &Entry,
        folder: &str,
        catalog: Option<&Arc<Catalog>>,
        used: bool,
    ) -> Option<Name> {
        let node = &entry.value;
        let path =
            node.as_str().cloned().or_else(|| node.text("path").filter(|_| node.entry("spec").is_none()).cloned());
        let Some(reference) = path else {
            let inline = if node.entry("spec").is_some() { node } else { node.get("inline")? };
            if !self.is_kind(inline, "flatmachine") {
                return None;
            }
            let key: Name = format!("{parent}#{}", entry.key).into();
            self.meet(key.clone(), inline.clone(), folder.to_owned(), catalog.cloned(), node.span);
            return Some(key);
        };
        let path = self.docs.path(folder, &reference, node.span)?;
        if !used && self.docs.optional(&path).is_none() {
            let message = format!("the file `{path}` cannot be read, but no state starts `{}`", entry.key);
            self.docs.sink.warn(Rule::FileMissing, node.span, message, "remove the entry");
            return None;
        }
        let root = self.docs.document(&path, node.span)?;
        if !self.is_kind(&root, "flatmachine") {
            return None;
        }
        self.check_once(&path, &root, &MACHINE);
        let key: Name = path.as_str().into();
        self.meet(key.clone(), root, folder_of(&path).to_owned(), catalog.cloned(), node.span);
        Some(key)
    }

    fn states(&mut self, data: &Node, names: &Names) -> IndexMap<Name, State> {
        pairs(data, "states")
            .filter_map(|entry| self.state(entry, names).map(|state| (entry.key.clone(), state)))
            .collect()
    }

    /// The initial state: the one marked, else `start`, else the first.
    fn initial(&mut self, data: &Node, states: &IndexMap<Name, State>) -> Option<Name> {
        if states.is_empty() {
            if let Some(entry) = data.entry("states").filter(|e| e.value.as_map().is_some_and(<[Entry]>::is_empty)) {
                let advice = "add at least one state, with `type: final` to end in";
                self.docs.sink.error(Rule::NoStates, entry.key_span, "the machine has no states", advice);
            }
            return None;
        }
        let mut marked =
            pairs(data, "states").filter(|e| e.value.text("type").is_some_and(|kind| &**kind == "initial"));
        let first = marked.next();
        for other in marked {
            let span = other.value.entry("type").map_or(other.key_span, |e| e.value.span);
            let message = format!("`{}` is a second initial state", other.key);
            let advice = first.map(|f| format!("`{}` is initial already; remove `type: initial` from one", f.key));
            self.docs.sink.error(Rule::TwoInitial, span, message, advice);
        }
        first
            .map(|entry| entry.key.clone())
            .or_else(|| states.contains_key("start").then(|| "start".into()))
            .or_else(|| states.keys().next().cloned())
    }
}

/// The contracts of the child machines, by their names here.
fn contracts<T>(
    data: &Node,
    known: &BTreeMap<Name, T>,
    sink: &mut crate::diagnostics::Sink,
) -> BTreeMap<Name, ChildContract> {
    pairs(data, "machines")
        .filter_map(|entry| Some((entry.key.clone(), settings::contract(entry.value.get("contract")?, known, sink))))
        .collect()
}

/// The initial context, without what the runtime provides.
fn context(data: &Node, sink: &mut crate::diagnostics::Sink) -> Vec<(Name, Template)> {
    let mut context = Vec::new();
    for entry in pairs(data, "context") {
        if &*entry.key == "machine" {
            let advice = "rename it; `context.machine` holds the run's own data";
            sink.warn(Rule::NoEffect, entry.key_span, "`context.machine` is overwritten at run time", advice);
            if entry.value.as_map().is_some() {
                crate::check::section(&entry.value, &MACHINE_RUNTIME, sink);
            }
            continue;
        }
        context.push((entry.key.clone(), template::value(&entry.value, sink)));
    }
    context
}

/// The names of machines that some state starts.
fn started(data: &Node) -> Vec<Name> {
    let mut names = Vec::new();
    for state in pairs(data, "states") {
        for key in ["machine", "launch"] {
            let Some(node) = state.value.get(key) else { continue };
            let single = [node.clone()];
            for item in node.as_list().unwrap_or(&single) {
                names.extend(item.as_str().or_else(|| item.text("name")).cloned());
            }
        }
    }
    names
}
