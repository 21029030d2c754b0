//! `windlass preflight`: whether a machine may go to production. Parsing only.

use std::path::PathBuf;

use clap::Args;

/// Check that everything is there that a machine needs to run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass preflight machine.yml
  windlass preflight machine.yml --json | jq '.checks[] | select(.state == \"failed\")'

Nothing is called. Looks whether secrets are there, whether models are priced, still served and
where they have to be, whether personal data is looked for before it leaves, and whether people
who are asked hear of it. Exits with 3 when a check fails. With `required = true` under
`[preflight]`, as in `prod-safe`, `windlass run` starts nothing then.")]
pub(crate) struct Preflight {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
}
