//! `windlass budgets`: what many runs may use together. Parsing only.

use clap::{Args, Subcommand, ValueEnum};

/// Look at and change what many runs may use together.
#[derive(Debug, Subcommand)]
pub(crate) enum Budgets {
    /// List budgets: caps, what was used, what runs hold, what is left
    #[command(after_help = "Examples:
  windlass budgets list
  windlass budgets list --json | jq '.budgets[] | {scope, left}'")]
    List,
    /// Show one budget
    Show(BudgetsScope),
    /// Make or replace a budget
    Set(BudgetsSet),
    /// Raise caps of a budget, and let the runs go on that wait for it
    Raise(BudgetsRaise),
    /// Remove a budget, and let the runs go on that wait for it
    Remove(BudgetsRemove),
    /// Compare what runs cost with the objectives of `windlass.toml`
    Objectives(BudgetsObjectives),
}

/// Over which time.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "Examples:
  windlass budgets objectives
  windlass budgets objectives --days 30 --json | jq '.objectives[] | {objective, state}'

Runs that have ended and began within that time count. Exit code 3: an objective is missed.")]
pub(crate) struct BudgetsObjectives {
    /// Days, until now
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
    pub days: u32,
}

/// One budget.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass budgets show tenant:acme
  windlass budgets show user:acme/ada --json | jq .left")]
pub(crate) struct BudgetsScope {
    /// What it binds: `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`
    #[arg(value_name = "SCOPE")]
    pub scope: String,
}

/// Remove a budget.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass budgets remove tool:acme/search
  windlass budgets remove user:acme/ada --by anna")]
pub(crate) struct BudgetsRemove {
    /// What it binds: `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`
    #[arg(value_name = "SCOPE")]
    pub scope: String,
    /// Your name, as the audit trail has it [default: as of every command]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Caps.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Caps {
    /// Attempts at model calls
    #[arg(long, value_name = "N")]
    pub model_calls: Option<u64>,
    /// Tool calls
    #[arg(long, value_name = "N")]
    pub tool_calls: Option<u64>,
    /// Tokens in and out
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    /// Micro-USD
    #[arg(long, value_name = "N")]
    pub cost_micros: Option<u64>,
}

/// When the allowance begins anew, in UTC.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Every {
    /// Never
    None,
    /// At midnight
    Day,
    /// At the first midnight of a month
    Month,
}

/// What happens to a call for which too little is left.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Then {
    /// It fails with `budget.exceeded`
    Fail,
    /// Its run waits for a person, or for the next period
    Ask,
}

/// Make or replace a budget.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass budgets set tenant:acme --cost-micros 50000000 --period month --beyond ask
  windlass budgets set user:acme/ada --model-calls 200 --period day
  windlass budgets set tool:acme/send_mail --tool-calls 1000 --period day
  windlass budgets set environment --tokens 100000000 --period day --near 90

A budget binds every run of its scope from its next draw on, within two seconds. What was used
of it before stays used.")]
pub(crate) struct BudgetsSet {
    /// What it binds: `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`
    #[arg(value_name = "SCOPE")]
    pub scope: String,
    /// The most of each
    #[command(flatten)]
    pub caps: Caps,
    /// When the allowance begins anew, in UTC
    #[arg(long, value_name = "WHEN", default_value = "none")]
    pub period: Every,
    /// What happens to a call for which too little is left
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub beyond: Then,
    /// Percent of a cap from which the budget counts as nearly used up
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub near: u8,
    /// Your name, as the audit trail has it [default: as of every command]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Raise caps of a budget.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass budgets raise tenant:acme --cost-micros 10000000
  windlass budgets raise user:acme/ada --model-calls 50 --tokens 200000

The numbers are added to the caps. Runs that wait for this budget draw again and go on at the
call for which there was too little.")]
pub(crate) struct BudgetsRaise {
    /// What it binds: `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`
    #[arg(value_name = "SCOPE")]
    pub scope: String,
    /// So much more of each
    #[command(flatten)]
    pub more: Caps,
    /// Your name, as the audit trail has it [default: as of every command]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}
