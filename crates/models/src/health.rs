//! What is known about the providers' health: breakers of links, quotas of models, and how many repeats are allowed.
//!
//! Sans I/O: time comes in as milliseconds of a clock that never goes back. Decides nothing about money.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use windlass_core::ids::{Digest, Name};
use windlass_core::machine::{ModelSettings, Priority};
use windlass_core::value::Value;

use crate::errors::RETRY_AFTER_MS_MAX;

/// Milliseconds for which a model rests after a second refusal that does not say for how long; doubled with each further
/// one in a row. After the first the engine's own pause is enough.
const REST_MS: u64 = 1_000;

/// The longest of those rests, in milliseconds.
const REST_MS_MAX: u64 = 60_000;

/// When a link is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Calls that are looked at: the last so many.
    pub window: u32,
    /// Calls that there must be before it opens.
    pub calls_min: u32,
    /// Share of failed or slow calls, in percent, at which it opens.
    pub percent: u32,
    /// Milliseconds above which an answer counts as failed; none when only failures count.
    pub slow_ms: Option<u64>,
    /// Milliseconds that it stays open, before one call is let through to see.
    pub rest_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { window: 20, calls_min: 5, percent: 50, slow_ms: None, rest_ms: 30_000 }
    }
}

/// Calls that a breaker looks at, at most.
const WINDOW_MAX: u32 = 10_000;

impl Breaker {
    /// Whether it can open and close.
    ///
    /// # Errors
    /// What is wrong with it, to come after "the breaker".
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { window, calls_min, percent, .. } = *self;
        if !(1..=WINDOW_MAX).contains(&window) {
            return Err(format!("looks at {window} calls; `window` is 1 to {WINDOW_MAX}"));
        }
        if calls_min > window {
            return Err(format!(
                "never opens: it looks at {window} calls and needs {calls_min}; lower `calls_min` or raise `window`"
            ));
        }
        if !(1..=100).contains(&percent) {
            return Err(format!("opens at {percent} percent; `percent` is 1 to 100"));
        }
        Ok(())
    }
}

/// How a call at a link may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Go.
    Open,
    /// Go: the one call that is to show whether the link works again.
    Probe,
    /// Not for so many milliseconds.
    Shut(u64),
}

/// The breaker of one link.
#[derive(Debug, Default)]
pub(crate) struct Circuit {
    failed: VecDeque<bool>,
    open_until: Option<u64>,
    probing: bool,
    /// How often it has opened or closed. What began before says how the link was, not how it is.
    era: u64,
}

impl Circuit {
    /// What tells calls that enter now from those before it last opened or closed.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// Whether a call may go. A [`Gate::Probe`] must be followed by [`Circuit::ended`] or [`Circuit::dropped`].
    pub(crate) fn enter(&mut self, now: u64, rules: &Breaker) -> Gate {
        match self.open_until {
            None => Gate::Open,
            Some(until) if now < until => Gate::Shut(until - now),
            Some(_) if self.probing => Gate::Shut(rules.rest_ms),
            Some(_) => {
                self.probing = true;
                Gate::Probe
            }
        }
    }

    /// Why no call would go now, without entering.
    pub(crate) fn shut(&self, now: u64) -> Option<u64> {
        match self.open_until {
            Some(until) if now < until => Some(until - now),
            Some(_) if self.probing => Some(0),
            Some(_) | None => None,
        }
    }

    /// A call that entered in `era` ended.
    pub(crate) fn ended(&mut self, era: u64, now: u64, failed: bool, took_ms: u64, rules: &Breaker) {
        if era != self.era {
            return;
        }
        let failed = failed || rules.slow_ms.is_some_and(|slow| took_ms > slow);
        if self.open_until.is_some() {
            let open_until = failed.then(|| now.saturating_add(rules.rest_ms));
            *self = Self { open_until, era: era + 1, ..Self::default() };
            return;
        }
        self.failed.push_back(failed);
        while self.failed.len() > rules.window.max(1) as usize {
            self.failed.pop_front();
        }
        let (all, bad) = (self.failed.len() as u32, self.failed.iter().filter(|failed| **failed).count() as u32);
        if all >= rules.calls_min.max(1) && bad * 100 >= rules.percent * all && bad > 0 {
            let open_until = Some(now.saturating_add(rules.rest_ms));
            *self = Self { open_until, era: era + 1, ..Self::default() };
        }
    }

