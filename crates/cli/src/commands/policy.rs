//! `windlass policy`: checks rules, says why something is or was answered, and tries other rules on what was recorded.

mod candidate;
mod recorded;

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::hidden::Veil;
use windlass_core::label::{Label, Mark};
use windlass_core::policy::{Answer, Question};
use windlass_core::value::Value;
use windlass_policy::{
    Arguments, Asked, Compared, Explanation, Finding, RuleSet, SCHEMA, STARTER, Scores, Severity, Subject, compare,
};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::input;
use crate::session;
use crate::story::counted;
pub(crate) use candidate::candidate;
use recorded::{Decided, Newest, Recorded};

/// Prints the schema.
pub(crate) fn schema(app: &App, _: &args::PolicySchema) -> Exit {
    print(app, "schema", SCHEMA)
}

/// Prints rules to begin with.
pub(crate) fn starter(app: &App, _: &args::PolicyStarter) -> Exit {
    print(app, "rules", STARTER)
}

/// Prints a text, which people write to a file; in a document under this key only where one is asked for.
fn print(app: &App, key: &str, text: &str) -> Exit {
    if app.global.json {
        app.output.document(&json!({ key: text }));
    } else {
        app.output.text(text.trim_end());
    }
    Exit::Ok
}

/// The arguments of a call, which are a mapping.
fn mapping(text: &str) -> Result<Value, Problem> {
    let value = input::value("--arguments", Some(text))?;
    match value.as_map() {
        Some(_) => Ok(value),
        None => {
            Err(Problem::invalid("`--arguments` is not an object")
                .hint("for example `--arguments '{\"amount\": 100}'`"))
        }
    }
}

/// Checks a rule set.
pub(crate) fn check(app: &App, args: &args::PolicyCheck) -> Result<Exit, Problem> {
    let tools = contracts(app);
    let (mut document, mut lines, mut exit) = checked(&folder(app, args.path.as_deref())?, &tools);
    // Both are used together.
    if let Some(config) = app.loaded.config.policy.candidate.as_ref().filter(|_| args.path.is_none()) {
        let (candidate, said, came) = checked(&app.loaded.folder.join(&config.path), &tools);
        document["candidate"] = candidate;
        lines.extend(said.into_iter().map(|line| format!("candidate: {line}")));
        exit = if exit == Exit::Ok { came } else { exit };
    }
    app.output.sentence(&document, &lines.join("\n"));
    Ok(exit)
}

/// The tools and actions of the configuration, whose arguments rules may look at.
fn contracts(app: &App) -> Vec<Contract> {
    match (Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) }).catalog() {
        Ok(catalog) => windlass::wire::contracts(&catalog),
        Err(error) => {
            app.output.note(&format!("rules are not compared with tools, for the configuration is not valid: {error}"));
            Vec::new()
        }
    }
}

/// What is to be said of a rule set, as a document and in lines, and how a command about it ends.
fn checked(folder: &Path, tools: &[Contract]) -> (Json, Vec<String>, Exit) {
    let (document, findings, exit) = match RuleSet::load(folder) {
        Ok(set) => {
            let (rules, entities) = set.counts();
            let warnings = [set.warnings(), &set.clashes(tools)].concat();
            let document = json!({
                "ok": true, "path": folder, "version": set.version(), "rules": rules, "entities": entities,
                "findings": warnings,
            });
            (document, warnings, Exit::Ok)
        }
        Err(findings) => (json!({ "ok": false, "path": folder, "findings": findings.0 }), findings.0, Exit::Invalid),
    };
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.push(summary(&document, &findings));
    (document, lines, exit)
}

fn summary(document: &Json, findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count() as u64;
    if errors > 0 {
        return format!("the rule set cannot be used: {}", counted(errors, "error"));
    }
    let number = |key: &str| document[key].as_u64().unwrap_or_default();
    let entities = if number("entities") == 1 { "1 entity".into() } else { format!("{} entities", number("entities")) };
    let version = document["version"].as_str().unwrap_or_default();
    format!("good: {} and {entities}, version {version}", counted(number("rules"), "rule"))
}

