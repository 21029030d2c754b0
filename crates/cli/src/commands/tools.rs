//! `windlass tools`: what machines can call, and the definitions of MCP servers that a person accepts.
//!
//! Owns what is shown and which definitions go into the file of pins. Connecting and comparing is not here.

mod blocked;
mod ramps;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;
use windlass_core::contract::{Contract, OnUnknown, PlanStep, Planning, RampBudget};
use windlass_core::ids::Digest;
use windlass_spec::eval::check_schema;
use windlass_tools::mcp::quarantine::Blocked;
use windlass_tools::mcp::{Change, Pins, Server, Standing};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{Form, time};
use crate::session;

/// Why a tool has to be named that its server showed otherwise meanwhile.
const BLOCKED: &str = "it is blocked: `windlass tools blocked` shows why";

/// Carries out a command about tools.
///
/// # Errors
/// Whatever the command comes to.
pub(crate) async fn perform(app: &App, command: args::Tools) -> Result<Exit, Problem> {
    match command {
        args::Tools::List(args) => list(app, &args),
        args::Tools::Show(args) => show(app, &args),
        args::Tools::Diff(args) => diff(app, args).await,
        args::Tools::Accept(args) => accept(app, args).await,
        args::Tools::Blocked(args) => blocked::show(app, args).await,
        args::Tools::Release(args) => blocked::release(app, args).await,
        args::Tools::Ramps(_) => ramps::show(app).await,
        args::Tools::Resume(args) => ramps::resume(app, args).await,
    }
}

/// Lists the configured tools and actions.
///
/// # Errors
/// A configuration that is not valid.
pub(crate) fn list(app: &App, _: &args::ToolsList) -> Result<Exit, Problem> {
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let contracts: Vec<_> = catalog.tools.values().map(|tool| tool.contract().clone()).collect();
    let rows: Vec<Vec<String>> = contracts
        .iter()
        .map(|contract| {
            let first = contract.description.lines().next().unwrap_or_default();
            vec![
                contract.name.to_string(),
                word(&json!(contract.class)),
                word(&json!(contract.idempotency)),
                doubt(&contract.on_unknown),
                calls(contract),
                first.chars().take(60).collect(),
            ]
        })
        .collect();
    app.output.table(
        &json!({ "tools": contracts }),
        &["tool", "class", "repeats", "in doubt", "calls", "what it does"],
        &rows,
    );
    Ok(Exit::Ok)
}

fn word(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn doubt(rule: &OnUnknown) -> String {
    match rule {
        OnUnknown::Ask => "ask".to_owned(),
        OnUnknown::Fail => "fail".to_owned(),
        OnUnknown::Verify { tool } => format!("verify by {tool}"),
    }
}

/// Which runs make its calls.
fn calls(contract: &Contract) -> String {
    match contract.shadow.as_ref().map(|shadow| shadow.ramp_percent) {
        None => "real".to_owned(),
        Some(0) => "shadow".to_owned(),
        Some(percent) => format!("{percent} % real"),
    }
}

/// What a budget of a ramp allows.
fn allowed(budget: &RampBudget) -> String {
    let calls = budget.calls.map(|calls| format!("{calls} calls"));
    let failed = budget.failed_calls.map(|failed| format!("{failed} failures of the last {} calls", budget.of_calls));
    calls.into_iter().chain(failed).collect::<Vec<_>>().join(", ")
}

/// Shows the contract of one tool or action.
///
/// # Errors
/// A configuration that is not valid, and a name that it does not have.
pub(crate) fn show(app: &App, args: &args::ToolsShow) -> Result<Exit, Problem> {
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let tool = catalog.tools.get(args.tool.as_str()).ok_or_else(|| {
        Problem::not_found(format!("no tool or action `{}` is configured", args.tool))
            .hint("`windlass tools list` names them; one of an MCP server exists once it was accepted")
    })?;
    let contract = tool.contract();
    app.output.sentence(&json!(contract), lines(contract).trim_end());
    Ok(Exit::Ok)
}

/// A contract for people: a line for each thing that it says.
fn lines(contract: &Contract) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{key:<10} {value}\n"));
        }
    };
    let schema = |value: &windlass_core::value::Value| {
        if value.is_null() { "any".to_owned() } else { value.to_json() }
    };
    line("tool", contract.name.to_string());
    line("does", contract.description.to_string());
    line("class", word(&json!(contract.class)));
    line("repeats", word(&json!(contract.idempotency)));
    line("in doubt", doubt(&contract.on_unknown));
    line("calls", calls(contract));
    if let Some(shadow) = &contract.shadow {
        line("stub", shadow.answer.to_json());
        line("budget", shadow.budget.as_ref().map(allowed).unwrap_or_default());
    }
    line("plan", contract.plan.as_ref().map_or_else(|| "none".to_owned(), planned));
    line("approval", if contract.approval.always { "always" } else { "where a rule asks" }.to_owned());
    line("takes", schema(&contract.input_schema));
    line("gives", schema(&contract.output_schema));
    line("errors", contract.errors.join(", "));
    let touches: Vec<String> = contract.resources.iter().map(|path| path.join(".")).collect();
    line("touches", touches.join(", "));
    line("takes ms", contract.latency_ms.map(|ms| format!("{ms} usually")).unwrap_or_default());
    line("cost", contract.cost_weight.to_string());
    line("bounds", format!("{} ms, {} bytes", contract.timeout_ms, contract.output_bytes_max));
    out
}

