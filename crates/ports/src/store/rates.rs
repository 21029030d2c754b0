//! The port's part of rates: token buckets that all processes of a store share, and what a store does with them in one
//! transaction.
//!
//! A process takes permits in blocks and serves calls from them. What was handed out of a bucket never exceeds its burst
//! and its rate times the time together, whoever took it; what was taken and is lost with its process is used up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;

use super::{Priority, StoreError};
use crate::BoxFuture;

/// How long what a process said of its waiting calls counts, in milliseconds, unless it says so again.
pub const HEARD_MS: u64 = 5_000;
/// How far the store's time may go back without a bucket taking notice, in milliseconds.
const BACKWARDS_MS: u64 = 5_000;
/// Of so many calls one is of a lower class than the highest that waits, so that none waits for ever.
const LOWER_EVERY: u64 = 16;
/// Runs that are named of those that wait at one process, at most.
pub const NAMED_MAX: usize = 64;

/// So many permits in each period, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate {
    /// Permits that come back in a period.
    pub amount: u64,
    /// The period in milliseconds.
    pub per_ms: u64,
    /// Permits that a full bucket has.
    pub burst: u64,
}

impl Rate {
    /// The most that `amount` and `burst` may be.
    pub const AMOUNT_MAX: u64 = 1_000_000_000;
    /// The longest period: a day.
    pub const PER_MS_MAX: u64 = 86_400_000;

    /// Whether it can be reckoned with.
    ///
    /// # Errors
    /// The part that is wrong, and what it may be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let one_to = |most: u64| format!("is 1 to {most}");
        if !(1..=Self::AMOUNT_MAX).contains(&self.amount) {
            return Err(("amount", one_to(Self::AMOUNT_MAX)));
        }
        if !(1..=Self::PER_MS_MAX).contains(&self.per_ms) {
            return Err(("per", "is `1ms` to `24h`".into()));
        }
        if !(1..=Self::AMOUNT_MAX).contains(&self.burst) {
            return Err(("burst", one_to(Self::AMOUNT_MAX)));
        }
        Ok(())
    }

    /// Parts of a permit that a full bucket has: as many to each permit as a period has milliseconds, so that every
    /// millisecond brings whole ones.
    fn full(&self) -> i64 {
        parts(self.burst, self.per_ms)
    }

    /// Milliseconds in which so many parts come back.
    fn ms_for(&self, parts: i64) -> u64 {
        u64::try_from(parts).unwrap_or(0).div_ceil(self.amount.max(1))
    }
}

/// Permits in parts. Within the bounds of [`Rate::check`] nothing is cut off.
fn parts(permits: u64, per_ms: u64) -> i64 {
    i64::try_from(permits.saturating_mul(per_ms)).unwrap_or(i64::MAX)
}

/// One permit, or several, of one bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The bucket.
    pub bucket: Name,
    /// Its rate, as whoever asks has it configured.
    pub rate: Rate,
    /// Permits that one call takes. More than the burst counts as the burst.
    pub need: u64,
}

/// Permits for one call, and for more calls like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The class of the call's run.
    pub class: Priority,
    /// What each call takes: of all of these, or nothing.
    pub parts: Vec<Part>,
    /// Calls that are expected beside it. They are served only from what nobody waits for.
    pub more: u64,
}

/// What a process says of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The bucket.
    pub bucket: Name,
    /// Its rate.
    pub rate: Rate,
    /// Permits that were taken and not used, or were used beyond what was taken where this is less than 0.
    pub back: i64,
    /// Who waits there, these asks included.
    pub waiting: Waiting,
}

/// Who waits for permits of a bucket at one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Permits that are waited for, of classes `high`, `normal` and `low`.
    pub permits: [u64; 3],
    /// Calls that wait.
    pub calls: u64,
    /// Since when the first of them does.
    pub since: Timestamp,
    /// What is kept for each class here before whoever came later has any.
    #[serde(default)]
    pub heads: [Option<Head>; 3],
    /// Their runs, [`NAMED_MAX`] of them at most.
    pub runs: Vec<RunId>,
    /// When this was said, by the store's time.
    pub heard: Timestamp,
}

