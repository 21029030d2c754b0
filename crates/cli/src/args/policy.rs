//! `windlass policy`: rules over what runs may do. Parsing only.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// Check, explain and try rules.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check a rule set
    Check(PolicyCheck),
    /// Explain what the rules said to a run, or would say
    Why(Box<PolicyWhy>),
    /// Ask another rule set what recorded decisions asked, and list what would change
    Test(PolicyTest),
    /// Look at a rule set that is tried beside the one in force, withdraw it, or try it again
    #[command(subcommand)]
    Candidate(PolicyCandidate),
    /// Print the schema that rules are checked against
    Schema(PolicySchema),
    /// Print rules to begin with
    Starter(PolicyStarter),
}

/// Check a rule set.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy check
  windlass policy check policies/ --json | jq .findings

Reads every `.cedar` and `.json` file of the folder, and `arguments.cedarschema`, and checks
each against the schema, and the declared arguments against the JSON Schemas of the
configured tools.
Exits with 2 when the set cannot be used; warnings alone exit with 0.")]
pub(crate) struct PolicyCheck {
    /// The folder; without it that of `[policy] path`, and that of `[policy.candidate]`
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
}

/// Explain what the rules said to a run, or would say.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true).args(["run", "tool", "model", "start", "transition"])),
    after_help = "Examples:
  windlass policy why order-4711
  windlass policy why order-4711 --step 3
  windlass policy why --tool refund --user ada --tenant acme --agent clerk
  windlass policy why --tool refund --arguments '{\"amount\": 120}'
  windlass policy why --transition review:pay --machine orders

For a run, prints what its journal holds: every question, the answer, the rule and the version
of the rule set; as long as that version is the one in use, with the attributes that were
looked at. With `--tool`, `--model`, `--start` or `--transition`, asks the rules as they are."
)]
pub(crate) struct PolicyWhy {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Only what was asked in this step
    #[arg(long, value_name = "N", requires = "run")]
    pub step: Option<u64>,
    /// May this tool or action be called?
    #[arg(long, value_name = "NAME")]
    pub tool: Option<String>,
    /// May this model be called?
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// May this machine be started?
    #[arg(long, value_name = "PATH")]
    pub start: Option<String>,
    /// May this transition be taken?
    #[arg(long, value_name = "FROM:TO")]
    pub transition: Option<String>,
    /// Who asks.
    #[command(flatten)]
    pub asker: PolicyAsker,
    /// The folder with the rules; without it that of `[policy] path`
    #[arg(long, value_name = "DIR")]
    pub policy: Option<PathBuf>,
}

/// Who asks.
#[derive(Debug, Args)]
pub(crate) struct PolicyAsker {
    /// The tenant
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub tenant: String,
    /// The user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub user: String,
    /// The machine that the run is of
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub machine: String,
    /// The agent that asks: `NAME` or `NAME@VERSION`
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// The provider of `--model`
    #[arg(long, value_name = "NAME", requires = "model")]
    pub provider: Option<String>,
    /// A label of the arguments of `--tool`; may be given again
    #[arg(long, value_name = "LABEL", requires = "tool")]
    pub label: Vec<LabelWord>,
    /// The arguments of `--tool`, for rules that look at them: JSON, or @FILE, or - for standard input
    #[arg(long, value_name = "JSON", requires = "tool")]
    pub arguments: Option<String>,
    /// The class of `--tool`, when the configuration does not have it: `read`, `write` or `danger`
    #[arg(long, value_name = "CLASS", requires = "tool")]
    pub class: Option<String>,
}

/// A label of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LabelWord {
    /// Someone outside may have written it.
    Untrusted,
    /// It must not leave.
    Secret,
}

impl From<LabelWord> for windlass_core::label::Label {
    fn from(word: LabelWord) -> Self {
        match word {
            LabelWord::Untrusted => Self::Untrusted,
            LabelWord::Secret => Self::Secret,
        }
    }
}

/// Ask another rule set what recorded decisions asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy test --candidate policies-next/
  windlass policy test --candidate policies-next/ --last 1000 --machine orders --json

Takes what the newest runs asked from their journals. What a run did without being asked,
because there were no rules, counts as allowed. Rules that look at arguments get those of the
journal; where it does not have them, the decision is counted as one that cannot be compared.
Nothing is run and nothing is changed. Exits with 3 when something would change, with 0 when
nothing would.")]
pub(crate) struct PolicyTest {
    /// The folder with the other rules
    #[arg(long, value_name = "DIR")]
    pub candidate: PathBuf,
    /// How many runs, newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub last: usize,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
}

/// Print rules to begin with.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mkdir policies
  windlass policy starter > policies/rules.cedar

Everything is allowed but: calls that change something ask a person where someone outside may
have written their arguments, calls that cannot be undone always ask, and what is secret does
not leave by a tool that changes something.")]
pub(crate) struct PolicyStarter {}

/// Print the schema.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy schema > windlass.cedarschema

For editors that know Cedar, and for people.")]
pub(crate) struct PolicySchema {}

/// Look at a candidate, withdraw it, or try it again.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCandidate {
    /// Show the candidate, how it does so far, and whether it was withdrawn
    #[command(after_help = "Examples:
  windlass policy candidate status
  windlass policy candidate status --json | jq .counts

What is counted are the questions that both sets were asked, over all processes of the store;
a process adds what it counted each second. Read from the store and the folder of
`[policy.candidate]`.")]
    Status,
    /// List the questions of the newest runs that the two sets answered differently
    Differences(PolicyDifferences),
    /// Have the set in force judge everything, at once and in every process
    Withdraw(PolicyWithdraw),
    /// Try a candidate again that was withdrawn, and count anew
    Resume(PolicyResume),
}

/// List what two sets answered differently.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy candidate differences
  windlass policy candidate differences --last 1000 --machine orders --json

Takes them from the journals of runs: each with the run, the step, what was asked, and the
answer and the rule of either set. Nothing is asked again.")]
pub(crate) struct PolicyDifferences {
    /// How many runs, newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub last: usize,
    /// Only runs of this machine
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// Only those of this candidate; without it of every one
    #[arg(long, value_name = "VERSION")]
    pub candidate: Option<String>,
}

/// Withdraw a candidate.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy candidate withdraw --reason 'denies refunds'

Every process that decides takes it up within two seconds. A run that the candidate judged is
judged by the set in force from its next decision on. Another version of the candidate's files
is another candidate, which is tried.")]
pub(crate) struct PolicyWithdraw {
    /// The version of the candidate; without it that of the configured folder
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// Try a candidate again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass policy candidate resume --reason 'the refunds were fraud'

What was counted before is forgotten. Runs go back to the side that they were on.")]
pub(crate) struct PolicyResume {
    /// The version of the candidate; without it that of the configured folder
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    /// Your name, as it is remembered [default: the variable `WINDLASS_ACTOR`, else the user of the operating system]
    #[arg(long, value_name = "NAME", default_value_t = super::actor(), hide_default_value = true)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
