//! `windlass chaos`: faults for real workers. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use windlass_chaos::plan::Kind;

use crate::config::Span;

/// Faults for real workers.
#[derive(Debug, Subcommand)]
pub(crate) enum Chaos {
    /// Start workers, kill, stop and cut them off while runs go on, and check every promise
    Run(ChaosRun),
}

/// Make chaos.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass chaos run
  windlass chaos run machine.yml --runs 500 --duration 2m --seed 7
  windlass chaos run --store postgres://me@db/scratch --faults kill,stop,cut-after-commit

Starts worker processes of this build on a store, submits runs, and does to the workers what a plan
drawn from the seed says. Afterwards it waits until everything has ended and compares the history,
the effects and the outputs with what was promised. Exits with 3 when a promise was broken, and when
too few faults met work in flight or too few runs completed to say anything.

Tools and hooks of the machine are played by a server that counts what is done to it: tools return
what their contract declares, else {\"ok\": true}, unless `--answer` says more. Models answer from the
script of the configured scripted provider; without one they repeat what they were asked. A wait
without a timeout gets null, one with a timeout runs into it, unless `--signal` says what to send.

The store must be one for this alone. See docs/chaos.md.")]
pub(crate) struct ChaosRun {
    /// The machine document [default: a machine that comes with this build, with effects of every class]
    #[arg(value_name = "MACHINE")]
    pub machine: Option<PathBuf>,
    /// Workers at the same time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub workers: u16,
    /// Runs to submit while faults are made
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// How long faults are made
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub duration: Span,
    /// Time from one fault to the next
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub every: Span,
    /// Kinds of faults: `kill`, `stop`, `restart`, `cut-before-commit`, `cut-after-commit`, `partition`, `database`
    /// [default: all that the store allows but `database`]
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub faults: Vec<Kind>,
    /// The seed of the plan; the same seed and flags give the same plan [default: a new one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The input of the runs: JSON, `@FILE`, or `-` for stdin
    #[arg(long, value_name = "JSON|@FILE|-", requires = "machine")]
    pub input: Option<String>,
    /// What a signal on a channel carries
    #[arg(long = "signal", value_name = "CHANNEL=JSON", requires = "machine")]
    pub signals: Vec<String>,
    /// What a tool or an action returns
    #[arg(long = "answer", value_name = "NAME=JSON", requires = "machine")]
    pub answers: Vec<String>,
    /// The lease of workers on a store that has leases; stops are drawn up to three times as long
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub lease: Span,
    /// How long everything may take to end once faults are over
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub drain: Span,
    /// The machine may end up waiting for a person: a run that does is no finding, and told with what for
    #[arg(long)]
    pub may_park: bool,
    /// A command that restarts the database and ends when it is back; needed by `database`
    #[arg(long, value_name = "COMMAND")]
    pub restart_database: Option<String>,
    /// Keep configurations, histories and logs of all workers in this folder, which must not exist
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}
