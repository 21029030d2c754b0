//! A server that counts what is done to it: the truth outside of the workers. It writes every request down at the moment
//! it arrives, with the worker that sent it, its idempotency key and what became of it, and plays the other side of
//! tools, hooks and models. It can be slow, refuse, and close before it answers.

mod answer;
mod http;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use http::Request;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call of a tool or an action.
    Tool,
    /// A question whether a call happened.
    Verify,
    /// An event for a hook.
    Hook,
    /// A call of a model.
    Model,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was done.
    Done,
    /// It was done before under this key, and not again.
    Repeat,
    /// It was refused, and the answer says so.
    Refused,
    /// The connection was closed and it was not done.
    ClosedBefore,
    /// It was done and the connection was closed without an answer.
    ClosedAfter,
}

impl Fate {
    /// Whether the world is another one after it.
    #[must_use]
    pub fn happened(self) -> bool {
        matches!(self, Self::Done | Self::ClosedAfter)
    }
}

/// One request, as it arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deed {
    /// What it is for.
    pub kind: Kind,
    /// The name of the tool, the action or the hook.
    pub what: String,
    /// The idempotency key that it came with.
    pub key: String,
    /// Who sent it: what its address names before the tool.
    pub worker: String,
    /// Its arguments.
    pub arguments: Value,
    /// When it arrived, in milliseconds on the clock that the server was started with.
    pub at_ms: u64,
    /// What became of it.
    pub fate: Fate,
}

/// How the server treats requests.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// The shortest and the longest time that an answer takes, in milliseconds.
    pub delay_ms: (u64, u64),
    /// Of a thousand requests so many are refused with the status 503, which says that nothing was done.
    pub refused: u32,
    /// So many see their connection closed before anything is done.
    pub closed_before: u32,
    /// So many see it closed after.
    pub closed_after: u32,
    /// Tools that say whether a call happened: asked with `{effect_id, tool}` they answer from the log.
    pub verifiers: BTreeSet<String>,
    /// Tools that drop a repeat of a key.
    pub keyed: BTreeSet<String>,
    /// What a tool answers; `{"done": NAME}` when it is not named.
    pub answers: BTreeMap<String, Value>,
    /// The tools that a model asks for, one after another in one turn.
    pub model_asks: Vec<String>,
    /// Where the choice of the above begins.
    pub seed: u64,
}

/// What the server remembers.
#[derive(Debug)]
struct Memory {
    log: Vec<Deed>,
    /// Keys under which something happened.
    happened: BTreeSet<String>,
    /// Requests that have no answer yet, by worker.
    in_flight: BTreeMap<String, u64>,
    random: fastrand::Rng,
}

/// What every connection of a server shares.
#[derive(Debug)]
struct World {
    manners: Manners,
    began: Instant,
    memory: Mutex<Memory>,
}

impl World {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request, at the moment it has arrived, and decides what becomes of it.
    fn arrived(&self, request: &mut Request) -> (Fate, Duration) {
        let asks = request.kind == Kind::Tool && request.body.get("effect_id").is_some();
        if asks && self.manners.verifiers.contains(&request.what) {
            request.kind = Kind::Verify;
        }
        let mut memory = self.memory();
        let (fate, delay) = self.fate(&mut memory, request);
        if fate.happened() && !request.key.is_empty() {
            memory.happened.insert(request.key.clone());
        }
        *memory.in_flight.entry(request.worker.clone()).or_default() += 1;
        let at_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        memory.log.push(Deed {
            kind: request.kind,
            what: request.what.clone(),
            key: request.key.clone(),
            worker: request.worker.clone(),
            arguments: request.body.clone(),
            at_ms,
            fate,
        });
        (fate, delay)
    }

    fn fate(&self, memory: &mut Memory, request: &Request) -> (Fate, Duration) {
        let (shortest, longest) = self.manners.delay_ms;
        let delay = Duration::from_millis(memory.random.u64(shortest..=longest.max(shortest)));
        if request.kind == Kind::Verify {
            return (Fate::Done, Duration::ZERO);
        }
        let Manners { refused, closed_before, closed_after, .. } = self.manners;
        let drawn = memory.random.u32(..1000);
        let fate = if drawn < refused {
            Fate::Refused
        } else if drawn < refused + closed_before {
            Fate::ClosedBefore
        } else if self.is_keyed(request) && memory.happened.contains(&request.key) {
            Fate::Repeat
        } else if drawn < refused + closed_before + closed_after {
            Fate::ClosedAfter
        } else {
            Fate::Done
        };
        (fate, delay)
    }

    fn is_keyed(&self, request: &Request) -> bool {
        request.kind == Kind::Hook || self.manners.keyed.contains(&request.what)
    }

    fn has_happened(&self, key: &str) -> bool {
        self.memory().happened.contains(key)
    }

    /// A request has its answer, or will get none.
    fn over(&self, worker: &str) {
        if let Some(count) = self.memory().in_flight.get_mut(worker) {
            *count = count.saturating_sub(1);
        }
    }
}

/// A running server. It ends when the value is dropped.
#[derive(Debug)]
pub struct Effects {
    address: SocketAddr,
    world: Arc<World>,
    _running: DropGuard,
}

impl Effects {
    /// Listens on a free port of the loopback address. `began` is the moment that the log counts from.
    ///
    /// # Errors
    /// No port can be had.
    pub fn start(manners: Manners, began: Instant) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let memory = Memory {
            log: Vec::new(),
            happened: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            random: fastrand::Rng::with_seed(manners.seed),
        };
        let world = Arc::new(World { manners, began, memory: Mutex::new(memory) });
        let stop = CancellationToken::new();
        serve::start(listener, Arc::clone(&world), stop.clone())?;
        Ok(Self { address, world, _running: stop.drop_guard() })
    }

    /// What a worker of this name calls: tools are below `/tools/`, hooks below `/hooks/`, models below `/v1`.
    #[must_use]
    pub fn base(&self, worker: &str) -> String {
        format!("http://{}/w/{worker}", self.address)
    }

    /// Everything that was asked for so far, in the order in which it arrived.
    #[must_use]
    pub fn log(&self) -> Vec<Deed> {
        self.world.memory().log.clone()
    }

    /// How many requests arrived so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.world.memory().log.len()
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests of a worker that have no answer yet.
    #[must_use]
    pub fn in_flight(&self, worker: &str) -> u64 {
        self.world.memory().in_flight.get(worker).copied().unwrap_or(0)
    }
}
