//! What servers say that nobody waits for, and tools that are left out, as acts of the audit trail: none of it changes a run.
//!
//! Owns what is remembered of requests that are over. An answer to one that was given up is recorded as late, in the trail of
//! its run's tenant; one that comes twice or to nothing is counted, and recorded once a minute at most.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use windlass_core::ids::{Digest, Name, RunId};
use windlass_ports::store::StoreError;
use windlass_ports::tool::Invocation;

use crate::mcp::definition::Refused;
use crate::mcp::excluded::Left;
use crate::mcp::quarantine::Quarantine;

/// Requests that are over and remembered, of each kind.
const PAST_MAX: usize = 1_024;
/// Tools that are left out and remembered.
const EXCLUDED_MAX: usize = 1_000;
/// How often what was answered to nobody is recorded, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// For which call of which run a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    tenant: Name,
    run: RunId,
    key: String,
    attempt: u32,
    tool: Name,
}

impl Asked {
    pub(crate) fn by(invocation: &Invocation) -> Arc<Self> {
        Arc::new(Self {
            tenant: invocation.tenant.clone(),
            run: invocation.run.clone(),
            key: invocation.idempotency_key.clone(),
            attempt: invocation.attempt,
            tool: invocation.name.clone(),
        })
    }
}

/// What an answer is to which nobody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// To a request that was answered.
    Twice,
    /// To no request.
    Foreign,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Twice => "answered again what it had answered",
            Self::Foreign => "answered what it was not asked",
        }
    }
}

/// Requests that are over, and what was heard of them since.
#[derive(Debug, Default)]
struct Past {
    /// Requests that are out.
    open: BTreeMap<u64, Option<Arc<Asked>>>,
    given_up: VecDeque<(u64, Option<Arc<Asked>>)>,
    answered: VecDeque<u64>,
    /// Answers that are not recorded yet, while somebody will.
    unheard: BTreeMap<Kind, u64>,
    /// Tools that are left out and were recorded.
    excluded: BTreeSet<Left>,
    /// No act told of some of them yet.
    owes: bool,
}

fn keep<T>(queue: &mut VecDeque<T>, one: T) {
    queue.push_back(one);
    if queue.len() > PAST_MAX {
        queue.pop_front();
    }
}

/// What one server says that nobody waits for.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    server: Name,
    trail: Quarantine,
    past: Arc<Mutex<Past>>,
}

impl Heard {
    pub(crate) fn new(server: &str, trail: Quarantine) -> Self {
        Self { server: server.into(), trail, past: Arc::default() }
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to leave. When what this gives back is dropped, nobody waits for its answer any more.
    pub(crate) fn begins(&self, id: u64, asked: Option<Arc<Asked>>) -> Out {
        self.past().open.insert(id, asked);
        Out { heard: self.clone(), id }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, id: u64) {
        let mut past = self.past();
        if past.open.remove(&id).is_some() {
            keep(&mut past.answered, id);
        }
    }

    fn gave_up(&self, id: u64) {
        let mut past = self.past();
        if let Some(asked) = past.open.remove(&id) {
            keep(&mut past.given_up, (id, asked));
        }
    }

    /// An answer came that nobody waits for.
    pub(crate) fn late(&self, id: Option<u64>, answer: &Result<&str, i64>) {
        tracing::warn!(
            server = &*self.server,
            id,
            "an MCP server answered what nobody waits for; the answer is dropped"
        );
        let mut past = self.past();
        let place = id.and_then(|id| past.given_up.iter().position(|(other, _)| *other == id));
        let given_up = place.and_then(|place| past.given_up.remove(place));
        // Nobody waits any more for one that is still out: it is being given up.
        let out = id.and_then(|id| Some((id, past.open.remove(&id)?)));
        if let Some((id, asked)) = given_up.or(out) {
            keep(&mut past.answered, id);
            if let Some(asked) = asked {
                self.record_late(&asked, answer);
            }
            return;
        }
        let kind = if id.is_some_and(|id| past.answered.contains(&id)) { Kind::Twice } else { Kind::Foreign };
        let count = past.unheard.get(&kind).copied();
        past.unheard.insert(kind, count.unwrap_or(0) + 1);
        if count.is_none() {
            self.record_strange(kind);
        }
    }

    fn record_late(&self, asked: &Arc<Asked>, answer: &Result<&str, i64>) {
        let Asked { tenant, run, key, attempt, tool } = &**asked;
        let what = match answer {
            Ok(text) => format!("result {}, {} bytes", Digest::of(text.as_bytes()), text.len()),
            Err(code) => format!("error {code}"),
        };
        let detail = format!("{key} attempt {attempt}, tool {tool} of {}: {what}, after it was given up", self.server);
        let (trail, tenant, subject) = (self.trail.clone(), tenant.clone(), Name::from(run.as_str()));
        tokio::spawn(async move { note(&trail, &tenant, "call.late", subject, detail).await });
    }

    /// Records what was heard of a kind, now and once in each window in which more is.
    fn record_strange(&self, kind: Kind) {
        let heard = self.clone();
        tokio::spawn(async move {
            loop {
                let count = {
                    let mut past = heard.past();
                    match past.unheard.get_mut(&kind) {
                        Some(count) if *count > 0 => std::mem::take(count),
                        _ => {
                            past.unheard.remove(&kind);
                            return;
                        }
                    }
                };
                let detail = format!("{} ({count})", kind.as_str());
                note(&heard.trail, &"default".into(), "mcp.answer", heard.server.clone(), detail).await;
                tokio::time::sleep(Duration::from_millis(WINDOW_MS)).await;
            }
        });
    }

    /// Tools of the server are left out. Each is recorded once for each reason, however often it is shown and by how many
    /// processes it is looked at, as far as what is remembered of the server goes.
    pub(crate) async fn excluded(&self, refused: &[Refused]) {
        let mut left: Vec<Left> = refused.iter().map(|refused| Left::new(&refused.name, &refused.why)).collect();
        {
            let past = self.past();
            left.retain(|one| !past.excluded.contains(one));
            if left.is_empty() && !past.owes {
                return;
            }
        }
        for refused in refused {
            let (tool, why) = (&refused.name, &refused.why);
            tracing::warn!(server = &*self.server, tool, why, "a tool of an MCP server is left out");
        }
        match self.trail.exclude(&self.server, &left).await {
            Ok(owes) => {
                let mut past = self.past();
                if past.excluded.len() + left.len() > EXCLUDED_MAX {
                    past.excluded.clear();
                }
                past.excluded.extend(left);
                past.owes = owes;
            }
            Err(error) => told(&error),
        }
    }
}

/// A request that is out.
#[derive(Debug)]
pub(crate) struct Out {
    heard: Heard,
    id: u64,
}

impl Out {
    /// Whatever comes of it is known.
    pub(crate) fn ended(self) {
        self.heard.answered(self.id);
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.heard.gave_up(self.id);
    }
}

async fn note(trail: &Quarantine, tenant: &Name, action: &str, subject: Name, detail: String) {
    if let Err(error) = trail.note(tenant, action, subject, detail).await {
        told(&error);
    }
}

fn told(error: &StoreError) {
    tracing::error!(%error, "what an MCP server said could not be written to the audit trail");
}
