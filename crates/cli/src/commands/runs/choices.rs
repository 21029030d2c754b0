//! `windlass runs choices`: which model was called for each state, why, and what came of it; over one run or many, with
//! totals that say when a better tier should be asked first.

mod told;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::machine::ModelSettings;
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Head, Query, Store};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::filter::{self, Filter};
use crate::journal;
use crate::output::{Form, printable};
use crate::story::dollars;
use told::{Came, Reader, Told};

/// Runs read at a time.
const PAGE: usize = 200;
/// Choices that are kept to be printed: beyond them a filter, or totals alone, are asked for.
const CHOICES_MAX: usize = 100_000;

/// The models of agents by machine, as documents name them.
type Models = BTreeMap<Name, BTreeMap<Name, ModelSettings>>;

/// Prints choices of models, and their totals.
pub(crate) async fn choices(app: &App, args: args::RunsChoices) -> Result<Exit, Problem> {
    let wanted = Wanted::of(&args)?;
    let filter = runs(app, &args)?;
    let is_all = args.all || args.run.is_some();
    let limit = if is_all { PAGE } else { args.limit as usize };
    let mut found = Found { keep: !args.totals, ..Found::default() };
    let mut query = Query { cursor: args.cursor.clone(), ..filter.query(limit) };
    let mut next = None;
    if let Some(store) = app.store_to_read().await? {
        if let Some(run) = &args.run
            && store.load(RunId::stored(run)).await?.is_none()
        {
            return Err(Problem::unknown_run(run));
        }
        let mut programs = BTreeMap::new();
        loop {
            let page = store.list(query.clone()).await?;
            for head in &page.heads {
                let models = models(&store, head.bundle, &mut programs).await?;
                let told = of_run(&store, head, models).await?;
                found.take(told.into_iter().filter(|told| wanted.has(told)))?;
            }
            match page.next {
                Some(cursor) if is_all => query.cursor = Some(cursor),
                rest => {
                    next = rest;
                    break;
                }
            }
        }
    } else if let Some(run) = &args.run {
        return Err(Problem::unknown_run(run));
    }
    print(app, &found, next.as_deref(), args.totals);
    Ok(Exit::Ok)
}

/// Which runs are meant.
fn runs(app: &App, args: &args::RunsChoices) -> Result<Filter, Problem> {
    let now = app.now();
    Ok(Filter {
        machine: args.machine.as_deref().map(Into::into),
        tenant: args.tenant.as_deref().map(Into::into),
        since: args.since.as_deref().map(|text| filter::moment("--since", text, now)).transpose()?,
        until: args.until.as_deref().map(|text| filter::moment("--until", text, now)).transpose()?,
        below: args.run.as_deref().map(RunId::stored),
        children: true,
        ..Filter::default()
    })
}

/// The models that the documents of a bundle name. A bundle that this build cannot compile names none.
async fn models<'p>(
    store: &Arc<dyn Store>,
    bundle: Digest,
    known: &'p mut BTreeMap<Digest, Models>,
) -> Result<&'p Models, Problem> {
    let free = match known.entry(bundle) {
        Entry::Occupied(found) => return Ok(found.into_mut()),
        Entry::Vacant(free) => free,
    };
    let bytes = store.blob(bundle).await?.unwrap_or_default();
    let program = Bundle::decode(&bytes).ok().and_then(|read| windlass::wire::compiler().compile(&read).ok());
    let machines = program.iter().flat_map(|program| program.machines.values());
    let of = |machine: &Arc<windlass_core::machine::Machine>| {
        let models = machine.agents.iter().map(|(name, agent)| (name.clone(), agent.model.clone()));
        (machine.name.clone(), models.collect())
    };
    Ok(free.insert(machines.map(of).collect()))
}

/// The choices of one run.
async fn of_run(store: &Arc<dyn Store>, head: &Head, models: &Models) -> Result<Vec<Told>, Problem> {
    let none = BTreeMap::new();
    let mut reader = Reader::new(&head.id, head.machine.clone(), models.get(&head.machine).unwrap_or(&none));
    let mut rows = journal::Reader::new(Arc::clone(store), head.id.clone(), 0);
    while rows.after() < head.version {
        let records = rows.next(usize::MAX).await?;
        if records.is_empty() {
            break;
        }
        records.iter().for_each(|record| reader.read(record));
    }
    Ok(reader.told())
}

/// Which choices are meant.
struct Wanted<'a> {
    args: &'a args::RunsChoices,
    outcomes: Vec<Came>,
}

impl<'a> Wanted<'a> {
    fn of(args: &'a args::RunsChoices) -> Result<Self, Problem> {
        let read = |word: &String| {
            Came::ALL.into_iter().find(|came| came.as_str() == word).ok_or_else(|| {
                Problem::invalid(format!("`--outcome`: `{word}` is no outcome"))
                    .hint(format!("one of {}", Came::ALL.map(Came::as_str).join(", ")))
            })
        };
        Ok(Self { args, outcomes: args.outcome.iter().map(read).collect::<Result<_, _>>()? })
    }

    fn has(&self, told: &Told) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let args = self.args;
        let models = [Some(&told.model), told.link.as_ref(), told.chain.as_ref()];
        let is_model = |wanted: &String| models.into_iter().flatten().any(|name| **name == **wanted);
        let says = |wanted: &String| {
            [Some(&told.reason), told.row.as_ref()].into_iter().flatten().any(|text| text.contains(wanted.as_str()))
        };
        is(&args.agent, &told.agent)
            && is(&args.tier, &told.tier)
            && args.state.as_deref().is_none_or(|state| told.state.as_deref() == Some(state))
            && args.model.as_ref().is_none_or(is_model)
            && args.reason.as_ref().is_none_or(says)
            && (self.outcomes.is_empty() || self.outcomes.contains(&told.outcome))
    }
}

