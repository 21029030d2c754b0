//! `windlass limits`: rates that all workers keep together. Parsing only.

use clap::Args;

/// Look at limits of rates.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass limits
  windlass limits --waiting
  windlass limits --json | jq '.buckets[] | {bucket, left}'

Limits are those of the configuration here. Buckets are what all workers of the store have left of theirs; one that is full
and unused may be missing. Who waits is as old as the workers' last words, five seconds at most.")]
pub(crate) struct LimitsShow {
    /// Only buckets for which calls wait
    #[arg(long)]
    pub waiting: bool,
    /// Buckets at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Go on after this bucket: `next` of the JSON form
    #[arg(long, value_name = "BUCKET")]
    pub cursor: Option<String>,
}
