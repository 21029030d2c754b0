//! `windlass runs`: lists, inspects and steers runs. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use windlass_core::budget::Meter;

use super::choices::RunsChoices;
use super::{Follow, Many};
use crate::config::Span;

/// List, inspect and steer runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List runs, newest first
    List(RunsList),
    /// Show one run: status, state, context, waits, cost
    Show(RunsShow),
    /// Show a run and everything below it, with what each used
    Tree(RunsTree),
    /// Print which models were called, why, and what came of it
    Choices(Box<RunsChoices>),
    /// List runs that do not go on, with the cause and the next step
    Stuck(RunsStuck),
    /// Print the journal of a run, one record per line
    Journal(RunsJournal),
    /// Follow a run's events, also of a run that another process works on
    Watch(RunsWatch),
    /// Stop a run and everything below it
    Cancel(RunsCancel),
    /// Hold a run and everything below it until it is unpaused
    Pause(RunsPause),
    /// Let a held run and everything below it go on
    Unpause(RunsUnpause),
    /// Give a run higher ceilings
    Raise(RunsRaise),
    /// Let the agents of a run call another model from here on
    Model(RunsModel),
    /// Let a failed run try its last state again
    Retry(RunsRetry),
    /// Let a failed run go past its last state
    Skip(RunsSkip),
    /// End the quarantine of runs: they are in the queue again
    Requeue(RunsRequeue),
    /// Send a signal to many runs
    Signal(RunsSignal),
    /// Start a new run from a step of another one
    Fork(RunsFork),
    /// Remove finished runs
    Prune(RunsPrune),
}

/// Give a run higher ceilings.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs raise order-4711 tokens=200000 --by ann --reason 'a long contract'
  windlass runs raise order-4711 steps=2000 cost_micros=5000000

