//! Skills of a machine: which pack each use means, what it may call, and what it brings to agents and states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use windlass_core::contract::{Class, Contract};
use windlass_core::ids::{Digest, Name};
use windlass_core::machine::{Agent, ChildContract, State};
use windlass_core::skill::{Skill, Skills};
use windlass_core::value::Value;

use super::model::Catalog;
use super::settings::Tools;
use super::{Lowering, pairs, settings, texts};
use crate::diagnostics::{Rule, Sink, Span, suggest};
use crate::features::MACHINE;
use crate::skill::{PACKS_MAX, Pack, Wanted, pack_of};
use crate::source::folder_of;
use crate::yaml::{Entry, Node};

/// What the skills of a machine bring to it.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) skills: Skills,
    /// Child machines: their names and their keys.
    pub(super) machines: BTreeMap<Name, Name>,
    pub(super) contracts: BTreeMap<Name, ChildContract>,
}

/// A machine whose uses of skills are lowered.
pub(super) struct User<'a> {
    pub(super) key: &'a Name,
    pub(super) data: &'a Node,
    pub(super) catalog: Option<&'a Arc<Catalog>>,
    /// What its agents' documents name.
    pub(super) by_agents: Vec<(Name, Vec<(Name, Span)>)>,
}

/// The texts under `metadata.skills` of an agent document.
pub(super) fn of_document(root: &Node, sink: &mut Sink) -> Vec<(Name, Span)> {
    let Some(entry) = root.get("metadata").and_then(|metadata| metadata.entry("skills")) else { return Vec::new() };
    let is_texts = entry.value.as_list().is_some_and(|items| items.iter().all(|item| item.as_str().is_some()));
    if !is_texts {
        let advice = "write a list, such as `skills: [refunds@^1]`";
        sink.error(Rule::WrongType, entry.value.span, "`skills` is a list of `NAME@VERSION`", advice);
    }
    texts(Some(&entry.value))
}

impl Lowering<'_, '_> {
    /// Everything that the skills of a machine bring to it.
    pub(super) fn skills(&mut self, user: User<'_>) -> Brought {
        let node = user.data.get("settings").and_then(|settings| settings.get("skills")).cloned();
        let node = node.as_deref();
        let writes: BTreeSet<Name> =
            texts(node.and_then(|n| n.get("writes"))).into_iter().map(|(name, _)| name).collect();
        let mut brought = Brought::default();
        brought.skills.own = self.own_pack(user.key).map(|pack| pack.reference());
        let named = node.map(|n| pairs(n, "agents").cloned().collect::<Vec<Entry>>()).unwrap_or_default();
        let agents: BTreeSet<Name> = pairs(user.data, "agents").map(|entry| entry.key.clone()).collect();
        for entry in &named {
            if !agents.contains(&entry.key) {
                let advice = suggest(&entry.key, agents.iter().map(|name| &**name));
                let message = format!("the agent `{}` does not exist", entry.key);
                self.docs.sink.error(Rule::UnknownAgent, entry.key_span, message, advice);
            }
        }
        let of_machine = named.iter().map(|entry| (entry.key.clone(), texts(Some(&entry.value))));
        for (agent, wanted) in user.by_agents.iter().cloned().chain(of_machine) {
            for (text, span) in wanted {
                let Some(name) = self.used(&user, &mut brought, &writes, (&text, span)) else { continue };
                let listed = brought.skills.agents.entry(agent.clone()).or_default();
                if !listed.contains(&name) {
                    listed.push(name);
                }
            }
        }
        for (text, span) in texts(node.and_then(|n| n.get("search"))) {
            if let Some(name) = self.used(&user, &mut brought, &writes, (&text, span)) {
                brought.skills.searched.push(name);
            }
        }
        for entry in node.map(|n| pairs(n, "machines").cloned().collect::<Vec<Entry>>()).unwrap_or_default() {
            self.child_skill(&user, &mut brought, &writes, &entry);
        }
        brought
    }

    /// A skill whose machine states start by a name.
    fn child_skill(&mut self, user: &User<'_>, brought: &mut Brought, writes: &BTreeSet<Name>, entry: &Entry) {
        let Some(text) = entry.value.as_str().cloned() else { return };
        if pairs(user.data, "machines").any(|other| other.key == entry.key) {
            let message = format!("`{}` is a machine of this document already", entry.key);
            self.docs.sink.error(Rule::DuplicateName, entry.key_span, message, "give the skill another name here");
            return;
        }
        let span = entry.value.span;
        let Some(name) = self.used(user, brought, writes, (&text, span)) else { return };
        let own = brought.skills.known.get(&name).and_then(|skill| skill.machine.clone());
        let Some(own) = own else {
            let message = format!("the skill `{name}` has no machine that a state can start");
            self.docs.sink.error(Rule::UnknownMachine, span, message, "name it under `agents` instead");
            return;
        };
        if let (Some(key), Some(contract)) = (brought.machines.get(&own).cloned(), brought.contracts.get(&own).cloned())
        {
            brought.machines.insert(entry.key.clone(), key);
            brought.contracts.insert(entry.key.clone(), contract);
            brought.skills.machines.insert(entry.key.clone(), name);
        }
    }

