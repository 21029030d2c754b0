//! `windlass fsck`: what the store finds wrong in itself, and where rows are not what their journals say.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use windlass_core::ids::RunId;
use windlass_ports::store::{Finding, Head, Query, Store, StoreError, WaitRow, escrow};
use windlass_runtime::Versions;
use windlass_runtime::derived::{self, Difference, Folding};

use super::accounts;
use crate::app::{App, RESTORE};
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};
use crate::output::Output;

/// Runs compared at the same time; no more than a store has readers.
const AT_ONCE: usize = 4;
/// Ids read at a time.
const PAGE: usize = 500;
/// How often a run that moves on while it is compared is looked at again.
const TRIES_MAX: u32 = 5;
/// How often long work says how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Findings kept and told; a store with more of them is beyond repair run by run.
const FINDINGS_MAX: usize = 10_000;
/// The rule of what is wrong with published versions.
const VERSION: &str = "version";
/// The rule of what differs from the journal.
const DERIVED: &str = "derived";

/// A rule, and what differs.
type Differs = (&'static str, String);

/// Checks everything that can be checked without a machine.
pub(crate) async fn fsck(app: &App, _: args::Fsck) -> Result<Exit, Problem> {
    let store = app.readable_store().await?.ok_or_else(|| app.no_store())?;
    let checked = telling(app.output, "reading what is stored", store.fsck()).await;
    let mut findings = checked.map_err(|error| match error {
        StoreError::Corrupt(_) => Problem::from(error).hint(RESTORE),
        other => other.into(),
    })?;
    let versions = Versions::new(Arc::clone(&store));
    for (rule, found) in [(accounts::BUDGET, accounts::compare(&*store).await), (VERSION, versions.check().await)] {
        match found {
            Ok(found) => findings.extend(found),
            // What cannot be read has been told of by the store itself, unless it is only no account and no version.
            Err(StoreError::Corrupt(message)) => findings.push(Finding { run: None, rule: rule.into(), message }),
            Err(error) => return Err(error.into()),
        }
    }
    compare_all(app, &store, &mut findings).await?;
    let more = findings.len().saturating_sub(FINDINGS_MAX);
    findings.truncate(FINDINGS_MAX);
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|f| {
            vec![f.run.as_ref().map_or_else(String::new, ToString::to_string), f.rule.to_string(), f.message.clone()]
        })
        .collect();
    let value = json!({ "ok": findings.is_empty(), "findings": findings });
    if findings.is_empty() {
        app.output.sentence(&value, "nothing is wrong");
        return Ok(Exit::Ok);
    }
    app.output.table(&value, &["run", "rule", "finding"], &rows);
    if more > 0 {
        app.output.note(&format!("only the first {FINDINGS_MAX} findings are told, and no further run was looked at"));
    }
    app.output.note("docs/operations/fsck.md says what each rule means and what to do");
    Ok(Exit::Failed)
}

/// Says from time to time that work goes on.
async fn telling<T>(output: Output, what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(TOLD_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => output.note(&format!("{what}, for {} s so far", began.elapsed().as_secs())),
        }
    }
}

/// Compares every run with its journal.
async fn compare_all(app: &App, store: &Arc<dyn Store>, findings: &mut Vec<Finding>) -> Result<(), Problem> {
    let total: u64 = store.stats().await.map_or(0, |stats| stats.runs.iter().map(|(_, count)| count).sum());
    let known: BTreeSet<RunId> = findings.iter().filter_map(|finding| finding.run.clone()).collect();
    let (mut after, mut done, mut told) = (None, 0_u64, Instant::now());
    loop {
        let ids = store.ids(after, PAGE).await?;
        let Some(last) = ids.last().cloned() else { return Ok(()) };
        after = Some(last);
        let mut compared = futures::stream::iter(ids).map(|id| compare(app, store, id)).buffered(AT_ONCE);
        while let Some(compared) = compared.next().await {
            let found = compared?;
            // What cannot be read has been told of by the store itself.
            findings.extend(found.into_iter().filter(|finding| {
                matches!(&*finding.rule, DERIVED | accounts::BUDGET)
                    || finding.run.as_ref().is_none_or(|run| !known.contains(run))
            }));
            done += 1;
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                app.output.note(&format!("compared {done} of {total} runs with their journals"));
            }
        }
        if findings.len() > FINDINGS_MAX {
            return Ok(());
        }
    }
}

