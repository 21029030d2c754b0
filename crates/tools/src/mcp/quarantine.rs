//! Tools that are blocked because their server showed another definition than the accepted one, and who accepted what: kept
//! as objects of the store, so that every process of it knows, also the next one.
//!
//! What is blocked is an accepted definition, by its hash: that its server shows it again changes nothing, and neither does
//! time. It runs again once a person released it. Another definition that a person accepts in its place is not blocked.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use windlass_core::ids::{Digest, Name};
use windlass_core::time::Timestamp;
use windlass_ports::clock::Clock;
use windlass_ports::store::{Deed, Object, Put, Store, StoreError};

use crate::mcp::diff::Change;

/// The kind of the objects that are blocked definitions.
const BLOCKED: &str = "mcp_blocked";
/// The kind of the objects that say who accepted and released a definition.
const DECIDED: &str = "mcp_accepted";
/// How long what was read counts for calls, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// Objects read at a time.
const PAGE: usize = 200;
/// Tries of a change that others get ahead of.
pub(super) const TRIES_MAX: u32 = 64;
/// Places of a difference that are kept.
pub(crate) const CHANGES_MAX: usize = 20;
/// Decisions about one definition that are kept; the oldest ones are forgotten.
const DECISIONS_MAX: usize = 50;
/// Definitions of one tool about which decisions are kept; the ones decided on longest ago are forgotten.
const DEFINITIONS_MAX: usize = 20;

/// An accepted definition in whose place its server showed something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The server, by its name in the configuration.
    pub server: String,
    /// The tool, by its name on the server.
    pub tool: String,
    /// The hash of the definition that was accepted.
    pub accepted: Digest,
    /// The hash of what was shown; none for what could not be used at all.
    pub shown: Option<Digest>,
    /// When that was seen first.
    pub since: Timestamp,
    /// The first places that differed.
    pub changes: Vec<Change>,
}

/// What a person decided about a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What it was.
    pub what: Verdict,
    /// Who.
    pub by: Name,
    /// When.
    pub at: Timestamp,
    /// Why; empty where nobody said.
    #[serde(default)]
    pub reason: Name,
}

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The definition may run.
    Accepted,
    /// It was blocked, and may run again.
    Released,
}

/// Who decided what about one definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The server, by its name in the configuration.
    pub server: String,
    /// The tool, by its name on the server.
    pub tool: String,
    /// The hash of the definition.
    pub hash: Digest,
    /// What was decided, oldest first.
    pub decisions: Vec<Decision>,
}

/// The key of a definition: its server and its name come first, so that those of one server follow each other.
fn key(server: &str, tool: &str, hash: Digest) -> Name {
    format!("{server}/{tool}@{hash}").into()
}

impl Blocked {
    fn key(&self) -> Name {
        key(&self.server, &self.tool, self.accepted)
    }
}

/// Every definition that is blocked, by server and tool.
///
/// # Errors
/// The store fails.
pub async fn blocked(store: &dyn Store) -> Result<Vec<Blocked>, StoreError> {
    all(store, BLOCKED).await
}

/// Who decided what about definitions, by server and tool.
///
/// # Errors
/// The store fails.
pub async fn decided(store: &dyn Store) -> Result<Vec<Decided>, StoreError> {
    all(store, DECIDED).await
}

/// Writes down that a person accepted a definition. Where it is blocked it runs again: whoever accepts has looked. What was
/// decided about older definitions of the tool is forgotten beyond the latest ones.
///
/// # Errors
/// The store fails, or others change the same all the time.
pub async fn accept(
    store: &dyn Store,
    (server, tool, hash): (&str, &str, Digest),
    decision: &Decision,
) -> Result<(), StoreError> {
    decide(store, (server, tool, hash), decision).await?;
    unblock(store, &key(server, tool, hash)).await?;
    forget(store, server, tool).await
}

