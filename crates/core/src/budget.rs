//! Ceilings and the ledger of a run: reserve before a call, settle after it, carve an allotment for a child.
//!
//! Every change is an entry, so a resumed run counts on from where it was. Money is integer micro-USD.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::breakers::Breakers;
use crate::ids::Name;
use crate::limits::AMOUNT_MAX;
use crate::time::Timestamp;

/// One thing that is counted against a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Visits to states. Of this run only, never shared.
    Steps,
    /// Child machines and launches started.
    Launches,
    /// Attempts at model calls.
    ModelCalls,
    /// Tool calls.
    ToolCalls,
    /// Tokens in and out.
    Tokens,
    /// Cost in micro-USD.
    CostMicros,
}

impl Meter {
    /// Every meter.
    pub const ALL: [Self; 6] =
        [Self::Steps, Self::Launches, Self::ModelCalls, Self::ToolCalls, Self::Tokens, Self::CostMicros];

    /// The name in configuration and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Launches => "launches",
            Self::ModelCalls => "model_calls",
            Self::ToolCalls => "tool_calls",
            Self::Tokens => "tokens",
            Self::CostMicros => "cost_micros",
        }
    }
}

/// A number for each meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// See [`Meter::Steps`].
    #[serde(skip_serializing_if = "is_zero")]
    pub steps: u64,
    /// See [`Meter::Launches`].
    #[serde(skip_serializing_if = "is_zero")]
    pub launches: u64,
    /// See [`Meter::ModelCalls`].
    #[serde(skip_serializing_if = "is_zero")]
    pub model_calls: u64,
    /// See [`Meter::ToolCalls`].
    #[serde(skip_serializing_if = "is_zero")]
    pub tool_calls: u64,
    /// See [`Meter::Tokens`].
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// See [`Meter::CostMicros`].
    #[serde(skip_serializing_if = "is_zero")]
    pub cost_micros: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self { steps: 0, launches: 0, model_calls: 0, tool_calls: 0, tokens: 0, cost_micros: 0 };

    /// One meter's number.
    #[must_use]
    pub fn get(&self, meter: Meter) -> u64 {
        match meter {
            Meter::Steps => self.steps,
            Meter::Launches => self.launches,
            Meter::ModelCalls => self.model_calls,
            Meter::ToolCalls => self.tool_calls,
            Meter::Tokens => self.tokens,
            Meter::CostMicros => self.cost_micros,
        }
    }

    fn slot(&mut self, meter: Meter) -> &mut u64 {
        match meter {
            Meter::Steps => &mut self.steps,
            Meter::Launches => &mut self.launches,
            Meter::ModelCalls => &mut self.model_calls,
            Meter::ToolCalls => &mut self.tool_calls,
            Meter::Tokens => &mut self.tokens,
            Meter::CostMicros => &mut self.cost_micros,
        }
    }

    /// Sets one meter's number, at most [`AMOUNT_MAX`].
    #[must_use]
    pub fn with(mut self, meter: Meter, amount: u64) -> Self {
        *self.slot(meter) = amount.min(AMOUNT_MAX);
        self
    }

    /// Adds; stops at [`AMOUNT_MAX`].
    pub fn add(&mut self, other: &Self) {
        for meter in Meter::ALL {
            *self.slot(meter) = self.get(meter).saturating_add(other.get(meter)).min(AMOUNT_MAX);
        }
    }

    /// Takes away; stops at zero.
    pub fn subtract(&mut self, other: &Self) {
        for meter in Meter::ALL {
            *self.slot(meter) = self.get(meter).saturating_sub(other.get(meter));
        }
    }

    /// The lower of both numbers, for each.
    #[must_use]
    pub fn at_most(&self, other: &Self) -> Self {
        Meter::ALL.into_iter().fold(Self::ZERO, |low, meter| low.with(meter, self.get(meter).min(other.get(meter))))
    }

    /// Whether every number is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

