//! `windlass run` and `resume`: the two commands that drive a run to its end.

use std::path::Path;

use serde_json::json;
use windlass_core::ids::RunId;
use windlass_core::run::TenantScope;
use windlass_core::value::Value;
use windlass_runtime::Submission;

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::outcome;
use crate::places::{self, Place};
use crate::session::{self, Materials, Session};

/// Runs a machine.
pub(crate) async fn run(app: &App, args: args::Run) -> Result<Exit, Problem> {
    let run_id = args
        .run_id
        .as_deref()
        .map(RunId::new)
        .transpose()
        .map_err(|error| Problem::invalid(format!("`--run-id`: {error}")))?;
    let input = match &args.input {
        Some(given) => input::value("--input", Some(given))?,
        None => Value::empty_map(),
    };
    let folder = args.machine.parent().unwrap_or_else(|| Path::new(""));
    let wiring = session::wiring(app, folder);
    let catalog = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, &args.machine, &catalog)?;
    let store = app.store().await?;
    let digest = loaded.program.bundle;
    let materials = Materials { store, catalog, secrets: loaded.secrets, program: Some(&loaded.program) };
    let session = Session::new(app, &wiring, materials, &args.follow)?;
    let mut ceilings = app.loaded.config.limits.ceilings();
    if let Some(steps) = args.max_steps {
        ceilings.steps = Some(ceilings.steps.map_or(steps, |configured| configured.min(steps)));
    }
    let submission = Submission {
        bundle: loaded.bundle,
        program: loaded.program,
        input,
        run_id,
        ceilings,
        scope: TenantScope::default(),
        origin: None,
    };
    let submitted = session.engine.submit(submission).await.map_err(outcome::submit_problem)?;
    let config = app.loaded.file.as_deref().map(places::absolute);
    places::remember(app.store_url(), digest, &Place { config, folder: places::absolute(folder) });
    if args.detach {
        let status = submitted.existing.as_ref().map_or("queued", |head| head.status.as_str());
        let run = submitted.run_id.as_str();
        app.output.sentence(&json!({ "run_id": run, "status": status }), &format!("{run} is {status}"));
        return Ok(Exit::Ok);
    }
    session.follow(app, &submitted.run_id).await
}

/// Continues a run.
pub(crate) async fn resume(app: &mut App, args: args::Resume) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    if head.root != head.id {
        return Err(Problem::rejected(format!("run `{}` is a child and goes on with run `{}`", head.id, head.root))
            .hint(format!("windlass resume {}", head.root)));
    }
    let session = session::of_run(app, store, head.bundle, &args.follow).await?;
    if args.takeover {
        session.engine.take_over(&head.id).await.map_err(outcome::engine_problem)?;
    }
    session.follow(app, &head.id).await
}
