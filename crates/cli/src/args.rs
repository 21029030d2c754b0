//! The command line: every command, flag and example. Parsing only; nothing here acts.

mod approvals;
mod readonly;
mod run_key;
mod notify;
mod trust;
mod versions;
mod audit;
mod bench;
mod budgets;
mod chaos;
mod choices;
mod debug;
mod erase;
mod limits;
mod many;
mod policy;
#[cfg(test)]
mod deploy;
mod drill;
mod runs;
mod schedules;
mod secrets;
mod serve;
mod sim;
mod skills;
mod preflight;
mod preview;
pub(crate) mod slo;
mod store;
mod tokens;
mod tools;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::caller::actor;
use crate::config::{Preset, Span};

pub(crate) use approvals::{Approvals, ApprovalsApprove, ApprovalsList, ApprovalsReject, ApprovalsShow, Who};
pub(crate) use audit::{Audit, AuditActs, AuditExport, AuditList, AuditPrune, AuditSeal, AuditVerify};
pub(crate) use bench::{
    Bench, BenchFairness, BenchFanOut, BenchGoverned, BenchIdle, BenchLatency, BenchLoad, BenchPark, BenchPlace,
    BenchRecovery, BenchSelect, BenchStart, BenchSteps, BenchSurge,
};
pub(crate) use budgets::{
    Budgets, BudgetsObjectives, BudgetsRaise, BudgetsRemove, BudgetsScope, BudgetsSet, Caps, Every, Then,
};
pub(crate) use chaos::{Chaos, ChaosRun};
pub(crate) use choices::RunsChoices;
pub(crate) use debug::{Debug, DebugCapture, DebugOne, DebugShow};
pub(crate) use drill::{Drill, DrillModelRetired};
pub(crate) use erase::{Erase, Export};
pub(crate) use limits::LimitsShow;
pub(crate) use many::Many;
pub(crate) use notify::{Notify, NotifyList, NotifyTest};
pub(crate) use policy::{
    Policy, PolicyCandidate, PolicyCheck, PolicyDifferences, PolicySchema, PolicyStarter, PolicyTest, PolicyWhy,
};
pub(crate) use preflight::Preflight;
pub(crate) use preview::Preview;
pub(crate) use readonly::{Readonly, ReadonlyOff, ReadonlyOn, ReadonlyStatus, Switched};
pub(crate) use run_key::RunKey;
pub(crate) use runs::{
    Runs, RunsCancel, RunsFork, RunsJournal, RunsList, RunsModel, RunsPause, RunsPrune, RunsRaise, RunsRequeue,
    RunsRetry, RunsShow, RunsSignal, RunsSkip, RunsStuck, RunsTree, RunsUnpause, RunsWatch,
};
pub(crate) use schedules::{
    Schedules, SchedulesAdd, SchedulesList, SchedulesNext, SchedulesPause, SchedulesRemove, SchedulesResume,
    SchedulesRunNow, SchedulesShow,
};
pub(crate) use secrets::{Given, Secrets, SecretsList, SecretsRemove, SecretsRotate, SecretsSet};
pub(crate) use serve::{Placed, Role, Serve, Worker, Workers};
pub(crate) use sim::Sim;
pub(crate) use skills::{Skills, SkillsAdd, SkillsCheck, SkillsList, SkillsRemove, SkillsSearch, SkillsShow};
pub(crate) use slo::{Slo, SloReport};
pub(crate) use store::{
    Store, StoreBackup, StoreCompact, StoreFence, StoreMigrate, StoreRekey, StoreRestore, StoreStatus,
};
pub(crate) use tokens::{Revocable, Tokens, TokensIssue, TokensRestore, TokensRevoke, TokensShow};
pub(crate) use tools::{Tools, ToolsAccept, ToolsBlocked, ToolsDiff, ToolsList, ToolsRelease, ToolsResume, ToolsShow};
pub(crate) use trust::{SeverityWord, Trust, TrustAuto, TrustExplain, TrustIncident, TrustSet, TrustShow};
pub(crate) use versions::{Versions, VersionsDiff, VersionsList, VersionsPublish, VersionsRollback, VersionsShow};

