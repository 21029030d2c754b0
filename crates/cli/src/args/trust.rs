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
    /// Show which evidence gives which score, and what each part of it counts
    Explain(TrustExplain),
    /// Report that a version of an agent did harm, which lowers its score
    Incident(TrustIncident),
    /// Set all scores by the evidence of now, but those that a person set
    #[command(after_help = "Examples:
  windlass trust compute
  windlass trust compute --json | jq .changed

Processes with `computed = true` under `[trust]` do this as evidence comes in; this is for those
that have not, and for tests. Each change is in `windlass audit acts`.")]
    Compute,
    /// Let evidence say the score of a version again that a person set
    Auto(TrustAuto),
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

/// Explain a score.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass trust explain clerk@0123456789ab
  windlass trust explain clerk@0123456789ab --json | jq .reckoning

Prints the score in force, who set it, and the one that evidence gives by now: test cases,
what runs did, and incidents, each with how often, how much of it counts still, and the points.")]
pub(crate) struct TrustExplain {
    /// The agent and its version: `NAME@VERSION`
    #[arg(value_name = "AGENT@VERSION")]
    pub agent: String,
}

/// Report an incident.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass trust incident clerk@0123456789ab --severity major --reason 'paid order 4711 twice'

What an incident of each severity costs is under `[trust]` in the configuration. It counts less
with its age. A score that a person set stays as it is.")]
pub(crate) struct TrustIncident {
    /// The agent and its version: `NAME@VERSION`
    #[arg(value_name = "AGENT@VERSION")]
    pub agent: String,
    /// How bad it is
    #[arg(long, value_name = "WORD")]
    pub severity: SeverityWord,
    /// What happened
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SeverityWord {
    /// Somebody had to look at it.
    Minor,
    /// It did harm that was undone.
    Major,
    /// It did harm that cannot be undone.
    Critical,
}

impl SeverityWord {
    /// As a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

/// Let evidence say a score again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass trust auto clerk@0123456789ab --reason 'the trial is over'

Sets the score that evidence gives by now, 0 where there is too little, and follows it from
here on.")]
pub(crate) struct TrustAuto {
    /// The agent and its version: `NAME@VERSION`
    #[arg(value_name = "AGENT@VERSION")]
    pub agent: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
}
