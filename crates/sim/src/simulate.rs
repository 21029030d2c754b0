//! One seed from beginning to end: submits, disturbs, heals, waits, and judges.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::task::JoinSet;
use windlass_core::ids::{Digest, RunId};
use windlass_core::input::Ending;
use windlass_ports::store::{Store, StoreError};
use windlass_runtime::{Settings, SubmitError};

use crate::bank;
use crate::bug::Bug;
use crate::faults::{Fault, Faults, Rates};
use crate::history::{self, History, Record, Violation};
use crate::people::{self, People};
use crate::process::{self, Stage};
use crate::setup::Setup;
use crate::verdict::{self, Reference};
use crate::world::World;
use crate::{nemesis, store::at_once};

/// How long a run may take after the last fault, beside its usual time, in milliseconds: leases that run out, clocks that
/// find back to the store's, the longest pauses between tries.
const PATIENCE_MS: u64 = 12 * 3_600_000;
/// How long an undisturbed run may take, in milliseconds: ten years.
const USUAL_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;
/// Records at the end of a history that are kept for whoever looks for what went wrong.
const TAIL: usize = 30;

/// What is simulated, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The faults that may strike.
    pub faults: Faults,
    /// Worker processes.
    pub workers: usize,
    /// Runs of the machine at once.
    pub runs: usize,
    /// A bug of the store, to see whether it is found.
    pub bug: Option<Bug>,
    /// Whether someone also pauses and cancels runs.
    pub meddles: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { faults: Faults::all(), workers: 3, runs: 2, bug: None, meddles: true }
    }
}

/// What a seed came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened: the same for the same seed.
    pub hash: String,
    /// What was wrong.
    pub violations: Vec<Violation>,
    /// How often each fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// How long it took on the virtual clock, in milliseconds.
    pub virtual_ms: u64,
    /// Operations on the store that are on record.
    pub operations: u64,
    /// Calls that reached the world.
    pub effects: u64,
    /// Runs by their last status, children and launches included.
    pub statuses: BTreeMap<&'static str, u64>,
    /// The last records, as JSON lines.
    pub tail: Vec<String>,
}

/// A simulation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The async runtime does not start.
    #[error("the simulation cannot be started: {0}")]
    Runtime(std::io::Error),
    /// The machine cannot be submitted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The store in memory has something that cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine breaks a promise, or does not end, although nothing disturbs it.
    #[error("the machine is not sound when nothing disturbs it: {}", describe(.0))]
    Unsound(Vec<Violation>),
}

fn describe(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A machine with what becomes of it when nothing disturbs it.
#[derive(Debug)]
pub struct Simulation {
    setup: Setup,
    options: Options,
    reference: Reference,
}

impl Simulation {
    /// Runs the machine once without any fault.
    ///
    /// # Errors
    /// A machine that cannot be submitted, or does not end by itself.
    pub fn new(setup: Setup, options: Options) -> Result<Self, SimError> {
        let calm = Options { faults: Faults::none(), runs: 1, bug: None, meddles: false, ..options.clone() };
        let (outcome, history) = perform(&setup, &calm, &Reference::default(), 0)?;
        if !outcome.violations.is_empty() {
            return Err(SimError::Unsound(outcome.violations));
        }
        let reference = Reference::of(&history, &run_id(0), outcome.virtual_ms);
        Ok(Self { setup, options, reference })
    }

    /// How long the machine takes when nothing disturbs it, on the virtual clock, in milliseconds.
    #[must_use]
    pub fn usual_ms(&self) -> u64 {
        self.reference.usual_ms
    }

    /// How the machine ends when nothing disturbs it.
    #[must_use]
    pub fn usual_ending(&self) -> Option<&Ending> {
        self.reference.ending()
    }

    /// Plays one seed.
    ///
    /// # Errors
    /// A simulation that cannot be made. What goes wrong in it is in the outcome.
    pub fn play(&self, seed: u64) -> Result<Outcome, SimError> {
        perform(&self.setup, &self.options, &self.reference, seed).map(|(outcome, _)| outcome)
    }
}

fn run_id(number: usize) -> RunId {
    RunId::stored(&format!("run-{number}"))
}

fn perform(setup: &Setup, options: &Options, reference: &Reference, seed: u64) -> Result<(Outcome, History), SimError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(SimError::Runtime)?;
    runtime.block_on(play(setup, options, reference, seed))
}

