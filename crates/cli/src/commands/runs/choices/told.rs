//! The choices of models in a journal: each attempt at a model, why it went there, and what came of it. A fold over
//! entries; looks at nothing else.

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_core::budget::Amounts;
use windlass_core::effect::{Call, Outcome};
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::journal::{Entry, Record};
use windlass_core::machine::ModelSettings;
use windlass_core::route::{Candidate, Choice};

/// What came of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Came {
    Answered,
    SentBack,
    NotGoodEnough,
    Failed,
    Abandoned,
    Open,
}

impl Came {
    pub(super) const ALL: [Self; 6] =
        [Self::Answered, Self::SentBack, Self::NotGoodEnough, Self::Failed, Self::Abandoned, Self::Open];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::SentBack => "sent_back",
            Self::NotGoodEnough => "not_good_enough",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Open => "open",
        }
    }
}

/// One attempt at a model.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) run_id: Name,
    pub(super) machine: Name,
    pub(super) state: Option<Name>,
    pub(super) step: u64,
    pub(super) agent: Name,
    pub(super) sample: u32,
    pub(super) effect: u64,
    pub(super) attempt: u32,
    /// When it was chosen, in milliseconds since 1970-01-01 UTC.
    pub(super) at: u64,
    /// The chain; null for an agent that is called as its document says.
    pub(super) chain: Option<Name>,
    pub(super) link: Option<Name>,
    /// The tier; empty when the model has none.
    pub(super) tier: Name,
    pub(super) provider: Name,
    pub(super) model: Name,
    pub(super) reason: Name,
    /// The row of the decision table that said the tier.
    pub(super) row: Option<Name>,
    /// Who named the model, when somebody did.
    pub(super) by: Option<Name>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) outcome: Came,
    /// The code of a failure.
    pub(super) code: Option<Name>,
    /// Whether a better tier was asked after it.
    pub(super) escalated: bool,
    pub(super) tokens: u64,
    pub(super) cost_micros: u64,
    /// Whether what it used is estimated.
    pub(super) estimated: bool,
}

