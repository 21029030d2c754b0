//! `windlass bench`: measurements. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{Bytes, Span};

/// Measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// What the database gives without Windlass: one INSERT and one UPDATE per step, group-committed
    #[command(after_help = "Examples:\n  windlass bench floor --concurrency 64 --duration 20s")]
    Floor(BenchLoad),
    /// Steps per second, with one no-op effect and one acknowledged commit each, beside the floor
    #[command(
        after_help = "Examples:\n  windlass bench steps --steps 10 --concurrency 64 --duration 20s --context 1KB"
    )]
    Steps(BenchSteps),
    /// What a parked run costs in memory and on disk
    #[command(after_help = "Examples:\n  windlass bench park --runs 100000")]
    Park(BenchPark),
    /// From process start to the first completed run, in a new store
    #[command(after_help = "Examples:\n  windlass bench start --times 20")]
    Start(BenchStart),
}

/// How hard and how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchLoad {
    /// Runs, or submitters, at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub duration: Span,
    /// The folder for the temporary store; on the disk that is to be measured
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Steps per second.
#[derive(Debug, Args)]
pub(crate) struct BenchSteps {
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub steps: u32,
    /// How hard and how long.
    #[command(flatten)]
    pub load: BenchLoad,
    /// Bytes of each run's context
    #[arg(long, value_name = "BYTES", default_value = "1KB")]
    pub context: Bytes,
    /// Do not measure the floor beside it
    #[arg(long)]
    pub no_floor: bool,
}

/// What a parked run costs.
#[derive(Debug, Args)]
pub(crate) struct BenchPark {
    /// Runs to park
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub runs: u32,
    /// Bytes of each run's context
    #[arg(long, value_name = "BYTES", default_value = "1KB")]
    pub context: Bytes,
    /// How long to watch the parked runs
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub watch: Span,
    /// The folder for the temporary store
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// From process start to the first completed run.
#[derive(Debug, Args)]
pub(crate) struct BenchStart {
    /// Processes to start
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
    /// The folder for the temporary stores
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
