//! The audit rows that entries give, each the next of its run's chain. Rows of a run that an older build began say what that
//! build would have said of them.

use crate::approval::Answer;
use crate::audit::{self, Row};
use crate::budget::{Ceilings, Meter};
use crate::contract::Class;
use crate::effect::{Call, ChildStart, Doubt, OpenCall, Outcome};
use crate::ids::{Digest, EffectId, Name};
use crate::policy::{Denial, Question, Ruled};
use crate::run::Run;

/// Whether the rows of a run say by which rule and by whom, and what was denied, doubted and overridden.
pub(super) fn says_more(run: &Run) -> bool {
    run.start.audit >= audit::RULED_VERSION
}

/// The row in its place, with the chain moved on.
pub(super) fn next(run: &mut Run, row: Row) -> Row {
    let mut row = Row {
        v: run.start.audit.max(1),
        number: run.audit.rows + 1,
        worker: run.worker.clone(),
        at: run.now,
        previous: run.audit.head,
        ..row
    };
    if run.start.audit < audit::WHERE_VERSION && row.owner.is_none() {
        (row.plan, row.worker) = (None, None);
    }
    if !says_more(run) {
        (row.ruled, row.by, row.reason, row.agent, row.resources) = (None, None, None, None, Vec::new());
    }
    run.audit = audit::Chain { rows: row.number, head: row.hash() };
    row
}

fn of_call(effect: EffectId, call: &OpenCall, stage: &str) -> Row {
    Row {
        attempt: call.attempt,
        kind: call.call.kind().into(),
        target: call.call.target().clone(),
        class: call.class.as_str().into(),
        arguments: call.arguments,
        plan: call.call.plan().cloned(),
        ..Row::blank(effect, stage)
    }
}

/// The agent whose model asked for a call; none for what a state does by itself.
fn asking(run: &Run, call: &Call) -> Option<Name> {
    match call {
        Call::Tool { .. } => run.exec.as_ref().map(|exec| exec.agent.clone()),
        Call::Model { .. } | Call::Hook { .. } | Call::Action { .. } | Call::Verify { .. } => None,
    }
}

/// The row of a call, with what came of it where something did.
pub(super) fn row(run: &mut Run, effect: EffectId, call: &OpenCall, stage: &str, result: Option<Name>) -> Row {
    next(run, Row { result, ..of_call(effect, call, stage) })
}

/// An attempt is about to be made, or would be if the call were no shadow.
pub(super) fn intended(run: &mut Run, effect: EffectId, call: &OpenCall) -> Row {
    let row = Row {
        ruled: call.ruled.as_deref().cloned(),
        agent: asking(run, &call.call),
        resources: call.resources.clone(),
        ..of_call(effect, call, call.intention())
    };
    next(run, row)
}

/// A call that waited goes, by another rule than it was decided on.
pub(super) fn allowed(run: &mut Run, effect: EffectId, ruled: &Ruled) -> Option<Row> {
    let call = run.calls.get_mut(&effect)?;
    call.ruled = Some(Box::new(ruled.clone()));
    let row = Row { ruled: Some(ruled.clone()), ..of_call(effect, call, "allowed") };
    Some(next(run, row))
}

/// A child starts that the rules were asked about.
pub(super) fn child_allowed(run: &mut Run, child: &ChildStart) -> Option<Row> {
    let ruled = child.ruled.as_deref().cloned()?;
    let row = Row {
        kind: "machine".into(),
        target: child.machine.clone(),
        arguments: child.input.digest(),
        result: Some(child.id.as_str().into()),
        ruled: Some(ruled),
        ..Row::blank(EffectId(0), "allowed")
    };
    Some(next(run, row))
}

/// A call ended.
pub(super) fn settled(run: &mut Run, effect: EffectId, call: &OpenCall, outcome: &Outcome) -> Row {
    let hash = outcome.answer().map(|answer| answer.digest().to_string().into());
    let (stage, result) = match outcome {
        Outcome::Replied(_) | Outcome::Returned(_) => ("settled", hash),
        Outcome::Failed(failure) if says_more(run) => ("settled", Some(failure.code.as_str().into())),
        Outcome::Failed(failure) => ("failed", Some(failure.code.as_str().into())),
    };
    row(run, effect, call, stage, result)
}

/// A person is asked about a call.
pub(super) fn asked(run: &mut Run, effect: EffectId, call: &OpenCall, ruled: Ruled) -> Row {
    let result = (!says_more(run)).then(|| ruled.rule.clone());
    next(run, Row { result, ruled: Some(ruled), ..of_call(effect, call, "asked") })
}

/// Somebody else is asked too.
pub(super) fn escalated(run: &mut Run, wait: EffectId, to: &Name) -> Option<Row> {
    if !says_more(run) {
        return None;
    }
    let (effect, call) = crate::approval::asked(run, wait).map(|(effect, open)| (effect, open.clone()))?;
    Some(row(run, effect, &call, "escalated", Some(to.clone())))
}

/// Who answered, and why.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) answer: Answer,
    pub(super) by: &'a Name,
    pub(super) reason: &'a Name,
}

impl Said<'_> {
    fn on(self, run: &Run, row: Row) -> Row {
        let stage = self.answer.as_str().into();
        match says_more(run) {
            true => {
                let by = Some(self.by.clone()).filter(|by| !by.is_empty());
                Row { stage, by, reason: audit::reason(self.reason), ..row }
            }
            false => Row { stage, result: Some(self.by.clone()), ..row },
        }
    }
}