/// The meters that calls use: a budget can have a cap for them, and a run can ask for more of them. Steps and launches are
/// ceilings of runs alone, and hard.
pub const CALL_METERS: [Meter; 4] = [Meter::ModelCalls, Meter::ToolCalls, Meter::Tokens, Meter::CostMicros];

/// What happens to a call for which a ceiling or a budget has too little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// It fails with `budget.exceeded`.
    #[default]
    Fail,
    /// Its run waits until there is more, or a person refuses.
    Ask,
}

impl Beyond {
    /// The word: `fail`, `ask`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Ask => "ask",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fail, Self::Ask].into_iter().find(|beyond| beyond.as_str() == text)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn fails(&self) -> bool {
        *self == Self::Fail
    }
}

/// What happens to a call of a model without a price where money has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// It is made, and counts as nothing.
    #[default]
    Allow,
    /// It fails with `budget.exceeded` before it is sent.
    Refuse,
}

impl Unpriced {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn allows(&self) -> bool {
        *self == Self::Allow
    }
}

/// Upper bounds; `None` is no bound. `depth` and `deadline` bound place and time rather than an amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ceilings {
    /// Steps of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Children and launches, of the run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<u64>,
    /// Model calls, of the run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u64>,
    /// Tool calls, of the run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// Tokens, of the run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Micro-USD, of the run and all below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Nesting of children below this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Wall clock from the start, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// What happens to a call beyond a bound of [`CALL_METERS`].
    #[serde(skip_serializing_if = "Beyond::fails")]
    pub beyond: Beyond,
    /// What happens to a call of a model without a price where money has a bound.
    #[serde(skip_serializing_if = "Unpriced::allows")]
    pub unpriced: Unpriced,
    /// From when on breakers trip.
    #[serde(skip_serializing_if = "Breakers::are_default")]
    pub breakers: Breakers,
}

impl Ceilings {
    /// The bound of one meter.
    #[must_use]
    pub fn get(&self, meter: Meter) -> Option<u64> {
        match meter {
            Meter::Steps => self.steps,
            Meter::Launches => self.launches,
            Meter::ModelCalls => self.model_calls,
            Meter::ToolCalls => self.tool_calls,
            Meter::Tokens => self.tokens,
            Meter::CostMicros => self.cost_micros,
        }
    }

    /// Sets the bound of one meter.
    pub fn set(&mut self, meter: Meter, bound: Option<u64>) {
        match meter {
            Meter::Steps => self.steps = bound,
            Meter::Launches => self.launches = bound,
            Meter::ModelCalls => self.model_calls = bound,
            Meter::ToolCalls => self.tool_calls = bound,
            Meter::Tokens => self.tokens = bound,
            Meter::CostMicros => self.cost_micros = bound,
        }
    }

    /// The bounds that this one names, none below that of `present`.
    #[must_use]
    pub fn at_least(mut self, present: &Self) -> Self {
        for meter in Meter::ALL {
            let higher = self.get(meter).map(|bound| bound.max(present.get(meter).unwrap_or(0)));
            self.set(meter, higher);
        }
        self
    }

    /// What happens beyond the bounds, and no bound.
    fn ways(&self) -> Self {
        Self { beyond: self.beyond, unpriced: self.unpriced, breakers: self.breakers, ..Self::default() }
    }

    /// Whether any of [`CALL_METERS`] has a bound.
    fn bounds_calls(&self) -> bool {
        CALL_METERS.iter().any(|meter| self.get(*meter).is_some())
    }

