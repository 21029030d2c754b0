//! What the measurements share: tiny machines, an engine on a store of its own, and an observer that takes times.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use windlass::wire;
use windlass_core::budget::Ceilings;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::ids::RunId;
use windlass_core::journal::Entry;
use windlass_core::run::{Run, TenantScope};
use windlass_core::value::Value;
use windlass_ports::policy::AllowAll;
use windlass_ports::store::Store;
use windlass_ports::tool::Catalog;
use windlass_runtime::{Engine, Observer, Parts, Settings, Submission, SystemClock};
use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, Loaded, load};
use windlass_tools::FnTool;

use crate::exit::Problem;

/// Parts of the table of times: runs of different parts do not wait for each other.
const SHARDS: usize = 64;
/// The name of the action that does nothing.
const NOOP: &str = "noop";

/// A machine of so many steps, each with one call that does nothing.
pub(crate) fn stepper(steps: u32) -> Result<Loaded, Problem> {
    let mut text = String::from(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-steps\n  context:\n    data: input.data\n  states:\n",
    );
    for step in 0..steps {
        let next = if step + 1 == steps { "done".to_owned() } else { format!("s{}", step + 1) };
        let initial = if step == 0 { "      type: initial\n" } else { "" };
        text.push_str(&format!(
            "    s{step}:\n{initial}      action: {NOOP}\n      transitions:\n        - to: {next}\n"
        ));
    }
    text.push_str("    done:\n      type: final\n      output:\n        ok: true\n");
    machine(&text)
}

/// A machine that waits for a signal.
pub(crate) fn waiter() -> Result<Loaded, Problem> {
    machine(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-park\n  context:\n    data: input.data\n  states:\n    wait:\n      type: initial\n      wait_for: bench/go\n      transitions:\n        - to: done\n    done:\n      type: final\n      output:\n        ok: true\n",
    )
}

fn machine(text: &str) -> Result<Loaded, Problem> {
    let files = MemoryFiles::new().with("machine.yml", text);
    let options = LoadOptions { tools: vec![noop()], ..LoadOptions::default() };
    load(&files, "machine.yml", &options).map_err(|found| {
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        Problem::bug(format!("the machine of the measurement is not valid: {}", text.join("; ")))
    })
}

fn noop() -> Contract {
    Contract { class: Class::Read, idempotency: Idempotency::Natural, ..Contract::undeclared(NOOP) }
}

/// An engine on a store, with the call that does nothing.
pub(crate) fn engine(store: Arc<dyn Store>, observer: Arc<dyn Observer>, concurrency: usize) -> Engine {
    let mut catalog = Catalog::default();
    catalog.tools.insert(NOOP.into(), Arc::new(FnTool::sync(noop(), |_| Ok(Value::Null))));
    let defaults = Settings::default();
    Engine::new(Parts {
        store,
        compiler: wire::compiler(),
        model: Arc::new(windlass_models::Models::builder().build()),
        catalog: Arc::new(catalog),
        policy: Arc::new(AllowAll),
        clock: Arc::new(SystemClock::new()),
        observer,
        settings: Settings {
            claim_slots: concurrency.max(defaults.claim_slots),
            call_slots: concurrency.max(defaults.call_slots),
            held_max: concurrency.max(defaults.held_max),
            grace_ms: 1_000,
            ..defaults
        },
    })
}

/// One run of a machine, with ceilings on so that the ledger works as in earnest.
#[must_use]
pub(crate) fn submission(loaded: &Loaded, data: &Value) -> Submission {
    Submission {
        bundle: loaded.bundle.clone(),
        program: Arc::clone(&loaded.program),
        input: Value::object([("data", data.clone())]),
        run_id: None,
        ceilings: Ceilings {
            steps: Some(1_000),
            launches: Some(1_000),
            model_calls: Some(1_000),
            tool_calls: Some(10_000),
            tokens: Some(1_000_000),
            cost_micros: Some(1_000_000),
            ..Ceilings::default()
        },
        scope: TenantScope::default(),
        origin: None,
        queueing: windlass_ports::store::Queueing::default(),
    }
}

/// So many bytes of text that does not compress well, as text of models and people does not.
#[must_use]
pub(crate) fn data(bytes: u64) -> Value {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(windlass_core::limits::VALUE_BYTES_MAX / 2);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let text: String = (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(LETTERS[usize::from((state >> 32) as u8) % LETTERS.len()])
        })
        .collect();
    Value::str(text)
}

/// Counts steps and runs, and takes the time of each step.
#[derive(Debug)]
pub(crate) struct Meter {
    steps: AtomicU64,
    ended: AtomicU64,
    room: Arc<Semaphore>,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    last: HashMap<RunId, Instant>,
    micros: Vec<u32>,
}

impl Meter {
    /// A meter that gives room for another run whenever one ends.
    #[must_use]
    pub(crate) fn new(room: Arc<Semaphore>) -> Self {
        Self {
            steps: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            room,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Steps so far.
    #[must_use]
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Runs that have ended.
    #[must_use]
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Forgets the times taken so far.
    pub(crate) fn reset(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).micros.clear();
        }
    }

    /// The times of all steps in microseconds, shortest first.
    #[must_use]
    pub(crate) fn sorted_micros(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.append(&mut shard.lock().unwrap_or_else(PoisonError::into_inner).micros);
        }
        all.sort_unstable();
        all
    }
}

impl Observer for Meter {
    fn committed(&self, run: &Run, entries: &[Entry]) {
        let settled = entries.iter().filter(|entry| matches!(entry, Entry::CallSettled { .. })).count() as u64;
        let ended = matches!(entries.last(), Some(Entry::RunEnded));
        let now = Instant::now();
        let at = usize::try_from(self.hasher.hash_one(run.id()) % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let before = if ended { shard.last.remove(run.id()) } else { shard.last.insert(run.id().clone(), now) };
        if let (Some(before), true) = (before, settled > 0) {
            shard.micros.push(u32::try_from(now.duration_since(before).as_micros()).unwrap_or(u32::MAX));
        }
        drop(shard);
        self.steps.fetch_add(settled, Ordering::Relaxed);
        if ended {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.room.add_permits(1);
        }
    }
}