async fn play(
    setup: &Setup,
    options: &Options,
    reference: &Reference,
    seed: u64,
) -> Result<(Outcome, History), SimError> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let rates = Rates::draw(&options.faults, &mut rng);
    let settings = settings(&mut rng, options);
    let usual_ms = reference.usual_ms;
    let world = World::new(rng, rates, usual_ms);
    // Half of all seeds have a budget that every run draws on.
    if seed % 2 == 1 {
        bank::open(&world.store)?;
    }
    let stage = Arc::new(Stage {
        world: Arc::clone(&world),
        setup: setup.clone(),
        models: setup.models(),
        bug: options.bug,
        settings,
        workers: Mutex::new(vec![0; options.workers]),
    });
    let is_calm = options.faults.is_empty();
    let mut tasks = JoinSet::new();
    for worker in 0..options.workers {
        tasks.spawn(process::live(Arc::clone(&stage), worker));
    }
    let heal_ms = if is_calm { 0 } else { usual_ms * 2 + world.draw(|rng| rng.u64(20_000..120_000)) };
    if !is_calm {
        tasks.spawn(nemesis::strike(Arc::clone(&stage), usual_ms));
        tasks.spawn(heal(Arc::clone(&world), heal_ms));
        for who in 0..3 {
            tasks.spawn(people::write_objects(Arc::clone(&stage), who));
        }
    }
    for number in 0..options.runs {
        people::submit(&stage, run_id(number).as_str()).await?;
        if options.meddles {
            tasks.spawn(people::meddle(Arc::clone(&stage), run_id(number), usual_ms));
        }
    }
    let deadline_ms = if is_calm { USUAL_MS_MAX } else { heal_ms + usual_ms * 3 + PATIENCE_MS };
    let mut people = People::new(&stage);
    people.look_after(deadline_ms).await;
    let unfinished = people.unfinished();
    let virtual_ms = world.now_ms();
    drop(people);
    tasks.shutdown().await;

    let (records, effects) = world.take_notes();
    let history = History { records, effects, runs: history::collect(&world.store).await? };
    let mut violations = history::check(&history, Some(setup.program()));
    verdict::liveness(&unfinished, &world, deadline_ms, &mut violations);
    for finding in at_once(world.store.fsck())? {
        violations.push(Violation { rule: "fsck".into(), run: finding.run, message: finding.message });
    }
    bank::check(&world.store, &history, &mut violations)?;
    verdict::holds(&history, &mut violations);
    if !options.faults.has(Fault::ClockJump) {
        verdict::timers(&history, &mut violations);
    }
    if !is_calm {
        (0..options.runs).for_each(|number| reference.compare(&history, &run_id(number), &mut violations));
    }
    Ok((outcome(seed, &world, &history, violations, virtual_ms), history))
}

async fn heal(world: Arc<World>, heal_ms: u64) {
    world.sleep(heal_ms).await;
    world.note_fault(None, "healed");
    world.heal();
    world.jump_store(0);
}

/// Small numbers, so that slots are fought for.
fn settings(rng: &mut fastrand::Rng, options: &Options) -> Settings {
    let defaults =
        Settings { host: "simulated".into(), build: "simulated".into(), switches_ms: 0, ..Settings::default() };
    if options.faults.is_empty() {
        return defaults;
    }
    Settings {
        claim_slots: [1, 2, 8][rng.usize(..3)],
        call_slots: [1, 2, 8][rng.usize(..3)],
        held_max: [1, 4, 64][rng.usize(..3)],
        store_patience_ms: [2_000, 30_000][rng.usize(..2)],
        ..defaults
    }
}

fn outcome(seed: u64, world: &World, history: &History, violations: Vec<Violation>, virtual_ms: u64) -> Outcome {
    let mut statuses: BTreeMap<&'static str, u64> = BTreeMap::new();
    for end in &history.runs {
        *statuses.entry(end.status.as_str()).or_default() += 1;
    }
    let line = |record: &Record| serde_json::to_string(record).unwrap_or_default();
    let tail = &history.records[history.records.len().saturating_sub(TAIL)..];
    Outcome {
        seed,
        hash: hash(history),
        violations,
        faults: world.faults_landed().into_iter().map(|(fault, times)| (fault.as_str(), times)).collect(),
        virtual_ms,
        operations: history.records.len() as u64,
        effects: history.effects.len() as u64,
        statuses,
        tail: tail.iter().map(line).collect(),
    }
}

/// Over every record, every effect and every journal row, in order.
fn hash(history: &History) -> String {
    let mut bytes = serde_json::to_vec(&(&history.records, &history.effects)).unwrap_or_default();
    for row in history.runs.iter().flat_map(|end| &end.rows) {
        bytes.extend_from_slice(&row.digest.0);
    }
    Digest::of(&bytes).to_string()
}
