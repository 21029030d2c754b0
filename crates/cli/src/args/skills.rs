//! `windlass skills`: packs of instructions, tools and machines. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Register, find, show and check skills.
#[derive(Debug, Subcommand)]
pub(crate) enum Skills {
    /// Register the pack in a folder in the store
    Add(SkillsAdd),
    /// List the skills of the configured folders and of the store
    List(SkillsList),
    /// Find skills by what they are for
    Search(SkillsSearch),
    /// Show a skill: what it wants, its digest, its instructions
    Show(SkillsShow),
    /// Remove a registered version
    Remove(SkillsRemove),
    /// Check packs before they are used
    Check(SkillsCheck),
}

/// Register a pack.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills add skills/refunds
  windlass skills add skills/refunds --json | jq -r .digest

A version never changes: the same version with another content is refused, also after it was
removed. Give what was changed a new version in its skill.yml.")]
pub(crate) struct SkillsAdd {
    /// The folder with a `skill.yml`
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}

/// List skills.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills list
  windlass skills list --limit 50 --after refunds@1.2.0
  windlass skills list --json | jq -r '.skills[] | \"\\(.name)@\\(.version)#\\(.digest)\"'")]
pub(crate) struct SkillsList {
    /// How many are listed at most
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,
    /// Those after this one, `NAME@VERSION`, in the order of their names
    #[arg(long, value_name = "SKILL")]
    pub after: Option<String>,
}

/// Find skills.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills search 'give money back for a damaged parcel'
  windlass skills search refund --limit 3 --json

Ranks the highest version of each skill by its name, description and keywords, as agents find
theirs.")]
pub(crate) struct SkillsSearch {
    /// What the skill should be for
    #[arg(value_name = "WORDS", required = true)]
    pub words: Vec<String>,
    /// How many are found at most
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub limit: usize,
}

/// Show a skill.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills show refunds
  windlass skills show refunds@^1
  windlass skills show refunds@1.2.0 --json | jq .files")]
pub(crate) struct SkillsShow {
    /// The skill, with the versions that fit: `NAME` or `NAME@VERSION`
    #[arg(value_name = "SKILL")]
    pub skill: String,
}

/// Remove a version.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills remove refunds@1.2.0

Runs that use it have it in their bundle and go on. The version stays taken: it can be
registered again with the same content only.")]
pub(crate) struct SkillsRemove {
    /// The version: `NAME@VERSION`
    #[arg(value_name = "SKILL")]
    pub skill: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}

/// Check packs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass skills check
  windlass skills check skills/refunds

Without a folder every pack below `[skills] paths` is checked: its skill.yml, its machine, and
that the tools that it wants are configured. Exits with 2 when something is wrong.")]
pub(crate) struct SkillsCheck {
    /// Folders of packs, or with packs in them
    #[arg(value_name = "FOLDER")]
    pub folders: Vec<PathBuf>,
}
