//! `windlass runs list` and `prune`: many runs at once.

use serde_json::{Value as Json, json};
use windlass_core::ids::RunId;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Page, Query, Retention};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::filter::{self, Filter};
use crate::output::{Form, time};
use crate::story::dollars;

/// Lists runs, newest first.
pub(crate) async fn list(app: &App, args: args::RunsList) -> Result<Exit, Problem> {
    let now = app.now();
    let filter = Filter {
        statuses: args.status.iter().map(|word| filter::status(word)).collect::<Result<_, _>>()?,
        machine: args.machine.as_deref().map(Into::into),
        tenant: args.tenant.as_deref().map(Into::into),
        pool: args.pool.as_deref().map(Into::into),
        tags: args.tag.iter().map(|text| filter::tag(text)).collect(),
        below: args.below.as_deref().map(RunId::stored),
        since: args.since.as_deref().map(|text| filter::moment("--since", text, now)).transpose()?,
        until: args.until.as_deref().map(|text| filter::moment("--until", text, now)).transpose()?,
        children: args.all,
    };
    let query = Query { cursor: args.cursor, ..filter.query(args.limit as usize) };
    let page = match app.store_to_list().await? {
        Some(store) => {
            if let Some(below) = &args.below
                && store.load(RunId::stored(below)).await?.is_none()
            {
                return Err(Problem::unknown_run(below));
            }
            store.list(query).await?
        }
        None => Page::default(),
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
    let retention = retention(app, &args)?;
    let dry_run = retention.dry_run;
    let store = app.existing_store().await?.ok_or_else(|| app.no_store())?;
    if !dry_run {
        windlass_runtime::trail::seal(&*store).await?;
    }
    let pruned = store.prune(retention).await?;
    app.output.sentence(
        &json!({
            "runs": pruned.runs,
            "records": pruned.records,
            "blobs": pruned.blobs,
            "bytes": pruned.bytes,
            "unsealed": pruned.unsealed,
            "dry_run": dry_run,
        }),
        &format!(
            "{} {} runs, {} records and {} blobs, {} bytes",
            if dry_run { "would remove" } else { "removed" },
            pruned.runs,
            pruned.records,
            pruned.blobs,
            pruned.bytes
        ),
    );
    if pruned.unsealed > 0 {
        app.output.note(&format!("{} stay until their audit rows are sealed", pruned.unsealed));
    }
    if dry_run && !args.wanted.is_empty() {
        app.output.note("nothing was removed; `--yes` does it");
    }
    Ok(Exit::Ok)
}

/// What is to be removed.
fn retention(app: &App, args: &args::RunsPrune) -> Result<Retention, Problem> {
    if !args.wanted.is_empty() {
        let filter = Filter::parse(&args.wanted, app.now())?;
        let Filter { machine, tags, until, .. } = filter.clone();
        let rest = Filter { machine: None, tags: Vec::new(), until: None, ..filter };
        if rest != Filter::default() {
            return Err(Problem::invalid("`--where` of `prune` takes `machine`, `tag` and `until` only")
                .hint("`until` is when runs ended; only finished runs are removed"));
        }
        return Ok(Retention {
            ended_before: until,
            keep_per_machine: None,
            machine,
            tags,
            dry_run: !args.yes,
            trees: None,
        });
    }
    if args.older_than.is_none() && args.keep.is_none() {
        return Err(Problem::invalid("`prune` needs `--older-than`, `--keep` or `--where`")
            .hint("`--machine NAME` and `--tag KEY=VALUE` narrow the first two"));
    }
    Ok(Retention {
        ended_before: args.older_than.map(|age| Timestamp(app.now().0.saturating_sub(age.0))),
        keep_per_machine: args.keep,
        machine: args.machine.as_deref().map(Into::into),
        tags: args.tag.iter().map(|text| filter::tag(text)).collect(),
        dry_run: args.dry_run,
        trees: None,
    })
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
        "pool": &*head.pool,
        "priority": head.priority.as_str(),
        "tags": head.tags,
        "quarantine": head.quarantine.as_deref(),
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
