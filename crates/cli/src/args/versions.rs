//! `windlass versions`: machines published under names, and where each name points. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Publish machines under names, compare what was published, and roll back.
#[derive(Debug, Subcommand)]
pub(crate) enum Versions {
    /// Publish a machine as the next version of a name, and let the name mean it
    Publish(VersionsPublish),
    /// List names, or the versions of one
    List(VersionsList),
    /// Show a version: who published it, its documents, their hashes
    Show(VersionsShow),
    /// Show what changed from one version to another
    Diff(VersionsDiff),
    /// Let a name mean an earlier version, or any other
    Rollback(VersionsRollback),
}

/// Publish a machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass versions publish triage machines/triage.yml --note 'shorter prompt'
  windlass versions publish triage machines/triage.yml --by ann --json | jq -r .id
  windlass versions publish triage-live triage@4
  windlass run triage@

A version is the machine document with every document and skill that it refers to, and never
changes. What the name means already is not published again. Runs of before stay as they are.
A document with a key written into it is refused: name it by `key_env` or `key_secret`.")]
pub(crate) struct VersionsPublish {
    /// The name: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The machine document, or a version of any name: `NAME@` or `NAME@NUMBER`
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// Why, for whoever looks at the list
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub note: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}

/// List names or versions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass versions list
  windlass versions list triage
  windlass versions list triage --limit 20 --cursor 41
  windlass versions list --json | jq -r '.names[] | \"\\(.name)@\\(.current)\"'

Names are listed in their order, versions of a name from the highest down.")]
pub(crate) struct VersionsList {
    /// The name whose versions are listed
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// How many are listed at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "NEXT")]
    pub cursor: Option<String>,
}

/// Show a version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass versions show triage
  windlass versions show triage@3
  windlass versions show triage@3 --file prompts/clerk.md
  windlass versions show triage@3 --json | jq -r '.files[\"triage.yml\"].text'")]
pub(crate) struct VersionsShow {
    /// The version: `NAME@NUMBER`, or `NAME` for the one that it means
    #[arg(value_name = "VERSION")]
    pub version: String,
    /// Print only this document of it, as it is
    #[arg(long, value_name = "PATH")]
    pub file: Option<String>,
}

/// Compare two versions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass versions diff triage 3 4
  windlass versions diff triage 3
  windlass versions diff triage 3 4 --json | jq -r '.agents[] | [.agent, .change] | @tsv'

Prints which agents, documents and skills changed, and the changed lines of each text.")]
pub(crate) struct VersionsDiff {
    /// The name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The number of the version before
    #[arg(value_name = "FROM")]
    pub from: u64,
    /// The number of the version after [default: the one that the name means]
    #[arg(value_name = "TO")]
    pub to: Option<u64>,
    /// Unchanged lines around each change
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub context: u32,
}

/// Let a name mean another version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass versions rollback triage
  windlass versions rollback triage --to 3 --by ann

Nothing is removed, and runs in flight stay with what they began with: only runs that start
from here on are of the other version. `--to` goes to any version, also back up again.")]
pub(crate) struct VersionsRollback {
    /// The name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The number that it is to mean [default: what it meant before it was published]
    #[arg(long, value_name = "NUMBER")]
    pub to: Option<u64>,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}
