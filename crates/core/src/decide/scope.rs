//! What templates and conditions of a run see.

use std::sync::Arc;

use super::Turn;
use crate::eval::{Scope, fill};
use crate::failure::Failure;
use crate::machine::{Agent, Condition, Template};
use crate::run::Run;
use crate::value::{Map, Value};

impl Turn<'_> {
    /// `context` and `input` of the present moment.
    pub(super) fn scope(&mut self) -> Scope {
        if let Some(scope) = &self.scope {
            return scope.clone();
        }
        let scope = Scope::new()
            .with("context", with_metadata(self.run, &self.machine.spec_version))
            .with("input", input_view(self.run));
        self.scope = Some(scope.clone());
        scope
    }

    /// The same with the state's output so far.
    pub(super) fn scope_with_output(&mut self) -> Scope {
        let output = self.run.output.clone();
        self.scope().with("output", output)
    }

    /// Fills in a field of the current state.
    pub(super) fn fill(&mut self, field: &str, template: &Template) -> Result<Value, Failure> {
        let scope = self.scope();
        self.fill_with(field, template, &scope)
    }

    /// Fills in a field of the current state with names of its own in scope.
    pub(super) fn fill_with(&self, field: &str, template: &Template, scope: &Scope) -> Result<Value, Failure> {
        fill(template, scope, self.evaluator).map_err(|misfit| misfit.at(&self.place(), field))
    }

    /// Fills in a text of an agent.
    pub(super) fn fill_agent(
        &self,
        agent: &Agent,
        field: &str,
        text: &Template,
        scope: &Scope,
    ) -> Result<Value, Failure> {
        let place = || format!("{}: agent {}", agent.document, agent.name);
        fill(text, scope, self.evaluator).map_err(|misfit| misfit.at(&place(), field))
    }

    /// Answers the condition of a transition of the current state.
    pub(super) fn holds(&self, index: usize, condition: &Condition, scope: &Scope) -> Result<bool, Failure> {
        self.evaluator.holds(condition, scope).map_err(|failure| {
            let message = format!("{}: transitions[{index}].condition: {}", self.place(), failure.message);
            failure.reworded(&message)
        })
    }

    /// A message with its place before it.
    pub(super) fn placed(&self, message: &str) -> String {
        format!("{}: {message}", self.place())
    }

    /// Where the run is in its documents.
    fn place(&self) -> String {
        match &self.run.state {
            Some(state) => format!("{}: state {state}", self.machine.key),
            None => self.machine.key.to_string(),
        }
    }
}

/// `input` in states: the run's input, and every key of the context that hides or adds to it, since the format's
/// documents use both words for the context.
fn input_view(run: &Run) -> Value {
    let (Value::Map(context), Some(input)) = (&run.context, run.start.input.as_map()) else {
        return run.context.clone();
    };
    if input.keys().all(|key| context.contains_key(key)) {
        return run.context.clone();
    }
    let mut view = input.clone();
    view.extend(context.iter().map(|(key, value)| (key.clone(), value.clone())));
    Value::map(view)
}

/// The context with `machine`: the metadata that the engine owns.
pub(crate) fn with_metadata(run: &Run, spec_version: &str) -> Value {
    let mut context = match &run.context {
        Value::Map(map) => Map::clone(map),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::List(_) => Map::new(),
    };
    context.insert("machine".into(), metadata(run, spec_version));
    Value::Map(Arc::new(context))
}

fn metadata(run: &Run, spec_version: &str) -> Value {
    let parent = run.start.parent.as_ref().map_or(Value::Null, |p| Value::str(p.run.as_str()));
    let state = run.state.clone().map_or(Value::Null, Value::Str);
    Value::object([
        ("execution_id", Value::str(run.id().as_str())),
        ("machine_name", Value::Str(run.start.machine_name.clone())),
        ("parent_execution_id", parent),
        ("spec_version", Value::str(spec_version)),
        ("step", Value::count(run.step)),
        ("current_state", state),
        ("total_api_calls", Value::count(run.api_calls)),
        ("total_cost", dollars(run.ledger.settled.cost_micros)),
        ("depth", Value::count(u64::from(run.start.depth))),
    ])
}

/// Micro-USD as dollars, for values that documents read.
pub(crate) fn dollars(micros: u64) -> Value {
    Value::float(micros as f64 / 1e6).unwrap_or_default()
}
