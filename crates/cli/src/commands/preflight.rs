//! `windlass preflight`: whether everything is there that a machine needs to run: secrets, models, the scanner, people.
//!
//! Owns the checks. Nothing is called, and what documents themselves say wrongly is told by `validate`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value as Json, json};
use windlass::wire::{ProviderKind, WireError, Wiring};
use windlass_core::ids::Name;
use windlass_core::machine::{Machine, ModelSettings, Program};
use windlass_models::Models;
use windlass_models::catalog::Catalog as ModelCatalog;
use windlass_policy::RuleSet;
use windlass_policy::scan::Mode;
use windlass_ports::compile::Bundle;
use windlass_ports::model::Model;
use windlass_ports::notify::NoticeKind;

use super::preview::reach;
use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::session;

/// The provider whose answers come from a script, and that of answers which were given before: nothing leaves for them.
const AT_HOME: [&str; 2] = ["scripted", "cached"];

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Nothing stands against it.
    Ok,
    /// Something does.
    Failed,
    /// The machine has nothing that it is about.
    NotApplicable,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::NotApplicable => "-",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// The way out of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), advice: None }
    }

    fn none(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::NotApplicable, found: found.into(), advice: None }
    }

    /// Fails with everything that was found wrong, or is fine.
    fn of(name: &'static str, wrong: &BTreeSet<String>, fine: &str, advice: &'static str) -> Self {
        if wrong.is_empty() {
            return Self::ok(name, fine);
        }
        let found = wrong.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
        Self { name, state: State::Failed, found, advice: Some(advice) }
    }
}

/// Prints the checks of a machine.
///
/// # Errors
/// A document or a configuration that is not valid.
pub(crate) fn preflight(app: &App, args: &args::Preflight) -> Result<Exit, Problem> {
    let folder = documents::folder(app, &args.machine);
    let wiring = session::wiring(app, &folder);
    let catalog = Wiring { needs_secrets: false, ..wiring.clone() }.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, &args.machine, &catalog)?;
    let checks = checks(app, &wiring, &loaded.program, &loaded.bundle, &loaded.secrets)?;
    let is_ready = checks.iter().all(|check| check.state != State::Failed);
    let document = json!({ "ready": is_ready, "bundle": loaded.program.bundle, "checks": checks });
    let mut lines: Vec<String> = checks.iter().flat_map(lines).collect();
    lines.push(if is_ready { "ready" } else { "not ready" }.to_owned());
    app.output.sentence(&document, &crate::output::printable(&lines.join("\n")));
    Ok(if is_ready { Exit::Ok } else { Exit::Failed })
}

fn lines(check: &Check) -> Vec<String> {
    let mut lines = vec![format!("{:<7} {:<14} {}", check.state.word(), check.name, check.found)];
    lines.extend(check.advice.map(|advice| format!("{:<22} {advice}", "")));
    lines
}

/// Refuses a machine that is not ready, where the configuration asks for that.
///
/// # Errors
/// A check that fails.
pub(crate) fn require(app: &App, wiring: &Wiring, loaded: &windlass_spec::Loaded) -> Result<(), Problem> {
    if !app.loaded.config.preflight.required {
        return Ok(());
    }
    let checks = checks(app, wiring, &loaded.program, &loaded.bundle, &loaded.secrets)?;
    let failed: Vec<&Check> = checks.iter().filter(|check| check.state == State::Failed).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let message = format!("the machine is not ready: {}: {}", first.name, first.found);
    let hint =
        "`windlass preflight MACHINE` shows every check; `required = false` under `[preflight]` starts it all the same";
    Err(Problem::new(Exit::Invalid, "cli.config", message)
        .detail("checks", serde_json::to_value(&failed).unwrap_or(Json::Null))
        .hint(hint))
}

/// One way in which a call of an agent may go.
struct Used {
    /// Its name in the catalog, where it has one.
    entry: Option<Name>,
    settings: ModelSettings,
    is_priced: bool,
}

