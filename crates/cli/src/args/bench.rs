//! `windlass bench`: measurements. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{Bytes, Span};

/// Measure.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Every measurement has a store of its own, which is removed afterwards: a SQLite file in a folder here \
                  or in `--dir`, or with `--store postgres://HOST/DATABASE` a schema `windlass_bench` in a database that \
                  holds no runs. No server is started."
)]
pub(crate) enum Bench {
    /// What the database gives without Windlass: one INSERT and one UPDATE per step, group-committed
    #[command(after_help = "Examples:
  windlass bench floor --concurrency 64 --duration 20s
  windlass bench floor --store postgres://localhost/scratch")]
    Floor(BenchLoad),
    /// Steps per second, with one no-op effect and one acknowledged commit each, beside the floor
    #[command(after_help = "Examples:
  windlass bench steps --steps 10 --concurrency 64 --duration 20s --context 1KB
  windlass bench steps --store postgres://localhost/scratch --workers 2

With several workers, each is an engine with connections of its own, all in this process.")]
    Steps(BenchSteps),
    /// How long a submitted run waits until its first step starts, at half load
    #[command(after_help = "Examples:
  windlass bench latency --duration 20s
  windlass bench latency --store postgres://localhost/scratch --workers 2
  windlass bench latency --rate 200

First measures how many runs the workers can do, then submits half as many at a steady pace. p50
and p99 are from the acknowledged submission to the start of the first step. Submissions are made
by an engine that drives nothing, on connections of its own: workers learn of them as they do from
another process.")]
    Latency(BenchLatency),
    /// One run that waits for many children: time to done, commits for each child
    #[command(after_help = "Examples:
  windlass bench fan-out --children 100
  windlass bench fan-out --children 1000 --store postgres://localhost/scratch --workers 2")]
    FanOut(BenchFanOut),
    /// A worker process is killed with runs in flight: how soon another one has done them all
    #[command(after_help = "Examples:
  windlass bench recovery --runs 200 --steps 10 --step-time 100ms
  windlass bench recovery --kills 100 --runs 50 --steps 4 --step-time 20ms
  windlass bench recovery --store 'postgres://localhost/scratch?lease_ms=2000'

The workers are processes of this program; their steps are calls of a server in this one, which
counts them. What is left to do at the kill takes its time in any case: it is reported, and what
came on top of it.")]
    Recovery(BenchRecovery),
    /// What a parked run costs in memory and on disk
    #[command(after_help = "Examples:
  windlass bench park --runs 100000
  windlass bench park --runs 100000 --signal --store postgres://localhost/scratch

With `--signal`, the runs are then signalled one by one, and a worker process that was started
anew completes them.")]
    Park(BenchPark),
    /// What workers cost that have nothing to do: processor time, and transactions of the database
    #[command(after_help = "Examples:
  windlass bench idle --workers 4 --duration 30s
  windlass bench idle --workers 4 --store postgres://localhost/scratch")]
    Idle(BenchIdle),
    /// Many times more runs than the workers can do, with a bounded queue
    #[command(after_help = "Examples:
  windlass bench surge --factor 10 --duration 10s
  windlass bench surge --queue 2000 --workers 2 --store postgres://localhost/scratch

First measures how many runs the workers can do, then submits so many times more. What the full
queue refuses is counted; what was accepted has to complete. p50 and p99 are those of accepted
runs, from the submission to the end.")]
    Surge(BenchSurge),
    /// A tenant with very many runs beside one with a few
    #[command(after_help = "Examples:
  windlass bench fairness --runs 100000 --few 10
  windlass bench fairness --store postgres://localhost/scratch --workers 2

Fills the queue with runs of one tenant; once the workers are busy with them, a second tenant submits
a few. p50 and p99 are of those few, from the submission to the end; `alone_ms` is what their calls
take by themselves, `of_many_meanwhile` how many runs of the first tenant ended in that time.")]
    Fairness(BenchFairness),
    /// What policy, budgets and the audit trail add to a tool call
    #[command(after_help = "Examples:
  windlass bench governed --runs 100
  windlass bench governed --binding
  windlass bench governed --store postgres://localhost/scratch

Runs with a rule set, three budgets and audit rows take turns with runs that have none of them. Each
run makes its tool calls one after another; the time of a call is from the model's request for it to
the next question to the model, two commits included. `added_p50_ms` is the difference of the
medians, `synced_write_p50_ms` what one durable write takes here.

With `--binding`, runs for which little more is left in their budgets than they use, so that each call
draws for itself, take turns with runs whose budgets have room; both have the rule set and the audit
rows. `plain_*` are the latter then.")]
    Governed(BenchGoverned),
    /// Choosing among many tools which ones a model is shown
    #[command(after_help = "Examples:
  windlass bench select
  windlass bench select --tools 10000 --times 2000 --json

The tools are made up, with names and descriptions of the usual length, and so are the questions,
which take turns. p50 and p99 are of one choice, as each turn of a tool loop and each search makes
it. `index_ms` is what reading all tools once takes, for all runs of a machine. No store is used.")]
    Select(BenchSelect),
    /// From process start to the first completed run, in a new store
    #[command(after_help = "Examples:\n  windlass bench start --times 20")]
    Start(BenchStart),
}

