//! What stands before the calls of a tool: how many at once, for all and for one tenant, how many in a minute, a bounded
//! queue, a breaker, and what happens beyond. Also what becomes of a result that is too large.
//!
//! Limits are of one process: several workers together do several times as much. What is turned away was not sent.

mod breaker;
mod pace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use windlass_core::contract::{Class, Contract};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::handoff::beginning;
use windlass_core::ids::Name;
use windlass_core::label::cut_answer;
use windlass_core::limits::VALUE_BYTES_MAX;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Invocation, Tool};

use crate::build::Site;
use crate::role::{Caller, Role};

use breaker::{Breaker, Entered};
use pace::Pace;

/// Calls at once that a tool without limits of its own gets.
const CONCURRENT_DEFAULT: u32 = 256;
/// The same for one tenant.
const TENANT_DEFAULT: u32 = 128;
/// Calls that wait for their turn.
const QUEUE_DEFAULT: u32 = 1_024;
/// Failures in a row after which a tool is left alone.
const FAILURES_DEFAULT: u32 = 10;
/// Milliseconds for which it is.
const REST_MS_DEFAULT: u64 = 10_000;
/// Tenants whose counts are remembered while none of their calls is out.
const TENANTS_MAX: usize = 10_000;
/// How many times its bound a result is read in order to cut it.
const READ_AHEAD: u64 = 16;

/// What happens to a call for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overload {
    /// It fails at once; the engine may try it again.
    Fail,
    /// It waits for its turn.
    #[default]
    Queue,
    /// It answers with `degraded`. Only for tools of class `read`.
    Degrade,
}

/// What happens to a result that is larger than `output_bytes_max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLarge {
    /// The call fails with `tool.output_too_large`.
    #[default]
    Refuse,
    /// The result is `{"truncated": true, "bytes", "text"}` with the beginning of it as text.
    Truncate,
}

/// How much a tool is asked at once, in this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Calls at once. Default: 256.
    pub concurrent: Option<u32>,
    /// Calls at once of one tenant. Default: 128.
    pub concurrent_per_tenant: Option<u32>,
    /// Calls that begin in any minute, wherever it starts. Default: any number.
    pub per_minute: Option<u32>,
    /// What happens to a call for which there is no room: `fail`, `queue`, or `degrade`. Default: `queue`.
    pub overload: Option<Overload>,
    /// Calls that wait for their turn; a further one fails. Default: 1024.
    pub queue_max: Option<u32>,
    /// Calls of one tenant that wait for their turn. Default: half of `queue_max`.
    pub queue_max_per_tenant: Option<u32>,
    /// How long a call waits for its turn, in milliseconds. Default: half of its time.
    pub queue_ms: Option<u64>,
    /// The result of a call for which there is no room, with `overload = "degrade"`.
    pub degraded: Option<serde_json::Value>,
    /// Calls in a row that cannot be reached or take too long, after which the tool is left alone. Default: 10.
    pub breaker_failures: Option<u32>,
    /// How long it is left alone, in milliseconds, before one call tries it again. Default: 10000.
    pub breaker_rest_ms: Option<u64>,
}

