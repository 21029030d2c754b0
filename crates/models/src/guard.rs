//! Stands before calls: breakers of links, quotas of models, the budget of repeats, and the answers from before. What it
//! turns away costs nothing and says when it may be tried again; the engine decides what follows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::value::Value;
use windlass_ports::model::ModelResult;

use crate::cache::{self, Cache, Key};
use crate::catalog::{Catalog, LinkEntry};
use crate::chains;
use crate::errors::Fault;
use crate::health::{self, Gate, Health, Repeats, Target};
use crate::wire::Answer;

/// The name of links that answer from before, and of their provider.
pub(crate) const CACHED: &str = "cached";

/// Failures that say something about the health of a link. The rate of calls is the quota's business.
const UNHEALTHY: &[Code] = &[
    Code::ProviderUnavailable,
    Code::ProviderUnreachable,
    Code::ProviderTimeout,
    Code::ProviderTruncated,
    Code::ProviderMalformed,
];

/// The part of an attempt's time that it may wait for quota, as one over this.
const WAIT_SHARE: u64 = 2;

/// Everything that is remembered between calls.
#[derive(Debug)]
pub(crate) struct Guard {
    catalog: Catalog,
    began: tokio::time::Instant,
    health: Mutex<Health>,
    cache: Mutex<Cache>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that was let through. Given up when it is dropped before [`Pass::ended`].
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    guard: &'a Guard,
    link: Option<(Name, Name)>,
    target: Option<Target>,
    probe: bool,
    /// That of the breaker when it let the call through.
    era: u64,
    began: u64,
}

