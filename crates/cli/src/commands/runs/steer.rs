//! `windlass runs cancel`, `pause`, `unpause`, `retry`, `skip` and `fork`: what a person does to a run.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use windlass_core::budget::Ceilings;
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Input;
use windlass_core::limits;
use windlass_core::run::Status;
use windlass_ports::store::{Delivered, Head, Message, Query, Store, StoreError};

use super::super::bulk::{self, Action};
use crate::app::App;
use crate::args::{self, Follow, Many};
use crate::config::Span;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::journal;
use crate::outcome;
use crate::session;

/// Runs below one that are listed at a time.
const PASSED_ON: usize = 500;

/// The run that a command names; none when it is about many.
fn one<'a>(run: Option<&'a String>, many: &Many) -> Result<Option<&'a String>, Problem> {
    if run.is_some() && many.yes {
        return Err(Problem::invalid("`--yes` goes with `--where`").hint("leave it out for one run"));
    }
    Ok(run)
}

/// Stops a run and everything below it.
pub(crate) async fn cancel(app: &mut App, args: args::RunsCancel) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Cancel { reason: args.reason.as_str().into() }, &args.many).await;
    };
    let reason = args.reason.as_str().into();
    let (store, head) = app.run_to_change(run).await?;
    if head.status == Status::Cancelled {
        report(app, &head.id, head.status, &format!("{} is cancelled already", head.id));
        return Ok(Exit::Ok);
    }
    send(&*store, &head, Input::Cancel { reason }).await?;
    settle(app, store, head, "cancelling").await
}

/// Tells the runs below one that its own order does not reach, once it has been told itself: those whose parent has
/// ended, and for a cancel those in quarantine, which ends with it, for nobody would take the order up otherwise. Each
/// has it in its inbox first, so none does anything else.
pub(in crate::commands) async fn pass_on(store: &dyn Store, head: &Head, order: &Message) -> Result<(), StoreError> {
    let cancels = matches!(order.input, Input::Cancel { .. });
    let open = Status::ALL.into_iter().filter(|status| !status.is_final()).collect();
    let mut query = Query { root: Some(head.root.clone()), statuses: open, limit: PASSED_ON, ..Query::default() };
    let (mut open, mut below) = (BTreeSet::new(), Vec::new());
    loop {
        let page = store.list(query.clone()).await?;
        for run in page.heads.into_iter().filter(|run| run.id.is_within(&head.id)) {
            open.insert(run.id.clone());
            below.push((run.id, run.parent, run.status == Status::Quarantined));
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    let id: Name = format!("{}:{}", order.id, head.id).into();
    for (run, parent, is_quarantined) in below {
        let is_reached = run == head.id || parent.is_some_and(|parent| open.contains(&parent));
        let frees = cancels && is_quarantined;
        if frees || !is_reached {
            store.deliver(Message { to: run.clone(), id: id.clone(), input: order.input.clone() }).await?;
        }
        if frees {
            store.requeue(run).await?;
        }
    }
    Ok(())
}

/// Holds a run and everything below it.
pub(crate) async fn pause(app: &mut App, args: args::RunsPause) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Pause { reason: args.reason.as_str().into() }, &args.many).await;
    };
    let reason = args.reason.as_str().into();
    let (store, head) = app.run_to_change(run).await?;
    send(&*store, &head, Input::Pause { reason }).await?;
    if head.owner.is_some() {
        let now = status(&*store, &head).await?;
        report(app, &head.id, now, &format!("{} is pausing", head.id));
        return Ok(Exit::Ok);
    }
    settle(app, store, head, "pausing").await
}

/// Lets a held run and everything below it go on.
pub(crate) async fn unpause(app: &mut App, args: args::RunsUnpause) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Unpause, &args.many).await;
    };
    let (store, head) = app.run_to_change(run).await?;
    if head.status == Status::Quarantined {
        return Err(Problem::rejected(format!("run `{}` is quarantined, not paused", head.id))
            .hint(format!("windlass runs requeue {}", head.id)));
    }
    send(&*store, &head, Input::Unpause).await?;
    let now = status(&*store, &head).await?;
    report(app, &head.id, now, &format!("go on with: windlass resume {}", head.root));
    Ok(Exit::Ok)
}

pub(super) async fn status(store: &dyn Store, head: &Head) -> Result<Status, StoreError> {
    Ok(store.load(head.id.clone()).await?.map_or(head.status, |stored| stored.head.status))
}

/// Takes an input up here, for nobody else may hold the run, and says what became of it.
pub(super) async fn settle(app: &mut App, store: Arc<dyn Store>, head: Head, doing: &str) -> Result<Exit, Problem> {
    let follow = Follow { wait: Some(Span(0)), events: None };
    let session = session::of_run(app, Arc::clone(&store), head.bundle, &follow).await?;
    session.settle(&head.id).await?;
    let now = status(&*store, &head).await?;
    let word = if now.is_final() || now == Status::Paused { now.as_str() } else { doing };
    report(app, &head.id, now, &format!("{} is {word}", head.id));
    Ok(Exit::Ok)
}

/// Orders a run, and those below it that its own order does not reach.
async fn send(store: &dyn Store, head: &Head, input: Input) -> Result<(), Problem> {
    let message = deliver(store, head, input).await?;
    Ok(pass_on(store, head, &message).await?)
}

/// Orders one run.
pub(super) async fn deliver(store: &dyn Store, head: &Head, input: Input) -> Result<Message, Problem> {
    let id = format!("command:{}", uuid::Uuid::now_v7());
    let message = Message { to: head.id.clone(), id: id.as_str().into(), input };
    match store.deliver(message.clone()).await? {
        Delivered::Accepted | Delivered::Duplicate => Ok(message),
        Delivered::NotFound => Err(Problem::unknown_run(head.id.as_str())),
        Delivered::Finished => {
            Err(Problem::rejected(format!("run `{}` has ended: it is {}", head.id, head.status.as_str())))
        }
    }
}

