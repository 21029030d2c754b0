//! The outside world: models, tools and hooks that write down every call that reaches them, with the key it came with.

use std::sync::Arc;

use futures::future::FutureExt;
use windlass_core::contract::{Class, Contract, Idempotency, OnUnknown};
use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::{HookKind, ModelSettings};
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Reply, Usage};
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::tool::{Hook, HookEvent, Invocation, Tool};

use crate::faults::Fault;
use crate::history::{Effect, Result as Ended};
use crate::placeholder::placeholder;
use crate::world::World;

/// How a call goes that left its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// As it should.
    Well,
    /// It is refused, and changes nothing.
    Refused,
    /// It changes nothing, and nobody can tell.
    LostBefore,
    /// It is done, and its answer is lost.
    LostAfter,
}

/// One process's way to the outside.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
}

/// A call as the world sees it.
struct Arrival {
    key: String,
    run: RunId,
    attempt: u32,
    kind: &'static str,
    target: Name,
    class: Class,
    idempotency: Idempotency,
    arguments: Digest,
    timeout_ms: u64,
}

impl Way {
    /// A call arrives: what it does is done at once, and then its answer is on its way.
    async fn call(&self, arrival: Arrival) -> Fate {
        let world = &self.world;
        if world.is_doomed(self.process) {
            return std::future::pending().await;
        }
        self.may_die("as a call leaves").await;
        let fate = self.fate();
        let repeats = arrival.idempotency == Idempotency::Key && world.has_happened(&arrival.key);
        let (happened, result) = match fate {
            Fate::Well => (!repeats, Ended::Ok),
            Fate::Refused => (false, Ended::Fail),
            Fate::LostBefore => (false, Ended::Info),
            Fate::LostAfter => (!repeats, Ended::Info),
        };
        let effect = arrival.key.rsplit_once('#').and_then(|(_, number)| number.parse().ok()).unwrap_or_default();
        world.reached(Effect {
            process: world.name(self.process),
            key: arrival.key.into(),
            run: arrival.run,
            effect: EffectId(effect),
            attempt: arrival.attempt,
            kind: arrival.kind.into(),
            target: arrival.target,
            class: arrival.class,
            idempotency: arrival.idempotency,
            arguments: arrival.arguments,
            at: world.now_ms(),
            happened,
            result,
        });
        self.may_die("before the answer of a call").await;
        world.sleep(self.latency_ms(arrival.timeout_ms)).await;
        world.gate(self.process).await;
        fate
    }

    fn fate(&self) -> Fate {
        if !self.world.strikes(Fault::FailCall) {
            return Fate::Well;
        }
        [Fate::Refused, Fate::LostBefore, Fate::LostAfter][self.world.draw(|rng| rng.usize(..3))]
    }

    fn latency_ms(&self, timeout_ms: u64) -> u64 {
        let world = &self.world;
        if world.strikes(Fault::SlowCall) {
            world.draw(|rng| rng.u64(0..=timeout_ms.saturating_add(timeout_ms / 4)))
        } else if world.may(Fault::SlowCall) {
            world.draw(|rng| rng.u64(0..200))
        } else {
            1
        }
    }

    async fn may_die(&self, place: &str) {
        if self.world.strikes(Fault::Crash) {
            self.world.note_fault(Some(self.process), &format!("crash {place}"));
            self.world.doom(self.process);
            self.world.gate(self.process).await;
        }
    }
}

/// A tool or an action that answers the same every time.
#[derive(Debug)]
pub(crate) struct SimTool {
    pub(crate) way: Way,
    pub(crate) contract: Contract,
    pub(crate) answer: Value,
    /// Whether it tells of other calls whether they happened.
    pub(crate) verifies: bool,
    /// Its answers by the tool asked about.
    pub(crate) answers: Arc<std::collections::BTreeMap<Name, Value>>,
}

impl SimTool {
    async fn perform(&self, invocation: Invocation) -> Result<Value, Failure> {
        let asked = invocation.arguments.get("effect_id").and_then(Value::as_str).map(str::to_owned);
        let about = invocation.arguments.get("tool").and_then(Value::as_str).map(Name::from);
        let fate = self
            .way
            .call(Arrival {
                key: invocation.idempotency_key,
                run: invocation.run,
                attempt: invocation.attempt,
                kind: "tool",
                target: self.contract.name.clone(),
                class: self.contract.class,
                idempotency: self.contract.idempotency,
                arguments: invocation.arguments.digest(),
                timeout_ms: invocation.timeout_ms,
            })
            .await;
        match fate {
            Fate::Well => Ok(match asked.filter(|_| self.verifies) {
                Some(key) => truth(&self.way.world, &key, about.and_then(|tool| self.answers.get(&tool))),
                None => self.answer.clone(),
            }),
            Fate::Refused => Err(Failure::new(Code::ToolFailed, "the tool refused")),
            Fate::LostBefore | Fate::LostAfter => {
                Err(Failure::new(Code::ToolFailed, "the connection broke").retry(Retry::Unknown))
            }
        }
    }
}

