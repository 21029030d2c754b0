//! The kinds of tools and hooks: one visible list, read by the builder and the documentation.

use std::sync::Arc;

use windlass_core::contract::Contract;
use windlass_ports::tool::{Hook, Tool};

use crate::build::Site;
use crate::config::{HookConfig, ToolConfig};
use crate::role::Role;

/// One `type` of a `[tools.*]`, `[actions.*]` or `[hooks.*]` table.
#[derive(Debug)]
pub struct Kind {
    /// The word in the configuration.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// Keys it takes beside those of every type.
    pub keys: &'static [&'static str],
    pub(crate) make: Make,
}

/// Makes an adapter from its table. `None` after a mistake, which is noted at the site.
#[derive(Debug)]
pub(crate) enum Make {
    Tool(MakeTool),
    Hook(MakeHook),
}

type MakeTool = fn(&mut Site<'_>, &ToolConfig, Contract, Role) -> Option<Arc<dyn Tool>>;
type MakeHook = fn(&mut Site<'_>, &HookConfig) -> Option<Arc<dyn Hook>>;

/// Every kind.
pub const ALL: &[Kind] = &[
    crate::http::KIND,
    crate::command::KIND,
    crate::webhook::KIND,
    crate::command_hook::KIND,
    crate::observer::LOGGING,
    crate::observer::METRICS,
    crate::pools::KIND,
];

impl Kind {
    /// Whether this is a kind of hook; the others are kinds of tools and actions.
    #[must_use]
    pub fn is_hook(&self) -> bool {
        matches!(self.make, Make::Hook(_))
    }
}
