//! The commands: one file each. This one finds the right one and sets up logging and threads for it.

mod acts;
mod approvals;
mod budgets;
mod audit;
mod bench;
mod chaos;
mod bulk;
mod debug;
mod diagnostics;
mod drill;
mod erase;
mod explain;
mod graph;
mod limits;
mod policy;
mod preflight;
mod preview;
mod readonly;
mod notify;
mod trust;
mod reference;
mod replay;
mod run;
mod runs;
mod schedules;
mod secrets;
mod serve;
mod signal;
mod sim;
pub(crate) mod skills;
mod slo;
mod store;
mod test;
mod tokens;
mod tools;
mod validate;
pub(crate) mod versions;

use std::path::Path;

use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::args::{self, Cli, Command};
use crate::config::{LogFormat, unknown_variables};
use crate::exit::{Exit, Problem};
use crate::output::{Output, note};

/// Runs the command.
///
/// # Errors
/// What went wrong, with the exit code for it.
pub(crate) fn dispatch(output: Output, cli: Cli) -> Result<Exit, Problem> {
    let Cli { global, command } = cli;
    match &command {
        Command::Completions(args) => return Ok(reference::completions(output, global.json, args)),
        Command::Docs(args) => return reference::docs(output, args),
        Command::ExplainSchema(args) => return explain::explain(output, args),
        _ => {}
    }
    let mut app = App::load(output, &global, machine(&command))?;
    logging(&app, global.quiet && global.log.is_none())?;
    if let Command::Config(args) = &command {
        return Ok(reference::config(&app, args));
    }
    for name in unknown_variables() {
        tracing::warn!(variable = name, "an environment variable names no key of the configuration");
    }
    match command {
        Command::Validate(args) => validate::validate(&app, &args),
        Command::Graph(args) => graph::graph(&app, &args),
        Command::Test(args) => test::test(&app, &args),
        Command::Sim(args) => sim::sim(&app, &args),
        Command::Bench(args::Bench::Start(args)) => bench::start(&app, &args),
        Command::Tools(args::Tools::List(args)) => tools::list(&app, &args),
        Command::Preflight(args) => preflight::preflight(&app, &args),
        Command::Drill(args) => drill::drill(&app, &args),
        Command::Tools(args::Tools::Show(args)) => tools::show(&app, &args),
        Command::Policy(args::Policy::Check(args)) => policy::check(&app, &args),
        Command::Policy(args::Policy::Schema(args)) => Ok(policy::schema(&app, &args)),
        Command::Policy(args::Policy::Starter(args)) => Ok(policy::starter(&app, &args)),
        command => {
            let performed = runtime(&app)?.block_on(noted(&mut app, command));
            performed.map_err(|problem| problem.of_store(&app.shown_store()))
        }
    }
}

/// Carries a command out, and writes down that it is, when it changes anything.
async fn noted(app: &mut App, command: Command) -> Result<Exit, Problem> {
    match acts::Doing::of(&command) {
        None => perform(app, command).await,
        Some(doing) if doing.afterwards => {
            let exit = perform(app, command).await?;
            acts::note(app, &doing).await?;
            Ok(exit)
        }
        Some(doing) => {
            let is_noted = acts::note(app, &doing).await?;
            let performed = perform(app, command).await;
            if let (true, Err(problem)) = (is_noted, &performed) {
                // What was refused is not to look as if it had been done.
                if let Err(error) = acts::note(app, &doing.clone().refused(problem.code)).await {
                    tracing::warn!(error = %error.message, "that it came to nothing could not be written down");
                }
            }
            let exit = performed?;
            // The first command on a store makes it.
            if !is_noted {
                acts::note_first(app, doing.first()).await?;
            }
            Ok(exit)
        }
    }
}

