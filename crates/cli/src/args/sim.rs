//! The arguments of `windlass sim`.

use std::path::PathBuf;

use clap::Args;
use windlass_sim::Faults;

/// Run a machine under many schedules of faults.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass sim machine.yml
  windlass sim machine.yml --seeds 10000 --input @input.json
  windlass sim machine.yml --seeds 500 --faults crash,zombie,ambiguous-commit
  windlass sim machine.yml --seed 4711 --json

Runs the real engine, as several workers over a store in memory, on a virtual clock: a month
passes in milliseconds. Each seed is one schedule of faults and is the same each time. After
each one it is checked that nothing acknowledged was lost, no effect was repeated that must
not be, every journal is a way that the machine allows, budgets held, and every run ended.

Nothing outside is called. Models answer from the script of the configured scripted provider;
without one, with a placeholder that fits the schema asked for. Tools and actions return what
their contract declares, else {\"ok\": true}, unless `--answer` says more; hooks return nothing.
A wait without a timeout gets null, one with a timeout runs into it, unless `--signal` says what
to send.

Faults: crash, duplicate, reorder, delay, slow-store, fail-store, ambiguous-commit, clock-jump,
zombie, slow-call, fail-call; `all` and `none`.

Exits with 3 at the first seed that breaks a promise, and prints the command that plays it
again. See docs/simulation.md.")]
pub(crate) struct Sim {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// How many seeds [default: 100, or 1 with `--seed`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// The faults that may strike: words with commas between them
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub faults: Faults,
    /// The input: JSON, `@FILE`, or `-` for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub input: Option<String>,
    /// What a signal on a channel carries
    #[arg(long = "signal", value_name = "CHANNEL=JSON")]
    pub signals: Vec<String>,
    /// What a tool or an action returns
    #[arg(long = "answer", value_name = "NAME=JSON")]
    pub answers: Vec<String>,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub workers: u8,
}
