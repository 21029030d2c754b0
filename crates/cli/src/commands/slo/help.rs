//! What a journal tells about the help that a run got.

use std::collections::BTreeSet;

use windlass_core::effect::WaitKind;
use windlass_core::ids::RunId;
use windlass_core::journal::Entry;
use windlass_core::run::Hold;
use windlass_ports::store::Store;

use crate::exit::Problem;
use crate::journal::record;

/// Journal rows read from the store at a time.
const PAGE_ROWS: usize = 1_000;

/// Why a run does not count as completed without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A run of its tree is quarantined.
    Quarantined,
    /// A run of its tree waits for a person's decision.
    Attention,
    /// It was taken out of quarantine, or from its worker.
    Requeued,
    /// A person was asked about a call: whether it happened, or whether it may.
    Asked,
    /// It was held, by a person or for one.
    Held,
    /// It had failed, and a person had it try again.
    Retried,
    /// A person changed its ceilings.
    Raised,
    /// A person moved it to another version of its machine.
    Migrated,
}

impl Cause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
            Self::Attention => "attention",
            Self::Requeued => "requeued",
            Self::Asked => "asked",
            Self::Held => "held",
            Self::Retried => "retried",
            Self::Raised => "raised",
            Self::Migrated => "migrated",
        }
    }
}

/// Entries that tell of help, as they stand in the stored form. A record without any of these words, and without
/// values that were moved out of it, need not be read.
const WORDS: [&str; 5] = ["hold_placed", "run_reopened", "ceilings_changed", "migrated", "wait_opened"];

/// The first help that any of these runs got.
///
/// # Errors
/// The store cannot be read, or its content is damaged.
pub(super) async fn in_journals(store: &dyn Store, runs: &[RunId]) -> Result<Option<Cause>, Problem> {
    let mut found = BTreeSet::new();
    for run in runs {
        let mut after = 0;
        loop {
            let rows = store.journal(run.clone(), after, PAGE_ROWS).await?;
            let Some(last) = rows.last() else { break };
            after = last.version;
            for row in &rows {
                let text = String::from_utf8_lossy(&row.bytes);
                if !row.blobs.is_empty() || WORDS.iter().any(|word| text.contains(word)) {
                    found.extend(record(store, run, row).await?.entries.iter().filter_map(cause));
                }
            }
        }
    }
    Ok(found.first().copied())
}

/// What an entry tells. A state's own `wait_for` is the machine's design and no help.
fn cause(entry: &Entry) -> Option<Cause> {
    match entry {
        Entry::WaitOpened { wait, .. } => match wait.kind {
            WaitKind::Outcome { .. }
            | WaitKind::ToolChanged { .. }
            | WaitKind::Approval { .. }
            | WaitKind::Budget { .. }
            | WaitKind::Ceiling { .. }
            | WaitKind::Transition { .. } => Some(Cause::Asked),
            WaitKind::Signal => None,
        },
        Entry::HoldPlaced { hold: Hold::Paused { .. } | Hold::Attention { .. } | Hold::ReadOnly { .. } } => {
            Some(Cause::Held)
        }
        Entry::RunReopened => Some(Cause::Retried),
        Entry::CeilingsChanged { .. } => Some(Cause::Raised),
        Entry::Migrated { .. } => Some(Cause::Migrated),
        _ => None,
    }
}
