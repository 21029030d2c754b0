//! `windlass replay` and `verify`: what a run's journal says, and whether everything else agrees with it.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use windlass_core::audit;
use windlass_core::ids::{Digest, EffectId, RunId};
use windlass_core::journal::{Entry, Record};
use windlass_core::machine::Machine;
use windlass_core::run::Run;
use windlass_core::time::Timestamp;
use windlass_core::{apply, request, snapshot};
use windlass_ports::compile::{Bundle, Compiler};
use windlass_ports::store::{Head, Query, Store, WaitRow};
use windlass_runtime::derived;

use super::runs::replayed;
use super::store::waits;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader, damaged};
use crate::output::Form;
use crate::story::counted;

/// Runs of one page of a tree.
const TREE_PAGE: usize = 500;
/// How often a run that goes on while it is read is read again.
const TRIES_MAX: u32 = 5;

/// Folds a run's journal and prints the state.
pub(crate) async fn replay(app: &App, args: args::Replay) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let to = args.to.unwrap_or(head.version);
    if to > head.version {
        return Err(Problem::rejected(format!("run `{}` has {} versions, not {to}", head.id, head.version)));
    }
    // What came up later is not shown of what was before either.
    let veil = journal::veil(app, &store, &head.id).await?;
    let mut run = Run::blank(journal::start(&*store, &head.id).await?);
    let mut reader = Reader::new(store, head.id.clone(), 0);
    while run.version < to {
        let records = reader.next(usize::MAX).await?;
        if records.is_empty() {
            return Err(damaged(&head.id, &format!("its journal ends at version {}", run.version)));
        }
        for record in records.iter().take_while(|record| record.version <= to) {
            for entry in &record.entries {
                let _ = apply(&mut run, entry);
            }
        }
    }
    if app.output.form() == Form::Json {
        app.output.document(&replayed(&run, &veil));
    } else {
        let state = run.state.as_deref().unwrap_or("-");
        app.output.text(&format!(
            "{} · {} · state {state} · {} · version {}\n{}",
            run.id(),
            run.status().as_str(),
            counted(run.step, "step"),
            run.version,
            serde_json::to_string_pretty(&veil.document(&run.context)).unwrap_or_default()
        ));
    }
    Ok(Exit::Ok)
}

/// What verification of one run found.
#[derive(Clone, Debug, Serialize)]
struct Verified {
    run_id: String,
    ok: bool,
    records: u64,
    calls: u64,
    audit_rows: u64,
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
}

/// The first place where something does not agree with the journal.
#[derive(Clone, Debug, Serialize)]
struct Difference {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<u64>,
    message: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    differs: Option<derived::Difference>,
}

/// Replays runs and compares everything that can be rendered again.
pub(crate) async fn verify(app: &App, args: args::Verify) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let compiler = windlass::wire::compiler();
    let runs = if args.tree { tree(&*store, &head.id).await? } else { vec![head.id] };
    let mut all = Vec::new();
    for run in runs {
        all.push(Verification::of(app, Arc::clone(&store), compiler.as_ref(), run).await?);
    }
    let ok = all.iter().all(|verified| verified.ok);
    let value = if args.tree { json!({ "ok": ok, "runs": all }) } else { json!(all.first()) };
    let sentences: Vec<String> = all.iter().map(sentence).collect();
    app.output.sentence(&value, &sentences.join("\n"));
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}

fn sentence(verified: &Verified) -> String {
    match &verified.difference {
        None => format!(
            "{}: agrees in {}, {} and {}",
            verified.run_id,
            counted(verified.records, "record"),
            counted(verified.calls, "call"),
            counted(verified.audit_rows, "audit row")
        ),
        Some(difference) => format!("{}: version {}: {}", verified.run_id, difference.version, difference.message),
    }
}

async fn tree(store: &dyn Store, root: &RunId) -> Result<Vec<RunId>, Problem> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let query = Query { root: Some(root.clone()), cursor, limit: TREE_PAGE, ..Query::default() };
        let page = store.list(query).await?;
        found.extend(page.heads.into_iter().map(|head| head.id));
        cursor = page.next;
        if cursor.is_none() {
            found.sort();
            return Ok(found);
        }
    }
}

struct Verification<'a> {
    compiler: &'a dyn Compiler,
    store: Arc<dyn Store>,
    machine: Arc<Machine>,
    run: Run,
    rows: Vec<audit::Row>,
    seen_rows: usize,
    calls: u64,
    snapshot: Option<(u64, Vec<u8>)>,
    compared_snapshot: bool,
}

impl<'a> Verification<'a> {
    /// Looks again when the run went on meanwhile.
    async fn of(app: &App, store: Arc<dyn Store>, compiler: &'a dyn Compiler, id: RunId) -> Result<Verified, Problem> {
        for _ in 0..TRIES_MAX {
            if let Some(verified) = Self::once(app.now(), Arc::clone(&store), compiler, id.clone()).await? {
                return Ok(verified);
            }
        }
        Err(Problem::rejected(format!("run `{id}` goes on faster than it can be read"))
            .hint("pause it, or verify it once it has ended"))
    }

