//! Tools that go by plans: a call without a plan shows what it would do, and the plan is applied once, with the same
//! arguments, before it expires.
//!
//! A plan is an entry of the run. Its id is a hash of what it is bound to, so that no other run and no other arguments
//! come to it.

use super::permit::Terms;
use super::{About, Turn, labels};
use crate::approval;
use crate::contract::{Class, Contract, Idempotency, PLAN_ID, Plan, PlanStep};
use crate::effect::{Call, OpenCall, Outcome};
use crate::failure::{Code, Failure};
use crate::ids::{Digest, Name};
use crate::journal::Entry;
use crate::label::LabelSet;
use crate::limits::PLANS_MAX;
use crate::policy::{Question, Ruled};
use crate::run::LoopState;
use crate::transcript::ToolRequest;
use crate::value::Value;

/// The plan that a call names, of a tool that goes by plans.
pub(super) fn named(contract: &Contract, request: &ToolRequest) -> Option<Name> {
    contract.plan.as_ref()?;
    match request.arguments.get(PLAN_ID)? {
        Value::Null => None,
        Value::Str(id) => Some(id.clone()),
        other => Some(other.to_json().into()),
    }
}

/// Whether a call names a plan of a tool that has none, and that knows no such argument: its model believes that somebody has
/// looked at what cannot be undone.
fn is_made_up(contract: &Contract, request: &ToolRequest) -> bool {
    let declared = contract.input_schema.get("properties").and_then(|properties| properties.get(PLAN_ID));
    contract.class == Class::Danger && declared.is_none() && request.arguments.get(PLAN_ID).is_some()
}

/// The arguments of a call as the tool gets them: without the plan.
pub(super) fn plain(contract: &Contract, request: &ToolRequest) -> Value {
    match (&contract.plan, &request.arguments) {
        (Some(_), Value::Map(map)) => {
            let kept = map.iter().filter(|(key, _)| &***key != PLAN_ID);
            Value::map(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        (Some(_) | None, arguments) => arguments.clone(),
    }
}

/// The tool that shows what a call would do, when that is another one and the call asks for it.
pub(super) fn planner<'a>(contract: &'a Contract, request: &ToolRequest) -> Option<&'a Name> {
    match &contract.plan.as_ref()?.step {
        PlanStep::Tool(tool) if named(contract, request).is_none() => Some(tool),
        PlanStep::Tool(_) | PlanStep::Argument(_) => None,
    }
}

/// What a tool is sent to show what a call would do, when it shows that itself and the call asks for it.
pub(super) fn showing(contract: &Contract, request: &ToolRequest) -> Option<Value> {
    let PlanStep::Argument(argument) = &contract.plan.as_ref()?.step else { return None };
    named(contract, request).is_none().then(|| {
        let mut with = plain(contract, request).as_map().cloned().unwrap_or_default();
        with.insert(argument.clone(), Value::Bool(true));
        Value::map(with)
    })
}

/// The question that showing puts to the policy.
pub(super) fn question(agent: &Name, tool: &Name, arguments: &Value, labels: LabelSet) -> Question {
    let (tool, arguments) = (tool.clone(), arguments.digest());
    Question::CallTool { tool, arguments, agent: Some(agent.clone()), labels }
}

/// Parameters and description of a tool as a model sees them.
pub(super) fn offered(contract: &Contract, parameters: Value) -> (Value, Name) {
    if contract.plan.is_none() {
        return (parameters, contract.description.clone());
    }
    let property = Value::object([
        ("type", Value::str("string")),
        ("description", Value::str("The plan to apply, as the first call answered it.")),
    ]);
    let mut with = parameters.as_map().cloned().unwrap_or_default();
    let mut properties = with.get("properties").and_then(Value::as_map).cloned().unwrap_or_default();
    properties.insert(PLAN_ID.into(), property);
    with.insert("properties".into(), Value::map(properties));
    let description = format!(
        "{} Works in two calls: without `{PLAN_ID}` it changes nothing and answers a plan; with the same arguments and \
         the `{PLAN_ID}` of that plan it does what the plan says.",
        contract.description
    );
    (Value::map(with), description.trim().into())
}

