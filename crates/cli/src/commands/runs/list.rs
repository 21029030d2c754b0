//! `windlass runs list` and `prune`: many runs at once.

use serde_json::{Value as Json, json};
use windlass_core::ids::RunId;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Page, Query, Retention};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{Form, time};
use crate::story::dollars;

/// Lists runs, newest first.
pub(crate) async fn list(app: &App, args: args::RunsList) -> Result<Exit, Problem> {
    let statuses = args
        .status
        .iter()
        .map(|word| {
            Status::parse(word).ok_or_else(|| {
                let words: Vec<&str> = Status::ALL.iter().map(|s| s.as_str()).collect();
                Problem::invalid(format!("`{word}` is no status")).hint(format!("one of {}", words.join(", ")))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let query = Query {
        statuses,
        machine: args.machine.as_deref().map(Into::into),
        parent: None,
        root: args.below.as_deref().map(RunId::stored),
        roots_only: !args.all && args.below.is_none(),
        cursor: args.cursor,
        limit: args.limit as usize,
        ..Query::default()
    };
    let page = match app.store_to_read().await? {
        Some(store) => store.list(query).await?,
        None => {
            app.output
                .note(&format!("note: there is no store at `{}` yet; `windlass run` creates it", app.store_url()));
            Page::default()
        }
    };
    let rows: Vec<Vec<String>> = page.heads.iter().map(row).collect();
    let value = json!({ "runs": page.heads.iter().map(head).collect::<Vec<_>>(), "next": page.next });
    app.output.table(&value, &["run", "status", "machine", "state", "step", "tokens", "cost", "updated"], &rows);
    if let (Form::Text, Some(next)) = (app.output.form(), &page.next) {
        app.output.note(&format!("more: --cursor {next}"));
    }
    Ok(Exit::Ok)
}

/// Removes finished runs.
pub(crate) async fn prune(app: &App, args: args::RunsPrune) -> Result<Exit, Problem> {
    if args.older_than.is_none() && args.keep.is_none() {
        return Err(Problem::invalid("`prune` needs `--older-than` or `--keep`")
            .hint("`--machine NAME` narrows either of them"));
    }
    let store = app.existing_store().await?.ok_or_else(|| app.no_store())?;
    let retention = Retention {
        ended_before: args.older_than.map(|age| Timestamp(app.now().0.saturating_sub(age.0))),
        keep_per_machine: args.keep,
        machine: args.machine.as_deref().map(Into::into),
        tags: Vec::new(),
        dry_run: args.dry_run,
    };
    let pruned = store.prune(retention).await?;
    app.output.sentence(
        &json!({
            "runs": pruned.runs,
            "records": pruned.records,
            "blobs": pruned.blobs,
            "bytes": pruned.bytes,
            "dry_run": args.dry_run,
        }),
        &format!(
            "{} {} runs, {} records and {} blobs, {} bytes",
            if args.dry_run { "would remove" } else { "removed" },
            pruned.runs,
            pruned.records,
            pruned.blobs,
            pruned.bytes
        ),
    );
    Ok(Exit::Ok)
}

/// A run at a glance, as JSON.
#[must_use]
pub(crate) fn head(head: &Head) -> Json {
    json!({
        "id": head.id.as_str(),
        "status": head.status.as_str(),
        "machine": &*head.machine,
        "state": head.state.as_deref(),
        "step": head.step,
        "version": head.version,
        "parent_run_id": head.parent.as_ref().map(RunId::as_str),
        "root_run_id": head.root.as_str(),
        "depth": head.depth,
        "tenant": &*head.tenant,
        "worker": head.owner.as_ref().map(|owner| owner.0.to_string()),
        "wake_at": head.wake_at.map(time),
        "tokens": head.tokens,
        "cost_micros": head.cost_micros,
        "created_at": time(head.created_at),
        "updated_at": time(head.updated_at),
    })
}

fn row(head: &Head) -> Vec<String> {
    vec![
        head.id.to_string(),
        head.status.as_str().to_owned(),
        head.machine.to_string(),
        head.state.as_deref().unwrap_or("-").to_owned(),
        head.step.to_string(),
        head.tokens.to_string(),
        dollars(head.cost_micros),
        time(head.updated_at),
    ]
}
