//! `windlass erase` and `windlass export`: all data of a tenant, a user or a run, removed or written down.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{Head, Query, Retention, Store};
use windlass_runtime::audit::CallLine;
use windlass_runtime::schedule;
use windlass_runtime::trail::{self, Deed};

use super::runs;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::Reader;

/// Runs and objects read at a time.
const PAGE: usize = 200;
/// Records read at a time.
const RECORDS: usize = 64;

/// Whose data it is.
struct Whose {
    tenant: Option<Name>,
    user: Option<String>,
    run: Option<String>,
}

/// The trees of somebody's runs.
struct Trees {
    roots: Vec<Head>,
    /// Runs of them, below included.
    runs: Vec<Head>,
    tenant: Name,
}

impl Trees {
    async fn find(store: &dyn Store, whose: &Whose) -> Result<Self, Problem> {
        let mut roots = Vec::new();
        if let Some(run) = &whose.run {
            let stored = store.load(RunId::stored(run)).await?.ok_or_else(|| Problem::unknown_run(run))?;
            if stored.head.root != stored.head.id {
                return Err(Problem::rejected(format!("run `{run}` is below run `{}`", stored.head.root))
                    .hint(format!("--run {}", stored.head.root)));
            }
            roots.push(stored.head);
        } else {
            let query = Query { tenant: whose.tenant.clone(), roots_only: true, limit: PAGE, ..Query::default() };
            for head in all(store, query).await? {
                let is_theirs = match &whose.user {
                    None => true,
                    Some(user) => trail::user(store, &head.id).await?.as_deref() == Some(user),
                };
                if is_theirs {
                    roots.push(head);
                }
            }
        }
        let mut runs = Vec::new();
        for root in &roots {
            runs.extend(all(store, Query { root: Some(root.id.clone()), limit: PAGE, ..Query::default() }).await?);
        }
        let tenant = whose.tenant.clone().or_else(|| roots.first().map(|root| root.tenant.clone()));
        Ok(Self { roots, runs, tenant: tenant.unwrap_or_else(|| "default".into()) })
    }

    fn open(&self) -> Vec<&Head> {
        self.runs.iter().filter(|run| !run.status.is_final()).collect()
    }
}

async fn all(store: &dyn Store, mut query: Query) -> Result<Vec<Head>, Problem> {
    let mut heads = Vec::new();
    loop {
        let page = store.list(query.clone()).await?;
        heads.extend(page.heads);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(heads),
        }
    }
}

/// Schedules of a tenant: their documents and inputs are its data too.
async fn schedules(store: &dyn Store, tenant: &str) -> Result<Vec<String>, Problem> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let objects = store.objects(schedule::KIND.into(), after.clone(), PAGE).await?;
        let Some(last) = objects.last() else { return Ok(names) };
        after = Some(last.key.clone());
        let read = objects.iter().filter_map(|object| schedule::Schedule::decode(&object.bytes).ok());
        let theirs = read.filter(|schedule| *schedule.spec.tenant == *tenant && schedule.removed_at.is_none());
        names.extend(theirs.map(|schedule| schedule.spec.name.to_string()));
    }
}