/// Removes what was decided longest ago about definitions of a tool, beyond the latest ones. That a definition is blocked is
/// never removed: another process may still have it as accepted.
async fn forget(store: &dyn Store, server: &str, tool: &str) -> Result<(), StoreError> {
    let start: Name = format!("{server}/{tool}@").into();
    let (mut known, mut after) = (Vec::new(), Some(start.clone()));
    while let Some(from) = after.take() {
        let page = store.objects(DECIDED.into(), Some(from), PAGE).await?;
        let is_last = page.len() < PAGE;
        for object in page.into_iter().take_while(|object| object.key.starts_with(&*start)) {
            let decided = decode::<Decided>(&object)?;
            let latest = decided.decisions.last().map_or(Timestamp(0), |decision| decision.at);
            after = (!is_last).then(|| object.key.clone());
            known.push((latest, object));
        }
    }
    known.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.key.cmp(&y.key)));
    for (_, object) in known.into_iter().skip(DEFINITIONS_MAX) {
        let is_blocked = store.object(BLOCKED.into(), object.key.clone()).await?.is_some();
        // Who changed it meanwhile has decided anew.
        if !is_blocked {
            put(store, DECIDED, &object.key, object.revision, None).await?;
        }
    }
    Ok(())
}

/// Lets a tool run again that is blocked: every definition of it that is. Gives back those.
///
/// # Errors
/// The store fails, or others change the same all the time.
pub async fn release(
    store: &dyn Store,
    server: &str,
    tool: &str,
    decision: &Decision,
) -> Result<Vec<Blocked>, StoreError> {
    let mut found = blocked(store).await?;
    found.retain(|one| one.server == server && one.tool == tool);
    for one in &found {
        // Who let it run is known before it does.
        decide(store, (server, tool, one.accepted), decision).await?;
        unblock(store, &one.key()).await?;
    }
    Ok(found)
}

async fn decide(
    store: &dyn Store,
    (server, tool, hash): (&str, &str, Digest),
    decision: &Decision,
) -> Result<(), StoreError> {
    let key = key(server, tool, hash);
    for _ in 0..TRIES_MAX {
        let found = store.object(DECIDED.into(), key.clone()).await?;
        let mut decided = match &found {
            Some(object) => decode::<Decided>(object)?,
            None => Decided { server: server.to_owned(), tool: tool.to_owned(), hash, decisions: Vec::new() },
        };
        decided.decisions.push(decision.clone());
        let old = decided.decisions.len().saturating_sub(DECISIONS_MAX);
        decided.decisions.drain(..old);
        let expected = found.map_or(0, |object| object.revision);
        if put(store, DECIDED, &key, expected, Some(encode(&decided)?)).await? {
            return Ok(());
        }
    }
    Err(crowded(&key))
}

async fn unblock(store: &dyn Store, key: &Name) -> Result<(), StoreError> {
    for _ in 0..TRIES_MAX {
        let Some(object) = store.object(BLOCKED.into(), key.clone()).await? else { return Ok(()) };
        if put(store, BLOCKED, key, object.revision, None).await? {
            return Ok(());
        }
    }
    Err(crowded(key))
}

/// What the processes of a store know about blocked tools, as one of them sees it. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Quarantine(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    behind: OnceLock<(Arc<dyn Store>, Arc<dyn Clock>)>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the store was read; never, at first.
    read_at: Option<Instant>,
    blocked: BTreeMap<Name, Blocked>,
    /// Those that the store does not know yet.
    unwritten: BTreeMap<Name, Blocked>,
}

impl Quarantine {
    /// Gives it the store in which it is kept. Only the first time counts; without, it lasts as long as the process.
    pub fn bind(&self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
        let _first = self.0.behind.set((store, clock));
    }

    /// The store and the clock, where there are some.
    pub(super) fn behind(&self) -> Option<(&dyn Store, &dyn Clock)> {
        self.0.behind.get().map(|(store, clock)| (&**store, &**clock))
    }

