//! The hooks `logging` and `metrics` of the document format: the engine reports every run by itself, so they take part in
//! no event. A document that names them is valid and changes nothing.

use std::sync::Arc;

use futures::FutureExt;
use windlass_core::failure::Failure;
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent};

use crate::build::Site;
use crate::config::HookConfig;
use crate::kind::{Kind, Make};

/// `logging`.
pub(crate) const LOGGING: Kind = Kind {
    name: "logging",
    summary: "The engine's own log; takes part in no event.",
    keys: &[],
    make: Make::Hook(make),
};

/// `metrics`.
pub(crate) const METRICS: Kind = Kind {
    name: "metrics",
    summary: "The engine's own numbers; takes part in no event.",
    keys: &[],
    make: Make::Hook(make),
};

#[expect(clippy::unnecessary_wraps, reason = "the shape that every kind has")]
fn make(_site: &mut Site<'_>, _table: &HookConfig) -> Option<Arc<dyn Hook>> {
    Some(Arc::new(Observer))
}

/// A hook without events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observer;

impl Hook for Observer {
    fn events(&self) -> &[HookKind] {
        &[]
    }

    fn include_machine(&self) -> bool {
        false
    }

    fn call(&self, _event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async { Ok(Value::Null) }.boxed()
    }
}
