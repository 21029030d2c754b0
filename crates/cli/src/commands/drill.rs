//! `windlass drill`: what is to hold when something goes wrong, tried out in memory.

mod agents;

use std::path::{Path, PathBuf};

use serde_json::json;
use windlass::wire::Wiring;
use windlass_models::Models;
use windlass_models::catalog::Catalog;

use super::preview::reach;
use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::output::{Form, printable};
use crate::session;
use crate::testing::case::{self, Suite};
use crate::testing::compare::differences;
use crate::testing::{self, Served};
use agents::{Fate, told};

/// Carries a drill out.
///
/// # Errors
/// A document, a catalog or a test file that is not valid, or a model that nothing names.
pub(crate) fn drill(app: &App, drill: &args::Drill) -> Result<Exit, Problem> {
    let args::Drill::ModelRetired(args) = drill;
    model_retired(app, args)
}

/// How many cases passed.
#[derive(Debug, Default)]
struct Tally {
    cases: Vec<Case>,
}

/// A case, without the retired model and with it.
#[derive(Debug)]
struct Case {
    file: String,
    name: String,
    before: bool,
    differences: Vec<String>,
}

fn model_retired(app: &App, args: &args::DrillModelRetired) -> Result<Exit, Problem> {
    let folder = args.machine.parent().unwrap_or_else(|| Path::new(""));
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, folder) };
    let tools = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, &args.machine, &tools)?;
    let catalog = wiring.model_catalog().map_err(session::setting)?;
    let retired = catalog.retired(&args.model, args.to.as_deref()).map_err(Problem::rejected)?;
    let before = Served { catalog: catalog.clone(), gone: Vec::new() };
    let after = Served { gone: gone(&catalog, &args.model), catalog: retired };
    let models = |served: &Served| Models::builder().catalog(served.catalog.clone()).build();
    let (then, now) = (models(&before), models(&after));
    let reached = reach::machines(&loaded.program);
    let agents: Vec<_> = reached
        .iter()
        .flat_map(|machine| machine.agents.values().map(|agent| told(&machine.name, agent, &then, &now, &after)))
        .collect();
    if agents.iter().all(|agent| agent.fate == Fate::Untouched) {
        return Err(Problem::rejected(format!(
            "no agent of `{}` calls the model `{}`",
            args.machine.display(),
            args.model
        ))
        .hint("`windlass preview` shows which models a machine calls"));
    }
    let tally = cases(args, folder, &loaded, [&before, &after])?;
    let passed = tally.cases.iter().filter(|case| case.differences.is_empty()).count();
    let all = tally.cases.len();
    let lost = agents.iter().filter(|agent| agent.fate == Fate::Lost).count();
    let holds = lost == 0 && all > 0 && passed * 100 >= all * args.min_pass as usize;
    let document = json!({
        "holds": holds,
        "model": args.model,
        "agents": agents,
        "passed": passed,
        "failed": all - passed,
        "passed_before": tally.cases.iter().filter(|case| case.before).count(),
        "min_pass": args.min_pass,
        "cases": tally.cases.iter().map(|case| json!({
            "file": case.file, "case": case.name, "passed": case.differences.is_empty(), "passed_before": case.before,
            "differences": case.differences,
        })).collect::<Vec<_>>(),
    });
    if app.output.form() == Form::Json {
        app.output.document(&document);
    } else {
        show(app, args, &agents, &tally, holds);
    }
    Ok(if holds { Exit::Ok } else { Exit::Failed })
}

fn show(app: &App, args: &args::DrillModelRetired, agents: &[agents::Told], tally: &Tally, holds: bool) {
    let rows: Vec<Vec<String>> = agents.iter().map(agents::Told::row).collect();
    app.output.text(&crate::output::table(&["machine", "agent", "calls", "then", "what happens", "why"], &rows));
    for case in tally.cases.iter().filter(|case| !case.differences.is_empty()) {
        let since = if case.before { "fails without the model" } else { "fails with the model too" };
        app.output.note(&printable(&format!("FAILED {} · {}: {since}", case.file, case.name)));
        case.differences.iter().for_each(|difference| app.output.note(&printable(&format!("  {difference}"))));
    }
    let failed = tally.cases.iter().filter(|case| !case.differences.is_empty()).count();
    let lost: Vec<&str> = agents.iter().filter(|agent| agent.fate == Fate::Lost).map(|agent| &*agent.agent).collect();
    let gate = match (holds, lost.is_empty(), tally.cases.is_empty()) {
        (true, ..) => "the gate holds".to_owned(),
        (false, false, _) => format!("the gate does not hold: nothing answers for {}", lost.join(", ")),
        (false, true, true) => "the gate does not hold: the machine has no test case, so nothing is proved".to_owned(),
        (false, true, false) => format!("the gate does not hold: {} of 100 cases have to pass", args.min_pass),
    };
    app.output.text(&format!("\n{} cases passed, {failed} failed; {gate}", tally.cases.len() - failed));
}

/// Providers and names of the models that are taken as gone.
fn gone(catalog: &Catalog, model: &str) -> Vec<(Option<String>, String)> {
    let named = |entry: &&windlass_models::catalog::Entry| *entry.name == *model || *entry.model == *model;
    let listed =
        catalog.models.iter().filter(named).map(|entry| (Some(entry.provider.to_string()), entry.model.to_string()));
    let listed: Vec<_> = listed.collect();
    // A document may name it itself, of whichever provider.
    if listed.is_empty() { vec![(None, model.to_owned())] } else { listed }
}

/// Runs the cases of the machine with the models of before, and of after.
fn cases(
    args: &args::DrillModelRetired,
    folder: &Path,
    loaded: &windlass_spec::Loaded,
    [before, after]: [&Served; 2],
) -> Result<Tally, Problem> {
    let place = args.cases.clone().unwrap_or_else(|| match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    });
    let same = |suite: &Suite| {
        let whole = |path: &Path| path.canonicalize().ok();
        whole(&suite.machine).is_some_and(|machine| whole(&args.machine) == Some(machine))
    };
    let mut tally = Tally::default();
    for path in case::find(&place)? {
        let suite = case::read(&path)?;
        if !same(&suite) {
            continue;
        }
        let folder = suite.path.parent().unwrap_or_else(|| Path::new(""));
        for case in &suite.file.cases {
            let with = |served: &Served| testing::perform(loaded, &suite.file, case, folder, served);
            let (then, now) = (with(before)?, with(after)?);
            tally.cases.push(Case {
                file: suite.path.display().to_string(),
                name: case.name.clone(),
                before: differences(&case.expect, &then.seen).is_empty(),
                differences: differences(&case.expect, &now.seen),
            });
        }
    }
    Ok(tally)
}