    /// None when the run went on while it was read.
    async fn once(
        now: Timestamp,
        store: Arc<dyn Store>,
        compiler: &'a dyn Compiler,
        id: RunId,
    ) -> Result<Option<Verified>, Problem> {
        let stored = store.load(id.clone()).await?.ok_or_else(|| Problem::unknown_run(id.as_str()))?;
        let waits = waits(&*store, &id).await?;
        let snapshot = match stored.snapshot {
            Some(bytes) => {
                let run = snapshot::decode(&bytes).map_err(|error| damaged(&id, &error))?;
                Some((run.version, bytes))
            }
            None => None,
        };
        let machine = machine(&*store, compiler, stored.start.bundle, &stored.start.machine).await?;
        let mut verification = Self {
            compiler,
            machine,
            run: Run::blank(stored.start),
            rows: store.audit(id.clone()).await?,
            seen_rows: 0,
            calls: 0,
            snapshot,
            compared_snapshot: false,
            store: Arc::clone(&store),
        };
        let mut reader = Reader::new(store, id.clone(), 0);
        let mut records = 0;
        let mut difference = None;
        'journal: while verification.run.version < stored.head.version {
            let page = reader.next(usize::MAX).await?;
            if page.is_empty() {
                break;
            }
            // A run that goes on meanwhile is compared as it was.
            for record in page.into_iter().take_while(|record| record.version <= stored.head.version) {
                records += 1;
                difference = verification.record(&record).await?;
                if difference.is_some() {
                    break 'journal;
                }
            }
        }
        let difference = difference.or_else(|| verification.end(&stored.head, &waits, now));
        if difference.is_some() && verification.has_moved(&id, &stored.head).await? {
            return Ok(None);
        }
        Ok(Some(Verified {
            run_id: id.to_string(),
            ok: difference.is_none(),
            records,
            calls: verification.calls,
            audit_rows: verification.seen_rows as u64,
            snapshot: verification.compared_snapshot,
            difference,
        }))
    }

    /// Whether the row is another one than that which was compared.
    async fn has_moved(&self, id: &RunId, head: &Head) -> Result<bool, Problem> {
        Ok(self.store.load(id.clone()).await?.is_some_and(|stored| stored.head != *head))
    }

    async fn record(&mut self, record: &Record) -> Result<Option<Difference>, Problem> {
        for entry in &record.entries {
            let row = apply(&mut self.run, entry);
            if let Some(row) = row
                && let Some(difference) = self.audit_row(&row, record.version)
            {
                return Ok(Some(difference));
            }
            match entry {
                Entry::CallIntended { effect, .. } | Entry::AttemptStarted { effect, .. } => {
                    if let Some(difference) = self.call(*effect, record.version) {
                        return Ok(Some(difference));
                    }
                }
                Entry::Migrated { bundle, machine: key } => {
                    self.machine = machine(&*self.store, self.compiler, *bundle, key).await?;
                }
                _ => {}
            }
        }
        Ok(self.snapshot_at(record.version))
    }

    fn call(&mut self, effect: EffectId, version: u64) -> Option<Difference> {
        self.calls += 1;
        let open = self.run.calls.get(&effect)?;
        let rendered = request::open_digest(&self.machine, &self.run, effect)?;
        (rendered != open.arguments).then(|| Difference {
            version,
            step: Some(self.run.step),
            effect: Some(effect.0),
            message: format!(
                "the {} call {effect} of `{}` renders to {} and was recorded as {}",
                open.call.kind(),
                open.call.target(),
                rendered.short(),
                open.arguments.short()
            ),
            differs: None,
        })
    }

    fn audit_row(&mut self, row: &audit::Row, version: u64) -> Option<Difference> {
        let stored = self.rows.get(self.seen_rows);
        self.seen_rows += 1;
        let message = match stored {
            None => format!("audit row {} is missing", row.number),
            Some(stored) if stored.previous != row.previous => {
                format!("audit row {} does not follow the row before it", row.number)
            }
            Some(stored) if stored != row => format!("audit row {} is not what the journal says", row.number),
            Some(_) => return None,
        };
        Some(Difference { version, step: Some(self.run.step), effect: Some(row.effect.0), message, differs: None })
    }

    fn snapshot_at(&mut self, version: u64) -> Option<Difference> {
        let (_, bytes) = self.snapshot.as_ref().filter(|(at, _)| *at == version)?;
        self.compared_snapshot = true;
        (snapshot::encode(&self.run) != *bytes).then(|| Difference {
            version,
            step: Some(self.run.step),
            effect: None,
            message: "the stored snapshot is not what folding the journal gives".into(),
            differs: None,
        })
    }

    fn end(&self, head: &Head, waits: &[WaitRow], now: Timestamp) -> Option<Difference> {
        let version = head.version;
        let row = || derived::differences(&self.run, head, waits, now).into_iter().next();
        let message = if self.run.version != version {
            format!("the journal ends at version {}, the run is at {version}", self.run.version)
        } else if let Some(differs) = row() {
            let message = differs.to_string();
            return Some(Difference { version, step: None, effect: None, message, differs: Some(differs) });
        } else if self.rows.len() > self.seen_rows {
            format!("there are {} audit rows more than the journal has", self.rows.len() - self.seen_rows)
        } else {
            return None;
        };
        Some(Difference { version: self.run.version, step: None, effect: None, message, differs: None })
    }
}

async fn machine(
    store: &dyn Store,
    compiler: &dyn Compiler,
    bundle: Digest,
    key: &str,
) -> Result<Arc<Machine>, Problem> {
    let missing =
        || Problem::new(Exit::Unreachable, "store.corrupt", format!("the bundle {} is missing", bundle.short()));
    let bytes = store.blob(bundle).await?.ok_or_else(missing)?;
    let decoded = Bundle::decode(&bytes).map_err(|_| missing())?;
    let program =
        compiler.compile(&decoded).map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    program.machines.get(key).cloned().ok_or_else(|| Problem::bug(format!("the bundle has no machine `{key}`")))
}
