//! What the policy says to what a run wants: allowed, put to a person, or denied. What is denied is recorded, with the rule
//! and what it was about, whatever the run makes of it.

use super::Turn;
use super::approval::Asked;
use crate::audit::{ALLOWED_VERSION, RULED_VERSION};
use crate::contract::Contract;
use crate::effect::Call;
use crate::failure::{Code, Failure};
use crate::hidden::Hidden;
use crate::ids::{EffectId, Name};
use crate::journal::Entry;
use crate::label::{Label, LabelSet};
use crate::machine::Agent;
use crate::policy::{Answer, Denial, Question, Ruled, Verdict};
use crate::request;
use crate::resource::{self, Resource};
use crate::route::Choice;
use crate::value::Value;

/// What the policy says.
pub(super) enum Permit {
    /// Go on. By which rule, where one was asked.
    Granted(Option<Ruled>),
    /// A person decides.
    Asks(Asked),
}

/// What lets a call go: the rule, and the question to a person before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    pub(super) ruled: Option<Ruled>,
    pub(super) asked: Option<Asked>,
}

impl Permit {
    /// The terms of a call with this contract, which may ask where no rule does.
    pub(super) fn terms(self, contract: &Contract) -> Terms {
        match self {
            Self::Granted(ruled) => Terms { ruled, asked: Asked::by_contract(contract) },
            Self::Asks(asked) => Terms { ruled: Some(asked.ruled()), asked: Some(asked) },
        }
    }
}

/// What a question is about, beside what it says itself.
#[derive(Clone, Copy)]
pub(super) enum About<'v> {
    /// Nothing that touches anything.
    Nothing,
    /// A call that has been committed.
    Call(EffectId),
    /// A call with these arguments.
    Arguments(&'v Value),
    /// An action of the current state.
    Action,
}

impl<'a> Turn<'a> {
    /// Notes that an answer was used, and what brought the labels that it was about.
    pub(super) fn note(&mut self, verdict: &'a Verdict) {
        if !self.used.iter().any(|(used, _)| *used == verdict) {
            let origins = self.origins(&verdict.question);
            self.used.push((verdict, origins));
        }
    }

    /// What the policy says to something that can wait for a person.
    pub(super) fn permit(&mut self, question: &Question, about: About<'_>) -> Result<Permit, Failure> {
        let Some(verdict) = self.facts.verdict(question) else {
            if self.facts.allow_unasked {
                return Ok(Permit::Granted(None));
            }
            self.deny(question, Code::PolicyDenied, None, about);
            return Err(Failure::new(Code::PolicyDenied, "no rule was asked, so it is denied"));
        };
        self.note(verdict);
        match verdict.answer {
            Answer::Allow => Ok(Permit::Granted(Some(verdict.ruled()))),
            Answer::Ask => {
                let asking = verdict.asking.as_deref().cloned().unwrap_or_default();
                let Ruled { rule, version } = verdict.ruled();
                Ok(Permit::Asks(Asked { rule, version, reason: verdict.reason.clone(), asking }))
            }
            Answer::Deny => {
                self.deny(question, Code::PolicyDenied, Some(verdict.ruled()), about);
                let failure = Failure::new(Code::PolicyDenied, format!("rule `{}`: {}", verdict.rule, verdict.reason));
                let name = |name| Value::Str(std::sync::Arc::clone(name));
                let detail = [("rule", name(&verdict.rule)), ("version", name(&verdict.version))];
                Err(failure.detail(Value::object(detail)))
            }
        }
    }

    /// Whether the policy allows something that cannot wait for a person.
    pub(super) fn permitted(&mut self, question: &Question, about: About<'_>) -> Result<(), Failure> {
        match self.permit(question, about)? {
            Permit::Granted(_) => Ok(()),
            Permit::Asks(asked) => {
                self.deny(question, Code::PolicyDenied, Some(asked.ruled()), about);
                Err(Failure::new(
                    Code::PolicyDenied,
                    format!(
                        "rule `{}` asks for an approval, which only a call of a tool or a transition can wait for",
                        asked.rule
                    ),
                ))
            }
        }
    }

