//! How many calls may begin in a minute: any minute, wherever it starts.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pace {
    per_minute: usize,
    /// When calls began or are to begin, oldest first, without those of more than a minute ago.
    begins: Mutex<VecDeque<Instant>>,
}

/// A moment at which a call may begin. Another one may have it when it is dropped before [`Booked::begin`].
#[derive(Debug)]
pub(super) struct Booked<'a> {
    pace: &'a Pace,
    at: Instant,
    begun: bool,
}

impl Pace {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute as usize, begins: Mutex::default() }
    }

    fn begins(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.begins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first moment from `now` on at which one more call may begin, or how long it is until then when that is after
    /// `latest`.
    pub(super) fn book(&self, now: Instant, latest: Instant) -> Result<Booked<'_>, Duration> {
        let mut begins = self.begins();
        while begins.front().is_some_and(|at| *at + MINUTE <= now) {
            begins.pop_front();
        }
        let at = match begins.len().checked_sub(self.per_minute) {
            None => now,
            // The one before as many others, and never before one that is booked.
            Some(before) => (begins[before] + MINUTE).max(begins.back().copied().unwrap_or(now)).max(now),
        };
        if at > latest.max(now) {
            return Err(at - now);
        }
        let place = begins.partition_point(|other| *other <= at);
        begins.insert(place, at);
        Ok(Booked { pace: self, at, begun: false })
    }
}

impl Booked<'_> {
    /// Waits for the moment.
    pub(super) async fn begin(mut self) {
        tokio::time::sleep_until(self.at).await;
        self.begun = true;
    }
}

impl Drop for Booked<'_> {
    fn drop(&mut self) {
        if self.begun {
            return;
        }
        let mut begins = self.pace.begins();
        if let Some(place) = begins.iter().rposition(|at| *at == self.at) {
            begins.remove(place);
        }
    }
}
