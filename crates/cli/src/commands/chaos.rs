//! `windlass chaos run`: sets the scene for the chaos crate: a store, a machine, this build as worker, and a folder.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use windlass::wire::{self, Wiring};
use windlass_chaos::plan::Kind;
use windlass_chaos::{Cast, ChaosError, Options, Place, Restart, Scene, Spawn, Verdict, machine};
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_spec::source::MemoryFiles;
use windlass_tools::CatalogConfig;

use crate::app::App;
use crate::args::ChaosRun;
use crate::commands::sim::pair;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::session;

/// What models say when there is no script.
const ECHO: &str = "default: {echo: true}\n";

/// Makes chaos and judges what came of it.
pub(crate) async fn run(app: &App, args: ChaosRun) -> Result<Exit, Problem> {
    let mut folder = Folder::new(args.keep.as_deref())?;
    let cast = cast(app, &args, &folder.path)?;
    // Without a store of its own, chaos would be made where the runs of everyone else are.
    let url = match &app.global.store {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", folder.path.join("store.db").display()),
    };
    let store: Arc<dyn Store> = wire::open_store(&url).await?;
    let options = options(&args, &url);
    app.output.note(&format!("seed {}", options.seed));
    let scene = Scene {
        store_url: url,
        store,
        engine: Box::new(session::observer),
        spawn: spawn()?,
        folder: folder.path.clone(),
        database: args.restart_database.clone().map(restart),
    };
    let output = app.output;
    let tell = move |text: &str| output.note(text);
    let report = match windlass_chaos::run(cast, scene, options, &tell).await {
        Ok(report) => report,
        Err(error) => return Err(problem(error)),
    };
    app.output.sentence(&report, &report.to_string());
    if report.verdict == Verdict::Good {
        return Ok(Exit::Ok);
    }
    folder.keeps = true;
    app.output.note(&format!("configurations, histories and logs are in `{}`", folder.path.display()));
    Ok(Exit::Failed)
}

fn problem(error: ChaosError) -> Problem {
    match error {
        ChaosError::Store(error) => error.into(),
        ChaosError::Submit(error) => crate::outcome::submit_problem(error),
        ChaosError::Io(error) => Problem::new(Exit::Unreachable, "cli.io", format!("cannot set the scene: {error}")),
        ChaosError::Address(_) | ChaosError::Impossible(..) => Problem::invalid(error.to_string())
            .hint("`--faults` names the kinds of faults; those of connections and `database` need a PostgreSQL store"),
        ChaosError::Endless { .. } => Problem::new(Exit::Failed, "cli.invalid", error.to_string())
            .hint("chaos needs a machine that ends by itself; `windlass run` shows what it waits for"),
    }
}

fn options(args: &ChaosRun, url: &str) -> Options {
    let span = |span: crate::config::Span| Duration::from_millis(span.0);
    let possible = |kind: &Kind| *kind != Kind::Database && (url.starts_with("postgres") || !kind.needs_proxy());
    Options {
        seed: args.seed.unwrap_or_else(|| wire::now().0),
        workers: args.workers.into(),
        runs: args.runs as usize,
        duration: span(args.duration),
        every: span(args.every),
        kinds: if args.faults.is_empty() {
            Kind::ALL.into_iter().filter(possible).collect()
        } else {
            args.faults.clone()
        },
        lease: span(args.lease),
        drain_max: span(args.drain),
        may_park: args.may_park,
        ..Options::default()
    }
}

/// The machine, and what it sees of the world.
fn cast(app: &App, args: &ChaosRun, folder: &Path) -> Result<Cast, Problem> {
    let Some(path) = &args.machine else { return shipped(app) };
    let input = match &args.input {
        Some(given) => input::mapping("--input", given)?,
        None => Value::empty_map(),
    };
    let folder_of_it = path.parent().unwrap_or_else(|| Path::new(""));
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, folder_of_it) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, path, &catalog)?;
    let script = folder.join("script.yml");
    let text = match wiring.providers.values().find_map(|provider| provider.script.as_ref()) {
        Some(file) => {
            let file = wiring.folder.join(file);
            std::fs::read_to_string(&file)
                .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", file.display())))?
        }
        None => ECHO.to_owned(),
    };
    std::fs::write(&script, text).map_err(unwritable)?;
    let mut cast = Cast::of(loaded.bundle, loaded.program, input, script);
    for given in &args.signals {
        let (channel, data) = pair("--signal", "CHANNEL", given)?;
        cast.signals.insert(channel.to_owned(), data);
    }
    for given in &args.answers {
        let (name, data) = pair("--answer", "NAME", given)?;
        cast.answers.insert(name.to_owned(), (&data).into());
    }
    Ok(cast)
}

/// The machine that comes with this build.
fn shipped(app: &App) -> Result<Cast, Problem> {
    let bug = |error: &dyn std::fmt::Display| Problem::bug(format!("the machine of this build is not valid: {error}"));
    let catalog: CatalogConfig = toml::from_str(&machine::tools()).map_err(|error| bug(&error))?;
    let catalog = Wiring { catalog, ..Wiring::default() }.catalog().map_err(|error| bug(&error))?;
    let files = machine::documents().into_iter().fold(MemoryFiles::new(), |files, (path, text)| files.with(path, text));
    let options = documents::options(app, &catalog, true);
    let loaded = windlass_spec::load(&files, machine::ENTRY, &options)
        .map_err(|found| bug(&windlass_spec::diagnostics::render_all(&found)))?;
    Ok(Cast::shipped(loaded.bundle, loaded.program))
}

/// This build as a worker.
fn spawn() -> Result<Spawn, Problem> {
    let program = std::env::current_exe()
        .map_err(|error| Problem::new(Exit::Unreachable, "cli.io", format!("cannot find this program: {error}")))?;
    Ok(Spawn::new(move |place: &Place| {
        let mut command = Command::new(&program);
        command.arg("worker").arg("--store").arg(&place.store_url).arg("--config").arg(&place.config);
        command.arg("--history").arg(&place.history).arg("--history-name").arg(&place.name);
        command
    }))
}

/// Restarts the database by a command of the system's shell.
fn restart(command: String) -> Restart {
    Restart::new(move || {
        let command = command.clone();
        Box::pin(async move {
            let ended = tokio::process::Command::new("sh").arg("-c").arg(&command).status().await?;
            let failed = |status: ExitStatus| std::io::Error::other(format!("`{command}` ended with {status}"));
            if ended.success() { Ok(()) } else { Err(failed(ended)) }
        })
    })
}

/// The folder of one run of chaos. It is removed at the end, unless somebody wants to look into it.
struct Folder {
    path: PathBuf,
    keeps: bool,
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Self, Problem> {
        let path = match keep {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("windlass-chaos-{}", uuid::Uuid::now_v7())),
        };
        let path = std::path::absolute(path).map_err(unwritable)?;
        std::fs::create_dir(&path).map_err(unwritable)?;
        Ok(Self { path, keeps: keep.is_some() })
    }
}

fn unwritable(error: std::io::Error) -> Problem {
    Problem::new(Exit::Unreachable, "cli.io", format!("the folder of chaos cannot be written: {error}"))
        .hint("`--keep DIR` names another one, which must not exist")
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keeps
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(folder = %self.path.display(), %error, "the folder of chaos was not removed");
        }
    }
}
