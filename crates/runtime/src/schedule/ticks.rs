//! When a schedule ticks: cron expressions in a time zone, and intervals. Time comes as arguments.
//!
//! Zones are those of the tz database that is built in, so that every host of one build agrees. An expression whose
//! seconds, minutes and hours are numbers, lists or ranges ticks once for each time of day it names: at the first moment
//! after a gap that swallows some, once for all of them, and in the first of two hours that repeat. One with `*` or a step
//! there ticks whenever the clock on the wall shows a time of it: what falls into a gap is left out, what is repeated ticks
//! twice. The cron library is asked about wall clocks that never jump; what jumps is dealt with here.

use std::collections::VecDeque;
use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;

/// Shortest interval, in milliseconds.
pub const EVERY_MS_MIN: u64 = 1_000;
/// Bytes of a cron expression.
const CRON_BYTES_MAX: usize = 256;
/// Ticks that are looked at one by one before older ones are passed over.
const WALK_MAX: usize = 2_000;

/// What makes a schedule tick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// A cron expression of five fields, of six with seconds in front, or a nickname such as `@daily`.
    Cron(Name),
    /// Every so many milliseconds, counted from the start of the schedule.
    EveryMs(u64),
}

/// Why a timing cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The expression cannot be read.
    #[error("`{expression}` is no cron expression: {why}")]
    Cron {
        /// The expression.
        expression: String,
        /// Why.
        why: String,
    },
    /// No such zone.
    #[error("`{0}` is no time zone of the tz database")]
    Zone(String),
    /// An interval below the shortest.
    #[error("an interval of {0} ms is too short, the shortest is {EVERY_MS_MIN} ms")]
    TooShort(u64),
    /// It never ticks.
    #[error("the schedule never ticks between its start and its end")]
    Never,
}

/// The ticks of one schedule.
#[derive(Clone)]
pub struct Ticks {
    rule: Rule,
    start: Timestamp,
    end: Option<Timestamp>,
}

#[derive(Clone)]
enum Rule {
    Cron { cron: Box<Cron>, zone: TimeZone },
    Every(u64),
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticks").field("start", &self.start).field("end", &self.end).finish_non_exhaustive()
    }
}

/// Ticks up to some time, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The newest of them.
    pub newest: VecDeque<Timestamp>,
    /// How many there were before these, at least.
    pub before: u64,
}

impl Ticks {
    /// The ticks of a timing in a zone, from `start` on and before `end`. Intervals count from `start`.
    ///
    /// # Errors
    /// An expression, zone or interval that cannot be used.
    pub fn new(timing: &Timing, zone: &str, start: Timestamp, end: Option<Timestamp>) -> Result<Self, TimingError> {
        let time_zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| TimingError::Zone(zone.to_owned()))?;
        let rule = match timing {
            Timing::EveryMs(every) if *every < EVERY_MS_MIN => return Err(TimingError::TooShort(*every)),
            Timing::EveryMs(every) => Rule::Every(*every),
            Timing::Cron(expression) => Rule::Cron { cron: Box::new(parse(expression)?), zone: time_zone },
        };
        Ok(Self { rule, start, end })
    }

    /// The first tick later than `then`. None when there is none any more.
    #[must_use]
    pub fn after(&self, then: Timestamp) -> Option<Timestamp> {
        let tick = match &self.rule {
            Rule::Every(every) if then < self.start => {
                debug_assert!(*every > 0, "checked when the ticks were made");
                self.start
            }
            Rule::Every(every) => {
                let passed = then.since_ms(self.start) / every;
                Timestamp(self.start.0.checked_add(passed.checked_add(1)?.checked_mul(*every)?)?)
            }
            Rule::Cron { cron, zone } => {
                // A tick on the start itself counts.
                let from = if then < self.start { Timestamp(self.start.0.saturating_sub(1)) } else { then };
                next(cron, zone, from)?
            }
        };
        self.end.is_none_or(|end| tick < end).then_some(tick)
    }

    /// The newest ticks later than `after` and not later than `until`, `keep` of them at most.
    #[must_use]
    pub fn passed(&self, after: Timestamp, until: Timestamp, keep: usize) -> Passed {
        let walked = self.between(after, until, WALK_MAX.max(keep));
        let Some(last) = walked.back().copied().filter(|_| walked.len() >= WALK_MAX.max(keep)) else {
            return Passed { newest: walked, before: 0 }.keeping(keep);
        };
        // Halves are taken in turn, so that what ticked every second and stood still for a year is dealt with in a
        // moment. The newest are found all the same; those before them are counted as far as they were seen.
        let half = Timestamp(last.0 + until.since_ms(last) / 2);
        let newer = self.between(half, until, keep + 1);
        if newer.len() > keep {
            let passed = self.passed(half, until, keep);
            return Passed { before: passed.before + walked.len() as u64, ..passed };
        }
        let mut passed = self.passed(last, half, keep);
        passed.before += walked.len() as u64;
        let room = keep - newer.len();
        if passed.newest.len() < room {
            let missing = (room - passed.newest.len()).min(walked.len());
            passed.before -= missing as u64;
            walked.iter().rev().take(missing).for_each(|tick| passed.newest.push_front(*tick));
        }
        passed.newest.extend(newer);
        passed.keeping(keep)
    }

    /// Ticks later than `after` and not later than `until`, the first `limit` of them.
    fn between(&self, after: Timestamp, until: Timestamp, limit: usize) -> VecDeque<Timestamp> {
        let next = |tick: &Timestamp| self.after(*tick).filter(|tick| *tick <= until);
        std::iter::successors(next(&after), next).take(limit).collect()
    }
}

