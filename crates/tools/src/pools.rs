//! `distributed-worker`: the hook of the format's work pools. A checker machine sees how much waits and starts workers, a
//! worker machine claims a job and does it, a reaper machine takes back what was lost.
//!
//! Owns jobs and the list of worker machines, kept as objects of the store. Runs and the processes that drive them are
//! not its part: a worker machine whose process dies goes on in another one.

mod jobs;
mod roster;
mod spawn;

use std::fmt;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use windlass_core::escrow::escaped;
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::hidden;
use windlass_core::ids::Name;
use windlass_core::machine::HookKind;
use windlass_core::spawn as spawning;
use windlass_core::time::Timestamp;
use windlass_core::value::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_ports::clock::Clock;
use windlass_ports::store::{Object, Put, Store, StoreError};
use windlass_ports::tool::{Hook, HookEvent};

use crate::answer;
use crate::build::Site;
use crate::config::HookConfig;
use crate::kind::{Kind, Make};
use crate::role::Caller;
use jobs::Given;

/// `distributed-worker`.
pub(crate) const KIND: Kind = Kind {
    name: "distributed-worker",
    summary: "The format's work pools, kept in the store: claims and settles jobs, lists workers, starts them.",
    keys: &[],
    make: Make::Hook(make),
};

/// The pool of machines that name none.
const POOL_DEFAULT: &str = "default";
/// Tries of a change that others get ahead of.
const TRIES_MAX: u32 = 64;
/// Objects read at a time.
const PAGE: usize = 200;

#[expect(clippy::unnecessary_wraps, reason = "the shape that every kind has")]
fn make(site: &mut Site<'_>, _table: &HookConfig) -> Option<Arc<dyn Hook>> {
    Some(Arc::new(PoolHook(site.pools())))
}

/// What the hook works with, known once the engine is there.
#[derive(Debug)]
struct Behind {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

/// A handle on the work pools of a process. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct WorkPools(Arc<OnceLock<Behind>>);

impl WorkPools {
    /// Gives the hook what it works with. Only the first time counts.
    pub fn bind(&self, store: Arc<dyn Store>, clock: Arc<dyn Clock>) {
        let _first = self.0.set(Behind { store, clock });
    }
}

/// The hook.
#[derive(Debug)]
pub(crate) struct PoolHook(pub(crate) WorkPools);

impl Hook for PoolHook {
    fn events(&self) -> &[HookKind] {
        &[HookKind::Action]
    }

    fn include_machine(&self) -> bool {
        false
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async move {
            let caller = Caller::hook(&event.hook, event.kind);
            let Some(behind) = self.0.0.get() else {
                return Err(caller.unreachable("there is no store in this process"));
            };
            let asked = Asked { behind, caller: &caller, event: &event };
            let Some(Given { output, secret, hidden, spawn }) = asked.act().await? else { return Ok(Value::Null) };
            let mut body = self::output([("context", asked.merged(&output)), ("output", Value::map(output))]);
            if !secret.is_empty() {
                body.insert("secret".into(), Value::list(secret));
            }
            if !hidden.is_empty() {
                body.insert(hidden::SAID.into(), hidden.said());
            }
            let answer = answer::hook_answer(&caller, event.kind, Value::map(body))?;
            let (Some(spawn), Some(map)) = (spawn, answer.as_map()) else { return Ok(answer) };
            let mut map = map.clone();
            map.insert(spawning::SAID.into(), spawn.said());
            Ok(Value::map(map))
        }
        .boxed()
    }
}

/// One action that was asked for.
struct Asked<'a> {
    behind: &'a Behind,
    caller: &'a Caller,
    event: &'a HookEvent,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("event", self.event).finish_non_exhaustive()
    }
}

