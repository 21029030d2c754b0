//! What is asked, as rules see it: who, which action, on what, and where.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::ids::Name;
use windlass_core::label::LabelSet;
use windlass_core::machine::Machine;
use windlass_core::policy::Question;
use windlass_core::run::TenantScope;
use windlass_core::value::Value;

use crate::arguments::{Arguments, Declared};
use crate::entities::{Record, Registry, Uid, escaped};
use crate::trust::Scores;

/// Under which rules see the arguments of a call.
pub(crate) const ARGS: &str = "args";

/// For whom, by which agent and from where something is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Subject {
    /// The tenant.
    pub tenant: String,
    /// The user; empty when none is known.
    pub user: String,
    /// Name of the machine.
    pub machine: String,
    /// Hash of the machine's documents; empty when none is known.
    pub bundle: String,
}

impl Subject {
    /// A run of `machine` for `scope`.
    #[must_use]
    pub fn of(scope: &TenantScope, machine: &Machine) -> Self {
        Self {
            tenant: scope.tenant.to_string(),
            user: scope.user.as_deref().unwrap_or_default().to_owned(),
            machine: machine.name.to_string(),
            bundle: machine.bundle.short(),
        }
    }
}

/// What is asked, with everything that the rules may look at and no file says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Call a model.
    CallModel {
        /// The model's name.
        model: String,
        /// The provider's name.
        provider: String,
        /// The agent: name and version.
        agent: (String, String),
    },
    /// Call a tool or perform an action.
    CallTool {
        /// The tool.
        tool: String,
        /// Its class and idempotency, when something implements it under a contract.
        contract: Option<(Class, Idempotency)>,
        /// The agent that asks: name and version.
        agent: Option<(String, String)>,
        /// The labels of the arguments.
        labels: LabelSet,
        /// The arguments.
        arguments: Arguments,
    },
    /// Start a machine.
    StartMachine {
        /// Its key.
        machine: String,
    },
    /// Take a transition.
    TakeTransition {
        /// From this state.
        from: String,
        /// To this state.
        to: String,
    },
}

impl Asked {
    /// A question of a run of `machine`; `arguments` is none when it is not known what those of a tool call are.
    #[must_use]
    pub fn of(question: &Question, machine: &Machine, arguments: Option<&Value>) -> Self {
        let agent = |name: &str| {
            let version = machine.agents.get(name).map(|agent| agent.hash.short()).unwrap_or_default();
            (name.to_owned(), version)
        };
        match question {
            Question::CallModel { agent: name, model } => Self::CallModel {
                model: model.to_string(),
                provider: machine.agents.get(name).map(|a| a.model.provider.to_string()).unwrap_or_default(),
                agent: agent(name),
            },
            Question::CallTool { tool, agent: name, labels, arguments: hash } => Self::CallTool {
                tool: tool.to_string(),
                contract: machine.tools.get(tool).map(|contract| contract_of(contract)),
                agent: name.as_deref().map(agent),
                labels: *labels,
                arguments: Arguments::of(*hash, arguments, machine.tools.get(tool).map(|contract| &**contract)),
            },
            Question::StartMachine { machine } => Self::StartMachine { machine: machine.to_string() },
            Question::TakeTransition { from, to } => {
                Self::TakeTransition { from: from.to_string(), to: to.to_string() }
            }
        }
    }

    /// The same where nobody knows the arguments of the call.
    #[must_use]
    pub fn with_unknown_arguments(mut self) -> Self {
        if let Self::CallTool { arguments, .. } = &mut self {
            *arguments = Arguments::unknown();
        }
        self
    }

    /// The same without labels, for rules that do not look at them.
    #[must_use]
    pub(crate) fn without_labels(mut self) -> Self {
        if let Self::CallTool { labels, .. } = &mut self {
            *labels = LabelSet::default();
        }
        self
    }

    /// The same without arguments, for rules that do not look at them.
    #[must_use]
    pub(crate) fn without_arguments(mut self) -> Self {
        if let Self::CallTool { arguments, .. } = &mut self {
            *arguments = Arguments::default();
        }
        self
    }

    /// The same question, as it is kept: no argument stays in memory with it.
    #[must_use]
    pub(crate) fn without_values(mut self) -> Self {
        if let Self::CallTool { arguments, .. } = &mut self {
            *arguments = arguments.without_values();
        }
        self
    }

    /// The name of the Cedar action.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match self {
            Self::CallModel { .. } => "CallModel",
            Self::CallTool { .. } => "CallTool",
            Self::StartMachine { .. } => "StartMachine",
            Self::TakeTransition { .. } => "TakeTransition",
        }
    }

    /// On what: the tool, the model, the machine, or `FROM->TO`.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::CallModel { model, .. } => model.clone(),
            Self::CallTool { tool, .. } => tool.clone(),
            Self::StartMachine { machine } => machine.clone(),
            Self::TakeTransition { from, to } => format!("{from}->{to}"),
        }
    }

    /// The score that was set for the version of the agent that asks.
    pub(crate) fn score(&self, scores: &Scores) -> Option<u32> {
        let (name, version) = self.agent()?;
        scores.of(name, version)
    }

    /// The agent that asks, as `NAME@VERSION`.
    #[must_use]
    pub fn agent_version(&self) -> Option<Name> {
        self.agent().map(|(name, version)| format!("{name}@{version}").into())
    }

    fn agent(&self) -> Option<&(String, String)> {
        match self {
            Self::CallModel { agent, .. } => Some(agent),
            Self::CallTool { agent, .. } => agent.as_ref(),
            Self::StartMachine { .. } | Self::TakeTransition { .. } => None,
        }
    }
}

/// The class and the idempotency of a contract.
fn contract_of(contract: &Contract) -> (Class, Idempotency) {
    (contract.class, contract.idempotency)
}

