//! `windlass runs stuck`: runs that have made no progress for a while, each with its cause and what to do next.

mod cause;

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Store};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal;
use crate::output::time;
use cause::{Cause, Finding, Fleet, Limited};

/// Buckets of rates read at a time.
const PAGE: usize = 500;

/// Lists stuck runs, newest first.
///
/// # Errors
/// The store cannot be read, or a run in it is damaged.
pub(crate) async fn stuck(app: &App, args: args::RunsStuck) -> Result<Exit, Problem> {
    let header = ["run", "cause", "since", "what", "next"];
    let Some(store) = app.store_to_list().await? else {
        app.output.table(&json!({ "runs": [], "next": null }), &header, &[]);
        return Ok(Exit::Ok);
    };
    let now = app.now();
    let fleet = Fleet::new(store.workers().await?, limited(&*store).await);
    let statuses = Status::ALL.into_iter().filter(|status| !status.is_final()).collect();
    let limit = args.limit as usize;
    let mut query = Query {
        statuses,
        machine: args.machine.as_deref().map(Into::into),
        tenant: args.tenant.as_deref().map(Into::into),
        cursor: args.cursor.clone(),
        limit,
        ..Query::default()
    };
    let mut found: Vec<(Head, Finding)> = Vec::new();
    let next = loop {
        let page = store.list(query.clone()).await?;
        for head in page.heads.into_iter().filter(|head| idle(head, now) >= args.older.0) {
            let run = journal::current(&*store, &head.id).await?;
            let veil = run.hidden.veil();
            found.extend(cause::find(&head, &run, &fleet, now).map(|finding| {
                (head, Finding { detail: veil.shown(&finding.detail), next: veil.shown(&finding.next), ..finding })
            }));
        }
        match page.next {
            Some(cursor) if found.len() < limit => query.cursor = Some(cursor),
            next => break next,
        }
    };
    let rows: Vec<Vec<String>> = found.iter().map(|(head, finding)| cells(head, finding)).collect();
    let documents: Vec<Json> = found.iter().map(|(head, finding)| document(head, finding)).collect();
    app.output.table(&json!({ "runs": documents, "next": next }), &header, &rows);
    Ok(Exit::Ok)
}

/// Runs whose calls wait for permits of rates, as far as workers named them. A standby knows none.
async fn limited(store: &dyn Store) -> BTreeMap<RunId, Limited> {
    let mut found = BTreeMap::new();
    let mut after = None;
    while let Ok(page) = store.rates().buckets(after.take(), PAGE).await {
        for row in &page {
            for waiting in row.waiting.values() {
                let limited = Limited { bucket: row.bucket.clone(), since: waiting.since };
                found.extend(waiting.runs.iter().map(|run| (run.clone(), limited.clone())));
            }
        }
        if page.len() < PAGE {
            break;
        }
        after = page.last().map(|row| row.bucket.clone());
    }
    found
}

/// For how long a run has not changed, in milliseconds.
fn idle(head: &Head, now: Timestamp) -> u64 {
    now.since_ms(head.updated_at)
}

fn document(head: &Head, finding: &Finding) -> Json {
    json!({
        "run_id": head.id.as_str(),
        "root_run_id": head.root.as_str(),
        "machine": &*head.machine,
        "state": head.state.as_deref(),
        "status": head.status.as_str(),
        "cause": Cause::as_str(finding.cause),
        "since": time(head.updated_at),
        "detail": finding.detail,
        "next_step": finding.next,
    })
}

fn cells(head: &Head, finding: &Finding) -> Vec<String> {
    vec![
        head.id.to_string(),
        finding.cause.as_str().to_owned(),
        time(head.updated_at),
        finding.detail.clone(),
        finding.next.clone(),
    ]
}
