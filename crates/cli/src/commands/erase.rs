//! `windlass erase` and `windlass export`: all data of a tenant, a user or a run, removed or written down.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass::wire;
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Name, RunId};
use windlass_ports::store::{Head, Pruned, Query, Retention, Store};
use windlass_runtime::audit::CallLine;
use windlass_runtime::beside::{Beside, Owned, What, beside, forget};
use windlass_runtime::trail::{self, Deed};

use super::run::owner;
use super::runs;
use crate::app::App;
use crate::args;
use crate::caller::actor;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};

/// Runs and objects read at a time.
const PAGE: usize = 200;
/// Records read at a time.
const RECORDS: usize = 64;
/// Tries to remove runs whose audit rows others still add to the seals.
const TRIES_MAX: u32 = 5;

/// Whose data it is.
struct Whose {
    tenant: Option<Name>,
    user: Option<String>,
    run: Option<String>,
}

impl Whose {
    /// As it was said; a name that nobody has is none.
    fn read(tenant: Option<String>, user: Option<String>, run: Option<String>) -> Result<Self, Problem> {
        let tenant = tenant.map(|name| owner("--tenant", &name)).transpose()?;
        let user = user.map(|name| owner("--user", &name)).transpose()?;
        Ok(Self { tenant, user: user.map(|name| name.to_string()), run })
    }
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

/// What somebody has beside runs.
async fn beside_of(store: &dyn Store, whose: &Whose, trees: &Trees) -> Result<Vec<Beside>, Problem> {
    let owned = Owned {
        tenant: trees.tenant.clone(),
        user: whose.user.as_deref().map(Into::into),
        only_runs: whose.run.is_some(),
        runs: trees.runs.iter().map(|run| run.id.clone()).collect(),
    };
    Ok(beside(store, &owned).await?)
}

/// What keeps somebody's data from being removed.
fn refuse(trees: &Trees, others: &[Beside]) -> Result<(), Problem> {
    let open: Vec<&str> = trees.open().into_iter().map(|run| run.id.as_str()).collect();
    if !open.is_empty() {
        let some = open.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        return Err(Problem::rejected(format!("{} runs have not ended: {some}", open.len()))
            .hint("`windlass runs cancel` ends them"));
    }
    let schedules: Vec<&str> = others.iter().filter(|one| one.what == What::Schedule).map(|one| &*one.name).collect();
    if !schedules.is_empty() {
        return Err(Problem::rejected(format!("there are schedules: {}", schedules.join(", ")))
            .hint("`windlass schedules remove NAME` removes them"));
    }
    Ok(())
}

fn number_of(others: &[Beside], what: &[What]) -> usize {
    others.iter().filter(|one| what.contains(&one.what)).count()
}

/// Removes the data of a tenant, a user or a run.
pub(crate) async fn erase(app: &App, args: args::Erase) -> Result<Exit, Problem> {
    let whose = Whose::read(args.tenant, args.user, args.run)?;
    let store = app.store_to_change().await?.ok_or_else(|| app.no_store())?;
    let mut trees = Trees::find(&*store, &whose).await?;
    let others = beside_of(&*store, &whose, &trees).await?;
    refuse(&trees, &others)?;
    let is_nothing = trees.runs.is_empty() && others.is_empty();
    if is_nothing {
        app.output.note(&nothing_of(&whose));
    }
    if args.yes && !is_nothing {
        note(app, &*store, &whose, &trees).await?;
        for one in &others {
            if !forget(&*store, one).await? {
                let what = one.what.as_str().replace('_', " ");
                return Err(
                    Problem::rejected(format!("the {what} `{}` has changed meanwhile", one.name)).hint("try again")
                );
            }
        }
        // A submission that waited may have become a run.
        trees = Trees::find(&*store, &whose).await?;
        refuse(&trees, &[])?;
    }
    let removed = remove(&*store, &trees, !args.yes).await?;
    tell_removed(app, &removed, &others, !args.yes);
    Ok(Exit::Ok)
}

/// Whoever mistypes a name must not believe that data is gone.
fn nothing_of(whose: &Whose) -> String {
    let tenant = whose.tenant.as_deref().unwrap_or("default");
    let of = whose.user.as_ref().map(|user| format!("user `{user}` of ")).unwrap_or_default();
    format!("there is nothing of {of}tenant `{tenant}` here: look whether the name is right")
}

/// Removes trees once all of their audit rows are sealed.
async fn remove(store: &dyn Store, trees: &Trees, dry_run: bool) -> Result<Pruned, Problem> {
    let ids: Vec<RunId> = trees.roots.iter().map(|root| root.id.clone()).collect();
    let mut all = Pruned::default();
    for _ in 0..TRIES_MAX {
        if !dry_run {
            trail::seal(store).await?;
        }
        let removed = store.prune(Retention { trees: Some(ids.clone()), dry_run, ..Retention::default() }).await?;
        all.runs += removed.runs;
        all.records += removed.records;
        all.blobs += removed.blobs;
        all.bytes += removed.bytes;
        (all.recent, all.left_in_log) = (removed.recent, removed.left_in_log);
        if removed.unsealed == 0 {
            return Ok(all);
        }
    }
    Err(Problem::rejected("some audit rows are not sealed, and their runs stay")
        .hint("`windlass audit verify` says why"))
}

fn tell_removed(app: &App, removed: &Pruned, others: &[Beside], dry_run: bool) {
    let submissions = number_of(others, &[What::Submission]);
    let keys = number_of(others, &[What::Key]);
    let schedules = number_of(others, &[What::RemovedSchedule, What::Work]);
    let jobs = number_of(others, &[What::Job]);
    let value = json!({
        "runs": removed.runs, "records": removed.records, "blobs": removed.blobs, "bytes": removed.bytes,
        "submissions": submissions, "keys": keys, "removed_schedules": schedules, "jobs": jobs, "dry_run": dry_run,
        "documents_kept": removed.recent, "left_in_log": removed.left_in_log,
    });
    let word = if dry_run { "would remove" } else { "removed" };
    let mut text = format!(
        "{word} {} runs, {} records and {} blobs, {} bytes",
        removed.runs, removed.records, removed.blobs, removed.bytes
    );
    if !others.is_empty() {
        text += &format!(
            "; {submissions} submissions, {keys} run keys, {schedules} parts of removed schedules and {jobs} jobs"
        );
    }
    app.output.sentence(&value, &format!("{text}; audit rows stay"));
    if removed.recent > 0 {
        app.output.note(&format!(
            "{} bundles of documents that no run uses were stored within the last hour, and stay until they are older: \
             the same command removes them then",
            removed.recent
        ));
    }
    if removed.left_in_log {
        app.output.note(
            "another process reads the log of the file, which holds what was removed: the same command empties it",
        );
    }
    if !dry_run && wire::store_path(app.store_url()).is_some() {
        app.output
            .note("`windlass store compact` writes the file anew, so that nothing is left between its values either");
    }
    if dry_run {
        app.output.note("nothing was removed; `--yes` does it");
    }
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
        actor: actor().into(),
        action: action.into(),
        subject: subject.into(),
        detail: Some(format!("{} runs", trees.runs.len()).into()),
    };
    trail::note(store, &trees.tenant, deed).await?;
    Ok(())
}

