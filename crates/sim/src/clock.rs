//! Clocks on virtual time: the true one, which the store goes by, and those of processes, which may be wrong.

use std::sync::{Arc, Weak};

use windlass_core::time::Timestamp;
use windlass_ports::clock::Clock;

use crate::world::World;

/// When every simulation begins, in milliseconds since 1970: far enough from 0 for clocks that are behind.
pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;

/// The store's clock.
#[derive(Debug)]
pub(crate) struct TrueClock(pub(crate) Weak<World>);

impl Clock for TrueClock {
    fn now(&self) -> Timestamp {
        let (passed, ahead) = self.0.upgrade().map_or((0, 0), |world| (world.now_ms(), world.store_ahead_ms()));
        Timestamp(BEGIN_MS.saturating_add_signed(ahead)).plus_ms(passed)
    }

    fn seed(&self) -> u64 {
        self.0.upgrade().map_or(0, |world| world.draw(|rng| rng.u64(..)))
    }
}

/// The clock of a process.
#[derive(Debug)]
pub(crate) struct ProcessClock {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
}

impl Clock for ProcessClock {
    fn now(&self) -> Timestamp {
        let ahead = self.world.ahead_ms(self.process);
        Timestamp(BEGIN_MS.saturating_add_signed(ahead)).plus_ms(self.world.now_ms())
    }

    fn seed(&self) -> u64 {
        self.world.draw(|rng| rng.u64(..))
    }
}
