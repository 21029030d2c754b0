//! Many runs at once: what to choose them by. Parsing only.

use clap::Args;

/// Many runs instead of one.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Many {
    /// Every run for which this holds, such as `status=failed machine=triage tag=team=night since=24h`; may be repeated
    #[arg(long = "where", value_name = "FILTER", help_heading = "Many runs")]
    pub wanted: Vec<String>,
    /// Do it; without this, the runs are counted and some are shown
    #[arg(long, requires = "wanted", help_heading = "Many runs")]
    pub yes: bool,
    /// Runs that are dealt with at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16,
        value_parser = clap::value_parser!(u32).range(1..=256),
        help_heading = "Many runs"
    )]
    pub at_once: u32,
}