    /// The one call of `era` that was to look was given up before it ended: nothing is known.
    pub(crate) fn dropped(&mut self, era: u64) {
        self.probing &= era != self.era;
    }
}

/// How long calls wait for the quota of a model, by the class of their run; a call that would wait longer is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patience {
    /// Milliseconds for runs of class `high`.
    pub high_ms: u64,
    /// Milliseconds for runs of class `normal`.
    pub normal_ms: u64,
    /// Milliseconds for runs of class `low`.
    pub low_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { high_ms: 10_000, normal_ms: 2_000, low_ms: 0 }
    }
}

impl Patience {
    /// Of one class.
    pub(crate) fn of(&self, priority: Priority) -> u64 {
        match priority {
            Priority::High => self.high_ms,
            Priority::Normal => self.normal_ms,
            Priority::Low => self.low_ms,
        }
    }
}

/// The quota of one model at one provider, as far as headers and refusals tell.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    rests_until: u64,
    refusals: u32,
    /// After a refusal one call goes alone, until one is answered.
    alone: bool,
    out: u32,
}

impl Quota {
    /// Milliseconds until a call may go; zero lets it go, and must be followed by [`Quota::ended`].
    pub(crate) fn enter(&mut self, now: u64) -> u64 {
        if now < self.rests_until {
            return self.rests_until - now;
        }
        if self.alone && self.out > 0 {
            return REST_MS;
        }
        self.out += 1;
        0
    }

    /// Milliseconds for which it rests, without entering.
    pub(crate) fn rests(&self, now: u64) -> u64 {
        self.rests_until.saturating_sub(now)
    }

    /// A call ended in some other way than below, or was given up.
    pub(crate) fn ended(&mut self) {
        self.out = self.out.saturating_sub(1);
    }

    /// A call was answered; `empty_ms` is how long nothing more is left, as its headers say.
    pub(crate) fn answered(&mut self, now: u64, empty_ms: Option<u64>) {
        self.ended();
        (self.refusals, self.alone) = (0, false);
        if let Some(ms) = empty_ms {
            self.rests_until = self.rests_until.max(now.saturating_add(ms));
        }
    }

    /// A call was refused for its rate; `asked_ms` is how long the provider wants to be left alone.
    pub(crate) fn refused(&mut self, now: u64, asked_ms: Option<u64>) {
        self.ended();
        let rest = REST_MS.saturating_mul((1 << self.refusals.min(10)) >> 1).min(REST_MS_MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.alone = true;
        self.rests_until = self.rests_until.max(now.saturating_add(asked_ms.unwrap_or(rest)));
    }
}

/// How many repeats of failed calls are allowed, as a share of first attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Repeats for every hundred first attempts.
    pub percent: u32,
    /// Repeats that are allowed on top, and the most that are saved up.
    pub reserve: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, reserve: 100 }
    }
}

/// The repeats that are left for one model, in hundredths.
#[derive(Debug)]
pub(crate) struct Repeats {
    left: u64,
    most: u64,
    percent: u64,
}

impl Repeats {
    pub(crate) fn new(rules: RetryBudget) -> Self {
        let most = u64::from(rules.reserve) * 100;
        Self { left: most, most, percent: u64::from(rules.percent) }
    }

    /// Whether an attempt may go: a first one always, a repeat while there is budget.
    pub(crate) fn enter(&mut self, repeat: bool) -> bool {
        if !repeat {
            self.left = (self.left + self.percent).min(self.most);
            return true;
        }
        let allowed = self.left >= 100;
        self.left -= if allowed { 100 } else { 0 };
        allowed
    }
}

/// Whom a quota and a budget of repeats are known of: a model where it is called, by the key with which it is called. What
/// one server says is so of no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) provider: Name,
    pub(crate) model: Name,
    pub(crate) base_url: Option<Name>,
    pub(crate) key: Option<Name>,
}

impl Target {
    /// Its name beyond this process.
    pub(crate) fn name(&self) -> String {
        let Self { provider, model, base_url, key } = self;
        let at = base_url.as_deref().map(|url| format!(" at {}", windlass_core::redact::address(url)));
        let with = key.as_deref().map(|key| format!(" with {}", Digest::of(key.as_bytes()).short()));
        format!("{provider}/{model}{}{}", at.unwrap_or_default(), with.unwrap_or_default())
    }

