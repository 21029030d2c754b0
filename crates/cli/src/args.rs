//! The command line: every command, flag and example. Parsing only; nothing here acts.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{Bytes, Preset, Span};

/// A durable runtime for agent workflows.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    about = "A durable runtime for agent workflows",
    long_about = "A durable runtime for agent workflows: runs declarative machines (agents, tools, people, child \
                  machines) so that nothing that was acknowledged is lost and no side effect is silently repeated.",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 fault of Windlass, 2 usage or invalid document, 3 run failed, 4 not found or \
                  rejected, 5 denied, 6 store unreachable, 7 parked, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where runs are stored: `sqlite:PATH` or `memory:`
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub store: Option<String>,
    /// The configuration file; without it `windlass.toml` here, else beside the machine
    #[arg(long, global = true, value_name = "FILE", env = "WINDLASS_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The set of defaults: `dev-safe` or `prod-safe`
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub preset: Option<Preset>,
    /// Write JSON to stdout, also on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Write text for people to stdout, also when it is not a terminal
    #[arg(long, global = true, conflicts_with = "json", help_heading = "Global options")]
    pub plain: bool,
    /// No progress and no notes on stderr, only errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// What to log to stderr: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `windlass_runtime=debug`
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a machine and print its output
    Run(Run),
    /// Continue a run that is parked, interrupted or held by a dead process
    Resume(Resume),
    /// Send a signal to whoever waits on a channel
    Signal(Signal),
    /// List, inspect and steer runs
    #[command(subcommand)]
    Runs(Runs),
    /// Fold a run's journal and print the state it gives
    Replay(Replay),
    /// Replay a run, render everything it sent again, and compare
    Verify(Verify),
    /// Run the tests beside machines
    Test(Test),
    /// Check documents without running them
    Validate(Validate),
    /// Draw a machine
    Graph(Graph),
    /// List every field of the document format and how well it is supported
    ExplainSchema(ExplainSchema),
    /// Check the store
    Fsck(Fsck),
    /// Copy the store while it is in use
    Backup(Backup),
    /// Print what someone needs to help you, without secrets
    Diagnostics(Diagnostics),
    /// Measure this build on this computer
    #[command(subcommand)]
    Bench(Bench),
    /// Print the configuration and where each value comes from
    Config(ShowConfig),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the generated reference pages
    #[command(hide = true)]
    Docs(Docs),
}

/// Run a machine and print its output.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass run machine.yml --input '{\"topic\": \"tides\"}'
  windlass run machine.yml --input @input.json --run-id order-4711
  windlass run machine.yml --detach
  cat input.json | windlass run machine.yml --input - | jq .summary