    /// The lower of both bounds, for each. A call beyond them asks for more only when everyone who set a bound says so:
    /// otherwise whoever writes a document could soften what the operator set.
    #[must_use]
    pub fn tighter(&self, other: &Self) -> Self {
        fn low<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, None) | (None, one) => one,
            }
        }
        Self {
            steps: low(self.steps, other.steps),
            launches: low(self.launches, other.launches),
            model_calls: low(self.model_calls, other.model_calls),
            tool_calls: low(self.tool_calls, other.tool_calls),
            tokens: low(self.tokens, other.tokens),
            cost_micros: low(self.cost_micros, other.cost_micros),
            depth: low(self.depth, other.depth),
            wall_ms: low(self.wall_ms, other.wall_ms),
            beyond: match (self.bounds_calls(), other.bounds_calls()) {
                (true, true) if self.beyond != other.beyond => Beyond::Fail,
                (false, true) => other.beyond,
                (true, _) => self.beyond,
                (false, false) if self.beyond == Beyond::Ask => Beyond::Ask,
                (false, false) => other.beyond,
            },
            unpriced: self.unpriced.max(other.unpriced),
            breakers: self.breakers.stricter(&other.breakers),
        }
    }
}

/// What a run may use and has used. For every meter with a ceiling,
/// `inherited + settled + reserved + granted` never exceeds it but by a declared overrun of a call that had been reserved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The bounds: the caller's, or the allotment carved by the parent.
    pub ceilings: Ceilings,
    /// Used by this run and by its finished children.
    pub settled: Amounts,
    /// Held for calls that are out.
    pub reserved: Amounts,
    /// Held by children that have not ended.
    pub granted: Amounts,
    /// The part of `settled` by which calls used more than they had reserved.
    pub overrun: Amounts,
    /// The part of `settled` that was charged at the reservation because the true use is unknown.
    pub estimated: Amounts,
    /// Used before the run began, by the one that it is a fork of: it counts against the bounds, and is no use of this run.
    #[serde(default, skip_serializing_if = "Amounts::is_zero")]
    pub inherited: Amounts,
    /// When the run must have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What each agent, tool and child machine used, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drivers: BTreeMap<Name, Amounts>,
}

impl Ledger {
    /// How much of a ceiling is used or held, with the ceiling, where that is so many percent of it.
    #[must_use]
    pub fn near(&self, meter: Meter, percent: u8) -> Option<(u64, u64)> {
        let ceiling = self.ceilings.get(meter)?;
        let used = ceiling - self.left(meter).unwrap_or(0).min(ceiling);
        let is_near = used.saturating_mul(100) >= ceiling.saturating_mul(percent.into());
        (used > 0 && is_near).then_some((used, ceiling))
    }

    /// Whether so many percent of what a run has for itself is used. What calls and children hold comes back for the most part.
    #[must_use]
    pub fn nearly_used(&self, meter: Meter, percent: u8) -> bool {
        let Some(ceiling) = self.ceilings.get(meter) else { return false };
        let own = ceiling.saturating_sub(self.granted.get(meter));
        let used = self.settled.get(meter).saturating_add(self.inherited.get(meter));
        used > 0 && used.saturating_mul(100) >= own.saturating_mul(percent.into())
    }
}

/// Who used most of a meter, most first, three at most.
#[must_use]
pub fn top(drivers: &BTreeMap<Name, Amounts>, meter: Meter) -> Vec<(&Name, u64)> {
    let mut used: Vec<_> = drivers.iter().map(|(name, used)| (name, used.get(meter))).collect();
    used.retain(|(_, used)| *used > 0);
    used.sort_by_key(|(name, used)| (std::cmp::Reverse(*used), (*name).clone()));
    used.truncate(3);
    used
}

/// A ceiling that a reservation would pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceeded {
    /// Which.
    pub meter: Meter,
    /// Its bound.
    pub ceiling: u64,
    /// What is left.
    pub left: u64,
    /// What was asked for.
    pub wanted: u64,
}

impl Ledger {
    /// What is left of a meter; `None` when it has no ceiling.
    #[must_use]
    pub fn left(&self, meter: Meter) -> Option<u64> {
        self.ceilings.get(meter).map(|ceiling| {
            ceiling
                .saturating_sub(self.inherited.get(meter))
                .saturating_sub(self.settled.get(meter))
                .saturating_sub(self.reserved.get(meter))
                .saturating_sub(self.granted.get(meter))
        })
    }

