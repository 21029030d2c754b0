//! Reads what a store has in the end: every run with its journal and its audit rows.

use std::collections::BTreeMap;

use windlass_core::ids::Digest;
use windlass_ports::store::{Head, Query, Store, StoreError};
use windlass_runtime::fold;

use super::{Row, RunEnd};

/// Runs and rows read at a time.
const PAGE: usize = 500;

/// Every run of a store.
///
/// # Errors
/// A store that fails, or has a row that cannot be read.
pub async fn collect(store: &dyn Store) -> Result<Vec<RunEnd>, StoreError> {
    let mut query = Query { limit: PAGE, ..Query::default() };
    let mut runs = Vec::new();
    loop {
        let page = store.list(query.clone()).await?;
        for head in page.heads {
            runs.push(run(store, head).await?);
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    runs.reverse();
    Ok(runs)
}

async fn run(store: &dyn Store, head: Head) -> Result<RunEnd, StoreError> {
    let id = head.id.clone();
    let gone = || StoreError::Corrupt(format!("run `{id}` is listed and cannot be loaded"));
    let stored = store.load(id.clone()).await?.ok_or_else(gone)?;
    let mut rows = Vec::new();
    let mut after = 0;
    loop {
        let page = store.journal(id.clone(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.version;
        let mut blobs = BTreeMap::new();
        for digest in fold::references(&page) {
            if let Some(bytes) = store.blob(digest).await? {
                blobs.insert(digest, bytes);
            }
        }
        for row in page {
            let unreadable = |error: fold::FoldError| StoreError::Corrupt(format!("run `{id}`: {error}"));
            let record = fold::read(&row, &blobs).map_err(unreadable)?;
            rows.push(Row { digest: Digest::of(&row.bytes), record });
        }
    }
    Ok(RunEnd {
        start: stored.start,
        status: head.status,
        version: head.version,
        rows,
        audit: store.audit(id.clone()).await?,
        waits: store.waits(id.clone(), false).await?.len() as u64,
        inbox: store.inbox(id.clone()).await?.len() as u64,
    })
}