/// A question about a call ended. `rule` is the one that asked; `changed` where it was approved with other arguments.
pub(super) fn answered(
    run: &mut Run,
    effect: EffectId,
    call: &OpenCall,
    said: Said<'_>,
    (rule, changed): (Option<Ruled>, bool),
) -> Row {
    let resources = if changed { call.resources.clone() } else { Vec::new() };
    let row = said.on(run, Row { ruled: rule, resources, ..of_call(effect, call, "") });
    next(run, row)
}

/// A question about a transition. What that does to the world is not known: it counts as a write.
fn of_transition(wait: EffectId, (from, to): (&Name, &Name), shown: Digest, stage: &str) -> Row {
    Row {
        attempt: 1,
        kind: "transition".into(),
        target: format!("{from}->{to}").into(),
        class: "write".into(),
        arguments: shown,
        ..Row::blank(wait, stage)
    }
}

/// A person is asked about a transition.
pub(super) fn transition_asked(run: &mut Run, wait: EffectId, way: (&Name, &Name), shown: Digest, ruled: Ruled) -> Row {
    let result = (!says_more(run)).then(|| ruled.rule.clone());
    next(run, Row { result, ruled: Some(ruled), ..of_transition(wait, way, shown, "asked") })
}

/// A question about a transition ended.
pub(super) fn transition_answered(
    run: &mut Run,
    wait: EffectId,
    way: (&Name, &Name),
    shown: Digest,
    said: Said<'_>,
) -> Row {
    let row = said.on(run, of_transition(wait, way, shown, ""));
    next(run, row)
}

/// Something was not let happen.
pub(super) fn denied(run: &mut Run, denial: &Denial) -> Option<Row> {
    if !says_more(run) {
        return None;
    }
    let open = denial.effect.and_then(|effect| run.calls.get(&effect));
    let of = match open {
        Some(call) => of_call(denial.effect.unwrap_or_default(), call, "denied"),
        None => of_question(&denial.question, denial.class),
    };
    let agent = match &denial.question {
        Question::CallTool { agent, .. } => agent.clone(),
        Question::CallModel { .. } | Question::StartMachine { .. } | Question::TakeTransition { .. } => None,
    };
    let row = Row {
        result: Some(denial.code.as_str().into()),
        ruled: denial.ruled.clone(),
        agent,
        resources: denial.resources.clone(),
        ..of
    };
    Some(next(run, row))
}

/// What was asked about, where no call had been committed.
fn of_question(question: &Question, class: Option<Class>) -> Row {
    let (kind, target, arguments) = match question {
        Question::CallModel { agent, .. } => ("model", agent.clone(), Digest::ZERO),
        Question::CallTool { tool, arguments, .. } => ("tool", tool.clone(), *arguments),
        Question::StartMachine { machine } => ("machine", machine.clone(), Digest::ZERO),
        Question::TakeTransition { from, to } => ("transition", format!("{from}->{to}").into(), Digest::ZERO),
    };
    let class = class.map_or("", Class::as_str).into();
    Row { kind: kind.into(), target, class, arguments, ..Row::blank(EffectId(0), "denied") }
}

/// Nobody knows whether a call happened.
pub(super) fn doubted(run: &mut Run, effect: EffectId, doubt: &Doubt) -> Option<Row> {
    let call = run.calls.get(&effect).cloned().filter(|_| says_more(run))?;
    Some(row(run, effect, &call, "doubted", Some(doubt.as_str().into())))
}

/// Somebody said whether it did.
pub(super) fn resolved(run: &mut Run, effect: EffectId, found: &Name, by: Option<&Name>) -> Option<Row> {
    let call = run.calls.get(&effect).cloned().filter(|_| says_more(run))?;
    let row = Row { result: Some(found.clone()), by: by.cloned(), ..of_call(effect, &call, "resolved") };
    Some(next(run, row))
}

/// Somebody put something else in the place of what the documents or the caller said.
pub(super) fn overridden(
    run: &mut Run,
    (kind, target): (&str, &Name),
    result: Option<Name>,
    by: &Name,
    reason: &str,
) -> Option<Row> {
    if !says_more(run) {
        return None;
    }
    let by = Some(by.clone()).filter(|by| !by.is_empty());
    let (kind, target, reason) = (kind.into(), target.clone(), audit::reason(reason));
    let row = Row { kind, target, result, by, reason, ..Row::blank(EffectId(0), "overridden") };
    Some(next(run, row))
}

/// The bounds that are other ones than before, as `METER BOUND`.
pub(super) fn changed(before: &Ceilings, new: &Ceilings) -> Name {
    let of = |meter: Meter| new.get(meter).filter(|bound| before.get(meter) != Some(*bound));
    let meters = Meter::ALL.into_iter().filter_map(|meter| Some(format!("{} {}", meter.as_str(), of(meter)?)));
    let depth = new.depth.filter(|depth| before.depth != Some(*depth)).map(|depth| format!("depth {depth}"));
    let wall = new.wall_ms.filter(|ms| before.wall_ms != Some(*ms)).map(|ms| format!("wall_ms {ms}"));
    meters.chain(depth).chain(wall).collect::<Vec<_>>().join(", ").into()
}
