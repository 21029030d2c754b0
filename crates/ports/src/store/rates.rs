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
    /// Calls that are expected beside it.
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
    /// Their runs, [`NAMED_MAX`] of them at most.
    pub runs: Vec<RunId>,
    /// When this was said, by the store's time.
    pub heard: Timestamp,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Calls that may be made: the one that waits, and of those beside it.
    pub calls: u64,
    /// In how many milliseconds the first that may not be made can be expected to; 0 when all may.
    pub wait_ms: u64,
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
        let mut bucket = Self { rate, level: 0, at: since.min(now), waiting: BTreeMap::new() };
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

    /// Permits that are for others before this class of a process has any: those of higher classes.
    fn kept_back(&self, by: &Name, class: Priority) -> u64 {
        let others = self.waiting.iter().filter(|(process, _)| *process != by);
        others.map(|(_, waiting)| waiting.permits[..place(class)].iter().sum::<u64>()).sum()
    }

    /// The most that this class of a process gets on one trip: where others want as much, an equal part.
    fn share(&self, by: &Name, class: Priority) -> u64 {
        let left = u64::try_from(self.whole()).unwrap_or(0).saturating_sub(self.kept_back(by, class));
        let others = self.waiting.iter().filter(|(process, _)| *process != by);
        let wanted: Vec<u64> =
            others.map(|(_, waiting)| waiting.permits[place(class)]).filter(|permits| *permits > 0).collect();
        let equal = left.div_ceil(wanted.len() as u64 + 1);
        equal.max(left.saturating_sub(wanted.iter().sum()))
    }
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
    let granted = take.asks.iter().map(|ask| grant(take, ask, buckets, &mut shares)).collect();
    Taken { granted }
}

/// What a class of the process may still take of a bucket on this trip.
type Shares = BTreeMap<(Name, usize), u64>;

fn grant(take: &Take, ask: &Ask, buckets: &mut BTreeMap<Name, Bucket>, shares: &mut Shares) -> Granted {
    let wanted = ask.more.saturating_add(1);
    let (mut calls, mut wait_ms) = (wanted, 0);
    let class = place(ask.class);
    for part in &ask.parts {
        let Some(bucket) = buckets.get(&part.bucket) else { return Granted { calls: 0, wait_ms: 1 } };
        let share = *shares.entry((part.bucket.clone(), class)).or_insert_with(|| bucket.share(&take.by, ask.class));
        let left = u64::try_from(bucket.whole()).unwrap_or(0);
        let need = part.need.clamp(1, part.rate.burst);
        let fit = left.min(share) / need;
        if fit < wanted {
            let before =
                bucket.kept_back(&take.by, ask.class).saturating_add(fit.saturating_add(1).saturating_mul(need));
            let missing = parts(before, part.rate.per_ms).saturating_sub(bucket.level);
            // Where it is there and others have a part in it, it is asked for again soon.
            let missing = if missing > 0 { missing } else { parts(1, part.rate.per_ms) };
            wait_ms = wait_ms.max(part.rate.ms_for(missing));
        }
        calls = calls.min(fit);
    }
    for part in &ask.parts {
        let Some(bucket) = buckets.get_mut(&part.bucket) else { continue };
        let taken = part.need.clamp(1, part.rate.burst).saturating_mul(calls);
        bucket.level = bucket.level.saturating_sub(parts(taken, part.rate.per_ms));
        if let Some(share) = shares.get_mut(&(part.bucket.clone(), class)) {
            *share = share.saturating_sub(taken);
        }
        if calls > 0
            && let Some(waiting) = bucket.waiting.get_mut(&take.by)
        {
            waiting.calls = waiting.calls.saturating_sub(1);
            let mine = &mut waiting.permits[class];
            *mine = mine.saturating_sub(part.need.clamp(1, part.rate.burst));
            if waiting.calls == 0 {
                bucket.waiting.remove(&take.by);
            }
        }
    }
    Granted { calls, wait_ms: if calls < wanted { wait_ms.max(1) } else { 0 } }
}

#[cfg(test)]
mod tests;
