//! From checked trees to a [`Program`](windlass_core::machine::Program)'s machines, with every name resolved.
//!
//! This file walks from the entry machine to its children; its parts lower states, agents, models and hooks.

mod agent;
mod declassify;
mod execution;
mod graph;
mod handoff;
mod hooks;
mod machine;
mod model;
mod output;
mod settings;
mod skills;
mod state;
mod table;
mod template;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use windlass_core::contract::Contract;
use windlass_core::ids::Name;
use windlass_core::machine::{HookKind, Machine};

use crate::check;
use crate::compile::ModelNames;
use crate::diagnostics::{Rule, Span};
use crate::documents::Documents;
use crate::features::{MACHINE, Section};
use crate::skill::Pack;
use crate::source::folder_of;
use crate::yaml::{Data, Entry, Node};

use model::Catalog;

pub(crate) use skills::{pack_contract, pack_schema};

/// What documents may refer to outside of themselves.
pub(crate) struct Surroundings {
    /// Configured hooks with their events; `*` catches the rest.
    pub(crate) hooks: BTreeMap<String, Vec<HookKind>>,
    /// Configured tools and actions.
    pub(crate) tools: BTreeMap<Name, Arc<Contract>>,
    /// What the model catalog has; none to leave its names unchecked.
    pub(crate) models: Option<ModelNames>,
    /// The packs of skills that may be meant.
    pub(crate) packs: Vec<Arc<Pack>>,
}

/// Every machine that the entry can start.
pub(crate) struct Lowered {
    pub(crate) machines: BTreeMap<Name, Machine>,
    /// Whether the entry machine asks for warnings to be errors.
    pub(crate) strict: bool,
    /// Parts that are declassified and that no schema bounds. A run that began with them goes on: they keep their labels.
    pub(crate) unbounded: Vec<declassify::Unbounded>,
    /// The packs that are used, by their ids.
    pub(crate) packs: BTreeMap<String, Arc<Pack>>,
    /// The names of all skills that were met, known or not.
    pub(crate) skill_names: BTreeSet<String>,
}

/// A machine that waits to be lowered.
struct Waiting {
    key: Name,
    root: Arc<Node>,
    folder: String,
    catalog: Option<Arc<Catalog>>,
}

pub(crate) struct Lowering<'d, 'f> {
    docs: &'d mut Documents<'f>,
    around: &'d Surroundings,
    waiting: VecDeque<Waiting>,
    /// Every machine met so far, with the catalog it was met with.
    met: BTreeMap<Name, Option<String>>,
    catalogs: BTreeMap<String, Option<Arc<Catalog>>>,
    /// Whether a catalog was found that cannot be used; what is missing for it is not reported again.
    catalog_broken: bool,
    checked: BTreeSet<String>,
    /// Where each machine starts each other one, for diagnostics.
    starts: BTreeMap<(Name, Name), Span>,
    declassified: Vec<declassify::Declassified>,
    packs: BTreeMap<String, Arc<Pack>>,
    skill_names: BTreeSet<String>,
    /// Where each skill uses each other one.
    skill_uses: BTreeMap<(Name, Name), Span>,
    /// What agents' documents name of skills, of the machine that is lowered.
    agent_skills: Vec<(Name, Vec<(Name, Span)>)>,
}

/// Lowers the machine at `entry` and everything it can start.
pub(crate) fn lower(docs: &mut Documents<'_>, entry: &str, around: &Surroundings) -> Lowered {
    let mut lowering = Lowering {
        docs,
        around,
        waiting: VecDeque::new(),
        met: BTreeMap::new(),
        catalogs: BTreeMap::new(),
        catalog_broken: false,
        checked: BTreeSet::new(),
        starts: BTreeMap::new(),
        declassified: Vec::new(),
        packs: BTreeMap::new(),
        skill_names: BTreeSet::new(),
        skill_uses: BTreeMap::new(),
        agent_skills: Vec::new(),
    };
    let mut machines = BTreeMap::new();
    let mut strict = false;
    // No document refers to the entry.
    let start = Span { file: u32::MAX, line: 1, column: 1, end_line: 1, end_column: 1 };
    if let Some(root) = lowering.docs.document(entry, start)
        && lowering.is_kind(&root, "flatmachine")
    {
        lowering.check_once(entry, &root, &MACHINE);
        strict = settings::is_strict(&root);
        lowering.meet(entry.into(), root, folder_of(entry).to_owned(), None, start);
    }
    while let Some(waiting) = lowering.waiting.pop_front() {
        let key = waiting.key.clone();
        if let Some(machine) = lowering.machine(waiting) {
            machines.insert(key, machine);
        }
    }
    lowering.check_skill_cycles();
    if lowering.docs.sink.errors() == 0 {
        graph::check_cycles(&machines, &lowering.starts, &mut lowering.docs.sink);
    }
    let unbounded = declassify::settle(&mut machines, lowering.declassified);
    let Lowering { packs, skill_names, .. } = lowering;
    Lowered { machines, strict, unbounded, packs, skill_names }
}