/// Writes the data of a tenant, a user or a run to a file.
pub(crate) async fn export(app: &App, args: args::Export) -> Result<Exit, Problem> {
    let whose = Whose::read(args.tenant, args.user, args.run)?;
    let store = app.readable_store().await?.ok_or_else(|| app.no_store())?;
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
    let others = beside_of(&*store, &whose, &trees).await?;
    if trees.runs.is_empty() && others.is_empty() {
        app.output.note(&nothing_of(&whose));
    }
    let mut written = Ok(());
    for one in others {
        let mut value = one.value;
        if one.what == What::Captured {
            let run = RunId::stored(value["run"].as_str().unwrap_or_default());
            let (mut asked, mut answered) = (value["asked"].take(), value["answered"].take());
            journal::cover(app, &store, &run, [&mut asked, &mut answered]).await;
            (value["asked"], value["answered"]) = (asked, answered);
        }
        if let (What::Job, Json::Object(job)) = (one.what, &mut value) {
            let hidden = job.remove("hidden").and_then(|hidden| serde_json::from_value::<Hidden>(hidden).ok());
            hidden.unwrap_or_default().veil().json(&mut value);
        }
        if written.is_ok() {
            written = write(&json!({ "type": one.what.as_str(), "name": one.name, "value": value }));
        }
    }
    for head in &trees.runs {
        if written.is_ok() {
            written = write_run(app, &store, head, &mut write).await;
        }
    }
    if let Err(problem) = written {
        // A part of an export is none.
        let _gone = std::fs::remove_file(&args.out);
        return Err(problem);
    }
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(unwritten)?;
    let runs = trees.runs.len();
    let value = json!({ "file": args.out, "runs": runs, "lines": lines });
    app.output.sentence(&value, &format!("{} has {runs} runs in {lines} lines", args.out.display()));
    Ok(Exit::Ok)
}

async fn write_run(
    app: &App,
    store: &Arc<dyn Store>,
    head: &Head,
    write: &mut impl FnMut(&Json) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut at_a_glance = runs::head(head);
    at_a_glance["type"] = json!("run");
    write(&at_a_glance)?;
    let veil = journal::veil(app, store, &head.id).await?;
    let mut reader = Reader::new(Arc::clone(store), head.id.clone(), 0);
    loop {
        let records = reader.next(RECORDS).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            write(&json!({ "type": "record", "run": head.id, "record": veil.document(&record) }))?;
        }
    }
    let rows = store.audit(head.id.clone()).await?;
    let whose = trail::whose(&**store, head, &rows).await?;
    for row in &rows {
        write(&json!({ "type": "audit", "run": head.id, "row": CallLine::of(&whose, row) }))?;
    }
    Ok(())
}