/// The folder that was named, or that of the configuration.
fn folder(app: &App, named: Option<&Path>) -> Result<PathBuf, Problem> {
    match (named, &app.loaded.config.policy.path) {
        (Some(path), _) => Ok(path.to_owned()),
        (None, Some(path)) => Ok(app.loaded.folder.join(path)),
        (None, None) => {
            Err(Problem::invalid("no rule set is configured").hint("name its folder, or set `[policy] path`"))
        }
    }
}

fn load(folder: &Path) -> Result<RuleSet, Problem> {
    RuleSet::load(folder).map_err(|findings| {
        Problem::invalid(format!("the rule set cannot be used: {findings}"))
            .hint("`windlass policy check` shows it all")
    })
}

/// Explains a question or the questions of a run.
pub(crate) async fn why(app: &App, args: args::PolicyWhy) -> Result<Exit, Problem> {
    match &args.run {
        Some(run) => why_run(app, run, args.step, args.policy.as_deref()).await,
        None => why_asked(app, &args).await,
    }
}

/// The scores that were set for versions of agents.
async fn scores(app: &App) -> Result<Scores, Problem> {
    let Some(store) = app.store_to_read().await? else { return Ok(Scores::default()) };
    let all = windlass_policy::trust::all(&*store).await?;
    Ok(all.into_iter().filter_map(|(agent, score)| Some((agent, score.last()?.score))).collect())
}

/// The score that a verdict was given with.
fn given_with(verdict: &windlass_core::policy::Verdict, asked: &Asked) -> Scores {
    verdict.trust.and_then(|score| Some((asked.agent_version()?, score))).into_iter().collect()
}

async fn why_asked(app: &App, args: &args::PolicyWhy) -> Result<Exit, Problem> {
    let set = load(&folder(app, args.policy.as_deref())?)?;
    let asker = &args.asker;
    let subject = Subject {
        tenant: asker.tenant.clone(),
        user: asker.user.clone(),
        machine: asker.machine.clone(),
        bundle: String::new(),
    };
    let asked = asked(app, args)?;
    let scores = scores(app).await?;
    let explanation = set.explain(&subject, &asked, &scores);
    let mut document = json!(explanation);
    let mut lines = told(&explanation, &asked);
    // A folder that was named is asked alone.
    if args.policy.is_none()
        && let Some(config) = &app.loaded.config.policy.candidate
    {
        let (beside, line) = candidate::beside(app, config, (&subject, &asked, &scores)).await?;
        document["candidate"] = beside;
        lines.push_str(&line);
    }
    app.output.sentence(&document, &lines);
    Ok(Exit::Ok)
}

fn asked(app: &App, args: &args::PolicyWhy) -> Result<Asked, Problem> {
    let asker = &args.asker;
    let of_tool = [("--arguments", asker.arguments.is_some()), ("--label", !asker.label.is_empty())];
    let of_tool = of_tool.into_iter().chain([("--class", asker.class.is_some())]);
    if let Some((flag, _)) = of_tool.into_iter().find(|(_, is_given)| *is_given && args.tool.is_none()) {
        return Err(Problem::invalid(format!("`{flag}` is about a call of a tool")).hint("name it with `--tool NAME`"));
    }
    let agent = asker.agent.as_deref().map(|text| {
        let (name, version) = text.split_once('@').unwrap_or((text, ""));
        (name.to_owned(), version.to_owned())
    });
    if let Some(tool) = &args.tool {
        return Ok(Asked::CallTool {
            tool: tool.clone(),
            contract: contract(app, tool, asker.class.as_deref())?,
            agent,
            labels: asker.label.iter().copied().map(Label::from).collect(),
            arguments: match asker.arguments.as_deref() {
                Some(text) => Arguments::given(&mapping(text)?),
                None => Arguments::default(),
            },
        });
    }
    if let Some(model) = &args.model {
        let agent = agent
            .ok_or_else(|| Problem::invalid("a model is called by an agent").hint("name it with `--agent NAME`"))?;
        let provider = asker.provider.clone().unwrap_or_default();
        return Ok(Asked::CallModel { model: model.clone(), provider, agent });
    }
    if let Some(machine) = &args.start {
        return Ok(Asked::StartMachine { machine: machine.clone() });
    }
    let transition = args.transition.as_deref().unwrap_or_default();
    let (from, to) = transition.split_once(':').ok_or_else(|| {
        Problem::invalid(format!("`{transition}` is no transition")).hint("write `--transition FROM:TO`")
    })?;
    Ok(Asked::TakeTransition { from: from.to_owned(), to: to.to_owned() })
}

