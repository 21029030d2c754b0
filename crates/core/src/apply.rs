//! How entries change a run. Total: every entry that a decision made applies, and nothing is evaluated.

mod conversation;
mod routes;
mod rows;
mod begin;
mod children;
mod question;
mod raise;

use std::sync::Arc;

use crate::approval;
use crate::audit;
use crate::budget::{Amounts, Ledger, Meter};
use crate::effect::{Call, OpenCall, OpenWait, Outcome, WaitKind};
use crate::escrow::{Asked, Share};
use crate::failure::Code;
use crate::ids::{Digest, EffectId, Name};
use crate::journal::Entry;
use crate::label;
use crate::machine::HookKind;
use crate::overrides;
use crate::policy::Ruled;
use crate::route::Choice;
use crate::run::{HookChain, LoopState, PendingState, PendingTool, Run, Sample, SampleState, Stage, Start};
use crate::time::Timestamp;
use crate::took;
use crate::transcript::{Message, ToolRequest};
use crate::value::Value;
use children::{child_settled, child_started};
use question::{approval_answered, approval_asked, may_escalate};

use routes::{count_tier, escalated, note_prefix, routed};

/// Applies one entry. Gives back the audit row that belongs to it, if one does.
#[expect(clippy::too_many_lines, reason = "one arm for each entry, so that the compiler lists what is missing")]
pub fn apply(run: &mut Run, entry: &Entry) -> Option<audit::Row> {
    took::note(run, entry);
    match entry {
        Entry::Decided { at, by, basis, verdicts, .. } => {
            run.version += 1;
            run.now = run.now.max(*at);
            run.worker = by.clone().or(run.worker.take());
            run.basis = basis.clone().or(run.basis.take());
            run.keep_choice(verdicts);
        }
        Entry::RunStarted(start) => return started(run, start),
        Entry::ContextChanged { set, removed } => change_context(run, set, removed),
        Entry::LabelsChanged { cleared, marks } => run.labels = run.labels.changed(cleared, marks),
        Entry::ValuesHidden { hidden } => run.hidden.join(hidden.clone()),
        Entry::StateEntered { state } => entered(run, state),
        Entry::StageReached { stage } => run.stage = stage.clone(),
        Entry::HooksStarted { event, detail } => {
            run.hooks = Some(HookChain { event: *event, detail: detail.clone(), passed: 0, call: None, answer: None });
        }
        Entry::HookPassed { detail } => {
            if let Some(chain) = &mut run.hooks {
                chain.passed += 1;
                chain.detail = detail.clone();
                chain.call = None;
                chain.answer = None;
            }
        }
        Entry::HooksEnded => run.hooks = None,
        Entry::OutputProduced { output } => run.output = output.clone(),
        Entry::CallIntended { effect, call } => return Some(intended(run, *effect, call)),
        Entry::AttemptStarted { effect, attempt, reserved, route, arguments, wants, output_max, ruled } => {
            if let Some(call) = run.calls.get_mut(effect) {
                call.wants = *wants;
                call.output_max = output_max.or(call.output_max);
                call.ruled = ruled.clone().or(call.ruled.take());
            }
            return attempted(run, *effect, *attempt, reserved, route.as_deref(), *arguments);
        }
        Entry::AttemptFailed { effect, failure, used, estimated, backoff, .. } => {
            return attempt_failed(run, *effect, failure.code.as_str(), used, *estimated, *backoff);
        }
        Entry::ApprovalAsked { effect, wait, rule, version, reason, escalation } => {
            may_escalate(run, *wait, escalation.as_ref());
            let (rule, version, reason) = (rule.clone(), version.clone(), reason.clone());
            let question = approval::Question { wait: *wait, rule, version, reason, granted: false };
            return approval_asked(run, *effect, question);
        }
        Entry::ApprovalAnswered { effect, answer, by, reason, arguments, resources } => {
            let said = rows::Said { answer: *answer, by, reason };
            return approval_answered(run, *effect, said, arguments.as_ref().map(|new| (new, &**resources)));
        }
        Entry::CallAllowed { effect, ruled } => return rows::allowed(run, *effect, ruled),
        Entry::RoomHeld { effect } => room_held(run, *effect),
        Entry::ApprovalEscalated { wait, level, to } => {
            if let Some(escalating) = run.escalating.get_mut(wait) {
                escalating.level = *level;
            }
            return rows::escalated(run, *wait, to);
        }
        Entry::TransitionAnswered { wait, from, to, answer, by, shown, reason } => {
            let said = rows::Said { answer: *answer, by, reason };
            return Some(rows::transition_answered(run, *wait, (from, to), *shown, said));
        }
        Entry::Denied(denial) => return rows::denied(run, denial),
        Entry::PlanMade { id, plan } => {
            run.plans.insert(id.clone(), plan.clone());
        }
        Entry::PlanApplied { id } => {
            if let Some(plan) = run.plans.get_mut(id) {
                plan.applied = true;
            }
        }
        Entry::DrawAwaited { effect } => {
            if let Some(call) = run.calls.get_mut(effect) {
                call.draws = true;
                call.approval = None;
            }
        }
        Entry::DrawAsked { number, call, shares } => {
            named(run, *number);
            run.escrow.ask(Asked { number: *number, call: *call, shares: shares.clone() });
        }
        Entry::DrawAnswered { answer, .. } => run.escrow.answered(answer),
        Entry::ShareHeld { effect, shares } => share_held(run, *effect, shares),
        Entry::SharesReturned { number } => {
            named(run, *number);
            run.escrow.returned(*number);
        }
        Entry::DoubtRaised { effect, doubt } => {
            if let Some(call) = run.calls.get_mut(effect) {
                call.doubt = Some(doubt.clone());
            }
            return rows::doubted(run, *effect, doubt);
        }
        Entry::DoubtResolved { effect, found, by } => return rows::resolved(run, *effect, found, by.as_ref()),
        Entry::CallSettled { effect, outcome, used, estimated, .. } => {
            return settled(run, *effect, outcome, used, *estimated);
        }
        Entry::CallAbandoned { effect, used, estimated } => return abandoned(run, *effect, used, *estimated),
        Entry::WaitOpened { effect, wait } => {
            named(run, *effect);
            run.waits.insert(*effect, OpenWait { at: kept_time(run), ..wait.clone() });
            if let WaitKind::Transition { from, to, rule, version, shown, escalation, .. } = &wait.kind {
                may_escalate(run, *effect, escalation.as_ref());
                let ruled = Ruled { rule: rule.clone(), version: version.clone() };
                return Some(rows::transition_asked(run, *effect, (from, to), *shown, ruled));
            }
        }
        Entry::WaitClosed { effect, .. } => {
            run.waits.remove(effect);
            run.escalating.remove(effect);
        }
        Entry::TimerSet { effect, timer } => {
            named(run, *effect);
            run.timers.insert(*effect, *timer);
        }
        Entry::TimerEnded { effect, .. } => {
            run.timers.remove(effect);
        }
        Entry::JoinStarted { join } => run.join = Some(join.clone()),
        Entry::ChildStarted { child, slot } => {
            child_started(run, child, *slot);
            return rows::child_allowed(run, child);
        }
        Entry::ChildSettled { child, ending, used } => child_settled(run, child, ending, used),
        Entry::ChildRaised { child, amounts } => raise::child(run, child, amounts),
        Entry::ChildCancelled { child, .. } => {
            if let Some(open) = run.children.get_mut(child) {
                open.cancelled = true;
            }
        }
        Entry::JoinEnded => leave_join(run),
        Entry::AgentStarted { exec } => run.exec = Some(exec.clone()),
        Entry::ToolsListed { tools } => with_loop(run, |state, _| state.offered = Some(tools.clone())),
        Entry::MessagesAdded { sample, messages, repair } => messages_added(run, *sample, messages, *repair),
        Entry::SampleDone { sample, output } => set_sample(run, *sample, SampleState::Done(output.clone())),
        Entry::Escalated { sample, raised } => escalated(run, *sample, raised),
        Entry::SampleFailed { sample, failure } => set_sample(run, *sample, SampleState::Failed(failure.clone())),
        Entry::SampleAdded => {
            if let Some(exec) = &mut run.exec {
                exec.samples.push(Sample::default());
            }
        }
        Entry::TurnTaken { message, pending, cost_micros } => turn_taken(run, message, pending, *cost_micros),
        Entry::ToolCallsSeen { skip } => with_loop(run, |state, _| {
            state.seen = true;
            state.skip.clone_from(skip);
        }),
        Entry::ToolAnswered { index, content, is_error, counted } => {
            tool_answered(run, *index, content, *is_error, *counted);
        }
        Entry::ToolPassed { index, steering } => with_loop(run, |state, _| {
            state.steering.extend(steering.iter().cloned());
            if let Some(pending) = state.pending.get_mut(*index as usize) {
                pending.state = PendingState::Done;
            }
        }),
        Entry::BreakerTripped { is_agent: true, .. } => run.pulse.calm(),
        Entry::BreakerTripped { target, why, .. } => conversation::shut_off(run, target, why),
        Entry::LoopStopped { reason, to } => {
            // What a table of the state has said goes before what the loop found.
            if let Some(to) = to {
                run.jump.get_or_insert_with(|| to.clone());
            }
            with_loop(run, |state, _| state.stop = Some(reason.clone()));
        }
        Entry::RowFired { to, .. } => run.jump.clone_from(to),
        Entry::SkillUsed(used) => crate::skill::note(run, used),
        Entry::AgentEnded => conversation::ended(run),
        Entry::TransitionTaken { .. } => {}
        Entry::StateSkipped { state, by, reason } => return rows::overridden(run, ("state", state), None, by, reason),
        Entry::FailureRaised { failure } => {
            run.failure = Some(failure.clone());
            run.hooks = None;
            leave_join(run);
            leave_agent(run);
            run.jump = None;
        }
        Entry::FailureRouted { from, by, .. } => conversation::routed(run, from, by),
        Entry::ConversationNear { .. } => conversation::near(run),
        Entry::HoldPlaced { hold } => run.hold = Some(hold.clone()),
        Entry::HoldLifted => hold_lifted(run),
        Entry::CancelRequested { reason } => run.cancel = Some(reason.clone()),
        Entry::CeilingNear { meter, .. } => run.warned.push(*meter),
        Entry::CeilingsChanged { ceilings, by } => {
            let (gone_ms, new) = (gone_before(&run.start), rows::changed(&run.ledger.ceilings, ceilings));
            change_ceilings(&mut run.ledger, ceilings, (run.started_at, gone_ms));
            return rows::overridden(run, ("ceilings", &"run".into()), Some(new), by, "");
        }
        Entry::EndingDecided { ending } => {
            run.ending = Some(ending.clone());
            run.stage = Stage::Draining;
            run.hooks = None;
            leave_join(run);
            leave_agent(run);
            run.jump = None;
        }
        Entry::RunEnded => run.stage = Stage::Ended,
        Entry::RunReopened => begin::reopened(run),
        Entry::ModelChanged(change) => {
            overrides::apply(run, change);
            let agent = change.agent.clone().unwrap_or_else(|| "*".into());
            let to = change.to.as_ref().map(|to| format!("{}/{}", to.provider, to.model).into());
            return rows::overridden(run, ("model", &agent), to, &change.by, &change.reason);
        }
        Entry::Migrated { bundle, machine } => begin::migrated(run, *bundle, machine),
    }
    None
}

