//! Which values of calls are not shown, by what the contracts of tools and actions say.

use super::Turn;
use crate::effect::{Call, Outcome};
use crate::hidden::Hidden;
use crate::ids::Name;
use crate::journal::Entry;
use crate::request;
use crate::value::Value;

impl Turn<'_> {
    /// Notes values that are not shown, where they are not known yet.
    pub(super) fn hide(&mut self, found: Hidden) {
        let hidden = found.beyond(&self.run.hidden).beside(&self.run.hidden);
        if !hidden.is_empty() {
            self.emit(Entry::ValuesHidden { hidden });
        }
    }

    /// What the contract of a tool hides of arguments for it that a model or a person chose.
    pub(super) fn hide_chosen(&mut self, tool: &Name, arguments: &Value) {
        let Some(contract) = self.machine.tools.get(tool) else { return };
        if !contract.redact.arguments.is_empty() {
            self.hide(Hidden::of_chosen(arguments, &contract.redact.arguments));
        }
    }

    /// The same of a call that is about to be committed to.
    pub(super) fn hide_sent(&mut self, call: &Call) {
        let name = match call {
            Call::Tool { tool: name, hook: None, .. } | Call::Action { action: name } => name,
            Call::Tool { .. } | Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => return,
        };
        let Some(contract) = self.machine.tools.get(name).filter(|tool| !tool.redact.arguments.is_empty()) else {
            return;
        };
        let Some(arguments) = request::arguments_of(self.machine, self.run, call) else { return };
        match call {
            Call::Action { .. } => self.hide(Hidden::of(&arguments, &contract.redact.arguments)),
            _ => self.hide(Hidden::of_chosen(&arguments, &contract.redact.arguments)),
        }
    }

    /// What contracts hide of an outcome: parts of the answer of a tool, and of the arguments for tools that a model asks
    /// for, whatever becomes of those calls.
    pub(super) fn hide_outcome(&mut self, call: &Call, outcome: &Outcome) {
        for found in Hidden::of_answer(&self.machine.tools, call, outcome) {
            self.hide(found);
        }
    }
}
