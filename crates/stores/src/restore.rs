//! What every store says about bringing a backup back, and about its schema. How it is done is each store's own.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::Serialize;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Finding, Object, Put, Store, StoreError};

/// Objects looked at at a time.
const PAGE: usize = 500;

/// Which version of its tables a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// What is there.
    pub found: u32,
    /// The newest that this build knows.
    pub known: u32,
}

/// Why a backup cannot be written to a file, in the same words for every store.
pub(crate) fn unwritten(to: &Path, error: &io::Error) -> StoreError {
    let to = format!("`{}`", to.display());
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return StoreError::disk_full(to, error);
    }
    StoreError::Unavailable(format!("cannot write the backup {to}: {error}"))
}

/// A backup never replaces a file.
///
/// # Errors
/// [`StoreError::Invalid`] when there is one.
pub(crate) fn check_free(to: &Path) -> Result<(), StoreError> {
    if to.exists() {
        return Err(StoreError::Invalid(format!("`{}` exists already", to.display())));
    }
    Ok(())
}

/// What becomes of the objects of a kind in a restored store, before anyone sees it.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    /// The kind.
    pub kind: &'a str,
    /// The new bytes; none when it stays as it is.
    pub change: &'a (dyn Fn(&[u8]) -> Option<Vec<u8>> + Sync),
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Held<'_> {
    /// Changes the objects of a store that nobody else uses. Gives back how many were changed.
    ///
    /// # Errors
    /// The store fails.
    pub async fn apply(self, store: &dyn Store) -> Result<u64, StoreError> {
        let (mut after, mut changed) = (None, 0);
        loop {
            let objects = store.objects(self.kind.into(), after, PAGE).await?;
            let is_last = objects.len() < PAGE;
            after = objects.last().map(|object| object.key.clone());
            for object in objects {
                let Some(bytes) = (self.change)(&object.bytes) else { continue };
                let Object { key, revision: expected, .. } = object;
                let put = Put { kind: self.kind.into(), key, expected, bytes: Some(bytes) };
                changed += u64::from(store.put_object(put).await?);
            }
            if is_last {
                return Ok(changed);
            }
        }
    }
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the store that was there is kept.
    pub aside: Option<PathBuf>,
    /// Unfinished runs, which are all held back.
    pub quarantined: u64,
    /// Objects that were held as well.
    pub held: u64,
    /// The last change that the backup knows of; none of a store without runs.
    pub taken_at: Option<Timestamp>,
}

/// Why nothing was restored. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something is there already.
    #[error("`{target}` holds a store already")]
    NotEmpty {
        /// The target.
        target: String,
    },
    /// The backup is not what was written.
    #[error("the backup is damaged: {}", first(.0))]
    Damaged(Vec<Finding>),
    /// The backup cannot be read, or the target cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn first(findings: &[Finding]) -> String {
    let Some(finding) = findings.first() else { return String::new() };
    let run = finding.run.as_ref().map(|run| format!("run `{run}`: ")).unwrap_or_default();
    let more = match findings.len() {
        1 => String::new(),
        count => format!(", and {} more", count - 1),
    };
    format!("{run}{}{more}", finding.message)
}
