//! Calls of one process that wait for permits: who is asked for first, what was taken ahead, who waits in vain. Without
//! I/O; time comes as milliseconds of a clock that never goes back.
//!
//! Calls that take of the same buckets are a lane. A trip to the store asks for the calls at the front of all lanes, and
//! takes a block ahead for lanes that are busy, so that most calls ask nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::ids::{Name, RunId};
use windlass_core::machine::Priority;
use windlass_core::time::Timestamp;
use windlass_ports::store::rates::{Ask, NAMED_MAX, Rate, Take, Taken, Waiting, Word, place};

use super::Wanted;

/// How long permits that were taken ahead may be used, in milliseconds. As much longer than said may it take until a
/// permit is used.
pub const BLOCK_MS: u64 = 1_000;
/// Calls that one trip asks for.
const ASKS_MAX: usize = 64;
/// The shortest and the longest pause before permits are asked for again that were not there, in milliseconds. The
/// longest is well within the time for which others keep in mind who waits.
const AGAIN_MS: (u64, u64) = (25, 1_000);
/// Pause after a trip that failed, in milliseconds.
const FAILED_MS: u64 = 250;
/// One trip in so many asks for the lowest class first, so that it is not forgotten.
const LOWEST_FIRST_EVERY: u64 = 16;
/// Pause between two occasions on which buckets that nobody uses are forgotten, in milliseconds.
const TIDY_MS: u64 = 600_000;
/// Lanes and tenants that are remembered while nothing of theirs waits.
const KEPT_MAX: usize = 10_000;

/// The buckets of calls that wait together.
type Lane = Arc<Vec<(Name, Rate)>>;

/// A call that asks for permits.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it takes.
    pub wanted: Wanted,
    /// The class of its run.
    pub class: Priority,
    /// The tenant of its run.
    pub tenant: Name,
    /// Its run.
    pub run: RunId,
    /// When it began to wait, by the store's time.
    pub since: Timestamp,
    /// How long it waits, in milliseconds.
    pub patience_ms: u64,
}

#[derive(Debug)]
struct Waiter {
    lane: Lane,
    call: Call,
    deadline: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Calls that were taken ahead.
    have: u64,
    have_until: u64,
    /// When the call at the front can be expected to go, and when it is asked for again.
    dry: Option<(u64, u64)>,
    /// Calls that went in this second, and in the one before.
    went: (u64, u64),
    second: u64,
    waiters: usize,
}

impl State {
    /// Lets a call go with what was taken ahead, if there is any.
    fn serve(&mut self, now: u64) -> bool {
        let has = self.have > 0 && self.have_until > now;
        if has {
            self.have -= 1;
            self.went(now);
        }
        has
    }

    fn went(&mut self, now: u64) {
        self.roll(now);
        self.went.0 += 1;
    }

    fn roll(&mut self, now: u64) {
        let second = now / BLOCK_MS;
        if second != self.second {
            self.went = if second == self.second + 1 { (0, self.went.0) } else { (0, 0) };
            self.second = second;
        }
    }

    /// Calls that are worth taking ahead: as many as went lately, and no more than come back meanwhile.
    fn ahead(&mut self, now: u64, lane: &Lane) -> u64 {
        self.roll(now);
        let comes = lane.iter().map(|(_, rate)| rate.amount.saturating_mul(BLOCK_MS) / rate.per_ms.max(1)).min();
        self.went.0.max(self.went.1).min(comes.unwrap_or(0))
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Go,
    /// It would wait too long.
    Shed(Shed),
}

/// Why a call is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The buckets of which one is empty.
    pub buckets: Vec<Name>,
    /// In how many milliseconds it is worth asking again.
    pub after_ms: u64,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It may go at once, or not at all.
    Now(Verdict),
    /// It waits, under this number.
    Waits(u64),
}

/// A trip that is out.
#[derive(Debug)]
pub struct Trip {
    /// What is asked.
    pub take: Take,
    /// Who it was asked for, in the order of the asks.
    asked: Vec<u64>,
    /// What was said of buckets besides.
    back: BTreeMap<Name, i64>,
}