    /// Of calls that are made so.
    pub(crate) fn of(called: &ModelSettings) -> Self {
        let ModelSettings { provider, model, base_url, key, .. } = called.clone();
        Self { provider, model, base_url, key }
    }
}

/// Everything that is known, by link and by model.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Breakers by chain and link.
    pub(crate) circuits: BTreeMap<(String, String), Circuit>,
    /// Quotas by model.
    pub(crate) quotas: BTreeMap<Target, Quota>,
    /// Repeats by model.
    pub(crate) repeats: BTreeMap<Target, Repeats>,
}

/// Models that are remembered. Documents name them, so there may be any number.
const TARGETS_MAX: usize = 10_000;

impl Health {
    /// Forgets models of which nothing is out and that do not rest, once there are too many; and if those that rest are
    /// too many, these too.
    pub(crate) fn bound(&mut self, now: u64) {
        if self.quotas.len() > TARGETS_MAX {
            self.quotas.retain(|_, quota| quota.out > 0 || quota.rests(now) > 0);
        }
        if self.quotas.len() > TARGETS_MAX {
            self.quotas.retain(|_, quota| quota.out > 0);
        }
        if self.repeats.len() > TARGETS_MAX {
            self.repeats.clear();
        }
    }
}

/// How long nothing more is left, by the rate-limit windows of an answer as it tells them: OpenAI writes
/// `remaining-tokens` and `reset-tokens` (`6m0s`, `20ms`), Anthropic `tokens-remaining` and `tokens-reset` (a time).
/// None while something is left, or where nothing is said. Never longer than a provider may ask for.
pub(crate) fn empty_ms(windows: &Value, now: jiff::Timestamp) -> Option<u64> {
    let kinds = ["requests", "tokens", "input-tokens", "output-tokens"];
    let text = |key: String| windows.get(&key).and_then(Value::as_str);
    let of = |kind: &str, part: &str| text(format!("{part}-{kind}")).or_else(|| text(format!("{kind}-{part}")));
    let one = |kind: &str| {
        let left: u64 = of(kind, "remaining")?.trim().parse().ok()?;
        let reset = of(kind, "reset")?;
        if left > 0 { None } else { reset_ms(reset.trim(), now) }
    };
    kinds.into_iter().filter_map(one).max().map(|ms| ms.min(RETRY_AFTER_MS_MAX))
}

/// A number from here on is a time rather than a number of seconds; of which clock is not said, so it says nothing.
const EPOCH_SECONDS_MIN: f64 = 1e9;

