//! Whose a run is, who started it, and what it goes on from.

use serde::{Deserialize, Serialize};

use crate::budget::{Amounts, Ceilings};
use crate::hidden::Hidden;
use crate::ids::{Name, RunId};
use crate::label::Marks;
use crate::trace::Incoming;
use crate::value::Value;

/// Who starts a run, within which trace, and by which name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Who: a person or a schedule. Runs that it starts have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// The trace under which it hangs, when it was started within one. Runs that it starts stay in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Incoming>,
    /// The published version that it was started as, `NAME@NUMBER`. Runs that it starts have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Name>,
}

impl Caller {
    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.by.is_none() && self.trace.is_none() && self.version.is_none()
    }
}

/// The run that started this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// Whether it waits for the result.
    pub awaited: bool,
}

/// Whose run it is. A caller without tenants is the tenant `default`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TenantScope {
    /// The tenant.
    pub tenant: Name,
    /// The user, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
}

impl Default for TenantScope {
    fn default() -> Self {
        Self { tenant: "default".into(), user: None }
    }
}

/// The point of another run at which a fork begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The other run.
    pub run: RunId,
    /// Its step.
    pub step: u64,
    /// The state to enter.
    pub state: Name,
    /// The context to enter it with.
    pub context: Value,
    /// The labels of that run at that point; none where none were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Marks>,
    /// Values of that run that are not shown.
    #[serde(default, skip_serializing_if = "Hidden::is_empty")]
    pub hidden: Hidden,
    /// What that run had used before it entered the state: it counts against the bounds of the fork, and nowhere else.
    #[serde(default, skip_serializing_if = "Amounts::is_zero")]
    pub used: Amounts,
    /// How long that run had gone on by then, in milliseconds: so much less time has the fork.
    #[serde(default, skip_serializing_if = "is_none_gone")]
    pub elapsed_ms: u64,
    /// Bounds that hold in place of those that the fork would have: raised for that run, or for the fork.
    #[serde(default, skip_serializing_if = "is_unbounded")]
    pub raised: Ceilings,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_none_gone(elapsed_ms: &u64) -> bool {
    *elapsed_ms == 0
}

fn is_unbounded(ceilings: &Ceilings) -> bool {
    *ceilings == Ceilings::default()
}
