//! Compiled programs by the hash of their bundle, with what the price book says about their agents.
//!
//! A cache: a program that is dropped from it is compiled again when a run needs it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::ids::{Digest, Name};
use windlass_core::input::Quote;
use windlass_core::machine::{Machine, Program};
use windlass_ports::compile::{Bundle, Compiler};
use windlass_ports::model::Model;
use windlass_ports::store::{Store, StoreError};

/// Programs kept at most.
const PROGRAMS_MAX: usize = 256;

/// A machine with the prices of its agents.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) program: Arc<Program>,
    pub(super) machine: Arc<Machine>,
    pub(super) quotes: Arc<BTreeMap<Name, Quote>>,
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
}

/// The cache.
#[derive(Debug, Default)]
pub(super) struct Programs(Mutex<HashMap<Digest, Cached>>);

impl Programs {
    /// A machine of a bundle.
    pub(super) async fn machine(
        &self,
        bundle: Digest,
        key: &Name,
        store: &dyn Store,
        compiler: &dyn Compiler,
        model: &dyn Model,
    ) -> Result<Loaded, ProgramError> {
        if let Some(loaded) = self.cached(bundle, key, model) {
            return Ok(loaded);
        }
        let unusable = |message: String| ProgramError::Unusable(message);
        let bytes = store
            .blob(bundle)
            .await?
            .ok_or_else(|| unusable(format!("bundle `{}` is not in the store", bundle.short())))?;
        let read = Bundle::decode(&bytes)
            .map_err(|error| unusable(format!("bundle `{}` cannot be read: {error}", bundle.short())))?;
        let program = compiler.compile(&read).map_err(|error| unusable(error.to_string()))?;
        self.keep(bundle, program);
        self.cached(bundle, key, model)
            .ok_or_else(|| unusable(format!("bundle `{}` has no machine `{key}`", bundle.short())))
    }

    /// Keeps a program that is already compiled.
    pub(super) fn keep(&self, bundle: Digest, program: Arc<Program>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= PROGRAMS_MAX && !cache.contains_key(&bundle) {
            cache.clear();
        }
        cache.entry(bundle).or_insert_with(|| Cached { program, machines: HashMap::new() });
    }

    fn cached(&self, bundle: Digest, key: &Name, model: &dyn Model) -> Option<Loaded> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get_mut(&bundle)?;
        if let Some(loaded) = cached.machines.get(key) {
            return Some(loaded.clone());
        }
        let machine = Arc::clone(cached.program.machines.get(key)?);
        let quotes = machine
            .agents
            .iter()
            .filter_map(|(name, agent)| Some((name.clone(), model.quote(&agent.model)?)))
            .collect();
        let loaded = Loaded { program: Arc::clone(&cached.program), machine, quotes: Arc::new(quotes) };
        cached.machines.insert(key.clone(), loaded.clone());
        Some(loaded)
    }
}