impl Asked<'_> {
    /// What the action gives. None for an action that is not one of this hook: another one may do it.
    async fn act(&self) -> Result<Option<Given>, Failure> {
        let action = self.event.body.get("action").and_then(Value::as_str).unwrap_or_default();
        let output = match action {
            "get_pool_state" => self.pool_state().await?,
            "push_job" => self.push_job().await?,
            "claim_job" => return self.claim_job().await.map(Some),
            "complete_job" => self.complete_job().await?,
            "fail_job" => self.fail_job().await?,
            "register_worker" => self.register().await?,
            "deregister_worker" => self.deregister().await?,
            "heartbeat" => self.heartbeat().await?,
            "list_stale_workers" => self.stale().await?,
            "reap_worker" => self.reap_one().await?,
            "reap_stale_workers" => self.reap_all().await?,
            "calculate_spawn" => self.calculate_spawn(),
            "spawn_workers" => return Ok(Some(self.spawn())),
            _ => return Ok(None),
        };
        Ok(Some(Given { output, ..Given::default() }))
    }

    fn context(&self, key: &str) -> Option<&Value> {
        self.event.body.get("context").and_then(|context| context.get(key)).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.context(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A number of the context, also one that is spelled out.
    fn number(&self, key: &str, default: u64) -> u64 {
        let Some(value) = self.context(key) else { return default };
        let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        number.map_or(default, |number| number.max(0.0) as u64)
    }

    /// A kind of objects: one tenant's list of a pool. No tenant reaches another one's, whatever they are called.
    fn list(&self, list: &str, pool: &str) -> String {
        format!("pool.{list}/{}/{pool}", escaped(&self.event.tenant))
    }

    fn pool(&self) -> &str {
        self.text("pool_id").unwrap_or(POOL_DEFAULT)
    }

    /// A value that the action cannot do without.
    fn needed<'v>(&self, key: &str, value: Option<&'v str>) -> Result<&'v str, Failure> {
        let action = self.event.body.get("action").and_then(Value::as_str).unwrap_or_default();
        let missing = || self.caller.failed(format!("`{action}` needs `context.{key}`")).error_type("ValueError");
        value.ok_or_else(missing)
    }

    fn run(&self) -> &str {
        self.event.body.get("run_id").and_then(Value::as_str).unwrap_or_default()
    }

    fn now(&self) -> Timestamp {
        self.behind.clock.now()
    }

    /// The context with what the action gave.
    fn merged(&self, output: &Map) -> Value {
        let mut context = self.event.body.get("context").and_then(Value::as_map).cloned().unwrap_or_default();
        for (key, value) in output {
            context.insert(key.clone(), value.clone());
        }
        Value::map(context)
    }

    fn fault(&self, error: &StoreError) -> Failure {
        self.caller.unreachable(error)
    }

    async fn object(&self, kind: &str, key: &str) -> Result<Option<Object>, Failure> {
        let found = self.behind.store.object(kind.into(), key.into()).await;
        found.map_err(|error| self.fault(&error))
    }

    /// Every object of a kind, oldest key first.
    async fn objects(&self, kind: &str) -> Result<Vec<Object>, Failure> {
        let mut all: Vec<Object> = Vec::new();
        loop {
            let page = self.page(kind, all.last().map(|object| object.key.clone())).await?;
            let is_last = page.len() < PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Some objects of a kind, after a key.
    async fn page(&self, kind: &str, after: Option<Name>) -> Result<Vec<Object>, Failure> {
        self.few(kind, after, PAGE).await
    }

    /// As many objects of a kind, after a key.
    async fn few(&self, kind: &str, after: Option<Name>, limit: usize) -> Result<Vec<Object>, Failure> {
        self.behind.store.objects(kind.into(), after, limit).await.map_err(|error| self.fault(&error))
    }

    async fn put(&self, kind: &str, key: &str, expected: u64, bytes: Option<Vec<u8>>) -> Result<bool, Failure> {
        let put = Put { kind: kind.into(), key: key.into(), expected, bytes };
        self.behind.store.put_object(put).await.map_err(|error| self.fault(&error))
    }

    fn crowded(&self) -> Failure {
        let message = format!("others changed the pool `{}` again and again meanwhile", self.pool());
        Failure::new(Code::HookFailed, message).retry(Retry::Backoff)
    }
}

/// A mapping of an action's output.
fn output<const N: usize>(pairs: [(&str, Value); N]) -> Map {
    pairs.into_iter().map(|(key, value)| (Name::from(key), value)).collect()
}

/// A time as documents read it.
fn time(at: Timestamp) -> Value {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or(Value::Null, |time| Value::from(time.to_string()))
}

/// Bytes of an object. What this module writes can always be written.
fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn decode<T: serde::de::DeserializeOwned>(object: &Object) -> Result<T, Failure> {
    serde_json::from_slice(&object.bytes).map_err(|error| {
        Failure::new(Code::StoreCorrupt, format!("the object `{}` of a work pool cannot be read: {error}", object.key))
    })
}
