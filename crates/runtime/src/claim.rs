//! How many runs a worker claims, and when it looks again. Time and counts come as arguments.
//!
//! A worker looks when there is a reason: a hint that the queue has something, or a parked run that is due. Without
//! either it does not look at all.

use windlass_core::time::Timestamp;

/// Free slots below this share of all are collected for a moment, so that runs are claimed many at a time.
const BATCH_SHARE: usize = 8;
/// How long free slots are collected, in milliseconds.
const BATCH_MS: u64 = 2;
/// Runs claimed at a time, so that workers that look at the same moment share what there is.
const CLAIM_MAX: usize = 128;
/// One claim in so many takes the lowest class first.
const LOWEST_FIRST_EVERY: u64 = 16;
/// Pause before a run is looked for again that was due and could not be claimed, in milliseconds.
const OVERDUE_MS: u64 = 250;

/// What a worker has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Claim slots that are free.
    pub free: usize,
    /// Runs that are held.
    pub held: usize,
    /// Calls that wait for a call slot.
    pub backlog: usize,
}

/// When to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// At once, so many at most.
    Now(usize),
    /// Then.
    At(Timestamp),
    /// When something happens.
    Idle,
}

/// The claiming of one worker.
#[derive(Clone, Debug)]
pub struct Claims {
    slots: usize,
    held_max: usize,
    backlog_max: usize,
    hint: bool,
    /// A hint came since the claim that is out was sent, so its answer may not have what the hint was about.
    again: bool,
    due: Option<Timestamp>,
    looked_at: Timestamp,
    asks: bool,
    made: u64,
}

impl Claims {
    /// A worker with so many claim slots, that holds so many runs at most, and claims so few that hardly more than
    /// `backlog_max` calls wait for a slot. It looks at once.
    #[must_use]
    pub fn new(slots: usize, held_max: usize, backlog_max: usize) -> Self {
        Self {
            slots,
            held_max,
            backlog_max,
            hint: true,
            again: false,
            due: None,
            looked_at: Timestamp(0),
            asks: false,
            made: 0,
        }
    }

    /// The queue may have something.
    pub fn hinted(&mut self) {
        self.hint = true;
        self.again = true;
        self.asks = true;
    }

    /// A claim is sent.
    pub fn claiming(&mut self) {
        self.again = false;
    }

    /// A run parked that is to go on then.
    pub fn parked(&mut self, wake_at: Option<Timestamp>) {
        self.due = match (self.due, wake_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
    }

    /// So many were asked for, and so many came.
    pub fn claimed(&mut self, asked: usize, got: usize, now: Timestamp) {
        self.looked_at = now;
        self.made = self.made.wrapping_add(1);
        if got < asked {
            self.hint = std::mem::take(&mut self.again);
            self.due = None;
            self.asks = true;
        }
    }

    /// Whether the next claim takes the lowest class first, so that it is not forgotten.
    #[must_use]
    pub fn lowest_first(&self) -> bool {
        self.made % LOWEST_FIRST_EVERY == LOWEST_FIRST_EVERY - 1
    }

    /// What is known about parked runs may be out of date, when there was no look since then: others park runs too.
    pub fn doubt(&mut self, since: Timestamp) {
        self.asks |= self.looked_at < since;
    }

    /// Whether the store should be asked when the next parked run is due.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks && !self.hint
    }

    /// The store told when the next parked run is due.
    pub fn told(&mut self, due: Option<Timestamp>) {
        self.asks = false;
        self.due = due.map(|due| if due <= self.looked_at { self.looked_at.plus_ms(OVERDUE_MS) } else { due });
    }

