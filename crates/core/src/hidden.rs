//! Values that are not shown because the contract of a tool or action says so: found in what a call sends and gets, kept
//! with the run, and found again by [`Veil`] in whatever is shown of it.
//!
//! The run, its tools and its models have the values as they are. Who shows something puts the veil over it.

mod finder;
mod leaves;
mod needles;
mod thinking;
mod veil;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::effect::{Call, Outcome};
use crate::failure::Code;
use crate::ids::Name;
use crate::input::Ending;
use crate::value::{Map, Value};

use leaves::Leaves;
pub use veil::Veil;

/// The part of a path that stands for every item of a list and every value of a mapping.
pub const EACH: &str = "*";
/// The key of a hook's answer under which it says which values are not shown.
pub const SAID: &str = "hidden";

/// Whether a value under that key is what is meant by it, and not something of a hook's own.
#[must_use]
pub fn says(value: &Value) -> bool {
    let known = |key: &Name| matches!(&**key, "leaves" | "all" | "chosen");
    value.as_map().is_some_and(|map| !map.is_empty() && map.keys().all(known))
}
/// The key under which a tool whose answer did not fit is given the beginning of it.
const BEGINNING: &str = "text";

/// One text, number or truth value with the key that it stands under; empty where there is none. Stored as
/// `{key: value}`, so that a stored one is found by its own key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
struct Leaf {
    key: Name,
    value: Value,
}

impl From<Value> for Leaf {
    fn from(value: Value) -> Self {
        match value.as_map().and_then(Map::first) {
            Some((key, inner)) => Self { key: key.clone(), value: inner.clone() },
            None => Self { key: "".into(), value },
        }
    }
}

impl From<Leaf> for Value {
    fn from(leaf: Leaf) -> Self {
        Self::map([(leaf.key, leaf.value)].into_iter().collect())
    }
}

/// The values of a run that are not shown. `Debug` shows none.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hidden {
    /// What is not shown, each once.
    #[serde(skip_serializing_if = "Leaves::is_empty")]
    leaves: Leaves,
    /// There are more than are kept: no value of the run is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    /// The same of arguments that models chose: whoever is asked about a call is shown them wherever its contract does not
    /// hide them itself, or a model could choose what a person does not see.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<Box<Hidden>>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.leaves.len() + self.chosen.as_ref().map_or(0, |chosen| chosen.leaves.len());
        write!(f, "Hidden({count}{})", if self.all { ", all" } else { "" })
    }
}

impl Hidden {
    /// What these paths lead to. A key beside a list counts for each of its items; text that is JSON is looked into, and
    /// other text in which a path would go on is hidden whole.
    #[must_use]
    pub fn of(value: &Value, paths: &[Vec<Name>]) -> Self {
        let mut found = Self::default();
        for path in paths {
            found.reach(value, path, &Name::from(""));
        }
        if !paths.is_empty() && value.get("truncated") == Some(&Value::Bool(true)) {
            // Of an answer that was cut off nobody knows where its parts stand.
            found.reach(value, &[Name::from(BEGINNING)], &Name::from(""));
        }
        found
    }

    /// What a hook says beside its answer: values as the journal has them, `{"leaves": [{KEY: VALUE}, …]}`.
    #[must_use]
    pub fn said_by(answer: &Value) -> Self {
        let said = answer.get(SAID).filter(|said| says(said));
        let said = said.and_then(|said| serde_json::from_value::<Self>(said.into()).ok()).unwrap_or_default();
        let mut found = Self::default();
        // One by one: what somebody else says is bounded too.
        found.add_all(&said);
        found
    }

    /// The same, as it is said.
    #[must_use]
    pub fn said(&self) -> Value {
        // Plain data with text keys, for which serialisation cannot fail.
        serde_json::to_value(self).map(Value::from).unwrap_or_default()
    }

    /// What these paths lead to in arguments that a model chose.
    #[must_use]
    pub fn of_chosen(arguments: &Value, paths: &[Vec<Name>]) -> Self {
        let found = Self::of(arguments, paths);
        if found.is_empty() { found } else { Self { chosen: Some(Box::new(found)), ..Self::default() } }
    }

