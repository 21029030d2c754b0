//! Quotas of providers as the processes of a store know them together: read now and then while models are called, written
//! when a call learns something. Without a store it knows what this process has learnt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::clock::Clock;
use windlass_ports::quota::{News, Quotas, Rest};
use windlass_ports::store::{Object, Put, Store, StoreError};

use super::objects;
use crate::quota::Notice;

/// The kind of the objects that say what is known of quotas, by the names of their models.
const QUOTA: &str = "quota";
/// How old what others have learnt may be when a call is made.
const FRESH: Duration = Duration::from_millis(400);
/// How long a call waits for a look. A store that does not answer holds up none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Notices that are read.
const NOTICES_MAX: usize = 1_000;
/// How often a change is tried that others come before.
const TRIES_MAX: u32 = 8;
/// How soon a process asks again that could not tell whether it may look, in milliseconds.
const AGAIN_MS: u64 = 100;

/// Every quota that is used up, or was, as the store knows it, in the order of their names.
///
/// # Errors
/// A store that fails.
pub async fn quotas(store: &dyn Store) -> Result<Vec<(Name, Notice)>, StoreError> {
    let objects = store.objects(QUOTA.into(), None, NOTICES_MAX).await?;
    let notice = |object: Object| {
        let notice = objects::decode("notice of a quota", &object.key, &object.bytes)?;
        Ok((object.key, notice))
    };
    objects.into_iter().map(notice).collect()
}

/// Where quotas are shared.
#[derive(Debug)]
struct Place {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

/// News that are to be written.
#[derive(Debug)]
struct Told {
    target: Name,
    news: News,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct Inner {
    place: OnceLock<Place>,
    by: OnceLock<Name>,
    known: Mutex<BTreeMap<Name, Notice>>,
    read_at: Mutex<Option<Instant>>,
    reading: tokio::sync::Mutex<()>,
    unwritten: Mutex<VecDeque<Told>>,
    writing: AtomicBool,
}

/// Quotas that are shared once they are bound to a store. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct SharedQuotas(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedQuotas {
    /// Shares them over a store, from here on. `clock` tells its time. Only the first store counts.
    pub fn bind(&self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
        let by = format!("q-{:016x}", clock.seed()).into();
        if self.0.place.set(Place { store, clock }).is_ok() {
            let _first = self.0.by.set(by);
        }
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        let system = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        };
        self.place.get().map_or_else(system, |place| place.clock.now())
    }

    fn by(&self) -> Name {
        self.by.get().cloned().unwrap_or_else(|| "here".into())
    }

    fn rest(&self, target: &str) -> Rest {
        lock(&self.known).get(target).map(|notice| notice.rest(self.now())).unwrap_or_default()
    }

    /// Notes news here.
    fn note(&self, told: &Told) {
        let mut known = lock(&self.known);
        let before = known.remove(&told.target);
        if let Some(after) = Notice::after(before, told.news, &self.by(), told.at) {
            known.insert(told.target.clone(), after);
        }
    }

    /// Reads what others have learnt, unless that was not long ago.
    async fn refresh(&self) {
        let Some(place) = self.place.get() else { return };
        let is_fresh = || lock(&self.read_at).is_some_and(|at| at.elapsed() < FRESH);
        if is_fresh() {
            return;
        }
        let _reading = self.reading.lock().await;
        if is_fresh() {
            return;
        }
        match timeout(PATIENCE, quotas(&*place.store)).await {
            Ok(Ok(found)) => {
                let mut found: BTreeMap<Name, Notice> = found.into_iter().collect();
                let mut known = lock(&self.known);
                // What is not written yet is known here alone.
                for told in lock(&self.unwritten).iter() {
                    match known.get(&told.target) {
                        Some(notice) => drop(found.insert(told.target.clone(), notice.clone())),
                        None => drop(found.remove(&told.target)),
                    }
                }
                *known = found;
            }
            Ok(Err(error)) => tracing::debug!(%error, "quotas of providers could not be looked up"),
            Err(_) => tracing::debug!("quotas of providers were not looked up in time"),
        }
        *lock(&self.read_at) = Some(Instant::now());
    }