    /// The rule that lets an agent call a model, or the link of its chain, once nothing denied it.
    pub(super) fn model_ruled(&self, agent: &Agent, route: Option<&Choice>) -> Option<Ruled> {
        let question = match route {
            Some(route) => super::route::question(agent, &route.settings),
            None => self.model_question(agent),
        };
        self.facts.verdict(&question).map(Verdict::ruled)
    }

    /// The rule that lets a child start, once nothing denied it. A run that an older build began goes on without.
    pub(super) fn child_ruled(&self, machine: &Name) -> Option<Box<Ruled>> {
        let question = Question::StartMachine { machine: machine.clone() };
        let verdict = self.facts.verdict(&question).filter(|_| self.run.start.audit >= ALLOWED_VERSION)?;
        Some(Box::new(verdict.ruled()))
    }

    /// Records by which rule a call goes that was decided on before, where that is another one than then. A run that an older
    /// build began goes on without.
    pub(super) fn note_allowed(&mut self, effect: EffectId) {
        let open = self.run.calls.get(&effect).filter(|_| self.run.start.audit >= ALLOWED_VERSION);
        if let Some(ruled) = open.and_then(|open| self.ruled_anew(open)) {
            self.emit(Entry::CallAllowed { effect, ruled });
        }
    }

    /// Records that something is not let happen. A run that an older build began goes on without.
    pub(super) fn deny(&mut self, question: &Question, code: Code, ruled: Option<Ruled>, about: About<'_>) {
        if self.run.start.audit < RULED_VERSION {
            return;
        }
        let tool = match question {
            Question::CallTool { tool, labels, .. } => Some((tool, *labels)),
            Question::CallModel { .. } | Question::StartMachine { .. } | Question::TakeTransition { .. } => None,
        };
        let contract = tool.and_then(|(tool, _)| self.contract_named(tool));
        let resources = match (about, tool) {
            (About::Call(effect), _) => {
                self.run.calls.get(&effect).map(|open| open.resources.clone()).unwrap_or_default()
            }
            (About::Arguments(arguments), Some((tool, labels))) => self.touched(tool, arguments, labels),
            (About::Action, Some((action, labels))) => {
                let call = Call::Action { action: action.clone() };
                let arguments = request::arguments_of(self.machine, self.run, &call);
                arguments.map(|arguments| self.touched(action, &arguments, labels)).unwrap_or_default()
            }
            (About::Arguments(_) | About::Action | About::Nothing, _) => Vec::new(),
        };
        let effect = if let About::Call(effect) = about { Some(effect) } else { None };
        let class = contract.map(|contract| contract.class);
        let denial = Denial { question: question.clone(), code, ruled, effect, class, resources };
        self.emit(Entry::Denied(Box::new(denial)));
    }

    /// Whether a tool of the machine, or its input, may bring something `secret`.
    fn declares_secrets(&self) -> bool {
        let by_tool = self.machine.tools.values().any(|contract| !contract.flow.secret.is_empty());
        by_tool || !self.machine.provenance.secret_input.is_empty()
    }

    /// The ids of what a call of a tool or action touches, as its contract says. None of them is there in clear that is not
    /// shown, or where the arguments are `secret`.
    pub(super) fn touched(&self, tool: &str, arguments: &Value, labels: LabelSet) -> Vec<Resource> {
        let Some(contract) = self.machine.tools.get(tool).filter(|contract| !contract.resources.is_empty()) else {
            return Vec::new();
        };
        let mut hidden = Hidden::of(arguments, &contract.redact.arguments);
        hidden.join(self.run.hidden.clone());
        // Where labels are not kept, what came of something secret is not known.
        let may_be_secret = !self.run.labels.kept && self.declares_secrets();
        resource::of(arguments, &contract.resources, &hidden, may_be_secret || labels.contains(Label::Secret))
    }
}