/// What the configuration says about a tool or an action, else the class that was named.
fn contract(app: &App, tool: &str, class: Option<&str>) -> Result<Option<(Class, Idempotency)>, Problem> {
    let named = match class {
        None => None,
        Some("read") => Some(Class::Read),
        Some("write") => Some(Class::Write),
        Some("danger") => Some(Class::Danger),
        Some(other) => {
            return Err(Problem::invalid(format!("`{other}` is no class")).hint("`read`, `write` or `danger`"));
        }
    };
    let config = &app.loaded.config;
    let table = config.tools.get(tool).or_else(|| config.actions.get(tool));
    let configured =
        table.map(|table| (table.class.unwrap_or(Class::Write), table.idempotency.unwrap_or(Idempotency::None)));
    Ok(match (named, configured) {
        (Some(class), configured) => Some((class, configured.map_or(Idempotency::None, |(_, given)| given))),
        (None, configured) => configured,
    })
}

fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Allow => "allowed",
        Answer::Ask => "asks",
        Answer::Deny => "denied",
    }
}

/// An explanation for people.
fn told(explanation: &Explanation, asked: &Asked) -> String {
    let mut lines = vec![format!(
        "{} {}: {} by `{}`: {}",
        asked.action(),
        asked.target(),
        word(explanation.answer),
        explanation.rule,
        explanation.reason
    )];
    for applied in &explanation.applied {
        lines.push(format!("  {} `{}` at {}:{}", applied.effect, applied.rule, applied.file.display(), applied.line));
    }
    let attributes = &explanation.attributes;
    for (name, value) in
        [("principal", &attributes.principal), ("resource", &attributes.resource), ("context", &attributes.context)]
    {
        lines.push(format!("  {name} {value}"));
    }
    if let Some(agent) = &attributes.agent {
        lines.push(format!("  agent {agent}"));
    }
    lines.push(format!("  rule set {}", explanation.version));
    lines.join("\n")
}

async fn why_run(app: &App, run: &str, step: Option<u64>, named: Option<&Path>) -> Result<Exit, Problem> {
    let (store, head) = app.run(run).await?;
    // Only for the attributes: what was decided is in the journal.
    let tried = app.loaded.config.policy.candidate.as_ref().map(|config| app.loaded.folder.join(&config.path));
    let folders = folder(app, named).ok().into_iter().chain(tried);
    let sets: Vec<RuleSet> = folders.filter_map(|folder| RuleSet::load(&folder).ok()).collect();
    let mut recorded = Recorded::new(store, sets.iter().any(RuleSet::reads_arguments));
    let decisions = recorded.of(&head.id).await?;
    let veil = recorded.veil();
    let decisions = decisions.iter().filter(|decided| step.is_none_or(|step| decided.step == step));
    let rows: Vec<(Json, String)> =
        decisions.filter(|decided| decided.was_asked).map(|decided| row(decided, &sets, veil)).collect();
    let mut lines: Vec<String> = rows.iter().map(|(_, line)| line.clone()).collect();
    if let (true, Some(step)) = (lines.is_empty(), step) {
        lines.push(format!("nothing was asked at step {step}: without `--step` all of the run is shown"));
    } else if lines.is_empty() {
        lines.push("nothing was asked: no rules were configured where this run was driven, or none was needed".into());
    }
    let rows: Vec<Json> = rows.into_iter().map(|(row, _)| row).collect();
    app.output.sentence(&json!({ "run_id": head.id.as_str(), "decisions": rows }), &lines.join("\n"));
    Ok(Exit::Ok)
}

/// Where a label of the arguments came from.
fn origin(mark: &Mark) -> String {
    format!("\n    {} by {}", mark.label.as_str(), mark.from)
}

