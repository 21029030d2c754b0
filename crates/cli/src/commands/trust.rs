//! `windlass trust`: scores of versions of agents, for rules to look at.

use serde_json::{Value as Json, json};
use windlass::wire;
use windlass_policy::TrustBook;
use windlass_policy::evidence::{self, Computed, Incident, Reckoning, Severity, Term};
use windlass_policy::trust::{self, Change, SCORE_MAX, Score};

use crate::app::App;
use crate::args::{SeverityWord, Trust, TrustAuto, TrustExplain, TrustIncident, TrustSet, TrustShow};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};

/// Sets, lists or shows scores.
pub(crate) async fn perform(app: &App, command: Trust) -> Result<Exit, Problem> {
    match command {
        Trust::Set(args) => set(app, args).await,
        Trust::List => list(app).await,
        Trust::Show(args) => show(app, args).await,
        Trust::Explain(args) => explain(app, args).await,
        Trust::Incident(args) => incident(app, args).await,
        Trust::Compute => compute(app).await,
        Trust::Auto(args) => auto(app, args).await,
    }
}

/// Sets a score.
async fn set(app: &App, args: TrustSet) -> Result<Exit, Problem> {
    check(&args.agent)?;
    if args.score > SCORE_MAX {
        return Err(Problem::invalid(format!("a score is a number from 0 to {SCORE_MAX}, not {}", args.score)));
    }
    said(&args.by, &args.reason)?;
    let store = app.store().await?;
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    let score =
        trust::set(&*store, &args.agent, Change { score: args.score, by, reason, at: app.now(), computed: false })
            .await?;
    let sentence = format!("{} is trusted with {}", args.agent, args.score);
    app.output.sentence(&described(&args.agent, &score), &printable(&sentence));
    Ok(Exit::Ok)
}

