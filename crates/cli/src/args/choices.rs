//! `windlass runs choices`: which model was called, why, and what came of it. Parsing only.

use clap::Args;

/// Which model was called, why, and what came of it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass runs choices order-4711
  windlass runs choices --machine triage --since 24h --totals
  windlass runs choices --machine triage --tier fast --outcome failed --outcome not_good_enough
  windlass runs choices --since 7d --totals --all --json | jq '.totals[] | select(.escalated > 0)'

Each attempt at a model is one choice. Without RUN, a page is about the newest runs, and their totals are those of the
page; `--all` reads every run. What came of it is one of
  answered         it counted
  sent_back        its answer did not fit the schema, and the model was asked for another one
  not_good_enough  its answer did not fit again, or was stopped by a filter
  failed           the attempt failed
  abandoned        nobody waited for it any more
  open             nothing yet

`escalated` counts the choices after which a better tier was asked, and `lost` what those cost whose answers did not count.
Where a tier loses more than the better one costs beyond it, let calls begin at the better one: with a row of the
chain's table (docs/models.md).")]
pub(crate) struct RunsChoices {
    /// One run, and everything below it [default: the newest runs]
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Only runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only runs created at or after this time, or since this long ago
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<String>,
    /// Only runs created before this time, or longer ago than this
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<String>,
    /// Only this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Only this state
    #[arg(long, value_name = "NAME")]
    pub state: Option<String>,
    /// Only this tier
    #[arg(long, value_name = "NAME")]
    pub tier: Option<String>,
    /// Only this model, by its name in the catalog or as its provider knows it
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Only choices whose reason or row has this text
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only choices with this outcome; may be repeated
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Vec<String>,
    /// Totals alone
    #[arg(long)]
    pub totals: bool,
    /// Every run, rather than a page
    #[arg(long, conflicts_with = "cursor")]
    pub all: bool,
    /// Runs per page
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}
