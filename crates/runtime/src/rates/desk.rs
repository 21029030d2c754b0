//! Calls of one process that wait for permits: who is asked for first, what was taken ahead, who waits in vain. Without
//! I/O; time comes as milliseconds of a clock that never goes back.
//!
//! Calls that take of the same buckets are a lane. A trip to the store asks for the calls at the front of all lanes, and
//! takes a block ahead for lanes that are busy, so that most calls ask nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::effect::Said;
use windlass_core::ids::{Name, RunId};
use windlass_core::machine::Priority;
use windlass_core::time::Timestamp;
use windlass_ports::store::rates::{Ask, Head, NAMED_MAX, Part, Rate, Take, Taken, Waiting, Word, place};

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

/// What is known of a call that got nothing.
#[derive(Clone, Debug)]
struct Dry {
    /// When it can be expected to go.
    expected: u64,
    /// When it is asked for again.
    again: u64,
    /// What it takes.
    parts: Vec<Part>,
    /// The buckets that had too little for it.
    short: Vec<Name>,
}

impl Dry {
    /// Whether a call goes no sooner: it takes as much of what is short.
    fn holds(&self, call: &Call) -> bool {
        let mut pairs = self.parts.iter().zip(&call.wanted.parts);
        pairs.all(|(mine, other)| other.need >= mine.need || !self.short.contains(&mine.bucket))
    }

    /// The buckets of a lane that had too little; all where none is named.
    fn short(&self, lane: &Lane) -> Vec<Name> {
        if self.short.is_empty() { names(lane) } else { self.short.clone() }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Calls that were taken ahead.
    have: u64,
    have_until: u64,
    /// The calls of each class that are at the front and got nothing.
    dry: [Option<Dry>; 3],
    /// Calls that went in this second, and in the one before.
    went: (u64, u64),
    second: u64,
    waiters: usize,
}

impl State {
    /// What holds up a call of a class: one of its own class or of a higher one.
    fn dry(&self, class: Priority) -> Option<&Dry> {
        self.dry[..=place(class)].iter().flatten().max_by_key(|dry| dry.again)
    }

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
        if let Some(dry) = state.dry(call.class).filter(|dry| dry.again > now && dry.holds(&call))
            && dry.expected.max(dry.again) > deadline
        {
            let after_ms = dry.expected.max(dry.again).saturating_sub(now).max(1);
            return Entered::Now(Verdict::Shed(Shed { buckets: dry.short(&lane), after_ms }));
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
        let dry = self.dry_of(&waiter);
        let buckets = dry.map_or_else(|| names(&waiter.lane), |dry| dry.short(&waiter.lane));
        let expected = dry.map_or(now, |dry| dry.expected);
        Some(Shed { buckets, after_ms: expected.saturating_sub(now).max(1) })
    }

    /// In how many milliseconds calls of a class would go at the earliest that take of these buckets; none where nothing
    /// is known against it.
    #[must_use]
    pub fn dry(&self, now: u64, wanted: &Wanted, class: Priority) -> Option<u64> {
        let dry = self.lanes.get(&lane_of(wanted))?.dry(class)?;
        (dry.again > now).then(|| dry.expected.max(dry.again) - now)
    }

    /// What holds up a call that waits.
    fn dry_of(&self, waiter: &Waiter) -> Option<&Dry> {
        self.lanes.get(&waiter.lane)?.dry(waiter.call.class)
    }

    /// A call ended that had permits: of the tokens that it had taken it used so many, as far as that is known. One that
    /// never left used nothing of anything.
    pub fn ended(&mut self, wanted: &Wanted, left: bool, used: Option<Said>) {
        for (part, is_tokens) in wanted.parts.iter().zip(&wanted.tokens) {
            let signed = |permits: u64| i64::try_from(permits).unwrap_or(i64::MAX);
            let back = match (left, is_tokens, used) {
                (false, _, _) => signed(part.need),
                (true, true, Some(Said::Exactly(used))) => signed(part.need).saturating_sub(signed(used)),
                // What it took stays taken, and what is known beyond that is taken too.
                (true, true, Some(Said::AtLeast(used))) => signed(part.need).saturating_sub(signed(used)).min(0),
                (true, _, _) => 0,
            };
            if back != 0 {
                let known = self.back.entry(part.bucket.clone()).or_insert((part.rate, 0));
                *known = (part.rate, known.1.saturating_add(back));
            }
        }
    }