/// The status is that of the store: whoever works on the run takes an order up a moment later.
pub(super) fn report(app: &App, run: &RunId, status: Status, text: &str) {
    app.output.sentence(&json!({ "run_id": run.as_str(), "status": status.as_str() }), text);
}

/// Gives a run higher ceilings.
pub(crate) async fn raise(app: &mut App, args: args::RunsRaise) -> Result<Exit, Problem> {
    let (store, head) = app.run_to_change(&args.run).await?;
    if head.root != head.id {
        let text =
            format!("run `{}` has its ceilings from run `{}`, which bounds all that it starts", head.id, head.root);
        return Err(Problem::rejected(text).hint(format!("windlass runs raise {} …", head.root)));
    }
    let run = journal::current(&*store, &head.id).await?;
    let mut ceilings = Ceilings::default();
    for (meter, bound) in &args.to {
        let word = meter.as_str();
        match run.ledger.ceilings.get(*meter) {
            None => return Err(Problem::rejected(format!("run `{}` has no ceiling of {word}", head.id))),
            Some(now) if *bound <= now => {
                return Err(Problem::rejected(format!("the ceiling of {word} of run `{}` is {now} already", head.id)));
            }
            Some(_) => ceilings.set(*meter, Some(*bound)),
        }
    }
    deliver(&*store, &head, Input::BudgetRaised { ceilings, by: args.by.as_str().into() }).await?;
    if head.owner.is_some() {
        let now = status(&*store, &head).await?;
        report(app, &head.id, now, &format!("{} has the new ceilings as soon as its worker takes them up", head.id));
        return Ok(Exit::Ok);
    }
    settle(app, store, head, "raised").await
}

/// Lets a failed run try its last state again.
pub(crate) async fn retry(app: &mut App, args: args::RunsRetry) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Retry, &args.many).await;
    };
    let (store, head) = failed(app, run, "retry").await?;
    let session = session::of_run(app, store, head.bundle, &args.follow).await?;
    session.engine.retry(&head.id, args.anyway).await.map_err(outcome::engine_problem)?;
    session.follow(app, &head.id).await
}

/// Lets a failed run go past its last state.
pub(crate) async fn skip(app: &mut App, args: args::RunsSkip) -> Result<Exit, Problem> {
    let output = input::value("--output", args.output.as_deref())?;
    let (store, head) = failed(app, &args.run, "skip").await?;
    let session = session::of_run(app, store, head.bundle, &args.follow).await?;
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    session.engine.skip(&head.id, output, by, reason).await.map_err(outcome::engine_problem)?;
    session.follow(app, &head.id).await
}

/// A run that is to go on after its failure, which no parent has dealt with.
async fn failed(app: &mut App, run: &str, verb: &str) -> Result<(Arc<dyn Store>, Head), Problem> {
    let (store, head) = app.run_to_change(run).await?;
    if head.root == head.id {
        return Ok((store, head));
    }
    Err(Problem::rejected(format!("run `{}` is a child; its parent has dealt with its failure", head.id))
        .hint(format!("windlass runs {verb} {}", head.root)))
}

/// Ends the quarantine of runs. Those that have none are named; the others are in the queue all the same.
pub(crate) async fn requeue(app: &mut App, args: args::RunsRequeue) -> Result<Exit, Problem> {
    if one(args.runs.first(), &args.many)?.is_none() {
        return bulk::perform(app, Action::Requeue, &args.many).await;
    }
    let mut rows = Vec::new();
    let mut refused = None;
    for id in &args.runs {
        let (store, head) = app.run_to_change(id).await?;
        let queued = store.requeue(head.id.clone()).await?;
        let status = if queued { Status::Queued } else { head.status };
        if !queued {
            refused.get_or_insert_with(|| {
                Problem::rejected(format!("run `{}` is not quarantined: it is {}", head.id, head.status.as_str()))
            });
        }
        rows.push((head.id.clone(), status, queued));
    }
    if let (Some(problem), true) = (&refused, rows.iter().all(|(_, _, queued)| !queued)) {
        return Err(problem.clone());
    }
    let value: Vec<_> = rows
        .iter()
        .map(|(id, status, queued)| json!({ "run_id": id.as_str(), "status": status.as_str(), "requeued": queued }))
        .collect();
    let cells: Vec<Vec<String>> =
        rows.iter().map(|(id, status, _)| vec![id.to_string(), status.as_str().into()]).collect();
    app.output.table(&json!({ "runs": value }), &["run", "status"], &cells);
    refused.map_or(Ok(Exit::Ok), |problem| {
        app.output.note(&problem.message);
        Ok(problem.exit)
    })
}

/// Sends a signal to many runs.
pub(crate) async fn signal(app: &mut App, args: args::RunsSignal) -> Result<Exit, Problem> {
    if args.channel.is_empty() || args.channel.len() > limits::CHANNEL_BYTES_MAX {
        return Err(Problem::invalid(format!("a channel has 1 to {} bytes", limits::CHANNEL_BYTES_MAX)));
    }
    let data = input::value("--data", args.data.as_deref())?;
    let id = args.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    if args.many.yes {
        app.output.note(&format!("the same command with `--id {id}` sends it to no run twice"));
    }
    let action = Action::Signal { channel: args.channel.as_str().into(), data, id: id.as_str().into() };
    bulk::perform(app, action, &args.many).await
}