The ceilings of a run bound all that it starts, so they are raised at the run that stands above
all others. Children that run already keep the share that they were given; those that start later
get theirs of the new ceiling. A run that has failed at one is over; `windlass runs fork` starts another from one of
its steps. Budgets of tenants and users are raised with `windlass budgets raise`.")]
pub(crate) struct RunsRaise {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// The new ceilings: `steps`, `launches`, `model_calls`, `tool_calls`, `tokens` or `cost_micros`, and a number
    #[arg(value_name = "METER=N", required = true, value_parser = ceiling)]
    pub to: Vec<(Meter, u64)>,
    /// Your name, as it stands in the journal [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Let the agents of a run call another model.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs model order-4711 --to strong --reason 'the small one goes in circles'
  windlass runs model order-4711 --to chain/answers --agent clerk --by ann
  windlass runs model order-4711 --clear

The name is that of a model or a chain of the model catalog; `catalog/NAME` and `chain/NAME` say which where both
have it. It counts from the next model call on: a call that is out, or waits to leave, goes on as it was decided on, and
only when it fails for a while does its next attempt go to the new model. Rules judge each call with the new model, and
prices, limits and links are those of the new one. What the document says of temperature, length and the like stays.

Without `--agent`, every agent of the run's machine is meant, those included of which something was said before. The
runs below it keep their models, unless `--below` is given: then they are told, however deep, and those that they start
later begin with it. The same command again changes nothing. Workers need the model catalog that has the name.")]
pub(crate) struct RunsModel {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// The model or chain of the catalog
    #[arg(long, value_name = "NAME", required_unless_present = "clear", conflicts_with = "clear")]
    pub to: Option<String>,
    /// Call what the documents name again
    #[arg(long)]
    pub clear: bool,
    /// One agent of the machine, by its name there [default: every agent]
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// The runs below it too, also those that are started later
    #[arg(long, conflicts_with = "agent")]
    pub below: bool,
    /// Your name, as it stands in the journal [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

fn ceiling(text: &str) -> Result<(Meter, u64), String> {
    let (word, number) = text.split_once('=').ok_or("it looks like `tokens=200000`")?;
    let known = || Meter::ALL.map(|meter| format!("`{}`", meter.as_str())).join(", ");
    let meter = Meter::ALL.into_iter().find(|meter| meter.as_str() == word);
    let meter = meter.ok_or_else(|| format!("`{word}` is no ceiling: {}", known()))?;
    number.parse().map(|number| (meter, number)).map_err(|_| format!("`{number}` is no number"))
}

/// List runs that do not go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs stuck
  windlass runs stuck --older 1h --machine invoices
  windlass runs stuck --json | jq -r '.runs[] | [.cause, .run_id, .next_step] | @tsv'

A run is stuck when nothing in it has changed for a while and no time is set at which it goes on by
itself. A run that waits for a child is not listed; the child is. docs/operations/stuck-runs.md
goes through the causes.")]
pub(crate) struct RunsStuck {
    /// Runs in which nothing has changed for this long
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub older: Span,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Only runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Stuck runs per page, about
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Where the last page ended: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// List runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs list
  windlass runs list --status failed --status attention --limit 100
  windlass runs list --below order-4711
  windlass runs list --tag team=night --tag urgent --since 24h
  windlass runs list --json | jq -r '.runs[].id'")]
pub(crate) struct RunsList {
    /// Only runs of this status; may be repeated
    #[arg(long, value_name = "STATUS")]
    pub status: Vec<String>,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Only runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only runs of this pool
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Only runs with this tag, of any value when none is given; may be repeated, then all of them
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub tag: Vec<String>,
    /// Only runs created at or after this time, or since this long ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<String>,
    /// Only runs created before this time, or longer ago than this
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<String>,
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
  windlass runs show order-4711 --json | jq .run.context
  windlass runs show order-4711 --save ./out

`--save` writes the files of the output, or of the context while the run has none, under their own
names, each content once.")]
pub(crate) struct RunsShow {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Write the files of its output into this folder; none that is there is overwritten
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
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

/// A run and everything below it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs tree order-4711
  windlass runs tree order-4711 --json | jq -r '.runs[] | [.id, .cost_micros] | @tsv'

Tokens and cost of a run are its own and those of the runs below it that have finished.")]
pub(crate) struct RunsTree {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Runs below it at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
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
  windlass runs cancel --where 'machine=triage tag=team=night'
  windlass runs cancel --where 'machine=triage since=2h' --yes

Whoever works on the run stops it within a second; a run that nobody works on is stopped
here.")]
pub(crate) struct RunsCancel {
    /// The run
    #[arg(value_name = "RUN", required_unless_present = "wanted", conflicts_with = "wanted")]
    pub run: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "cancelled by command")]
    pub reason: String,
    /// Many runs instead.
    #[command(flatten)]
    pub many: Many,
}

/// Hold a run and everything below it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs pause order-4711 --reason 'waiting for the audit'
  windlass runs pause --where 'machine=triage status=waiting' --yes

The run and everything below it are held. Calls that are out settle first; then nothing happens
until `windlass runs unpause`. A run below can be held by itself as well.")]
pub(crate) struct RunsPause {
    /// The run
    #[arg(value_name = "RUN", required_unless_present = "wanted", conflicts_with = "wanted")]
    pub run: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "paused by command")]
    pub reason: String,
    /// Many runs instead.
    #[command(flatten)]
    pub many: Many,
}

/// Let a held run and everything below it go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs unpause order-4711 && windlass resume order-4711
  windlass runs unpause --where machine=triage --yes

Everything below the run goes on with it, also what was paused by itself.")]
pub(crate) struct RunsUnpause {
    /// The run
    #[arg(value_name = "RUN", required_unless_present = "wanted", conflicts_with = "wanted")]
    pub run: Option<String>,
    /// Many runs instead.
    #[command(flatten)]
    pub many: Many,
}

/// Let a failed run try again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs retry order-4711
  windlass runs retry order-4711 --anyway
  windlass runs retry --where 'machine=triage since=24h' --yes

The run tries its last state again, with the context it had when it entered it. One that failed
of a call of which nobody knows whether it happened is tried again with `--anyway` only: look there
first, and use `windlass runs skip` where it did happen. stdout and exit codes are those of
`windlass run`; many runs are only put into the queue.")]
pub(crate) struct RunsRetry {
    /// The run
    #[arg(value_name = "RUN", required_unless_present = "wanted", conflicts_with = "wanted")]
    pub run: Option<String>,
    /// Also after `tool.outcome_unknown`: the call that may have happened is made again, and may be done twice
    #[arg(long, conflicts_with = "wanted")]
    pub anyway: bool,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
    /// Many runs instead.
    #[command(flatten)]
    pub many: Many,
}

/// Let a failed run go past its last state.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs skip order-4711 --reason 'booked by hand'
  windlass runs skip order-4711 --output '{\"invoice\": 4711}' --by ann

Nothing of the state is done again. What is given counts as its output: it goes through the
state's `output_to_context`, and the run goes on with the transitions of that state; a final state
still makes its own `output`. Rules see what is given as untrusted. stdout and exit codes are those of `windlass run`. `windlass runs retry` tries the state again instead.")]
pub(crate) struct RunsSkip {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// What counts as the output of the state: JSON, `@FILE`, or `-` for stdin [default: null]
    #[arg(long, value_name = "JSON")]
    pub output: Option<String>,
    /// Your name, as it stands in the journal [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Send a signal to many runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs signal rates/changed --where 'machine=quote status=waiting'
  windlass runs signal rates/changed --data @rates.json --where machine=quote --id rates-7 --yes

Each run that the filter finds gets the signal; one that does not wait for it yet gets it when it
does. With `--id`, a repeat sends it to no run twice. `windlass signal` sends to whoever waits.")]
pub(crate) struct RunsSignal {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The data: JSON, `@FILE`, or `-` for stdin [default: null]
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub data: Option<String>,
    /// Makes a repeat of this command harmless
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// The runs.
    #[command(flatten)]
    pub many: Many,
}

/// Start a new run from a step of another one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs fork order-4711 --at 3
  windlass runs fork order-4711 --at 3 --set draft.tone=formal --set limit=5 --run-id order-4711-b
  windlass runs fork order-4711 --at 3 --raise model_calls=20

The new run enters the state of that step with the context it had then. A path of `--set` names
keys, and elements of lists by number: `items[0].name` or `items.0.name`. A value is JSON, or
text when it is not. The new run has the ceilings of the other one, and what that had used before
the step counts against them; `--raise` gives more. stdout and exit codes are those of
`windlass run`.")]
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
    /// Give the new run a higher ceiling: `steps`, `launches`, `model_calls`, `tool_calls`, `tokens` or `cost_micros`, and
    /// a number; may be repeated
    #[arg(long, value_name = "METER=N", value_parser = ceiling)]
    pub raise: Vec<(Meter, u64)>,
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

/// End the quarantine of runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs list --status quarantined --all
  windlass runs show order-4711
  windlass runs requeue order-4711 order-4712
  windlass runs requeue --where machine=triage --yes

A run is quarantined when its worker was lost again and again while it held it. Once the
reason is gone, this puts the run into the queue with nothing counted against it.")]
pub(crate) struct RunsRequeue {
    /// The runs
    #[arg(value_name = "RUN", required_unless_present = "wanted", conflicts_with = "wanted")]
    pub runs: Vec<String>,
    /// Many runs instead.
    #[command(flatten)]
    pub many: Many,
}

/// Remove finished runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs prune --older-than 30d
  windlass runs prune --keep 1000 --machine triage --tag drill
  windlass runs prune --where 'tag=drill until=30d'
  windlass runs prune --where 'tag=drill until=30d' --yes

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
    /// Only callers' runs with this tag; may be repeated, then all of them
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub tag: Vec<String>,
    /// Say what would be removed and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Finished runs for which this holds: `machine=NAME`, `tag=KEY=VALUE`, and `until=TIME` for when they ended
    #[arg(
        long = "where",
        value_name = "FILTER",
        conflicts_with_all = ["older_than", "keep", "machine", "tag"],
        help_heading = "Many runs"
    )]
    pub wanted: Vec<String>,
    /// Do it; without this, `--where` only counts
    #[arg(long, requires = "wanted", conflicts_with = "dry_run", help_heading = "Many runs")]
    pub yes: bool,
}
