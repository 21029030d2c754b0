//! How entries about questions to people change a run: asked, escalated, answered.

use super::{row, with_loop};
use crate::approval;
use crate::audit;
use crate::effect::Call;
use crate::ids::{Digest, EffectId, Name};
use crate::run::Run;
use crate::transcript::Message;
use crate::value::Value;

/// Under which a person is asked for room in a budget or a ceiling, not whether the call may leave.
const ROOM: [&str; 2] = ["budget", "ceiling"];

pub(super) fn may_escalate(run: &mut Run, wait: EffectId, terms: Option<&approval::Escalation>) {
    if let Some(terms) = terms {
        run.escalating.insert(wait, approval::Escalating { terms: terms.clone(), level: 0 });
    }
}

/// The audit row of a question about a transition. What it does to the world is not known: it counts as a write.
pub(super) fn transition_row(
    run: &mut Run,
    wait: EffectId,
    (from, to): (&Name, &Name),
    shown: Digest,
    stage: &str,
    result: &Name,
) -> audit::Row {
    let row = audit::Row {
        v: run.start.audit.max(1),
        number: run.audit.rows + 1,
        effect: wait,
        attempt: 1,
        stage: stage.into(),
        kind: "transition".into(),
        target: format!("{from}->{to}").into(),
        class: "write".into(),
        arguments: shown,
        result: Some(result.clone()),
        owner: None,
        plan: None,
        worker: run.worker.clone().filter(|_| run.start.audit >= audit::WHERE_VERSION),
        at: run.now,
        previous: run.audit.head,
    };
    run.audit = audit::Chain { rows: row.number, head: row.hash() };
    row
}

pub(super) fn approval_asked(run: &mut Run, effect: EffectId, question: approval::Question) -> Option<audit::Row> {
    let call = run.calls.get_mut(&effect)?;
    let rule = question.rule.clone();
    call.approval = Some(Box::new(question));
    let call = call.clone();
    Some(row(run, effect, &call, "asked", Some(rule)))
}

pub(super) fn approval_answered(
    run: &mut Run,
    effect: EffectId,
    answer: approval::Answer,
    by: &Name,
    changed: Option<&Value>,
) -> Option<audit::Row> {
    let (now, held) = (run.now, run.hold.is_some());
    let call = run.calls.get_mut(&effect)?;
    let asked = call.approval.as_ref().map(|question| question.rule.clone());
    if answer == approval::Answer::Approved
        && let Some(rule) = asked.filter(|rule| !ROOM.contains(&&**rule))
    {
        call.agreed = Some(rule);
    }
    match &mut call.approval {
        Some(question) if held && answer == approval::Answer::Approved => question.granted = true,
        question => *question = None,
    }
    call.at = now;
    let mut told = None;
    if let (Some(changed), Call::Tool { tool, call_id, arguments, .. }) = (changed, &mut call.call) {
        *arguments = changed.clone();
        call.arguments = changed.digest();
        told =
            Some(format!("The call {call_id} of tool `{tool}` was made with arguments that {by} changed: {changed}"));
    }
    let call = call.clone();
    if let Some(told) = told {
        // The model reads it after the turn: it must not go on as if its own arguments had been used.
        with_loop(run, |state, _| state.steering.push(Message::User { content: told.into() }));
    }
    Some(row(run, effect, &call, answer.as_str(), Some(by.clone())))
}