/// How long the run that a fork starts from had gone on, in milliseconds: so much less time has the fork.
fn gone_before(start: &Start) -> u64 {
    start.origin.as_ref().map_or(0, |origin| origin.elapsed_ms)
}

fn started(run: &mut Run, start: &Start) -> Option<audit::Row> {
    run.start = start.clone();
    run.started_at = run.now;
    run.started = true;
    let gone_ms = gone_before(start);
    let own = start.ceilings.wall_ms.map(|ms| run.now.plus_ms(ms.saturating_sub(gone_ms)));
    let deadline = match (own, start.deadline) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    };
    run.ledger = Ledger { ceilings: start.ceilings, deadline, ..Ledger::default() };
    if let Some(origin) = &start.origin {
        begin::forked(run, origin);
    }
    // A run that began before there was such a row has none, however often its journal is folded.
    (start.audit > 0).then(|| begin::first_row(run))
}

fn change_context(run: &mut Run, set: &[(Name, Value)], removed: &[Name]) {
    if run.labels.kept {
        for key in removed {
            run.labels.marks.clear(&label::path(["context", &**key]));
        }
    }
    if let Value::Map(map) = &mut run.context {
        let map = Arc::make_mut(map);
        for key in removed {
            map.shift_remove(key);
        }
        for (key, value) in set {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// A conversation that is over has no labels of its own: what came of it has them.
fn leave_agent(run: &mut Run) {
    run.exec = None;
    run.labels.empty("asked");
}

/// Children that still run no longer belong to a join: their endings must not count in a later one.
fn leave_join(run: &mut Run) {
    run.labels.empty("join");
    if run.join.take().is_some() {
        for child in run.children.values_mut() {
            child.slot = None;
        }
    }
}

fn entered(run: &mut Run, state: &Name) {
    run.step += 1;
    run.ledger.charge(&Amounts::ZERO.with(Meter::Steps, 1));
    run.state = Some(state.clone());
    run.entered_at = kept_time(run);
    run.stage = Stage::Entering;
    run.output = Value::Null;
    run.ordinal = 0;
    run.hooks = None;
    leave_join(run);
    leave_agent(run);
    run.labels.empty("output");
    run.jump = None;
    run.failure = None;
}

/// The time, for a run that keeps when what is open began.
fn kept_time(run: &Run) -> Timestamp {
    if run.start.audit >= audit::WHERE_VERSION { run.now } else { Timestamp::default() }
}

fn named(run: &mut Run, effect: EffectId) {
    run.effects = run.effects.max(effect.0);
}

fn intended(run: &mut Run, effect: EffectId, call: &OpenCall) -> audit::Row {
    named(run, effect);
    run.ledger.reserve(&call.reserved);
    match &call.call {
        Call::Model { sample, .. } => {
            routed(run, *sample, call);
            set_sample(run, *sample, SampleState::Calling(effect));
        }
        Call::Tool { call_id, .. } if run.hooks.is_none() => with_loop(run, |state, _| {
            if let Some(pending) = wanted(state, call_id) {
                pending.state = PendingState::Calling(effect);
            }
        }),
        Call::Hook { .. } | Call::Action { .. } | Call::Tool { .. } => {
            if let Some(chain) = &mut run.hooks {
                chain.call = Some(effect);
            }
        }
        Call::Verify { .. } => {}
    }
    run.calls.insert(effect, call.clone());
    rows::intended(run, effect, call)
}

fn wanted<'a>(state: &'a mut LoopState, call_id: &Name) -> Option<&'a mut PendingTool> {
    state.pending.iter_mut().find(|p| p.request.id == *call_id && p.state == PendingState::Wanted)
}

fn attempted(
    run: &mut Run,
    effect: EffectId,
    attempt: u32,
    reserved: &Amounts,
    route: Option<&Choice>,
    arguments: Option<Digest>,
) -> Option<audit::Row> {
    let now = run.now;
    let call = run.calls.get_mut(&effect)?;
    run.ledger.reserved.subtract(&call.reserved);
    run.ledger.reserve(reserved);
    call.attempt = attempt;
    call.reserved = *reserved;
    call.backoff = None;
    call.doubt = None;
    call.at = now;
    if let Some(route) = route {
        if call.route.as_ref().is_none_or(|before| before.name != route.name) {
            call.cached_expected = call.cached_expected.map(|_| 0);
        }
        call.timeout_ms = route.settings.timeout_ms;
        call.route = Some(Box::new(route.clone()));
    }
    if let Some(arguments) = arguments {
        call.arguments = arguments;
    }
    let call = call.clone();
    if let Call::Model { sample, .. } = &call.call
        && route.is_some()
    {
        routed(run, *sample, &call);
    }
    Some(rows::intended(run, effect, &call))
}

fn attempt_failed(
    run: &mut Run,
    effect: EffectId,
    code: &str,
    used: &Amounts,
    estimated: bool,
    backoff: Option<EffectId>,
) -> Option<audit::Row> {
    let call = run.calls.get_mut(&effect)?;
    let reserved = std::mem::take(&mut call.reserved);
    call.backoff = backoff;
    call.losses += u32::from(code == Code::RunAttemptLost.as_str());
    let held = std::mem::take(&mut call.held);
    let call = call.clone();
    if run.start.watched && matches!(call.call, Call::Model { .. }) {
        run.pulse.attempt_failed(run.now);
    }
    run.escrow.settle(call.call.target(), &held, used);
    run.ledger.settle(&reserved, used, estimated);
    note(run, call.call.target(), used);
    count_tier(run, &call, used);
    Some(rows::row(run, effect, &call, "failed", Some(code.into())))
}

fn share_held(run: &mut Run, effect: EffectId, shares: &[Share]) {
    let now = run.now;
    if let Some(call) = run.calls.get_mut(&effect) {
        call.held = shares.to_vec();
        // It leaves only now.
        if std::mem::take(&mut call.draws) {
            call.at = now;
        }
        run.escrow.hold(shares);
    }
}

fn note(run: &mut Run, driver: &Name, used: &Amounts) {
    if run.start.watched {
        run.ledger.note(driver, used);
    }
}

fn room_held(run: &mut Run, effect: EffectId) {
    let now = run.now;
    if let Some(call) = run.calls.get_mut(&effect) {
        call.reserved = std::mem::take(&mut call.wants);
        call.approval = None;
        call.at = now;
        run.ledger.reserve(&call.reserved);
    }
}

fn hold_lifted(run: &mut Run) {
    run.hold = None;
    for call in run.calls.values_mut().filter(|call| call.approval.as_ref().is_some_and(|asked| asked.granted)) {
        call.approval = None;
        call.at = run.now;
    }
}

fn settled(run: &mut Run, effect: EffectId, outcome: &Outcome, used: &Amounts, estimated: bool) -> Option<audit::Row> {
    let call = run.calls.remove(&effect)?;
    run.ledger.settle(&call.reserved, used, estimated);
    note(run, call.call.target(), used);
    run.escrow.settle(call.call.target(), &call.held, used);
    count_tier(run, &call, used);
    match &call.call {
        Call::Model { sample, .. } => {
            let state = match outcome {
                Outcome::Replied(reply) => {
                    run.api_calls += 1;
                    note_prefix(run, *sample, &call, &reply.usage);
                    SampleState::Answered(reply.clone())
                }
                Outcome::Failed(failure) => SampleState::Broken(failure.clone()),
                Outcome::Returned(_) => SampleState::Wanted,
            };
            set_sample(run, *sample, state);
        }
        Call::Tool { .. } if run.hooks.as_ref().is_none_or(|chain| chain.call != Some(effect)) => {
            with_loop(run, |state, _| {
                if let Some(pending) = state.pending.iter_mut().find(|p| p.state == PendingState::Calling(effect)) {
                    pending.state = PendingState::Settled(outcome.clone());
                }
            })
        }
        Call::Hook { .. } | Call::Action { .. } | Call::Tool { .. } => {
            if let Some(chain) = run.hooks.as_mut().filter(|chain| chain.call == Some(effect)) {
                chain.call = None;
                chain.answer = Some(outcome.clone());
            }
        }
        Call::Verify { .. } => {}
    }
    if run.start.watched {
        run.pulse.settled(&call, outcome, run.now);
    }
    Some(rows::settled(run, effect, &call, outcome))
}

fn abandoned(run: &mut Run, effect: EffectId, used: &Amounts, estimated: bool) -> Option<audit::Row> {
    let call = run.calls.remove(&effect)?;
    run.ledger.settle(&call.reserved, used, estimated);
    note(run, call.call.target(), used);
    run.escrow.settle(call.call.target(), &call.held, used);
    count_tier(run, &call, used);
    Some(rows::row(run, effect, &call, "abandoned", None))
}

fn set_sample(run: &mut Run, index: u32, state: SampleState) {
    if let Some(sample) = run.exec.as_mut().and_then(|exec| exec.samples.get_mut(index as usize)) {
        sample.state = state;
    }
}

fn with_loop(run: &mut Run, change: impl FnOnce(&mut LoopState, &mut Vec<Message>)) {
    if let Some(exec) = &mut run.exec
        && let Some(state) = &mut exec.tools
        && let Some(sample) = exec.samples.first_mut()
    {
        change(state, &mut sample.tail);
    }
}

fn messages_added(run: &mut Run, index: u32, messages: &[Message], repair: bool) {
    let Some(exec) = &mut run.exec else { return };
    if let Some(state) = &mut exec.tools {
        state.steering.clear();
    }
    if let Some(sample) = exec.samples.get_mut(index as usize) {
        sample.tail.extend(messages.iter().cloned());
        if repair {
            sample.repaired = true;
            sample.state = SampleState::Wanted;
        }
    }
}

fn turn_taken(run: &mut Run, message: &Message, pending: &[ToolRequest], cost_micros: u64) {
    with_loop(run, |state, tail| {
        tail.push(message.clone());
        if let Message::Assistant { content, .. } = message {
            state.content = content.clone();
        }
        state.turns += 1;
        state.cost_micros = state.cost_micros.saturating_add(cost_micros);
        state.pending = pending
            .iter()
            .map(|request| PendingTool { request: request.clone(), state: PendingState::Wanted })
            .collect();
        state.seen = false;
        state.skip.clear();
    });
    set_sample(run, 0, SampleState::Wanted);
}

fn tool_answered(run: &mut Run, index: u32, content: &Name, is_error: bool, counted: bool) {
    with_loop(run, |state, tail| {
        if let Some(pending) = state.pending.get_mut(index as usize) {
            pending.state = if counted { PendingState::Answered } else { PendingState::Done };
            tail.push(Message::Tool { call_id: pending.request.id.clone(), content: content.clone(), is_error });
            state.calls += u64::from(counted);
        }
    });
}

fn change_ceilings(ledger: &mut Ledger, new: &crate::budget::Ceilings, (started_at, gone_ms): (Timestamp, u64)) {
    ledger.rebound(new);
    if new.depth.is_some() {
        ledger.ceilings.depth = new.depth;
    }
    if let Some(ms) = new.wall_ms {
        ledger.ceilings.wall_ms = Some(ms);
        ledger.deadline = Some(started_at.plus_ms(ms.saturating_sub(gone_ms)));
    }
}

/// Whether hooks of this event come from the machine rather than from its current state.
pub(crate) fn is_lifecycle(event: HookKind) -> bool {
    matches!(event, HookKind::MachineStart | HookKind::MachineEnd)
}