/// Whether a call happened, as the world knows: what a tool that verifies answers, and a person who is asked.
pub(crate) fn truth(world: &World, key: &str, result: Option<&Value>) -> Value {
    let happened = world.has_happened(key);
    let result = if happened { result.cloned().unwrap_or_default() } else { Value::Null };
    Value::object([("happened", Value::Bool(happened)), ("result", result)])
}

/// The tools that contracts name to be asked about other calls.
pub(crate) fn verifies(contracts: &[Contract], name: &str) -> bool {
    contracts.iter().any(|contract| matches!(&contract.on_unknown, OnUnknown::Verify { tool } if **tool == *name))
}

impl Tool for SimTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        self.perform(invocation).boxed()
    }
}

/// A hook that changes nothing.
#[derive(Debug)]
pub(crate) struct SimHook {
    pub(crate) way: Way,
    pub(crate) events: Vec<HookKind>,
}

impl SimHook {
    async fn perform(&self, event: HookEvent) -> Result<Value, Failure> {
        let run = event.idempotency_key.rsplit_once('#').map_or("", |(run, _)| run);
        let fate = self
            .way
            .call(Arrival {
                run: RunId::stored(run),
                key: event.idempotency_key,
                attempt: 0,
                kind: "hook",
                target: event.hook,
                class: Class::Write,
                idempotency: Idempotency::Key,
                arguments: event.body.digest(),
                timeout_ms: event.timeout_ms,
            })
            .await;
        match fate {
            Fate::Well => Ok(Value::Null),
            Fate::Refused => Err(Failure::new(Code::HookFailed, "the hook refused")),
            Fate::LostBefore | Fate::LostAfter => {
                Err(Failure::new(Code::HookFailed, "the connection broke").retry(Retry::Unknown))
            }
        }
    }
}

impl Hook for SimHook {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        false
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        self.perform(event).boxed()
    }
}

/// Models that answer from a script, or with something that fits what is asked for.
#[derive(Debug)]
pub(crate) struct SimModel {
    pub(crate) way: Way,
    /// Shared by all processes: what a script counts it counts for all of them, as a provider would.
    pub(crate) scripts: Option<Arc<Models>>,
    /// Whether the scripts answer requests that name none.
    pub(crate) has_default: bool,
}

impl SimModel {
    async fn perform(&self, request: ModelRequest) -> ModelResult {
        let run = request.idempotency_key.rsplit_once('#').map_or("", |(run, _)| run);
        let bytes = serde_json::to_vec(&request).unwrap_or_default();
        let fate = self
            .way
            .call(Arrival {
                run: RunId::stored(run),
                key: request.idempotency_key.clone(),
                attempt: 0,
                kind: "model",
                target: request.agent.clone(),
                class: Class::Read,
                idempotency: Idempotency::None,
                arguments: Digest::of(&bytes),
                timeout_ms: request.timeout_ms,
            })
            .await;
        let (failure, spent) = match fate {
            Fate::Well => return self.answer(request).await,
            Fate::Refused => (Failure::new(Code::ProviderUnavailable, "the model is overloaded"), Spent::Nothing),
            Fate::LostBefore => (Failure::new(Code::ProviderUnreachable, "the connection broke"), Spent::Unknown),
            Fate::LostAfter => (Failure::new(Code::ProviderTruncated, "the answer broke off"), Spent::Unknown),
        };
        ModelResult { outcome: Err(failure.retry(Retry::Backoff)), spent }
    }

    async fn answer(&self, request: ModelRequest) -> ModelResult {
        let is_scripted = self.has_default || request.params.get("script").is_some();
        if let Some(scripts) = self.scripts.as_ref().filter(|_| is_scripted) {
            return scripts.call(request).await;
        }
        let content = match &request.output_schema {
            Some(schema) => placeholder(schema).to_json(),
            None => "placeholder".to_owned(),
        };
        let usage = Usage { input: Some(10), output: Some(5), ..Usage::default() };
        let reply = Reply {
            content: content.into(),
            has_content: true,
            tool_calls: Vec::new(),
            finish: Finish::Stop,
            usage,
            cost_micros: Some(0),
            prices: None,
            attachments: Value::Null,
            provider_data: Value::Null,
        };
        ModelResult { outcome: Ok(reply), spent: Spent::Known { tokens: 15, cost_micros: 0 } }
    }
}

impl Model for SimModel {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        self.perform(request).boxed()
    }

    fn quote(&self, settings: &ModelSettings) -> Option<Quote> {
        self.scripts.as_ref().and_then(|scripts| scripts.quote(settings))
    }

    fn traits(&self, settings: &ModelSettings) -> Traits {
        self.scripts.as_ref().map(|scripts| scripts.traits(settings)).unwrap_or_default()
    }
}