/// The class as rules name it.
pub(crate) fn class_word(class: Class) -> &'static str {
    match class {
        Class::Read => "read",
        Class::Write => "write",
        Class::Danger => "danger",
    }
}

fn idempotency_word(idempotency: Idempotency) -> &'static str {
    match idempotency {
        Idempotency::None => "none",
        Idempotency::Key => "key",
        Idempotency::Natural => "natural",
    }
}

/// A question as Cedar gets it: every entity with its attributes and parents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attributes {
    /// For whom.
    pub principal: Json,
    /// The action's name.
    pub action: &'static str,
    /// On what.
    pub resource: Json,
    /// The agent and the place; of arguments what may be shown to people.
    pub context: Json,
    /// The agent's attributes, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<Json>,
    #[serde(skip)]
    pub(crate) entities: Vec<(Uid, Record)>,
    #[serde(skip)]
    pub(crate) ends: (Uid, Uid),
    /// Whether something with a contract, or a file, says what the tool is. True for everything that is no tool.
    pub known: bool,
}

impl Attributes {
    /// Gathers what files and contracts say about a question.
    pub(crate) fn gather(
        (registry, declared): (&Registry, &Declared),
        subject: &Subject,
        asked: &Asked,
        scores: &Scores,
    ) -> Self {
        let who = Uid::new("User", format!("{}/{}", escaped(&subject.tenant), subject.user));
        let principal = registry.completed(&who, registry.get(&who).cloned().unwrap_or_default());
        let (what, resource, known) = resource(registry, subject, asked);
        let mut entities = vec![(who.clone(), principal.clone()), (what.clone(), resource.clone())];
        let place = json!({ "machine": subject.machine, "bundle": subject.bundle });
        let mut context = Map::from_iter([("place".to_owned(), place)]);
        if let Asked::CallTool { labels, arguments, .. } = asked {
            let words: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
            context.insert("labels".to_owned(), json!(words));
            context.insert(ARGS.to_owned(), arguments.described(declared));
        }
        let mut shown = None;
        if let Some((name, version)) = asked.agent() {
            let (uid, mut record) = agent(registry, name, version);
            // What people set for this version goes before what files say.
            if let Some(score) = scores.of(name, version) {
                record.attrs.insert("trust".into(), score.into());
            }
            context.insert("agent".into(), json!({ "__entity": uid.json() }));
            shown = Some(Json::Object(record.attrs.clone()));
            entities.push((uid, record));
        }
        for index in 0..entities.len() {
            let above = registry.ancestors(&entities[index].1);
            for (uid, record) in above {
                if !entities.iter().any(|(known, _)| *known == uid) {
                    entities.push((uid, record));
                }
            }
        }
        let display = |uid: &Uid, record: &Record| {
            let parents: Vec<String> =
                registry.ancestors(record).iter().map(|(uid, _)| format!("{}::{:?}", uid.kind, uid.id)).collect();
            json!({ "type": uid.kind, "id": uid.id, "attrs": record.attrs, "in": parents })
        };
        Self {
            principal: display(&who, &principal),
            action: asked.action(),
            resource: display(&what, &resource),
            context: Json::Object(context),
            agent: shown,
            entities,
            ends: (who, what),
            known,
        }
    }
}

fn resource(registry: &Registry, subject: &Subject, asked: &Asked) -> (Uid, Record, bool) {
    let found = |uid: &Uid| registry.get(uid).cloned();
    match asked {
        Asked::CallModel { model, provider, .. } => {
            let uid = Uid::new("Model", model.as_str());
            let mut record = found(&uid).unwrap_or_default();
            record.attrs.insert("provider".into(), provider.as_str().into());
            let record = registry.completed(&uid, record);
            (uid, record, true)
        }
        Asked::CallTool { tool, contract, .. } => {
            let uid = Uid::new("Tool", tool.as_str());
            let declared = found(&uid);
            let known = contract.is_some() || declared.is_some();
            let mut record = declared.unwrap_or_default();
            // The contract that the run is pinned to says what the tool does; a file may not make it look harmless.
            if let Some((class, idempotency)) = contract {
                record.attrs.insert("class".into(), class_word(*class).into());
                record.attrs.insert("idempotency".into(), idempotency_word(*idempotency).into());
            }
            let record = registry.completed(&uid, record);
            (uid, record, known)
        }
        Asked::StartMachine { machine } => {
            let uid = Uid::new("Machine", machine.as_str());
            let record = registry.completed(&uid, found(&uid).unwrap_or_default());
            (uid, record, true)
        }
        Asked::TakeTransition { from, to } => {
            let uid = Uid::new("Transition", format!("{}/{from}->{to}", subject.machine));
            let mut record = found(&uid).unwrap_or_default();
            for (key, value) in [("machine", &subject.machine), ("from", from), ("to", to)] {
                record.attrs.insert(key.into(), value.as_str().into());
            }
            let record = registry.completed(&uid, record);
            (uid, record, true)
        }
    }
}

/// An agent's version as a file has it, else the agent as such, else one that nobody trusts.
fn agent(registry: &Registry, name: &str, version: &str) -> (Uid, Record) {
    let exact = Uid::new("Agent", format!("{name}@{version}"));
    let plain = Uid::new("Agent", name);
    let general = registry.get(&plain).cloned().unwrap_or_default();
    let mut record = registry.get(&exact).cloned().unwrap_or_else(|| general.clone());
    record.attrs.insert("name".into(), name.into());
    record.attrs.insert("version".into(), version.into());
    // `context.agent == Agent::"NAME"` holds for every version; a version is told apart by its attribute.
    let record = registry.completed(&plain, record);
    (plain, record)
}