    /// The skill that a use means, made known to its machine. Reported when it cannot be used.
    fn used(
        &mut self,
        user: &User<'_>,
        brought: &mut Brought,
        writes: &BTreeSet<Name>,
        (text, span): (&str, Span),
    ) -> Option<Name> {
        let pack = self.pack(user.key, text, span)?;
        match brought.skills.known.get(&pack.name) {
            Some(known) if *known.reference.version != *pack.version.to_string() => {
                let message = format!(
                    "`{}` is used in two versions, {} and {}",
                    pack.name, known.reference.version, pack.version
                );
                self.docs.sink.error(Rule::DuplicateName, span, message, "use one version of a skill in a machine");
                return None;
            }
            Some(_) => return Some(pack.name.clone()),
            None => {}
        }
        if self.around.tools.contains_key(&pack.name) {
            let message = format!("there is a tool or action `{}` as well", pack.name);
            self.docs.sink.error(Rule::DuplicateName, span, message, "a model could not tell them apart; rename one");
        }
        let class = self.granted(user.key, &pack, writes, span);
        let mut machine = None;
        if let Some(file) = &pack.machine {
            let child: Name = format!("skill:{}", pack.name).into();
            let path = pack.path(file);
            if let Some(root) = self.docs.document(&path, span)
                && self.is_kind(&root, "flatmachine")
            {
                self.check_once(&path, &root, &MACHINE);
                let key: Name = path.as_str().into();
                self.meet(key.clone(), root, folder_of(&path).to_owned(), user.catalog.cloned(), span);
                brought.machines.insert(child.clone(), key);
                brought.contracts.insert(child.clone(), pack.contract.clone());
                brought.skills.machines.insert(child.clone(), pack.name.clone());
                machine = Some(child);
            }
        }
        let skill = Skill {
            reference: pack.reference(),
            prompt: pack.prompt.clone(),
            tools: pack.tools.clone(),
            machine,
            contract: Arc::new(pack.as_tool(class)),
        };
        brought.skills.known.insert(pack.name.clone(), skill);
        Some(pack.name.clone())
    }

    /// The pack that a use means: the highest version that fits.
    fn pack(&mut self, user: &Name, text: &str, span: Span) -> Option<Arc<Pack>> {
        let wanted = match Wanted::parse(text) {
            Ok(wanted) => wanted,
            Err(why) => {
                let message = format!("`{text}` names no version of a skill: {why}");
                self.docs.sink.error(
                    Rule::WrongValue,
                    span,
                    message,
                    "write it as `NAME@VERSION`, such as `refunds@^1`",
                );
                return None;
            }
        };
        self.skill_names.insert(wanted.name.to_string());
        let known: Vec<&Arc<Pack>> = self.around.packs.iter().filter(|pack| pack.name == wanted.name).collect();
        let fitting = || known.iter().filter(|pack| wanted.requirement.matches(&pack.version));
        let Some(best) = fitting().max_by(|a, b| a.version.cmp(&b.version)).map(|pack| Arc::clone(pack)) else {
            self.unknown_skill(&wanted, &known.iter().map(|pack| pack.version.to_string()).collect::<Vec<_>>(), span);
            return None;
        };
        if fitting().any(|pack| pack.version == best.version && pack.digest != best.digest) {
            let message = format!("there are two packs of `{}` with different contents", best.id());
            let advice = "a version never changes: give what was changed a new version in its `skill.yml`";
            self.docs.sink.error(Rule::ChangedSkill, span, message, advice);
            return None;
        }
        if wanted.digest.is_some_and(|pinned| pinned != best.digest) {
            let message =
                format!("`{}` has not the content that is pinned here: its digest is {}", best.id(), best.digest);
            let advice = "look at what was changed, then pin the new digest; `windlass skills show` prints it";
            self.docs.sink.error(Rule::ChangedSkill, span, message, advice);
            return None;
        }
        if self.packs.len() >= PACKS_MAX && !self.packs.contains_key(&best.id()) {
            let message = format!("a machine and all that it can start use at most {PACKS_MAX} skills");
            self.docs.sink.error(Rule::TooLarge, span, message, ());
            return None;
        }
        if let Some(outer) = self.outer_pack(user) {
            self.skill_uses.entry((outer.name.clone(), best.name.clone())).or_insert(span);
        }
        self.packs.insert(best.id(), Arc::clone(&best));
        Some(best)
    }

