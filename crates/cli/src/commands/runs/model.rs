//! `windlass runs model`: another model in the place of what the documents of a run name, while it goes on.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::input::Input;
use windlass_core::machine::{Agent, Machine};
use windlass_core::overrides::{Listed, ModelChange, ModelOverride};
use windlass_core::policy::{Answer, Question};
use windlass_core::route::Chain;
use windlass_core::run::Run;
use windlass_models::Models;
use windlass_models::catalog::{CHAIN, Catalog, MODEL};
use windlass_ports::model::Model;
use windlass_ports::policy::{Asker, Policy};

use super::steer::{deliver, report, settle, status};
use crate::app::App;
use crate::args;
use crate::caller::actor;
use crate::exit::{Exit, Problem};
use crate::journal;
use crate::session;

/// Lets the agents of a run call another model from here on.
pub(crate) async fn model(app: &mut App, args: args::RunsModel) -> Result<Exit, Problem> {
    let (store, head) = app.run_to_change(&args.run).await?;
    if head.status.is_final() {
        let text = format!("run `{}` has ended: it is {}", head.id, head.status.as_str());
        return Err(Problem::rejected(text).hint("`windlass runs fork` starts another run from one of its steps"));
    }
    let run = journal::current(&*store, &head.id).await?;
    let pinned = session::pinned(app, &*store, head.bundle).await?;
    let machine = pinned.program.machines.get(&run.start.machine);
    let machine = machine.ok_or_else(|| Problem::bug("the run's machine is not in its bundle"))?;
    let agents = agents(machine, args.agent.as_deref())?;
    let to = match &args.to {
        Some(name) => Some(listed(&pinned.wiring.model_catalog().map_err(session::setting)?, name)?),
        None => None,
    };
    let agent = args.agent.as_deref().map(Name::from);
    let (by, reason): (Name, Name) = (args.by.as_str().into(), args.reason.as_str().into());
    if let Some(to) = &to {
        let instead = ModelOverride { to: to.clone(), below: args.below, by: by.clone(), reason: reason.clone() };
        let models = pinned.wiring.models(&BTreeMap::new(), Some(&pinned.program)).map_err(session::setting)?;
        for agent in &agents {
            let chain = fitting(&models, &run, agent, &instead)?;
            let rules = session::rules(app, &pinned.wiring).await?;
            let _following = session::follow_rules(rules.as_ref(), &store, &actor().into()).await?;
            permitted(&*session::answering(rules.as_ref()), machine, &run, agent, &chain)?;
        }
    }
    let change = ModelChange { agent, to, below: args.below, by, reason };
    if run.overrides.changed(&change) == run.overrides && !change.below {
        report(app, &head.id, head.status, &format!("{} has that model already", head.id));
        return Ok(Exit::Ok);
    }
    deliver(&*store, &head, Input::ModelChanged(Box::new(change))).await?;
    if head.owner.is_some() {
        let now = status(&*store, &head).await?;
        report(app, &head.id, now, &format!("{} has the model as soon as its worker takes it up", head.id));
        return Ok(Exit::Ok);
    }
    settle(app, store, head, "given its model").await
}

/// The agents that are meant.
fn agents<'m>(machine: &'m Machine, named: Option<&str>) -> Result<Vec<&'m Agent>, Problem> {
    let all = || machine.agents.values().map(|agent| &**agent);
    let found: Vec<&Agent> = all().filter(|agent| named.is_none_or(|name| name == &*agent.name)).collect();
    let names = || machine.agents.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (found.is_empty(), named) {
        (true, Some(name)) if !machine.agents.is_empty() => {
            let text = format!("machine `{}` has no agent `{name}`; it has {}", machine.name, names());
            Err(Problem::rejected(text))
        }
        (true, Some(_)) => Err(Problem::rejected(format!("machine `{}` has no agent", machine.name))),
        (_, Some(_) | None) => Ok(found),
    }
}

