//! `windlass secrets`: the operator's own secrets. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Span;

/// Set, list, rotate and remove the secrets that the configuration names.
#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// List secrets: names, versions, and what uses them; never a value
    List(SecretsList),
    /// Set a secret that is not there yet
    Set(SecretsSet),
    /// Give a secret another value; workers that run take it up
    Rotate(SecretsRotate),
    /// Remove a secret, or only the value before the present one
    Remove(SecretsRemove),
}

/// List secrets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass secrets list
  windlass secrets list --check
  windlass secrets list --json | jq '.secrets[] | select(.used_by == [])'

Names every secret that is kept, told by a command, set in the environment or in a file of its
own, or missing, with the keys of the configuration and the documents below its folder that name it.")]
pub(crate) struct SecretsList {
    /// Run the commands of `[secrets.commands]`, and say of each whether it tells its secret; exits with 3 when one does not
    #[arg(long)]
    pub check: bool,
}

/// Where a value is read from. It is never an argument: those are seen by other processes.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Given {
    /// Read the value from this file; without this and `--from-env` from stdin
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Read the value from this environment variable
    #[arg(long, value_name = "VARIABLE")]
    pub from_env: Option<String>,
}

/// Set a secret.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pass show crm/token | windlass secrets set crm-token
  windlass secrets set openai --file key.txt

The configuration names it as `secret:NAME`. One line break at the end of the value is left
out.")]
pub(crate) struct SecretsSet {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the value is
    #[command(flatten)]
    pub given: Given,
}

/// Give a secret another value.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pass show crm/token | windlass secrets rotate crm-token
  windlass secrets rotate crm-token --file new.txt --grace 7d
  windlass secrets rotate crm-token --back

The value before is kept for the grace time: `--back` takes it again, and it is kept out of
answers and failures for as long.")]
pub(crate) struct SecretsRotate {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the value is
    #[command(flatten)]
    pub given: Given,
    /// Take the value before again
    #[arg(long, conflicts_with_all = ["file", "from_env"])]
    pub back: bool,
    /// How long the value before is kept
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub grace: Span,
}

/// Remove a secret.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass secrets remove crm-token
  windlass secrets remove crm-token --previous")]
pub(crate) struct SecretsRemove {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only the value before the present one
    #[arg(long)]
    pub previous: bool,
}