/// Lists the scores in force.
async fn list(app: &App) -> Result<Exit, Problem> {
    let all = match app.store_to_list().await? {
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
        return Err(Problem::not_found(format!(
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

/// Somebody does it, and for a reason.
fn said(by: &str, reason: &str) -> Result<(), Problem> {
    for (flag, text) in [("--by NAME", by), ("--reason TEXT", reason)] {
        if text.trim().is_empty() {
            return Err(Problem::invalid(format!("a score is changed by somebody and for a reason: `{flag}`")));
        }
    }
    Ok(())
}

/// Shows what evidence gives which score.
async fn explain(app: &App, args: TrustExplain) -> Result<Exit, Problem> {
    check(&args.agent)?;
    let (mut score, mut known) = (Score::default(), evidence::Evidence::default());
    if let Some(store) = app.store_to_read().await? {
        score = trust::all(&*store).await?.remove(args.agent.as_str()).unwrap_or_default();
        known = evidence::read(&*store, &args.agent.as_str().into()).await?;
    }
    let config = &app.loaded.config.trust;
    let reckoning = evidence::reckon(&known, config, app.now());
    let last = score.last();
    let document = json!({
        "agent": args.agent, "trust": last.map(|last| last.score), "by": last.map(|last| &*last.by),
        "computed": last.is_some_and(|last| last.computed), "is_computing": config.computed,
        "evidence_min": config.evidence_min, "reckoning": reckoning,
        "incidents": known.incidents.iter().map(|one| {
            json!({"at": time(one.at), "severity": one.severity, "reason": &*one.reason, "by": &*one.by})
        }).collect::<Vec<_>>(),
    });
    let mut lines = vec![match last {
        Some(last) if last.computed => format!("{} is trusted with {}, by evidence", args.agent, last.score),
        Some(last) => format!("{} is trusted with {}, set by {}: {}", args.agent, last.score, last.by, last.reason),
        None => format!("{} has no score: it is trusted as the policy's files say", args.agent),
    }];
    lines.extend(told(&reckoning, config.evidence_min));
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    app.output.sentence(&document, &lines.join("\n"));
    Ok(Exit::Ok)
}

fn told(reckoning: &Reckoning, least: u64) -> Vec<String> {
    let number = |term: &Term| {
        let (whole, rest) = (term.decayed_hundredths / 100, term.decayed_hundredths % 100);
        format!("{}, of which {whole}.{rest:02} count", term.count)
    };
    let mut lines = vec![match reckoning.score {
        Some(score) => format!("evidence gives {score}: {}", reckoning.cause()),
        None => format!("evidence gives no score: {} of at least {least} test cases and calls", reckoning.evidence),
    }];
    lines.extend(reckoning.tests.iter().map(|term| format!("  {}: {}", term.what, number(term))));
    let costs = reckoning.runs.iter().chain(&reckoning.incidents).filter(|term| term.count > 0);
    lines.extend(costs.map(|term| format!("  {}: {}: -{}", term.what, number(term), term.points)));
    lines
}

/// Reports an incident.
async fn incident(app: &App, args: TrustIncident) -> Result<Exit, Problem> {
    check(&args.agent)?;
    said(&args.by, &args.reason)?;
    let store = app.store().await?;
    let severity = match args.severity {
        SeverityWord::Minor => Severity::Minor,
        SeverityWord::Major => Severity::Major,
        SeverityWord::Critical => Severity::Critical,
    };
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    evidence::report(&*store, &args.agent.as_str().into(), &Incident { at: app.now(), severity, reason, by }).await?;
    let changed = match app.loaded.config.trust.computed {
        true => wire::settle_trust(&TrustBook::default(), &*store, &app.loaded.config.trust, true).await?,
        false => Vec::new(),
    };
    let document = json!({"agent": args.agent, "severity": severity, "changed": changes(&changed)});
    let mut lines = vec![printable(&format!("an incident of {} is reported", args.agent))];
    lines.extend(changed.iter().map(line));
    app.output.sentence(&document, &lines.join("\n"));
    Ok(Exit::Ok)
}

/// Sets all scores by evidence.
async fn compute(app: &App) -> Result<Exit, Problem> {
    let store = app.store().await?;
    let changed = wire::settle_trust(&TrustBook::default(), &*store, &app.loaded.config.trust, true).await?;
    let mut lines: Vec<String> = changed.iter().map(line).collect();
    if lines.is_empty() {
        lines.push("every score is what its evidence gives, or was set by a person".into());
    }
    app.output.sentence(&json!({"changed": changes(&changed)}), &lines.join("\n"));
    Ok(Exit::Ok)
}

fn changes(changed: &[Computed]) -> Vec<Json> {
    let one =
        |one: &Computed| json!({"agent": &*one.agent, "before": one.before, "after": one.after, "cause": one.cause});
    changed.iter().map(one).collect()
}

fn line(one: &Computed) -> String {
    let before = one.before.map_or_else(|| "no score".to_owned(), |before| before.to_string());
    printable(&format!("{}: {} instead of {before}: {}", one.agent, one.after, one.cause))
}

/// Lets evidence say a score again.
async fn auto(app: &App, args: TrustAuto) -> Result<Exit, Problem> {
    check(&args.agent)?;
    said(&args.by, &args.reason)?;
    let store = app.store().await?;
    let known = evidence::read(&*store, &args.agent.as_str().into()).await?;
    let score = evidence::reckon(&known, &app.loaded.config.trust, app.now()).score.unwrap_or_default();
    let (by, reason) = (args.by.as_str().into(), args.reason.as_str().into());
    let set = trust::set(&*store, &args.agent, Change { score, by, reason, at: app.now(), computed: true }).await?;
    let sentence = format!("{} is trusted with {score}, as evidence says", args.agent);
    app.output.sentence(&described(&args.agent, &set), &printable(&sentence));
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
        .map(|one| {
            let (by, reason, at) = (&*one.by, &*one.reason, time(one.at));
            json!({"trust": one.score, "by": by, "reason": reason, "at": at, "computed": one.computed})
        })
        .collect();
    json!({"agent": agent, "trust": score.last().map(|last| last.score), "changes": changes})
}
