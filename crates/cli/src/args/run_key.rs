//! `windlass run --key`: what a run is about. Parsing only.

use clap::Args;

use crate::config::Span;

/// What a new run is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunKey {
    /// At most one unfinished run with this key: letters, digits, `.`, `_` and `-`
    #[arg(long, value_name = "KEY", help_heading = "Run keys")]
    pub key: Option<String>,
    /// While a run of the key is unfinished: `refuse`, or `return` that run [default: refuse]
    #[arg(long, value_name = "WHAT", requires = "key", conflicts_with = "debounce", help_heading = "Run keys")]
    pub if_running: Option<String>,
    /// Start when nothing with the key was submitted for this long; the last input counts
    #[arg(
        long,
        value_name = "DURATION",
        requires = "key",
        conflicts_with_all = ["not_before", "run_id"],
        help_heading = "Run keys"
    )]
    pub debounce: Option<Span>,
    /// Start after this long at the latest, whatever comes [default: ten times `--debounce`]
    #[arg(long, value_name = "DURATION", requires = "debounce", help_heading = "Run keys")]
    pub max_wait: Option<Span>,
}