/// The call of a class that is served next at one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Since when the first call of its class waits.
    pub since: Timestamp,
    /// Permits that it takes; 0 where that is not known yet.
    pub need: u64,
}

/// One trip of a process to the buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The process.
    pub by: Name,
    /// Calls that wait, in the order in which they are to be served.
    pub asks: Vec<Ask>,
    /// What else is said of these buckets, and of others.
    pub words: Vec<Word>,
    /// Whether buckets that are full and unused are forgotten on this occasion.
    pub tidy: bool,
}

impl Take {
    /// The buckets that it is about, with their rates, in the order of their names.
    #[must_use]
    pub fn buckets(&self) -> BTreeMap<Name, Rate> {
        let asked = self.asks.iter().flat_map(|ask| &ask.parts).map(|part| (part.bucket.clone(), part.rate));
        let said = self.words.iter().map(|word| (word.bucket.clone(), word.rate));
        said.chain(asked).collect()
    }
}

/// What an ask got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Calls that may be made: the one that waits, and of those beside it.
    pub calls: u64,
    /// In how many milliseconds the first that may not be made can be expected to; 0 when all may.
    pub wait_ms: u64,
    /// The buckets that had too little for one call; none where one may be made.
    pub short: Vec<Name>,
}

/// The answer to a trip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of each ask.
    pub granted: Vec<Granted>,
}

/// A bucket, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its rate, as whoever took last had it configured.
    pub rate: Rate,
    /// Parts of permits in it; less than none where more was used than was taken.
    level: i64,
    /// Up to when it was filled.
    at: Timestamp,
    /// Who waits, by process.
    waiting: BTreeMap<Name, Waiting>,
    /// Calls that were served one after another while one of a lower class waited.
    #[serde(default)]
    passed: u64,
}

/// A bucket as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BucketRow {
    /// Its name.
    pub bucket: Name,
    /// Its rate.
    pub rate: Rate,
    /// Permits in it; less than none where more was used than was taken.
    pub left: i64,
    /// Who waits, by process.
    pub waiting: BTreeMap<Name, Waiting>,
}

/// The buckets of a store.
pub trait Rates: Send + Sync {
    /// Takes permits, gives back what was not used, and says who waits, in one transaction over all buckets that are
    /// named: see [`settle`]. What was taken with an answer that was lost is used up. It is as good as written once it is
    /// answered: a store that may lose such a write lets its buckets begin empty afterwards.
    fn take(&self, take: Take) -> BoxFuture<'_, Result<Taken, StoreError>>;

    /// Buckets in the order of their names, after one. Those that are full and unused may be missing.
    fn buckets(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>>;
}

/// Where a class stands among [`Waiting::permits`].
#[must_use]
pub fn place(class: Priority) -> usize {
    match class {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Bucket {
    /// One that was empty at a time, of a store that knows nothing from before it.
    #[must_use]
    pub fn empty_since(since: Timestamp, rate: Rate, now: Timestamp) -> Self {
        let mut bucket = Self { rate, level: 0, at: since.min(now), waiting: BTreeMap::new(), passed: 0 };
        bucket.fill(rate, now);
        bucket
    }

    /// From its bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for bytes that are no bucket.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|error| StoreError::Corrupt(format!("the bucket `{name}` cannot be read: {error}")))
    }

    /// As bytes.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it cannot be written down.
    pub fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::Invalid(format!("a bucket cannot be written: {error}")))
    }

    /// When it says no more than that it is full.
    #[must_use]
    pub fn idle_at(&self) -> Timestamp {
        let heard = self.waiting.values().map(|waiting| waiting.heard.plus_ms(HEARD_MS)).max();
        let full = self.at.plus_ms(self.rate.ms_for(self.rate.full().saturating_sub(self.level)));
        full.max(heard.unwrap_or_default())
    }

