//! Compiled programs by the hash of their bundle, with what the price book says about their agents.
//!
//! A cache: a program that is dropped from it is compiled again when a run needs it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::contract::Contract;
use windlass_core::ids::{Digest, Name};
use windlass_core::input::{Facts, Input, Quote, Traits};
use windlass_core::machine::{Machine, Program};
use windlass_core::policy::{Choice, Verdict};
use windlass_core::run::{Run, TenantScope};
use windlass_core::time::Timestamp;
use windlass_core::{Filled, arguments, plan, standing};
use windlass_ports::compile::Bundle;
use windlass_ports::policy::{Asker, Policy};
use windlass_ports::store::StoreError;

use super::engine::Parts;
use super::unfit;

/// Programs kept at most.
const PROGRAMS_MAX: usize = 256;
/// Bytes of the policy's answers that are kept for one machine, as JSON, with whose they are.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;
/// How long a bundle that was stored need not be stored again, in milliseconds. Stores keep one without runs longer.
const STORED_MS: u64 = 600_000;

/// A machine with the prices of its agents.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) program: Arc<Program>,
    pub(super) machine: Arc<Machine>,
    pub(super) quotes: Arc<BTreeMap<Name, Quote>>,
    pub(super) traits: Arc<BTreeMap<Name, Traits>>,
    /// Whether an agent of it is called by the links of a chain.
    pub(super) is_chained: bool,
    /// Whether the ramp of a tool of it has a budget.
    pub(super) is_ramped: bool,
    /// The first thing that it needs and this process does not have.
    pub(super) lacks: Option<Name>,
    /// Answers of the policy to its standing questions.
    pub(super) standing: Arc<Standing>,
}

/// Answers of the policy to the standing questions of one machine, by whose run asks, as long as they are the same.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    /// What of the policy they are answers of.
    epoch: Option<u64>,
    answers: HashMap<Whose, Arc<[Verdict]>>,
    bytes: usize,
}

/// Whose answers: runs for the same, on the same side of a candidate.
type Whose = (TenantScope, Option<Choice>);

impl Standing {
    fn answers(&self, policy: &dyn Policy, asker: &Asker<'_>) -> Arc<[Verdict]> {
        // Read first: what is answered afterwards is of this epoch or a later one, and is asked again in that.
        let epoch = policy.epoch();
        let whose = (asker.scope.clone(), policy.choice(asker));
        {
            let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(answers) = given.answers.get(&whose).filter(|_| epoch.is_some() && given.epoch == epoch) {
                return Arc::clone(answers);
            }
        }
        let answers: Arc<[Verdict]> = policy.answer(asker, &standing(asker.machine)).into();
        // A candidate that came or went meanwhile has answered for another side.
        let is_whose = answers.iter().all(|verdict| verdict.choice.as_deref() == whose.1.as_ref());
        if epoch.is_some() && is_whose {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).keep(epoch, &whose, &answers);
        }
        answers
    }
}

impl Given {
    /// Keeps answers, in place of all others where these are of another epoch or there is no more room.
    fn keep(&mut self, epoch: Option<u64>, whose: &Whose, answers: &Arc<[Verdict]>) {
        let bytes = serde_json::to_vec(&(whose, &**answers)).map_or(usize::MAX, |bytes| bytes.len());
        if self.epoch != epoch || self.bytes.saturating_add(bytes) > ANSWERS_BYTES_MAX {
            *self = Self { epoch, ..Self::default() };
        }
        if bytes <= ANSWERS_BYTES_MAX && self.answers.insert(whose.clone(), Arc::clone(answers)).is_none() {
            self.bytes += bytes;
        }
    }
}

impl Loaded {
    /// The facts with what the policy says to the questions that `input` of a run may raise: those that stand, its own, and
    /// those about arguments that the decision `filled` in.
    pub(super) fn judged(
        &self,
        policy: &dyn Policy,
        facts: Facts,
        (run, input): (&Run, &Input),
        filled: &[Filled],
    ) -> Facts {
        let mut questions = plan(&self.machine, run, input);
        questions.extend(facts.routes.iter().flat_map(|(agent, chain)| chain.questions(agent)));
        questions.extend(filled.iter().map(|(question, _)| question.clone()));
        loop {
            let epoch = policy.epoch();
            let reads_arguments = policy.reads_arguments();
            let mut given = BTreeMap::new();
            if reads_arguments {
                given = arguments(&self.machine, run, Some(input));
                given.extend(filled.iter().map(|(_, value)| (value.digest(), value.clone())));
            }
            let asker = Asker::of(run, &self.machine, &given);
            let (standing, verdicts) = (self.standing.answers(policy, &asker), policy.answer(&asker, &questions));
            // One decision goes by one set: where another came into use in between, it is asked once more.
            if policy.epoch() == epoch {
                return Facts { standing, verdicts, reads_arguments, ..facts };
            }
        }
    }
}

/// Why a program cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Unusable(String),
}

#[derive(Debug)]
struct Cached {
    program: Arc<Program>,
    machines: HashMap<Name, Loaded>,
    /// When this process last stored the bundle.
    stored_at: Option<Timestamp>,
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<HashMap<Digest, Cached>>);