    /// What is not shown of an outcome: what the paths lead to, and where a tool says why it failed, all that it says.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome, paths: &[Vec<Name>]) -> Self {
        match outcome {
            Outcome::Returned(value) => Self::of(value, paths),
            Outcome::Failed(failure) if !paths.is_empty() && is_said(failure.code) => {
                let mut found = Self::default();
                found.take(&Value::Str(failure.message.clone()), &Name::from("message"));
                found.take(&failure.detail, &Name::from("detail"));
                found.take(&failure.error_type.clone().map_or(Value::Null, Value::Str), &Name::from("error_type"));
                found
            }
            Outcome::Failed(_) | Outcome::Replied(_) => Self::default(),
        }
    }

    /// What contracts hide of an outcome: parts of the answer of a tool, and of the arguments for each tool that a model asks
    /// for, whatever becomes of those calls; and what a hook says of its own answer.
    #[must_use]
    pub fn of_answer(tools: &BTreeMap<Name, Arc<Contract>>, call: &Call, outcome: &Outcome) -> Vec<Self> {
        if let Outcome::Replied(reply) = outcome {
            let asked = reply.tool_calls.iter().filter_map(|asked| Some((asked, tools.get(&asked.name)?)));
            return asked
                .map(|(asked, contract)| Self::of_chosen(&asked.arguments, &contract.redact.arguments))
                .collect();
        }
        let name = match call {
            Call::Tool { tool: name, hook: None, .. }
            | Call::Action { action: name }
            | Call::Verify { tool: name, .. } => name,
            Call::Hook { .. } => {
                return if let Outcome::Returned(answer) = outcome { vec![Self::said_by(answer)] } else { Vec::new() };
            }
            Call::Tool { .. } | Call::Model { .. } => return Vec::new(),
        };
        tools.get(name).map(|contract| Self::of_outcome(outcome, &contract.redact.result)).into_iter().collect()
    }

    /// Whether everything may be shown.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && !self.all && self.chosen.is_none()
    }

    /// Adds those of another one.
    pub fn join(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else {
            self.add_all(&other);
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.all |= other.all;
        other.leaves.list().iter().for_each(|leaf| self.add(leaf.clone()));
        if self.all {
            self.leaves = Leaves::default();
        }
        if let Some(chosen) = &other.chosen {
            self.chosen.get_or_insert_default().add_all(chosen);
        }
    }

    /// Those that another one does not have.
    #[must_use]
    pub fn beyond(mut self, known: &Self) -> Self {
        if known.all {
            return Self::default();
        }
        self.leaves = self.leaves.only(|leaf| !known.leaves.contains(leaf));
        let chosen = self.chosen.map(|chosen| match &known.chosen {
            Some(known) => chosen.beyond(known),
            None => *chosen,
        });
        self.chosen = chosen.filter(|chosen| !chosen.is_empty()).map(Box::new);
        self
    }

    /// These, none of which another one has, as they are noted beside it: where there is no room for them, that is what is
    /// noted. So a run under which the bound was reached stays so, whatever the bound is later.
    #[must_use]
    pub fn beside(self, known: &Self) -> Self {
        let is_room = known.leaves.fits(self.leaves.len(), self.leaves.size_bytes());
        let chosen = self.chosen.map(|chosen| match &known.chosen {
            Some(known) => Box::new(chosen.beside(known)),
            None => chosen,
        });
        if is_room { Self { chosen, ..self } } else { Self { leaves: Leaves::default(), all: true, chosen } }
    }

    /// Those that may stand in a value that goes to another run.
    #[must_use]
    pub fn within(&self, value: &Value) -> Self {
        if self.leaves.is_empty() && self.chosen.is_none() {
            return self.clone();
        }
        self.within_text(&value.to_json())
    }

    /// Those that may stand in what a run that ended tells its parent.
    #[must_use]
    pub fn within_ending(&self, ending: &Ending) -> Self {
        if self.leaves.is_empty() && self.chosen.is_none() {
            return self.clone();
        }
        self.within_text(&serde_json::to_string(ending).unwrap_or_default())
    }

    fn within_text(&self, json: &str) -> Self {
        let chosen = self.chosen.as_ref().map(|chosen| chosen.within_text(json));
        let chosen = chosen.filter(|chosen| !chosen.is_empty()).map(Box::new);
        Self { leaves: self.leaves.within(json), all: self.all, chosen }
    }

    /// What finds them. What that takes is made when something is first looked for, and kept with them.
    #[must_use]
    pub fn veil(&self) -> Veil {
        match &self.chosen {
            Some(chosen) => Veil::new([self.leaves.clone(), chosen.leaves.clone()], self.all || chosen.all),
            None => self.veil_of_questions(),
        }
    }

    /// The same for whoever is asked about a call: without what models chose.
    #[must_use]
    pub fn veil_of_questions(&self) -> Veil {
        Veil::new([self.leaves.clone(), Leaves::default()], self.all)
    }

    fn reach(&mut self, value: &Value, path: &[Name], key: &Name) {
        let Some((part, rest)) = path.split_first() else { return self.take(value, key) };
        let is_each = &**part == EACH;
        match value {
            Value::Map(map) if is_each => map.iter().for_each(|(name, inner)| self.reach(inner, rest, name)),
            Value::Map(map) => {
                if let Some(inner) = map.get(part) {
                    self.reach(inner, rest, part);
                }
            }
            Value::List(items) if is_each => items.iter().for_each(|item| self.reach(item, rest, key)),
            Value::List(items) => match part.parse::<usize>() {
                Ok(index) => items.get(index).into_iter().for_each(|item| self.reach(item, rest, key)),
                Err(_) => items.iter().for_each(|item| self.reach(item, path, key)),
            },
            Value::Str(text) => match Value::from_json(text) {
                Ok(inner @ (Value::Map(_) | Value::List(_))) => self.reach(&inner, path, key),
                Ok(_) | Err(_) => self.take(value, key),
            },
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
        }
    }

    fn take(&mut self, value: &Value, key: &Name) {
        match value {
            Value::Null => {}
            Value::Str(text) if text.trim().is_empty() => {}
            Value::Str(_) | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.add(Leaf { key: key.clone(), value: value.clone() });
            }
            Value::List(items) => items.iter().for_each(|item| self.take(item, key)),
            Value::Map(map) => map.iter().for_each(|(name, inner)| self.take(inner, name)),
        }
    }

    fn add(&mut self, leaf: Leaf) {
        if self.all || self.leaves.contains(&leaf) {
            return;
        }
        if self.leaves.fits(1, leaf.value.size_bytes()) {
            self.leaves.push(leaf);
        } else {
            self.leaves = Leaves::default();
            self.all = true;
        }
    }
}