/// Who waits, what was taken, and what is to be given back.
#[derive(Debug, Default)]
pub struct Desk {
    waiters: BTreeMap<u64, Waiter>,
    lanes: BTreeMap<Lane, State>,
    /// Permits to be given back, or still to be taken where less than 0.
    back: BTreeMap<Name, (Rate, i64)>,
    /// Buckets of which the store was told that somebody waits here.
    told: BTreeMap<Name, Rate>,
    /// When each tenant was last served, counted in calls that were.
    turns: BTreeMap<Name, u64>,
    served: u64,
    last: u64,
    trips: u64,
    tidied: Option<u64>,
}

fn lane_of(wanted: &Wanted) -> Lane {
    Arc::new(wanted.parts.iter().map(|part| (part.bucket.clone(), part.rate)).collect())
}

fn names(lane: &Lane) -> Vec<Name> {
    lane.iter().map(|(bucket, _)| bucket.clone()).collect()
}

/// Milliseconds in which so much comes back.
fn ms_for(permits: u64, rate: Rate) -> u64 {
    let ms = u128::from(permits) * u128::from(rate.per_ms) / u128::from(rate.amount.max(1));
    u64::try_from(ms).unwrap_or(u64::MAX)
}

impl Desk {
    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// A call asks for permits.
    pub fn enter(&mut self, now: u64, call: Call) -> Entered {
        let lane = lane_of(&call.wanted);
        let state = self.lanes.entry(Arc::clone(&lane)).or_default();
        if state.waiters == 0 && state.serve(now) {
            return Entered::Now(Verdict::Go);
        }
        let deadline = now.saturating_add(call.patience_ms);
        if let Some((expected, again)) = state.dry.filter(|(_, again)| *again > now)
            && (expected > deadline || again > deadline)
        {
            let after_ms = expected.max(again).saturating_sub(now).max(1);
            return Entered::Now(Verdict::Shed(Shed { buckets: names(&lane), after_ms }));
        }
        self.last += 1;
        state.waiters += 1;
        self.waiters.insert(self.last, Waiter { lane, call, deadline });
        Entered::Waits(self.last)
    }