/// What choices of one kind add up to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Sum {
    choices: u64,
    tokens: u64,
    cost_micros: u64,
}

impl Sum {
    fn add(&mut self, told: &Told) {
        self.choices += 1;
        self.tokens = self.tokens.saturating_add(told.tokens);
        self.cost_micros = self.cost_micros.saturating_add(told.cost_micros);
    }
}

/// Of one tier of one agent.
#[derive(Clone, Debug, Default)]
struct Tier {
    all: Sum,
    outcomes: BTreeMap<Came, Sum>,
    escalated: u64,
    /// What those cost whose answers did not count.
    lost: u64,
}

impl Tier {
    /// Of those that came to an end, how many in a hundred came to nothing; none while none has.
    fn percent_lost(&self) -> Option<u64> {
        let of = |came: Came| self.outcomes.get(&came).map_or(0, |sum| sum.choices);
        let lost = of(Came::Failed) + of(Came::NotGoodEnough);
        let ended = lost + of(Came::Answered) + of(Came::SentBack);
        (lost * 100).checked_div(ended)
    }
}

#[derive(Debug, Default)]
struct Found {
    keep: bool,
    choices: Vec<Told>,
    totals: BTreeMap<(Name, Name, Name), Tier>,
}

impl Found {
    fn take(&mut self, told: impl Iterator<Item = Told>) -> Result<(), Problem> {
        for told in told {
            let tier = self.totals.entry((told.machine.clone(), told.agent.clone(), told.tier.clone())).or_default();
            tier.all.add(&told);
            tier.outcomes.entry(told.outcome).or_default().add(&told);
            tier.escalated += u64::from(told.escalated);
            if !matches!(told.outcome, Came::Answered | Came::Open) {
                tier.lost = tier.lost.saturating_add(told.cost_micros);
            }
            if self.keep {
                self.choices.push(told);
            }
        }
        if self.choices.len() > CHOICES_MAX {
            return Err(Problem::rejected(format!("more than {CHOICES_MAX} choices are found"))
                .hint("`--totals` adds them up; `--since`, `--machine` and the like find fewer"));
        }
        Ok(())
    }
}

fn print(app: &App, found: &Found, next: Option<&str>, totals_only: bool) {
    let totals: Vec<_> = found
        .totals
        .iter()
        .map(|((machine, agent, tier), sum)| {
            let outcomes: BTreeMap<&str, Sum> = sum.outcomes.iter().map(|(came, sum)| (came.as_str(), *sum)).collect();
            json!({
                "machine": machine, "agent": agent, "tier": tier,
                "choices": sum.all.choices, "tokens": sum.all.tokens, "cost_micros": sum.all.cost_micros,
                "outcomes": outcomes,
                "escalated": sum.escalated, "lost_micros": sum.lost, "percent_lost": sum.percent_lost(),
            })
        })
        .collect();
    if app.output.form() == Form::Json {
        let mut document = json!({ "totals": totals, "next": next });
        if !totals_only {
            document["choices"] = serde_json::to_value(&found.choices).unwrap_or_default();
        }
        app.output.document(&document);
        return;
    }
    if !totals_only {
        let rows: Vec<Vec<String>> = found.choices.iter().map(row).collect();
        let header = ["run", "state", "agent", "tier", "model", "outcome", "cost", "reason"];
        app.output.text(&crate::output::table(&header, &rows));
        app.output.text("");
    }
    let rows: Vec<Vec<String>> = found.totals.iter().map(|(key, tier)| total(key, tier)).collect();
    let header = [
        "machine",
        "agent",
        "tier",
        "choices",
        "answered",
        "sent back",
        "not good",
        "failed",
        "escalated",
        "cost",
        "lost",
    ];
    app.output.text(&crate::output::table(&header, &rows));
    if let Some(next) = next {
        app.output.note(&format!("more: --cursor {next}; `--all` reads every run"));
    }
}

fn row(told: &Told) -> Vec<String> {
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let model = told.link.as_ref().unwrap_or(&told.model);
    let outcome = match &told.code {
        Some(code) => format!("{} ({code})", told.outcome.as_str()),
        None => told.outcome.as_str().to_owned(),
    };
    let mut why = told.reason.to_string();
    why.extend(told.row.iter().map(|row| format!(", row `{row}`")));
    why.extend(told.by.iter().map(|by| format!(", as {by} said")));
    let cells = [
        told.run_id.to_string(),
        or_none(told.state.as_deref().unwrap_or_default()),
        told.agent.to_string(),
        or_none(&told.tier),
        or_none(model),
        outcome,
        dollars(told.cost_micros),
        why,
    ];
    cells.into_iter().map(|cell| printable(&cell)).collect()
}

fn total((machine, agent, tier): &(Name, Name, Name), sum: &Tier) -> Vec<String> {
    let of = |came: Came| sum.outcomes.get(&came).map_or(0, |sum| sum.choices).to_string();
    let lost = sum.percent_lost().map_or_else(String::new, |percent| format!(" ({percent} % of calls)"));
    let tier = if tier.is_empty() { "-" } else { tier };
    let cells = [
        machine.to_string(),
        agent.to_string(),
        tier.to_owned(),
        sum.all.choices.to_string(),
        of(Came::Answered),
        of(Came::SentBack),
        of(Came::NotGoodEnough),
        of(Came::Failed),
        sum.escalated.to_string(),
        dollars(sum.all.cost_micros),
        format!("{}{lost}", dollars(sum.lost)),
    ];
    cells.into_iter().map(|cell| printable(&cell)).collect()
}
