//! Debug captures as data: of which calls what they say is kept in full, for how long and how many, and who asked for it.
//! Reads and writes nothing.

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;

use crate::Leaving;

/// How long a capture may last, in milliseconds.
pub const FOR_MS_MAX: u64 = 24 * 3_600_000;
/// How long what it took is kept after it has ended, in milliseconds.
pub const KEEP_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Calls of one capture at most.
pub const CALLS_MAX: u32 = 1_000;
/// Captures that are on at the same time.
pub const ON_MAX: usize = 20;
/// Bytes of what a call is given, and of what it gives back, that are kept.
pub const BODY_BYTES_MAX: usize = 65_536;

/// Of which calls: everything that is named has to be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of {
    /// A run, and those that it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The name of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Name>,
    /// A tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// A user, of any tenant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Name>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Its name.
    pub id: Name,
    /// Of which calls.
    pub of: Of,
    /// Since when.
    pub at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Until when what it took can be read.
    pub keep_until: Timestamp,
    /// Calls at most.
    pub calls_max: u32,
    /// Who asked for it.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

impl Capture {
    /// Whether calls are taken at a time.
    #[must_use]
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.at <= now && now < self.until
    }

    /// Whether what it took is to be removed.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.keep_until
    }

    /// Whether it is about a call.
    #[must_use]
    pub fn takes(&self, call: &Leaving<'_>) -> bool {
        let Of { run, machine, tenant, user } = &self.of;
        let below = |root: &RunId| {
            let rest = call.run.as_str().strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('~'))
        };
        run.as_ref().is_none_or(below)
            && machine.as_ref().is_none_or(|machine| machine == call.machine)
            && tenant.as_ref().is_none_or(|tenant| tenant == call.tenant)
            && user.as_ref().is_none_or(|user| Some(user) == call.user)
    }
}

/// One call in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// Under which capture.
    pub capture: Name,
    /// When it began to be sent.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The run.
    pub run: RunId,
    /// Its tenant.
    pub tenant: Name,
    /// Its machine.
    pub machine: Name,
    /// The effect's key.
    pub key: Name,
    /// The attempt, from 1.
    pub attempt: u32,
    /// `model`, `tool`, `hook`, `action`, `verify`.
    pub kind: Name,
    /// Agent, tool, hook or action.
    pub target: Name,
    /// What it was given: a request to a model, arguments, the body of an event.
    pub asked: Value,
    /// What it gave back: `replied`, `returned` or `failed`.
    pub answered: Value,
}

/// The value when it fits into what is kept, else the beginning of it as text. What is not to be shown of it has to be gone
/// before: in the beginning of a text nobody finds what stands under a key.
#[must_use]
pub fn bounded(value: Value) -> Value {
    let text = value.to_json();
    if text.len() <= BODY_BYTES_MAX {
        return value;
    }
    let end = text.floor_char_boundary(BODY_BYTES_MAX);
    Value::object([("bytes", Value::count(text.len() as u64)), ("cut_text", Value::str(&text[..end]))])
}

#[cfg(test)]
mod tests {
    use windlass_core::contract::Class;
    use windlass_core::ids::Digest;

    use super::*;

    #[test]
    fn a_capture_takes_what_it_names_within_its_time() {
        let capture = |of: Of| Capture {
            id: "c".into(),
            of,
            at: Timestamp(10),
            until: Timestamp(20),
            keep_until: Timestamp(30),
            calls_max: 1,
            by: "anna".into(),
            reason: "".into(),
        };
        let (machine, tenant, target, run) = ("m".into(), "t".into(), "pay".into(), RunId::stored("r~1.0"));
        let ann = "ann".into();
        let call = Leaving {
            run: &run,
            tenant: &tenant,
            user: Some(&ann),
            machine: &machine,
            key: "r~1.0#1",
            trace: None,
            attempt: 1,
            kind: "tool",
            target: &target,
            class: Class::Read,
            arguments: Digest::ZERO,
            model: None,
        };
        let of = |run: Option<&str>, machine: Option<&str>, tenant: Option<&str>| Of {
            run: run.map(RunId::stored),
            machine: machine.map(Into::into),
            tenant: tenant.map(Into::into),
            user: None,
        };
        let user = |user: &str, tenant: Option<&str>| Of { user: Some(user.into()), ..of(None, None, tenant) };
        for (of, takes) in [
            (of(Some("r"), None, None), true),
            (of(Some("r~1.0"), Some("m"), Some("t")), true),
            (of(Some("r~1"), None, None), false),
            (of(Some("other"), None, None), false),
            (of(None, Some("m"), None), true),
            (of(None, Some("n"), Some("t")), false),
            (of(None, None, Some("u")), false),
            (user("ann", None), true),
            (user("ann", Some("t")), true),
            (user("ann", Some("u")), false),
            (user("bob", None), false),
        ] {
            assert_eq!(capture(of.clone()).takes(&call), takes, "{of:?}");
        }
        let one = capture(of(None, None, None));
        let states: Vec<_> =
            [9, 10, 19, 20, 30].map(|at| (one.is_on(Timestamp(at)), one.is_expired(Timestamp(at)))).into();
        assert_eq!(states, [(false, false), (true, false), (true, false), (false, false), (false, true)]);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let short = Value::str("x");
        assert_eq!(bounded(short.clone()), short);
        let cut = bounded(Value::str("é".repeat(BODY_BYTES_MAX)));
        assert!(cut.to_json().len() < BODY_BYTES_MAX + 1_000 && cut.get("bytes").is_some());
    }
}
