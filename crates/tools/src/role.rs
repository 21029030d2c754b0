//! Which codes a failure gets: a tool's are `tool.*`, those of an action or a hook `hook.*`.

use windlass_core::contract::{Contract, may_repeat};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::machine::HookKind;

/// As what something is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A tool of a model.
    Tool,
    /// An action of a state, or a hook.
    Hook,
}

/// What the adapters need to know to word and classify failures.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The name, for messages.
    pub(crate) name: String,
    /// As what it is called.
    pub(crate) role: Role,
    /// Whether a call whose outcome is unknown may be sent again.
    pub(crate) repeatable: bool,
    /// Whether it changes nothing, so that no outcome is ever in doubt.
    pub(crate) read: bool,
}

impl Caller {
    /// A tool or action with this contract.
    pub(crate) fn of(contract: &Contract, role: Role) -> Self {
        Self {
            name: contract.name.to_string(),
            role,
            repeatable: may_repeat(contract.class, contract.idempotency),
            read: contract.class == windlass_core::contract::Class::Read,
        }
    }

    /// A hook that is sent this event.
    pub(crate) fn hook(name: &str, kind: HookKind) -> Self {
        let role = if kind == HookKind::ToolCall { Role::Tool } else { Role::Hook };
        let read = kind == HookKind::ToolsList;
        let repeatable = kind != HookKind::ToolCall;
        Self { name: name.to_owned(), role, repeatable, read }
    }

    /// It answered, with an error.
    pub(crate) fn failed(&self, message: impl AsRef<str>) -> Failure {
        let code = match self.role {
            Role::Tool => Code::ToolFailed,
            Role::Hook => Code::HookFailed,
        };
        Failure::new(code, message)
    }

    /// It was called and did not answer in time.
    pub(crate) fn timed_out(&self, timeout_ms: u64) -> Failure {
        let code = match self.role {
            Role::Tool => Code::ToolTimeout,
            Role::Hook => Code::HookTimeout,
        };
        Failure::new(code, format!("`{}` did not answer within {timeout_ms} ms", self.name)).retry(self.in_doubt())
    }

    /// It was never called.
    pub(crate) fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        let code = match self.role {
            Role::Tool => Code::ToolUnreachable,
            Role::Hook => Code::HookUnreachable,
        };
        Failure::new(code, format!("`{}` cannot be reached: {why}", self.name)).retry(Retry::Backoff)
    }

    /// There is no room for the call: it was not sent.
    pub(crate) fn turned_away(&self, why: impl std::fmt::Display) -> Failure {
        let code = match self.role {
            Role::Tool => Code::ToolOverloaded,
            Role::Hook => Code::HookOverloaded,
        };
        Failure::new(code, format!("`{}` was not called: {why}", self.name)).retry(Retry::Backoff)
    }

    /// Its answer is larger than allowed.
    pub(crate) fn too_large(&self, bytes_max: u64) -> Failure {
        let code = match self.role {
            Role::Tool => Code::ToolOutputTooLarge,
            Role::Hook => Code::HookBadAnswer,
        };
        Failure::new(code, format!("the answer of `{}` has more than {bytes_max} bytes", self.name))
    }

    /// The call left and nothing is known about it: a read may simply be tried again.
    pub(crate) fn in_doubt(&self) -> Retry {
        if self.read { Retry::Backoff } else { Retry::Unknown }
    }
}
