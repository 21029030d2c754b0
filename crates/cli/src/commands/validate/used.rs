//! What is wrong with the models that documents use, by the catalog and the prices of this configuration: gone or soon to be
//! gone, without a price where the cost of runs has a ceiling, and of unknown length where conversations are kept short.

use std::collections::{BTreeMap, BTreeSet};

use windlass::wire::Wiring;
use windlass_core::input::Traits;
use windlass_core::machine::{Machine, ModelSettings};
use windlass_core::near::Conversation;
use windlass_core::redact;
use windlass_models::Models;
use windlass_ports::model::Model;
use windlass_spec::Loaded;
use windlass_spec::diagnostics::{Diagnostic, Rule, Severity};

use crate::app::App;
use crate::exit::Problem;
use crate::session;

/// What is found, in words, and what to do about it.
type Finding = (Rule, String, &'static str);

/// Findings about the models of a machine and everything that it refers to, each once.
///
/// # Errors
/// A catalog or price book that cannot be read.
pub(super) fn models(app: &App, wiring: &Wiring, loaded: &Loaded, strict: bool) -> Result<Vec<Diagnostic>, Problem> {
    let models = wiring.models(&BTreeMap::new(), Some(&loaded.program)).map_err(session::setting)?;
    let is_strict = strict || app.loaded.config.documents.strict || loaded.bundle.strict;
    let severity = if is_strict { Severity::Error } else { Severity::Warning };
    let of_runs = app.loaded.config.limits.cost_micros;
    let (mut said, mut found) = (BTreeSet::new(), Vec::new());
    for machine in loaded.program.machines.values() {
        for agent in machine.agents.values() {
            let settings = &agent.model;
            let about = retired(&models, settings).into_iter().chain(unpriced(&models, machine, settings, of_runs));
            let about = about.chain(unmeasured(&models, machine, settings));
            for finding in about {
                if said.insert(finding.clone()) {
                    found.push(placed(loaded, &settings.model, severity, finding));
                }
            }
        }
    }
    Ok(found)
}

fn retired(models: &Models, settings: &ModelSettings) -> Vec<Finding> {
    let advice = "use another model, or name a `replacement` in the model catalog";
    let told = models.retirements_of(settings).into_iter();
    told.map(|retirement| (Rule::RetiredModel, retirement.to_string(), advice)).collect()
}

/// The models of an agent that have no price although a ceiling of money counts on one.
fn unpriced(models: &Models, machine: &Machine, settings: &ModelSettings, of_runs: Option<u64>) -> Vec<Finding> {
    let ceiling = match (machine.ceilings.cost_micros, of_runs) {
        (Some(_), _) => "`max_cost` of the machine",
        (None, Some(_)) => "`cost_micros` under `[limits]`",
        (None, None) => return Vec::new(),
    };
    let unknown = called(models, settings).into_iter().filter(|(_, is_priced, traits)| !is_priced && !traits.is_free);
    unknown
        .map(|(settings, ..)| {
            let (model, provider) = (&settings.model, &settings.provider);
            let message = format!("the model `{model}` of `{provider}` has no price, so {ceiling} does not count it");
            let advice = "add its `rates` to the model catalog or the price book; `unpriced = \"refuse\"` under `[limits]` \
                          refuses such calls";
            (Rule::UnpricedModel, message, advice)
        })
        .collect()
}

/// The models that an agent may call, with whether each has a price.
fn called(models: &Models, settings: &ModelSettings) -> Vec<(ModelSettings, bool, Traits)> {
    match models.chain(settings) {
        Some(chain) => {
            chain.links.iter().map(|link| (link.settings.clone(), link.quote.is_some(), link.traits)).collect()
        }
        None => vec![(settings.clone(), models.quote(settings).is_some(), models.traits(settings))],
    }
}

/// The models of an agent of which nobody knows what they take, where conversations are to be kept shorter than that.
fn unmeasured(models: &Models, machine: &Machine, settings: &ModelSettings) -> Vec<Finding> {
    let conversation = &machine.conversation;
    if *conversation == Conversation::default() || conversation.tokens_max.is_some() {
        return Vec::new();
    }
    let unknown = called(models, settings).into_iter().filter(|(.., traits)| traits.context_tokens.is_none());
    unknown
        .map(|(settings, ..)| {
            let (model, provider) = (&settings.model, &settings.provider);
            let message = format!("how long a conversation `{model}` of `{provider}` takes is not known, so `conversation` has no effect on it");
            let advice = "add its `context_tokens` to the model catalog, or `max_tokens` to `conversation`";
            (Rule::UnmeasuredModel, message, advice)
        })
        .collect()
}

/// A finding at the first place in the documents that names the model.
fn placed(loaded: &Loaded, model: &str, severity: Severity, (code, message, advice): Finding) -> Diagnostic {
    let named = loaded.bundle.files.iter().find_map(|(file, text)| {
        let (number, line) = text.lines().enumerate().find(|(_, line)| line.contains(model))?;
        let column = line[..line.find(model)?].chars().count() + 1;
        Some((file.clone(), number + 1, column, column + model.chars().count(), redact::line(line)))
    });
    let (file, line, column, end, excerpt) =
        named.unwrap_or_else(|| (loaded.bundle.entry.clone(), 1, 1, 1, String::new()));
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Diagnostic {
        severity,
        code,
        message,
        file,
        line: small(line),
        column: small(column),
        end_column: small(end),
        excerpt,
        advice: Some(advice.to_owned()),
        docs: code.docs(),
    }
}