impl Programs {
    /// A machine of a bundle.
    pub(super) async fn machine(&self, bundle: Digest, key: &Name, parts: &Parts) -> Result<Loaded, ProgramError> {
        if let Some(loaded) = self.cached(bundle, key, parts) {
            return Ok(loaded);
        }
        let unusable = |message: String| ProgramError::Unusable(message);
        let bytes = parts
            .store
            .blob(bundle)
            .await?
            .ok_or_else(|| unusable(format!("bundle `{}` is not in the store", bundle.short())))?;
        let read = Bundle::decode(&bytes)
            .map_err(|error| unusable(format!("bundle `{}` cannot be read: {error}", bundle.short())))?;
        let program = parts.compiler.compile(&read).map_err(|error| unusable(error.to_string()))?;
        self.keep(bundle, program);
        self.cached(bundle, key, parts)
            .ok_or_else(|| unusable(format!("bundle `{}` has no machine `{key}`", bundle.short())))
    }

    /// Keeps a program that is already compiled, in place of an equal one.
    pub(super) fn keep(&self, bundle: Digest, program: Arc<Program>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= PROGRAMS_MAX && !cache.contains_key(&bundle) {
            cache.clear();
        }
        match cache.entry(bundle) {
            Entry::Occupied(mut known) => known.get_mut().program = program,
            Entry::Vacant(free) => {
                free.insert(Cached { program, machines: HashMap::new(), stored_at: None });
            }
        }
    }

    /// The bundle is in the store now.
    pub(super) fn stored(&self, bundle: Digest, now: Timestamp) {
        if let Some(cached) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&bundle) {
            cached.stored_at = Some(now);
        }
    }

    /// The hash of a program's bundle, when this process has stored it so lately that the store surely keeps it for a
    /// run that is about to come.
    pub(super) fn stored_lately(&self, program: &Arc<Program>, now: Timestamp) -> Option<Digest> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |cached: &Cached| cached.stored_at.is_some_and(|at| now.since_ms(at) < STORED_MS);
        let found = cache.iter().find(|(_, cached)| Arc::ptr_eq(&cached.program, program) && is_fresh(cached));
        found.map(|(bundle, _)| *bundle)
    }

    fn cached(&self, bundle: Digest, key: &Name, parts: &Parts) -> Option<Loaded> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get_mut(&bundle)?;
        if let Some(loaded) = cached.machines.get(key) {
            return Some(loaded.clone());
        }
        let machine = Arc::clone(cached.program.machines.get(key)?);
        let quotes = machine
            .agents
            .iter()
            .filter_map(|(name, agent)| Some((name.clone(), parts.model.quote(&agent.model)?)))
            .collect();
        let agents = machine.agents.iter();
        let traits = agents.map(|(name, agent)| (name.clone(), parts.model.traits(&agent.model))).collect();
        let lacks = unfit::missing(&machine, &parts.catalog);
        let is_chained = machine.agents.values().any(|agent| parts.model.chain(&agent.model).is_some());
        let has_budget = |tool: &Arc<Contract>| tool.shadow.as_ref().is_some_and(|shadow| shadow.budget.is_some());
        let is_ramped = machine.tools.values().any(has_budget);
        let program = Arc::clone(&cached.program);
        let mut loaded = Loaded {
            program,
            machine,
            quotes: Arc::new(quotes),
            traits: Arc::new(traits),
            is_chained,
            is_ramped,
            lacks,
            standing: Arc::default(),
        };
        // A key or a script may come while the process lives: it is looked for again with the next run.
        match unfit::missing_model(&loaded.machine, &*parts.model) {
            Some(lacks) => loaded.lacks = loaded.lacks.or(Some(lacks)),
            None => drop(cached.machines.insert(key.clone(), loaded.clone())),
        }
        Some(loaded)
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::policy::{Answer, Question};

    use super::*;

    fn answers(bytes: usize) -> Arc<[Verdict]> {
        let verdict = Verdict {
            question: Question::TakeTransition { from: "a".into(), to: "b".into() },
            answer: Answer::Allow,
            rule: "r".into(),
            reason: "x".repeat(bytes).as_str().into(),
            version: "v".into(),
            origins: Vec::new(),
            asking: None,
            trust: None,
            choice: None,
            other: None,
        };
        vec![verdict].into()
    }

    #[test]
    fn answers_are_kept_up_to_so_many_bytes_however_many_ask() {
        let mut given = Given::default();
        for (bytes, most) in [(10, usize::MAX), (ANSWERS_BYTES_MAX / 8, 7)] {
            for user in 0..3_000 {
                let whose = (TenantScope { user: Some(format!("{user}").into()), ..TenantScope::default() }, None);
                given.keep(Some(1), &whose, &answers(bytes));
                // The same again takes no more room.
                given.keep(Some(1), &whose, &answers(bytes));
                assert!(given.answers.contains_key(&whose) && given.answers.len() <= most);
                assert!(given.bytes <= ANSWERS_BYTES_MAX);
            }
            given = Given::default();
        }
        given.keep(Some(1), &Whose::default(), &answers(ANSWERS_BYTES_MAX));
        assert_eq!((given.answers.len(), given.bytes), (0, 0), "what is too large is asked for each time");
    }
}
