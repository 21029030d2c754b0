//! What every store says about bringing a backup back, and about its schema. How it is done is each store's own.

use std::path::PathBuf;

use serde::Serialize;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Finding, StoreError};

/// Which version of its tables a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// What is there.
    pub found: u32,
    /// The newest that this build knows.
    pub known: u32,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the store that was there is kept.
    pub aside: Option<PathBuf>,
    /// Unfinished runs, which are all held back.
    pub quarantined: u64,
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
