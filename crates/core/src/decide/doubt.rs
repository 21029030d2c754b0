//! What a call in doubt asks the policy about the tool that is to tell, and which labels the answer brings. How a doubt is
//! raised and settled is in `call`.

use super::{About, Permit, Turn, labels, step};
use crate::contract::OnUnknown;
use crate::effect::{Call, OpenCall};
use crate::ids::{EffectId, Name};
use crate::label::{self, LabelSet, Marks, Source, SourceKind, Tags, of_arguments, path};
use crate::machine::Machine;
use crate::policy::{Question, Ruled};
use crate::run::Run;
use crate::value::Value;

/// The tool that is to tell whether a call happened, where its contract names one.
fn verifier<'m>(machine: &'m Machine, open: &OpenCall) -> Option<&'m Name> {
    let name = match &open.call {
        Call::Tool { tool, hook: None, .. } => tool,
        Call::Action { action } => action,
        Call::Tool { hook: Some(_), .. } | Call::Model { .. } | Call::Hook { .. } | Call::Verify { .. } => return None,
    };
    match &machine.tools.get(name)?.on_unknown {
        OnUnknown::Verify { tool } => Some(tool),
        OnUnknown::Fail | OnUnknown::Ask => None,
    }
}

/// The tool that tells is given the arguments of the call in doubt.
fn question(run: &Run, open: &OpenCall, tool: &Name, labels: LabelSet) -> Question {
    let agent = run.exec.as_ref().filter(|_| is_by_model(run, &open.call)).map(|exec| exec.agent.clone());
    Question::CallTool { tool: tool.clone(), arguments: open.arguments, agent, labels }
}

fn is_by_model(run: &Run, call: &Call) -> bool {
    matches!(call, Call::Tool { .. }) && !step::is_by_state(run)
}

/// The questions that open calls put to the policy should they come to be in doubt.
pub(super) fn questions<'a>(machine: &'a Machine, run: &'a Run) -> impl Iterator<Item = Question> + 'a {
    let doubtful = run.calls.values().filter_map(|open| Some((open, verifier(machine, open)?)));
    doubtful
        .flat_map(move |(open, tool)| LabelSet::ALL.into_iter().map(move |labels| question(run, open, tool, labels)))
}

impl Turn<'_> {
    /// Whether the policy lets a tool be asked about a call in doubt, and by which rule. Where a rule wants a person to
    /// decide, a person may as well say what happened.
    pub(super) fn may_verify(&mut self, open: &OpenCall, tool: &Name) -> Option<Option<Ruled>> {
        let question = question(self.run, open, tool, labels::arguments(self.run, is_by_model(self.run, &open.call)));
        match self.permit(&question, About::Nothing) {
            Ok(Permit::Granted(ruled)) => Some(ruled),
            Ok(Permit::Asks(_)) | Err(_) => None,
        }
    }

    /// The same once more before the tool is asked again: the rules may have changed since.
    pub(super) fn may_tell(&mut self, about: EffectId, tool: &Name) -> bool {
        let open = self.run.calls.get(&about).cloned();
        open.is_none_or(|open| self.may_verify(&open, tool).is_some())
    }

    /// The labels of what a tool says about a call in doubt: its own, and those of what it was given.
    pub(super) fn verified_labels(&self, about: EffectId, tool: &Name, answer: &Value) -> Tags {
        let Some(open) = self.run.calls.get(&about) else { return Tags::new() };
        let contract = self.machine.tools.get(tool);
        let flow = contract.map(|contract| contract.flow.clone()).unwrap_or_default();
        let free = contract.map(|contract| self.free_of(contract, answer)).unwrap_or_default();
        let from = Source { kind: SourceKind::Tool, name: tool.clone(), step: self.run.step };
        let sent = of_arguments(self.run, is_by_model(self.run, &open.call));
        label::of_answer(&flow, &free, answer, &from, sent).at(&path(["result"]))
    }

    /// Whoever said what a call in doubt gave brings labels of their own, beside those of the call's contract.
    pub(super) fn label_doubt(&mut self, open: &OpenCall, tags: Tags) {
        let place = if is_by_model(self.run, &open.call) { "asked" } else { "doubt" };
        self.taint(path([place]), tags);
    }

    /// The labels that the answer about a call in doubt brought; they are taken to where its result goes.
    pub(super) fn take_doubt_labels(&mut self) -> Tags {
        let tags = self.run.labels.marks.at(&path(["doubt"]));
        if !tags.is_empty() {
            self.label(path(["doubt"]), Marks::default());
        }
        tags
    }
}
