//! `windlass preview`: what a run will probably use. Parsing only.

use std::path::PathBuf;

use clap::Args;

/// Say what a run may do and what it will probably use.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass preview machine.yml
  windlass preview machine.yml --last 500 --json | jq .expected.cost_micros
  windlass preview --run order-4711

Nothing is called. What the machine may do comes from its documents and from the configured tools;
what a run will use comes from the last runs of the same machine. `error` says how far such a
preview was off for each of those runs, made from the runs before it. With `--run` the preview is
the one that could have been made before that run, beside what the run used.")]
pub(crate) struct Preview {
    /// The machine document
    #[arg(value_name = "MACHINE", required_unless_present = "run", conflicts_with = "run")]
    pub machine: Option<PathBuf>,
    /// A run that has ended, to compare with
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Runs of the same machine that are looked at, newest first
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub last: u32,
    /// Only runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}
