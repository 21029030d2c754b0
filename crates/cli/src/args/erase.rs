//! `windlass erase` and `windlass export`: the data of a tenant, a user or a run. Parsing only.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// Remove the data of a tenant, a user or a run.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("of").required(true).args(["tenant", "run"])),
    after_help = "Examples:
  windlass erase --tenant acme
  windlass erase --tenant acme --user anna --yes
  windlass erase --run order-4711 --yes

Without `--yes` says what would be removed and removes nothing. Runs go with everything below them:
documents they alone used, inputs, contexts, conversations, results. Their audit rows stay: names,
numbers, codes and hashes, so that the audit trail still verifies, and this command stands in it.
A run that has not ended is refused: cancel it first. See docs/audit.md for what lies elsewhere."
)]
pub(crate) struct Erase {
    /// Everything of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Of the tenant, only runs for this user
    #[arg(long, value_name = "NAME", requires = "tenant")]
    pub user: Option<String>,
    /// Only this run and everything below it
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Do it
    #[arg(long)]
    pub yes: bool,
}

/// Write the data of a tenant, a user or a run to a file.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("of").required(true).args(["tenant", "run"])),
    after_help = "Examples:
  windlass export --tenant acme --out acme.jsonl
  windlass export --tenant acme --user anna --out anna.jsonl
  windlass export --run order-4711 --out order-4711.jsonl

One JSON document per line: each run at a glance, its journal with all values in place, and its audit
rows. What `windlass erase` with the same options removes is in it, and so it holds everything that
prompts, arguments and results said: keep it accordingly."
)]
pub(crate) struct Export {
    /// Everything of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Of the tenant, only runs for this user
    #[arg(long, value_name = "NAME", requires = "tenant")]
    pub user: Option<String>,
    /// Only this run and everything below it
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// The file to write; it must not be there
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}
