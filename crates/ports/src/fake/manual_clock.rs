//! A clock that moves only when told to.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_core::time::Timestamp;

use crate::clock::Clock;

/// Time stands still until [`ManualClock::advance`]. Seeds follow from the first one.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    seed: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`, whose seeds follow from `seed`.
    #[must_use]
    pub fn new(now: Timestamp, seed: u64) -> Self {
        Self { now_ms: AtomicU64::new(now.0), seed: AtomicU64::new(seed) }
    }

    /// Moves the clock forward by `ms` milliseconds and tells the new time.
    pub fn advance(&self, ms: u64) -> Timestamp {
        let before = self.now_ms.fetch_add(ms, Ordering::SeqCst);
        Timestamp(before.saturating_add(ms))
    }

    /// Moves the clock forward to `to`; a time already passed changes nothing.
    pub fn advance_to(&self, to: Timestamp) {
        self.now_ms.fetch_max(to.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_ms.load(Ordering::SeqCst))
    }

    fn seed(&self) -> u64 {
        // SplitMix64: distinct, well spread numbers from a counter.
        let mut z = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_only_when_told_and_never_back() {
        let clock = ManualClock::new(Timestamp(10), 1);
        assert_eq!(clock.now(), Timestamp(10));
        assert_eq!(clock.advance(5), Timestamp(15));
        clock.advance_to(Timestamp(12));
        assert_eq!(clock.now(), Timestamp(15));
    }

    #[test]
    fn seeds_differ_and_repeat_with_the_first_one() {
        let (a, b) = (ManualClock::new(Timestamp(0), 7), ManualClock::new(Timestamp(0), 7));
        let first: Vec<u64> = (0..3).map(|_| a.seed()).collect();
        let second: Vec<u64> = (0..3).map(|_| b.seed()).collect();
        assert_eq!(first, second);
        assert_ne!(first[0], first[1]);
    }
}
