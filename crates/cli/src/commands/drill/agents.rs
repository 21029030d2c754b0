//! What becomes of an agent when a model is gone.

use serde::Serialize;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::machine::{Agent, ModelSettings};
use windlass_core::route::{Chain, Link};
use windlass_models::Models;
use windlass_ports::model::Model;

use crate::output::printable;
use crate::testing::Served;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    /// It does not call the model.
    Untouched,
    /// Another entry of the catalog answers in its place.
    Remapped,
    /// A link of its chain is gone; what it calls first is not.
    FewerLinks,
    /// What it calls first fails, and its chain goes on.
    GoesOn,
    /// Its calls fail.
    Lost,
}

impl Fate {
    fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Remapped => "remapped",
            Self::FewerLinks => "fewer links",
            Self::GoesOn => "goes on in its chain",
            Self::Lost => "LOST",
        }
    }
}

/// One agent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    machine: Name,
    pub(super) agent: Name,
    /// What its document names.
    names: String,
    /// The models it calls, and those it calls then.
    before: Vec<Name>,
    after: Vec<Name>,
    pub(super) fate: Fate,
    why: String,
}

impl Told {
    pub(super) fn row(&self) -> Vec<String> {
        let list = |names: &[Name]| names.join(", ");
        let cells = [
            self.machine.to_string(),
            self.agent.to_string(),
            list(&self.before),
            list(&self.after),
            self.fate.as_str().to_owned(),
            self.why.clone(),
        ];
        cells.iter().map(|cell| printable(cell)).collect()
    }
}

/// What becomes of an agent.
pub(super) fn told(machine: &Name, agent: &Agent, before: &Models, after: &Models, served: &Served) -> Told {
    let settings = &agent.model;
    let (then, now) = (before.chain(settings), after.chain(settings));
    let (fate, why) = match (&then, &now) {
        (Some(then), Some(now)) => of_chain(then, now, served),
        _ if served.is_gone(&settings.provider, &settings.model) => {
            let why =
                "its document names the model itself: name an entry of the model catalog that has a `replacement`";
            (Fate::Lost, why.to_owned())
        }
        _ => (Fate::Untouched, String::new()),
    };
    Told {
        machine: machine.clone(),
        agent: agent.name.clone(),
        names: format!("{}/{}", settings.provider, settings.model),
        before: called(then.as_ref(), settings),
        after: called(now.as_ref(), settings),
        fate,
        why,
    }
}

fn called(chain: Option<&Chain>, settings: &ModelSettings) -> Vec<Name> {
    match chain {
        Some(chain) => chain.links.iter().map(|link| link.settings.model.clone()).collect(),
        None => vec![settings.model.clone()],
    }
}

fn of_chain(then: &Chain, now: &Chain, served: &Served) -> (Fate, String) {
    let is_gone = |link: &Link| served.is_gone(&link.settings.provider, &link.settings.model);
    if !then.links.iter().any(is_gone) {
        return (Fate::Untouched, String::new());
    }
    let none = || "the catalog names no replacement that is served".to_owned();
    let stands: Vec<&str> = now.links.iter().filter_map(|link| link.instead.as_deref()).collect();
    let replaced = then.links.iter().zip(&now.links).filter(|(then, _)| is_gone(then));
    let replaced: Vec<String> = replaced
        .filter(|(_, now)| !is_gone(now))
        .map(|(then, now)| format!("`{}` answers for `{}`", now.settings.model, then.name))
        .collect();
    match now.links.first() {
        _ if !now.links.iter().any(is_gone) => {
            (Fate::Remapped, if stands.is_empty() { none() } else { replaced.join("; ") })
        }
        Some(first) if !is_gone(first) => (Fate::FewerLinks, none()),
        Some(first) if first.on.contains(&Code::ProviderInvalidRequest) && !now.links.iter().all(is_gone) => {
            let why = format!("{}; the next link is asked after `{}`", none(), Code::ProviderInvalidRequest);
            (Fate::GoesOn, why)
        }
        Some(first) if !now.links.iter().all(is_gone) => {
            let code = Code::ProviderInvalidRequest;
            let why =
                format!("{}; `on` of `{}` has no `{code}`, so that the next link is not asked", none(), first.name);
            (Fate::Lost, why)
        }
        Some(_) | None => (Fate::Lost, none()),
    }
}
