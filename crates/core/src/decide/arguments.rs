//! The arguments that questions to the policy name by their hash: what is looked at where a rule looks at arguments.

use std::collections::BTreeMap;

use super::{Decision, Rejected, decide, plan};
use crate::effect::{Call, Outcome};
use crate::eval::Evaluator;
use crate::ids::Digest;
use crate::input::{Facts, Input};
use crate::machine::Machine;
use crate::policy::Question;
use crate::run::{Run, SampleState};
use crate::transcript::ToolRequest;
use crate::value::Value;

/// A question about arguments that a decision filled in itself, with those arguments.
pub type Filled = (Question, Value);

/// The arguments of tool calls that a run may come to ask about, by the hashes that its questions name: of calls that are
/// open, that a model wants, and that `input` brings.
#[must_use]
pub fn arguments(machine: &Machine, run: &Run, input: Option<&Input>) -> BTreeMap<Digest, Value> {
    let mut found = BTreeMap::new();
    let mut add = |arguments: &Value| drop(found.insert(arguments.digest(), arguments.clone()));
    let requests = |requests: &[ToolRequest], add: &mut dyn FnMut(&Value)| {
        for request in requests {
            add(&request.arguments);
            // What leaves is without the plan that it names.
            if let Some(contract) = machine.tools.get(&request.name).filter(|contract| contract.plan.is_some()) {
                add(&plan::plain(contract, request));
                plan::showing(contract, request).iter().for_each(&mut *add);
            }
        }
    };
    match input {
        Some(Input::Settled { outcome: Outcome::Replied(reply), .. }) => requests(&reply.tool_calls, &mut add),
        Some(Input::Approved(reply)) => reply.arguments.iter().for_each(&mut add),
        _ => {}
    }
    for open in run.calls.values() {
        if let Call::Tool { arguments, .. } = &open.call {
            add(arguments);
        }
    }
    if let Some(exec) = &run.exec {
        let pending = exec.tools.iter().flat_map(|looping| &looping.pending);
        pending.for_each(|pending| requests(std::slice::from_ref(&pending.request), &mut add));
        for sample in &exec.samples {
            if let SampleState::Answered(reply) = &sample.state {
                requests(&reply.tool_calls, &mut add);
            }
        }
    }
    found
}

/// Decides as [`decide`] does, where rules may look at arguments that the decision fills in itself: those of a tool that a
/// state calls. What it asks about them is put to `answer`, which gives the facts with answers to that too, and it is decided
/// anew from the beginning.
///
/// # Errors
/// The input does not apply to the run as it is.
pub fn decide_asking(
    machine: &Machine,
    evaluator: &dyn Evaluator,
    run: &mut Run,
    input: Input,
    mut facts: Facts,
    mut answer: impl FnMut(Facts, &Run, &Input, &[Filled]) -> Facts,
) -> Result<Decision, Rejected> {
    let fills = facts.reads_arguments && machine.states.values().any(|state| state.arguments.is_some());
    if !fills {
        return decide(machine, evaluator, run, input, &facts);
    }
    let (before, mut asked) = (run.clone(), Vec::new());
    loop {
        let decision = decide(machine, evaluator, run, input.clone(), &facts)?;
        let known = asked.len();
        for filled in &decision.unanswered {
            if !asked.contains(filled) {
                asked.push(filled.clone());
            }
        }
        if asked.len() == known {
            return Ok(decision);
        }
        *run = before.clone();
        facts = answer(facts, run, &input, &asked);
    }
}
