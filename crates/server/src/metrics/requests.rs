//! Requests that need a token: who was let in, and what was decided.

use prometheus::{IntCounterVec, Opts, Registry};

use super::{register, sure};
use crate::auth::Refusal;

/// Why a request is refused before its token is looked at.
const BEFORE: [&str; 2] = ["host", "origin"];
/// What is decided about requests whose caller is known.
const DECISIONS: [&str; 5] = ["allow", "scope", "policy", "tenant", "busy"];
/// The word for a token that is taken.
const OK: &str = "ok";

/// The counters.
#[derive(Debug)]
pub(crate) struct Requests {
    tokens: IntCounterVec,
    decisions: IntCounterVec,
}

impl Requests {
    /// Zero of everything there is.
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            register(registry, sure(IntCounterVec::new(Opts::new(name, help), &[label])))
        };
        let tokens = counters(
            "windlass_requests_total",
            "Requests that need a token, by whether it was taken, or why not.",
            "token",
        );
        let decisions = counters(
            "windlass_request_decisions_total",
            "Calls of tools from outside, by what was decided.",
            "decision",
        );
        for word in [OK].into_iter().chain(Refusal::ALL.map(Refusal::as_str)).chain(BEFORE) {
            tokens.with_label_values(&[word]).inc_by(0);
        }
        for word in DECISIONS {
            decisions.with_label_values(&[word]).inc_by(0);
        }
        Self { tokens, decisions }
    }

    pub(crate) fn authenticated(&self) {
        self.refused(OK);
    }

    pub(crate) fn refused(&self, why: &str) {
        self.tokens.with_label_values(&[why]).inc();
    }

    pub(crate) fn decided(&self, decision: &str) {
        self.decisions.with_label_values(&[decision]).inc();
    }
}
