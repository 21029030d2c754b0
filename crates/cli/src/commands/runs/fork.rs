//! `windlass runs fork`: a new run from a step of another one.

use std::sync::Arc;

use windlass_core::apply;
use windlass_core::budget::{Ceilings, Meter};
use windlass_core::journal::Entry;
use windlass_core::run::{Caller, Origin, Run, Start, Status};
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Head, Queueing, Store};
use windlass_runtime::Submission;

use super::edit;
use super::steer::report;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};
use crate::outcome;
use crate::session;

/// Starts a new run from a step of another one.
pub(crate) async fn fork(app: &mut App, args: args::RunsFork) -> Result<Exit, Problem> {
    let run_id = args
        .run_id
        .as_deref()
        .map(windlass_core::ids::RunId::new)
        .transpose()
        .map_err(|error| Problem::invalid(format!("`--run-id`: {error}")))?;
    let (store, head) = app.run_to_change(&args.run).await?;
    let Step { mut origin, start } = at_step(&store, &head, args.at).await?;
    origin.labels = origin.labels.map(|labels| edit::labelled(labels, &args.set));
    origin.context = edit::changed(origin.context, &args.set)?;
    let ceilings = start.ceilings.tighter(&app.loaded.config.limits.ceilings());
    raise(&mut origin, &ceilings, &args.raise)?;
    let session = session::of_run(app, store.clone(), head.bundle, &args.follow).await?;
    let bytes = store.blob(head.bundle).await?.unwrap_or_default();
    let bundle = Bundle::decode(&bytes).map_err(|_| Problem::bug("the bundle of the run cannot be read"))?;
    let program = windlass::wire::compiler()
        .compile(&bundle)
        .map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    if start.parent.is_some() || program.entry != start.machine {
        return Err(Problem::rejected(format!("run `{}` is a child; only a caller's run can be forked", head.id))
            .hint(format!("windlass runs fork {} --at STEP", head.root)));
    }
    // A run that went on under other documents is of no version that was published.
    let version = start.caller.version.filter(|_| start.bundle == head.bundle);
    let submission = Submission {
        bundle,
        program,
        input: start.input,
        run_id,
        ceilings,
        scope: start.scope,
        origin: Some(origin),
        queueing: Queueing::default(),
        caller: Caller { version, ..crate::caller::caller(None)? },
    };
    let submitted = session.engine.submit(submission).await.map_err(outcome::submit_problem)?;
    if submitted.existing.is_some() {
        // Its input is that of the original, so the same input does not make it the same fork.
        return Err(Problem::rejected(format!("run `{}` exists already; a fork is a new run", submitted.run_id))
            .hint("use another `--run-id`, or `windlass resume` to go on with the run that is there"));
    }
    if args.detach {
        report(app, &submitted.run_id, Status::Queued, &format!("{} is queued", submitted.run_id));
        return Ok(Exit::Ok);
    }
    session.follow(app, &submitted.run_id).await
}

/// Gives the fork higher bounds than those that it would have.
fn raise(origin: &mut Origin, ceilings: &Ceilings, to: &[(Meter, u64)]) -> Result<(), Problem> {
    for (meter, bound) in to {
        let word = meter.as_str();
        match origin.raised.get(*meter).or(ceilings.get(*meter)) {
            None => {
                return Err(Problem::rejected(format!("`--raise {word}={bound}`: the fork has no ceiling of {word}")));
            }
            Some(now) if *bound <= now => {
                let text = format!("`--raise {word}={bound}`: the ceiling of {word} is {now} without it");
                return Err(Problem::rejected(text));
            }
            Some(_) => origin.raised.set(*meter, Some(*bound)),
        }
    }
    Ok(())
}

/// A step of a run, as a fork begins at it.
struct Step {
    origin: Origin,
    /// How that run began, with the bounds that it had then.
    start: Start,
}

/// The state of a step, the context with which it was entered, the labels of that, what was used before, and what is not
/// shown of the run: a value may have stood in the context before a contract said that it is not to be seen.
async fn at_step(store: &Arc<dyn Store>, head: &Head, step: u64) -> Result<Step, Problem> {
    let mut run = Run::blank(journal::start(&**store, &head.id).await?);
    let mut reader = Reader::new(store.clone(), head.id.clone(), 0);
    let mut found = None;
    loop {
        let records = reader.next(usize::MAX).await?;
        if records.is_empty() {
            break;
        }
        for entry in records.iter().flat_map(|record| &record.entries) {
            let before = run.ledger.settled;
            let _ = apply(&mut run, entry);
            if let Entry::StateEntered { state } = entry
                && found.is_none()
                && run.step == step
            {
                let labels = run.labels.kept.then(|| run.labels.marks.below(&["context".into()]));
                let mut used = run.ledger.inherited;
                used.add(&before);
                let earlier_ms = run.start.origin.as_ref().map_or(0, |origin| origin.elapsed_ms);
                found = Some(Origin {
                    run: head.id.clone(),
                    step,
                    state: state.clone(),
                    context: run.context.clone(),
                    labels,
                    hidden: windlass_core::hidden::Hidden::default(),
                    used,
                    elapsed_ms: earlier_ms.saturating_add(run.now.since_ms(run.started_at)),
                    raised: raised(&run),
                });
            }
        }
    }
    let Some(origin) = found else {
        let message = format!("run `{}` has no step {step}; it has {}", head.id, run.step);
        return Err(Problem::rejected(message));
    };
    Ok(Step { origin: Origin { hidden: run.hidden, ..origin }, start: run.start })
}

/// The bounds of a run that are higher than when it began.
fn raised(run: &Run) -> Ceilings {
    let mut raised = Ceilings::default();
    for meter in Meter::ALL {
        let bound = run.ledger.ceilings.get(meter);
        if bound > run.start.ceilings.get(meter) {
            raised.set(meter, bound);
        }
    }
    raised
}
