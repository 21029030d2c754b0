//! The breaker of a tool: after failures in a row it is left alone for a while, then one call looks whether it works again.
//!
//! Only calls that began since the breaker last changed count: an answer to an older one says how the tool was.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    rest_ms: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until when it is left alone; none while it is used.
    open_until: Option<Instant>,
    probing: bool,
    /// How often it has opened or closed.
    era: u64,
}

/// A call that the breaker let through. Says nothing about the tool when it is dropped before [`Entered::ended`].
#[derive(Debug)]
pub(super) struct Entered<'a> {
    breaker: &'a Breaker,
    era: u64,
    probe: bool,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, rest_ms: u64) -> Self {
        Self { failures_max, rest_ms, state: Mutex::default() }
    }

    /// Failures in a row that open it.
    pub(super) fn failures_max(&self) -> u32 {
        self.failures_max
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call through, or says in how many milliseconds one may come again.
    pub(super) fn enter(&self) -> Result<Entered<'_>, u64> {
        let mut state = self.state();
        let now = Instant::now();
        match state.open_until {
            None => {}
            Some(until) if now < until => {
                return Err(u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX).max(1));
            }
            Some(_) if state.probing => return Err(self.rest_ms),
            Some(_) => state.probing = true,
        }
        Ok(Entered { breaker: self, era: state.era, probe: state.open_until.is_some() })
    }
}

impl Entered<'_> {
    /// The call ended.
    pub(super) fn ended(mut self, unhealthy: bool) {
        let probe = std::mem::take(&mut self.probe);
        let mut state = self.breaker.state();
        if state.era != self.era {
            return;
        }
        state.failures = if unhealthy { state.failures.saturating_add(1) } else { 0 };
        if !probe && state.failures < self.breaker.failures_max {
            return;
        }
        let rests = Duration::from_millis(self.breaker.rest_ms);
        let open_until = unhealthy.then(|| Instant::now() + rests);
        *state = State { open_until, era: state.era + 1, ..State::default() };
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if self.probe {
            // Nothing was learned: the next call looks.
            self.breaker.state().probing = false;
        }
    }
}