fn reset_ms(text: &str, now: jiff::Timestamp) -> Option<u64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(at.as_millisecond().saturating_sub(now.as_millisecond()).max(0)).ok();
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return (0.0..EPOCH_SECONDS_MIN).contains(&seconds).then(|| (seconds * 1_000.0).ceil() as u64);
    }
    let (mut total, mut rest) = (0.0_f64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let units = [("ms", 1.0), ("h", 3_600_000.0), ("m", 60_000.0), ("s", 1_000.0)];
        let (unit, each) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number * each;
        rest = &after[unit.len()..];
    }
    (total.is_finite() && !text.is_empty()).then(|| total.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Breaker = Breaker { window: 4, calls_min: 2, percent: 50, slow_ms: Some(100), rest_ms: 1_000 };

    #[test]
    fn a_breaker_opens_and_lets_one_call_through_after_its_rest() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.enter(0, &RULES), Gate::Open);
        circuit.ended(0, 0, true, 1, &RULES);
        assert_eq!(circuit.enter(0, &RULES), Gate::Open, "one call is too few");
        circuit.ended(0, 0, true, 1, &RULES);
        assert_eq!(circuit.enter(400, &RULES), Gate::Shut(600));
        assert_eq!(circuit.enter(1_000, &RULES), Gate::Probe);
        assert!(matches!(circuit.enter(1_000, &RULES), Gate::Shut(_)), "one probe at a time");
        circuit.ended(1, 1_100, true, 1, &RULES);
        assert_eq!(circuit.enter(1_200, &RULES), Gate::Shut(900));
        assert_eq!(circuit.enter(2_100, &RULES), Gate::Probe);
        circuit.dropped(2);
        assert_eq!(circuit.enter(2_100, &RULES), Gate::Probe, "a probe that was given up is made again");
        circuit.ended(2, 2_200, false, 1, &RULES);
        assert_eq!(circuit.enter(2_200, &RULES), Gate::Open);
    }

    #[test]
    fn an_answer_to_a_call_from_before_moves_no_breaker() {
        let mut circuit = Circuit::default();
        let before = circuit.era();
        circuit.ended(before, 0, true, 1, &RULES);
        circuit.ended(before, 0, true, 1, &RULES);
        circuit.ended(before, 500, false, 1, &RULES);
        assert_eq!(circuit.enter(500, &RULES), Gate::Shut(500), "a success from before closes nothing");
        assert_eq!(circuit.enter(1_000, &RULES), Gate::Probe);
        circuit.ended(before, 1_010, true, 1, &RULES);
        circuit.dropped(before);
        assert!(matches!(circuit.enter(1_020, &RULES), Gate::Shut(_)), "the probe is still out");
        circuit.ended(circuit.era(), 1_100, false, 1, &RULES);
        assert_eq!(circuit.enter(1_100, &RULES), Gate::Open);
    }

    #[test]
    fn slow_answers_count_as_failures() {
        let mut circuit = Circuit::default();
        circuit.ended(0, 0, false, 101, &RULES);
        circuit.ended(0, 0, false, 101, &RULES);
        assert!(circuit.shut(1).is_some());
    }

    #[test]
    fn a_quota_rests_as_long_as_it_is_told_and_then_sends_one_call_alone() {
        let mut quota = Quota::default();
        assert_eq!((quota.enter(0), quota.enter(0)), (0, 0));
        quota.refused(0, Some(500));
        assert_eq!(quota.enter(100), 400);
        quota.ended();
        assert_eq!(quota.enter(500), 0);
        assert!(quota.enter(500) > 0, "the others wait for the one");
        quota.answered(600, None);
        assert_eq!((quota.enter(600), quota.enter(600)), (0, 0));
        quota.answered(700, Some(300));
        assert_eq!(quota.enter(700), 300, "the headers said that nothing is left");
    }

    #[test]
    fn refusals_in_a_row_double_the_rest() {
        let mut quota = Quota::default();
        let rests: Vec<u64> = (0..8)
            .map(|_| {
                quota.rests_until = 0;
                quota.refused(0, None);
                quota.rests(0)
            })
            .collect();
        assert_eq!(rests, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000]);
    }

    #[test]
    fn repeats_are_a_share_of_first_attempts() {
        let mut repeats = Repeats::new(RetryBudget { percent: 20, reserve: 1 });
        assert!(repeats.enter(true) && !repeats.enter(true));
        for _ in 0..5 {
            assert!(repeats.enter(false));
        }
        assert!(repeats.enter(true) && !repeats.enter(true));
    }

    #[test]
    fn headers_say_when_something_is_left_again() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let of = |text: &str| empty_ms(&Value::from_json(text).expect("JSON"), now);
        assert_eq!(of(r#"{"remaining-tokens":"0","reset-tokens":"6m0.5s"}"#), Some(360_500));
        assert_eq!(of(r#"{"remaining-requests":"0","reset-requests":"20ms"}"#), Some(20));
        assert_eq!(of(r#"{"remaining-requests":"1","reset-requests":"20ms"}"#), None);
        assert_eq!(of(r#"{"input-tokens-remaining":"0","input-tokens-reset":"1970-01-01T00:00:07Z"}"#), Some(7_000));
        assert_eq!(of(r#"{"remaining-tokens":"0","reset-tokens":"soon"}"#), None);
        assert_eq!(of(r#"{"remaining-requests":"0","reset-requests":"1790000000"}"#), None, "a time is no duration");
        for long in ["999999", "400h", "2100-01-01T00:00:00Z"] {
            let text = format!(r#"{{"remaining-requests":"0","reset-requests":"{long}"}}"#);
            assert_eq!(of(&text), Some(RETRY_AFTER_MS_MAX), "{long}");
        }
        assert_eq!(empty_ms(&Value::Null, now), None);
    }
}