fn planned(plan: &Planning) -> String {
    let seconds = plan.expires_ms / 1_000;
    match &plan.step {
        PlanStep::Tool(tool) => format!("shown by {tool}, for {seconds} s"),
        PlanStep::Argument(argument) => format!("shown with {argument} = true, for {seconds} s"),
    }
}

/// Compares what servers show with what was accepted.
///
/// # Errors
/// A server that is not configured or cannot be asked.
async fn diff(app: &App, args: args::ToolsDiff) -> Result<Exit, Problem> {
    let (servers, pins) = configured(app)?;
    let chosen: Vec<&std::sync::Arc<Server>> = match &args.server {
        Some(name) => vec![servers.get(name).ok_or_else(|| unknown(name, &servers))?],
        None => servers.values().collect(),
    };
    let blocked = blocked::known(app).await?;
    let mut documents = Vec::new();
    let mut text = String::new();
    let mut same = true;
    for server in chosen {
        let standings = standings(server, &pins, args.timeout.0).await?;
        same &= standings.values().all(|standing| matches!(standing, Standing::Accepted | Standing::Refused(_)));
        let mut tools = Vec::new();
        for (name, standing) in &standings {
            let mut tool = document(name, standing);
            text.push_str(&paragraph(&server.name, name, standing));
            if let Some(one) = held(&blocked, &pins, &server.name, name) {
                same = false;
                tool["blocked_since"] = json!(time(one.since));
                text.push_str(&format!("    ! blocked since {}\n", time(one.since)));
            }
            tools.push(tool);
        }
        documents.push(json!({ "server": server.name, "tools": tools }));
    }
    match app.output.form() {
        Form::Json => app.output.document(&json!({ "same": same, "servers": documents })),
        Form::Text if text.is_empty() => app.output.text("no server shows a tool"),
        Form::Text => app.output.text(&text),
    }
    if same {
        return Ok(Exit::Ok);
    }
    app.output.note("`windlass tools accept SERVER` accepts what is shown; `windlass tools blocked` says why one is");
    Ok(Exit::Failed)
}

/// Accepts what a server shows.
///
/// # Errors
/// A server that is not configured or cannot be asked, a tool that it does not show, or a file that cannot be written.
async fn accept(app: &App, args: args::ToolsAccept) -> Result<Exit, Problem> {
    let (servers, mut pins) = configured(app)?;
    let server = servers.get(&args.server).ok_or_else(|| unknown(&args.server, &servers))?;
    let mut standings = standings(server, &pins, args.timeout.0).await?;
    if let Some(name) = args.tools.iter().find(|name| !standings.contains_key(*name)) {
        return Err(Problem::not_found(format!("`{}` shows no tool `{name}`", args.server))
            .hint(format!("`windlass tools diff {}` shows what there is", args.server)));
    }
    standings.retain(|name, _| args.tools.is_empty() || args.tools.contains(name));
    let blocked = blocked::known(app).await?;
    let is_blocked = |tool: &str, hash: Digest| blocked.contains_key(&(args.server.clone(), tool.to_owned(), hash));
    let mut decided = Vec::new();
    let accepted = pins.servers.entry(args.server.clone()).or_default();
    let (mut taken, mut dropped, mut held, mut fit) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, standing) in standings {
        match standing {
            Standing::New(definition) | Standing::Changed(definition, _) => {
                let mut signs = definition.signs.clone();
                signs.extend(is_blocked(&name, definition.hash).then(|| BLOCKED.to_owned()));
                if signs.is_empty() || args.tools.contains(&name) {
                    decided.push((name.clone(), definition.hash));
                    accepted.insert(name.clone(), definition);
                    taken.push(name);
                } else {
                    held.push(json!({ "tool": name, "signs": signs }));
                }
            }
            Standing::Accepted => {
                let Some(hash) = accepted.get(&name).map(|definition| definition.hash) else { continue };
                if is_blocked(&name, hash) && args.tools.contains(&name) {
                    decided.push((name.clone(), hash));
                    taken.push(name);
                } else if is_blocked(&name, hash) {
                    held.push(json!({ "tool": name, "signs": [BLOCKED] }));
                } else {
                    fit.push(name);
                }
            }
            Standing::Gone => {
                accepted.remove(&name);
                dropped.push(name);
            }
            Standing::Refused(why) if args.tools.contains(&name) => {
                let message = format!("`{name}` of `{}` cannot be used: {why}", args.server);
                return Err(Problem::new(Exit::Rejected, "tool.changed", message));
            }
            Standing::Refused(_) => {}
        }
    }
    pins.save(&app.loaded.folder).map_err(|error| Problem::new(Exit::Unreachable, "cli.io", error.to_string()))?;
    blocked::accepted(app, &args.server, &decided).await?;
    fit.extend(taken.iter().cloned());
    blocked::wake(app, &args.server, &fit).await?;
    let value = json!({ "server": args.server, "accepted": taken, "dropped": dropped, "held": held });
    let mut text = format!("accepted: {}\n", named(&taken));
    if !dropped.is_empty() {
        text.push_str(&format!("dropped: {}\n", named(&dropped)));
    }
    for one in &held {
        let signs = one["signs"].as_array().into_iter().flatten().filter_map(Json::as_str).collect::<Vec<_>>();
        let tool = one["tool"].as_str().unwrap_or_default();
        text.push_str(&format!("held back: {tool}, because {}\n", signs.join(", ")));
    }
    app.output.sentence(&value, &text);
    if held.is_empty() {
        return Ok(Exit::Ok);
    }
    app.output.note("look at what is held back with `windlass tools diff`, then accept it by name");
    Ok(Exit::Failed)
}