stdout is the machine's output as one JSON document. A failed run exits with 3 and
{\"error\": {\"code\", \"message\", \"state\"}, \"run_id\"}; a parked one with 7 and
{\"run_id\", \"status\": \"waiting\", \"waits\": [{\"kind\", \"channel\" | \"at\", \"run_id\"}]}.
A run id used again with the same input continues or returns that run; with another input
it is refused.")]
pub(crate) struct Run {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// The input: JSON, `@FILE`, or `-` for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub input: Option<String>,
    /// The run's id; makes a repeat of this command harmless
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// Steps at most
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Only put the run in the queue, for a later `resume` or a server
    #[arg(long, conflicts_with_all = ["wait", "events"])]
    pub detach: bool,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// How a command that drives a run waits and what it reports.
#[derive(Clone, Debug, Args)]
pub(crate) struct Follow {
    /// Wait this long for timers; a run parked for longer, or on a signal, exits with 7 [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Write one JSON object per line to FILE for everything that happens, as it happens
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

/// Continue a run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass resume order-4711
  windlass resume order-4711 --wait 10m
  windlass resume order-4711 --takeover

Continues at the last settled effect: nothing that was settled is done again. A run whose
process died can be resumed at once. stdout and exit codes are those of `windlass run`.")]
pub(crate) struct Resume {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Take the run from whoever holds it, also from a live process
    #[arg(long)]
    pub takeover: bool,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Send a signal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass signal approvals/order-4711 --data '{\"approved\": true}'
  windlass signal approvals/order-4711 --data @answer.json --run order-4711
  windlass signal go --id ticket-17

A signal that nobody waits for is kept for the next run that waits on its channel.
`--id` makes a repeat of this command harmless.")]
pub(crate) struct Signal {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The data: JSON, `@FILE`, or `-` for stdin [default: null]
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub data: Option<String>,
    /// Only for this run
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// The signal's id; a second one of the same id is dropped
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

/// List, inspect and steer runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first
    List(RunsList),
    /// Show one run: status, state, context, waits, cost
    Show(RunsShow),
    /// Print the journal of a run, one record per line
    Journal(RunsJournal),
    /// Follow a run's events, also of a run that another process works on
    Watch(RunsWatch),
    /// Stop a run and everything below it
    Cancel(RunsCancel),
    /// Hold a run until it is unpaused
    Pause(RunsPause),
    /// Let a held run go on
    Unpause(RunsUnpause),
    /// Let a failed run try its last state again
    Retry(RunsRetry),
    /// Start a new run from a step of another one
    Fork(RunsFork),
    /// Remove finished runs
    Prune(RunsPrune),
}

/// List runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs list
  windlass runs list --status failed --status attention --limit 100
  windlass runs list --below order-4711
  windlass runs list --json | jq -r '.runs[].id'")]
pub(crate) struct RunsList {
    /// Only runs of this status; may be repeated
    #[arg(long, value_name = "STATUS")]
    pub status: Vec<String>,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// This run and everything below it
    #[arg(long, value_name = "RUN")]
    pub below: Option<String>,
    /// Child runs too
    #[arg(long)]
    pub all: bool,
    /// Runs per page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// Show one run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs show order-4711
  windlass runs show order-4711 --json | jq .context")]
pub(crate) struct RunsShow {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Print a journal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs journal order-4711
  windlass runs journal order-4711 --after 20 --limit 10
  windlass runs journal order-4711 --json | jq -c '.entries[]'

In JSON form each record is one line: {\"v\", \"version\", \"entries\"}.")]
pub(crate) struct RunsJournal {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Only records after this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub after: u64,
    /// Records at most [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Follow a run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs watch order-4711
  windlass runs watch order-4711 --json | jq -r 'select(.event == \"state_entered\") | .state'

Prints what happened so far and then what happens, until the run ends. In JSON form each
event is one line.")]
pub(crate) struct RunsWatch {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Only what happens after this version of the run
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub after: u64,
    /// Also what happens in runs below it
    #[arg(long)]
    pub tree: bool,
    /// Print what happened so far and stop
    #[arg(long)]
    pub once: bool,
}

/// Stop a run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs cancel order-4711 --reason 'customer withdrew'

Whoever works on the run stops it within a second; a run that nobody works on is stopped
here.")]
pub(crate) struct RunsCancel {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "cancelled by command")]
    pub reason: String,
}

/// Hold a run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs pause order-4711 --reason 'waiting for the audit'

Calls that are out settle first; then nothing happens until `windlass runs unpause`.")]
pub(crate) struct RunsPause {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "paused by command")]
    pub reason: String,
}

/// Let a held run go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs unpause order-4711 && windlass resume order-4711")]
pub(crate) struct RunsUnpause {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Let a failed run try again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs retry order-4711

The run tries its last state again, with the context it had when it entered it. stdout and
exit codes are those of `windlass run`.")]
pub(crate) struct RunsRetry {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Start a new run from a step of another one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs fork order-4711 --at 3
  windlass runs fork order-4711 --at 3 --set draft.tone=formal --set limit=5 --run-id order-4711-b

The new run enters the state of that step with the context it had then. A value of `--set`
is JSON, or text when it is not. stdout and exit codes are those of `windlass run`.")]
pub(crate) struct RunsFork {
    /// The run to start from
    #[arg(value_name = "RUN")]
    pub run: String,
    /// The step to start at
    #[arg(long, value_name = "STEP")]
    pub at: u64,
    /// Change the context: PATH=VALUE; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// The new run's id
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// Only put the new run in the queue
    #[arg(long, conflicts_with_all = ["wait", "events"])]
    pub detach: bool,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Remove finished runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs prune --older-than 30d
  windlass runs prune --keep 1000 --machine triage

Whole trees are removed, and only finished ones. At least one condition is needed.")]
pub(crate) struct RunsPrune {
    /// Ended longer ago than this
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<Span>,
    /// Keep this many of the newest finished runs of each machine
    #[arg(long, value_name = "N")]
    pub keep: Option<u64>,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Say what would be removed and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Fold a run's journal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass replay order-4711
  windlass replay order-4711 --to 12 --json | jq .context

Makes no call and evaluates nothing.")]
pub(crate) struct Replay {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u64>,
}

/// Replay and compare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass verify order-4711
  windlass verify order-4711 --tree

Folds the journal, renders every request, hook body and argument again, and compares their
hashes, the audit chain and the stored snapshot. Exits with 3 and names the first
difference when there is one.")]
pub(crate) struct Verify {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Also the runs below it
    #[arg(long)]
    pub tree: bool,
}

/// Run the tests beside machines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass test
  windlass test examples/triage --filter refund
  windlass test --junit report.xml
  windlass test machine.test.yml --update

Finds `tests.yml` and `*.test.yml` below PATH. Tests run in memory on a clock of their own:
timers fire at once, no key and no network is used.")]
pub(crate) struct Test {
    /// A test file, or a folder to search
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write what really happened into `expect` of the cases that differ
    #[arg(long)]
    pub update: bool,
}

/// Check documents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass validate machine.yml
  windlass validate examples --strict
  windlass validate machine.yml --json | jq '.diagnostics[].message'

Makes no network call and runs nothing. Exits with 2 when there is an error.")]
pub(crate) struct Validate {
    /// Documents, or folders to search for machine documents
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Treat warnings as errors
    #[arg(long)]
    pub strict: bool,
}

/// Draw a machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass graph machine.yml > machine.svg
  windlass graph machine.yml --format mermaid
  windlass graph machine.yml --format dot | dot -Tpng > machine.png")]
pub(crate) struct Graph {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// The form of the drawing
    #[arg(long, value_enum, default_value_t = GraphFormat::Svg)]
    pub format: GraphFormat,
}

/// Forms of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// A picture
    Svg,
    /// Mermaid text
    Mermaid,
    /// Graphviz text
    Dot,
}

/// List every field of the document format.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass explain-schema
  windlass explain-schema --tier blocked
  windlass explain-schema --document machine > flatmachine.schema.json")]
pub(crate) struct ExplainSchema {
    /// Only fields of this tier: `supported`, `experimental`, `blocked`
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
    /// Print the JSON Schema of a document kind for an editor instead: `machine`, `agent`, `prompt`, `profile`
    #[arg(long, value_name = "KIND", conflicts_with = "tier")]
    pub document: Option<String>,
}

/// Check the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass fsck
  windlass fsck --store sqlite:/var/lib/windlass/windlass.db --json

Changes nothing. Exits with 3 when something is wrong.")]
pub(crate) struct Fsck {}

/// Copy the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass backup /backups/windlass-monday.db

The copy is a store of its own; runs go on meanwhile.")]
pub(crate) struct Backup {
    /// The new file; must not exist
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Print what someone needs to help.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass diagnostics > diagnostics.json
  windlass diagnostics --machine machine.yml

Contains versions, configuration, hooks, providers and numbers about the store. Contains no
key, no prompt and no data of a run.")]
pub(crate) struct Diagnostics {
    /// Also summarise this machine
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<PathBuf>,
}

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

/// Print the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass config
  windlass config --preset prod-safe --plain
  windlass config --schema > windlass-config.schema.json

Flags win over the environment (`WINDLASS_*`, `__` between parts), that over the file, that
over the preset, that over the defaults.")]
pub(crate) struct ShowConfig {
    /// Print the JSON Schema of `windlass.toml` for an editor instead
    #[arg(long, action = ArgAction::SetTrue)]
    pub schema: bool,
}

/// Print a completion script.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass completions bash > /etc/bash_completion.d/windlass
  windlass completions zsh > ~/.zfunc/_windlass")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Write the generated reference pages.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass docs docs
  windlass docs docs --check")]
pub(crate) struct Docs {
    /// The folder to write to
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Write nothing; exit with 3 when a page is not up to date
    #[arg(long)]
    pub check: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "`{path}` shows no example");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
