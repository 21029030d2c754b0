//! Ramps of tools that have a budget: what was used of it, and letting the calls be made again.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;
use windlass_core::contract::{OF_CALLS_MAX, Shadow};
use windlass_core::ids::Name;
use windlass_runtime::ramp::{Ramp, Resumed};
use windlass_runtime::{ramps, resume_ramp};

use super::{allowed, calls};
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};
use crate::session;

/// Shows what ramps have used of their budgets, and which have stopped.
///
/// # Errors
/// A configuration that is not valid, or a store that cannot be read.
pub(super) async fn show(app: &App) -> Result<Exit, Problem> {
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let mut used = match app.store_to_list().await? {
        Some(store) => ramps(&*store).await?,
        None => BTreeMap::new(),
    };
    let shadow = |tool: &Name| catalog.tools.get(tool).and_then(|tool| tool.contract().shadow.as_deref());
    for tool in catalog.tools.keys().filter(|tool| shadow(tool).is_some_and(|shadow| shadow.budget.is_some())) {
        used.entry(tool.clone()).or_default();
    }
    used.retain(|tool, ramp| ramp.stopped.is_some() || shadow(tool).is_some_and(|shadow| shadow.budget.is_some()));
    let value = json!({
        "ramps": used.iter().map(|(tool, ramp)| described(tool, ramp, shadow(tool))).collect::<Vec<_>>(),
    });
    let row = |(tool, ramp): (&Name, &Ramp)| {
        let (failed, of) = failed(ramp, shadow(tool));
        let stopped = ramp.stopped.as_ref();
        vec![
            printable(tool),
            catalog.tools.get(tool).map(|tool| calls(tool.contract())).unwrap_or_default(),
            shadow(tool).and_then(|shadow| shadow.budget.as_ref()).map(allowed).unwrap_or_default(),
            ramp.calls.to_string(),
            format!("{failed} of {of}"),
            stopped.map(|stopped| format!("{}: {}", time(stopped.at), stopped.why)).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = used.iter().map(row).collect();
    app.output.table(&value, &["tool", "calls", "budget", "used", "failed", "stopped"], &rows);
    if used.values().all(|ramp| ramp.stopped.is_none()) {
        return Ok(Exit::Ok);
    }
    app.output.note("`windlass tools resume TOOL --reason TEXT` lets the calls of a stopped ramp be made again");
    Ok(Exit::Failed)
}

/// Lets the calls of a tool be made again.
///
/// # Errors
/// A ramp that has not stopped, or a store that fails.
pub(super) async fn resume(app: &App, args: args::ToolsResume) -> Result<Exit, Problem> {
    let running = || {
        let message = format!("the ramp of `{}` has not stopped", args.tool);
        Problem::not_found(message).hint("`windlass tools ramps` shows those that have")
    };
    if args.reason.trim().is_empty() {
        return Err(Problem::invalid("a ramp is resumed for a reason: `--reason TEXT`"));
    }
    let store = app.store_to_change().await?.ok_or_else(running)?;
    let resumed = Resumed { at: app.now(), by: args.by.as_str().into(), reason: args.reason.as_str().into() };
    let stopped = resume_ramp(&*store, &args.tool.as_str().into(), &resumed).await?.ok_or_else(running)?;
    let value = json!({ "tool": args.tool, "by": args.by, "reason": args.reason,
        "stopped": { "at": time(stopped.at), "why": &*stopped.why } });
    let sentence = format!("calls of {} are made again; they had stopped: {}", args.tool, stopped.why);
    app.output.sentence(&value, &printable(&sentence));
    Ok(Exit::Ok)
}

/// How many of the latest calls failed that its budget looks at, and of how many.
fn failed(ramp: &Ramp, shadow: Option<&Shadow>) -> (usize, usize) {
    let budget = shadow.and_then(|shadow| shadow.budget.as_ref());
    ramp.failed(budget.map_or(OF_CALLS_MAX, |budget| budget.of_calls))
}

fn described(tool: &Name, ramp: &Ramp, shadow: Option<&Shadow>) -> Json {
    let (failed, of) = failed(ramp, shadow);
    json!({
        "tool": &**tool,
        "ramp_percent": shadow.map(|shadow| shadow.ramp_percent),
        "budget": shadow.and_then(|shadow| shadow.budget.as_ref()),
        "calls": ramp.calls,
        "failed": { "calls": failed, "of": of },
        "stopped": ramp.stopped.as_ref().map(|stopped| json!({ "at": time(stopped.at), "why": &*stopped.why })),
        "resumed": ramp.resumed.as_ref().map(|one| json!({ "at": time(one.at), "by": &*one.by, "reason": &*one.reason })),
    })
}