    /// As it is told.
    #[must_use]
    pub fn row(mut self, bucket: Name, now: Timestamp) -> BucketRow {
        self.fill(self.rate, now);
        BucketRow { bucket, rate: self.rate, left: self.whole(), waiting: self.waiting }
    }

    /// Brings it to the present, and to a rate that may be another one than before.
    fn fill(&mut self, rate: Rate, now: Timestamp) {
        if now < self.at {
            // A clock that was set back a little gives nothing twice; one that was set back far starts anew from there.
            if self.at.since_ms(now) > BACKWARDS_MS {
                self.at = now;
            }
        } else {
            let came = i128::from(now.since_ms(self.at)) * i128::from(self.rate.amount);
            let level = (i128::from(self.level) + came).min(i128::from(self.rate.full()));
            self.level = i64::try_from(level).unwrap_or(i64::MAX);
            self.at = now;
        }
        if rate != self.rate {
            let per = |rate: Rate| i128::from(rate.per_ms.max(1));
            let level = i128::from(self.level) * per(rate);
            self.level = i64::try_from(level.div_euclid(per(self.rate))).unwrap_or(i64::MAX).min(rate.full());
            self.rate = rate;
        }
        self.waiting.retain(|_, waiting| waiting.heard.plus_ms(HEARD_MS) > now);
    }

    /// Whole permits.
    fn whole(&self) -> i64 {
        self.level.div_euclid(i64::try_from(self.rate.per_ms.max(1)).unwrap_or(i64::MAX))
    }

    /// In how many milliseconds so many permits are there. Where they are and are another's, it is asked for again soon, by
    /// then as the first.
    fn ms_until(&self, permits: u64) -> u64 {
        let missing = parts(permits, self.rate.per_ms).saturating_sub(self.level);
        self.rate.ms_for(if missing > 0 { missing } else { parts(1, self.rate.per_ms) })
    }

    /// Takes note of what a process says.
    fn hear(&mut self, by: &Name, word: &Word, now: Timestamp) {
        let per_ms = i64::try_from(self.rate.per_ms).unwrap_or(i64::MAX);
        let back = word.back.saturating_mul(per_ms);
        self.level = self.level.saturating_add(back).min(self.rate.full());
        self.waiting.remove(by);
        if word.waiting.calls > 0 {
            self.waiting.insert(by.clone(), Waiting { heard: now, ..word.waiting.clone() });
        }
    }

    /// What others said of their waiting calls.
    fn others(&self, by: &Name) -> impl Iterator<Item = (&Name, &Waiting)> {
        self.waiting.iter().filter(move |(process, _)| *process != by)
    }

    /// Calls of this class at other processes that are served before the next one of this process: they came before it.
    fn before(&self, by: &Name, class: usize) -> impl Iterator<Item = u64> {
        let mine = self.waiting.get(by).and_then(|waiting| waiting.heads[class]).map(|head| (head.since, by));
        let heads = self.others(by).filter_map(move |(process, waiting)| Some((process, waiting.heads[class]?)));
        let before = heads.filter(move |(process, head)| mine.is_none_or(|mine| (head.since, *process) < mine));
        before.map(|(_, head)| head.need.clamp(1, self.rate.burst))
    }

    /// The call that has waited longest of those below a class, and its class.
    fn below(&self, class: usize) -> Option<(Head, usize)> {
        let heads = self.waiting.values().flat_map(|waiting| waiting.heads.iter().copied().zip(0..));
        let below = heads.filter_map(|(head, of)| Some((head?, of))).filter(|(_, of)| *of > class);
        below.min_by_key(|(head, of)| (head.since, *of))
    }