/// A durable runtime for agent workflows.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    about = "A durable runtime for agent workflows",
    long_about = "A durable runtime for agent workflows: runs declarative machines (agents, tools, people, child \
                  machines) so that nothing that was acknowledged is lost and no side effect is silently repeated.",
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 fault of Windlass, 2 usage or invalid document, 3 run failed, 4 not found or \
                  rejected, 5 denied, 6 store unreachable, 7 parked, 130 interrupted."
)]
pub(crate) struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where runs are stored: `sqlite:PATH`, `postgres://HOST/DATABASE` or `memory:`
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub store: Option<String>,
    /// The configuration file; without it `windlass.toml` here, else beside the machine
    #[arg(long, global = true, value_name = "FILE", env = "WINDLASS_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The set of defaults: `dev-safe`, `staging` or `prod-safe`
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub preset: Option<Preset>,
    /// Write JSON to stdout, also on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Write text for people to stdout, also when it is not a terminal
    #[arg(long, global = true, conflicts_with = "json", help_heading = "Global options")]
    pub plain: bool,
    /// No progress and no notes on stderr, only errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// What to log to stderr: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `windlass_runtime=debug`
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a machine and print its output
    Run(Run),
    /// Continue a run that is parked, interrupted or held by a dead process
    Resume(Resume),
    /// Send a signal to whoever waits on a channel
    Signal(Signal),
    /// List, inspect and steer runs
    #[command(subcommand)]
    Runs(Runs),
    /// Register, find, show and check skills
    #[command(subcommand)]
    Skills(Skills),
    /// Publish machines under names, compare what was published, and roll back
    #[command(subcommand)]
    Versions(Versions),
    /// List and answer what runs ask people
    #[command(subcommand)]
    Approvals(Approvals),
    /// Look at and change what many runs may use together
    #[command(subcommand)]
    Budgets(Budgets),
    /// List limits of rates, what is left of them, and who waits
    Limits(LimitsShow),
    /// Let nothing be changed: a switch for incidents
    #[command(subcommand)]
    Readonly(Readonly),
    /// Set, list, rotate and remove the secrets that the configuration names
    #[command(subcommand)]
    Secrets(Secrets),
    /// Make, look at and revoke tokens for calls over HTTP
    #[command(subcommand)]
    Tokens(Tokens),
    /// Look at what is sent to people, and try a channel
    #[command(subcommand)]
    Notify(Notify),
    /// Say how far versions of agents are trusted
    #[command(subcommand)]
    Trust(Trust),
    /// List, check and export who did what with which effect
    #[command(subcommand)]
    Audit(Audit),
    /// Keep what calls say in full, for a time
    #[command(subcommand)]
    Debug(Debug),
    /// Remove the data of a tenant, a user or a run
    Erase(Erase),
    /// Write the data of a tenant, a user or a run to a file
    Export(Export),
    /// Start runs at times and in intervals
    #[command(subcommand)]
    Schedules(Schedules),
    /// Drive the runs of the store until told to stop, and answer health checks
    Serve(Serve),
    /// Drive the runs of the store until told to stop
    Worker(Worker),
    /// List the processes that drive runs
    Workers(Workers),
    /// Fold a run's journal and print the state it gives
    Replay(Replay),
    /// Replay a run, render everything it sent again, and compare
    Verify(Verify),
    /// Run the tests beside machines
    Test(Test),
    /// Run a machine under many schedules of faults, and check what it promises
    Sim(Sim),
    /// Look at tools, and accept those of MCP servers
    #[command(subcommand)]
    Tools(Tools),
    /// Check documents without running them
    Validate(Validate),
    /// Say what a run may do and what it will probably use
    Preview(Preview),
    /// Check that everything is there that a machine needs to run
    Preflight(Preflight),
    /// Try out what is to hold when something goes wrong
    #[command(subcommand)]
    Drill(Drill),
    /// Draw a machine
    Graph(Graph),
    /// List every field of the document format and how well it is supported
    ExplainSchema(ExplainSchema),
    /// Check the store
    Fsck(Fsck),
    /// Look at, upgrade, copy and bring back the store
    #[command(subcommand)]
    Store(Store),
    /// Check, explain and try the rules over what runs may do
    #[command(subcommand)]
    Policy(Policy),
    /// Measure how many runs complete without a person
    #[command(subcommand)]
    Slo(Slo),
    /// Print what someone needs to help you, without secrets
    Diagnostics(Diagnostics),
    /// Measure this build on this computer
    #[command(subcommand)]
    Bench(Bench),
    /// Do faults to real workers and check every promise
    #[command(subcommand)]
    Chaos(Chaos),
    /// Print the configuration and where each value comes from
    Config(ShowConfig),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the generated reference pages
    #[command(hide = true)]
    Docs(Docs),
}