/// Checks a table, and gives the tool its limits.
pub(crate) fn limited(
    site: &mut Site<'_>,
    config: Option<&LimitsConfig>,
    contract: Contract,
    on_large: OnLarge,
    role: Role,
    make: impl FnOnce(&mut Site<'_>, Contract) -> Option<Arc<dyn Tool>>,
) -> Option<Arc<dyn Tool>> {
    check(site, config, contract.class);
    if on_large == OnLarge::Truncate && !contract.redact.result.is_empty() {
        let message = "of a result that is cut nobody knows where the parts are that `redact` hides";
        site.wrong("on_large", message, None);
    }
    if on_large == OnLarge::Truncate && !contract.output_schema.is_null() {
        site.wrong("on_large", "a result that is cut does not fit `output_schema`", None);
    }
    let inner = match on_large {
        OnLarge::Refuse => contract.clone(),
        OnLarge::Truncate => Contract { output_bytes_max: ahead(contract.output_bytes_max), ..contract.clone() },
    };
    let inner = make(site, inner)?;
    Some(wrapped(inner, contract, &config.cloned().unwrap_or_default(), on_large, role))
}

/// A tool with its limits, from a table that was checked.
pub(crate) fn wrapped(
    inner: Arc<dyn Tool>,
    contract: Contract,
    config: &LimitsConfig,
    on_large: OnLarge,
    role: Role,
) -> Arc<dyn Tool> {
    Arc::new(Limited::new(inner, contract, config, on_large, role))
}

/// Says what of a table cannot be used.
pub(crate) fn check(site: &mut Site<'_>, config: Option<&LimitsConfig>, class: Class) {
    let Some(config) = config else { return };
    let numbers = [
        ("limits.concurrent", config.concurrent.map(u64::from)),
        ("limits.concurrent_per_tenant", config.concurrent_per_tenant.map(u64::from)),
        ("limits.per_minute", config.per_minute.map(u64::from)),
        ("limits.breaker_failures", config.breaker_failures.map(u64::from)),
        ("limits.breaker_rest_ms", config.breaker_rest_ms),
    ];
    for (key, _) in numbers.iter().filter(|(_, number)| *number == Some(0)) {
        site.wrong(key, "must be at least 1", None);
    }
    match (config.overload.unwrap_or_default(), &config.degraded) {
        (Overload::Degrade, None) => site.wrong("limits.degraded", "`overload = \"degrade\"` needs a result", None),
        (Overload::Degrade, Some(_)) if class != Class::Read => {
            let hint = "only a tool of class `read` can be answered for";
            site.wrong("limits.overload", "a call that changes something cannot be answered without it", Some(hint));
        }
        (Overload::Fail | Overload::Queue, Some(_)) => {
            site.wrong("limits.degraded", "is used with `overload = \"degrade\"` only", None);
        }
        (Overload::Degrade | Overload::Fail | Overload::Queue, _) => {}
    }
}

/// Bytes that are read in order to cut a result to its bound.
fn ahead(bytes_max: u64) -> u64 {
    bytes_max.saturating_mul(READ_AHEAD).min(VALUE_BYTES_MAX as u64).max(bytes_max)
}

/// A tool with its limits.
#[derive(Debug)]
struct Limited {
    inner: Arc<dyn Tool>,
    contract: Contract,
    caller: Caller,
    all: Arc<Semaphore>,
    tenants: Mutex<BTreeMap<Name, Tenant>>,
    per_tenant: u32,
    pace: Option<Pace>,
    overload: Overload,
    queued: AtomicU32,
    queue_max: u32,
    queue_max_per_tenant: u32,
    queue_ms: Option<u64>,
    degraded: Value,
    breaker: Breaker,
    on_large: OnLarge,
}

/// What one tenant has of a tool.
#[derive(Clone, Debug)]
struct Tenant {
    /// Its calls. Held by those that are out and by those that wait.
    calls: Arc<Semaphore>,
    queued: Arc<AtomicU32>,
}

/// A call that may go.
struct Turn<'a> {
    _permits: Vec<OwnedSemaphorePermit>,
    entered: Entered<'a>,
}

/// Why a call may not go now.
enum Busy {
    /// There is no room; perhaps in so many milliseconds.
    Full(&'static str, u64),
    /// The breaker is open for so long, in milliseconds.
    Resting(u64),
}

impl Limited {
    fn new(inner: Arc<dyn Tool>, contract: Contract, config: &LimitsConfig, on_large: OnLarge, role: Role) -> Self {
        let concurrent = config.concurrent.unwrap_or(CONCURRENT_DEFAULT);
        let queue_max = config.queue_max.unwrap_or(QUEUE_DEFAULT);
        let failures_max = config.breaker_failures.unwrap_or(FAILURES_DEFAULT);
        Self {
            inner,
            caller: Caller::of(&contract, role),
            contract,
            all: Arc::new(Semaphore::new(concurrent as usize)),
            tenants: Mutex::default(),
            per_tenant: config.concurrent_per_tenant.unwrap_or(TENANT_DEFAULT).min(concurrent),
            pace: config.per_minute.map(Pace::new),
            overload: config.overload.unwrap_or_default(),
            queued: AtomicU32::new(0),
            queue_max,
            queue_max_per_tenant: config.queue_max_per_tenant.unwrap_or(queue_max.div_ceil(2)).min(queue_max),
            queue_ms: config.queue_ms,
            degraded: config.degraded.clone().map(Into::into).unwrap_or_default(),
            breaker: Breaker::new(failures_max, config.breaker_rest_ms.unwrap_or(REST_MS_DEFAULT)),
            on_large,
        }
    }

    fn tenant(&self, tenant: &Name) -> Tenant {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.len() >= TENANTS_MAX {
            tenants.retain(|_, tenant| Arc::strong_count(&tenant.calls) > 1);
        }
        let new = || Tenant {
            calls: Arc::new(Semaphore::new(self.per_tenant as usize)),
            queued: Arc::new(AtomicU32::new(0)),
        };
        tenants.entry(tenant.clone()).or_insert_with(new).clone()
    }

