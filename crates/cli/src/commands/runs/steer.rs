//! `windlass runs cancel`, `pause`, `unpause`, `retry` and `fork`: what a person does to a run.

use std::sync::Arc;

use serde_json::json;
use windlass_core::ids::{Name, RunId};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::run::{Origin, Run, Status};
use windlass_core::value::{Map, Value};
use windlass_core::{apply, limits};
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Delivered, Head, Message, Query, Queueing, Store, StoreError};
use windlass_runtime::Submission;

use super::super::bulk::{self, Action};
use crate::app::App;
use crate::args::{self, Follow, Many};
use crate::config::Span;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::journal::{self, Reader};
use crate::outcome;
use crate::session;

/// Quarantined runs looked at together.
const FREED: usize = 200;

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
    let reason: Name = args.reason.as_str().into();
    let (store, head) = app.run(run).await?;
    send(&*store, &head, Input::Cancel { reason: reason.clone() }).await?;
    free_cancelled(&*store, &head, &reason).await?;
    settle(app, store, head, "cancelling").await
}

/// Ends the quarantine of a run that is to be cancelled, and of those below a caller's run: nobody would take the order
/// up otherwise. Each has it in its inbox first, so none does anything else.
pub(in crate::commands) async fn free_cancelled(
    store: &dyn Store,
    head: &Head,
    reason: &Name,
) -> Result<(), StoreError> {
    let (root, statuses) = (Some(head.root.clone()), vec![Status::Quarantined]);
    let mut query = Query { root, statuses, limit: FREED, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        for held in page.heads.iter().filter(|held| held.id == head.id || head.id == head.root) {
            let id = format!("command:cancel:{}", head.id).as_str().into();
            let input = Input::Cancel { reason: reason.clone() };
            store.deliver(Message { to: held.id.clone(), id, input }).await?;
            store.requeue(held.id.clone()).await?;
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// Holds a run.
pub(crate) async fn pause(app: &mut App, args: args::RunsPause) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Pause { reason: args.reason.as_str().into() }, &args.many).await;
    };
    let reason = args.reason.as_str().into();
    let (store, head) = app.run(run).await?;
    send(&*store, &head, Input::Pause { reason }).await?;
    if head.owner.is_some() {
        report(app, &head.id, "pausing", &format!("{} is pausing", head.id));
        return Ok(Exit::Ok);
    }
    settle(app, store, head, "pausing").await
}

/// Lets a held run go on.
pub(crate) async fn unpause(app: &mut App, args: args::RunsUnpause) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Unpause, &args.many).await;
    };
    let (store, head) = app.run(run).await?;
    send(&*store, &head, Input::Unpause).await?;
    report(app, &head.id, "unpaused", &format!("go on with: windlass resume {}", head.root));
    Ok(Exit::Ok)
}

/// Takes an input up here, for nobody else may hold the run, and says what became of it.
async fn settle(app: &mut App, store: Arc<dyn Store>, head: Head, doing: &str) -> Result<Exit, Problem> {
    let follow = Follow { wait: Some(Span(0)), events: None };
    let session = session::of_run(app, Arc::clone(&store), head.bundle, &follow).await?;
    session.settle(&head.id).await?;
    let now = store.load(head.id.clone()).await?.map_or(head.status, |stored| stored.head.status);
    let word = if now.is_final() || now == Status::Paused { now.as_str() } else { doing };
    report(app, &head.id, word, &format!("{} is {word}", head.id));
    Ok(Exit::Ok)
}

async fn send(store: &dyn Store, head: &Head, input: Input) -> Result<(), Problem> {
    let id = format!("command:{}", uuid::Uuid::now_v7());
    let message = Message { to: head.id.clone(), id: id.as_str().into(), input };
    match store.deliver(message).await? {
        Delivered::Accepted | Delivered::Duplicate => Ok(()),
        Delivered::NotFound => Err(Problem::unknown_run(head.id.as_str())),
        Delivered::Finished => {
            Err(Problem::rejected(format!("run `{}` has ended: it is {}", head.id, head.status.as_str())))
        }
    }
}

fn report(app: &App, run: &RunId, status: &str, text: &str) {
    app.output.sentence(&json!({ "run_id": run.as_str(), "status": status }), text);
}

/// Lets a failed run try its last state again.
pub(crate) async fn retry(app: &mut App, args: args::RunsRetry) -> Result<Exit, Problem> {
    let Some(run) = one(args.run.as_ref(), &args.many)? else {
        return bulk::perform(app, Action::Retry, &args.many).await;
    };
    let (store, head) = app.run(run).await?;
    if head.root != head.id {
        return Err(Problem::rejected(format!("run `{}` is a child; its parent has dealt with its failure", head.id))
            .hint(format!("windlass runs retry {}", head.root)));
    }
    let session = session::of_run(app, store, head.bundle, &args.follow).await?;
    session.engine.retry(&head.id).await.map_err(outcome::engine_problem)?;
    session.follow(app, &head.id).await
}