/// Reads the journal of one run.
pub(super) struct Reader<'a> {
    run: &'a RunId,
    machine: Name,
    /// The models of agents that are called as their documents say.
    models: &'a BTreeMap<Name, ModelSettings>,
    at: u64,
    state: Option<Name>,
    step: u64,
    told: Vec<Told>,
    /// The last attempt of each open call.
    open: BTreeMap<EffectId, usize>,
    /// The last attempt of each sample that is being asked.
    samples: BTreeMap<u32, usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(run: &'a RunId, machine: Name, models: &'a BTreeMap<Name, ModelSettings>) -> Self {
        let (open, samples) = (BTreeMap::new(), BTreeMap::new());
        Self { run, machine, models, at: 0, state: None, step: 0, told: Vec::new(), open, samples }
    }

    pub(super) fn read(&mut self, record: &Record) {
        for entry in &record.entries {
            self.entry(entry);
        }
    }

    pub(super) fn told(self) -> Vec<Told> {
        self.told
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Decided { at, .. } => self.at = at.0,
            Entry::RunStarted(start) => {
                if let Some(origin) = &start.origin {
                    self.step = origin.step.saturating_sub(1);
                }
            }
            Entry::StateEntered { state } => {
                self.state = Some(state.clone());
                self.step += 1;
            }
            Entry::AgentStarted { .. } => self.samples.clear(),
            Entry::CallIntended { effect, call } => {
                if let Call::Model { agent, sample } = &call.call {
                    self.chosen(*effect, call.attempt, agent.clone(), *sample, call.route.as_deref());
                }
            }
            Entry::AttemptStarted { effect, attempt, route, .. } => self.again(*effect, *attempt, route.as_deref()),
            Entry::AttemptFailed { effect, failure, used, estimated, .. } => {
                let code = failure.code.as_str();
                self.ended(*effect, Came::Failed, Some(code), used, *estimated);
            }
            Entry::CallSettled { effect, outcome, used, estimated, .. } => {
                let (came, code) = match outcome {
                    Outcome::Failed(failure) => (Came::Failed, Some(failure.code.as_str())),
                    Outcome::Replied(_) | Outcome::Returned(_) => (Came::Answered, None),
                };
                self.ended(*effect, came, code, used, *estimated);
                self.open.remove(effect);
            }
            Entry::CallAbandoned { effect, used, estimated } => {
                self.ended(*effect, Came::Abandoned, None, used, *estimated);
                self.open.remove(effect);
            }
            Entry::MessagesAdded { sample, repair: true, .. } => self.judged(*sample, Came::SentBack, None),
            Entry::SampleFailed { sample, failure } => {
                self.judged(*sample, Came::NotGoodEnough, Some(failure.code.as_str()));
            }
            Entry::Escalated { sample, .. } => {
                self.judged(*sample, Came::NotGoodEnough, None);
                if let Some(told) = self.samples.get(sample).and_then(|at| self.told.get_mut(*at)) {
                    told.escalated = true;
                }
            }
            _ => {}
        }
    }

    fn chosen(&mut self, effect: EffectId, attempt: u32, agent: Name, sample: u32, route: Option<&Choice>) {
        let settings = route.map(|route| &route.settings).or_else(|| self.models.get(&agent));
        let of = |part: fn(&ModelSettings) -> &Name| settings.map_or_else(|| "".into(), |known| part(known).clone());
        let told = Told {
            run_id: self.run.as_str().into(),
            machine: self.machine.clone(),
            state: self.state.clone(),
            step: self.step,
            sample,
            effect: effect.0,
            attempt,
            at: self.at,
            chain: route.map(|route| route.chain.clone()),
            link: route.map(|route| route.name.clone()),
            tier: route.map_or_else(|| "".into(), |route| route.tier.clone()),
            provider: of(|known| &known.provider),
            model: of(|known| &known.model),
            reason: route.map_or_else(|| "the document names it".into(), |route| route.reason.clone()),
            row: route.and_then(|route| route.row.clone()),
            by: route.and_then(|route| route.by.clone()),
            candidates: route.map(|route| route.candidates.clone()).unwrap_or_default(),
            agent,
            outcome: Came::Open,
            code: None,
            escalated: false,
            tokens: 0,
            cost_micros: 0,
            estimated: false,
        };
        self.open.insert(effect, self.told.len());
        self.samples.insert(sample, self.told.len());
        self.told.push(told);
    }

    /// Another attempt at the same call: by another link, or where the one before went.
    fn again(&mut self, effect: EffectId, attempt: u32, route: Option<&Choice>) {
        let Some(before) = self.open.get(&effect).and_then(|at| self.told.get_mut(*at)) else { return };
        before.escalated |= route.is_some_and(|route| route.escalated);
        let (agent, sample) = (before.agent.clone(), before.sample);
        if route.is_some() {
            return self.chosen(effect, attempt, agent, sample, route);
        }
        let again = Told {
            attempt,
            at: self.at,
            reason: "again, as before".into(),
            outcome: Came::Open,
            code: None,
            escalated: false,
            tokens: 0,
            cost_micros: 0,
            estimated: false,
            ..before.clone()
        };
        self.open.insert(effect, self.told.len());
        self.samples.insert(sample, self.told.len());
        self.told.push(again);
    }

    fn ended(&mut self, effect: EffectId, came: Came, code: Option<&str>, used: &Amounts, estimated: bool) {
        let Some(told) = self.open.get(&effect).and_then(|at| self.told.get_mut(*at)) else { return };
        (told.outcome, told.code) = (came, code.map(Into::into));
        (told.tokens, told.cost_micros, told.estimated) = (used.tokens, used.cost_micros, estimated);
    }

    /// What the answer of a sample was worth. An attempt that failed has said so itself.
    fn judged(&mut self, sample: u32, came: Came, code: Option<&str>) {
        let Some(told) = self.samples.get(&sample).and_then(|at| self.told.get_mut(*at)) else { return };
        if told.outcome == Came::Answered {
            (told.outcome, told.code) = (came, code.map(Into::into));
        }
    }
}