impl Used {
    fn shown(&self) -> String {
        match &self.entry {
            Some(name) => format!("`{name}`"),
            None => format!("`{}` of `{}`", self.settings.model, self.settings.provider),
        }
    }
}

fn checks(
    app: &App,
    wiring: &Wiring,
    program: &Program,
    bundle: &Bundle,
    secrets: &BTreeMap<String, secrecy::SecretString>,
) -> Result<Vec<Check>, Problem> {
    let models = wiring.models(secrets, Some(program)).map_err(session::setting)?;
    let catalog = wiring.model_catalog().map_err(session::setting)?;
    let reached = reach::machines(program);
    let used = used(wiring, &models, &reached);
    let wanted = &app.loaded.config.preflight;
    let is_personal = says_personal(bundle);
    Ok(vec![
        secrets_there(wiring, &models, &used),
        priced(&used),
        served(&models, &used),
        tagged("tags", &catalog, &used, &wanted.tags, "`[preflight] tags` asks for nothing"),
        if is_personal {
            let none = "`[preflight] personal_data_tags` asks for nothing";
            tagged("personal_route", &catalog, &used, &wanted.personal_data_tags, none)
        } else {
            Check::none("personal_route", "no document says that it carries personal data")
        },
        scanned(app, is_personal),
        approvals(app, wiring, &reached)?,
    ])
}

/// Every way in which calls of the agents that are reached may leave this process.
fn used(wiring: &Wiring, models: &Models, reached: &[&Machine]) -> Vec<Used> {
    let is_scripted = |provider: &str| {
        let kind = wiring.providers.get(provider).or_else(|| wiring.providers.get("*")).and_then(|table| table.kind);
        AT_HOME.contains(&provider) || kind == Some(ProviderKind::Scripted)
    };
    let agents = reached.iter().flat_map(|machine| machine.agents.values());
    agents
        .flat_map(|agent| match models.chain(&agent.model) {
            Some(chain) => chain
                .links
                .into_iter()
                .map(|link| Used { entry: Some(link.name), is_priced: link.quote.is_some(), settings: link.settings })
                .collect(),
            None => {
                let is_priced = models.quote(&agent.model).is_some();
                vec![Used { entry: None, settings: agent.model.clone(), is_priced }]
            }
        })
        .filter(|used| !is_scripted(&used.settings.provider))
        .collect()
}

fn secrets_there(wiring: &Wiring, models: &Models, used: &[Used]) -> Check {
    let mut wrong: BTreeSet<String> = BTreeSet::new();
    let mut note = |result: Result<(), WireError>| wrong.extend(result.err().map(|error| error.message));
    note(wiring.catalog().map(drop));
    note(wiring.channels().map(drop));
    wrong.extend(used.iter().filter_map(|used| models.lacks(&used.settings)).map(|what| format!("there is no {what}")));
    let advice = "set what is named with `windlass secrets set`, in the environment, or in its file";
    Check::of("secrets", &wrong, "everything that is named is there", advice)
}

fn priced(used: &[Used]) -> Check {
    if used.is_empty() {
        return Check::none("prices", "no model is called");
    }
    let wrong = used.iter().filter(|used| !used.is_priced).map(|used| format!("{} has no price", used.shown()));
    let advice = "give it `rates` in the model catalog or a line in the price book (docs/prices.md)";
    Check::of("prices", &wrong.collect(), "every model has a price", advice)
}

fn served(models: &Models, used: &[Used]) -> Check {
    if used.is_empty() {
        return Check::none("retirements", "no model is called");
    }
    let is_used = |name: &Name| used.iter().any(|used| used.entry.as_ref() == Some(name));
    let gone = models.retirements().into_iter().filter(|one| one.days_left <= 0 && is_used(&one.name));
    let advice = "name its successor as `replacement` in the model catalog, or another model";
    Check::of("retirements", &gone.map(|one| one.to_string()).collect(), "no model that is used has retired", advice)
}