/// Ends the quarantine of runs. Those that have none are named; the others are in the queue all the same.
pub(crate) async fn requeue(app: &mut App, args: args::RunsRequeue) -> Result<Exit, Problem> {
    if one(args.runs.first(), &args.many)?.is_none() {
        return bulk::perform(app, Action::Requeue, &args.many).await;
    }
    let mut rows = Vec::new();
    let mut refused = None;
    for id in &args.runs {
        let (store, head) = app.run(id).await?;
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

/// Starts a new run from a step of another one.
pub(crate) async fn fork(app: &mut App, args: args::RunsFork) -> Result<Exit, Problem> {
    let run_id = args
        .run_id
        .as_deref()
        .map(RunId::new)
        .transpose()
        .map_err(|error| Problem::invalid(format!("`--run-id`: {error}")))?;
    let (store, head) = app.run(&args.run).await?;
    let start = journal::start(&*store, &head.id).await?;
    let (state, context) = at_step(&store, &head, args.at).await?;
    let context = changed(context, &args.set)?;
    let session = session::of_run(app, store.clone(), head.bundle, &args.follow).await?;
    let bytes = store.blob(head.bundle).await?.unwrap_or_default();
    let bundle = Bundle::decode(&bytes).map_err(|_| Problem::bug("the bundle of the run cannot be read"))?;
    let program = windlass::wire::compiler()
        .compile(&bundle)
        .map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    if program.entry != start.machine {
        return Err(Problem::rejected(format!("run `{}` is a child; only a caller's run can be forked", head.id))
            .hint(format!("windlass runs fork {} --at STEP", head.root)));
    }
    let origin = Origin { run: head.id.clone(), step: args.at, state, context };
    let submission = Submission {
        bundle,
        program,
        input: start.input,
        run_id,
        ceilings: app.loaded.config.limits.ceilings(),
        scope: start.scope,
        origin: Some(origin),
        queueing: Queueing::default(),
    };
    let submitted = session.engine.submit(submission).await.map_err(outcome::submit_problem)?;
    if submitted.existing.is_some() {
        // Its input is that of the original, so the same input does not make it the same fork.
        return Err(Problem::rejected(format!("run `{}` exists already; a fork is a new run", submitted.run_id))
            .hint("use another `--run-id`, or `windlass resume` to go on with the run that is there"));
    }
    if args.detach {
        report(app, &submitted.run_id, "queued", &format!("{} is queued", submitted.run_id));
        return Ok(Exit::Ok);
    }
    session.follow(app, &submitted.run_id).await
}

/// The state of a step, and the context with which it was entered.
async fn at_step(store: &Arc<dyn Store>, head: &Head, step: u64) -> Result<(windlass_core::ids::Name, Value), Problem> {
    let mut run = Run::blank(journal::start(&**store, &head.id).await?);
    let mut reader = Reader::new(store.clone(), head.id.clone(), 0);
    loop {
        let records = reader.next(usize::MAX).await?;
        if records.is_empty() {
            let message = format!("run `{}` has no step {step}; it has {}", head.id, run.step);
            return Err(Problem::rejected(message));
        }
        for entry in records.iter().flat_map(|record| &record.entries) {
            let _ = apply(&mut run, entry);
            if let Entry::StateEntered { state } = entry
                && run.step == step
            {
                return Ok((state.clone(), run.context));
            }
        }
    }
}

/// The context with the values of `--set PATH=VALUE`.
fn changed(mut context: Value, sets: &[String]) -> Result<Value, Problem> {
    for set in sets {
        let (path, value) = set.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or_else(|| {
            Problem::invalid(format!("`--set {set}`: write `PATH=VALUE`")).hint("for example `--set draft.tone=formal`")
        })?;
        let value = Value::from_json(value).unwrap_or_else(|_| Value::str(value));
        if value.depth() > limits::VALUE_DEPTH_MAX {
            return Err(Problem::invalid(format!("`--set {path}`: the value is nested too deeply")));
        }
        let parts: Vec<&str> = path.split('.').collect();
        context = placed(&context, &parts, value).ok_or_else(|| {
            Problem::invalid(format!("`--set {path}`: a part of the path holds something that is no mapping"))
        })?;
    }
    Ok(context)
}

fn placed(target: &Value, path: &[&str], value: Value) -> Option<Value> {
    let Some((first, rest)) = path.split_first() else { return Some(value) };
    let mut map = match target {
        Value::Map(map) => (**map).clone(),
        Value::Null => Map::new(),
        _ => return None,
    };
    let inner = map.get(*first).cloned().unwrap_or_default();
    map.insert((*first).into(), placed(&inner, rest, value)?);
    Some(Value::map(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_changes_and_adds_values_at_any_depth() {
        let context = Value::from_json(r#"{"draft":{"tone":"warm"},"n":1}"#).expect("json");
        let sets = ["draft.tone=formal", "n=2", "new.deep.list=[1,2]", "flag=true"].map(str::to_owned);
        assert_eq!(
            serde_json::Value::from(&changed(context.clone(), &sets).expect("set")),
            json!({"draft": {"tone": "formal"}, "n": 2, "new": {"deep": {"list": [1, 2]}}, "flag": true})
        );
        assert!(changed(context.clone(), &["n.inner=1".to_owned()]).is_err());
        assert!(changed(context, &["nothing".to_owned()]).is_err());
    }
}
