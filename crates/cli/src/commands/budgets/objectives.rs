//! `windlass budgets objectives`: what runs are to cost at most, and what they did cost. Refuses to tell a share of few.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Store};
use windlass_server::CostBound;

use crate::app::App;
use crate::args::BudgetsObjectives;
use crate::config::Objective;
use crate::exit::{Exit, Problem};

/// Runs below which no share and no percentile of them is told.
const RUNS_MIN: usize = 20;
/// Days below which no share of them is told.
const DAYS_MIN: usize = 7;
/// Runs in a hundred that may cost more than the bound of a 95th percentile.
const ALLOWED_PERCENT: u64 = 5;
/// Runs looked at for one objective, newest first.
const RUNS_MAX: usize = 100_000;
const PAGE: usize = 500;
const DAY_MS: u64 = 86_400_000;

/// Compares what runs cost with every configured objective.
pub(crate) async fn objectives(app: &App, args: BudgetsObjectives) -> Result<Exit, Problem> {
    let since = Timestamp(app.now().0.saturating_sub(u64::from(args.days) * DAY_MS));
    let (store, mut told) = (app.store_to_read().await?, Vec::new());
    for (name, objective) in &app.loaded.config.objectives {
        let bound = objective.bound();
        let costs = match &store {
            Some(store) => costs(&**store, objective, matches!(bound, CostBound::P95(_)), since).await?,
            None => Vec::new(),
        };
        let mut line = match bound {
            CostBound::P95(most) => percentile(&costs, most),
            CostBound::Day(most) => days(&costs, most),
        };
        line["objective"] = json!(name);
        line["machine"] = json!(objective.machine);
        line["tenant"] = json!(objective.tenant);
        told.push(line);
    }
    let rows: Vec<Vec<String>> = told.iter().map(row).collect();
    let is_missed = told.iter().any(|line| line["state"] == "missed");
    let value = json!({ "days": args.days, "objectives": told });
    app.output.table(&value, &["objective", "bound", "was", "runs", "state", "budget used"], &rows);
    Ok(if is_missed { Exit::Failed } else { Exit::Ok })
}

/// When each run began, and what it cost with everything below it.
///
/// A day has cost what unfinished runs have cost so far too; what a run costs is known when it has ended.
async fn costs(
    store: &dyn Store,
    objective: &Objective,
    ended: bool,
    since: Timestamp,
) -> Result<Vec<(Timestamp, u64)>, Problem> {
    let mut query = Query {
        statuses: Status::ALL.into_iter().filter(|status| !ended || status.is_final()).collect(),
        machine: objective.machine.as_deref().map(Into::into),
        tenant: objective.tenant.as_deref().map(Into::into),
        // Of one machine all runs count, whoever started them; of a tenant what its runs cost with all below them.
        roots_only: objective.machine.is_none(),
        limit: PAGE,
        ..Query::default()
    };
    let mut found: Vec<(Timestamp, u64)> = Vec::new();
    loop {
        let page = store.list(query.clone()).await?;
        let is_late = |head: &&Head| head.created_at >= since;
        found.extend(page.heads.iter().filter(is_late).map(|head| (head.created_at, head.cost_micros)));
        let is_past = page.heads.last().is_some_and(|head| head.created_at < since);
        match page.next {
            Some(next) if !is_past && found.len() < RUNS_MAX => query.cursor = Some(next),
            Some(_) | None => return Ok(found),
        }
    }
}

/// The 95th percentile. `burn_percent` is 100 when exactly as many runs cost more as may.
fn percentile(costs: &[(Timestamp, u64)], most: u64) -> Json {
    let mut sorted: Vec<u64> = costs.iter().map(|(_, cost)| *cost).collect();
    sorted.sort_unstable();
    let (count, over) = (sorted.len(), sorted.iter().filter(|cost| **cost > most).count());
    let mut line = json!({ "kind": "p95_cost_micros", "bound_micros": most, "runs": count, "runs_over": over });
    if count < RUNS_MIN {
        line["state"] = json!("too_few");
        return line;
    }
    let was = sorted[(count * 95).div_ceil(100).saturating_sub(1)];
    line["was_micros"] = json!(was);
    line["burn_percent"] = json!(over as u64 * 10_000 / (ALLOWED_PERCENT * count as u64));
    line["state"] = json!(if was <= most { "met" } else { "missed" });
    line
}

/// What the dearest day cost. Days in UTC, by when runs began.
fn days(costs: &[(Timestamp, u64)], most: u64) -> Json {
    let mut days: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, cost) in costs {
        let day = days.entry(at.0 / DAY_MS).or_default();
        *day = day.saturating_add(*cost);
    }
    let (dearest, over) = (days.values().max().copied(), days.values().filter(|cost| **cost > most).count());
    let mut line = json!({
        "kind": "day_cost_micros", "bound_micros": most, "runs": costs.len(), "days": days.len(), "days_over": over,
    });
    line["was_micros"] = json!(dearest);
    line["state"] = json!(match dearest {
        None => "too_few",
        Some(_) if over > 0 => "missed",
        Some(_) => "met",
    });
    if days.len() >= DAYS_MIN {
        line["days_over_percent"] = json!(over * 100 / days.len());
    }
    line
}

fn row(line: &Json) -> Vec<String> {
    let word = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
    let money = |key: &str| line[key].as_u64().map_or_else(|| "-".to_owned(), crate::story::dollars);
    let burn = line["burn_percent"].as_u64().map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
    let count = line["runs"].as_u64().unwrap_or(0).to_string();
    vec![word("objective"), money("bound_micros"), money("was_micros"), count, word("state"), burn]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(count: u64, cost: impl Fn(u64) -> u64) -> Vec<(Timestamp, u64)> {
        (0..count).map(|n| (Timestamp(n * DAY_MS / 10), cost(n))).collect()
    }

    #[test]
    fn a_percentile_is_told_of_enough_runs_only() {
        let few = percentile(&runs(19, |_| 5), 1);
        assert_eq!(
            (&few["state"], &few["was_micros"], &few["burn_percent"]),
            (&json!("too_few"), &Json::Null, &Json::Null)
        );
        let met = percentile(&runs(100, |n| if n < 5 { 900 } else { 10 }), 10);
        assert_eq!((&met["state"], &met["was_micros"], &met["burn_percent"]), (&json!("met"), &json!(10), &json!(100)));
        let missed = percentile(&runs(100, |n| if n < 10 { 900 } else { 10 }), 10);
        assert_eq!(
            (&missed["state"], &missed["was_micros"], &missed["burn_percent"]),
            (&json!("missed"), &json!(900), &json!(200))
        );
    }

    #[test]
    fn a_day_over_its_bound_is_told() {
        assert_eq!(days(&[], 5)["state"], "too_few");
        let met = days(&runs(20, |_| 10), 100);
        assert_eq!((&met["state"], &met["days"], &met["was_micros"]), (&json!("met"), &json!(2), &json!(100)));
        assert_eq!(met["days_over_percent"], Json::Null, "two days are too few for a share");
        let missed = days(&runs(100, |n| if n < 10 { 11 } else { 10 }), 100);
        assert_eq!(
            (&missed["state"], &missed["days_over"], &missed["days_over_percent"]),
            (&json!("missed"), &json!(1), &json!(10))
        );
    }
}
