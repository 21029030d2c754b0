//! `windlass sim`: plays a machine under seeds, and reports the first that breaks a promise.

use std::time::{Duration, Instant};

use serde_json::json;
use windlass::wire::Wiring;
use windlass_core::input::Ending;
use windlass_core::value::Value;
use windlass_sim::{Options, Outcome, Setup, SimError, Simulation};

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::output::{self, Form};
use crate::session;

/// Seeds that are played where none is named.
const SEEDS_DEFAULT: u64 = 100;
/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// Plays every seed until one breaks a promise.
///
/// # Errors
/// A machine, an input or a script that is not valid, and a machine that does not end when nothing disturbs it.
pub(crate) fn sim(app: &App, args: &args::Sim) -> Result<Exit, Problem> {
    if app.global.log.is_some() {
        return play(app, args);
    }
    // Every fault makes the engine warn: that is for whoever asks for it.
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || play(app, args))
}

fn play(app: &App, args: &args::Sim) -> Result<Exit, Problem> {
    let simulation = Simulation::new(setup(app, args)?, options(args)).map_err(problem)?;
    if let Some(Ending::Failed { failure, .. }) = simulation.usual_ending() {
        let hint = "`--answer` and `--signal` say what comes back";
        app.output.note(&format!("undisturbed, the machine fails: {}; {hint}", output::printable(&failure.message)));
    }
    let begun = Instant::now();
    let mut told = begun;
    let from = args.seed.unwrap_or(0);
    let seeds = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { SEEDS_DEFAULT });
    let (mut strikes, mut calls, mut virtual_ms) = (0_u64, 0_u64, 0_u64);
    for (played, seed) in (from..from.saturating_add(seeds)).enumerate() {
        let outcome = simulation.play(seed).map_err(problem)?;
        strikes += outcome.faults.values().sum::<u64>();
        calls += outcome.effects;
        virtual_ms = virtual_ms.saturating_add(outcome.virtual_ms);
        if !outcome.violations.is_empty() {
            broken(app, args, &outcome);
            return Ok(Exit::Failed);
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            app.output.note(&format!("{} of {seeds} seeds, {strikes} faults", played + 1));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let hours = virtual_ms / 3_600_000;
    let report = json!({
        "clean": true,
        "seeds": seeds,
        "first_seed": from,
        "faults": args.faults.to_string(),
        "faults_landed": strikes,
        "calls": calls,
        "virtual_ms": virtual_ms,
        "undisturbed_ms": simulation.usual_ms(),
        "seconds": (seconds * 1000.0).round() / 1000.0,
    });
    let text = format!(
        "{seeds} seeds from {from} are clean: {strikes} faults, {calls} calls and {hours} hours in {seconds:.1} s"
    );
    app.output.sentence(&report, &text);
    Ok(Exit::Ok)
}

fn options(args: &args::Sim) -> Options {
    Options { faults: args.faults.clone(), workers: usize::from(args.workers), ..Options::default() }
}

/// The machine with what the configuration beside it says about models, tools and hooks. Nothing of it is called.
fn setup(app: &App, args: &args::Sim) -> Result<Setup, Problem> {
    let folder = documents::folder(app, &args.machine);
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, &folder) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, &args.machine, &catalog)?;
    let input = match args.input.as_deref() {
        Some(given) => input::mapping("--input", given)?,
        None => Value::empty_map(),
    };
    let mut setup = Setup::new(&loaded, input).folder(wiring.scripts.clone());
    if let Some(path) = wiring.providers.values().find_map(|provider| provider.script.as_ref()) {
        let path = wiring.folder.join(path);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", path.display())))?;
        setup = setup.script(&text).map_err(|error| Problem::invalid(format!("`{}`: {error}", path.display())))?;
    }
    for given in &args.signals {
        let (channel, data) = pair("--signal", "CHANNEL", given)?;
        setup = setup.signal(channel, data);
    }
    for given in &args.answers {
        let (name, data) = pair("--answer", "NAME", given)?;
        setup = setup.answer(name, data);
    }
    Ok(setup)
}

/// The two sides of a flag that takes `KEY=JSON`.
///
/// # Errors
/// No `=`, or no JSON after it.
pub(crate) fn pair<'a>(flag: &str, name: &str, given: &'a str) -> Result<(&'a str, Value), Problem> {
    let (key, data) = given.split_once('=').ok_or_else(|| {
        Problem::invalid(format!("`{flag} {given}` has no `=`"))
            .hint(format!("write `{flag} {name}=JSON`, such as `{flag} '{name}={{\"approved\": true}}'`"))
    })?;
    Ok((key, input::value(flag, Some(data))?))
}

fn problem(error: SimError) -> Problem {
    match error {
        SimError::Unsound(_) => Problem::invalid(error.to_string()).hint(
            "`windlass run` shows how far it gets; a wait without a timeout gets null, unless `--signal` says more",
        ),
        SimError::Submit(error) => crate::outcome::submit_problem(error),
        SimError::Store(_) | SimError::Runtime(_) => Problem::bug(error.to_string()),
    }
}

/// What was broken, the last that happened, and how to see it again.
fn broken(app: &App, args: &args::Sim, outcome: &Outcome) {
    let command = reproduce(args, outcome.seed);
    if app.output.form() == Form::Text {
        let mut lines = vec![format!("seed {} breaks a promise", outcome.seed), String::new()];
        lines.extend(outcome.violations.iter().map(|violation| format!("  {violation}")));
        let struck: Vec<String> = outcome.faults.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
        lines.extend([String::new(), format!("faults: {}", struck.join(", ")), "last:".to_owned()]);
        lines.extend(outcome.tail.iter().map(|line| format!("  {line}")));
        lines.extend([String::new(), format!("again: {command}")]);
        app.output.text(&output::printable(&lines.join("\n")));
        return;
    }
    let mut report = serde_json::to_value(outcome).unwrap_or_default();
    if let Some(report) = report.as_object_mut() {
        report.insert("clean".into(), false.into());
        report.insert("command".into(), command.into());
    }
    app.output.document(&report);
}

/// The command that plays one seed again.
fn reproduce(args: &args::Sim, seed: u64) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = format!("windlass sim {} --seed {seed}", quoted(&args.machine.to_string_lossy()));
    command.push_str(&format!(" --faults {} --workers {}", args.faults, args.workers));
    if let Some(input) = &args.input {
        command.push_str(&format!(" --input {}", quoted(input)));
    }
    for (flag, list) in [("--signal", &args.signals), ("--answer", &args.answers)] {
        for given in list {
            command.push_str(&format!(" {flag} {}", quoted(given)));
        }
    }
    command
}
