//! What the core asks of an expression and template engine, so that it depends on none.

use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::machine::{Condition, Dialect, Template};
use crate::value::{Map, Value};

/// Names in scope, with their values.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    vars: Vec<(Name, Value)>,
}

impl Scope {
    /// An empty scope.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The scope with one more name; a later one hides an earlier one.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, value: Value) -> Self {
        self.set(name.into(), value);
        self
    }

    /// Sets a name.
    pub fn set(&mut self, name: Name, value: Value) {
        match self.vars.iter_mut().find(|(n, _)| *n == name) {
            Some(slot) => slot.1 = value,
            None => self.vars.push((name, value)),
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.vars.iter().find(|(n, _)| **n == *name).map(|(_, v)| v)
    }

    /// Every name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Value)> {
        self.vars.iter().map(|(n, v)| (n, v))
    }
}

/// Renders text and answers conditions. Implementations are total, deterministic and bounded: the same source and
/// scope give the same result on every host, within a fixed number of steps and bytes.
pub trait Evaluator: Send + Sync {
    /// Renders template text.
    ///
    /// # Errors
    /// `template.*` codes: syntax, undefined, type, limit.
    fn render(&self, dialect: Dialect, source: &Name, scope: &Scope) -> Result<Value, Failure>;

    /// The paths that template text names anywhere, in branches that are not taken too: a name of the scope, then keys
    /// for as long as they are fixed. An empty path stands for the whole scope.
    fn reads(&self, dialect: Dialect, source: &Name) -> Vec<Vec<Name>> {
        let (_, _) = (dialect, source);
        vec![Vec::new()]
    }

    /// Answers a condition.
    ///
    /// # Errors
    /// `condition.*` codes: syntax, type, limit.
    fn holds(&self, condition: &Condition, scope: &Scope) -> Result<bool, Failure>;

    /// Checks a value against a JSON Schema. Coercion of numeric text to numbers is applied where the schema asks
    /// for a number; the value that fits is returned.
    ///
    /// # Errors
    /// A sentence for each place that does not fit.
    fn fit(&self, schema: &Value, value: &Value) -> Result<Value, Vec<String>>;

    /// The text of the first group of a regular expression's first match, `.` matching line ends.
    ///
    /// # Errors
    /// `template.syntax` for an expression that does not parse.
    fn capture(&self, pattern: &str, text: &str) -> Result<Option<String>, Failure>;
}

/// Why a template was not filled in, and where in it.
#[derive(Clone, Debug)]
pub struct Misfit {
    /// The part within the template, such as `.items[2]`; empty for the template itself.
    pub path: String,
    /// Why.
    pub failure: Failure,
}

impl Misfit {
    fn new(failure: Failure) -> Box<Self> {
        Box::new(Self { path: String::new(), failure })
    }

    /// The same, seen from the part around it.
    fn below(mut self: Box<Self>, part: &str) -> Box<Self> {
        self.path.insert_str(0, part);
        self
    }

    /// The failure, with its place before what happened. `field` is the template's name at that place.
    #[must_use]
    pub fn at(self, place: &str, field: &str) -> Failure {
        let message = format!("{place}: {field}{}: {}", self.path, self.failure.message);
        self.failure.reworded(&message)
    }
}

/// Fills in a template.
///
/// # Errors
/// Whatever the evaluator reports, and `run.too_large` for nesting beyond the bound.
pub fn fill(template: &Template, scope: &Scope, evaluator: &dyn Evaluator) -> Result<Value, Box<Misfit>> {
    fill_at(template, scope, evaluator, 0)
}

fn fill_at(template: &Template, scope: &Scope, evaluator: &dyn Evaluator, depth: usize) -> Result<Value, Box<Misfit>> {
    if depth > crate::limits::VALUE_DEPTH_MAX {
        return Err(Misfit::new(Failure::new(Code::RunTooLarge, "the value is nested too deeply")));
    }
    match template {
        Template::Literal(value) => Ok(value.clone()),
        Template::Path(path) => Ok(path
            .split_first()
            .and_then(|(root, rest)| scope.get(root).map(|value| value.at_path(rest)))
            .unwrap_or_default()),
        Template::Text { dialect, source } => evaluator.render(*dialect, source, scope).map_err(Misfit::new),
        Template::List(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                fill_at(item, scope, evaluator, depth + 1).map_err(|misfit| misfit.below(&format!("[{index}]")))
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Value::list),
        Template::Map(entries) => entries
            .iter()
            .map(|(key, item)| {
                let filled = fill_at(item, scope, evaluator, depth + 1);
                Ok((key.clone(), filled.map_err(|misfit| misfit.below(&format!(".{key}")))?))
            })
            .collect::<Result<Map, _>>()
            .map(Value::map),
    }
}
