//! `windlass budgets`: what many runs may use together, and letting those go on that wait for more.

mod objectives;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use windlass_core::budget::Meter;
use windlass_core::effect::WaitKind;
use windlass_core::escrow::{Beyond, Budget, Period, Refusal, channel};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::escrow::{self, BudgetRow};
use windlass_ports::store::{Query, Signal, Store};

use crate::app::App;
use crate::args::{BudgetsRaise, BudgetsRemove, BudgetsScope, BudgetsSet, Caps, Every, Then};
use crate::exit::{Exit, Problem};
use crate::output::{Form, table, time};

pub(crate) use objectives::objectives;

/// How often a change is tried again when somebody else was quicker.
const TRIES_MAX: u32 = 10;
/// Runs looked at together for those that wait.
const PAGE: usize = 500;

impl Caps {
    fn named(self) -> BTreeMap<Meter, u64> {
        let all = [
            (Meter::ModelCalls, self.model_calls),
            (Meter::ToolCalls, self.tool_calls),
            (Meter::Tokens, self.tokens),
            (Meter::CostMicros, self.cost_micros),
        ];
        all.into_iter().filter_map(|(meter, cap)| Some((meter, cap?))).collect()
    }
}

/// Lists budgets.
pub(crate) async fn list(app: &App) -> Result<Exit, Problem> {
    let rows = match app.store_to_list().await? {
        Some(store) => escrow::budgets(&*store, app.now()).await?,
        None => Vec::new(),
    };
    let value = json!({ "budgets": rows.iter().map(|row| described(row, app.now())).collect::<Vec<_>>() });
    let lines: Vec<Vec<String>> = rows.iter().flat_map(lines).collect();
    app.output.table(&value, &["scope", "meter", "cap", "used", "held", "left", "period", "beyond"], &lines);
    Ok(Exit::Ok)
}

/// Shows one budget.
pub(crate) async fn show(app: &App, args: BudgetsScope) -> Result<Exit, Problem> {
    let store = app.store_to_read().await?.ok_or_else(|| unknown(&args.scope))?;
    let row = find(&*store, &args.scope, app.now()).await?;
    if app.output.form() == Form::Json {
        app.output.document(&described(&row, app.now()));
        return Ok(Exit::Ok);
    }
    app.output.text(&table(&["scope", "meter", "cap", "used", "held", "left", "period", "beyond"], &lines(&row)));
    if let Some(until) = row.known.budget.period.end(app.now()) {
        app.output.note(&format!("the next period begins at {}", time(until)));
    }
    Ok(Exit::Ok)
}

/// Makes or replaces a budget.
pub(crate) async fn set(app: &App, args: BudgetsSet) -> Result<Exit, Problem> {
    let scope: Name = args.scope.as_str().into();
    let budget = Budget {
        caps: args.caps.named(),
        period: match args.period {
            Every::None => Period::None,
            Every::Day => Period::Day,
            Every::Month => Period::Month,
        },
        near_percent: args.near,
        beyond: match args.beyond {
            Then::Fail => Beyond::Fail,
            Then::Ask => Beyond::Ask,
        },
    };
    budget.check(&scope).map_err(|error| Problem::invalid(error.to_string()))?;
    let store = app.store().await?;
    let row = change(&*store, &scope, app.now(), |_| Ok(Some(budget.clone()))).await?;
    wake(&*store, &scope, app.now(), row.as_ref().map_or(0, |row| row.known.revision), None).await?;
    said(app, &scope, row, "is set")
}

/// Raises caps of a budget.
pub(crate) async fn raise(app: &App, args: BudgetsRaise) -> Result<Exit, Problem> {
    let store = app.store_to_change().await?.ok_or_else(|| unknown(&args.scope))?;
    let scope: Name = args.scope.as_str().into();
    let row = raise_by(&*store, &scope, &args.more.named(), app.now()).await?;
    wake(&*store, &scope, app.now(), row.known.revision, None).await?;
    said(app, &scope, Some(row), "is raised")
}

/// Removes a budget.
pub(crate) async fn remove(app: &App, args: BudgetsRemove) -> Result<Exit, Problem> {
    let store = app.store_to_change().await?.ok_or_else(|| unknown(&args.scope))?;
    let scope: Name = args.scope.as_str().into();
    let before = find(&*store, &scope, app.now()).await?;
    change(&*store, &scope, app.now(), |row| row.map(|_| None).ok_or_else(|| unknown(&scope))).await?;
    wake(&*store, &scope, app.now(), before.known.revision + 1, None).await?;
    app.output.sentence(&json!({ "scope": &*scope, "removed": true }), &format!("{scope} is removed"));
    Ok(Exit::Ok)
}

/// Adds to caps.
pub(crate) async fn raise_by(
    store: &dyn Store,
    scope: &Name,
    more: &BTreeMap<Meter, u64>,
    now: Timestamp,
) -> Result<BudgetRow, Problem> {
    let raised = |row: Option<&BudgetRow>| {
        let mut budget = row.ok_or_else(|| unknown(scope))?.known.budget.clone();
        for (meter, more) in more {
            let Some(cap) = budget.caps.get_mut(meter) else {
                let text = format!("the budget of `{scope}` has no cap for `{}` to raise", meter.as_str());
                return Err(Problem::rejected(text).hint(format!("windlass budgets show {scope}")));
            };
            *cap = cap.saturating_add(*more);
        }
        Ok(Some(budget))
    };
    change(store, scope, now, raised).await?.ok_or_else(|| unknown(scope))
}