    /// Why a definition is blocked; none when it is not. The store is read before the first answer, and at most once a
    /// second from then on, unless what was read before will not do.
    ///
    /// # Errors
    /// The store fails: nobody can tell.
    pub(crate) async fn find(
        &self,
        (server, tool, hash): (&str, &str, Digest),
        known_will_do: bool,
    ) -> Result<Option<Blocked>, StoreError> {
        let mut known = self.0.known.lock().await;
        let is_old = |at: Instant| !known_will_do || at.elapsed() >= Duration::from_millis(LOOK_MS);
        if let Some((store, _)) = self.0.behind.get()
            && known.read_at.is_none_or(is_old)
        {
            if let Err(error) = known.write(&**store).await {
                tracing::error!(%error, "that tools are blocked could not be written down yet");
            }
            let found = blocked(&**store).await?;
            known.blocked = found.into_iter().map(|one| (one.key(), one)).collect();
            known.read_at = Some(Instant::now());
        }
        let key = key(server, tool, hash);
        Ok(known.blocked.get(&key).or_else(|| known.unwritten.get(&key)).cloned())
    }

    /// Adds an act to the trail of a tenant; nothing where there is no store.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn note(
        &self,
        tenant: &Name,
        action: &str,
        subject: Name,
        detail: String,
    ) -> Result<(), StoreError> {
        let Some((store, clock)) = self.0.behind.get() else { return Ok(()) };
        let (at, actor, action) = (clock.now(), "windlass".into(), action.into());
        let deed = Deed { at, actor, action, subject, detail: Some(detail.into()) };
        store.trail().note(tenant, deed).await.map(|_| ())
    }

    /// Blocks a definition, in the store before anything else is done. Where the store cannot be written, this process
    /// remembers, and writes it down later.
    pub(crate) async fn block(&self, mut one: Blocked) -> Blocked {
        let mut known = self.0.known.lock().await;
        let behind = self.0.behind.get();
        one.since = behind.map_or(Timestamp(0), |(_, clock)| clock.now());
        one.changes.truncate(CHANGES_MAX);
        // Before it is tried: this may be given up in the middle.
        known.unwritten.insert(one.key(), one.clone());
        if let Some((store, _)) = behind
            && let Err(error) = known.write(&**store).await
        {
            let Blocked { server, tool, .. } = &one;
            tracing::error!(%error, server, tool, "that a tool is blocked could not be written down yet");
        }
        one
    }
}

impl Known {
    async fn write(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        while let Some((key, one)) = self.unwritten.first_key_value() {
            let key = key.clone();
            // That it is there already is as good: another process was first.
            put(store, BLOCKED, &key, 0, Some(encode(one)?)).await?;
            if let Some(one) = self.unwritten.remove(&key) {
                self.blocked.insert(key, one);
            }
        }
        Ok(())
    }
}

async fn all<T: DeserializeOwned>(store: &dyn Store, kind: &'static str) -> Result<Vec<T>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.objects(kind.into(), after.take(), PAGE).await?;
        after = page.last().map(|object| object.key.clone());
        let is_last = page.len() < PAGE;
        for object in &page {
            found.push(decode(object)?);
        }
        if is_last {
            return Ok(found);
        }
    }
}

