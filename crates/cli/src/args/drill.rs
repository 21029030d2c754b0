//! `windlass drill`: tries out what is to hold when something goes wrong, without anything going wrong. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Try out what is to hold when something goes wrong.
#[derive(Debug, Subcommand)]
pub(crate) enum Drill {
    /// Take a model as retired: what takes its place, and whether the machine's test cases still pass
    ModelRetired(DrillModelRetired),
}

/// Take a model as retired.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass drill model-retired triage.yml --model main
  windlass drill model-retired triage.yml --model gpt-5.4 --to tuned --min-pass 95 --json

Nothing is called, and nothing of the catalog is changed: with the model taken as retired, the drill tells for each agent
of the machine, and of the machines that it starts, which model answers then, and why. Then it runs the machine's test
cases (`windlass test`): scripts answer, with the models of the catalog by name, and every call of the retired model fails
as a provider's would. Rules of scripts with `model: NAME` answer as the one or the other.

The gate holds when every agent still has a model and enough cases pass. Exits with 3 when it does not, also where the
machine has no cases: nothing is proved then. docs/models.md says how models are replaced.")]
pub(crate) struct DrillModelRetired {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// The model: its name in the model catalog, or as its provider knows it
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// The entry of the catalog that takes its place [default: its `replacement` there]
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Of a hundred cases, so many have to pass
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub min_pass: u32,
    /// Where its test files are [default: the machine's folder]
    #[arg(long, value_name = "PATH")]
    pub cases: Option<PathBuf>,
}
