//! `windlass trust`: scores of versions of agents, for rules to look at.

use serde_json::{Value as Json, json};
use windlass_policy::trust::{self, Change, SCORE_MAX, Score};

use crate::app::App;
use crate::args::{Trust, TrustSet, TrustShow};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};

/// Sets, lists or shows scores.
pub(crate) async fn perform(app: &App, command: Trust) -> Result<Exit, Problem> {
    match command {
        Trust::Set(args) => set(app, args).await,
        Trust::List => list(app).await,
        Trust::Show(args) => show(app, args).await,
    }
}

/// Sets a score.
async fn set(app: &App, args: TrustSet) -> Result<Exit, Problem> {
    check(&args.agent)?;
    if args.score > SCORE_MAX {
        return Err(Problem::invalid(format!("a score is a number from 0 to {SCORE_MAX}, not {}", args.score)));
    }
    for (flag, text) in [("--by NAME", &args.by), ("--reason TEXT", &args.reason)] {
        if text.trim().is_empty() {
            return Err(Problem::invalid(format!("a score is set by somebody and for a reason: `{flag}`")));
        }
    }
    let store = app.store().await?;
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    let score = trust::set(&*store, &args.agent, Change { score: args.score, by, reason, at: app.now() }).await?;
    let sentence = format!("{} is trusted with {}", args.agent, args.score);
    app.output.sentence(&described(&args.agent, &score), &printable(&sentence));
    Ok(Exit::Ok)
}

/// Lists the scores in force.
async fn list(app: &App) -> Result<Exit, Problem> {
    let all = match app.store_to_read().await? {
        Some(store) => trust::all(&*store).await?,
        None => std::collections::BTreeMap::new(),
    };
    let value = json!({ "scores": all.iter().map(|(agent, score)| described(agent, score)).collect::<Vec<_>>() });
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter_map(|(agent, score)| {
            let last = score.last()?;
            let (by, reason) = (printable(&last.by), printable(&last.reason));
            Some(vec![printable(agent), last.score.to_string(), time(last.at), by, reason])
        })
        .collect();
    app.output.table(&value, &["agent", "trust", "since", "by", "reason"], &rows);
    Ok(Exit::Ok)
}

/// Shows one score with its changes.
async fn show(app: &App, args: TrustShow) -> Result<Exit, Problem> {
    check(&args.agent)?;
    let all = match app.store_to_read().await? {
        Some(store) => trust::all(&*store).await?,
        None => std::collections::BTreeMap::new(),
    };
    let Some(score) = all.get(args.agent.as_str()) else {
        return Err(Problem::rejected(format!(
            "`{}` has no score: it is trusted as the policy's files say",
            args.agent
        ))
        .hint("windlass trust list"));
    };
    let rows: Vec<Vec<String>> = score
        .changes
        .iter()
        .map(|change| vec![change.score.to_string(), time(change.at), printable(&change.by), printable(&change.reason)])
        .collect();
    app.output.table(&described(&args.agent, score), &["trust", "since", "by", "reason"], &rows);
    Ok(Exit::Ok)
}

fn check(agent: &str) -> Result<(), Problem> {
    if trust::is_version(agent) {
        return Ok(());
    }
    Err(Problem::invalid(format!("`{agent}` is no version of an agent: it looks like `clerk@0123456789ab`"))
        .hint("`windlass policy why RUN` shows the versions of the agents of a run"))
}

fn described(agent: &str, score: &Score) -> Json {
    let changes: Vec<Json> = score
        .changes
        .iter()
        .map(|one| json!({"trust": one.score, "by": &*one.by, "reason": &*one.reason, "at": time(one.at)}))
        .collect();
    json!({"agent": agent, "trust": score.last().map(|last| last.score), "changes": changes})
}
