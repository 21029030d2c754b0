//! Reading a run's journal outside of the engine: records with their large values in place.

use std::sync::Arc;

use serde_json::Value as Json;
use windlass_core::apply;
use windlass_core::hidden::Veil;
use windlass_core::ids::RunId;
use windlass_core::journal::Record;
use windlass_core::redact::REDACTED;
use windlass_core::run::{Run, Start};
use windlass_ports::store::{JournalRow, Store};
use windlass_runtime::blobs;
use windlass_runtime::fold;

use crate::app::App;
use crate::exit::{Exit, Problem};

/// Rows read from the store at a time.
const PAGE_ROWS: usize = 256;

/// Rows of a run's journal, page by page.
#[derive(Debug)]
pub(crate) struct Reader {
    store: Arc<dyn Store>,
    run: RunId,
    after: u64,
}

impl Reader {
    /// Reads the journal of `run` from after a version.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn Store>, run: RunId, after: u64) -> Self {
        Self { store, run, after }
    }

    /// The version up to which was read.
    #[must_use]
    pub(crate) fn after(&self) -> u64 {
        self.after
    }

    /// The next records; none when there are no more for the time being.
    ///
    /// # Errors
    /// The store cannot be read, or its content is damaged.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Vec<Record>, Problem> {
        let rows = self.store.journal(self.run.clone(), self.after, limit.min(PAGE_ROWS)).await?;
        let blobs = blobs(&*self.store, &rows).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            records.push(fold::read(&row, &blobs).map_err(|error| damaged(&self.run, &error))?);
            self.after = row.version;
        }
        Ok(records)
    }
}

/// A run as it is stored, from its latest snapshot on.
///
/// # Errors
/// The store cannot be read, has no such run, or its content is damaged.
pub(crate) async fn current(store: &dyn Store, run: &RunId) -> Result<Run, Problem> {
    let stored = store.load(run.clone()).await?.ok_or_else(|| Problem::unknown_run(run.as_str()))?;
    let blobs = blobs(store, &stored.records).await?;
    let folded = fold::fold(stored.start, stored.snapshot.as_deref(), &stored.records, &blobs);
    folded.map(|folded| folded.run).map_err(|error| damaged(run, &error))
}

/// The version of a run that a snapshot is of.
///
/// # Errors
/// Bytes that are no snapshot.
pub(crate) fn version_of(run: &RunId, snapshot: &[u8]) -> Result<u64, Problem> {
    let decoded = windlass_core::snapshot::decode(snapshot).map_err(|error| damaged(run, &error))?;
    Ok(decoded.version)
}

/// How a run begins.
///
/// # Errors
/// The store cannot be read, or has no such run.
pub(crate) async fn start(store: &dyn Store, run: &RunId) -> Result<Start, Problem> {
    let stored = store.load(run.clone()).await?.ok_or_else(|| Problem::unknown_run(run.as_str()))?;
    Ok(stored.start)
}

/// What finds the values of a run that are not shown, and what models thought unless the configuration shows it. Where the
/// run's state cannot be read, its journal says as much as it can.
///
/// # Errors
/// The store cannot be read, or has no such run.
pub(crate) async fn veil(app: &App, store: &Arc<dyn Store>, run: &RunId) -> Result<Veil, Problem> {
    hidden(store, run).await.map(|veil| veil.with_thinking(app.shows_thinking()))
}

async fn hidden(store: &Arc<dyn Store>, run: &RunId) -> Result<Veil, Problem> {
    if let Ok(run) = current(&**store, run).await {
        return Ok(run.hidden.veil());
    }
    let mut folded = Run::blank(start(&**store, run).await?);
    let mut reader = Reader::new(Arc::clone(store), run.clone(), 0);
    while let Ok(records) = reader.next(PAGE_ROWS).await {
        if records.is_empty() {
            break;
        }
        for entry in records.iter().flat_map(|record| &record.entries) {
            let _ = apply(&mut folded, entry);
        }
    }
    Ok(folded.hidden.veil())
}

/// Puts the veil of a run over JSON that stands beside its journal. Of a run that is gone or cannot be read nobody knows what
/// is not shown, so nothing is.
pub(crate) async fn cover<const N: usize>(app: &App, store: &Arc<dyn Store>, run: &RunId, parts: [&mut Json; N]) {
    let veil = veil(app, store, run).await.ok();
    for part in parts {
        match &veil {
            Some(veil) => veil.json(part),
            None => *part = REDACTED.into(),
        }
    }
}

/// What a row of a journal records, large values in place.
///
/// # Errors
/// The store cannot be read, or its content is damaged.
pub(crate) async fn record(store: &dyn Store, run: &RunId, row: &JournalRow) -> Result<Record, Problem> {
    let blobs = blobs(store, std::slice::from_ref(row)).await?;
    fold::read(row, &blobs).map_err(|error| damaged(run, &error))
}

/// Stored bytes that are not what was written.
pub(crate) fn damaged(run: &RunId, error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Exit::Unreachable, "store.corrupt", format!("run `{run}` cannot be read: {error}"))
        .hint("`windlass fsck` lists what is damaged; restore a copy made by `windlass store backup`")
}