pub(super) async fn put(
    store: &dyn Store,
    kind: &'static str,
    key: &Name,
    expected: u64,
    bytes: Option<Vec<u8>>,
) -> Result<bool, StoreError> {
    store.put_object(Put { kind: kind.into(), key: key.clone(), expected, bytes }).await
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(object: &Object) -> Result<T, StoreError> {
    serde_json::from_slice(&object.bytes).map_err(|error| {
        StoreError::Corrupt(format!("what is known of the tool `{}` cannot be read: {error}", object.key))
    })
}

pub(super) fn crowded(key: &str) -> StoreError {
    StoreError::Unavailable(format!("what is known of the tool `{key}` is changed by others all the time"))
}

#[cfg(test)]
mod tests {
    use windlass_ports::fake::ManualClock;
    use windlass_ports::fake::MemoryStore;

    use super::*;

    fn one(tool: &str) -> Blocked {
        let change = Change { place: "/description".into(), accepted: Some("a".into()), shown: Some("b".into()) };
        let (accepted, shown) = (Digest::of(b"accepted"), Some(Digest::of(b"shown")));
        let changes = vec![change; CHANGES_MAX + 1];
        Blocked { server: "s".into(), tool: tool.into(), accepted, shown, since: Timestamp(0), changes }
    }

    fn by(what: Verdict) -> Decision {
        Decision { what, by: "ann".into(), at: Timestamp(9), reason: "read it".into() }
    }

    fn process(store: &Arc<MemoryStore>) -> Quarantine {
        let quarantine = Quarantine::default();
        quarantine.bind(Arc::clone(store) as _, Arc::new(ManualClock::new(Timestamp(7), 0)));
        quarantine
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_process_saw_every_process_knows_until_a_person_releases_it() {
        let store = Arc::new(MemoryStore::new());
        let (first, other) = (process(&store), process(&store));
        let hash = Digest::of(b"accepted");
        assert_eq!(other.find(("s", "t", hash), true).await.unwrap(), None);
        first.block(one("t")).await;
        tokio::time::advance(Duration::from_millis(LOOK_MS)).await;
        for quarantine in [&first, &other, &process(&store)] {
            let found = quarantine.find(("s", "t", hash), true).await.unwrap().unwrap();
            assert_eq!((found.since, found.changes.len()), (Timestamp(7), CHANGES_MAX));
            assert_eq!(quarantine.find(("s", "t", Digest::of(b"another")), true).await.unwrap(), None);
            assert_eq!(quarantine.find(("s", "other", hash), true).await.unwrap(), None);
        }
        assert_eq!(release(&*store, "s", "other", &by(Verdict::Released)).await.unwrap(), []);
        assert_eq!(release(&*store, "s", "t", &by(Verdict::Released)).await.unwrap().len(), 1);
        assert!(first.find(("s", "t", hash), true).await.unwrap().is_some(), "it has read a moment ago");
        assert_eq!(first.find(("s", "t", hash), false).await.unwrap(), None, "it looks again where that will not do");
        tokio::time::advance(Duration::from_millis(LOOK_MS)).await;
        for quarantine in [&first, &other, &process(&store)] {
            assert_eq!(quarantine.find(("s", "t", hash), true).await.unwrap(), None);
        }
        let known = decided(&*store).await.unwrap();
        assert_eq!((known.len(), known[0].decisions.clone()), (1, vec![by(Verdict::Released)]));
        // It may be blocked again, also by whoever blocked it before.
        first.block(one("t")).await;
        assert_eq!(blocked(&*store).await.unwrap().len(), 1);
        accept(&*store, ("s", "t", hash), &by(Verdict::Accepted)).await.unwrap();
        assert_eq!(blocked(&*store).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_was_decided_longest_ago_is_forgotten_unless_it_is_blocked() {
        let store = Arc::new(MemoryStore::new());
        let hash = |n: u64| Digest::of(&n.to_be_bytes());
        let accepted = |n: u64| Decision { at: Timestamp(n), ..by(Verdict::Accepted) };
        accept(&*store, ("s", "t", hash(0)), &accepted(0)).await.unwrap();
        process(&store).block(Blocked { accepted: hash(0), ..one("t") }).await;
        // Names that begin alike are other tools.
        accept(&*store, ("s", "t2", hash(0)), &accepted(0)).await.unwrap();
        let count = DEFINITIONS_MAX as u64 + 5;
        for n in 1..=count {
            accept(&*store, ("s", "t", hash(n)), &accepted(n)).await.unwrap();
        }
        let mut kept: Vec<Digest> =
            decided(&*store).await.unwrap().into_iter().filter(|one| one.tool == "t").map(|one| one.hash).collect();
        let mut wanted: Vec<Digest> = (6..=count).chain([0]).map(hash).collect();
        kept.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(kept, wanted);
        assert!(decided(&*store).await.unwrap().iter().any(|one| one.tool == "t2"));
        assert_eq!(blocked(&*store).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn without_a_store_the_process_remembers() {
        let quarantine = Quarantine::default();
        quarantine.block(one("t")).await;
        assert!(quarantine.find(("s", "t", Digest::of(b"accepted")), true).await.unwrap().is_some());
    }
}