    fn unknown_skill(&mut self, wanted: &Wanted, versions: &[String], span: Span) {
        let Wanted { name, requirement, .. } = wanted;
        if versions.is_empty() {
            let near = suggest(name, self.around.packs.iter().map(|pack| &*pack.name)).filter(|s| s.starts_with("did"));
            let advice = near.unwrap_or_else(|| {
                "name its folder in `[skills] paths` of `windlass.toml`, or register it with `windlass skills add`"
                    .into()
            });
            self.docs.sink.error(Rule::UnknownSkill, span, format!("there is no skill `{name}`"), advice);
            return;
        }
        let message = format!("no version of the skill `{name}` fits `{requirement}`");
        self.docs.sink.error(Rule::UnknownSkill, span, message, format!("there is {}", versions.join(", ")));
    }

    /// What the tools of a skill do at worst. Each has to be configured, and allowed where it is used.
    fn granted(&mut self, user: &Name, pack: &Pack, writes: &BTreeSet<Name>, span: Span) -> Class {
        let outer = self.outer_pack(user).cloned();
        let mut class = Class::Read;
        for tool in &pack.tools {
            let Some(contract) = self.around.tools.get(tool).cloned() else {
                let message = format!("the skill `{}` wants the tool `{tool}`, which is not configured", pack.id());
                let advice = "configure it in `windlass.toml` under `[tools]` or `[actions]`";
                self.docs.sink.error(Rule::SkillTool, span, message, advice);
                continue;
            };
            class = class.max(contract.class);
            if contract.class != Class::Read && !writes.contains(tool) {
                let word = contract.class.as_str();
                let message = format!("the skill `{}` wants the tool `{tool}` of class `{word}`", pack.id());
                let advice = format!("write `writes: [{tool}]` in `settings.skills` where it may have it");
                self.docs.sink.error(Rule::SkillTool, span, message, advice);
            }
            if let Some(outer) = outer.as_ref().filter(|outer| !outer.tools.contains(tool)) {
                let message =
                    format!("the skill `{}` wants the tool `{tool}`, which `{}` may not call", pack.id(), outer.id());
                let advice = format!("add `{tool}` to `tools` of `{}`", outer.name);
                self.docs.sink.error(Rule::SkillTool, span, message, advice);
            }
        }
        class
    }

    /// The pack that a machine document is in.
    fn outer_pack(&self, key: &str) -> Option<&Arc<Pack>> {
        let pack = pack_of(key)?;
        self.packs.values().find(|known| format!("skill:{}", known.id()) == pack)
    }

    /// The pack that a machine is the machine of.
    fn own_pack(&self, key: &str) -> Option<&Arc<Pack>> {
        self.outer_pack(key).filter(|pack| pack.machine.as_ref().is_some_and(|file| pack.path(file) == key))
    }

    /// The tools and actions of a machine in a pack are those that its skill lists.
    pub(super) fn within_pack(&mut self, key: &Name, data: &Node, tools: &mut Tools) {
        let Some(pack) = self.outer_pack(key).cloned() else { return };
        tools.searched.retain(|tool| pack.tools.contains(tool));
        let named = texts(data.get("settings").and_then(|settings| settings.get("tools")));
        let named = named.into_iter().filter(|(name, _)| !name.ends_with('*'));
        let actions = pairs(data, "states").filter_map(|state| state.value.get("action"));
        let actions = actions.filter_map(|node| node.as_str().map(|name| (name.clone(), node.span)));
        let used: Vec<(Name, Span)> =
            named.chain(actions.filter(|(name, _)| self.around.tools.contains_key(name))).collect();
        for (tool, span) in used.into_iter().filter(|(tool, _)| !pack.tools.contains(tool)) {
            let message = format!("the skill `{}` does not list the tool `{tool}`", pack.id());
            self.docs.sink.error(Rule::SkillTool, span, message, "add it to `tools` of its `skill.yml`");
        }
    }