    /// Changes what the store knows of a target, and what is known here. What `change` refuses stays as it is.
    async fn change<E>(
        &self,
        place: &Place,
        target: &Name,
        change: impl Fn(Option<Notice>) -> Result<Option<Notice>, E>,
    ) -> Result<Result<(), E>, StoreError> {
        for _ in 0..TRIES_MAX {
            let object = place.store.object(QUOTA.into(), target.clone()).await?;
            let expected = object.as_ref().map_or(0, |object| object.revision);
            let before: Option<Notice> =
                object.map(|object| objects::decode("notice of a quota", target, &object.bytes)).transpose()?;
            let after = match change(before.clone()) {
                Ok(after) => after,
                Err(refused) => {
                    self.keep(target, before);
                    return Ok(Err(refused));
                }
            };
            let bytes = after.as_ref().map(serde_json::to_vec).transpose();
            let bytes = bytes.map_err(|error| StoreError::Invalid(error.to_string()))?;
            let put = Put { kind: QUOTA.into(), key: target.clone(), expected, bytes };
            if after == before || place.store.put_object(put).await? {
                self.keep(target, after);
                return Ok(Ok(()));
            }
        }
        Err(StoreError::Unavailable(format!("others kept changing what is known of the quota of `{target}`")))
    }

    fn keep(&self, target: &Name, notice: Option<Notice>) {
        let mut known = lock(&self.known);
        match notice {
            Some(notice) => drop(known.insert(target.clone(), notice)),
            None => drop(known.remove(target)),
        }
    }

    /// Writes what is to be written, in order.
    async fn write(&self) {
        let Some(place) = self.place.get() else { return };
        loop {
            let next = lock(&self.unwritten).front().map(|told| (told.target.clone(), told.news, told.at));
            let Some((target, news, at)) = next else {
                self.writing.store(false, Ordering::Release);
                // Something may have come before that was seen.
                if lock(&self.unwritten).is_empty() || self.writing.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            };
            let by = self.by();
            let after = |before| Ok::<_, std::convert::Infallible>(Notice::after(before, news, &by, at));
            if let Err(error) = self.change(place, &target, after).await {
                tracing::warn!(%error, target = %target, "other workers could not be told of a quota");
            }
            lock(&self.unwritten).pop_front();
        }
    }

    async fn probe(&self, target: &str, for_ms: u64) -> Result<(), u64> {
        let (target, by): (Name, Name) = (target.into(), self.by());
        let Some(place) = self.place.get() else {
            let mut known = lock(&self.known);
            let now = self.now();
            return match known.get(&target).map(|notice| notice.probed(&by, for_ms, now)) {
                None => Ok(()),
                Some(Ok(probed)) => {
                    known.insert(target, probed);
                    Ok(())
                }
                Some(Err(ms)) => Err(ms),
            };
        };
        let now = self.now();
        if let Some(Err(ms)) = lock(&self.known).get(&target).map(|notice| notice.probed(&by, for_ms, now)) {
            return Err(ms);
        }
        if lock(&self.unwritten).iter().any(|told| told.target == target) {
            // What others are to know goes first.
            return Err(AGAIN_MS);
        }
        let change = |before: Option<Notice>| match before.filter(|notice| notice.alone) {
            Some(notice) => notice.probed(&by, for_ms, self.now()).map(Some),
            // Another process has found that it is back.
            None => Ok(None),
        };
        match self.change(place, &target, change).await {
            Ok(allowed) => allowed,
            Err(error) => {
                tracing::debug!(%error, target = %target, "who looks whether a quota is back could not be told");
                Err(AGAIN_MS)
            }
        }
    }
}

impl Quotas for SharedQuotas {
    fn known(&self, target: &str) -> Rest {
        self.0.rest(target)
    }

    fn look<'a>(&'a self, target: &'a str) -> BoxFuture<'a, Rest> {
        Box::pin(async move {
            self.0.refresh().await;
            self.0.rest(target)
        })
    }

    fn probe<'a>(&'a self, target: &'a str, for_ms: u64) -> BoxFuture<'a, Result<(), u64>> {
        Box::pin(self.0.probe(target, for_ms))
    }

    fn tell(&self, target: &str, news: News) {
        let told = Told { target: target.into(), news, at: self.0.now() };
        self.0.note(&told);
        if self.0.place.get().is_none() {
            return;
        }
        lock(&self.0.unwritten).push_back(told);
        if self.0.writing.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.0);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { inner.write().await })),
            Err(_) => self.0.writing.store(false, Ordering::Release),
        }
    }
}
