//! `windlass trust`: how far versions of agents are trusted. Parsing only.

use clap::{Args, Subcommand};

/// Say how far a version of an agent is trusted, for rules to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Set the score of a version of an agent
    Set(TrustSet),
    /// List the scores in force
    #[command(after_help = "Examples:\n  windlass trust list --json")]
    List,
    /// Show the score of a version of an agent, and who changed it when
    Show(TrustShow),
}

/// Set a score.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass trust set clerk@0123456789ab 80 --reason 'passed the evals of May'
  windlass trust set clerk@0123456789ab 0 --reason 'incident 12'

The version is the hash of the agent's resolved definition, 12 digits, as `windlass policy why
RUN` shows it. Rules see the score as `context.agent.trust` within two seconds. A version
without a score has the one of the policy's files, or 0.")]
pub(crate) struct TrustSet {
    /// The agent and its version: `NAME@VERSION`
    #[arg(value_name = "AGENT@VERSION")]
    pub agent: String,
    /// The score, 0 to 100
    #[arg(value_name = "SCORE")]
    pub score: u32,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Show a score.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass trust show clerk@0123456789ab")]
pub(crate) struct TrustShow {
    /// The agent and its version: `NAME@VERSION`
    #[arg(value_name = "AGENT@VERSION")]
    pub agent: String,
}
