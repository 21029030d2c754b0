//! `windlass policy candidate`, and what `windlass policy why` says of a rule set that is tried beside the one in force.

use serde_json::{Value as Json, json};
use windlass_core::ids::{Name, RunId};
use windlass_core::policy::{Choice, Sticky, Verdict};
use windlass_core::run::TenantScope;
use windlass_policy::trial::{self, Trial};
use windlass_policy::{Asked, CandidateConfig, PLACES, RuleSet, Scores, Subject, place};

use super::{Decided, Newest, Recorded, load, word};
use crate::app::App;
use crate::args::{PolicyCandidate, PolicyDifferences};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};
use crate::story::counted;

/// Shows, withdraws or resumes a candidate, or lists what it answered differently.
pub(crate) async fn candidate(app: &App, command: PolicyCandidate) -> Result<Exit, Problem> {
    match command {
        PolicyCandidate::Status => status(app).await,
        PolicyCandidate::Differences(args) => differences(app, args).await,
        PolicyCandidate::Withdraw(args) => {
            let version = version(app, args.version.as_deref())?;
            let by = said(&args.by, &args.reason)?;
            let store = app.store().await?;
            let trial = trial::withdraw(&*store, &version, by, args.reason, app.now()).await?;
            changed(app, &version, &trial, "is withdrawn: the set in force judges everything")
        }
        PolicyCandidate::Resume(args) => {
            let version = version(app, args.version.as_deref())?;
            said(&args.by, &args.reason)?;
            let store = app.store().await?;
            let trial = trial::resume(&*store, &version).await?;
            changed(app, &version, &trial, "is tried again")
        }
    }
}

/// Who did it, when that and why are said.
fn said(by: &str, reason: &str) -> Result<Name, Problem> {
    for (flag, text) in [("--by NAME", by), ("--reason TEXT", reason)] {
        if text.trim().is_empty() {
            return Err(Problem::invalid(format!("somebody does this, and for a reason: `{flag}`")));
        }
    }
    Ok(by.into())
}

fn configured(app: &App) -> Result<&CandidateConfig, Problem> {
    app.loaded.config.policy.candidate.as_ref().ok_or_else(|| {
        Problem::invalid("no candidate is configured").hint("name its folder as `path` under `[policy.candidate]`")
    })
}

fn set(app: &App, config: &CandidateConfig) -> Result<RuleSet, Problem> {
    load(&app.loaded.folder.join(&config.path))
}

/// The version that was named, else that of the configured candidate.
fn version(app: &App, named: Option<&str>) -> Result<Name, Problem> {
    match named {
        Some(text) if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(text.into()),
        Some(text) => Err(Problem::invalid(format!("`{text}` is no version of a rule set: it has 12 digits"))
            .hint("`windlass policy candidate status` shows that of the candidate")),
        None => Ok(set(app, configured(app)?)?.version()),
    }
}

fn changed(app: &App, version: &Name, trial: &Trial, what: &str) -> Result<Exit, Problem> {
    let document = json!({ "candidate": version, "counts": trial.counts, "withdrawn": withdrawn(trial) });
    app.output.sentence(&document, &printable(&format!("the candidate {version} {what}")));
    Ok(Exit::Ok)
}

fn withdrawn(trial: &Trial) -> Json {
    trial.withdrawn.as_ref().map_or(Json::Null, |withdrawn| {
        json!({
            "at": time(withdrawn.at), "by": withdrawn.by, "reason": withdrawn.reason,
            "by_itself": withdrawn.by_itself,
        })
    })
}

async fn status(app: &App) -> Result<Exit, Problem> {
    let config = configured(app)?;
    let set = set(app, config)?;
    let in_force =
        app.loaded.config.policy.path.as_ref().map(|path| load(&app.loaded.folder.join(path))).transpose()?;
    let in_force = in_force.map(|set| set.version());
    let version = set.version();
    let trial = match app.store_to_read().await? {
        Some(store) => trial::read(&*store, &version).await?,
        None => Trial::default(),
    };
    let is_same = in_force.as_ref() == Some(&version);
    let document = json!({
        "candidate": version, "path": set.folder(), "in_force": in_force, "is_in_force": is_same,
        "mode": config.mode, "percent": config.percent, "sticky": config.sticky, "differ_max": config.differ_max,
        "decisions_min": config.decisions_min, "counts": trial.counts, "withdrawn": withdrawn(&trial),
    });
    let counts = &trial.counts;
    let mut lines = vec![
        format!(
            "candidate {version} beside {}: {} for {} % by {}",
            in_force.as_deref().unwrap_or("none"),
            config.mode.as_str(),
            config.percent,
            config.sticky.as_str()
        ),
        format!(
            "asked together {}: {} differ, the candidate denied {}, the set in force {}",
            counted(counts.decisions, "question"),
            counts.differ,
            counts.denied,
            counts.denied_in_force
        ),
    ];
    if is_same {
        lines.push("it is the set in force: there is nothing to try".into());
    }
    if let Some(withdrawn) = &trial.withdrawn {
        lines.push(format!("withdrawn {} by {}: {}", time(withdrawn.at), withdrawn.by, withdrawn.reason));
    }
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    app.output.sentence(&document, &lines.join("\n"));
    Ok(Exit::Ok)
}