/// Commands that need the store.
async fn perform(app: &mut App, command: Command) -> Result<Exit, Problem> {
    match command {
        Command::Run(args) => run::run(app, args).await,
        Command::Resume(args) => run::resume(app, args).await,
        Command::Signal(args) => signal::signal(app, args).await,
        Command::Runs(command) => run_command(app, command).await,
        Command::Approvals(args::Approvals::List(args)) => approvals::list(app, args).await,
        Command::Approvals(args::Approvals::Show(args)) => approvals::show(app, args).await,
        Command::Approvals(args::Approvals::Approve(args)) => approvals::approve(app, args).await,
        Command::Approvals(args::Approvals::Reject(args)) => approvals::reject(app, args).await,
        Command::Budgets(args::Budgets::List) => budgets::list(app).await,
        Command::Budgets(args::Budgets::Show(args)) => budgets::show(app, args).await,
        Command::Budgets(args::Budgets::Set(args)) => budgets::set(app, args).await,
        Command::Budgets(args::Budgets::Raise(args)) => budgets::raise(app, args).await,
        Command::Budgets(args::Budgets::Objectives(args)) => budgets::objectives(app, args).await,
        Command::Budgets(args::Budgets::Remove(args)) => budgets::remove(app, args).await,
        Command::Limits(args) => limits::limits(app, args).await,
        Command::Secrets(args) => secret(app, &args),
        Command::Tokens(command) => tokens::perform(app, command).await,
        Command::Skills(command) => skills::perform(app, command).await,
        Command::Versions(command) => versions::perform(app, command).await,
        Command::Notify(command) => notify::perform(app, command).await,
        Command::Trust(command) => trust::perform(app, command).await,
        Command::Readonly(command) => readonly::perform(app, command).await,
        Command::Audit(wanted) => audit::perform(app, wanted).await,
        Command::Debug(command) => debug::perform(app, command).await,
        Command::Erase(args) => erase::erase(app, args).await,
        Command::Export(args) => erase::export(app, args).await,
        Command::Serve(args) => serve::serve(app, args).await,
        Command::Worker(args) => serve::worker(app, args).await,
        Command::Workers(args) => serve::workers(app, args).await,
        Command::Schedules(args) => schedule(app, args).await,
        Command::Replay(args) => replay::replay(app, args).await,
        Command::Verify(args) => replay::verify(app, args).await,
        Command::Fsck(args) => store::fsck(app, args).await,
        Command::Store(args::Store::Status(args)) => store::status(app, args).await,
        Command::Store(args::Store::Migrate(args)) => store::migrate(app, args).await,
        Command::Store(args::Store::Backup(args)) => store::backup(app, args).await,
        Command::Store(args::Store::Restore(args)) => store::restore(app, args).await,
        Command::Store(args::Store::Rekey(args)) => store::rekey(app, args).await,
        Command::Store(args::Store::Compact(args)) => store::compact(app, args).await,
        Command::Store(args::Store::Fence(args)) => store::fence(app, args).await,
        Command::Tools(command) => tools::perform(app, command).await,
        Command::Policy(args::Policy::Why(args)) => policy::why(app, *args).await,
        Command::Policy(args::Policy::Test(args)) => policy::test(app, args).await,
        Command::Policy(args::Policy::Candidate(args)) => policy::candidate(app, args).await,
        Command::Preview(args) => preview::preview(app, args).await,
        Command::Slo(args::Slo::Report(args)) => slo::report(app, args).await,
        Command::Diagnostics(args) => diagnostics::diagnostics(app, args).await,
        Command::Bench(args) => bench::bench(app, args).await,
        Command::Chaos(args::Chaos::Run(args)) => chaos::run(app, args).await,
        Command::Completions(_)
        | Command::Docs(_)
        | Command::ExplainSchema(_)
        | Command::Config(_)
        | Command::Validate(_)
        | Command::Graph(_)
        | Command::Preflight(_)
        | Command::Drill(_)
        | Command::Sim(_)
        | Command::Policy(args::Policy::Check(_) | args::Policy::Schema(_) | args::Policy::Starter(_))
        | Command::Test(_) => Err(Problem::bug("this command was not dispatched")),
    }
}