/// Whether every model that is used is an entry of the catalog with these tags.
fn tagged(name: &'static str, catalog: &ModelCatalog, used: &[Used], tags: &[String], nothing: &str) -> Check {
    if tags.is_empty() || used.is_empty() {
        return Check::none(name, if tags.is_empty() { nothing } else { "no model is called" });
    }
    let mut wrong: BTreeSet<String> = BTreeSet::new();
    for one in used {
        let entry = one.entry.as_ref().and_then(|name| catalog.entry(name));
        for tag in tags.iter().filter(|tag| !entry.is_some_and(|entry| entry.tags.iter().any(|own| **own == ***tag))) {
            wrong.insert(match entry {
                Some(_) => format!("{} does not have the tag `{tag}`", one.shown()),
                None => format!("{} is no entry of the model catalog, so nothing says that it is `{tag}`", one.shown()),
            });
        }
    }
    let advice = "use models of the catalog that have the tag, or give it to those that may have it";
    Check::of(name, &wrong, "every model has the tags that are asked for", advice)
}

/// Whether a document says of itself that it carries personal data: `personal_data: true` in its `metadata`.
fn says_personal(bundle: &Bundle) -> bool {
    let said = |text: &String| match serde_saphyr::from_str::<Json>(text) {
        Ok(document) => [&document["metadata"], &document["data"]["metadata"]]
            .into_iter()
            .any(|metadata| metadata["personal_data"] == true),
        // What cannot be read on its own counts as saying what its text says.
        Err(_) => text.contains("personal_data: true"),
    };
    bundle.files.values().any(said)
}

fn scanned(app: &App, is_personal: bool) -> Check {
    let config = &app.loaded.config;
    if !is_personal {
        return Check::none("scan", "no document says that it carries personal data");
    }
    let is_off =
        |class: &&windlass_policy::scan::Class| config.scan.get(*class).copied().unwrap_or_default() == Mode::Off;
    let wrong = config.preflight.personal_data_scan.iter().filter(is_off);
    let wrong = wrong.map(|class| format!("`{}` is not looked for", class.as_str())).collect();
    let advice = "write `mask` or `block` for it under `[scan]`, or leave it out of `[preflight] personal_data_scan`";
    Check::of("scan", &wrong, "personal data is looked for before it leaves", advice)
}

/// Whether people hear of what they are asked.
fn approvals(app: &App, wiring: &Wiring, reached: &[&Machine]) -> Result<Check, Problem> {
    let name = "approvals";
    let tools = reach::tools(reached);
    let by_contract = tools.values().flatten().any(|contract| contract.approval.always);
    let by_rule = match &wiring.policy {
        Some(folder) if !tools.is_empty() => {
            let set = RuleSet::load(&wiring.folder.join(folder));
            set.map_err(|findings| {
                Problem::new(Exit::Invalid, "cli.config", findings.to_string())
                    .hint("`windlass policy check` says more")
            })?
            .asks()
        }
        Some(_) | None => false,
    };
    if !by_contract && !by_rule {
        return Ok(Check::none(name, "nothing asks for an approval"));
    }
    let config = &app.loaded.config;
    let mut deaf: BTreeSet<String> = reached
        .iter()
        .filter(|machine| {
            !config.notify.values().any(|channel| {
                let kinds = channel.kinds.is_empty() || channel.kinds.contains(&NoticeKind::Approval);
                let machines = channel.machines.is_empty() || channel.machines.iter().any(|one| **one == *machine.name);
                kinds && machines
            })
        })
        .map(|machine| format!("no channel tells of approvals of `{}`", machine.name))
        .collect();
    deaf.extend(wiring.channels().err().map(|error| format!("no notice is sent: {}", error.message)));
    let advice = "add a channel under `[notify]` that takes notices of the kind `approval` (docs/notifications.md)";
    Ok(Check::of(name, &deaf, "a channel tells of them", advice))
}
