//! Functions of the embedding program as tools, actions and hooks.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent, Invocation, Tool};

use crate::answer;
use crate::role::{Caller, Role};

type Body<I> = Box<dyn Fn(I) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// A function as a tool or an action. An action answers `{"context"?, "output"?}`; any other value is its output.
pub struct FnTool {
    contract: Contract,
    caller: Caller,
    body: Body<Invocation>,
}

impl FnTool {
    /// A tool that awaits. Its future is dropped when the time of its contract is over.
    pub fn new<F, R>(contract: Contract, body: F) -> Self
    where
        F: Fn(Invocation) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let caller = Caller::of(&contract, Role::Tool);
        Self { contract, caller, body: Box::new(move |invocation| body(invocation).boxed()) }
    }

    /// A tool that does not wait for anything. It runs where the engine runs, so it must be short.
    pub fn sync<F>(contract: Contract, body: F) -> Self
    where
        F: Fn(Invocation) -> Result<Value, Failure> + Send + Sync + 'static,
    {
        Self::new(contract, move |invocation| std::future::ready(body(invocation)))
    }
}

impl fmt::Debug for FnTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnTool").field("contract", &self.contract).finish_non_exhaustive()
    }
}

impl Tool for FnTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        let timeout_ms = invocation.timeout_ms.min(self.contract.timeout_ms);
        let bytes_max = invocation.output_bytes_max.min(self.contract.output_bytes_max);
        bounded(&self.caller, timeout_ms, bytes_max, (self.body)(invocation)).boxed()
    }
}

/// A function as a hook.
pub struct FnHook {
    events: Vec<HookKind>,
    include_machine: bool,
    body: Body<HookEvent>,
}

impl FnHook {
    /// A hook that is sent these events; null as an answer changes nothing.
    pub fn new<F, R>(events: &[HookKind], body: F) -> Self
    where
        F: Fn(HookEvent) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let body: Body<HookEvent> = Box::new(move |event| body(event).boxed());
        Self { events: events.to_vec(), include_machine: false, body }
    }

    /// A hook that does not wait for anything. It runs where the engine runs, so it must be short.
    pub fn sync<F>(events: &[HookKind], body: F) -> Self
    where
        F: Fn(HookEvent) -> Result<Value, Failure> + Send + Sync + 'static,
    {
        Self::new(events, move |event| std::future::ready(body(event)))
    }

    /// The same with the run's metadata in `context.machine`.
    #[must_use]
    pub fn with_machine(self) -> Self {
        Self { include_machine: true, ..self }
    }
}

impl fmt::Debug for FnHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnHook").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Hook for FnHook {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        self.include_machine
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        let (caller, kind) = (Caller::hook(&event.hook, event.kind), event.kind);
        let (timeout_ms, bytes_max) = (event.timeout_ms, event.output_bytes_max);
        let work = (self.body)(event);
        async move {
            let body = bounded(&caller, timeout_ms, bytes_max, work).await?;
            answer::hook_answer(&caller, kind, body)
        }
        .boxed()
    }
}

async fn bounded(
    caller: &Caller,
    timeout_ms: u64,
    bytes_max: u64,
    work: impl Future<Output = Result<Value, Failure>>,
) -> Result<Value, Failure> {
    let value = match tokio::time::timeout(Duration::from_millis(timeout_ms), work).await {
        Ok(result) => result?,
        Err(_) => return Err(caller.timed_out(timeout_ms)),
    };
    if value.size_bytes() as u64 > bytes_max {
        return Err(caller.too_large(bytes_max));
    }
    Ok(value)
}