    /// A call waits no longer.
    pub fn leave(&mut self, number: u64) {
        self.remove(number);
    }

    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&number)?;
        if let Some(state) = self.lanes.get_mut(&waiter.lane) {
            state.waiters -= 1;
        }
        Some(waiter)
    }

    /// A call waited as long as it may.
    pub fn give_up(&mut self, now: u64, number: u64) -> Option<Shed> {
        let waiter = self.remove(number)?;
        let expected = self.lanes.get(&waiter.lane).and_then(|state| state.dry).map_or(now, |(expected, _)| expected);
        Some(Shed { buckets: names(&waiter.lane), after_ms: expected.saturating_sub(now).max(1) })
    }

    /// In how many milliseconds calls of these buckets would go at the earliest; none where nothing is known against it.
    #[must_use]
    pub fn dry(&self, now: u64, wanted: &Wanted) -> Option<u64> {
        let (expected, again) = self.lanes.get(&lane_of(wanted))?.dry?;
        (again > now).then(|| expected.max(again) - now)
    }

    /// A call ended that had permits: `used` tokens of those that it had taken, or nothing when it never left.
    pub fn ended(&mut self, wanted: &Wanted, left: bool, used: Option<u64>) {
        for (part, is_tokens) in wanted.parts.iter().zip(&wanted.tokens) {
            let signed = |permits: u64| i64::try_from(permits).unwrap_or(i64::MAX);
            let back = match (left, is_tokens, used) {
                (false, _, _) => signed(part.need),
                (true, true, Some(used)) => signed(part.need).saturating_sub(signed(used)),
                (true, _, _) => 0,
            };
            if back != 0 {
                let known = self.back.entry(part.bucket.clone()).or_insert((part.rate, 0));
                *known = (part.rate, known.1.saturating_add(back));
            }
        }
    }

    /// Whether the store is to be told something although nobody asks for permits.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.back.is_empty() || self.told.keys().any(|bucket| !self.waits_for(bucket))
    }

    fn waits_for(&self, bucket: &Name) -> bool {
        self.waiters.values().any(|waiter| waiter.lane.iter().any(|(name, _)| name == bucket))
    }

    /// When the next trip is due; none while nobody waits.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<u64> {
        let again = |waiter: &Waiter| {
            let dry = self.lanes.get(&waiter.lane).and_then(|state| state.dry);
            dry.map_or(now, |(_, again)| again.max(now))
        };
        self.waiters.values().map(again).min()
    }

    /// Who is asked for first: of the highest class, of each tenant in turn, first come.
    fn order(&self, lowest_first: bool) -> Vec<u64> {
        let mut places: BTreeMap<(usize, &Name), u64> = BTreeMap::new();
        let mut order: Vec<_> = self
            .waiters
            .iter()
            .map(|(number, Waiter { call, .. })| {
                let class = place(call.class);
                let round = places.entry((class, &call.tenant)).or_default();
                *round += 1;
                let turn = self.turns.get(&call.tenant).copied().unwrap_or(0);
                (if lowest_first { 2 - class } else { class }, *round, turn, *number)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., number)| number).collect()
    }

    /// Who waits where, and since when.
    fn words(&self) -> BTreeMap<Name, (Rate, Waiting)> {
        let mut words: BTreeMap<Name, (Rate, Waiting)> = BTreeMap::new();
        for Waiter { call, .. } in self.waiters.values() {
            for part in &call.wanted.parts {
                let known = words.entry(part.bucket.clone()).or_insert_with(|| (part.rate, Waiting::default()));
                let (rate, waiting) = known;
                *rate = part.rate;
                let since = if waiting.calls == 0 { call.since } else { waiting.since.min(call.since) };
                (waiting.calls, waiting.since) = (waiting.calls + 1, since);
                waiting.permits[place(call.class)] += part.need;
                if waiting.runs.len() < NAMED_MAX && !waiting.runs.contains(&call.run) {
                    waiting.runs.push(call.run.clone());
                }
            }
        }
        words
    }

    /// The next trip of a process.
    pub fn begin(&mut self, now: u64, by: Name) -> Trip {
        self.bound(now);
        let (mut asks, mut asked, mut lanes) = (Vec::new(), Vec::new(), BTreeMap::new());
        let lowest_first = self.trips % LOWEST_FIRST_EVERY == LOWEST_FIRST_EVERY - 1;
        for number in self.order(lowest_first) {
            let Some(Waiter { lane, call, .. }) = self.waiters.get(&number) else { continue };
            let is_dry = self.lanes.get(lane).and_then(|state| state.dry).is_some_and(|(_, again)| again > now);
            if asks.len() == ASKS_MAX || is_dry {
                continue;
            }
            lanes.insert(Arc::clone(lane), asks.len());
            asks.push(Ask { class: call.class, parts: call.wanted.parts.clone(), more: 0 });
            asked.push(number);
        }
        for (lane, last) in lanes {
            // Of calls that differ in what they take nobody knows what the next one will.
            let is_even = asks.get(last).is_some_and(|ask| ask.parts.iter().all(|part| part.need == 1));
            let state = self.lanes.entry(Arc::clone(&lane)).or_default();
            if is_even && let Some(ask) = asks.get_mut(last) {
                ask.more = state.ahead(now, &lane);
            }
        }
        self.trips += 1;
        let words = self.words();
        let told = std::mem::take(&mut self.told);
        let mut all: BTreeMap<Name, Word> = BTreeMap::new();
        let word = |bucket: &Name, rate| Word { bucket: bucket.clone(), rate, back: 0, waiting: Waiting::default() };
        told.into_iter().for_each(|(bucket, rate)| drop(all.insert(bucket.clone(), word(&bucket, rate))));
        for (bucket, (rate, waiting)) in words {
            self.told.insert(bucket.clone(), rate);
            all.insert(bucket.clone(), Word { waiting, ..word(&bucket, rate) });
        }
        for (bucket, (rate, back)) in &self.back {
            all.entry(bucket.clone()).or_insert_with(|| word(bucket, *rate)).back = *back;
        }
        // What is given back is said once: said twice, it would be there twice.
        let back = self.back.iter().map(|(bucket, (_, back))| (bucket.clone(), *back)).collect();
        self.back.retain(|_, (_, back)| *back < 0);
        let tidy = self.tidied.is_none_or(|at| now.saturating_sub(at) >= TIDY_MS);
        self.tidied = if tidy { Some(now) } else { self.tidied };
        Trip { take: Take { by, asks, words: all.into_values().collect(), tidy }, asked, back }
    }

    fn bound(&mut self, now: u64) {
        if self.lanes.len() > KEPT_MAX {
            self.lanes.retain(|_, state| state.waiters > 0 || state.have_until > now);
        }
        if self.turns.len() > KEPT_MAX {
            self.turns.clear();
        }
    }

    /// A trip was answered. What became of calls that waited, by their numbers.
    pub fn answered(&mut self, now: u64, trip: &Trip, taken: &Taken) -> Vec<(u64, Verdict)> {
        for (bucket, said) in &trip.back {
            // What is still to be taken was kept until now.
            if let Some(known) = self.back.get_mut(bucket).filter(|_| *said < 0) {
                known.1 = known.1.saturating_sub(*said);
            }
        }
        self.back.retain(|_, (_, back)| *back != 0);
        let mut verdicts = Vec::new();
        let mut seen = BTreeSet::new();
        for ((number, ask), granted) in trip.asked.iter().zip(&trip.take.asks).zip(&taken.granted) {
            let lane: Lane = Arc::new(ask.parts.iter().map(|part| (part.bucket.clone(), part.rate)).collect());
            let mut left = granted.calls;
            let waited = if left > 0 { self.remove(*number) } else { None };
            let state = self.lanes.entry(Arc::clone(&lane)).or_default();
            if let Some(waiter) = waited {
                left -= 1;
                state.went(now);
                self.served += 1;
                self.turns.insert(waiter.call.tenant, self.served);
                verdicts.push((*number, Verdict::Go));
            }
            // Also those of a call that waits no longer: another one uses them.
            if left > 0 && ask.parts.iter().all(|part| part.need == 1) {
                let kept = if state.have_until > now { state.have } else { 0 };
                (state.have, state.have_until) = (kept + left, now + BLOCK_MS);
            } else if left > 0 {
                for part in &ask.parts {
                    let known = self.back.entry(part.bucket.clone()).or_insert((part.rate, 0));
                    known.1 += i64::try_from(part.need.saturating_mul(left)).unwrap_or(i64::MAX);
                }
            }
            if granted.calls > 0 {
                state.dry = None;
            } else if seen.insert(Arc::clone(&lane)) {
                let pause = granted.wait_ms.clamp(AGAIN_MS.0, AGAIN_MS.1);
                state.dry = Some((now.saturating_add(granted.wait_ms), now + pause));
            }
        }
        verdicts.extend(self.serve(now));
        verdicts.extend(self.in_vain(now));
        verdicts
    }

    /// Lets calls go with what was taken ahead.
    fn serve(&mut self, now: u64) -> Vec<(u64, Verdict)> {
        let mut going = Vec::new();
        for number in self.order(false) {
            let lane = self.waiters.get(&number).map(|waiter| Arc::clone(&waiter.lane));
            if lane.and_then(|lane| self.lanes.get_mut(&lane)).is_some_and(|state| state.serve(now)) {
                self.remove(number);
                going.push((number, Verdict::Go));
            }
        }
        going
    }

    /// A trip failed: whether it was made is not known.
    pub fn failed(&mut self, now: u64, trip: &Trip) {
        for ask in &trip.take.asks {
            let lane: Lane = Arc::new(ask.parts.iter().map(|part| (part.bucket.clone(), part.rate)).collect());
            self.lanes.entry(lane).or_default().dry = Some((now + FAILED_MS, now + FAILED_MS));
        }
    }

    /// Calls that cannot go in time, even if nobody else came between.
    fn in_vain(&mut self, now: u64) -> Vec<(u64, Verdict)> {
        let mut before: BTreeMap<&Lane, Vec<u64>> = BTreeMap::new();
        let mut vain = Vec::new();
        for number in self.order(false) {
            let Some(Waiter { lane, call, deadline }) = self.waiters.get(&number) else { continue };
            let Some((first, _)) = self.lanes.get(lane).and_then(|state| state.dry) else { continue };
            let sums = before.entry(lane).or_insert_with(|| vec![0; lane.len()]);
            let behind = lane.iter().zip(&*sums).map(|((_, rate), sum)| ms_for(*sum, *rate)).max().unwrap_or(0);
            let expected = first.saturating_add(behind);
            if expected > *deadline {
                let shed = Shed { buckets: names(lane), after_ms: expected.saturating_sub(now).max(1) };
                vain.push((number, Verdict::Shed(shed)));
            } else {
                sums.iter_mut().zip(&call.wanted.parts).for_each(|(sum, part)| *sum += part.need);
            }
        }
        for (number, _) in &vain {
            self.remove(*number);
        }
        vain
    }
}

#[cfg(test)]
mod tests;
