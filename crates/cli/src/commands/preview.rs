//! `windlass preview`: what a run may do and will probably use, before it is started; and how well that was foretold.

mod past;
mod price;
mod purse;
pub(super) mod reach;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map as JsonMap, Value as Json, json};
use windlass::wire::{self, Wiring};
use windlass_core::budget::{Ceilings, Meter};
use windlass_core::contract::Contract;
use windlass_core::ids::Name;
use windlass_core::input::Quote;
use windlass_core::machine::{Agent, Machine, Program};
use windlass_core::time::Timestamp;
use windlass_ports::compile::Bundle;
use windlass_ports::model::Model;
use windlass_ports::store::Head;

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::session;
use crate::story::dollars;
use past::{Expected, Measure, Missed};
use price::per_call;
use purse::{Purse, Use};
use reach::{Bounds, Reach, Uses};

/// Prints a preview.
///
/// # Errors
/// A document that is not valid, a run that is not there or has not ended, a store that fails.
pub(crate) async fn preview(app: &mut App, args: args::Preview) -> Result<Exit, Problem> {
    let subject = match (&args.machine, &args.run) {
        (Some(path), _) => of_file(app, path)?,
        (None, Some(run)) => of_run(app, run).await?,
        (None, None) => return Err(Problem::invalid("name a machine, or a run with `--run`")),
    };
    let Subject { program, wiring, actual } = &subject;
    let entry = program.machines.get(&program.entry);
    let machine = entry.ok_or_else(|| Problem::bug("the program has no entry"))?;
    let before = actual.as_ref().map(|head| head.created_at);
    let runs = past(app, &machine.name, &args, before).await?;
    let models = wiring.models(&std::collections::BTreeMap::new(), Some(program)).map_err(session::setting)?;
    let price = |agent: &Agent| per_call(&models, agent);
    let uses = Reach::of(program, &price).uses();
    let reached = Reach::of(program, &price).machines();
    let ceilings = machine.ceilings.tighter(&app.loaded.config.limits.ceilings());
    let mut told: Vec<Told> =
        Measure::ALL.into_iter().map(|measure| Told::of(measure, &runs, actual.as_ref())).collect();
    let unpriced = unpriced(&models, &reached);
    if !unpriced.is_empty() {
        told.iter_mut().for_each(Told::forget_nothing);
    }
    let bounds = bounds(&uses, &ceilings);
    let purse = Purse {
        tenant: whose(app, &args, actual.as_ref()),
        user: app.loaded.config.run.user.clone(),
        tools: reach::tools(&reached).into_keys().collect(),
    };
    let high =
        |wanted: Measure| told.iter().find(|told| told.measure == wanted)?.expected.map(|expected| expected.high);
    let will_use = |meter: Meter| Use {
        expected: match meter {
            Meter::Tokens => high(Measure::Tokens),
            Meter::CostMicros => high(Measure::CostMicros),
            Meter::Steps | Meter::Launches | Meter::ModelCalls | Meter::ToolCalls => None,
        },
        most: bounds[meter.as_str()]["max"].as_u64(),
    };
    let budgets = purse.budgets(app, will_use).await?;
    let document = json!({
        "machine": &*machine.name,
        "bundle": program.bundle,
        "bounds": bounds,
        "budgets": budgets,
        "models": asked(&models, &reached),
        "unpriced": unpriced,
        "tools": tools(&reached),
        "approvals": approvals(&reached),
        "signals": reach::channels(&reached),
        "runs": runs.len(),
        "expected": keyed(&told, |told| json!(told.expected)),
        "error": keyed(&told, |told| json!(told.missed)),
        "run": actual.as_ref().map(|head| json!({
            "run_id": head.id.as_str(),
            "status": head.status.as_str(),
            "used": keyed(&told, |told| json!(told.actual)),
            "percent_off": keyed(&told, |told| json!(told.off())),
        })),
    });
    app.output.sentence(&document, &text(&document, &told, runs.len()));
    Ok(Exit::Ok)
}

/// Whose run it is, or would be.
fn whose(app: &App, args: &args::Preview, actual: Option<&Head>) -> String {
    let said = actual.map(|head| head.tenant.to_string()).or_else(|| args.tenant.clone());
    let usual = || app.loaded.config.run.tenant.clone().unwrap_or_else(|| "default".to_owned());
    said.unwrap_or_else(usual)
}

/// What is previewed.
struct Subject {
    program: std::sync::Arc<Program>,
    wiring: Wiring,
    /// The run that is compared with.
    actual: Option<Head>,
}

