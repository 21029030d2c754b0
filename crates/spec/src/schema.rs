//! JSON Schemas of the documents for editors, made from the feature table.
//!
//! Refused fields are left out, so an editor marks them; what only a run can know (names, templates) is not checked.

use serde_json::{Map, Value, json};

use crate::features::{AGENT, Feature, MACHINE, Origin, Others, PROFILES, PROMPT, SECTIONS, Section, Shape, Tier};

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `spec: flatmachine`.
    Machine,
    /// `spec: flatagent`.
    Agent,
    /// `spec: prompt`.
    Prompt,
    /// `spec: flatprofile`.
    Profile,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Machine, Self::Agent, Self::Prompt, Self::Profile];

    /// The word under `spec`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "flatmachine",
            Self::Agent => "flatagent",
            Self::Prompt => "prompt",
            Self::Profile => "flatprofile",
        }
    }

    fn section(self) -> &'static Section {
        match self {
            Self::Machine => &MACHINE,
            Self::Agent => &AGENT,
            Self::Prompt => &PROMPT,
            Self::Profile => &PROFILES,
        }
    }
}

/// The JSON Schema (draft 2020-12) of one kind of document.
#[must_use]
pub fn json_schema(kind: Kind) -> Value {
    let definitions: Map<String, Value> = SECTIONS
        .iter()
        .filter(|section| !is_refused(section))
        .map(|section| (section.name.to_owned(), of_section(section)))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("Windlass: {}", kind.section().noun),
        "$ref": reference(kind.section()),
        "$defs": definitions,
    })
}

fn reference(section: &Section) -> String {
    format!("#/$defs/{}", section.name)
}

/// Whether nothing of a section can be used.
fn is_refused(section: &Section) -> bool {
    section.features.iter().all(|f| f.tier == Tier::Blocked)
}

fn of_section(section: &Section) -> Value {
    let usable = || section.features.iter().filter(|f| f.tier != Tier::Blocked);
    let properties: Map<String, Value> = usable().map(|f| (f.key.to_owned(), of_feature(f))).collect();
    let required: Vec<&str> = usable().filter(|f| f.required).map(|f| f.key).collect();
    json!({
        "type": "object",
        "description": section.noun,
        "properties": properties,
        "required": required,
        "additionalProperties": section.others != Others::Refused,
    })
}

fn of_feature(feature: &Feature) -> Value {
    let mut schema = of_shape(feature.shape);
    if let Value::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(feature.about));
        if feature.tier == Tier::Experimental || feature.origin == Origin::Legacy {
            map.insert("deprecated".to_owned(), json!(true));
        }
    }
    schema
}

fn of_shape(shape: Shape) -> Value {
    match shape {
        Shape::Any | Shape::Templates => json!({}),
        Shape::TemplateMap | Shape::Mapping => json!({ "type": "object" }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Version => json!({ "type": ["string", "number"] }),
        Shape::Number => json!({ "type": "number", "minimum": 0 }),
        Shape::Count => json!({ "type": "integer", "minimum": 0 }),
        Shape::NumberTemplate => json!({ "type": ["number", "string"] }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Condition => json!({ "type": ["string", "boolean"] }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::List(inner) => json!({ "type": "array", "items": of_shape(*inner) }),
        Shape::MapOf(inner) => json!({ "type": "object", "additionalProperties": of_shape(*inner) }),
        Shape::Section(section) => json!({ "$ref": reference(section) }),
        Shape::OneOf(choices) | Shape::WhenUsed(choices) => {
            let usable = choices.iter().filter(|c| !matches!(c, Shape::Section(section) if is_refused(section)));
            json!({ "anyOf": usable.map(|choice| of_shape(*choice)).collect::<Vec<_>>() })
        }
    }
}
