//! `windlass audit prune`: what is older than it has to be kept.

use serde_json::{Value as Json, json};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::Store;
use windlass_runtime::trail::{self, Prunable};

use crate::app::App;
use crate::args::AuditPrune;
use crate::caller::actor;
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};

/// Removes the oldest part of trails, or says what it would remove.
pub(crate) async fn prune(app: &App, args: AuditPrune) -> Result<Exit, Problem> {
    let keep = app.loaded.config.audit.keep;
    if args.older.0 < keep.0 {
        return Err(Problem::rejected(format!(
            "audit rows are kept for {keep} at least, and `--older` is {}",
            args.older
        ))
        .hint("`keep` under `[audit]` says how long they have to be kept"));
    }
    let store = match args.dry_run {
        true => app.readable_store().await?,
        false => app.store_to_change().await?,
    };
    let store = store.ok_or_else(|| app.no_store())?;
    let before = Timestamp(store.trail().unsealed(1).await?.now.0.saturating_sub(args.older.0));
    let tenants: Vec<Name> = match &args.tenant {
        Some(tenant) => vec![tenant.as_str().into()],
        None => store.trail().tenants().await?,
    };
    let (mut documents, mut lines) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let found = one(app, &*store, &tenant, before, args.dry_run).await?;
        documents.push(document(&tenant, &found));
        lines.push(line(&tenant, &found, args.dry_run));
    }
    if lines.is_empty() {
        lines.push("there is no audit trail".to_owned());
    }
    let value = json!({ "dry_run": args.dry_run, "before_ms": before.0, "tenants": documents });
    app.output.sentence(&value, &printable_lines(&lines));
    Ok(Exit::Ok)
}

async fn one(
    app: &App,
    store: &dyn Store,
    tenant: &Name,
    before: Timestamp,
    dry_run: bool,
) -> Result<Prunable, Problem> {
    if dry_run {
        return Ok(trail::prunable(store, tenant, before).await?);
    }
    Ok(trail::prune(store, tenant, before, (app.now(), actor().into())).await?)
}

fn document(tenant: &Name, found: &Prunable) -> Json {
    json!({
        "tenant": tenant,
        "runs": found.runs.len(),
        "rows": found.rows,
        "acts": found.acts,
        "segments": found.segments,
        "unsealed": found.unsealed,
        "up_to": { "segment": found.cut.segments.number, "act": found.cut.acts.rows },
    })
}

fn line(tenant: &Name, found: &Prunable, dry_run: bool) -> String {
    let Prunable { segments, acts, runs, rows, unsealed, cut, .. } = found;
    let word = if dry_run { "would remove" } else { "removed" };
    let stays = match unsealed {
        0 => String::new(),
        count => format!("; {count} old removed runs stay, whose rows are not all sealed"),
    };
    format!(
        "{tenant}: {word} {rows} rows of {} removed runs, {acts} acts and {segments} segments, up to segment {} and what \
         was written before {}{stays}",
        runs.len(),
        cut.segments.number,
        time(cut.before_ms)
    )
}

fn printable_lines(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}