    /// The call whose turn it is although calls of higher classes wait, and its class.
    fn turn(&self) -> Option<(Head, usize)> {
        let highest = (0..3).find(|class| self.waiting.values().any(|waiting| waiting.heads[*class].is_some()))?;
        self.below(highest).filter(|_| self.passed >= LOWER_EVERY - 1)
    }

    /// Notes that calls of a class were served.
    fn served(&mut self, class: usize, calls: u64) {
        let highest = (0..class).all(|higher| self.waiting.values().all(|waiting| waiting.heads[higher].is_none()));
        self.passed = match self.below(class) {
            Some(_) if highest => self.passed.saturating_add(calls),
            _ => 0,
        };
    }

    /// Permits that are for others before this class of a process has any: those of higher classes, and those of calls of
    /// its own class that came before. Without the latter two processes with large calls would wait for each other. A lower
    /// class whose turn it is comes before higher ones.
    fn kept_back(&self, by: &Name, class: usize) -> u64 {
        let turn = self.turn();
        let higher = if turn.is_some_and(|(_, of)| of == class) { 0 } else { class };
        let lower = turn.filter(|(_, of)| *of > class).map(|(head, _)| head.need.clamp(1, self.rate.burst));
        let higher = self.others(by).flat_map(|(_, waiting)| &waiting.permits[..higher]);
        higher.copied().chain(lower).chain(self.before(by, class)).fold(0, u64::saturating_add)
    }

    /// Permits that nobody waits for.
    fn spare(&self) -> u64 {
        let waited = self.waiting.values().flat_map(|waiting| waiting.permits).fold(0, u64::saturating_add);
        u64::try_from(self.whole()).unwrap_or(0).saturating_sub(waited)
    }

    /// What this class of a process may take on one trip.
    fn share(&self, by: &Name, class: usize) -> Share {
        let first = u64::try_from(self.whole()).unwrap_or(0).saturating_sub(self.kept_back(by, class));
        let (mut others, mut wanted) = (0, 0_u64);
        for (_, waiting) in self.others(by).filter(|(_, waiting)| waiting.permits[class] > 0) {
            (others, wanted) = (others + 1, wanted.saturating_add(waiting.permits[class]));
        }
        let wanted = wanted.saturating_sub(self.before(by, class).sum());
        // Where others want as much, an equal part.
        let rest = first.div_ceil(others + 1).max(first.saturating_sub(wanted));
        Share { first, rest, behind_ms: 0 }
    }

    /// A call of a process waits here.
    fn waits_on(&mut self, by: &Name, class: usize, need: u64) {
        let head = self.waiting.get_mut(by).and_then(|waiting| waiting.heads[class].as_mut());
        if let Some(head) = head.filter(|head| head.need == 0) {
            head.need = need;
        }
    }

    /// A call of a process does not wait here: it was served, or waits elsewhere.
    fn waits_no_longer(&mut self, by: &Name, class: usize, need: u64) {
        let Some(waiting) = self.waiting.get_mut(by) else { return };
        waiting.calls = waiting.calls.saturating_sub(1);
        waiting.permits[class] = waiting.permits[class].saturating_sub(need);
        let waits = waiting.permits[class] > 0;
        waiting.heads[class] = waiting.heads[class].filter(|_| waits).map(|head| Head { need: 0, ..head });
        if waiting.calls == 0 {
            self.waiting.remove(by);
        }
    }
}

/// What a class of a process may still take of a bucket on a trip.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Permits for its next call alone.
    first: u64,
    /// Permits for all its calls.
    rest: u64,
    /// Where a call before it waits: in how many milliseconds that one can be expected to go.
    behind_ms: u64,
}