impl Guard {
    pub(crate) fn new(catalog: Catalog) -> Self {
        let (health, cache) = (Mutex::default(), Mutex::default());
        Self { catalog, began: tokio::time::Instant::now(), health, cache }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn link(&self, link: &(Name, Name)) -> Option<&LinkEntry> {
        let chain = self.catalog.chain(&link.0)?;
        chain.links.iter().find(|entry| entry.name() == &*link.1)
    }

    /// Why calls of a link would be turned away now.
    pub(crate) fn shut(&self, chain: &str, link: &str, called: &ModelSettings) -> Option<Name> {
        let now = self.now();
        let health = locked(&self.health);
        let circuit = health.circuits.get(&(chain.to_owned(), link.to_owned()));
        if let Some(ms) = circuit.and_then(|circuit| circuit.shut(now)) {
            return Some(format!("its breaker is open for {ms} ms more").into());
        }
        let quota = health.quotas.get(&Target::of(called));
        let rests = quota.map_or(0, |quota| quota.rests(now));
        (rests > 0).then(|| format!("its quota is used up for {rests} ms more").into())
    }

    /// Lets a call through, or says why not. `counted` calls are subject to quotas and to the budget of repeats. Waits
    /// for quota as long as the run's class allows, and gives back how many milliseconds that took.
    pub(crate) async fn enter(&self, request: &ModelRequest, counted: bool) -> Result<(Pass<'_>, u64), Fault> {
        let target = counted.then(|| Target::of(&settings_of(request)));
        let mut pass = Pass { guard: self, link: None, target: None, probe: false, era: 0, began: self.now() };
        if let Some((link, entry)) = request.link.as_ref().and_then(|link| Some((link, self.link(link)?))) {
            let mut health = locked(&self.health);
            let circuit = health.circuits.entry((link.0.to_string(), link.1.to_string())).or_default();
            match circuit.enter(self.now(), &entry.breaker) {
                Gate::Shut(after_ms) => {
                    let why = format!("the breaker of link `{}` is open for {after_ms} ms more", link.1);
                    return Err(Fault::Shut { why, after_ms });
                }
                gate => pass.probe = gate == Gate::Probe,
            }
            pass.era = circuit.era();
            pass.link = Some(link.clone());
        }
        if let Some(target) = &target {
            let mut health = locked(&self.health);
            health.bound(self.now());
            let new = || Repeats::new(self.catalog.retry_budget);
            let may = health.repeats.entry(target.clone()).or_insert_with(new).enter(request.repeat);
            drop(health);
            if !may {
                return Err(Fault::Exhausted(format!("the budget of repeats of `{}` is used up", target.model)));
            }
        }
        let waited = match &target {
            Some(target) => self.wait(target, request).await?,
            None => 0,
        };
        (pass.target, pass.began) = (target, self.now());
        Ok((pass, waited))
    }

    async fn wait(&self, target: &Target, request: &ModelRequest) -> Result<u64, Fault> {
        let patience = self.catalog.quota_wait.of(request.priority).min(request.timeout_ms / WAIT_SHARE);
        let began = self.now();
        loop {
            let now = self.now();
            let wait = locked(&self.health).quotas.entry(target.clone()).or_default().enter(now);
            let waited = now.saturating_sub(began);
            if wait == 0 {
                return Ok(waited);
            }
            if waited.saturating_add(wait) > patience {
                return Err(Fault::Shed { model: target.model.to_string(), after_ms: wait });
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// The kept answer to a request of a chain: that of the first link which would be called as it was, and whose model the
    /// policy does not forbid to whoever asks.
    pub(crate) fn find(&self, request: &ModelRequest, today: Date) -> Option<(Answer, Value)> {
        let chain = self.catalog.chain(&request.link.as_ref()?.0)?;
        let asked = settings_of(request);
        let mut cache = locked(&self.cache);
        let now = self.now();
        let reply = chain.links.iter().find_map(|link| {
            let is_denied = request.denied.iter().any(|name| &**name == link.name());
            if link.name() == CACHED || is_denied {
                return None;
            }
            let called = chains::settings(&self.catalog, &chain.name, link, &asked, today)?;
            cache.find(now, &Key::of(&chain.name, link.name(), &called, request))
        })?;
        Some(cache::answer(&reply))
    }

    /// Keeps the answer to a request of a chain that keeps answers.
    pub(crate) fn keep(&self, request: &ModelRequest, result: &ModelResult) {
        let (Some((chain, link)), Ok(reply)) = (&request.link, &result.outcome) else { return };
        let ttl_ms = self.catalog.chain(chain).map_or(0, |chain| chain.cache_ttl_ms);
        if ttl_ms > 0 && &**link != CACHED && cache::applies(request) {
            let key = Key::of(chain, link, &settings_of(request), request);
            locked(&self.cache).keep(self.now(), key, reply, ttl_ms);
        }
    }
}

/// How a request is made.
fn settings_of(request: &ModelRequest) -> ModelSettings {
    ModelSettings {
        provider: request.provider.clone(),
        model: request.model.clone(),
        base_url: request.base_url.clone(),
        key: request.key.clone(),
        max_tokens: request.max_tokens,
        stream: request.stream,
        params: request.params.clone(),
        timeout_ms: request.timeout_ms,
    }
}

impl Pass<'_> {
    /// The call ended so.
    pub(crate) fn ended(mut self, result: &ModelResult) {
        let now = self.guard.now();
        let failure = result.outcome.as_ref().err();
        let unhealthy = failure.is_some_and(|failure| UNHEALTHY.contains(&failure.code));
        let mut health = locked(&self.guard.health);
        if let Some(link) = self.link.take() {
            let rules = self.guard.link(&link).map(|entry| entry.breaker).unwrap_or_default();
            let circuit = health.circuits.entry((link.0.to_string(), link.1.to_string())).or_default();
            circuit.ended(self.era, now, unhealthy, now.saturating_sub(self.began), &rules);
        }
        if let Some(quota) = self.target.take().and_then(|target| health.quotas.get_mut(&target)) {
            match (failure, &result.outcome) {
                (Some(failure), _) if failure.code == Code::ProviderRateLimited => {
                    quota.refused(now, asked_ms(failure.retry));
                }
                (_, Ok(reply)) => {
                    let windows = reply.provider_data.get("rate_limits").cloned().unwrap_or_default();
                    quota.answered(now, health::empty_ms(&windows, jiff::Timestamp::now()));
                }
                _ => quota.ended(),
            }
        }
    }
}

fn asked_ms(retry: windlass_core::failure::Retry) -> Option<u64> {
    match retry {
        windlass_core::failure::Retry::After(ms) => Some(ms),
        windlass_core::failure::Retry::Backoff
        | windlass_core::failure::Retry::Never
        | windlass_core::failure::Retry::Unknown => None,
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut health = locked(&self.guard.health);
        if let Some(link) = self.link.take().filter(|_| self.probe)
            && let Some(circuit) = health.circuits.get_mut(&(link.0.to_string(), link.1.to_string()))
        {
            circuit.dropped(self.era);
        }
        if let Some(quota) = self.target.take().and_then(|target| health.quotas.get_mut(&target)) {
            quota.ended();
        }
    }
}