/// Where a SQLite store is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchPlace {
    /// The folder for the temporary store; on the disk that is to be measured
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
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
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Steps per second.
#[derive(Debug, Args)]
pub(crate) struct BenchSteps {
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub steps: u32,
    /// Workers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// How hard and how long.
    #[command(flatten)]
    pub load: BenchLoad,
    /// Bytes of each run's context
    #[arg(long, value_name = "BYTES", default_value = "1KB")]
    pub context: Bytes,
    /// Do not measure the floor beside it
    #[arg(long)]
    pub no_floor: bool,
    /// With a rule set that is asked before calls, and three budgets
    #[arg(long)]
    pub governed: bool,
    /// In an encrypted store, with a key that is made for it
    #[arg(long)]
    pub encrypted: bool,
}

/// From submission to start.
#[derive(Debug, Args)]
pub(crate) struct BenchLatency {
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub steps: u32,
    /// Workers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// How hard and how long.
    #[command(flatten)]
    pub load: BenchLoad,
    /// Runs to submit in a second [default: half of what the workers can do]
    #[arg(long, value_name = "RUNS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Bytes of each run's context
    #[arg(long, value_name = "BYTES", default_value = "1KB")]
    pub context: Bytes,
}

/// Many children.
#[derive(Debug, Args)]
pub(crate) struct BenchFanOut {
    /// Children of the run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub children: u32,
    /// How often, one after another
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub times: u32,
    /// Workers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Workers that are killed.
#[derive(Debug, Args)]
pub(crate) struct BenchRecovery {
    /// Runs in flight at a kill
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: u32,
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: u32,
    /// How long the call of each step takes
    #[arg(long, value_name = "DURATION", default_value = "100ms")]
    pub step_time: Span,
    /// Kills, each with runs of its own: the first when half of the steps are done, further ones earlier and later
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kills: u32,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
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
    /// Then start a worker, signal every run, and wait until all have completed
    #[arg(long)]
    pub signal: bool,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Calls with everything on, beside calls with nothing on.
#[derive(Debug, Args)]
pub(crate) struct BenchGoverned {
    /// Runs of each kind
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub runs: u32,
    /// Tool calls of each run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub calls: u32,
    /// Measure budgets that are nearly used up beside budgets with room, instead of everything beside nothing
    #[arg(long)]
    pub binding: bool,
    /// How long to measure what the disk takes for a write
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub floor: Span,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Workers without work.
#[derive(Debug, Args)]
pub(crate) struct BenchIdle {
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub workers: u32,
    /// How long to watch them
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub duration: Span,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// More than the workers can do.
#[derive(Debug, Args)]
pub(crate) struct BenchSurge {
    /// How many times more runs come than the workers can do
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub factor: u32,
    /// How long they come
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub duration: Span,
    /// Runs that may wait in the queue, as `queue.max` of the configuration
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub queue: u32,
    /// Workers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Calls of each worker at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: u32,
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub steps: u32,
    /// How long the call of each step takes
    #[arg(long, value_name = "DURATION", default_value = "20ms")]
    pub step_time: Span,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Two tenants.
#[derive(Debug, Args)]
pub(crate) struct BenchFairness {
    /// Runs of the large tenant
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub runs: u32,
    /// Runs of the small tenant
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub few: u32,
    /// Workers, each with connections of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// Calls of each worker at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: u32,
    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub steps: u32,
    /// How long the call of each step takes
    #[arg(long, value_name = "DURATION", default_value = "20ms")]
    pub step_time: Span,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}

/// Choosing among many tools.
#[derive(Debug, Args)]
pub(crate) struct BenchSelect {
    /// Tools to choose among
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub tools: u32,
    /// Choices to make
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub times: u32,
}

/// From process start to the first completed run.
#[derive(Debug, Args)]
pub(crate) struct BenchStart {
    /// Processes to start
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
    /// Where.
    #[command(flatten)]
    pub place: BenchPlace,
}