async fn differences(app: &App, args: PolicyDifferences) -> Result<Exit, Problem> {
    let (mut runs, mut found) = (0_u64, Vec::new());
    if let Some(store) = app.store_to_read().await? {
        let mut newest = Newest::new(Recorded::new(store, false), args.last, args.machine.as_deref());
        while let Some((run, decisions)) = newest.next().await? {
            runs += 1;
            found.extend(decisions.iter().filter_map(|decided| difference(&run, decided, &args)));
        }
    }
    let mut lines: Vec<String> = found.iter().map(|(_, line)| printable(line)).collect();
    lines.push(format!("{} in {}", counted(found.len() as u64, "difference"), counted(runs, "run")));
    let rows: Vec<Json> = found.into_iter().map(|(row, _)| row).collect();
    app.output.sentence(&json!({ "runs": runs, "differences": rows }), &lines.join("\n"));
    Ok(Exit::Ok)
}

/// A decision that the two sets answered differently.
fn difference(run: &RunId, decided: &Decided, args: &PolicyDifferences) -> Option<(Json, String)> {
    let Decided { verdict, asked, step, version, .. } = decided;
    let (in_force, candidate) = verdict.sides()?;
    let is_wanted = args.candidate.as_deref().is_none_or(|wanted| &**candidate.version == wanted);
    if in_force.answer == candidate.answer || !is_wanted {
        return None;
    }
    let side = |side: windlass_core::policy::Side<'_>| json!({ "answer": side.answer, "rule": side.rule, "version": side.version });
    let row = json!({
        "run_id": run.as_str(), "step": step, "version": version, "question": verdict.question,
        "action": asked.action(), "on": asked.target(), "judge": judge(verdict),
        "in_force": side(in_force), "candidate": side(candidate),
    });
    let line = format!(
        "{run} step {step} · {} {}: {} by `{}` in force ({}), {} by `{}` of the candidate ({}); {} judged",
        asked.action(),
        asked.target(),
        word(in_force.answer),
        in_force.rule,
        in_force.version,
        word(candidate.answer),
        candidate.rule,
        candidate.version,
        judge(verdict),
    );
    Some((row, line))
}

/// Which set judged.
fn judge(verdict: &Verdict) -> &'static str {
    let is_candidates = verdict.choice.as_ref().is_some_and(|choice| choice.is_candidates());
    if is_candidates { "candidate" } else { "in_force" }
}

/// Where something is among all, in percent.
fn percent(place: u32) -> String {
    let hundredth = PLACES / 100;
    format!("{}.{:02}", place / hundredth, place % hundredth)
}

/// Which set judged a recorded question, why that one, and what the other says.
pub(super) fn chosen(decided: &Decided, choice: &Choice) -> (Json, String) {
    let verdict = &decided.verdict;
    let place = place(choice.sticky, &choice.candidate, &decided.root, &decided.scope);
    let whose = match choice.sticky {
        Sticky::Run => format!("the run `{}`", decided.root),
        Sticky::User => format!("the user `{}`", decided.scope.user.as_deref().unwrap_or_default()),
        Sticky::Tenant => format!("the tenant `{}`", decided.scope.tenant),
    };
    let within = if choice.chosen { "in" } else { "not in" };
    let mut line = format!(
        "\n    judged by {}: {whose} is {within} the share of {} % of the candidate {} ({}), at {} of 100",
        if choice.is_candidates() { "the candidate" } else { "the set in force" },
        choice.percent,
        choice.candidate,
        choice.mode.as_str(),
        percent(place),
    );
    if let Some(other) = &verdict.other {
        let set = if choice.is_candidates() { "the set in force" } else { "the candidate" };
        line.push_str(&format!("\n    {set} says {} by `{}` ({})", word(other.answer), other.rule, other.version));
    }
    let document = json!({
        "version": choice.candidate, "mode": choice.mode, "sticky": choice.sticky, "percent": choice.percent,
        "place": f64::from(place) / f64::from(PLACES / 100), "chosen": choice.chosen, "judge": judge(verdict),
        "other": verdict.other,
    });
    (document, line)
}

/// What the candidate would say beside the set in force, and to whom it would.
pub(super) async fn beside(
    app: &App,
    config: &CandidateConfig,
    (subject, asked, scores): (&Subject, &Asked, &Scores),
) -> Result<(Json, String), Problem> {
    let set = set(app, config)?;
    let version = set.version();
    let trial = match app.store_to_read().await? {
        Some(store) => trial::read(&*store, &version).await?,
        None => Trial::default(),
    };
    let explanation = set.explain(subject, asked, scores);
    let user = Some(subject.user.as_str()).filter(|user| !user.is_empty()).map(Name::from);
    let scope = TenantScope { tenant: subject.tenant.as_str().into(), user };
    // Which runs are in the share is said by their ids, and this is about none.
    let chosen = (config.sticky != Sticky::Run).then(|| {
        let at = place(config.sticky, &version, &RunId::stored(""), &scope);
        at < config.percent.saturating_mul(PLACES / 100)
    });
    let share = match chosen {
        Some(true) => format!("this {} is in its share", config.sticky.as_str()),
        Some(false) => format!("this {} is not in its share", config.sticky.as_str()),
        None => format!("{} % of runs are in its share", config.percent),
    };
    let state = if trial.withdrawn.is_some() { ", withdrawn" } else { "" };
    let line = format!(
        "\n  the candidate {version} ({}{state}) says {} by `{}`: {}; {share}",
        config.mode.as_str(),
        word(explanation.answer),
        explanation.rule,
        explanation.reason
    );
    let document = json!({
        "version": version, "mode": config.mode, "sticky": config.sticky, "percent": config.percent,
        "chosen": chosen, "withdrawn": withdrawn(&trial), "explanation": explanation,
    });
    Ok((document, line))
}
