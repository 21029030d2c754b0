//! Stands before calls: breakers of links, quotas of models, the budget of repeats, and the answers from before. What it
//! turns away costs nothing and says when it may be tried again; the engine decides what follows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use windlass_core::failure::Code;
use windlass_core::ids::Name;
use windlass_core::machine::{ModelSettings, Priority};
use windlass_core::request::ModelRequest;
use windlass_core::value::Value;
use windlass_ports::model::ModelResult;
use windlass_ports::quota::{News, Quotas};

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

/// How much longer than the class above it a class waits after a rest, in milliseconds.
const LATER_MS: u64 = 40;
/// How much longer than its own time a call that looks may take, in milliseconds.
const PROBE_SLACK_MS: u64 = 1_000;
/// When a call is told to come again that was turned away while another one looks, in milliseconds.
const LOOKED_MS: u64 = 1_000;

/// Everything that is remembered between calls.
#[derive(Debug)]
pub(crate) struct Guard {
    catalog: Catalog,
    began: tokio::time::Instant,
    health: Mutex<Health>,
    cache: Mutex<Cache>,
    /// What is known beyond this process.
    quotas: Option<Arc<dyn Quotas>>,
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
    /// Whether it goes alone, to see whether a quota is back.
    looks: bool,
    /// That of the breaker when it let the call through.
    era: u64,
    began: u64,
}

impl Guard {
    pub(crate) fn new(catalog: Catalog, quotas: Option<Arc<dyn Quotas>>) -> Self {
        let (health, cache) = (Mutex::default(), Mutex::default());
        Self { catalog, began: tokio::time::Instant::now(), health, cache, quotas }
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
        let target = Target::of(called);
        let rests = match &self.quotas {
            Some(quotas) => quotas.known(&target.name()).ms,
            None => health.quotas.get(&target).map_or(0, |quota| quota.rests(now)),
        };
        (rests > 0).then(|| format!("its quota is used up for {rests} ms more").into())
    }

    /// Lets a call through, or says why not. `counted` calls are subject to quotas and to the budget of repeats. Waits
    /// for quota as long as the run's class allows, and gives back how many milliseconds that took.
    pub(crate) async fn enter(&self, request: &ModelRequest, counted: bool) -> Result<(Pass<'_>, u64), Fault> {
        let target = counted.then(|| Target::of(&settings_of(request)));
        let mut pass =
            Pass { guard: self, link: None, target: None, probe: false, looks: false, era: 0, began: self.now() };
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
        let (waited, looks) = match (&target, &self.quotas) {
            (Some(target), Some(quotas)) => self.wait_with_others(&**quotas, target, request).await?,
            (Some(target), None) => (self.wait(target, request).await?, false),
            (None, _) => (0, false),
        };
        pass.looks = looks;
        (pass.target, pass.began) = (target, self.now());
        Ok((pass, waited))
    }

    async fn wait(&self, target: &Target, request: &ModelRequest) -> Result<u64, Fault> {
        let patience = self.patience(request);
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

    /// The same, by what all processes know. Also whether this call is the one that looks whether the quota is back.
    async fn wait_with_others(
        &self,
        quotas: &dyn Quotas,
        target: &Target,
        request: &ModelRequest,
    ) -> Result<(u64, bool), Fault> {
        let patience = self.patience(request);
        let (began, name) = (self.now(), target.name());
        loop {
            let rest = quotas.look(&name).await;
            let waited = self.now().saturating_sub(began);
            let wait = if rest.ms > 0 {
                // Whoever waits in a higher class is the one to look, and goes first.
                rest.ms
                    + LATER_MS * Priority::ALL.iter().position(|class| *class == request.priority).unwrap_or(0) as u64
            } else if rest.alone {
                match quotas.probe(&name, request.timeout_ms.saturating_add(PROBE_SLACK_MS)).await {
                    Ok(()) => return Ok((waited, true)),
                    Err(wait) => wait,
                }
            } else {
                return Ok((waited, false));
            };
            if waited.saturating_add(wait) > patience {
                let after_ms = if rest.ms > 0 { rest.ms } else { wait.max(LOOKED_MS) };
                return Err(Fault::Shed { model: target.model.to_string(), after_ms });
            }
            tokio::time::sleep(Duration::from_millis(wait.max(1))).await;
        }
    }

    /// How long a call waits for quota.
    fn patience(&self, request: &ModelRequest) -> u64 {
        self.catalog.quota_wait.of(request.priority).min(request.timeout_ms / WAIT_SHARE)
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
        if let Some(quotas) = &self.guard.quotas {
            if let Some(target) = self.target.take() {
                drop(health);
                let left_ago_ms = now.saturating_sub(self.began);
                learn(&**quotas, &target.name(), left_ago_ms, std::mem::take(&mut self.looks), result);
            }
            return;
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

/// Tells what a call that ended says of its quota.
fn learn(quotas: &dyn Quotas, target: &str, left_ago_ms: u64, looks: bool, result: &ModelResult) {
    match &result.outcome {
        Err(failure) if failure.code == Code::ProviderRateLimited => {
            quotas.tell(target, News::Refused { left_ago_ms, asked_ms: asked_ms(failure.retry) });
        }
        Err(_) if looks => quotas.tell(target, News::Unsure),
        Err(_) => {}
        Ok(reply) => {
            if looks {
                quotas.tell(target, News::Back);
            }
            let windows = reply.provider_data.get("rate_limits").cloned().unwrap_or_default();
            if let Some(ms) = health::empty_ms(&windows, jiff::Timestamp::now()).filter(|ms| *ms > 0) {
                quotas.tell(target, News::Empty(ms));
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
        let target = self.target.take();
        if let Some(quota) = target.as_ref().and_then(|target| health.quotas.get_mut(target)) {
            quota.ended();
        }
        drop(health);
        if let (Some(quotas), Some(target), true) = (&self.guard.quotas, target, self.looks) {
            quotas.tell(&target.name(), News::Unsure);
        }
    }
}
