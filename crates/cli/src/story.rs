//! What happens in a run, told to a person: one line for each thing worth knowing. No prompt, argument or output, and none of
//! the values that contracts hide.

use windlass_core::approval::Answer;
use windlass_core::audit;
use windlass_core::effect::{Outcome, WaitKind};
use windlass_core::escrow::Drawn;
use windlass_core::failure::Failure;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Ending;
use windlass_core::journal::Entry;
use windlass_core::overrides::ModelChange;
use windlass_core::route::Choice;
use windlass_core::run::{Hold, Run};
use windlass_core::value::Value;
use windlass_runtime::events::Seen;

use crate::output::printable;

/// The lines of one commit.
#[must_use]
pub(crate) fn lines(seen: Seen<'_>) -> Vec<String> {
    let entered = seen.entries.iter().filter(|entry| matches!(entry, Entry::StateEntered { .. })).count() as u64;
    let mut step = seen.run.step.saturating_sub(entered);
    let mut lines = Vec::new();
    let veil = seen.run.hidden.veil();
    for entry in seen.entries {
        if matches!(entry, Entry::StateEntered { .. }) {
            step += 1;
        }
        let line = way(entry, seen.run, step).or_else(|| call(entry, seen.audit)).or_else(|| others(entry, seen.run));
        if let Some(line) = line {
            lines.push(format!("{}{}", prefix(seen.run), printable(&veil.shown(&line))));
        }
    }
    lines
}

/// The run's way through its states.
fn way(entry: &Entry, run: &Run, step: u64) -> Option<String> {
    Some(match entry {
        Entry::RunStarted(start) if start.parent.is_none() => {
            format!("run {} of {} started", start.id, start.machine_name)
        }
        Entry::RunStarted(start) => format!("{} started", start.machine_name),
        Entry::StateEntered { state } => format!("{step}. {state}"),
        Entry::FailureRaised { failure } => match failure.detail.get("hint").and_then(Value::as_str) {
            Some(hint) => format!("   failed: {} (hint: {hint})", said(failure)),
            None => format!("   failed: {}", said(failure)),
        },
        Entry::FailureRouted { to, by, .. } => format!("   {by} leads to {to}"),
        Entry::HoldPlaced { hold } => match hold {
            Hold::Paused { reason, .. } => format!("paused: {reason}"),
            Hold::Attention { reason, .. } => format!("needs attention: {reason}"),
            Hold::ReadOnly { reason, .. } => format!("waits for a read-only switch: {reason}"),
        },
        Entry::HoldLifted => "goes on".into(),
        Entry::CancelRequested { reason } => format!("cancel requested: {reason}"),
        Entry::CeilingNear { meter, used, ceiling } => {
            format!("   near its limit: {used} of {ceiling} {}", meter.as_str())
        }
        Entry::RowFired { table, row, id, to, .. } => {
            let id = id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
            let to = to.as_ref().map(|to| format!(" leads to {to}")).unwrap_or_default();
            format!("   table {table}: row {row}{id}{to}")
        }
        Entry::ConversationNear { agent, tokens, context_tokens, saving, .. } => {
            let why = saving.as_ref().map(|saving| format!(", and {saving} is nearly used up")).unwrap_or_default();
            format!("   the conversation of {agent} is long: about {tokens} of {context_tokens} tokens{why}")
        }
        Entry::CeilingsChanged { by, .. } => format!("limits changed by {by}"),
        Entry::ModelChanged(change) => model_changed(change),
        Entry::RunReopened => "goes on after its failure".into(),
        Entry::StateSkipped { state, by, reason } if reason.is_empty() => format!("{by} skipped {state}"),
        Entry::StateSkipped { state, by, reason } => format!("{by} skipped {state}: {reason}"),
        Entry::Migrated { .. } => "goes on with another version of its machine".into(),
        Entry::RunEnded => end(run),
        _ => return None,
    })
}

/// Which model agents call from here on, and who said so.
fn model_changed(change: &ModelChange) -> String {
    let whose = change.agent.as_ref().map_or("every agent".to_owned(), |agent| agent.to_string());
    let to =
        change.to.as_ref().map_or("what the documents name".to_owned(), |to| format!("{}/{}", to.provider, to.model));
    let why = if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
    format!("{} let {whose} call {to}{why}", change.by)
}