fn named(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// Why a tool is blocked as it was accepted.
fn held<'a>(blocked: &'a blocked::All, pins: &Pins, server: &str, tool: &str) -> Option<&'a Blocked> {
    blocked.get(&(server.to_owned(), tool.to_owned(), pins.find(server, tool)?.hash))
}

type Servers = BTreeMap<String, std::sync::Arc<Server>>;

fn configured(app: &App) -> Result<(Servers, Pins), Problem> {
    let servers = session::wiring(app, Path::new("")).servers().map_err(session::setting)?;
    if servers.is_empty() {
        return Err(Problem::new(Exit::Invalid, "cli.config", "no MCP server is configured")
            .hint("`[mcp.NAME]` with `command` or `url` in `windlass.toml` is one; see docs/mcp.md"));
    }
    let pins = Pins::load(&app.loaded.folder).map_err(|error| {
        Problem::new(Exit::Invalid, "cli.config", error.to_string()).hint("bring the file back from version control")
    })?;
    Ok((servers, pins))
}

fn unknown(name: &str, servers: &Servers) -> Problem {
    let known = servers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Problem::not_found(format!("no MCP server `{name}` is configured")).hint(format!("configured are: {known}"))
}

async fn standings(server: &Server, pins: &Pins, timeout_ms: u64) -> Result<BTreeMap<String, Standing>, Problem> {
    let standings = server.standings(pins, timeout_ms).await;
    server.client.end().await;
    let standings = standings.map_err(|error| {
        Problem::new(Exit::Unreachable, "tool.unreachable", format!("the MCP server `{}`: {error}", server.name))
            .hint("`--log debug` shows what the server writes to its standard error")
    })?;
    Ok(standings.into_iter().map(|(name, standing)| (name, usable(standing))).collect())
}

/// A tool whose arguments or answers no call could be compared with is none that can be accepted.
fn usable(standing: Standing) -> Standing {
    let (Standing::New(definition) | Standing::Changed(definition, _)) = &standing else { return standing };
    let schemas = [("inputSchema", definition.input_schema()), ("outputSchema", definition.output_schema())];
    let wrong = schemas.into_iter().filter(|(_, schema)| !schema.is_null()).find_map(|(key, schema)| {
        let failure = check_schema(&schema.clone().into()).err()?;
        Some(format!("its `{key}`: {}", failure.message))
    });
    wrong.map_or(standing, Standing::Refused)
}

fn document(name: &str, standing: &Standing) -> Json {
    match standing {
        Standing::Accepted => json!({ "tool": name, "standing": "accepted" }),
        Standing::New(definition) => {
            let shown = &definition.wire;
            json!({ "tool": name, "standing": "new", "signs": definition.signs, "definition": shown })
        }
        Standing::Changed(definition, changes) => {
            json!({ "tool": name, "standing": "changed", "signs": definition.signs, "changes": changes })
        }
        Standing::Gone => json!({ "tool": name, "standing": "gone" }),
        Standing::Refused(why) => json!({ "tool": name, "standing": "refused", "why": why }),
    }
}

fn paragraph(server: &str, name: &str, standing: &Standing) -> String {
    let head = |word: &str| format!("{server} / {name}: {word}\n");
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let signs = |signs: &[String]| signs.iter().map(|sign| format!("    ! {sign}\n")).collect::<String>();
    match standing {
        Standing::Accepted => head("as accepted"),
        Standing::New(definition) => head("new") + &signs(&definition.signs) + &indented(&definition.shown()),
        Standing::Changed(definition, changes) => head("changed") + &signs(&definition.signs) + &places(changes),
        Standing::Gone => head("gone"),
        Standing::Refused(why) => head(&format!("cannot be used: {why}")),
    }
}

/// Places that differ, line by line.
fn places(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("    {}\n", if change.place.is_empty() { "(all of it)" } else { &change.place }));
        let sides = [("-", &change.accepted), ("+", &change.shown)];
        for (mark, value) in sides.into_iter().filter_map(|(mark, side)| Some((mark, side.as_ref()?))) {
            text.push_str(&format!("      {mark} {value}\n"));
        }
    }
    text
}
