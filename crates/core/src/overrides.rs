//! Models that somebody put in the place of those that documents name, for one run in flight. Data; what a call takes is
//! chosen in [`crate::route`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::machine::{Agent, ModelSettings};
use crate::policy::Question;
use crate::run::Run;

/// A model or a chain of the catalog, as documents name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// `catalog` for a model, `chain` for a chain.
    pub provider: Name,
    /// Its name there.
    pub model: Name,
}

/// What somebody says about the model of a run's agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChange {
    /// The agent; none for every agent, those included of which something was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Name>,
    /// What is called from here on; none for what the documents name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Listed>,
    /// Whether the runs below it are told too, and those that it starts later begin with it. Only for every agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below: bool,
    /// Who.
    pub by: Name,
    /// Why; empty when it was not said.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Name,
}

/// What is called in the place of what a document names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOverride {
    /// What is called.
    pub to: Listed,
    /// Whether the runs that are started from here on begin with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub below: bool,
    /// Who said so.
    pub by: Name,
    /// Why; empty when it was not said.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Name,
}

impl ModelOverride {
    /// What the agent calls by it: its own parameters, at what is named here.
    #[must_use]
    pub fn settings(&self, agent: &Agent) -> ModelSettings {
        let Listed { provider, model } = self.to.clone();
        ModelSettings { provider, model, base_url: None, key: None, ..agent.model.clone() }
    }
}

/// The overrides of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// For every agent that has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<ModelOverride>,
    /// By agent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<Name, ModelOverride>,
}

impl Overrides {
    /// Those that a run begins with.
    #[must_use]
    pub fn begun_with(all: Option<ModelOverride>) -> Self {
        Self { all, agents: BTreeMap::new() }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.agents.is_empty()
    }

    /// That of an agent: its own before that of all.
    #[must_use]
    pub fn of(&self, agent: &str) -> Option<&ModelOverride> {
        self.agents.get(agent).or(self.all.as_ref())
    }

    /// How an agent is called: as somebody said, else as its document says.
    #[must_use]
    pub fn settings(&self, agent: &Agent) -> ModelSettings {
        self.of(&agent.name).map_or_else(|| agent.model.clone(), |instead| instead.settings(agent))
    }

    /// The overrides after a change. Who said it first and why stays with what is not changed by it.
    #[must_use]
    pub fn changed(&self, change: &ModelChange) -> Self {
        let ModelChange { agent, to, below, by, reason } = change.clone();
        let said = to.map(|to| ModelOverride { to, below, by, reason });
        let keep = |old: Option<&ModelOverride>| match (old, said.clone()) {
            (Some(old), Some(new)) if old.to == new.to && old.below == new.below => Some(old.clone()),
            (_, new) => new,
        };
        let Some(agent) = agent else { return Self::begun_with(keep(self.all.as_ref())) };
        let mut agents = self.agents.clone();
        match keep(agents.get(&agent)) {
            Some(instead) => drop(agents.insert(agent, instead)),
            None => drop(agents.remove(&agent)),
        }
        Self { all: self.all.clone(), agents }
    }

    /// What a run begins with that is started by one with these.
    #[must_use]
    pub fn inherited(&self) -> Option<ModelOverride> {
        self.all.clone().filter(|instead| instead.below)
    }

    /// The questions that they put to the policy: each agent's call of what is named here.
    pub(crate) fn questions<'a>(
        &'a self,
        agents: impl Iterator<Item = &'a Name> + 'a,
    ) -> impl Iterator<Item = Question> {
        agents.filter_map(|agent| {
            let model = self.of(agent)?.to.model.clone();
            Some(Question::CallModel { agent: agent.clone(), model })
        })
    }
}

/// Applies a change. Samples that are asked by an agent of which it speaks begin anew in the chain that is called then.
pub(crate) fn apply(run: &mut Run, change: &ModelChange) {
    run.overrides = run.overrides.changed(change);
    let Some(exec) = run.exec.as_mut().filter(|exec| change.agent.as_ref().is_none_or(|agent| *agent == exec.agent))
    else {
        return;
    };
    for sample in &mut exec.samples {
        (sample.link, sample.raised) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(agent: Option<&str>, to: Option<&str>, by: &str) -> ModelChange {
        let to = to.map(|model| Listed { provider: "catalog".into(), model: model.into() });
        ModelChange { agent: agent.map(Into::into), to, below: false, by: by.into(), reason: "".into() }
    }

    fn called<'a>(overrides: &'a Overrides, agent: &str) -> Option<(&'a str, &'a str)> {
        overrides.of(agent).map(|instead| (&*instead.to.model, &*instead.by))
    }

    #[test]
    fn an_agents_own_goes_before_that_of_all_and_the_last_word_about_all_before_both() {
        let all = Overrides::default().changed(&change(None, Some("fast"), "ann"));
        let own = all.changed(&change(Some("a"), Some("strong"), "bob"));
        assert_eq!((called(&own, "a"), called(&own, "b")), (Some(("strong", "bob")), Some(("fast", "ann"))));
        let back = own.changed(&change(Some("a"), None, "bob"));
        assert_eq!((called(&back, "a"), &back), (Some(("fast", "ann")), &all));
        let last = own.changed(&change(None, Some("cheap"), "eve"));
        assert_eq!(called(&last, "a"), Some(("cheap", "eve")));
        assert!(own.changed(&change(None, None, "ann")).is_empty());
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let once = Overrides::default().changed(&change(Some("a"), Some("fast"), "ann"));
        assert_eq!(once.changed(&change(Some("a"), Some("fast"), "bob")), once);
        let none = Overrides::default();
        assert_eq!(none.changed(&change(Some("a"), None, "bob")), none);
    }

    #[test]
    fn only_what_is_said_of_everything_below_is_inherited() {
        let here = Overrides::default().changed(&change(None, Some("fast"), "ann"));
        assert_eq!(here.inherited(), None);
        let below = here.changed(&ModelChange { below: true, ..change(None, Some("fast"), "bob") });
        assert_eq!(below.inherited().map(|instead| instead.by.to_string()).as_deref(), Some("bob"));
    }
}
