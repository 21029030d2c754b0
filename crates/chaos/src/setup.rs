//! What chaos is made of: the machine with the world that it sees, the place where it is played, and how much of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use windlass_core::contract::Contract;
use windlass_core::machine::Program;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::compile::Bundle;
use windlass_ports::store::{Store, StoreError};
use windlass_runtime::{Engine, SubmitError};
use windlass_sim::placeholder;

use crate::fleet::Spawn;
use crate::machine;
use crate::plan::Kind;
use crate::proxy::AddressError;
use crate::stand_in::Models;

/// Why chaos could not be made, which says nothing about the machine.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// A file, a socket or a process.
    #[error("cannot set the scene: {0}")]
    Io(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A run cannot be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The address of the store.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Faults that cannot be made here.
    #[error("`{0}` cannot be made: {1}")]
    Impossible(Kind, &'static str),
    /// The machine does not end when nothing disturbs it.
    #[error("undisturbed, run `{run}` did not end within {seconds} s: it is `{status}`")]
    Endless {
        /// The run.
        run: String,
        /// Its lifecycle word.
        status: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Restarts the database.
#[derive(Clone)]
pub struct Restart(pub(crate) Arc<dyn Fn() -> BoxFuture<'static, io::Result<()>> + Send + Sync>);

impl Restart {
    /// Restarts it with a function, whose future ends when the database is back.
    pub fn new(restart: impl Fn() -> BoxFuture<'static, io::Result<()>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(restart))
    }
}

impl fmt::Debug for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restart")
    }
}

/// Makes an engine over a store, to submit runs with.
pub type MakeEngine = Box<dyn Fn(Arc<dyn Store>) -> Engine + Send + Sync>;

/// The machine and the world that it sees.
#[derive(Clone, Debug)]
pub struct Cast {
    /// What runs are pinned to. Its tools and hooks are played by the counting server.
    pub bundle: Bundle,
    /// The program of the bundle.
    pub program: Arc<Program>,
    /// Inputs that runs take turns with; at least one.
    pub inputs: Vec<Value>,
    /// What signals carry, by channel. A wait without a timeout whose channel is not named gets null, one with a timeout
    /// is left to it.
    pub signals: BTreeMap<String, Value>,
    /// What tools answer; `{"done": NAME}` when they are not named.
    pub answers: BTreeMap<String, Json>,
    /// Tools that a model of the counting server asks for.
    pub model_asks: Vec<String>,
    /// Who answers for models.
    pub models: Models,
}

impl Cast {
    /// The machine of [`crate::machine`], compiled, and the world it was written for.
    #[must_use]
    pub fn shipped(bundle: Bundle, program: Arc<Program>) -> Self {
        Self {
            bundle,
            program,
            inputs: machine::inputs(),
            signals: machine::signals(),
            answers: BTreeMap::new(),
            model_asks: machine::MODEL_ASKS.map(str::to_owned).to_vec(),
            models: Models::Counted,
        }
    }

    /// A machine of someone's own. Models answer from a script; tools with what their contract declares, else with
    /// `{"ok": true}`.
    #[must_use]
    pub fn of(bundle: Bundle, program: Arc<Program>, input: Value, script: PathBuf) -> Self {
        let answer = |contract: &Contract| match &contract.output_schema {
            Value::Null => json!({"ok": true}),
            schema => Json::from(&placeholder(schema)),
        };
        let answers = bundle.tools.iter().map(|contract| (contract.name.to_string(), answer(contract))).collect();
        Self {
            bundle,
            program,
            inputs: vec![input],
            signals: BTreeMap::new(),
            answers,
            model_asks: Vec::new(),
            models: Models::Scripted(script),
        }
    }
}

/// Where it is played.
pub struct Scene {
    /// The address of the store for workers.
    pub store_url: String,
    /// The store, reached without a proxy.
    pub store: Arc<dyn Store>,
    /// Makes the engine that submits.
    pub engine: MakeEngine,
    /// Starts workers.
    pub spawn: Spawn,
    /// The folder for configurations, histories and logs.
    pub folder: PathBuf,
    /// Restarts the database, when that may be done.
    pub database: Option<Restart>,
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// How much chaos.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed of the plan.
    pub seed: u64,
    /// Workers at a time.
    pub workers: usize,
    /// Runs to submit while faults are made.
    pub runs: usize,
    /// How long faults are made.
    pub duration: Duration,
    /// Time from one fault to the next.
    pub every: Duration,
    /// Kinds of faults.
    pub kinds: Vec<Kind>,
    /// The lease of a worker of a store that has leases.
    pub lease: Duration,
    /// The shortest and the longest time that the counting server takes to answer, in milliseconds.
    pub delay_ms: (u64, u64),
    /// How long everything may take to end once faults have stopped.
    pub drain_max: Duration,
    /// Of a hundred faults so many must meet work in flight.
    pub landed_min: u32,
    /// Of a hundred runs so many must complete.
    pub completed_min: u32,
    /// Whether runs may end up waiting for a person: one that does is no finding then.
    pub may_park: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            workers: 3,
            runs: 200,
            duration: Duration::from_secs(30),
            every: Duration::from_secs(1),
            kinds: vec![Kind::Kill, Kind::Stop, Kind::Restart],
            lease: Duration::from_secs(2),
            delay_ms: (50, 250),
            drain_max: Duration::from_secs(120),
            landed_min: 50,
            completed_min: 90,
            may_park: false,
        }
    }
}
