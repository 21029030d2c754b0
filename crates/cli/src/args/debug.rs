//! `windlass debug`: what calls say in full, for a time. Parsing only.

use clap::{Args, Subcommand};

use crate::config::Span;

/// Keep what calls say in full, for a time.
#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Keep requests, arguments and answers of calls from now on, for a time and a number of calls
    Capture(DebugCapture),
    /// List captures
    #[command(after_help = "Examples:
  windlass debug list
  windlass debug list --json | jq '.captures'")]
    List,
    /// Show what a capture took
    Show(DebugShow),
    /// End a capture before its time; what it took stays until its own
    #[command(after_help = "Examples:
  windlass debug stop c019a2b3c4d5")]
    Stop(DebugOne),
    /// Remove a capture and everything it took
    #[command(after_help = "Examples:
  windlass debug remove c019a2b3c4d5")]
    Remove(DebugOne),
}

/// Keep what calls say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass debug capture --run order-4711 --for 15m --reason 'the total is wrong'
  windlass debug capture --user ann --tenant acme --for 5m --reason 'a complaint'
  windlass debug capture --machine invoices --tenant acme --for 1h --calls 50 --reason 'incident 12'

Every worker of the store follows within seconds. It ends by itself: after the time, or when it has as
many calls. Secrets that are known and what looks like one, or like data of a person, is masked before
it is written. Who asked for it and who looked is in `windlass audit acts`.")]
pub(crate) struct DebugCapture {
    /// Of this run and those that it starts
    #[arg(long, value_name = "RUN", required_unless_present_any = ["machine", "tenant", "user"])]
    pub run: Option<String>,
    /// Of runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Of runs of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Of runs of this user; of every tenant, where none is named
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// For how long; 24 hours at most
    #[arg(long = "for", value_name = "DURATION", default_value = "15m")]
    pub span: Span,
    /// Calls at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub calls: u32,
    /// How long what it took can be read after it has ended; 7 days at most
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub keep: Span,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true, value_parser = super::named)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// Show what a capture took.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass debug show c019a2b3c4d5
  windlass debug show c019a2b3c4d5 --json | jq '.calls[] | select(.kind == \"model\") | .asked'")]
pub(crate) struct DebugShow {
    /// The capture
    #[arg(value_name = "CAPTURE")]
    pub capture: String,
    /// Calls per page
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub limit: u32,
    /// Continue after a page: its `next`
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cursor: u32,
}

/// One capture.
#[derive(Debug, Args)]
pub(crate) struct DebugOne {
    /// The capture
    #[arg(value_name = "CAPTURE")]
    pub capture: String,
}