    /// Whether `wanted` may be reserved.
    ///
    /// # Errors
    /// The first meter whose ceiling would be passed.
    pub fn check(&self, wanted: &Amounts) -> Result<(), Exceeded> {
        for meter in Meter::ALL {
            let want = wanted.get(meter);
            if let (Some(left), Some(ceiling)) = (self.left(meter), self.ceilings.get(meter))
                && want > left
            {
                return Err(Exceeded { meter, ceiling, left, wanted: want });
            }
        }
        Ok(())
    }

    /// What `wanted` is more than what is left of [`CALL_METERS`].
    #[must_use]
    pub fn lacking(&self, wanted: &Amounts) -> Amounts {
        let lack = |meter| self.left(meter).map_or(0, |left| wanted.get(meter).saturating_sub(left));
        CALL_METERS.into_iter().fold(Amounts::ZERO, |sum, meter| sum.with(meter, lack(meter)))
    }

    /// The bounds of [`CALL_METERS`] that there are, raised by `amounts`.
    #[must_use]
    pub fn raised(&self, amounts: &Amounts) -> Ceilings {
        let mut ceilings = Ceilings::default();
        for meter in CALL_METERS.into_iter().filter(|meter| amounts.get(*meter) > 0) {
            ceilings.set(meter, self.ceilings.get(meter).map(|bound| bound.saturating_add(amounts.get(meter))));
        }
        ceilings
    }

    /// Replaces the bounds that `new` names.
    pub fn rebound(&mut self, new: &Ceilings) {
        for meter in Meter::ALL {
            if let Some(bound) = new.get(meter) {
                self.ceilings.set(meter, Some(bound));
            }
        }
    }

    /// Counts what an agent, a tool or a child machine used, for those who ask who used most.
    pub fn note(&mut self, driver: &Name, used: &Amounts) {
        if !used.is_zero() {
            self.drivers.entry(driver.clone()).or_default().add(used);
        }
    }

    /// Holds `amounts` for a call.
    pub fn reserve(&mut self, amounts: &Amounts) {
        self.reserved.add(amounts);
    }

    /// Ends a reservation: releases `reserved` and counts `used`. What is used beyond it is an overrun and counts.
    pub fn settle(&mut self, reserved: &Amounts, used: &Amounts, estimated: bool) {
        self.reserved.subtract(reserved);
        self.settled.add(used);
        let mut over = *used;
        over.subtract(reserved);
        self.overrun.add(&over);
        if estimated {
            self.estimated.add(used);
        }
    }

    /// Counts something that needs no reservation.
    pub fn charge(&mut self, amounts: &Amounts) {
        self.settled.add(amounts);
    }

    /// Holds an allotment for a child.
    pub fn grant(&mut self, allotment: &Amounts) {
        self.granted.add(allotment);
    }

    /// Takes back an allotment and counts what the child used.
    pub fn reclaim(&mut self, allotment: &Amounts, used: &Amounts) {
        self.granted.subtract(allotment);
        self.settled.add(used);
    }