/// Run a machine and print its output.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass run machine.yml --input '{\"topic\": \"tides\"}'
  windlass run machine.yml --input @input.json --run-id order-4711
  windlass run machine.yml --detach --tag team=night
  windlass run triage@ --input @input.json
  windlass run sync.yml --key account-7 --if-running return
  windlass run reindex.yml --key docs --debounce 30s --detach
  cat input.json | windlass run machine.yml --input - | jq .summary

stdout is the machine's output as one JSON document. A failed run exits with 3 and
{\"error\": {\"code\", \"message\", \"state\"}, \"run_id\"}; a parked one with 7 and
{\"run_id\", \"status\": \"waiting\", \"waits\": [{\"kind\", \"channel\" | \"at\", \"run_id\"}]}.
A run id used again with the same input continues or returns that run; with another input
it is refused.")]
pub(crate) struct Run {
    /// The machine document, or a published version: `NAME@` or `NAME@NUMBER`
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// The input: JSON, `@FILE`, or `-` for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub input: Option<String>,
    /// A file for a key of the input, such as an image for a model that takes it; may be given more than once
    #[arg(long, value_name = "KEY=PATH")]
    pub file: Vec<String>,
    /// The run's id; makes a repeat of this command harmless
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// Steps at most
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// The span below which the run stands, as W3C trace context writes it [default: the variable `TRACEPARENT`]
    #[arg(long, value_name = "TRACEPARENT")]
    pub traceparent: Option<String>,
    /// Whose it is.
    #[command(flatten)]
    pub whose: Whose,
    /// What the run is about.
    #[command(flatten)]
    pub keyed: RunKey,
    /// Only put the run in the queue, for workers or a later `resume`
    #[arg(long, conflicts_with_all = ["wait", "events"])]
    pub detach: bool,
    /// How the run waits for a worker.
    #[command(flatten)]
    pub queueing: Queued,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Whose a new run is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Whose {
    /// The tenant that the run belongs to [default: as configured, else `default`]
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// The user for whom it runs [default: as configured, else none]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// How a new run waits for a worker.
#[derive(Clone, Debug, Args)]
pub(crate) struct Queued {
    /// The pool whose workers take the run, when the machine names none
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// The class in which the run waits: `high`, `normal` or `low` [default: as the machine says, else `normal`]
    #[arg(long, value_name = "CLASS")]
    pub priority: Option<String>,
    /// A word to find the run by; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub tag: Vec<String>,
    /// Do not start before this time (`2027-01-31T08:00:00Z`) or for this long (`10m`)
    #[arg(long, value_name = "TIME|DURATION", requires = "detach")]
    pub not_before: Option<String>,
}

/// How a command that drives a run waits and what it reports.
#[derive(Clone, Debug, Args)]
pub(crate) struct Follow {
    /// Wait this long for timers; a run parked for longer, or on a signal, exits with 7 [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Span>,
    /// Write one JSON object per line to FILE for everything that happens, as it happens
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

/// Continue a run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass resume order-4711
  windlass resume order-4711 --wait 10m
  windlass resume order-4711 --takeover

Continues at the last settled effect: nothing that was settled is done again. A run whose
process died can be resumed at once. stdout and exit codes are those of `windlass run`.")]
pub(crate) struct Resume {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Take the run from whoever holds it, also from a live process
    #[arg(long)]
    pub takeover: bool,
    /// How the command waits and what it reports.
    #[command(flatten)]
    pub follow: Follow,
}

/// Send a signal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass signal approvals/order-4711 --data '{\"approved\": true}'
  windlass signal approvals/order-4711 --data @answer.json --run order-4711
  windlass signal go --id ticket-17

A signal that nobody waits for is kept for the next run that waits on its channel. On a
channel `outcome/RUN#N` the data is {\"happened\": BOOL, \"result\"?, \"by\"?}; without `by` it is
who gives the command, as `WINDLASS_ACTOR` says.
`--id` makes a repeat of this command harmless.")]
pub(crate) struct Signal {
    /// The channel
    #[arg(value_name = "CHANNEL")]
    pub channel: String,
    /// The data: JSON, `@FILE`, or `-` for stdin [default: null]
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub data: Option<String>,
    /// Only for this run, or one below it that waits on the channel
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// The signal's id; a second one of the same id is dropped
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
}

/// Fold a run's journal.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass replay order-4711
  windlass replay order-4711 --to 12 --json | jq .context

Makes no call and evaluates nothing.")]
pub(crate) struct Replay {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u64>,
}

/// Replay and compare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass verify order-4711
  windlass verify order-4711 --tree

Folds the journal, renders every request, hook body and argument again, and compares their
hashes, the audit chain, the stored snapshot, the run's row and its open waits. Exits with 3
and names the first difference, with what is expected and what is there, when there is one.")]
pub(crate) struct Verify {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Also the runs below it
    #[arg(long)]
    pub tree: bool,
}

/// Run the tests beside machines.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass test
  windlass test examples/triage --filter refund
  windlass test --junit report.xml
  windlass test machine.test.yml --update
  windlass test examples/triage --record

Finds `tests.yml` and `*.test.yml` below PATH. Tests run in memory on a clock of their own:
timers fire at once, no key and no network is used. `--record` alone writes to the store: how
many cases passed and failed, for the version of each agent of the machine, from which trust
scores are computed.")]
pub(crate) struct Test {
    /// A test file, or a folder to search
    #[arg(value_name = "PATH", default_value = ".")]
    pub path: PathBuf,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write what really happened into `expect` of the cases that differ
    #[arg(long)]
    pub update: bool,
    /// Record how many cases passed as evidence about the versions of the agents
    #[arg(long, conflicts_with = "update")]
    pub record: bool,
}

/// Check documents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass validate machine.yml
  windlass validate examples --strict
  windlass validate machine.yml --json | jq '.diagnostics[].message'

Makes no network call and runs nothing. Exits with 2 when there is an error.")]
pub(crate) struct Validate {
    /// Documents, or folders to search for machine documents
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Treat warnings as errors
    #[arg(long)]
    pub strict: bool,
}

/// Draw a machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass graph machine.yml > machine.svg
  windlass graph machine.yml --format mermaid
  windlass graph machine.yml --format dot | dot -Tpng > machine.png")]
pub(crate) struct Graph {
    /// The machine document
    #[arg(value_name = "MACHINE")]
    pub machine: PathBuf,
    /// The form of the drawing
    #[arg(long, value_enum, default_value_t = GraphFormat::Svg)]
    pub format: GraphFormat,
}

/// Forms of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// A picture
    Svg,
    /// Mermaid text
    Mermaid,
    /// Graphviz text
    Dot,
}

/// List every field of the document format.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass explain-schema
  windlass explain-schema --tier blocked
  windlass explain-schema --document machine > flatmachine.schema.json")]
pub(crate) struct ExplainSchema {
    /// Only fields of this tier: `supported`, `experimental`, `blocked`
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
    /// Print the JSON Schema of a document kind for an editor instead: `machine`, `agent`, `prompt`, `profile`
    #[arg(long, value_name = "KIND", conflicts_with = "tier")]
    pub document: Option<String>,
}

/// Check the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass fsck
  windlass fsck --store sqlite:/var/lib/windlass/windlass.db --json

Changes nothing, and may run while others work. Exits with 3 when something is wrong;
docs/operations/fsck.md says what each rule means and what to do.")]
pub(crate) struct Fsck {}

/// Print what someone needs to help.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass diagnostics > diagnostics.json
  windlass diagnostics --machine machine.yml

Contains versions, configuration, hooks, providers and numbers about the store. Contains no
key, no prompt and no data of a run.")]
pub(crate) struct Diagnostics {
    /// Also summarise this machine
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<PathBuf>,
}

/// Print the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass config
  windlass config --preset prod-safe --plain
  windlass config --schema > windlass-config.schema.json

Flags win over the environment (`WINDLASS_*`, `__` between parts), that over the file, that
over the preset, that over the defaults.")]
pub(crate) struct ShowConfig {
    /// Print the JSON Schema of `windlass.toml` for an editor instead
    #[arg(long, action = ArgAction::SetTrue)]
    pub schema: bool,
}

/// Print a completion script.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass completions bash > /etc/bash_completion.d/windlass
  windlass completions zsh > ~/.zfunc/_windlass")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Write the generated reference pages.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass docs docs
  windlass docs docs --check")]
pub(crate) struct Docs {
    /// The folder to write to
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Write nothing; exit with 3 when a page is not up to date
    #[arg(long)]
    pub check: bool,
}

/// The name of somebody, as it is written down: on one line.
fn named(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        Err("a name has no control characters".into())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "`{path}` shows no example");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
