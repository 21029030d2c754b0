//! `windlass notify`: channels to people. Parsing only.

use clap::{Args, Subcommand};

/// Look at what is sent to people, and try a channel.
#[derive(Debug, Subcommand)]
pub(crate) enum Notify {
    /// List notices: what was sent, what waits to be sent again, and why
    List(NotifyList),
    /// Send a notice that is about nothing over a channel of the configuration
    Test(NotifyTest),
}

/// List notices.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass notify list
  windlass notify list --waiting --json | jq '.notices[] | .error'

Notices are kept while their cause lasts, and an hour longer.")]
pub(crate) struct NotifyList {
    /// Only what was not taken yet
    #[arg(long)]
    pub waiting: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u32,
}

/// Try a channel.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass notify test ops")]
pub(crate) struct NotifyTest {
    /// The channel: the NAME of `[notify.NAME]`
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
}
