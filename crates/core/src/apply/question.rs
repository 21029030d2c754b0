//! How entries about questions to people change a run: asked, escalated, answered.

use super::{rows, with_loop};
use crate::approval;
use crate::audit;
use crate::effect::Call;
use crate::ids::EffectId;
use crate::resource::Resource;
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

pub(super) fn approval_asked(run: &mut Run, effect: EffectId, question: approval::Question) -> Option<audit::Row> {
    let call = run.calls.get_mut(&effect)?;
    let ruled = question.ruled();
    call.approval = Some(Box::new(question));
    let call = call.clone();
    Some(rows::asked(run, effect, &call, ruled))
}

pub(super) fn approval_answered(
    run: &mut Run,
    effect: EffectId,
    said: rows::Said<'_>,
    changed: Option<(&Value, &[Resource])>,
) -> Option<audit::Row> {
    let (now, held) = (run.now, run.hold.is_some());
    let rows::Said { answer, by, .. } = said;
    let call = run.calls.get_mut(&effect)?;
    let asked = call.approval.as_ref().map(|question| question.ruled());
    if answer == approval::Answer::Approved
        && let Some(ruled) = asked.as_ref().filter(|ruled| !ROOM.contains(&&*ruled.rule))
    {
        call.agreed = Some(ruled.rule.clone());
    }
    match &mut call.approval {
        Some(question) if held && answer == approval::Answer::Approved => question.granted = true,
        question => *question = None,
    }
    call.at = now;
    let mut told = None;
    if let (Some((changed, resources)), Call::Tool { tool, call_id, arguments, .. }) = (changed, &mut call.call) {
        *arguments = changed.clone();
        call.arguments = changed.digest();
        call.resources = resources.to_vec();
        told =
            Some(format!("The call {call_id} of tool `{tool}` was made with arguments that {by} changed: {changed}"));
    }
    let call = call.clone();
    if let Some(told) = told {
        // The model reads it after the turn: it must not go on as if its own arguments had been used.
        with_loop(run, |state, _| state.steering.push(Message::User { content: told.into() }));
    }
    Some(rows::answered(run, effect, &call, said, (asked, changed.is_some())))
}