impl Lowering<'_, '_> {
    /// Puts a machine on the list, unless it is there.
    fn meet(&mut self, key: Name, root: Arc<Node>, folder: String, inherited: Option<Arc<Catalog>>, span: Span) {
        let catalog = self.catalog_of(&folder, &root).or(inherited);
        let path = catalog.as_ref().map(|c| c.path.clone());
        match self.met.get(&key) {
            None => {
                self.met.insert(key.clone(), path);
                self.waiting.push_back(Waiting { key, root, folder, catalog });
            }
            Some(known) if *known != path => {
                let message = format!("`{key}` would use the profiles of two different folders");
                let advice = "put a `profiles.yml` into its own folder";
                self.docs.sink.error(Rule::UnknownProfile, span, message, advice);
            }
            Some(_) => {}
        }
    }

    /// Whether a document is of the expected kind; if it says that it is another one, that is reported.
    fn is_kind(&mut self, root: &Node, wanted: &str) -> bool {
        match root.entry("spec") {
            Some(entry) if entry.value.as_str().is_some_and(|spec| **spec != *wanted) => {
                let found = entry.value.as_str().cloned().unwrap_or_default();
                let message = format!("this is a `{found}` document; a `{wanted}` document is expected here");
                let advice = match &*found {
                    "flatagents-runtime" => Some("how a runtime is wired is configuration, not a document".to_owned()),
                    found => crate::diagnostics::suggest(found, [wanted]).filter(|s| s.starts_with("did")),
                };
                self.docs.sink.error(Rule::WrongKind, entry.value.span, message, advice);
                false
            }
            _ => true,
        }
    }

    /// Checks a file against its section, the first time it is used.
    fn check_once(&mut self, path: &str, root: &Node, section: &'static Section) {
        if self.checked.insert(format!("{path}#{}", section.name)) {
            check::section(root, section, &mut self.docs.sink);
        }
    }
}

/// The texts of a list, with their places.
fn texts(node: Option<&Arc<Node>>) -> Vec<(Name, Span)> {
    node.and_then(|n| n.as_list())
        .unwrap_or_default()
        .iter()
        .filter_map(|item| item.as_str().map(|text| (text.clone(), item.span)))
        .collect()
}

/// The pairs of the mapping under `key`, without those that are null.
fn pairs<'n>(node: &'n Node, key: &str) -> impl Iterator<Item = &'n Entry> {
    node.get(key).and_then(|n| n.as_map()).unwrap_or_default().iter()
}

/// `over` laid over `base`: mappings under the same key are joined one level deep, everything else is replaced.
fn overlaid(base: &Node, over: &Node) -> Node {
    let Some(entries) = base.as_map() else { return over.clone() };
    let mut result = entries.to_vec();
    for entry in over.as_map().unwrap_or_default() {
        match result.iter_mut().find(|e| e.key == entry.key) {
            Some(known) => {
                let joined = match (&known.value.data, &entry.value.data) {
                    (Data::Map(below), Data::Map(above)) => {
                        let mut pairs = below.clone();
                        for pair in above {
                            match pairs.iter_mut().find(|p| p.key == pair.key) {
                                Some(p) => *p = pair.clone(),
                                None => pairs.push(pair.clone()),
                            }
                        }
                        Arc::new(Node::new(entry.value.span, Data::Map(pairs)))
                    }
                    _ => entry.value.clone(),
                };
                *known = Entry { value: joined, ..entry.clone() };
            }
            None => result.push(entry.clone()),
        }
    }
    Node::new(over.span, Data::Map(result))
}
