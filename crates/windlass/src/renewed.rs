//! Tools, actions, hooks and channels whose secrets come from the operator's file: built again when that has changed, so that a call
//! leaves with the value of now.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use windlass_core::contract::Contract;
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::machine::HookKind;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::notify::{Channel, Notice};
use windlass_ports::tool::{Catalog, Hook, HookEvent, Invocation, Tool};

use crate::secrets::SecretFile;
use crate::wire::WireError;

/// Builds something with the secrets of now.
type Build<T> = dyn Fn() -> Result<T, WireError> + Send + Sync;

/// Something that follows the file.
struct Source<T> {
    file: Arc<SecretFile>,
    build: Box<Build<T>>,
    current: Mutex<(u64, Arc<T>)>,
}

impl<T> std::fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<T> Source<T> {
    fn now(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.file.generation();
        if current.0 != generation {
            current.0 = generation;
            match (self.build)() {
                Ok(made) => {
                    tracing::info!("secrets have changed: the new ones are used");
                    current.1 = Arc::new(made);
                }
                Err(error) => tracing::error!(%error, "secrets have changed, and the new ones cannot be used"),
            }
        }
        Arc::clone(&current.1)
    }
}

/// The catalog, built again by `build` whenever the file has changed. `generation` is that of the file it was built with.
pub(crate) fn renewed(
    catalog: Catalog,
    file: Arc<SecretFile>,
    generation: u64,
    build: impl Fn() -> Result<Catalog, WireError> + Send + Sync + 'static,
) -> Catalog {
    let first = Arc::new(catalog);
    let source = Source { file, build: Box::new(build), current: Mutex::new((generation, Arc::clone(&first))) };
    let source = Arc::new(source);
    let tools = first.tools.iter().map(|(name, tool)| {
        let (contract, source) = (tool.contract().clone(), Arc::clone(&source));
        let renewed: Arc<dyn Tool> = Arc::new(RenewedTool { name: name.clone(), contract, source });
        (name.clone(), renewed)
    });
    let hooks = first.hooks.iter().map(|(name, hook)| {
        let (events, source) = (hook.events().to_vec(), Arc::clone(&source));
        let include_machine = hook.include_machine();
        let renewed: Arc<dyn Hook> = Arc::new(RenewedHook { name: name.clone(), events, include_machine, source });
        (name.clone(), renewed)
    });
    Catalog { tools: tools.collect(), hooks: hooks.collect() }
}

/// The channels, built again by `build` whenever the file has changed.
pub(crate) fn renewed_channels(
    channels: Vec<Arc<dyn Channel>>,
    file: Arc<SecretFile>,
    generation: u64,
    build: impl Fn() -> Result<Vec<Arc<dyn Channel>>, WireError> + Send + Sync + 'static,
) -> Vec<Arc<dyn Channel>> {
    let current = Mutex::new((generation, Arc::new(channels.clone())));
    let source = Arc::new(Source { file, build: Box::new(build), current });
    let renewed = |first: Arc<dyn Channel>| {
        let channel: Arc<dyn Channel> = Arc::new(RenewedChannel { first, source: Arc::clone(&source) });
        channel
    };
    channels.into_iter().map(renewed).collect()
}

fn gone(name: &str) -> Failure {
    Failure::new(Code::InternalInvariant, format!("`{name}` is not among what was built again"))
}

#[derive(Debug)]
struct RenewedTool {
    name: Name,
    contract: Contract,
    source: Arc<Source<Catalog>>,
}

impl Tool for RenewedTool {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        let tool = self.source.now().tools.get(&self.name).cloned();
        async move { tool.ok_or_else(|| gone(&self.name))?.call(invocation).await }.boxed()
    }

    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        let tool = self.source.now().tools.get(&self.name).cloned();
        async move { tool.ok_or_else(|| gone(&self.name))?.attempt(invocation).await }.boxed()
    }
}

#[derive(Debug)]
struct RenewedHook {
    name: Name,
    events: Vec<HookKind>,
    include_machine: bool,
    source: Arc<Source<Catalog>>,
}

impl Hook for RenewedHook {
    fn events(&self) -> &[HookKind] {
        &self.events
    }

    fn include_machine(&self) -> bool {
        self.include_machine
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        let hook = self.source.now().hooks.get(&self.name).cloned();
        async move { hook.ok_or_else(|| gone(&self.name))?.call(event).await }.boxed()
    }
}

#[derive(Debug)]
struct RenewedChannel {
    /// As it was at first: its name and what it wants do not depend on secrets.
    first: Arc<dyn Channel>,
    source: Arc<Source<Vec<Arc<dyn Channel>>>>,
}

impl Channel for RenewedChannel {
    fn name(&self) -> &Name {
        self.first.name()
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.first.wants(notice)
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), Failure>> {
        let channel = self.source.now().iter().find(|channel| channel.name() == self.name()).cloned();
        async move { channel.ok_or_else(|| gone(self.name()))?.send(notice, now).await }.boxed()
    }
}