    /// The schemas of a skill's machine, which `skill.yml` gives.
    pub(super) fn pack_schemas(&mut self, key: &Name, data: &Node) -> Option<(Option<Value>, Option<Value>)> {
        let pack = self.own_pack(key).cloned()?;
        let around = data.get("settings");
        for (name, of_pack) in [("input_schema", &pack.input_schema), ("output_schema", &pack.output_schema)] {
            if let Some(entry) = around.and_then(|n| n.entry(name)).filter(|entry| entry.value.to_value() != *of_pack) {
                let message = format!("`{name}` differs from that of `skill.yml`");
                self.docs.sink.error(Rule::WrongValue, entry.key_span, message, "leave it out here");
            }
        }
        let given = |schema: &Value| Some(schema.clone()).filter(|schema| !schema.is_null());
        Some((given(&pack.input_schema), given(&pack.output_schema)))
    }

    /// What skills bring to agents has to be allowed in the tool loops of their states.
    pub(super) fn check_loops(&mut self, data: &Node, states: &IndexMap<Name, State>, skills: &Skills) {
        for (name, state) in states {
            let Some(call) = &state.agent else { continue };
            let Some(entry) = pairs(data, "states").find(|entry| entry.key == *name) else { continue };
            for skill in skills.of_agent(&call.agent) {
                let brings = match &skill.machine {
                    Some(_) => std::slice::from_ref(&skill.reference.name),
                    None => &skill.tools,
                };
                let Some(config) = &call.tool_loop else {
                    if !brings.is_empty() {
                        let message = format!(
                            "the state `{name}` has no tool loop: `{}` brings only its text",
                            skill.reference.name
                        );
                        self.docs.sink.warn(Rule::NoEffect, entry.key_span, message, "add `tool_loop: true`");
                    }
                    continue;
                };
                let open = |tool: &Name| config.allowed_tools.is_empty() || config.allowed_tools.contains(tool);
                for tool in brings.iter().filter(|tool| !open(tool) || config.denied_tools.contains(*tool)) {
                    let span = entry.value.entry("tool_loop").map_or(entry.key_span, |entry| entry.key_span);
                    let message =
                        format!("the skill `{}` wants `{tool}`, which this loop does not allow", skill.reference.name);
                    let advice = "allow it, or take the skill from the agent";
                    self.docs.sink.error(Rule::SkillTool, span, message, advice);
                }
            }
        }
    }

    /// Skills that use each other in a circle are refused.
    pub(super) fn check_skill_cycles(&mut self) {
        for ((from, to), span) in self.skill_uses.clone() {
            let (mut seen, mut open) = (BTreeSet::new(), vec![to.clone()]);
            while let Some(name) = open.pop() {
                if seen.insert(name.clone()) {
                    open.extend(self.skill_uses.keys().filter(|(user, _)| *user == name).map(|(_, used)| used.clone()));
                }
            }
            if seen.contains(&from) {
                let message = format!("the skill `{from}` uses itself through `{to}`");
                self.docs.sink.error(Rule::SkillCycle, span, message, "take one of the uses away");
            }
        }
    }
}

/// The names of child machines that are skills, those that cannot be used included.
pub(super) fn named_machines(data: &Node) -> impl Iterator<Item = Name> {
    let node = data.get("settings").and_then(|settings| settings.get("skills"));
    node.into_iter().flat_map(|node| pairs(node, "machines").map(|entry| entry.key.clone()))
}

/// An agent's hash covers what its skills say.
pub(super) fn hashed(agents: BTreeMap<Name, Agent>, skills: &Skills) -> BTreeMap<Name, Arc<Agent>> {
    let hash = |agent: Agent| {
        let mut parts = vec![Value::str(agent.hash.to_string())];
        parts.extend(skills.of_agent(&agent.name).map(|skill| Value::str(skill.reference.digest.to_string())));
        let hash: Digest = if parts.len() > 1 { Value::list(parts).digest() } else { agent.hash };
        Arc::new(Agent { hash, ..agent })
    };
    agents.into_iter().map(|(name, agent)| (name, hash(agent))).collect()
}

/// A schema of a skill.
pub(crate) fn pack_schema(root: &Arc<Node>, key: &str, sink: &mut Sink) -> Value {
    settings::schema(Some(root), key, sink).unwrap_or_default()
}

/// What the `contract` of a skill says.
pub(crate) fn pack_contract(root: &Node, sink: &mut Sink) -> ChildContract {
    let Some(node) = root.get("contract") else { return ChildContract::default() };
    for key in ["tools", "declassified"] {
        if let Some(entry) = node.entry(key) {
            let message = format!("`{key}` is no part of a skill's contract");
            let advice = if key == "tools" { "write `tools` beside `contract`" } else { "remove it" };
            sink.error(Rule::WrongValue, entry.key_span, message, advice);
        }
    }
    settings::contract::<Contract>(node, &BTreeMap::new(), sink)
}
