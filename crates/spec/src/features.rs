//! The one table of everything a document may contain: each field's tier, its type and what it does.
//!
//! The validator, the editors' schemas, `explain-schema` and the documentation are made from it, so a field cannot
//! exist without being described. Checks nothing itself.

mod agent;
mod machine;
mod runtime;
mod skill;

pub(crate) use agent::PROFILE_KINDS;
pub use agent::{
    AGENT, AGENT_DATA, CLAUDE_CODE, CODEX_CLI, LEGACY_AGENT, LEGACY_MODEL, LLM_PROFILE, MCP, MCP_SERVER, MODEL, OAUTH,
    OUTPUT_FIELD, PI_AGENT, PROFILES, PROFILES_DATA, PROMPT, PROMPT_DATA, SMOLAGENTS, TOOL, TOOL_FILTER, TOOL_FUNCTION,
};
pub use machine::{
    AGENT_REF, CONTRACT, CONVERSATION, EXECUTION, HANDOFF, HOOK_REF, LABELS, MACHINE, MACHINE_DATA, MACHINE_INPUT,
    MACHINE_REF, MACHINE_RUNTIME, PERSISTENCE, SETTINGS, STATE, TABLE, TABLE_INPUT, TOOL_LOOP, TRANSITION,
};

pub use skill::{SKILL, SKILLS};

use crate::yaml::Node;

/// How far a field is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Works as described, with tests.
    Supported,
    /// Accepted with a warning: it has no effect yet, or may change. Refused under `strict`.
    Experimental,
    /// Refused.
    Blocked,
}

/// Where a field comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The published schema, version 4.2.
    Format,
    /// Earlier versions of the format; honoured.
    Legacy,
    /// Neither, but in published documents: accepted with a warning, refused under `strict`.
    Compatibility,
    /// Windlass, in a place that the format leaves open.
    Windlass,
}

/// One field.
#[derive(Debug)]
pub struct Feature {
    /// The key in documents.
    pub key: &'static str,
    /// How far it is honoured.
    pub tier: Tier,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether a document without it is refused.
    pub required: bool,
    /// What may stand there.
    pub shape: Shape,
    /// What it does, in one line.
    pub about: &'static str,
}

/// One kind of mapping in documents.
#[derive(Debug)]
pub struct Section {
    /// The name of its type in the published schema, or ours where that has none.
    pub name: &'static str,
    /// What to call it in messages.
    pub noun: &'static str,
    /// What happens to a key that is not among the features.
    pub others: Others,
    /// The fields.
    pub features: &'static [Feature],
    /// Whether a mapping is meant as this section, where several are possible.
    #[doc(hidden)]
    pub claims: Claim,
}

/// What happens to keys that a section does not list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They are errors.
    Refused,
    /// They are accepted with a warning, for they have no effect.
    Warned,
    /// They are passed to the model's provider.
    Passed,
}

/// By what a mapping shows that it is of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Always.
    Any,
    /// It has the key.
    Has(&'static str),
    /// It does not have the key.
    HasNot(&'static str),
    /// It has one of the keys.
    HasEither(&'static str, &'static str),
    /// The key has the value.
    Is(&'static str, &'static str),
}

impl Section {
    /// The field of a key.
    #[must_use]
    pub fn feature(&self, key: &str) -> Option<&'static Feature> {
        self.features.iter().find(|f| f.key == key)
    }

    /// Whether a mapping is meant as this section.
    pub(crate) fn is_meant(&self, node: &Node) -> bool {
        match self.claims {
            Claim::Any => true,
            Claim::Has(key) => node.entry(key).is_some(),
            Claim::HasNot(key) => node.entry(key).is_none(),
            Claim::HasEither(one, other) => node.entry(one).is_some() || node.entry(other).is_some(),
            Claim::Is(key, value) => node.text(key).is_some_and(|text| **text == *value),
        }
    }
}