impl Turn<'_> {
    /// The tool that a call of the model goes to: the one that shows what it would do, or the tool itself.
    pub(super) fn asked_tool(&self, request: &ToolRequest) -> Name {
        let planner = self.machine.tools.get(&request.name).and_then(|contract| planner(contract, request));
        planner.unwrap_or(&request.name).clone()
    }

    /// Whether a call has to be shown before it can be made.
    pub(super) fn wants_plan(&self, request: &ToolRequest) -> bool {
        let contract = self.machine.tools.get(&request.name);
        contract.is_some_and(|contract| contract.plan.is_some() && named(contract, request).is_none())
    }

    /// Why a call cannot apply the plan that it names, or have one made.
    pub(super) fn plan_refusal(&self, request: &ToolRequest) -> Option<String> {
        let contract = self.machine.tools.get(&request.name)?;
        if contract.plan.is_none() {
            return is_made_up(contract, request)
                .then(|| format!("`{}` has no plans; call it without `{PLAN_ID}`", request.name));
        }
        let again = format!("call it without `{PLAN_ID}` to have another one made");
        let Some(id) = named(contract, request) else {
            let full = self.run.plans.len() >= PLANS_MAX;
            return full.then(|| format!("this run has made {PLANS_MAX} plans, which is the most"));
        };
        let Some(plan) = self.run.plans.get(&id) else {
            return Some(format!("there is no plan `{id}` in this run; {again}"));
        };
        if plan.tool != request.name {
            return Some(format!("the plan `{id}` is for the tool `{}`; {again}", plan.tool));
        }
        if plan.arguments != plain(contract, request).digest() {
            return Some(format!("the plan `{id}` was made for other arguments; {again}"));
        }
        if plan.applied {
            return Some(format!("the plan `{id}` was applied already, and is applied once; {again}"));
        }
        (plan.expires_at <= self.facts.now).then(|| format!("the plan `{id}` has expired; {again}"))
    }

    /// Why a call can no longer apply its plan, as its model reads it.
    pub(super) fn stale_plan(&self, open: &OpenCall) -> Option<String> {
        let why = self.expired_plan(open)?;
        Some(format!("Tool '{}' was not called: {why}", open.call.target()))
    }

    /// Why a call can no longer apply its plan.
    pub(super) fn expired_plan(&self, open: &OpenCall) -> Option<String> {
        let id = open.call.plan()?;
        let expired = self.run.plans.get(id).is_none_or(|plan| plan.expires_at <= self.facts.now);
        expired.then(|| format!("the plan `{id}` expired before the call left; call it without `{PLAN_ID}`"))
    }

    /// Shows what a call would do, which changes nothing. `ruled` lets the call itself go.
    pub(super) fn intend_plan(
        &mut self,
        agent: &Name,
        looping: &LoopState,
        request: &ToolRequest,
        ruled: Option<Ruled>,
    ) -> Result<(), Failure> {
        let Some(contract) = self.machine.tools.get(&request.name).cloned() else { return Ok(()) };
        let Some(planning) = &contract.plan else { return Ok(()) };
        let have = labels::arguments(self.run, true);
        let (contract, tool, arguments, terms) = match &planning.step {
            PlanStep::Argument(_) => {
                let with = showing(&contract, request).unwrap_or_default();
                let mut ruled = ruled;
                if self.facts.reads_arguments {
                    // What is sent is not what was asked about. A rule that asks asks when the plan is applied.
                    let question = question(agent, &request.name, &with, have);
                    let permit = self.permit(&question, About::Arguments(&with))?;
                    ruled = permit.terms(&Contract::undeclared(&request.name)).ruled;
                }
                let shows = Contract {
                    class: Class::Read,
                    idempotency: Idempotency::Natural,
                    approval: approval::Terms::default(),
                    plan: None,
                    ..Contract::clone(&contract)
                };
                (shows, request.name.clone(), with, Terms { ruled, asked: None })
            }
            PlanStep::Tool(tool) => {
                let Some(shows) = self.machine.tools.get(tool).filter(|shows| shows.class == Class::Read).cloned()
                else {
                    let message = format!("there is no tool `{tool}` of class `read` that shows what it would do");
                    return Err(Failure::new(Code::PolicyDenied, message));
                };
                let arguments = plain(&contract, request);
                let question = question(agent, tool, &request.arguments, have);
                let terms = self.permit(&question, About::Arguments(&arguments))?.terms(&shows);
                (Contract::clone(&shows), tool.clone(), arguments, terms)
            }
        };
        let timeout_ms = match looping.bounds.tool_timeout_ms {
            0 => contract.timeout_ms,
            ms => ms.min(contract.timeout_ms),
        };
        let call = Call::Tool { tool, call_id: request.id.clone(), arguments, hook: None, plan: None };
        self.intend(call, &contract, timeout_ms, terms)
    }

    /// What was shown becomes a plan, and the model reads how to apply it. None for a call that was no showing, or failed.
    pub(super) fn plan_made(&mut self, request: &ToolRequest, outcome: &Outcome) -> Option<(Name, bool)> {
        let Outcome::Returned(preview) = outcome else { return None };
        if !self.wants_plan(request) {
            return None;
        }
        let contract = self.machine.tools.get(&request.name)?;
        let expires_ms = contract.plan.as_ref()?.expires_ms;
        let plan = Plan {
            tool: request.name.clone(),
            arguments: plain(contract, request).digest(),
            preview: preview.digest(),
            expires_at: self.facts.now.plus_ms(expires_ms),
            applied: false,
        };
        let id = self.plan_id(request, &plan);
        self.emit(Entry::PlanMade { id: id.clone(), plan });
        let next = format!("call `{}` again with the same arguments and this {PLAN_ID} to do it", request.name);
        let content = Value::object([
            (PLAN_ID, Value::Str(id)),
            ("plan", preview.clone()),
            ("expires_in_seconds", Value::count(expires_ms / 1_000)),
            ("next", Value::str(next)),
        ]);
        Some((content.to_json().into(), false))
    }

    /// The id of a plan: a hash of the run, the call, and everything that it is bound to.
    fn plan_id(&self, request: &ToolRequest, plan: &Plan) -> Name {
        let text = |text: &str| Value::str(text);
        let digest: Digest = Value::list(vec![
            text("windlass.plan.v1"),
            text(self.run.id().as_str()),
            Value::count(self.run.version),
            text(&request.id),
            text(&plan.tool),
            text(&plan.arguments.to_string()),
            text(&plan.preview.to_string()),
            Value::count(plan.expires_at.0),
        ])
        .digest();
        format!("plan-{}", &digest.to_string()[..24]).into()
    }
}