/// A value with [`REDACTED`](crate::redact::REDACTED) in place of what these paths lead to. Text in which a path would go
/// on is replaced whole.
#[must_use]
pub fn masked(value: &Value, paths: &[Vec<Name>]) -> Value {
    paths.iter().fold(value.clone(), |value, path| mask(&value, path))
}

fn mask(value: &Value, path: &[Name]) -> Value {
    let Some((part, rest)) = path.split_first() else {
        return if value.is_null() { Value::Null } else { Value::str(crate::redact::REDACTED) };
    };
    let is_each = &**part == EACH;
    match value {
        Value::Map(map) => Value::map(
            map.iter()
                .map(|(name, inner)| {
                    let inner = if is_each || name == part { mask(inner, rest) } else { inner.clone() };
                    (name.clone(), inner)
                })
                .collect(),
        ),
        Value::List(items) => {
            let index = part.parse::<usize>().ok();
            let item = |(at, item): (usize, &Value)| match index {
                _ if is_each => mask(item, rest),
                Some(index) if index == at => mask(item, rest),
                Some(_) => item.clone(),
                None => mask(item, path),
            };
            Value::list(items.iter().enumerate().map(item).collect())
        }
        Value::Str(_) => Value::str(crate::redact::REDACTED),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
    }
}

/// Whether a failure repeats what a tool or action said.
fn is_said(code: Code) -> bool {
    matches!(code, Code::ToolFailed | Code::HookFailed | Code::HookBadAnswer | Code::ToolOutputTooLarge)
}

/// The arguments of a call that a person changed may not hold what stands for a value that was not shown: the tool would
/// be sent that.
#[must_use]
pub fn holds_mark(value: &Value) -> bool {
    match value {
        Value::Str(text) => text.contains(crate::redact::REDACTED),
        Value::List(items) => items.iter().any(holds_mark),
        Value::Map(map) => map.values().any(holds_mark),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
    }
}

#[cfg(test)]
mod tests;