    /// Nobody asks any more: what was taken ahead goes back.
    pub fn close(&mut self, now: u64) {
        for (lane, state) in &mut self.lanes {
            let unused = if state.have_until > now { std::mem::take(&mut state.have) } else { 0 };
            for (bucket, rate) in lane.iter().filter(|_| unused > 0) {
                let known = self.back.entry(bucket.clone()).or_insert((*rate, 0));
                known.1 = known.1.saturating_add(i64::try_from(unused).unwrap_or(i64::MAX));
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
        // Those that are to be asked for at almost the same time share a trip, whatever they wait for.
        let shared = |dry: &Dry| dry.again.next_multiple_of(AGAIN_MS.0);
        let again = |waiter: &Waiter| self.dry_of(waiter).map_or(now, |dry| shared(dry).max(now));
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

    /// Who waits where, and since when. A call that got nothing waits for what was short, and leaves the rest to others;
    /// of one that is asked for nothing is known yet.
    fn words(&self, asked: &[u64]) -> BTreeMap<Name, (Rate, Waiting)> {
        let mut words: BTreeMap<Name, (Rate, Waiting)> = BTreeMap::new();
        let asked: BTreeSet<u64> = asked.iter().copied().collect();
        for number in self.order(false) {
            let Some(waiter) = self.waiters.get(&number) else { continue };
            let call = &waiter.call;
            let short = self.dry_of(waiter).filter(|_| !asked.contains(&number)).map(|dry| &dry.short);
            let parts = call.wanted.parts.iter().filter(|part| short.is_none_or(|short| short.contains(&part.bucket)));
            for part in parts {
                let known = words.entry(part.bucket.clone()).or_insert_with(|| (part.rate, Waiting::default()));
                let (rate, waiting) = known;
                *rate = part.rate;
                let since = if waiting.calls == 0 { call.since } else { waiting.since.min(call.since) };
                (waiting.calls, waiting.since) = (waiting.calls + 1, since);
                waiting.permits[place(call.class)] += part.need;
                let head = &mut waiting.heads[place(call.class)];
                let first = head.unwrap_or(Head { since: call.since, need: part.need });
                *head = Some(Head { since: first.since.min(call.since), ..first });
                if waiting.runs.len() < NAMED_MAX && !waiting.runs.contains(&call.run) {
                    waiting.runs.push(call.run.clone());
                }
            }
        }
        words
    }

    /// Who is asked for on a trip: calls of which it is not known that they get nothing, and what they would take
    /// something away from.
    fn asked(&self, now: u64) -> Vec<u64> {
        let lowest_first = self.trips % LOWEST_FIRST_EVERY == LOWEST_FIRST_EVERY - 1;
        let waiting: Vec<_> = self
            .order(lowest_first)
            .into_iter()
            .filter_map(|number| {
                let waiter = self.waiters.get(&number)?;
                Some((number, waiter, self.dry_of(waiter).filter(|dry| dry.again > now)))
            })
            .collect();
        let is_due = |(number, waiter, dry): &(u64, &Waiter, Option<&Dry>)| {
            dry.is_none().then(|| (*number, Arc::clone(&waiter.lane)))
        };
        let due: BTreeMap<u64, Lane> = waiting.iter().filter_map(is_due).take(ASKS_MAX).collect();
        let buckets: BTreeSet<&Name> = due.values().flat_map(|lane| lane.iter()).map(|(name, _)| name).collect();
        let (mut stood_for, mut asked) = (BTreeSet::new(), Vec::new());
        for (number, waiter, dry) in &waiting {
            let class = place(waiter.call.class);
            // One of each class stands for all behind it.
            let stands = |dry: &&Dry| {
                let of_due = dry.short.iter().filter(|name| buckets.contains(name));
                of_due.filter(|name| stood_for.insert(((*name).clone(), class))).count() > 0
            };
            if due.contains_key(number) || dry.filter(stands).is_some() {
                asked.push(*number);
            }
        }
        asked
    }

    /// The next trip of a process.
    pub fn begin(&mut self, now: u64, by: Name) -> Trip {
        self.bound(now);
        let asked = self.asked(now);
        let (mut asks, mut lanes) = (Vec::new(), BTreeMap::new());
        for Waiter { lane, call, .. } in asked.iter().filter_map(|number| self.waiters.get(number)) {
            lanes.insert(Arc::clone(lane), asks.len());
            asks.push(Ask { class: call.class, parts: call.wanted.parts.clone(), more: 0 });
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
        let words = self.words(&asked);
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
            let dry = &mut state.dry[place(ask.class)];
            if granted.calls > 0 {
                *dry = None;
            } else if seen.insert((lane, ask.class)) {
                let (expected, short) = (now.saturating_add(granted.wait_ms), granted.short.clone());
                let again = now + granted.wait_ms.clamp(AGAIN_MS.0, AGAIN_MS.1);
                *dry = Some(Dry { expected, again, parts: ask.parts.clone(), short });
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
            let (short, parts) =
                (names(&lane), ask.parts.iter().map(|part| Part { need: 1, ..part.clone() }).collect());
            let dry = Dry { expected: now + FAILED_MS, again: now + FAILED_MS, parts, short };
            self.lanes.entry(lane).or_default().dry[place(ask.class)] = Some(dry);
        }
    }

    /// Calls that cannot go in time, even if nobody else came between.
    fn in_vain(&mut self, now: u64) -> Vec<(u64, Verdict)> {
        let mut before: BTreeMap<&Lane, Vec<u64>> = BTreeMap::new();
        let mut vain = Vec::new();
        for number in self.order(false) {
            let Some(waiter @ Waiter { lane, call, deadline }) = self.waiters.get(&number) else { continue };
            let Some(dry) = self.dry_of(waiter) else { continue };
            let sums = before.entry(lane).or_insert_with(|| vec![0; lane.len()]);
            let behind = lane.iter().zip(&*sums).map(|((_, rate), sum)| ms_for(*sum, *rate)).max().unwrap_or(0);
            let expected = dry.expected.saturating_add(behind);
            if expected > *deadline && dry.holds(call) {
                let shed = Shed { buckets: dry.short(lane), after_ms: expected.saturating_sub(now).max(1) };
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