async fn compare(app: &App, store: &Arc<dyn Store>, id: RunId) -> Result<Vec<Finding>, Problem> {
    let of = |rule: &str, message: String| Finding { run: Some(id.clone()), rule: rule.into(), message };
    for _ in 0..TRIES_MAX {
        let (seen, differences) = match read(app, store, &id).await {
            Ok(Some((_, differences))) if differences.is_empty() => return Ok(Vec::new()),
            Ok(Some(read)) => read,
            Ok(None) => return Ok(Vec::new()),
            Err(problem) if problem.code == "store.corrupt" => return Ok(vec![of("integrity", problem.message)]),
            Err(problem) => return Err(problem),
        };
        // What differs may be what has changed between two looks.
        if store.load(id.clone()).await?.is_some_and(|stored| stored.head == seen) {
            return Ok(differences.into_iter().map(|(rule, found)| of(rule, found)).collect());
        }
    }
    tracing::debug!(run_id = %id, "the run moved on every time it was looked at");
    Ok(Vec::new())
}

/// What of a run differs from its journal, and the row that was looked at. None when the run is gone.
async fn read(app: &App, store: &Arc<dyn Store>, id: &RunId) -> Result<Option<(Head, Vec<Differs>)>, Problem> {
    let told = escrow::allotted(&**store, id).await?;
    let Some(stored) = store.load(id.clone()).await? else { return Ok(None) };
    let (head, audit) = (stored.head, store.audit(id.clone()).await?);
    let waits = waits(&**store, id).await?;
    let mut folding = Folding::new(stored.start);
    let mut found: Vec<Difference> = Vec::new();
    let mut reader = Reader::new(Arc::clone(store), id.clone(), 0);
    let snapshot = stored.snapshot.as_deref().map(|bytes| (journal::version_of(id, bytes), bytes));
    let snapshot = match snapshot {
        Some((version, bytes)) => Some((version?, bytes)),
        None => None,
    };
    while folding.run.version < head.version {
        let records = reader.next(usize::MAX).await?;
        if records.is_empty() {
            break;
        }
        for record in records.iter().take_while(|record| record.version <= head.version) {
            found.extend(folding.record(record, &audit).filter(|_| found.is_empty()));
            found.extend(snapshot.and_then(|(at, bytes)| folding.snapshot(at, bytes).filter(|_| record.version == at)));
        }
    }
    found.extend(derived::differences(&folding.run, &head, &waits, app.now()));
    if !folding.children.is_empty() {
        found.extend(derived::children(&folding.children, &below(&**store, id).await?));
    }
    let mut found: Vec<Differs> = found.into_iter().map(|found| (DERIVED, found.to_string())).collect();
    let overtold = told.and_then(|told| accounts::overtold(&folding.run, &told));
    found.extend(overtold.map(|message| (accounts::BUDGET, message)));
    Ok(Some((head, found)))
}

/// The open waits of a run, as they are stored.
pub(crate) async fn waits(store: &dyn Store, id: &RunId) -> Result<Vec<WaitRow>, Problem> {
    Ok(store.waits(id.clone(), false).await?.into_iter().map(|(_, row)| row).collect())
}

/// The runs that have this one as their parent.
async fn below(store: &dyn Store, id: &RunId) -> Result<BTreeSet<RunId>, Problem> {
    let (mut found, mut cursor) = (BTreeSet::new(), None);
    loop {
        let query = Query { parent: Some(id.clone()), cursor, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        found.extend(page.heads.into_iter().map(|head| head.id));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}