impl Passed {
    fn keeping(mut self, keep: usize) -> Self {
        let surplus = self.newest.len().saturating_sub(keep);
        self.newest.drain(..surplus);
        self.before += surplus as u64;
        self
    }
}

/// A time as RFC 3339 text with the offset of a zone.
#[must_use]
pub fn in_zone(tick: Timestamp, zone: &str) -> String {
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC);
    let at = instant(tick).map(|at| at.to_zoned(zone));
    at.map_or_else(|| tick.0.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string())
}

fn parse(expression: &str) -> Result<Cron, TimingError> {
    let refused = |why: String| TimingError::Cron { expression: expression.chars().take(80).collect(), why };
    if expression.len() > CRON_BYTES_MAX {
        return Err(refused(format!("it has more than {CRON_BYTES_MAX} bytes")));
    }
    let fields = expression.split_whitespace().count();
    if !expression.trim_start().starts_with('@') && !(5..=6).contains(&fields) {
        return Err(refused(format!("it has {fields} fields, not five, or six with seconds in front")));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(croner::parser::Year::Disallowed).build();
    parser.parse(expression).map_err(|error| refused(error.to_string()))
}

fn instant(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// The first tick in a second later than that of `then`.
fn next(cron: &Cron, zone: &TimeZone, then: Timestamp) -> Option<Timestamp> {
    let second = instant(Timestamp(then.0 - then.0 % 1_000))?;
    let found = if names_times(cron) { next_named(cron, zone, second) } else { next_shown(cron, zone, second) }?;
    let at = Timestamp(u64::try_from(found.as_millisecond()).ok()?);
    // Time only goes forward, whatever the library says.
    (at > then).then_some(at)
}

/// Whether the expression names times of day, rather than a rhythm.
fn names_times(cron: &Cron) -> bool {
    let fields = [&cron.pattern.seconds, &cron.pattern.minutes, &cron.pattern.hours];
    fields.into_iter().all(|field| field.step == 1 && !field.from_wildcard)
}

/// The first match after `then` on a wall clock that never jumps.
fn next_wall(cron: &Cron, then: DateTime) -> Option<DateTime> {
    Some(cron.find_next_occurrence(&then.to_zoned(TimeZone::UTC).ok()?, false).ok()?.datetime())
}

/// The first tick of an expression that names times of day. A later time of day never comes at an earlier moment.
fn next_named(cron: &Cron, zone: &TimeZone, then: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let mut wall = zone.to_datetime(then);
    loop {
        wall = next_wall(cron, wall)?;
        // What a repeated hour shows again, and the rest of a gap, have had their tick.
        let at = moment(zone, wall)?;
        if at > then {
            return Some(at);
        }
    }
}

/// When the clock of a zone shows a time first, or the end of the gap that the time falls into.
fn moment(zone: &TimeZone, wall: DateTime) -> Option<jiff::Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(wall).ok()
        }
        AmbiguousOffset::Gap { after, .. } => {
            let before = after.to_timestamp(wall).ok()?;
            let mut changes = zone.following(before);
            changes.find(|change| change.offset() == after).map(|change| change.timestamp())
        }
    }
}

/// The first tick of an expression that follows the clock on the wall: the first moment at which it shows a match.
fn next_shown(cron: &Cron, zone: &TimeZone, then: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let mut wall = zone.to_datetime(then);
    let mut offset = zone.to_offset(then);
    for change in zone.following(then) {
        let at = offset.to_timestamp(next_wall(cron, wall)?).ok()?;
        if at < change.timestamp() {
            return Some(at);
        }
        // From here on the clock shows something else; its first second counts too.
        offset = change.offset();
        wall = offset.to_datetime(change.timestamp()).checked_sub(jiff::Span::new().seconds(1)).ok()?;
    }
    offset.to_timestamp(next_wall(cron, wall)?).ok()
}

#[cfg(test)]
mod tests;