/// Calls. Hooks that work are left out: there are several for each state.
fn call(entry: &Entry, audit: &[audit::Row]) -> Option<String> {
    match entry {
        Entry::CallIntended { call, .. } => {
            let kind = call.call.kind();
            let cached = call
                .cached_expected
                .filter(|tokens| *tokens > 0)
                .map(|tokens| format!(", {tokens} of its tokens sent before"));
            let route = call.route.as_deref().map(by).unwrap_or_default();
            let name = name(kind, call.call.target());
            let called = if call.shadow.is_some() { "not called, a shadow" } else { "called" };
            (kind != "hook").then(|| format!("   {name} {called}{route}{}", cached.unwrap_or_default()))
        }
        Entry::AttemptStarted { effect, route: Some(route), .. } => {
            Some(format!("   {} called{}", named(audit, *effect).1, by(route)))
        }
        Entry::Escalated { raised, .. } => Some(format!("   asked again at tier `{}`: {}", raised.to, raised.reason)),
        Entry::AttemptFailed { effect, failure, .. } => {
            Some(format!("   {} failed and is tried again: {}", named(audit, *effect).1, said(failure)))
        }
        Entry::CallSettled { effect, outcome, used, .. } => {
            let (is_hook, name) = named(audit, *effect);
            match outcome {
                Outcome::Failed(failure) => Some(format!("   {name} failed: {}", said(failure))),
                Outcome::Replied(reply) => {
                    let cached = reply.usage.cache_read.filter(|tokens| *tokens > 0);
                    let cached = cached.map(|tokens| format!(" ({tokens} from the cache)")).unwrap_or_default();
                    Some(format!("   {name} answered, {} tokens{cached}{}", used.tokens, cost(used.cost_micros)))
                }
                Outcome::Returned(_) => (!is_hook).then(|| format!("   {name} answered")),
            }
        }
        Entry::DoubtRaised { effect, .. } => {
            Some(format!("   {} may or may not have happened", named(audit, *effect).1))
        }
        Entry::DoubtResolved { effect, found, by } => {
            let by = by.as_ref().map(|by| format!(", as {by} says")).unwrap_or_default();
            let found = match &**found {
                "happened" => "happened",
                "not_happened" => "did not happen",
                _ => return None,
            };
            Some(format!("   {} {found}{by}", named(audit, *effect).1))
        }
        Entry::CallAllowed { effect, ruled } => {
            Some(format!("   {} is let go by rule {}", named(audit, *effect).1, ruled.rule))
        }
        Entry::CallAbandoned { effect, .. } => {
            let (is_hook, name) = named(audit, *effect);
            (!is_hook).then(|| format!("   {name} abandoned"))
        }
        _ => None,
    }
}

/// The link that a call takes, and the row of the decision table that said so.
fn by(route: &Choice) -> String {
    let row = route.row.as_ref().map(|row| format!(", row `{row}`")).unwrap_or_default();
    let by = route.by.as_ref().map(|by| format!(", as {by} said")).unwrap_or_default();
    format!(" by link `{}`{row}{by}", route.name)
}

