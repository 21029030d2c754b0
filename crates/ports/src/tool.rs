//! Tools, actions and hooks as ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::hidden::Hidden;
use windlass_core::ids::{Name, RunId};
use windlass_core::label::Marks;
use windlass_core::machine::HookKind;
use windlass_core::trace::Incoming;
use windlass_core::value::Value;

use crate::BoxFuture;

/// Tells whether a call may still leave. A worker can lose its runs while a connection is being made: whoever sends looks
/// once more right before the first byte.
#[derive(Clone, Default)]
pub struct Permit {
    holds: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    departs: Option<Departs>,
}

/// What is done right before a call leaves.
type Departs = Arc<dyn Fn() -> Result<(), Failure> + Send + Sync>;

impl Permit {
    /// One that holds as long as a function says so.
    pub fn new(holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { holds: Some(Arc::new(holds)), departs: None }
    }

    /// The same, with what is done right before the call leaves.
    #[must_use]
    pub fn departing(self, departs: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self { departs: Some(Arc::new(departs)), ..self }
    }

    /// Whether the call may leave now. One that was never bound to anything always holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holds.as_ref().is_none_or(|holds| holds())
    }

    /// The call has its turn and leaves: from here on it may have happened. Whoever makes calls wait says so between the
    /// wait and the call, with nothing after it but the call. Once said, saying it again changes nothing.
    ///
    /// # Errors
    /// Why it must not leave: it is not sent then.
    pub fn depart(&self) -> Result<(), Failure> {
        self.departs.as_ref().map_or(Ok(()), |departs| departs())
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permit")
    }
}

/// Two calls are the same call whatever they are bound to.
impl PartialEq for Permit {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One call of a tool or an action.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The tool or action.
    pub name: Name,
    /// Its arguments. For an action: `{"action", "state", "machine", "run_id", "context"}`.
    pub arguments: Value,
    /// The effect's key: the same for every attempt, so that the other side can drop a repeat.
    pub idempotency_key: String,
    /// The trace within which the run was started, when it was.
    pub trace: Option<Incoming>,
    /// The run that calls.
    pub run: RunId,
    /// Whose run it is.
    pub tenant: Name,
    /// 1 for the first try.
    pub attempt: u32,
    /// Time for this attempt in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of the answer.
    pub output_bytes_max: u64,
    /// Whether it may still leave.
    pub permit: Permit,
}

/// A tool or an action.
///
/// An action answers `{"context"?: mapping, "output"?: any}`; any other value is its output.
pub trait Tool: Send + Sync + std::fmt::Debug {
    /// What it promises.
    fn contract(&self) -> &Contract;

    /// Makes one attempt. A failure says by [`windlass_core::failure::Retry::Unknown`] that the call may have
    /// happened. Ends within the invocation's timeout; dropping the future ends everything it started.
    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>>;

    /// [`Tool::call`], with the word that the call leaves. A tool that makes calls wait gives that word itself, by
    /// [`Permit::depart`], when they have waited.
    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        match invocation.permit.depart() {
            Ok(()) => self.call(invocation),
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
        }
    }
}

/// One event sent to a hook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookEvent {
    /// The hook's name.
    pub hook: Name,
    /// The event.
    pub kind: HookKind,
    /// The body: `{"event", "run_id", "machine", "state", ...}`, with `args` when the document gives the hook some.
    pub body: Value,
    /// The effect's key.
    pub idempotency_key: String,
    /// The trace within which the run was started, when it was.
    pub trace: Option<Incoming>,
    /// Whose run it is.
    pub tenant: Name,
    /// The labels of the run's context, with paths from there. None where nobody kept labels: nothing is known then.
    pub labels: Option<Marks>,
    /// Values of the run that are not shown.
    pub hidden: Hidden,
    /// Time for this attempt in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of the answer.
    pub output_bytes_max: u64,
    /// Whether it may still leave.
    pub permit: Permit,
}

/// A hook.
pub trait Hook: Send + Sync + std::fmt::Debug {
    /// The events it takes part in.
    fn events(&self) -> &[HookKind];

    /// Whether event bodies carry `context.machine`.
    fn include_machine(&self) -> bool;

    /// Sends one event. Null for an empty answer, which changes nothing.
    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>>;
}

/// The tools, actions and hooks that are configured.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Tools and actions by name.
    pub tools: BTreeMap<Name, Arc<dyn Tool>>,
    /// Hooks by name; `*` catches names that have none.
    pub hooks: BTreeMap<Name, Arc<dyn Hook>>,
}

/// The name that documents use for a hook whose address they give in its `args`.
const WEBHOOK: &str = "webhook";

impl Catalog {
    /// The key under which [`Catalog::hooks`] has the hook that takes its address from a document. It lists no events of
    /// its own: a document that addresses it decides about them.
    pub const ADDRESSED: &str = "webhook(args)";

    /// The implementation of a hook name: the one configured, the one that a document addresses, or the catch-all.
    #[must_use]
    pub fn hook(&self, name: &str) -> Option<&Arc<dyn Hook>> {
        let addressed = || if name == WEBHOOK { self.hooks.get(Self::ADDRESSED) } else { None };
        self.hooks.get(name).or_else(addressed).or_else(|| self.hooks.get("*"))
    }
}