fn of_file(app: &App, path: &Path) -> Result<Subject, Problem> {
    let folder = documents::folder(app, path);
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, &folder) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, path, &catalog)?;
    Ok(Subject { program: loaded.program, wiring, actual: None })
}

async fn of_run(app: &mut App, run: &str) -> Result<Subject, Problem> {
    let (store, head) = app.run(run).await?;
    if head.root != head.id {
        return Err(Problem::rejected(format!("run `{}` is a child; previews are of callers' runs", head.id))
            .hint(format!("windlass preview --run {}", head.root)));
    }
    if !head.status.is_final() {
        return Err(Problem::rejected(format!("run `{}` has not ended: it is {}", head.id, head.status.as_str()))
            .hint("without `--run`, a preview is made for the machine"));
    }
    let bytes = store.blob(head.bundle).await?.unwrap_or_default();
    let bundle = Bundle::decode(&bytes).map_err(|_| Problem::bug("the bundle of the run cannot be read"))?;
    let program = wire::compiler()
        .compile(&bundle)
        .map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    Ok(Subject { program, wiring, actual: Some(head) })
}

/// Runs of the machine that have ended; none where there is no store yet.
async fn past(
    app: &App,
    machine: &Name,
    args: &args::Preview,
    before: Option<Timestamp>,
) -> Result<Vec<Head>, Problem> {
    let Some(store) = app.store_to_read().await? else { return Ok(Vec::new()) };
    let tenant = args.tenant.as_deref().map(Into::into);
    Ok(past::ended(&*store, machine, tenant, before, args.last as usize).await?)
}

/// What is told of one measure.
struct Told {
    measure: Measure,
    expected: Option<Expected>,
    missed: Option<Missed>,
    actual: Option<u64>,
}

impl Told {
    fn of(measure: Measure, runs: &[Head], actual: Option<&Head>) -> Self {
        let used: Vec<u64> = runs.iter().map(|head| measure.of(head)).collect();
        Self {
            measure,
            expected: past::expected(&used),
            missed: past::missed(&used),
            actual: actual.map(|head| measure.of(head)),
        }
    }

    /// A cost of nothing of a model without a price says nothing about the cost.
    fn forget_nothing(&mut self) {
        if self.measure == Measure::CostMicros && self.expected.is_some_and(|expected| expected.high == 0) {
            (self.expected, self.missed) = (None, None);
        }
    }

    fn off(&self) -> Option<u64> {
        Some(past::percent_off(self.expected?.middle, self.actual?))
    }

    fn shown(&self, amount: u64) -> String {
        match self.measure {
            Measure::CostMicros => dollars(amount),
            Measure::DurationMs => format!("{:.1} s", amount as f64 / 1_000.0),
            Measure::Steps | Measure::Tokens => amount.to_string(),
        }
    }
}

fn keyed(told: &[Told], of: impl Fn(&Told) -> Json) -> Json {
    Json::Object(told.iter().map(|told| (told.measure.as_str().to_owned(), of(told))).collect::<JsonMap<_, _>>())
}

/// What documents and ceilings bound.
fn bounds(uses: &Uses, ceilings: &Ceilings) -> Json {
    json!({
        "steps": uses.steps.under(ceilings.get(Meter::Steps)),
        "model_calls": uses.model_calls.under(ceilings.get(Meter::ModelCalls)),
        "tool_calls": uses.tool_calls.under(ceilings.get(Meter::ToolCalls)),
        "launches": uses.launches.under(ceilings.get(Meter::Launches)),
        "tokens": uses.tokens.under(ceilings.get(Meter::Tokens)),
        "cost_micros": uses.cost_micros.under(ceilings.get(Meter::CostMicros)),
        "wall_ms": Bounds { min: 0, max: None }.under(ceilings.wall_ms),
    })
}

/// The models of the agents that are reached, with their prices for a million tokens; of a chain those of its dearest link.
fn asked(models: &dyn Model, reached: &[&Machine]) -> Vec<Json> {
    let agents = reached.iter().flat_map(|machine| machine.agents.values().map(move |agent| (machine, agent)));
    agents
        .map(|(machine, agent)| {
            let chain = models.chain(&agent.model);
            let quotes: Vec<Quote> = match &chain {
                Some(chain) => chain.links.iter().filter_map(|link| link.quote.clone()).collect(),
                None => models.quote(&agent.model).into_iter().collect(),
            };
            let links = chain.as_ref().map(|chain| chain.links.iter().map(|link| &*link.name).collect::<Vec<_>>());
            json!({
                "machine": &*machine.name,
                "agent": &*agent.name,
                "provider": &*agent.model.provider,
                "model": &*agent.model.model,
                "links": links,
                "max_tokens": agent.model.max_tokens,
                "input_micros_per_million": quotes.iter().map(|quote| quote.input).max(),
                "output_micros_per_million": quotes.iter().map(|quote| quote.output).max(),
            })
        })
        .collect()
}

