//! `windlass test`: runs the cases of test files and compares.

use std::path::Path;

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;

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
    let mut changed: Vec<String> = Vec::new();
    for path in files {
        let suite = case::read(&path)?;
        if perform(app, args, &suite, &mut ran)? {
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
    Ok(show(app, &ran, &changed))
}

/// Runs the cases of one file. True when the file was changed.
fn perform(app: &App, args: &args::Test, suite: &Suite, ran: &mut Vec<Ran>) -> Result<bool, Problem> {
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

fn show(app: &App, ran: &[Ran], changed: &[String]) -> Exit {
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
        app.output.document(&json!({
            "passed": ran.len() - failed.len(),
            "failed": failed.len(),
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "changed": changed,
            "cases": by_file(ran),
        }));
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
