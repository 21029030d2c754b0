//! `windlass schedules`: runs that start by themselves. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Span;

/// Start runs at times and in intervals.
#[derive(Debug, Subcommand)]
pub(crate) enum Schedules {
    /// Add a schedule
    Add(Box<SchedulesAdd>),
    /// List schedules by name
    List(SchedulesList),
    /// Show one schedule: when it ticks, what it did last, what went wrong
    Show(SchedulesShow),
    /// Let a schedule start nothing
    Pause(SchedulesPause),
    /// Let a paused schedule go on with its next tick
    Resume(SchedulesResume),
    /// Remove a schedule; its runs stay
    Remove(SchedulesRemove),
    /// Start a run of a schedule now
    RunNow(SchedulesRunNow),
    /// Print when a schedule, or an expression, ticks next
    Next(SchedulesNext),
}

/// Add a schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules add nightly report.yml --cron '0 2 * * *' --zone Europe/Berlin
  windlass schedules add poll poll.yml --every 5m --overlap queue --jitter 10s
  windlass schedules add close close.yml --cron '0 18 L * *' --input @ledger.json --tag team=finance
  windlass schedules add nightly report.yml --cron '0 3 * * *' --replace
  windlass schedules add sweep triage@ --cron '@hourly'

Runs are started by `windlass serve`. They are pinned to the documents as they are now; `--replace`
takes new ones. docs/schedules.md says what daylight saving time, a process that was away, and a
clock that jumps lead to.")]
pub(crate) struct SchedulesAdd {
    /// The schedule's name: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The machine document, or a published version: `NAME@NUMBER`, or `NAME@` for the one that the name means at each tick
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// When it ticks: five fields, six with seconds in front, or `@daily` and the like
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "every")]
    pub cron: Option<String>,
    /// Tick in this interval, at least `1s`, counted from the start
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["cron", "zone"])]
    pub every: Option<Span>,
    /// The time zone of the expression
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub zone: String,
    /// The input: JSON, `@FILE`, or `-` for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub input: Option<String>,
    /// While the last run is unfinished: `skip`, `queue`, `cancel` or `allow`
    #[arg(long, value_name = "POLICY", default_value = "skip")]
    pub overlap: String,
    /// Ticks that passed while no process was there: `none`, `last` or `all`
    #[arg(long, value_name = "POLICY", default_value = "last")]
    pub catch_up: String,
    /// How far back ticks are caught up
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    pub window: Span,
    /// Start up to this much later than the tick, spread over schedules and ticks
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub jitter: Span,
    /// No tick before this time
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// No tick from this time on
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
    /// A word to find its runs by; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
    /// Whose its runs are.
    #[command(flatten)]
    pub whose: super::Whose,
    /// The pool whose workers take its runs, when the machine names none
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// The class in which its runs wait: `high`, `normal` or `low`
    #[arg(long, value_name = "CLASS")]
    pub priority: Option<String>,
    /// Steps of each run at most
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Take the place of the schedule of this name
    #[arg(long)]
    pub replace: bool,
    /// Add it paused
    #[arg(long)]
    pub paused: bool,
}

/// List schedules.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules list
  windlass schedules list --limit 500 --json | jq -r '.schedules[] | select(.problem) | .name'")]
pub(crate) struct SchedulesList {
    /// Schedules per page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "NAME")]
    pub cursor: Option<String>,
}

/// Show a schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules show nightly
  windlass schedules show nightly --json | jq .last.run_id")]
pub(crate) struct SchedulesShow {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Pause a schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules pause nightly --reason 'the source is being moved'
  windlass schedules pause --all --reason restored

Runs that it has started go on. Ticks of the pause are not caught up.")]
pub(crate) struct SchedulesPause {
    /// The schedule
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub name: Option<String>,
    /// Every schedule
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "paused by command")]
    pub reason: String,
}

/// Resume a schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules resume nightly
  windlass schedules resume --all")]
pub(crate) struct SchedulesResume {
    /// The schedule
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub name: Option<String>,
    /// Every schedule
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

/// Remove a schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules remove nightly")]
pub(crate) struct SchedulesRemove {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Start a run now.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules run-now nightly
  windlass resume $(windlass schedules run-now nightly --json | jq -r .run_id)

Puts a run into the queue, also of a paused schedule. It counts as the last run: while it is
unfinished, ticks follow the overlap policy.")]
pub(crate) struct SchedulesRunNow {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Print coming ticks.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass schedules next nightly
  windlass schedules next --cron '30 2 * * *' --zone Europe/Berlin --count 3

Without a schedule it needs no store: it says what an expression means.")]
pub(crate) struct SchedulesNext {
    /// The schedule
    #[arg(value_name = "NAME", required_unless_present = "cron")]
    pub name: Option<String>,
    /// An expression instead of a schedule
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "name")]
    pub cron: Option<String>,
    /// The time zone of the expression
    #[arg(long, value_name = "ZONE", default_value = "UTC", conflicts_with = "name")]
    pub zone: String,
    /// After this time [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
}