/// The models that cost something, and nobody knows how much.
fn unpriced(models: &dyn Model, reached: &[&Machine]) -> BTreeSet<Name> {
    let agents = reached.iter().flat_map(|machine| machine.agents.values());
    let asked = agents.flat_map(|agent| match models.chain(&agent.model) {
        Some(chain) => {
            chain.links.iter().map(|link| (link.settings.clone(), link.quote.clone(), link.traits)).collect::<Vec<_>>()
        }
        None => vec![(agent.model.clone(), models.quote(&agent.model), models.traits(&agent.model))],
    });
    let without = asked.filter(|(_, quote, traits)| quote.is_none() && !traits.is_free);
    without.map(|(settings, ..)| settings.model).collect()
}

fn tools(reached: &[&Machine]) -> Vec<Json> {
    reach::tools(reached).iter().map(|(name, contract)| tool(name, *contract)).collect()
}

fn tool(name: &Name, contract: Option<&Contract>) -> Json {
    // A tool without a contract is one of a hook, and counts as a write that must not be repeated.
    let undeclared = Contract::undeclared(name);
    let shown = contract.unwrap_or(&undeclared);
    json!({
        "name": &**name,
        "class": shown.class,
        "idempotency": shown.idempotency,
        "on_unknown": shown.on_unknown,
        "declared": contract.is_some(),
    })
}

/// Tools and actions that a person is always asked about; a policy may ask about more.
fn approvals(reached: &[&Machine]) -> Vec<String> {
    let asked = |contract: &Option<&Contract>| contract.is_some_and(|contract| contract.approval.always);
    reach::tools(reached).iter().filter(|(_, contract)| asked(contract)).map(|(name, _)| name.to_string()).collect()
}

fn text(document: &Json, told: &[Told], runs: usize) -> String {
    let mut lines = vec![format!("{}, after {} of its runs", word(&document["machine"]), runs)];
    if told.iter().all(|told| told.expected.is_none()) {
        lines.push(format!("  what it will use cannot be told from fewer than {} runs that ended", past::RUNS_MIN));
    }
    for one in told {
        let Some(expected) = one.expected else { continue };
        let range = format!("{} to {}", one.shown(expected.low), one.shown(expected.high));
        let mut line = format!("  {:<12} {:<16} {range}", one.measure.as_str(), one.shown(expected.middle));
        if let Some(missed) = one.missed {
            line.push_str(&format!("; {} % off, {} % within", missed.percent_off, missed.percent_within));
        }
        if let (Some(actual), Some(off)) = (one.actual, one.off()) {
            line.push_str(&format!("; used {}, {off} % off", one.shown(actual)));
        }
        lines.push(line);
    }
    let unpriced: Vec<&str> = document["unpriced"].as_array().into_iter().flatten().map(word).collect();
    if !unpriced.is_empty() {
        lines.push(format!("  {:<12} no price of {}", Measure::CostMicros.as_str(), unpriced.join(", ")));
    }
    if let Some(bounds) = document["bounds"].as_object() {
        for (name, bound) in bounds.iter().filter(|(_, bound)| !(bound["max"].is_null() && bound["min"] == 0)) {
            let most = if bound["max"].is_null() { "no bound".to_owned() } else { bound["max"].to_string() };
            lines.push(format!("  {name:<12} at least {}, at most {most}", bound["min"]));
        }
    }
    lines.extend(document["budgets"].as_array().into_iter().flatten().map(purse::line));
    for model in document["models"].as_array().into_iter().flatten() {
        let price = if model["input_micros_per_million"].is_null() { ", no price known" } else { "" };
        lines.push(format!("  asks         {} ({}){price}", word(&model["model"]), word(&model["agent"])));
    }
    for tool in document["tools"].as_array().into_iter().flatten() {
        lines.push(format!("  may call     {} ({})", word(&tool["name"]), word(&tool["class"])));
    }
    for (key, says) in [("approvals", "asks about"), ("signals", "waits for")] {
        for name in document[key].as_array().into_iter().flatten() {
            lines.push(format!("  {says:<12} {}", word(name)));
        }
    }
    crate::output::printable(&lines.join("\n"))
}

fn word(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}