/// Finds a name in the catalog.
fn listed(catalog: &Catalog, name: &str) -> Result<Listed, Problem> {
    let known = |provider: &str, model: &str| match provider {
        MODEL => catalog.entry(model).is_some(),
        _ => catalog.chain(model).is_some(),
    };
    let of = |provider: &str, model: &str| Listed { provider: provider.into(), model: model.into() };
    if let Some((provider, model)) = name.split_once('/').filter(|(provider, _)| [MODEL, CHAIN].contains(provider))
        && known(provider, model)
    {
        return Ok(of(provider, model));
    }
    match (known(MODEL, name), known(CHAIN, name)) {
        (true, true) => Err(Problem::rejected(format!("the model catalog has a model and a chain `{name}`"))
            .hint(format!("`{MODEL}/{name}` is the model, `{CHAIN}/{name}` the chain"))),
        (true, false) => Ok(of(MODEL, name)),
        (false, true) => Ok(of(CHAIN, name)),
        (false, false) => {
            let models = catalog.models.iter().map(|entry| &entry.name);
            let names: Vec<String> =
                models.chain(catalog.chains.iter().map(|chain| &chain.name)).map(|name| format!("`{name}`")).collect();
            let has = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            Err(Problem::rejected(format!("the model catalog has no `{name}`; it has {has}"))
                .hint("`models` in the configuration names the catalog (docs/models.md)"))
        }
    }
}

/// The links by which an agent is called then, when at least one of them has its key and takes the agent's files.
fn fitting(models: &Models, run: &Run, agent: &Agent, instead: &ModelOverride) -> Result<Chain, Problem> {
    let Listed { provider, model } = &instead.to;
    let none = || Problem::rejected(format!("`{provider}/{model}` cannot be called: a model of it is not served"));
    let chain = models.chain(&instead.settings(agent)).ok_or_else(none)?;
    let files = run.exec.iter().filter(|exec| exec.agent == agent.name).flat_map(|exec| &exec.files);
    let files: Vec<_> = files.collect();
    let lacks = |link: &windlass_core::route::Link| {
        let refused = files.iter().find(|file| !models.takes_file(&link.settings, file));
        let refused = refused.map(|file| format!("it is not known to take the file `{}` ({})", file.name, file.mime));
        models.lacks(&link.settings).map(|what| format!("there is no {what}")).or(refused)
    };
    let wrong: Vec<String> =
        chain.links.iter().filter_map(|link| Some(format!("`{}`: {}", link.name, lacks(link)?))).collect();
    if wrong.len() < chain.links.len() {
        return Ok(chain);
    }
    Err(Problem::rejected(format!("agent `{}` cannot call `{provider}/{model}`: {}", agent.name, wrong.join("; ")))
        .hint("`windlass secrets set` sets a key; `takes` in the model catalog says which files a model takes"))
}

/// Refuses what the rules deny as they are: the run would fail at its next call.
fn permitted(policy: &dyn Policy, machine: &Machine, run: &Run, agent: &Agent, chain: &Chain) -> Result<(), Problem> {
    if policy.allow_unasked() {
        return Ok(());
    }
    let named = Question::CallModel { agent: agent.name.clone(), model: chain.name.clone() };
    let questions: Vec<Question> = [named].into_iter().chain(chain.questions(&agent.name)).collect();
    let verdicts = policy.answer(&Asker::of(run, machine, &BTreeMap::new()), &questions);
    let denied = |question: &Question| {
        verdicts.iter().find(|verdict| verdict.question == *question && verdict.answer != Answer::Allow)
    };
    let links = questions.iter().skip(1);
    let found = denied(&questions[0]).or_else(|| links.map(denied).collect::<Option<Vec<_>>>()?.first().copied());
    let Some(verdict) = found else { return Ok(()) };
    let text =
        format!("agent `{}` may not call `{}`: rule `{}`: {}", agent.name, chain.name, verdict.rule, verdict.reason);
    Err(Problem::new(Exit::Rejected, "policy.denied", text))
}