/// What may stand in a place.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Anything.
    Any,
    /// Anything; texts in it are templates of the machine's rules.
    Templates,
    /// A mapping of names to anything; texts in it are templates.
    TemplateMap,
    /// Text.
    Text,
    /// Text that names a version; a number without quotes is taken as written.
    Version,
    /// A number, not negative.
    Number,
    /// A whole number, not negative.
    Count,
    /// A number or a template that gives one.
    NumberTemplate,
    /// True or false.
    Flag,
    /// A condition: text, or true or false.
    Condition,
    /// A free mapping.
    Mapping,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// A mapping of names to values of one shape.
    MapOf(&'static Shape),
    /// A mapping of one kind.
    Section(&'static Section),
    /// One of several.
    OneOf(&'static [Shape]),
    /// One of several, checked when it is used: what a catalog holds for others does not matter.
    WhenUsed(&'static [Shape]),
}

/// Every section, in the order of the documentation.
pub static SECTIONS: &[&Section] = &[
    &MACHINE,
    &MACHINE_DATA,
    &AGENT_REF,
    &MACHINE_REF,
    &CONTRACT,
    &HANDOFF,
    &SETTINGS,
    &LABELS,
    &CONVERSATION,
    &TABLE,
    &TABLE_INPUT,
    &SKILLS,
    &SKILL,
    &STATE,
    &TRANSITION,
    &EXECUTION,
    &TOOL_LOOP,
    &MACHINE_INPUT,
    &HOOK_REF,
    &PERSISTENCE,
    &MACHINE_RUNTIME,
    &AGENT,
    &AGENT_DATA,
    &LEGACY_AGENT,
    &LEGACY_MODEL,
    &PROMPT,
    &PROMPT_DATA,
    &OUTPUT_FIELD,
    &TOOL,
    &TOOL_FUNCTION,
    &MCP,
    &MCP_SERVER,
    &TOOL_FILTER,
    &PROFILES,
    &PROFILES_DATA,
    &MODEL,
    &OAUTH,
    &LLM_PROFILE,
    &CLAUDE_CODE,
    &CODEX_CLI,
    &SMOLAGENTS,
    &PI_AGENT,
];

/// One row of the table as people read it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    /// `Section.key`.
    pub field: String,
    /// How far it is honoured.
    pub tier: Tier,
    /// Where it comes from.
    pub origin: Origin,
    /// What it does.
    pub about: &'static str,
}

/// The whole table: fields of documents first, then what the published schema declares beside documents.
#[must_use]
pub fn rows() -> Vec<Row> {
    let documents = SECTIONS.iter().flat_map(|section| {
        section.features.iter().map(|f| Row {
            field: format!("{}.{}", section.name, f.key),
            tier: f.tier,
            origin: f.origin,
            about: f.about,
        })
    });
    let beside = runtime::BESIDE.iter().flat_map(|(name, about, keys)| {
        keys.iter().map(move |key| Row {
            field: format!("{name}.{key}"),
            tier: Tier::Blocked,
            origin: Origin::Format,
            about,
        })
    });
    documents.chain(beside).collect()
}

const fn row(key: &'static str, tier: Tier, origin: Origin, shape: Shape, about: &'static str) -> Feature {
    Feature { key, tier, origin, required: false, shape, about }
}

/// A supported field of the format.
const fn field(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    row(key, Tier::Supported, Origin::Format, shape, about)
}

/// A supported field of the format that must be there.
const fn needed(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    Feature { required: true, ..field(key, shape, about) }
}

/// A field of the format that is accepted without effect.
const fn idle(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    row(key, Tier::Experimental, Origin::Format, shape, about)
}

/// A field of the format that is refused.
const fn blocked(key: &'static str, about: &'static str) -> Feature {
    row(key, Tier::Blocked, Origin::Format, Shape::Any, about)
}

/// A field of earlier versions.
const fn legacy(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    row(key, Tier::Supported, Origin::Legacy, shape, about)
}

/// A key outside the format that published documents use.
const fn compatible(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    row(key, Tier::Experimental, Origin::Compatibility, shape, about)
}

/// A field of Windlass.
const fn ours(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    row(key, Tier::Supported, Origin::Windlass, shape, about)
}

/// A field of Windlass that must be there.
const fn ours_needed(key: &'static str, shape: Shape, about: &'static str) -> Feature {
    Feature { required: true, ..ours(key, shape, about) }
}
