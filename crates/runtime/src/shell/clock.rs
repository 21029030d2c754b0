//! The clock of a real process: the wall clock as it was at the start, moved on by a monotonic one.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use windlass_core::time::Timestamp;
use windlass_ports::clock::Clock;

/// Wall-clock time that never goes back while the process lives.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    started_at: u64,
}

impl SystemClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.started_at).plus_ms(passed)
    }

    fn seed(&self) -> u64 {
        // The standard library keys every such hasher with fresh randomness of the process.
        RandomState::new().build_hasher().finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_and_time_does_not_go_back() {
        let clock = SystemClock::new();
        assert_ne!(clock.seed(), clock.seed());
        assert!(clock.now() <= clock.now());
    }
}