/// Commands about runs.
async fn run_command(app: &mut App, command: args::Runs) -> Result<Exit, Problem> {
    use args::Runs;
    match command {
        Runs::List(args) => runs::list(app, args).await,
        Runs::Stuck(args) => runs::stuck(app, args).await,
        Runs::Show(args) => runs::show(app, args).await,
        Runs::Tree(args) => runs::tree(app, args).await,
        Runs::Choices(args) => runs::choices(app, *args).await,
        Runs::Journal(args) => runs::journal(app, args).await,
        Runs::Watch(args) => runs::watch(app, args).await,
        Runs::Cancel(args) => runs::cancel(app, args).await,
        Runs::Pause(args) => runs::pause(app, args).await,
        Runs::Raise(args) => runs::raise(app, args).await,
        Runs::Model(args) => runs::model(app, args).await,
        Runs::Unpause(args) => runs::unpause(app, args).await,
        Runs::Retry(args) => runs::retry(app, args).await,
        Runs::Skip(args) => runs::skip(app, args).await,
        Runs::Requeue(args) => runs::requeue(app, args).await,
        Runs::Signal(args) => runs::signal(app, args).await,
        Runs::Fork(args) => runs::fork(app, args).await,
        Runs::Prune(args) => runs::prune(app, args).await,
    }
}

/// Commands about secrets.
fn secret(app: &App, command: &args::Secrets) -> Result<Exit, Problem> {
    use args::Secrets;
    match command {
        Secrets::List(args) => secrets::list(app, args),
        Secrets::Set(args) => secrets::set(app, args),
        Secrets::Rotate(args) => secrets::rotate(app, args),
        Secrets::Remove(args) => secrets::remove(app, args),
    }
}

/// Commands about schedules.
async fn schedule(app: &App, command: args::Schedules) -> Result<Exit, Problem> {
    use args::Schedules;
    match command {
        Schedules::Add(args) => schedules::add(app, *args).await,
        Schedules::List(args) => schedules::list(app, args).await,
        Schedules::Show(args) => schedules::show(app, args).await,
        Schedules::Pause(args) => schedules::pause(app, args).await,
        Schedules::Resume(args) => schedules::resume(app, args).await,
        Schedules::Remove(args) => schedules::remove(app, args).await,
        Schedules::RunNow(args) => schedules::run_now(app, args).await,
        Schedules::Next(args) => schedules::next(app, args).await,
    }
}

/// The machine document that a command is about; the configuration beside it counts.
fn machine(command: &Command) -> Option<&Path> {
    match command {
        Command::Run(args) => Some(&args.machine),
        Command::Sim(args) => Some(&args.machine),
        Command::Schedules(args::Schedules::Add(args)) => Some(&args.machine),
        Command::Graph(args) => Some(&args.machine),
        Command::Diagnostics(args) => args.machine.as_deref(),
        Command::Preview(args) => args.machine.as_deref(),
        Command::Preflight(args) => Some(&args.machine),
        Command::Drill(args::Drill::ModelRetired(args)) => Some(&args.machine),
        Command::Versions(args::Versions::Publish(args)) => Some(&args.machine),
        Command::Validate(args) => args.paths.first().filter(|path| path.is_file()).map(std::path::PathBuf::as_path),
        _ => None,
    }
}

fn runtime(app: &App) -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(app.loaded.config.worker.threads.max(1))
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Exit::Unreachable, "cli.io", format!("cannot start threads: {error}")))
}

/// Sets logging up. `quiet` leaves errors only.
fn logging(app: &App, quiet: bool) -> Result<(), Problem> {
    let log = &app.loaded.config.log;
    let filter = EnvFilter::try_new(if quiet { "error" } else { &log.filter }).map_err(|error| {
        Problem::new(Exit::Invalid, "cli.config", format!("`log.filter` is not valid: {error}"))
            .hint("`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `windlass_runtime=debug`")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let installed = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if installed.is_err() {
        note("warning: logging is set up already");
    }
    Ok(())
}