/// What a budget lacks for the call that was refused. A cap that was lowered below what is used already has to rise above
/// that first.
pub(crate) fn lacking(row: &BudgetRow, refusal: &Refusal) -> u64 {
    let Some(cap) = row.known.budget.caps.get(&refusal.meter) else { return 0 };
    let taken = row.account.spent.get(refusal.meter).saturating_add(row.account.drawn.get(refusal.meter));
    taken.saturating_add(refusal.wanted).saturating_sub(*cap)
}

/// Raises a cap until the call that was refused fits, once however many raise it for that call at the same time.
pub(crate) async fn raise_to(store: &dyn Store, refusal: &Refusal, now: Timestamp) -> Result<BudgetRow, Problem> {
    let raised = |row: Option<&BudgetRow>| {
        let row = row.ok_or_else(|| unknown(&refusal.scope))?;
        let mut budget = row.known.budget.clone();
        if let Some(cap) = budget.caps.get_mut(&refusal.meter) {
            *cap = cap.saturating_add(lacking(row, refusal));
        }
        Ok(Some(budget))
    };
    change(store, &refusal.scope, now, raised).await?.ok_or_else(|| unknown(&refusal.scope))
}

/// Changes a budget by what it is now, again when somebody else changed it meanwhile. Gives back what it is then.
async fn change(
    store: &dyn Store,
    scope: &Name,
    now: Timestamp,
    new: impl Fn(Option<&BudgetRow>) -> Result<Option<Budget>, Problem>,
) -> Result<Option<BudgetRow>, Problem> {
    for _ in 0..TRIES_MAX {
        let row = escrow::budget(store, scope, now).await?;
        let budget = new(row.as_ref())?;
        let expected = row.map_or(0, |row| row.known.revision);
        if escrow::put_budget(store, scope, expected, budget.as_ref()).await? {
            return Ok(escrow::budget(store, scope, now).await?);
        }
    }
    Err(Problem::rejected(format!("the budget of `{scope}` was changed by others again and again; try once more")))
}

/// Tells runs that wait for a budget that they may have more: all of them, or one.
pub(crate) async fn wake(
    store: &dyn Store,
    scope: &Name,
    now: Timestamp,
    revision: u64,
    only: Option<&RunId>,
) -> Result<(), Problem> {
    let mut query = Query { statuses: vec![Status::Attention, Status::Paused], limit: PAGE, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        for head in &page.heads {
            for (run, wait) in store.waits(head.id.clone(), false).await? {
                let WaitKind::Budget { refusal, .. } = &wait.kind else { continue };
                if refusal.scope == *scope && only.is_none_or(|only| *only == run) {
                    let id = format!("budget:{scope}:{revision}:{}", wait.effect.key(&run)).into();
                    let (channel, data) = (channel(scope), Value::Null);
                    store.signal(Signal { id, channel, run: Some(run), data, at: now }).await?;
                }
            }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(()),
        }
    }
}

async fn find(store: &dyn Store, scope: &str, now: Timestamp) -> Result<BudgetRow, Problem> {
    escrow::budget(store, &scope.into(), now).await?.ok_or_else(|| unknown(scope))
}

fn unknown(scope: &str) -> Problem {
    Problem::not_found(format!("there is no budget of `{scope}`")).hint("windlass budgets list")
}

fn said(app: &App, scope: &Name, row: Option<BudgetRow>, what: &str) -> Result<Exit, Problem> {
    let row = row.ok_or_else(|| unknown(scope))?;
    app.output.sentence(&described(&row, app.now()), &format!("{scope} {what}; it binds runs within two seconds"));
    Ok(Exit::Ok)
}

fn lines(row: &BudgetRow) -> Vec<Vec<String>> {
    let (budget, account) = (&row.known.budget, &row.account);
    let line = |(meter, cap): (&Meter, &u64)| {
        vec![
            row.scope.to_string(),
            meter.as_str().to_owned(),
            cap.to_string(),
            account.spent.get(*meter).to_string(),
            account.drawn.get(*meter).to_string(),
            account.left(*meter, *cap).to_string(),
            budget.period.as_str().to_owned(),
            budget.beyond.as_str().to_owned(),
        ]
    };
    budget.caps.iter().map(line).collect()
}

fn described(row: &BudgetRow, now: Timestamp) -> Json {
    let (budget, account) = (&row.known.budget, &row.account);
    let numbers = |of: &dyn Fn(Meter, u64) -> u64| -> Map<String, Json> {
        budget.caps.iter().map(|(meter, cap)| (meter.as_str().to_owned(), json!(of(*meter, *cap)))).collect()
    };
    json!({
        "scope": &*row.scope,
        "caps": numbers(&|_, cap| cap),
        "used": numbers(&|meter, _| account.spent.get(meter)),
        "held": numbers(&|meter, _| account.drawn.get(meter)),
        "left": numbers(&|meter, cap| account.left(meter, cap)),
        "overrun": numbers(&|meter, _| account.overrun.get(meter)),
        "period": budget.period.as_str(),
        "period_ends_at": budget.period.end(now).map(time),
        "near_percent": budget.near_percent,
        "is_near": row.known.is_near,
        "beyond": budget.beyond.as_str(),
        "revision": row.known.revision,
    })
}