    /// When the next parked run is due, as far as known.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Whether the queue is known to have nothing now.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.hint
    }

    /// When to claim, and how many.
    #[must_use]
    pub fn look(&self, now: Timestamp, room: Room) -> Look {
        // What is claimed beyond the calls that can soon be made only keeps the runs of others waiting behind it.
        let ahead = self.backlog_max.saturating_add(1);
        let n = room.free.min(self.held_max.saturating_sub(room.held)).min(CLAIM_MAX);
        let n = n.min(ahead.saturating_sub(room.backlog));
        if n == 0 {
            return Look::Idle;
        }
        if !self.hint && self.due.is_none_or(|due| due > now) {
            return self.due.map_or(Look::Idle, Look::At);
        }
        let batched = self.looked_at.plus_ms(BATCH_MS);
        if n.saturating_mul(BATCH_SHARE) >= self.slots.min(ahead) || n == CLAIM_MAX || now >= batched {
            Look::Now(n)
        } else {
            Look::At(batched)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { free: 64, held: 0, backlog: 0 };

    #[test]
    fn a_worker_looks_only_when_there_is_a_reason() {
        let mut claims = Claims::new(64, 1_000, 64);
        assert_eq!(claims.look(Timestamp(5), ROOM), Look::Now(64));
        claims.claimed(64, 3, Timestamp(5));
        assert!(claims.asks());
        claims.told(None);
        assert_eq!(claims.look(Timestamp(99), ROOM), Look::Idle);
        claims.parked(Some(Timestamp(200)));
        claims.parked(Some(Timestamp(300)));
        assert_eq!(claims.look(Timestamp(99), ROOM), Look::At(Timestamp(200)));
        assert_eq!(claims.look(Timestamp(200), ROOM), Look::Now(64));
        claims.claiming();
        claims.claimed(64, 0, Timestamp(200));
        claims.hinted();
        assert_eq!(claims.look(Timestamp(200), ROOM), Look::Now(64));
    }

    #[test]
    fn a_hint_that_comes_while_a_claim_is_out_is_not_lost() {
        let mut claims = Claims::new(64, 1_000, 64);
        claims.claiming();
        claims.hinted();
        claims.claimed(64, 0, Timestamp(5));
        assert_eq!(claims.look(Timestamp(5), ROOM), Look::Now(64), "its answer may be older than the hint");
        claims.claiming();
        claims.claimed(64, 0, Timestamp(6));
        claims.told(None);
        assert_eq!(claims.look(Timestamp(6), ROOM), Look::Idle);
    }

    #[test]
    fn a_full_queue_is_looked_at_again_at_once() {
        let mut claims = Claims::new(64, 1_000, 64);
        claims.claimed(64, 64, Timestamp(5));
        assert_eq!(claims.look(Timestamp(5), ROOM), Look::Now(64));
    }

    #[test]
    fn few_free_slots_are_collected_for_a_moment() {
        let mut claims = Claims::new(64, 1_000, 64);
        claims.claimed(64, 64, Timestamp(5));
        let few = Room { free: 3, ..ROOM };
        assert_eq!(claims.look(Timestamp(5), few), Look::At(Timestamp(7)));
        assert_eq!(claims.look(Timestamp(7), few), Look::Now(3));
        assert_eq!(claims.look(Timestamp(5), Room { free: 8, ..ROOM }), Look::Now(8));
    }

    #[test]
    fn a_worker_without_room_waits_for_room() {
        let claims = Claims::new(64, 10, 64);
        assert_eq!(claims.look(Timestamp(5), Room { free: 0, ..ROOM }), Look::Idle);
        assert_eq!(claims.look(Timestamp(5), Room { held: 10, ..ROOM }), Look::Idle);
        assert_eq!(claims.look(Timestamp(5), Room { backlog: 65, ..ROOM }), Look::Idle);
    }

    #[test]
    fn no_more_is_claimed_than_calls_can_soon_be_made_for() {
        let mut claims = Claims::new(64, 1_000, 2);
        assert_eq!(claims.look(Timestamp(5), ROOM), Look::Now(3));
        claims.claimed(3, 3, Timestamp(5));
        assert_eq!(claims.look(Timestamp(5), Room { backlog: 2, ..ROOM }), Look::Now(1));
        assert_eq!(claims.look(Timestamp(9), Room { backlog: 3, ..ROOM }), Look::Idle);
    }

    #[test]
    fn what_was_looked_at_is_not_doubted() {
        let mut claims = Claims::new(64, 1_000, 64);
        claims.claimed(64, 0, Timestamp(500));
        claims.told(None);
        claims.doubt(Timestamp(500));
        assert!(!claims.asks());
        claims.doubt(Timestamp(501));
        assert!(claims.asks());
    }

    #[test]
    fn the_lowest_class_has_its_turn_and_a_claim_its_bound() {
        let mut claims = Claims::new(1_000, 4_000, 1_000);
        let room = Room { free: 1_000, ..ROOM };
        let mut turns = Vec::new();
        for turn in 0..32 {
            assert_eq!(claims.look(Timestamp(5), room), Look::Now(128));
            if claims.lowest_first() {
                turns.push(turn);
            }
            claims.claimed(128, 128, Timestamp(5));
        }
        assert_eq!(turns, [15, 31]);
    }

    #[test]
    fn a_due_run_that_cannot_be_claimed_makes_no_busy_loop() {
        let mut claims = Claims::new(64, 1_000, 64);
        claims.claimed(64, 0, Timestamp(500));
        claims.told(Some(Timestamp(400)));
        assert_eq!(claims.look(Timestamp(500), ROOM), Look::At(Timestamp(750)));
    }
}