    /// A turn, once there is room and the tool is not left alone.
    async fn turn(&self, invocation: &Invocation) -> Result<Turn<'_>, Busy> {
        let entered = self.breaker.enter().map_err(Busy::Resting)?;
        let now = Instant::now();
        let waits_ms = match self.overload {
            Overload::Queue => self.queue_ms.unwrap_or(invocation.timeout_ms / 2).min(invocation.timeout_ms),
            Overload::Fail | Overload::Degrade => 0,
        };
        let until = now + Duration::from_millis(waits_ms);
        let permits = self.room(&invocation.tenant, until, waits_ms > 0).await?;
        if let Some(pace) = &self.pace {
            let wait = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let full = |ms| Busy::Full("as many calls began in this minute as may", ms);
            pace.book(Instant::now(), until).map_err(|time| full(wait(time)))?.begin().await;
        }
        Ok(Turn { _permits: permits, entered })
    }

    async fn room(&self, tenant: &Name, until: Instant, waits: bool) -> Result<Vec<OwnedSemaphorePermit>, Busy> {
        let (Tenant { calls: of_tenant, queued }, of_all) = (self.tenant(tenant), Arc::clone(&self.all));
        let at_once = || {
            let first =
                Arc::clone(&of_tenant).try_acquire_owned().map_err(|_| "its tenant has as many calls out as it may")?;
            let second = Arc::clone(&of_all).try_acquire_owned().map_err(|_| "as many calls are out as may be")?;
            Ok(vec![first, second])
        };
        match at_once() {
            Ok(permits) => Ok(permits),
            Err(why) if !waits => Err(Busy::Full(why, 0)),
            Err(why) => {
                let _own = Place::take(&queued, self.queue_max_per_tenant)
                    .ok_or(Busy::Full("as many calls of its tenant wait for it as may", 0))?;
                let _place = Place::take(&self.queued, self.queue_max).ok_or(Busy::Full("its queue is full", 0))?;
                let both = async {
                    // Semaphores are never closed.
                    let first = of_tenant.acquire_owned().await.ok()?;
                    Some(vec![first, of_all.acquire_owned().await.ok()?])
                };
                timeout_at(until, both).await.ok().flatten().ok_or(Busy::Full(why, 0))
            }
        }
    }

    /// The answer to a call for which there is no room.
    fn turned_away(&self, busy: &Busy) -> Result<Value, Failure> {
        if self.overload == Overload::Degrade {
            return Ok(self.degraded.clone());
        }
        let (why, retry) = match busy {
            Busy::Full(why, 0) => ((*why).to_owned(), Retry::Backoff),
            Busy::Full(why, ms) => ((*why).to_owned(), Retry::After(*ms)),
            Busy::Resting(ms) => (
                format!("it failed {} times in a row, and is left alone for {ms} ms", self.breaker.failures_max()),
                Retry::After(*ms),
            ),
        };
        Err(self.caller.turned_away(why).retry(retry))
    }

    fn sized(&self, value: Value, bytes_max: u64) -> Result<Value, Failure> {
        if self.on_large == OnLarge::Refuse {
            return Ok(value);
        }
        let bytes = value.size_bytes() as u64;
        if bytes <= bytes_max { Ok(value) } else { Ok(cut(&value, bytes, bytes_max)) }
    }
}

/// The beginning of a result, as text, within a bound.
fn cut(value: &Value, bytes: u64, bytes_max: u64) -> Value {
    let text = value.as_str().map_or_else(|| value.to_json(), str::to_owned);
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    beginning(&text, most, |start| cut_answer(bytes, start), |value| value.size_bytes() <= most)
}

impl Tool for Limited {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let began = Instant::now();
            let turn = match self.turn(&invocation).await {
                Ok(turn) => turn,
                Err(busy) => return self.turned_away(&busy),
            };
            invocation.permit.depart()?;
            let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let bytes_max = invocation.output_bytes_max.min(self.contract.output_bytes_max);
            let inner_max = if self.on_large == OnLarge::Truncate { ahead(bytes_max) } else { bytes_max };
            let timeout_ms = invocation.timeout_ms.min(self.contract.timeout_ms).saturating_sub(waited_ms).max(1);
            let result = self.inner.call(Invocation { timeout_ms, output_bytes_max: inner_max, ..invocation }).await;
            turn.entered.ended(result.as_ref().is_err_and(is_unhealthy));
            result.and_then(|value| self.sized(value, bytes_max))
        }
        .boxed()
    }

    // It departs by itself, once it has its turn.
    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        self.call(invocation)
    }
}

/// Whether a failure says that the tool is not well.
fn is_unhealthy(failure: &Failure) -> bool {
    matches!(failure.code, Code::ToolTimeout | Code::ToolUnreachable | Code::HookTimeout | Code::HookUnreachable)
}

/// A place in a bounded queue.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicU32, most: u32) -> Option<Self> {
        let more = |now: u32| (now < most).then(|| now + 1);
        queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self(queued))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