/// Answers a trip. `buckets` are those of [`Take::buckets`] as they were stored; one that was not there is
/// [`empty_since`](Bucket::empty_since). They are to be written back whatever the answer is.
pub fn settle(take: &Take, buckets: &mut BTreeMap<Name, Bucket>, now: Timestamp) -> Taken {
    for (name, rate) in take.buckets() {
        if let Some(bucket) = buckets.get_mut(&name) {
            bucket.fill(rate, now);
        }
    }
    for word in &take.words {
        if let Some(bucket) = buckets.get_mut(&word.bucket) {
            bucket.hear(&take.by, word, now);
        }
    }
    let mut shares = BTreeMap::new();
    let mut granted: Vec<Granted> = take.asks.iter().map(|ask| grant(take, ask, buckets, &mut shares)).collect();
    // What is taken ahead is what those who wait leave.
    for (ask, granted) in take.asks.iter().zip(&mut granted).filter(|(ask, granted)| ask.more > 0 && granted.calls > 0)
    {
        ahead(ask, granted, buckets);
    }
    Taken { granted }
}

/// What the classes of the process may still take on this trip.
type Shares = BTreeMap<(Name, usize), Share>;

impl Part {
    /// Permits that a call takes of a bucket which has that rate.
    fn takes(&self) -> u64 {
        self.need.clamp(1, self.rate.burst.max(1))
    }
}

fn grant(take: &Take, ask: &Ask, buckets: &mut BTreeMap<Name, Bucket>, shares: &mut Shares) -> Granted {
    let (mut wait_ms, mut short) = (0, Vec::new());
    let class = place(ask.class);
    for part in &ask.parts {
        let Some(bucket) = buckets.get(&part.bucket) else { return Granted { wait_ms: 1, ..Granted::default() } };
        let share = *shares.entry((part.bucket.clone(), class)).or_insert_with(|| bucket.share(&take.by, class));
        let (left, need) = (u64::try_from(bucket.whole()).unwrap_or(0), part.takes());
        if left.min(share.rest.max(share.first)) >= need {
            continue;
        }
        let before = bucket.kept_back(&take.by, class).saturating_add(need);
        wait_ms = wait_ms.max(bucket.ms_until(before)).max(share.behind_ms);
        short.push(part.bucket.clone());
    }
    for part in &ask.parts {
        let Some(bucket) = buckets.get_mut(&part.bucket) else { continue };
        if short.contains(&part.bucket) {
            // What it waits for is not for smaller calls that come later.
            let none = Share { behind_ms: wait_ms, ..Share::default() };
            shares.extend((class..3).map(|class| ((part.bucket.clone(), class), none)));
            bucket.waits_on(&take.by, class, part.takes());
            continue;
        }
        if short.is_empty() {
            bucket.served(class, 1);
            bucket.level = bucket.level.saturating_sub(parts(part.takes(), part.rate.per_ms));
            if let Some(share) = shares.get_mut(&(part.bucket.clone(), class)) {
                (share.first, share.rest) = (0, share.rest.saturating_sub(part.takes()));
            }
        }
        bucket.waits_no_longer(&take.by, class, part.takes());
    }
    Granted { calls: u64::from(short.is_empty()), wait_ms: if short.is_empty() { 0 } else { wait_ms.max(1) }, short }
}

/// Adds what may be taken ahead of calls.
fn ahead(ask: &Ask, granted: &mut Granted, buckets: &mut BTreeMap<Name, Bucket>) {
    let fit = |part: &Part| buckets.get(&part.bucket).map_or(0, |bucket| bucket.spare() / part.takes());
    let calls = ask.parts.iter().map(fit).min().unwrap_or(ask.more).min(ask.more);
    for part in &ask.parts {
        let Some(bucket) = buckets.get_mut(&part.bucket) else { continue };
        let taken = part.takes().saturating_mul(calls);
        bucket.level = bucket.level.saturating_sub(parts(taken, part.rate.per_ms));
        if calls < ask.more && bucket.spare() < part.takes() {
            let waited = u64::try_from(bucket.whole()).unwrap_or(0).saturating_sub(bucket.spare());
            granted.wait_ms = granted.wait_ms.max(bucket.ms_until(waited.saturating_add(part.takes())));
        }
    }
    granted.calls += calls;
}

#[cfg(test)]
mod tests;
