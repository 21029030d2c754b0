//! `windlass readonly`: the switch for incidents. Parsing only.

use clap::{Args, Subcommand};

/// Let nothing be changed: a switch for incidents.
#[derive(Debug, Subcommand)]
pub(crate) enum Readonly {
    /// Let no call of class write or danger leave
    On(ReadonlyOn),
    /// Let them leave again
    Off(ReadonlyOff),
    /// Show which switches are on, and who changed them when
    Status(ReadonlyStatus),
}

/// Turn a switch on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass readonly on --reason 'prices are wrong, incident 12'
  windlass readonly on --tenant acme --reason 'their token leaked'

Every worker of the store follows: nothing that is decided on after this command has
ended leaves, and what was decided on before stops within a second. Runs that want to
change something wait; models and tools of class read go on.")]
pub(crate) struct ReadonlyOn {
    /// What is switched, by whom and why
    #[command(flatten)]
    pub what: Switched,
}

/// Turn a switch off.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass readonly off --reason 'prices are right again'
  windlass readonly off --tenant acme")]
pub(crate) struct ReadonlyOff {
    /// What is switched, by whom and why
    #[command(flatten)]
    pub what: Switched,
}

/// What is switched, by whom and why.
#[derive(Debug, Args)]
pub(crate) struct Switched {
    /// Only runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why; runs that wait say it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Show the switches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass readonly status
  windlass readonly status --json | jq '.switches[] | select(.on) | .changes[-1]'

Exits with 3 when a switch is on.")]
pub(crate) struct ReadonlyStatus {
    /// Only the switch of this tenant and that of the environment
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}