/// Removes the data of a tenant, a user or a run.
pub(crate) async fn erase(app: &App, args: args::Erase) -> Result<Exit, Problem> {
    let store = app.store_to_change().await?.ok_or_else(|| app.no_store())?;
    let whose = Whose { tenant: args.tenant.as_deref().map(Into::into), user: args.user, run: args.run };
    let trees = Trees::find(&*store, &whose).await?;
    let whole = whose.user.is_none() && whose.run.is_none();
    let schedules = if whole { schedules(&*store, &trees.tenant).await? } else { Vec::new() };
    let open: Vec<&str> = trees.open().into_iter().map(|run| run.id.as_str()).collect();
    if !open.is_empty() {
        let some = open.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        return Err(Problem::rejected(format!("{} runs have not ended: {some}", open.len()))
            .hint("`windlass runs cancel` ends them"));
    }
    if !schedules.is_empty() {
        return Err(Problem::rejected(format!("the tenant has schedules: {}", schedules.join(", ")))
            .hint("`windlass schedules remove NAME` removes them"));
    }
    let ids: Vec<RunId> = trees.roots.iter().map(|root| root.id.clone()).collect();
    let retention = Retention { trees: Some(ids), dry_run: !args.yes, ..Retention::default() };
    if args.yes {
        note(app, &*store, &whose, &trees).await?;
        trail::seal(&*store).await?;
    }
    let removed = store.prune(retention).await?;
    let value = json!({
        "runs": removed.runs, "records": removed.records, "blobs": removed.blobs, "bytes": removed.bytes,
        "dry_run": !args.yes,
    });
    let word = if args.yes { "removed" } else { "would remove" };
    let text = format!(
        "{word} {} runs, {} records and {} blobs, {} bytes; audit rows stay",
        removed.runs, removed.records, removed.blobs, removed.bytes
    );
    app.output.sentence(&value, &text);
    if !args.yes {
        app.output.note("nothing was removed; `--yes` does it");
    }
    Ok(Exit::Ok)
}

/// Writes down what is about to be removed.
async fn note(app: &App, store: &dyn Store, whose: &Whose, trees: &Trees) -> Result<(), Problem> {
    let (action, subject) = match (&whose.run, &whose.user) {
        (Some(run), _) => ("run.erase", run.clone()),
        (None, Some(user)) => ("user.erase", user.clone()),
        (None, None) => ("tenant.erase", trees.tenant.to_string()),
    };
    let deed = Deed {
        at: app.now(),
        actor: app.actor().into(),
        action: action.into(),
        subject: subject.into(),
        detail: Some(format!("{} runs", trees.runs.len()).into()),
    };
    trail::note(store, &trees.tenant, deed).await?;
    Ok(())
}

/// Writes the data of a tenant, a user or a run to a file.
pub(crate) async fn export(app: &App, args: args::Export) -> Result<Exit, Problem> {
    let store = app.readable_store().await?.ok_or_else(|| app.no_store())?;
    let whose = Whose { tenant: args.tenant.as_deref().map(Into::into), user: args.user, run: args.run };
    let trees = Trees::find(&*store, &whose).await?;
    let unwritten = |error: std::io::Error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", args.out.display()))
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.out);
    let mut file = BufWriter::new(opened.map_err(unwritten)?);
    let mut lines = 0_u64;
    let mut write = |line: &Json| {
        lines += 1;
        writeln!(file, "{line}").map_err(unwritten)
    };
    for head in &trees.runs {
        let written = write_run(&store, head, &mut write).await;
        if let Err(problem) = written {
            // A part of an export is none.
            let _gone = std::fs::remove_file(&args.out);
            return Err(problem);
        }
    }
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(unwritten)?;
    let runs = trees.runs.len();
    let value = json!({ "file": args.out, "runs": runs, "lines": lines });
    app.output.sentence(&value, &format!("{} has {runs} runs in {lines} lines", args.out.display()));
    Ok(Exit::Ok)
}

async fn write_run(
    store: &Arc<dyn Store>,
    head: &Head,
    write: &mut impl FnMut(&Json) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut at_a_glance = runs::head(head);
    at_a_glance["type"] = json!("run");
    write(&at_a_glance)?;
    let mut reader = Reader::new(Arc::clone(store), head.id.clone(), 0);
    loop {
        let records = reader.next(RECORDS).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            write(&json!({ "type": "record", "run": head.id, "record": record }))?;
        }
    }
    let whose = trail::whose(&**store, head).await?;
    for row in store.audit(head.id.clone()).await? {
        write(&json!({ "type": "audit", "run": head.id, "row": CallLine::of(&whose, &row) }))?;
    }
    Ok(())
}