fn row(decided: &Decided, sets: &[RuleSet], veil: &Veil) -> (Json, String) {
    let Decided { verdict, asked, .. } = decided;
    let mut row = json!({
        "version": decided.version,
        "step": decided.step,
        "question": verdict.question,
        "answer": verdict.answer,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "rule_set": verdict.version,
        "trust": verdict.trust,
    });
    if !verdict.origins.is_empty() {
        row["origins"] = json!(verdict.origins);
    }
    let mut line = format!(
        "step {} · {} {}: {} by `{}`: {} (rule set {})",
        decided.step,
        asked.action(),
        asked.target(),
        word(verdict.answer),
        verdict.rule,
        verdict.reason,
        verdict.version
    );
    verdict.origins.iter().for_each(|mark| line.push_str(&origin(mark)));
    if let Some(choice) = &verdict.choice {
        let (beside, why) = candidate::chosen(decided, choice);
        row["candidate"] = beside;
        line.push_str(&why);
    }
    if let Some(set) = sets.iter().find(|set| set.version() == verdict.version) {
        let scores = given_with(verdict, asked);
        let explanation = set.explain(&Subject::of(&decided.scope, &decided.machine), asked, &scores);
        let attributes = &explanation.attributes;
        line.push_str(&format!("\n    principal {}\n    resource {}", attributes.principal, attributes.resource));
        if let Some(agent) = &attributes.agent {
            line.push_str(&format!("\n    agent {agent}"));
        }
        row["explanation"] = veil.document(&explanation);
        if let Some(given) =
            row["explanation"]["attributes"]["context"].get("args").filter(|given| **given != json!({}))
        {
            line.push_str(&format!("\n    args {given}"));
        }
    }
    (row, line)
}

/// Asks another rule set what was recorded.
pub(crate) async fn test(app: &App, args: args::PolicyTest) -> Result<Exit, Problem> {
    let candidate = load(&args.candidate)?;
    let store = app.store_to_read().await?;
    let (mut runs, mut decisions, mut unknown, mut changes) = (0_u64, 0_u64, 0_u64, Vec::new());
    if let Some(store) = store {
        let recorded = Recorded::new(store, candidate.reads_arguments());
        let mut newest = Newest::new(recorded, args.last, args.machine.as_deref());
        while let Some((run, of_run)) = newest.next().await? {
            runs += 1;
            for decided in of_run {
                decisions += 1;
                let subject = Subject::of(&decided.scope, &decided.machine);
                match compare(&candidate, &subject, &decided.asked, &decided.verdict) {
                    Compared::Same => {}
                    Compared::Unknown => unknown += 1,
                    Compared::Other(change) => changes.push((run.clone(), decided.step, change)),
                }
            }
        }
    }
    let rows: Vec<Json> = changes
        .iter()
        .map(|(run, step, change)| {
            let mut row = json!(change);
            row["run_id"] = json!(run.as_str());
            row["step"] = json!(step);
            row
        })
        .collect();
    let document = json!({
        "candidate": args.candidate, "version": candidate.version(), "runs": runs, "decisions": decisions,
        "unknown": unknown, "changes": rows,
    });
    let mut lines: Vec<String> = changes
        .iter()
        .map(|(run, step, change)| {
            format!(
                "{run} step {step} · {} {}: {} by `{}`, would be {} by `{}`: {}",
                change.action,
                change.on,
                word(change.was),
                change.was_by,
                word(change.would_be),
                change.would_be_by,
                change.reason
            )
        })
        .collect();
    let n = changes.len() as u64;
    lines.push(format!("{} of {} in {} would change", n, counted(decisions, "decision"), counted(runs, "run")));
    if unknown > 0 {
        let of = counted(unknown, "decision");
        lines.push(format!("{of} could not be compared: a rule looks at arguments that no journal has any more"));
    }
    app.output.sentence(&document, &lines.join("\n"));
    Ok(if n == 0 { Exit::Ok } else { Exit::Failed })
}

/// The question of something that was done without one.
fn unasked(question: Question) -> windlass_core::policy::Verdict {
    windlass_core::policy::Verdict {
        question,
        answer: Answer::Allow,
        rule: "no rules".into(),
        reason: "nobody was asked".into(),
        version: "none".into(),
        origins: Vec::new(),
        asking: None,
        trust: None,
        choice: None,
        other: None,
    }
}