/// Waits and children.
fn others(entry: &Entry, run: &Run) -> Option<String> {
    Some(match entry {
        Entry::WaitOpened { effect, wait } => match &wait.kind {
            WaitKind::Signal => format!("   waits for a signal on `{}`", wait.channel),
            WaitKind::Outcome { .. } => format!("   waits for a person, who answers on `{}`", wait.channel),
            WaitKind::ToolChanged { server, tool, .. } => {
                format!("   waits for a decision about `{tool}` of `{server}`, which is not what was accepted")
            }
            WaitKind::Approval { .. } | WaitKind::Budget { .. } | WaitKind::Ceiling { .. } => return None,
            WaitKind::Transition { from, to, rule, reason, .. } => {
                let question = effect.key(run.id());
                format!("   waits for a person who approves `{question}`: from {from} to {to} (rule {rule}: {reason})")
            }
        },
        Entry::ApprovalEscalated { level, to, .. } => format!("   nobody has answered: {to} is asked (level {level})"),
        Entry::TransitionAnswered { answer: Answer::Expired, .. } => "   nobody approved it in time".into(),
        Entry::TransitionAnswered { from, to, answer, by, .. } => {
            format!("   the way from {from} to {to} is {} by {by}", answer.as_str())
        }
        Entry::PlanMade { id, plan } => format!("   what {} would do is shown: {id}", plan.tool),
        Entry::PlanApplied { id } => format!("   {id} is applied"),
        Entry::DrawAsked { .. } => "   draws on budgets".into(),
        Entry::DrawAnswered { answer: Drawn::Refused(refusal), .. } => format!(
            "   the budget of `{}` has {} of {} {} left, {} needed",
            refusal.scope,
            refusal.left,
            refusal.cap,
            refusal.meter.as_str(),
            refusal.wanted
        ),
        Entry::SharesReturned { .. } => "   returns what it drew from budgets".into(),
        Entry::ApprovalAsked { wait, rule, reason, .. } if &**rule == "budget" => {
            format!("   waits for more: raise the budget, or answer `{}` ({reason})", wait.key(run.id()))
        }
        Entry::ApprovalAsked { wait, rule, reason, .. } => {
            format!("   waits for a person who approves `{}` (rule {rule}: {reason})", wait.key(run.id()))
        }
        Entry::ApprovalAnswered { answer: Answer::Expired, .. } => "   nobody approved it in time".into(),
        Entry::ApprovalAnswered { answer, by, .. } => format!("   {} by {by}", answer.as_str()),
        Entry::WaitClosed { signal: Some(_), .. } => "   signal received".into(),
        Entry::ChildStarted { child, slot } => {
            let word = if slot.is_some() { "child" } else { "launch" };
            format!("   {word} {} starts", short(run, &child.id))
        }
        Entry::ChildSettled { child, ending, .. } => format!("   {} {}", short(run, child), ended(ending)),
        _ => return None,
    })
}

/// Who a line is about: nothing for the caller's run, the id below it for others.
fn prefix(run: &Run) -> String {
    match run.id().as_str().strip_prefix(run.start.root.as_str()) {
        Some("") | None => String::new(),
        Some(below) => format!("{below} "),
    }
}

fn short<'a>(run: &Run, child: &'a RunId) -> &'a str {
    child.as_str().strip_prefix(run.start.root.as_str()).unwrap_or(child.as_str())
}

fn name(kind: &str, target: &str) -> String {
    format!("{} {target}", if kind == "model" { "agent" } else { kind })
}

/// Whether a call is one of a hook, and its name.
fn named(audit: &[audit::Row], effect: EffectId) -> (bool, String) {
    match audit.iter().find(|row| row.effect == effect) {
        Some(row) => (&*row.kind == "hook", name(&row.kind, &row.target)),
        None => (false, format!("call {effect}")),
    }
}

fn said(failure: &Failure) -> String {
    let line = failure.message.lines().next().unwrap_or_default();
    format!("{}: {line}", failure.code)
}

fn ended(ending: &Ending) -> String {
    match ending {
        Ending::Completed { .. } => "completed".into(),
        Ending::Failed { failure, .. } => format!("failed: {}", said(failure)),
        Ending::Cancelled { reason } => format!("cancelled: {reason}"),
    }
}

fn end(run: &Run) -> String {
    let used = run.used();
    let how = run.ending.as_ref().map_or_else(|| "ended".to_owned(), ended);
    // A run that is cancelled in the queue ends without having started.
    let millis = if run.started { run.now.since_ms(run.started_at) } else { 0 };
    format!(
        "{how} after {}, {}, {} tokens{} in {}.{:03} s",
        counted(run.step, "step"),
        counted(used.model_calls, "model call"),
        used.tokens,
        cost(used.cost_micros),
        millis / 1000,
        millis % 1000
    )
}

/// `1 step`, `2 steps`.
#[must_use]
pub(crate) fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `, $0.001200`, or nothing for no cost.
#[must_use]
pub(crate) fn cost(micros: u64) -> String {
    if micros == 0 { String::new() } else { format!(", {}", dollars(micros)) }
}

/// Micro-USD as dollars.
#[must_use]
pub(crate) fn dollars(micros: u64) -> String {
    format!("${}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_shown_to_the_millionth() {
        assert_eq!(dollars(1_234_567), "$1.234567");
        assert_eq!(cost(0), "");
        assert_eq!(counted(1, "step"), "1 step");
    }
}
