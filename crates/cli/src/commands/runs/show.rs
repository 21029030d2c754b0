//! `windlass runs show` and `journal`: one run in full.

use serde_json::{Value as Json, json};
use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::journal::Record;
use windlass_core::run::Run;

use super::list;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};
use crate::outcome;
use crate::output::{Form, time};
use crate::session;
use crate::story::dollars;

/// Shows a run.
pub(crate) async fn show(app: &App, args: args::RunsShow) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let run = journal::current(&*store, &head.id).await?;
    let waiting = session::observer(store).status(&head.id).await.map_err(outcome::engine_problem)?;
    let waits = waiting.map(|report| report.waits).unwrap_or_default();
    let mut value = list::head(&head);
    if let Json::Object(map) = &mut value {
        map.insert("run".into(), state(&run));
        map.insert("waits".into(), waits.iter().map(outcome::wait).collect());
    }
    if app.output.form() == Form::Json {
        app.output.document(&value);
        return Ok(Exit::Ok);
    }
    let mut rows = vec![
        pair("run", head.id.as_str()),
        pair("status", head.status.as_str()),
        pair("machine", &head.machine),
        pair("state", head.state.as_deref().unwrap_or("-")),
        pair("steps", &head.step.to_string()),
        pair("cost", &format!("{}, {} tokens", dollars(head.cost_micros), head.tokens)),
        pair("tenant", &head.tenant),
        pair("user", run.start.scope.user.as_deref().unwrap_or("-")),
        pair("created", &time(head.created_at)),
        pair("updated", &time(head.updated_at)),
    ];
    if let Some(owner) = &head.owner {
        rows.push(pair("worker", &owner.0));
    }
    if let Some(reason) = &head.quarantine {
        rows.push(pair("quarantined", reason));
    }
    for wait in &waits {
        rows.push(pair("waits for", &outcome::described(wait)));
    }
    match &run.ending {
        Some(Ending::Completed { output }) => rows.push(pair("output", &output.to_json())),
        Some(Ending::Failed { failure, .. }) => rows.push(pair("failure", &failure.to_string())),
        Some(Ending::Cancelled { reason }) => rows.push(pair("cancelled", reason)),
        None => rows.push(pair("context", &run.context.to_json())),
    }
    app.output.text(&crate::output::table(&["", ""], &rows));
    Ok(Exit::Ok)
}

/// Prints a journal.
pub(crate) async fn journal(app: &App, args: args::RunsJournal) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let mut reader = Reader::new(store, RunId::stored(&args.run), args.after);
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 && reader.after() < head.version {
        let records = reader.next(left).await?;
        if records.is_empty() {
            break;
        }
        left = left.saturating_sub(records.len());
        for record in &records {
            match app.output.form() {
                Form::Json => app.output.line(record),
                Form::Text => app.output.text(&lines(record)),
            }
        }
    }
    Ok(Exit::Ok)
}

/// A folded run as JSON.
#[must_use]
pub(crate) fn state(run: &Run) -> Json {
    serde_json::to_value(run).unwrap_or_default()
}

fn lines(record: &Record) -> String {
    let mut text = String::new();
    for (index, entry) in record.entries.iter().enumerate() {
        let number = if index == 0 { record.version.to_string() } else { String::new() };
        let json = serde_json::to_value(entry).unwrap_or_default();
        let detail = match &json {
            Json::Object(map) => map.values().next().map(Json::to_string).unwrap_or_default(),
            _ => String::new(),
        };
        text.push_str(&format!("{number:>6}  {:<18} {}\n", entry.kind(), crate::output::printable(&detail)));
    }
    text
}

fn pair(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

/// The head and the folded state as one document, for `replay`.
#[must_use]
pub(crate) fn replayed(run: &Run) -> Json {
    json!({
        "run_id": run.id().as_str(),
        "version": run.version,
        "status": run.status().as_str(),
        "machine": &*run.start.machine_name,
        "state": run.state.as_deref(),
        "step": run.step,
        "context": &run.context,
        "ending": &run.ending,
        "ledger": &run.ledger,
        "run": state(run),
    })
}
