//! The clocks of a real process: the wall clock as it was at the start, moved on by a monotonic one, and the store's time
//! as it was last seen, moved on by that.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
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

/// The store's time: another clock moved by what the store's was ahead of it when it was last seen. It never goes back:
/// when the store's time does, this one goes at half its pace until they agree again, so that nothing that waits for a
/// time stands still meanwhile.
#[derive(Debug)]
pub(super) struct StoreClock {
    inner: Arc<dyn Clock>,
    /// How far this clock is ahead of the inner one, in milliseconds.
    ahead: AtomicI64,
    /// How far it should be.
    wanted: AtomicI64,
    /// The inner time up to which it has been slowed down.
    slowed_to: AtomicU64,
}

impl StoreClock {
    /// A clock that shows the inner time until the store's is seen.
    pub(super) fn over(inner: Arc<dyn Clock>) -> Self {
        Self { inner, ahead: AtomicI64::new(0), wanted: AtomicI64::new(0), slowed_to: AtomicU64::new(0) }
    }

    /// The store's time is this.
    pub(super) fn seen(&self, store: Timestamp) {
        let inner = self.inner.now().0;
        let wanted = i64::try_from(i128::from(store.0) - i128::from(inner)).unwrap_or_default();
        self.wanted.store(wanted, Ordering::Release);
        if wanted >= self.ahead.load(Ordering::Acquire) {
            self.ahead.fetch_max(wanted, Ordering::AcqRel);
        } else {
            self.slowed_to.fetch_max(inner, Ordering::AcqRel);
        }
    }

    /// Gives back half of the time that has passed since the last look, while it is too far ahead.
    fn slow_down(&self, inner: u64, ahead: i64, wanted: i64) -> i64 {
        let from = self.slowed_to.load(Ordering::Acquire);
        let passed = inner.saturating_sub(from);
        if passed < 2 || self.slowed_to.compare_exchange(from, inner, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return ahead;
        }
        let slower = ahead.saturating_sub((ahead - wanted).min(i64::try_from(passed / 2).unwrap_or(i64::MAX)));
        match self.ahead.compare_exchange(ahead, slower, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => slower,
            Err(current) => current,
        }
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        let inner = self.inner.now().0;
        let (ahead, wanted) = (self.ahead.load(Ordering::Acquire), self.wanted.load(Ordering::Acquire));
        let ahead = if wanted < ahead { self.slow_down(inner, ahead, wanted) } else { ahead };
        Timestamp(inner.saturating_add_signed(ahead))
    }

    fn seed(&self) -> u64 {
        self.inner.seed()
    }
}

#[cfg(test)]
mod tests {
    use windlass_ports::fake::ManualClock;

    use super::*;

    #[test]
    fn seeds_differ_and_time_does_not_go_back() {
        let clock = SystemClock::new();
        assert_ne!(clock.seed(), clock.seed());
        assert!(clock.now() <= clock.now());
    }

    #[test]
    fn the_time_is_that_of_the_store_moved_on() {
        let wall = Arc::new(ManualClock::new(Timestamp(1_000_000), 1));
        let clock = StoreClock::over(Arc::clone(&wall) as Arc<dyn Clock>);
        assert_eq!(clock.now(), Timestamp(1_000_000));
        clock.seen(Timestamp(4_600_000));
        wall.advance(5);
        assert_eq!(clock.now(), Timestamp(4_600_005), "an hour off, and right");
    }

    #[test]
    fn a_store_whose_time_jumps_back_slows_the_clock_down() {
        let wall = Arc::new(ManualClock::new(Timestamp(1_000_000), 1));
        let clock = StoreClock::over(Arc::clone(&wall) as Arc<dyn Clock>);
        clock.seen(Timestamp(1_000_100));
        let mut last = clock.now();
        clock.seen(Timestamp(1_000_000));
        assert_eq!(clock.now(), last);
        for _ in 0..50 {
            wall.advance(3);
            let now = clock.now();
            assert!(now > last, "{now:?} after {last:?}");
            last = now;
        }
        wall.advance(100);
        assert_eq!(clock.now(), wall.now(), "they agree again");
    }
}
