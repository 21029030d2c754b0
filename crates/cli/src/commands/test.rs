//! `windlass test`: runs the cases of test files and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass::wire::{self, Wiring};
use windlass_core::ids::Name;
use windlass_core::machine::Program;
use windlass_core::run::TenantScope;
use windlass_policy::TrustBook;
use windlass_policy::evidence::{self, Counts, Kind};
use windlass_runtime::trail::{self, Deed};

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::output::{self, Form};
use crate::session;
use crate::testing::case::{self, Suite};
use crate::testing::compare::{differences, updated};
use crate::testing::report::{Ran, junit, rewrite};
use crate::testing::{self, Served};

/// Runs every case at or below a path.
///
/// # Errors
/// A test file or a machine that is not valid, or a report that cannot be written.
pub(crate) fn test(app: &App, args: &args::Test) -> Result<Exit, Problem> {
    let files = case::find(&args.path)?;
    if files.is_empty() {
        return Err(Problem::invalid(format!("no test file at or below `{}`", args.path.display()))
            .hint("test files are `tests.yml` and `NAME.test.yml`"));
    }
    let mut ran = Vec::new();
    let mut evidence = BTreeMap::new();
    let mut changed: Vec<String> = Vec::new();
    for path in files {
        let suite = case::read(&path)?;
        if perform(app, args, &suite, &mut ran, &mut evidence)? {
            changed.push(path.display().to_string());
        }
    }
    if ran.is_empty() {
        let filter = args.filter.as_deref().unwrap_or_default();
        return Err(
            Problem::invalid(format!("no case has `{filter}` in its name")).hint("leave `--filter` out to run all")
        );
    }
    if let Some(path) = &args.junit {
        write(path, &junit(&ran))?;
    }
    let mut document = document(&ran, &changed);
    if args.record {
        super::runtime(app)?.block_on(record(app, &evidence))?;
        document["recorded"] = json!(evidence);
    }
    Ok(show(app, &ran, &document))
}

/// Adds results to the evidence about versions of agents, and sets the scores that follow.
async fn record(app: &App, found: &BTreeMap<Name, Counts>) -> Result<(), Problem> {
    let (store, now) = (app.store().await?, app.now());
    for (agent, counts) in found {
        let of = |kind| counts.get(&kind).copied().unwrap_or_default();
        let detail = format!("{} cases passed, {} failed", of(Kind::Passed), of(Kind::Failed));
        let (actor, action) = (crate::caller::actor().as_str().into(), "trust.record".into());
        let deed = Deed { at: now, actor, action, subject: agent.clone(), detail: Some(detail.into()) };
        trail::note(&*store, &TenantScope::default().tenant, deed).await?;
        evidence::add(&*store, agent, counts, now).await?;
    }
    let config = &app.loaded.config.trust;
    if config.computed {
        wire::settle_trust(&TrustBook::default(), &*store, config, true).await?;
    }
    Ok(())
}

/// Runs the cases of one file. True when the file was changed.
fn perform(
    app: &App,
    args: &args::Test,
    suite: &Suite,
    ran: &mut Vec<Ran>,
    evidence: &mut BTreeMap<Name, Counts>,
) -> Result<bool, Problem> {
    let folder = suite.path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let wanted = |name: &str| args.filter.as_deref().is_none_or(|filter| name.contains(filter));
    if !suite.file.cases.iter().any(|case| wanted(&case.name)) {
        return Ok(false);
    }
    let loaded = machine(app, suite)?;
    let mut text = suite.text.clone();
    for case in suite.file.cases.iter().filter(|case| wanted(&case.name)) {
        let performed = testing::perform(&loaded, &suite.file, case, &folder, &Served::default())?;
        let mut found = differences(&case.expect, &performed.seen);
        if !found.is_empty() && args.update {
            let expect = updated(&case.expect, &performed.seen);
            match rewrite(&text, &case.name, &expect) {
                Some(new) => {
                    text = new;
                    found = differences(&expect, &performed.seen);
                }
                None => found.push("`--update` cannot change this file: write its cases as blocks".into()),
            }
        }
        let kind = if found.is_empty() { Kind::Passed } else { Kind::Failed };
        for agent in agents(&loaded.program) {
            *evidence.entry(agent).or_default().entry(kind).or_default() += 1;
        }
        ran.push(Ran {
            file: suite.path.display().to_string(),
            case: case.name.clone(),
            seconds: performed.seconds,
            differences: found,
        });
    }
    let is_changed = text != suite.text;
    if is_changed {
        write(&suite.path, &text)?;
    }
    Ok(is_changed)
}

/// The versions of the agents of a machine and of those that it starts.
fn agents(program: &Program) -> BTreeSet<Name> {
    let agents = program.machines.values().flat_map(|machine| machine.agents.values());
    agents.map(|agent| format!("{}@{}", agent.name, agent.hash.short()).into()).collect()
}

/// The machine of a test file, with the hooks and tools that are configured beside it. No secret is needed: nothing of
/// the configuration is called.
fn machine(app: &App, suite: &Suite) -> Result<windlass_spec::Loaded, Problem> {
    let app = &app.beside(&suite.machine)?;
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    documents::read(app, &suite.machine, &documents::options(app, &catalog, false))?.map_err(|found| {
        output::note(&output::printable(&windlass_spec::diagnostics::render_all(&found)));
        documents::refused(&suite.machine, &found)
    })
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text).map_err(|error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", path.display()))
    })
}

fn document(ran: &[Ran], changed: &[String]) -> Json {
    let failed = ran.iter().filter(|r| !r.differences.is_empty()).count();
    let seconds: f64 = ran.iter().map(|r| r.seconds).sum();
    json!({
        "passed": ran.len() - failed,
        "failed": failed,
        "seconds": (seconds * 1000.0).round() / 1000.0,
        "changed": changed,
        "cases": by_file(ran),
    })
}

fn show(app: &App, ran: &[Ran], document: &Json) -> Exit {
    let failed: Vec<&Ran> = ran.iter().filter(|r| !r.differences.is_empty()).collect();
    for case in &failed {
        output::note(&output::printable(&format!("FAILED {} · {}", case.file, case.case)));
        for difference in &case.differences {
            output::note(&output::printable(&format!("  {difference}")));
        }
    }
    let seconds: f64 = ran.iter().map(|r| r.seconds).sum();
    let summary = format!("{} passed, {} failed in {seconds:.3} s", ran.len() - failed.len(), failed.len());
    if app.output.form() == Form::Text {
        app.output.text(&summary);
    } else {
        app.output.document(document);
    }
    if failed.is_empty() { Exit::Ok } else { Exit::Failed }
}

fn by_file(ran: &[Ran]) -> Vec<Json> {
    ran.iter()
        .map(|r| {
            json!({
                "file": r.file,
                "case": r.case,
                "passed": r.differences.is_empty(),
                "differences": r.differences,
            })
        })
        .collect()
}