    /// What one of `children` children that start together may be given: an equal share of what is left, one share
    /// staying with this run. Meters without a ceiling give none, and the child has none either. One with `limits`
    /// of its own is given those, when that is possible for all.
    #[must_use]
    pub fn carve(&self, children: u64, limits: &Ceilings) -> (Ceilings, Amounts) {
        let mut ceilings = self.ceilings.ways();
        let mut granted = Amounts::ZERO;
        for meter in Meter::ALL {
            if meter == Meter::Steps {
                continue;
            }
            if let Some(left) = self.left(meter) {
                let share = left / children.saturating_add(1);
                let share = if share == 0 && left >= children { 1 } else { share };
                let share = match limits.get(meter) {
                    Some(limit) if limit.saturating_mul(children) <= left => limit,
                    Some(limit) => share.min(limit),
                    None => share,
                };
                ceilings.set(meter, Some(share));
                granted = granted.with(meter, share);
            }
        }
        (ceilings.tighter(limits), granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(calls: u64) -> Ledger {
        Ledger { ceilings: Ceilings { model_calls: Some(calls), ..Ceilings::default() }, ..Ledger::default() }
    }

    #[test]
    fn a_reservation_beyond_the_ceiling_is_refused() {
        let mut ledger = ledger(2);
        let one = Amounts::ZERO.with(Meter::ModelCalls, 1);
        ledger.check(&one).expect("first");
        ledger.reserve(&one);
        ledger.reserve(&one);
        let refused = ledger.check(&one).expect_err("third");
        assert_eq!((refused.meter, refused.left), (Meter::ModelCalls, 0));
        ledger.settle(&one, &Amounts::ZERO, false);
        ledger.check(&one).expect("released");
    }

    #[test]
    fn an_overrun_counts() {
        let mut ledger =
            Ledger { ceilings: Ceilings { tokens: Some(100), ..Ceilings::default() }, ..Ledger::default() };
        let reserved = Amounts::ZERO.with(Meter::Tokens, 60);
        ledger.reserve(&reserved);
        ledger.settle(&reserved, &Amounts::ZERO.with(Meter::Tokens, 90), false);
        assert_eq!(ledger.overrun.tokens, 30);
        assert_eq!(ledger.left(Meter::Tokens), Some(10));
    }

    #[test]
    fn a_run_asks_only_when_everyone_who_bounds_it_says_so() {
        let bound = |calls, beyond| Ceilings { model_calls: calls, beyond, ..Ceilings::default() };
        let (ask, fail) = (Beyond::Ask, Beyond::Fail);
        for (one, other, both) in [
            (bound(Some(1), ask), bound(Some(2), ask), ask),
            (bound(Some(1), ask), bound(Some(2), fail), fail),
            (bound(Some(1), ask), bound(None, fail), ask),
            (bound(None, ask), bound(Some(2), fail), fail),
            (bound(None, ask), bound(None, fail), ask),
            (bound(None, fail), bound(None, fail), fail),
        ] {
            assert_eq!(one.tighter(&other).beyond, both, "{one:?} {other:?}");
            assert_eq!(other.tighter(&one).beyond, both, "{other:?} {one:?}");
            assert_eq!(one.tighter(&other).tighter(&one).beyond, both, "again");
        }
    }

    #[test]
    fn what_lacks_is_what_a_raise_adds() {
        let mut ledger = ledger(3);
        let wanted = Amounts::ZERO.with(Meter::ModelCalls, 5).with(Meter::Tokens, 9);
        let lacking = ledger.lacking(&wanted);
        assert_eq!(lacking, Amounts::ZERO.with(Meter::ModelCalls, 2), "tokens have no bound");
        ledger.rebound(&ledger.raised(&lacking));
        ledger.check(&wanted).expect("exactly enough");
        assert_eq!(ledger.ceilings.tokens, None, "a raise makes no bound");
    }

    #[test]
    fn what_a_fork_brings_is_used_of_its_bounds_and_not_by_it() {
        let mut ledger = Ledger { inherited: Amounts::ZERO.with(Meter::ModelCalls, 2), ..ledger(3) };
        let one = Amounts::ZERO.with(Meter::ModelCalls, 1);
        assert_eq!(ledger.left(Meter::ModelCalls), Some(1));
        ledger.charge(&one);
        assert!(ledger.nearly_used(Meter::ModelCalls, 80) && ledger.near(Meter::ModelCalls, 80) == Some((3, 3)));
        assert_eq!(ledger.check(&one).map_err(|over| over.left), Err(0));
        assert_eq!(ledger.settled, one);
    }

    #[test]
    fn shares_of_children_never_add_up_to_more_than_is_left() {
        for left in [0, 1, 2, 3, 7, 100] {
            for children in [1, 2, 3, 10] {
                let ledger = ledger(left);
                let (_, granted) = ledger.carve(children, &Ceilings::default());
                assert!(granted.model_calls * children <= left, "{left} among {children}");
            }
        }
    }
}
