//! Budgets that bind many runs at once, held in escrow: what a budget says, which ones apply to a call, and what a run has
//! drawn from them.
//!
//! A run draws an allotment from each budget that applies to a call, and counts against that in its own journal. What a
//! store does with a draw is in [`books`].

pub mod books;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::{self, Amounts, Meter};
use crate::effect::{Call, OpenCall};
use crate::ids::{EffectId, Name, RunId};
use crate::run::{Run, TenantScope};
use crate::time::Timestamp;

pub use crate::budget::{Beyond, CALL_METERS as METERS};

/// Share of a cap, in percent, from which a budget is nearly used up unless it says otherwise.
pub const NEAR_PERCENT_DEFAULT: u8 = 80;

/// Budgets that one store has at most: all of them are read every few seconds by every worker.
pub const BUDGETS_MAX: usize = 10_000;

/// After which time an allowance begins anew, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Never.
    #[default]
    None,
    /// At midnight.
    Day,
    /// At the first midnight of a month.
    Month,
}

const DAY_MS: u64 = 86_400_000;

impl Period {
    /// The word: `none`, `day`, `month`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// When the period began that has `at` in it; the beginning of time without periods.
    #[must_use]
    pub fn start(self, at: Timestamp) -> Timestamp {
        let days = at.0 / DAY_MS;
        match self {
            Self::None => Timestamp(0),
            Self::Day => Timestamp(days * DAY_MS),
            Self::Month => Timestamp((days + 1 - u64::from(day_of_month(days))) * DAY_MS),
        }
    }

    /// When the next one begins, if one does.
    #[must_use]
    pub fn end(self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::None => None,
            Self::Day => Some(self.start(at).plus_ms(DAY_MS)),
            // No month has more than 31 days, and none that follows one begins later than the 32nd day.
            Self::Month => Some(self.start(self.start(at).plus_ms(31 * DAY_MS))),
        }
    }
}

/// The day of the month, from 1, of a day since the Unix epoch. Counts in eras of 400 years that begin with a March.
fn day_of_month(days: u64) -> u32 {
    let of_era = (days + 719_468) % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    u32::try_from(of_year - (153 * month + 2) / 5 + 1).unwrap_or(1)
}

/// What a budget says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The most of each meter, of [`METERS`] only; a meter without a cap is not bounded.
    pub caps: BTreeMap<Meter, u64>,
    /// When the allowance begins anew.
    #[serde(default)]
    pub period: Period,
    /// Share of a cap, in percent, from which the budget is nearly used up.
    pub near_percent: u8,
    /// What happens beyond it.
    #[serde(default)]
    pub beyond: Beyond,
}

/// Why something is no budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// The scope is none.
    #[error(
        "`{0}` is no scope: it is `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`; `/` in the name \
         of a tenant is written `%2F`"
    )]
    Scope(String),
    /// No cap.
    #[error("a budget has a cap for at least one of `model_calls`, `tool_calls`, `tokens` and `cost_micros`")]
    NoCap,
    /// A cap for something that no budget counts.
    #[error("a budget has no cap for `{}`: that is a ceiling of a run", .0.as_str())]
    Uncounted(Meter),
    /// A cap for something that tools do not use.
    #[error("a budget of a tool counts `tool_calls`: a cap for `{}` would never bind", .0.as_str())]
    NotOfTools(Meter),
    /// A share beyond the whole.
    #[error("a budget is nearly used up at 1 to 100 percent, not at {0}")]
    Near(u8),
}

/// Whether a text names what a budget can bind: `environment`, `tenant:NAME`, `user:TENANT/NAME` or `tool:TENANT/NAME`.
#[must_use]
pub fn is_scope(text: &str) -> bool {
    let is_name = |text: &str| !text.is_empty() && !text.contains('/');
    let is_pair = |text: &str| text.split_once('/').is_some_and(|(tenant, name)| is_name(tenant) && !name.is_empty());
    match text.split_once(':') {
        None => text == ENVIRONMENT,
        Some(("tenant", name)) => is_name(name),
        Some(("user" | "tool", pair)) => is_pair(pair),
        Some(_) => false,
    }
}

impl Budget {
    /// Checks a budget of a scope.
    ///
    /// # Errors
    /// See [`BudgetError`].
    pub fn check(&self, scope: &str) -> Result<(), BudgetError> {
        if !is_scope(scope) {
            return Err(BudgetError::Scope(scope.to_owned()));
        }
        if let Some(meter) = self.caps.keys().find(|meter| !METERS.contains(meter)) {
            return Err(BudgetError::Uncounted(*meter));
        }
        if let Some(meter) = self.caps.keys().find(|meter| scope.starts_with("tool:") && **meter != Meter::ToolCalls) {
            return Err(BudgetError::NotOfTools(*meter));
        }
        if self.caps.is_empty() {
            return Err(BudgetError::NoCap);
        }
        if !(1..=100).contains(&self.near_percent) {
            return Err(BudgetError::Near(self.near_percent));
        }
        Ok(())
    }
}

/// The scope of everything.
pub const ENVIRONMENT: &str = "environment";

/// The name of a tenant in a scope: what follows its `/` is another name.
#[must_use]
pub fn escaped(tenant: &str) -> String {
    tenant.replace('%', "%25").replace('/', "%2F")
}

/// The scopes that a call of a run lies in, in the order of their names.
#[must_use]
pub fn scopes(of: &TenantScope, call: &Call) -> Vec<Name> {
    let tenant = escaped(&of.tenant);
    let mut scopes: Vec<Name> = vec![ENVIRONMENT.into(), format!("tenant:{tenant}").into()];
    if let Call::Tool { tool, .. } | Call::Action { action: tool } = call {
        scopes.push(format!("tool:{tenant}/{tool}").into());
    }
    if let Some(user) = &of.user {
        scopes.push(format!("user:{tenant}/{user}").into());
    }
    scopes
}

/// The channel on which runs hear that a budget may have more.
#[must_use]
pub fn channel(scope: &str) -> Name {
    format!("budget:{scope}").into()
}

/// A budget as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it says.
    pub budget: Budget,
    /// Its version: grows with every change of it.
    pub revision: u64,
    /// Whether it is nearly used up.
    pub is_near: bool,
}

/// Every budget there is, by scope.
pub type Budgets = BTreeMap<Name, Known>;

/// A part of a budget that is held for a call, or wanted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The scope of the budget.
    pub scope: Name,
    /// The version of the budget by which it was reckoned.
    pub revision: u64,
    /// So much, of meters with a cap.
    pub amounts: Amounts,
}

/// The first budget of a run's environment, tenant or user that is nearly used up: the run then makes do with less.
#[must_use]
pub fn near<'a>(budgets: &'a Budgets, of: &TenantScope) -> Option<&'a Name> {
    if budgets.is_empty() {
        return None;
    }
    let tenant = escaped(&of.tenant);
    let user = of.user.as_ref().map(|user| format!("user:{tenant}/{user}"));
    let scopes = [ENVIRONMENT.to_owned(), format!("tenant:{tenant}")].into_iter().chain(user);
    let mut found = scopes.filter_map(|scope| budgets.get_key_value(scope.as_str()));
    found.find(|(_, known)| known.is_near).map(|(scope, _)| scope)
}

/// What a call takes from each budget that applies to it, in the order of their names. What a model without a price will
/// cost is known only afterwards: it takes the least there is, so that a budget of money that is used up holds it too, and
/// what it cost is charged.
#[must_use]
pub fn needs(budgets: &Budgets, of: &TenantScope, open: &OpenCall, priced: bool) -> Vec<Share> {
    if budgets.is_empty() || open.reserved.is_zero() {
        return Vec::new();
    }
    let least = u64::from(!priced && matches!(open.call, Call::Model { .. }));
    let wanted = |meter: Meter| open.reserved.get(meter).max(if meter == Meter::CostMicros { least } else { 0 });
    let share = |scope: Name| {
        let known = budgets.get(&scope)?;
        let capped = known.budget.caps.keys().filter(|meter| wanted(**meter) > 0);
        let amounts = capped.fold(Amounts::ZERO, |sum, meter| sum.with(*meter, wanted(*meter)));
        (!amounts.is_zero()).then_some(Share { scope, revision: known.revision, amounts })
    };
    scopes(of, &open.call).into_iter().filter_map(share).collect()
}

/// What a run has of one budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allotment {
    /// Drawn, and held for no call.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub free: Amounts,
    /// Held for calls.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub reserved: Amounts,
    /// Used by calls, from the beginning of the run.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub spent: Amounts,
}

/// A draw that has not been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its number.
    pub number: EffectId,
    /// The call that waits for it.
    pub call: EffectId,
    /// What that call takes.
    pub shares: Vec<Share>,
}

/// What a run holds of all budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Escrow {
    /// By scope.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub allotments: BTreeMap<Name, Allotment>,
    /// Number of the last draw or return.
    pub last: EffectId,
    /// The draw that is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The store has not been told of everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untold: bool,
    /// What each agent and tool used, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drivers: BTreeMap<Name, Amounts>,
}

impl Escrow {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether what was drawn is enough.
    #[must_use]
    pub fn covers(&self, shares: &[Share]) -> bool {
        let enough = |share: &Share| {
            let free = self.allotments.get(&share.scope).map_or(Amounts::ZERO, |allotment| allotment.free);
            METERS.iter().all(|meter| free.get(*meter) >= share.amounts.get(*meter))
        };
        shares.iter().all(enough)
    }

    /// Holds shares for a call.
    pub fn hold(&mut self, shares: &[Share]) {
        for share in shares {
            let allotment = self.allotments.entry(share.scope.clone()).or_default();
            allotment.free.subtract(&share.amounts);
            allotment.reserved.add(&share.amounts);
        }
        self.untold |= !shares.is_empty();
    }

    /// Ends what was held for a call that used `used`.
    pub fn settle(&mut self, target: &Name, shares: &[Share], used: &Amounts) {
        for share in shares {
            let allotment = self.allotments.entry(share.scope.clone()).or_default();
            allotment.reserved.subtract(&share.amounts);
            allotment.spent.add(used);
            let mut left = share.amounts;
            left.subtract(used);
            allotment.free.add(&left);
        }
        if !shares.is_empty() {
            self.untold = true;
            self.drivers.entry(target.clone()).or_default().add(used);
        }
    }

    /// Asks for a draw.
    pub fn ask(&mut self, asked: Asked) {
        self.last = asked.number;
        self.untold = true;
        for share in &asked.shares {
            // What is granted and never heard of is returned with everything else.
            self.allotments.entry(share.scope.clone()).or_default();
        }
        self.asked = Some(asked);
    }

    /// Takes what a draw was answered with.
    pub fn answered(&mut self, answer: &Drawn) {
        if self.asked.take().is_none() {
            return;
        }
        match answer {
            Drawn::Granted(free) => {
                self.untold = true;
                for (scope, free) in free {
                    self.allotments.entry(scope.clone()).or_default().free = *free;
                }
            }
            // A draw returns everything that is free, of the scopes that it wants nothing of too.
            Drawn::Refused(_) | Drawn::Stale => self.free_nothing(),
        }
    }

    /// Nothing is free from here on: it is being returned.
    pub fn returned(&mut self, number: EffectId) {
        self.last = number;
        self.asked = None;
        self.untold = false;
        self.free_nothing();
    }

    fn free_nothing(&mut self) {
        for allotment in self.allotments.values_mut() {
            allotment.free = Amounts::ZERO;
        }
    }

    /// What the store is told and asked for: the draw that is out, or else that everything free is returned.
    #[must_use]
    pub fn draw(&self, run: &RunId, at: Timestamp) -> Draw {
        let line = |scope: &Name| {
            let wanted = self.asked.iter().flat_map(|asked| &asked.shares).find(|share| share.scope == *scope);
            let known = self.allotments.get(scope).cloned().unwrap_or_default();
            let need = wanted.map_or(Amounts::ZERO, |share| share.amounts);
            Line { scope: scope.clone(), spent: known.spent, reserved: known.reserved, need }
        };
        let wanted = self.asked.iter().flat_map(|asked| asked.shares.iter().map(|share| &share.scope));
        let mut scopes: Vec<&Name> = self.allotments.keys().chain(wanted).collect();
        scopes.sort();
        scopes.dedup();
        Draw { run: run.clone(), number: self.last.0, at, lines: scopes.into_iter().map(line).collect() }
    }

    /// Who used most of a meter, most first, three at most.
    #[must_use]
    pub fn top(&self, meter: Meter) -> Vec<(&Name, u64)> {
        budget::top(&self.drivers, meter)
    }
}

/// Whether a run rests: nothing of it is out or waits for a draw, so that it needs nothing free.
#[must_use]
pub fn rests(run: &Run) -> bool {
    run.escrow.asked.is_none() && !run.has_calls_out()
}

/// What a run tells a store of one budget, and wants of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The scope of the budget.
    pub scope: Name,
    /// Used from the beginning of the run.
    pub spent: Amounts,
    /// Held for calls that are out.
    pub reserved: Amounts,
    /// Wanted beyond that; zero when everything else is returned.
    pub need: Amounts,
}

/// A draw, or a return: one that wants nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// The run.
    pub run: RunId,
    /// Grows with every draw and return of the run. The same one again gets the same answer; an older one does nothing.
    pub number: u64,
    /// When, for the periods.
    pub at: Timestamp,
    /// By scope, in the order of their names.
    pub lines: Vec<Line>,
}

impl Draw {
    /// Whether anything is wanted, rather than returned.
    #[must_use]
    pub fn wants(&self) -> bool {
        self.lines.iter().any(|line| !line.need.is_zero())
    }
}

/// The answer to a draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drawn {
    /// What is free in each scope that was named.
    Granted(BTreeMap<Name, Amounts>),
    /// Nothing is granted, and nothing is free.
    Refused(Refusal),
    /// A newer draw or return of the run was there first. Nothing was changed.
    Stale,
}

/// Which budget has too little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The scope of the budget.
    pub scope: Name,
    /// The meter.
    pub meter: Meter,
    /// Its cap.
    pub cap: u64,
    /// What is left of it.
    pub left: u64,
    /// What the call needs.
    pub wanted: u64,
    /// What happens to the call.
    pub beyond: Beyond,
    /// When the next period begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> Timestamp {
        Timestamp(days * DAY_MS + 12_345)
    }

    #[test]
    fn months_begin_on_their_first_day() {
        // 2024-02-29, 2024-03-01, 2026-12-31, 1970-01-01, 2000-03-01.
        for (days, first, next) in [(19_782, 19_754, 19_783), (19_783, 19_783, 19_814), (20_818, 20_788, 20_819)] {
            assert_eq!(Period::Month.start(at(days)), Timestamp(first * DAY_MS));
            assert_eq!(Period::Month.end(at(days)), Some(Timestamp(next * DAY_MS)));
        }
        assert_eq!(Period::Month.start(at(0)), Timestamp(0));
        assert_eq!(Period::Month.start(at(11_017)), Timestamp(11_017 * DAY_MS));
        assert_eq!(Period::Day.end(at(5)), Some(Timestamp(6 * DAY_MS)));
        assert_eq!((Period::None.start(at(5)), Period::None.end(at(5))), (Timestamp(0), None));
    }

    #[test]
    fn every_month_of_a_century_has_a_right_length() {
        let mut start = Timestamp(0);
        let mut months = 0;
        while start.0 < 36_525 * DAY_MS {
            let next = Period::Month.end(start).expect("months end");
            assert_eq!(Period::Month.start(next), next);
            assert!((28..=31).contains(&(next.since_ms(start) / DAY_MS)), "month {months}");
            (start, months) = (next, months + 1);
        }
        assert_eq!((months, start.0 / DAY_MS), (1_200, 36_525));
    }

    #[test]
    fn scopes_and_caps_are_checked() {
        let budget = Budget {
            caps: [(Meter::Tokens, 5)].into(),
            period: Period::Day,
            near_percent: NEAR_PERCENT_DEFAULT,
            beyond: Beyond::Fail,
        };
        for scope in ["environment", "tenant:acme", "tenant:a%2Fb", "user:acme/ada"] {
            budget.check(scope).expect(scope);
        }
        let tool = "tool:acme/search/web";
        assert_eq!(budget.check(tool), Err(BudgetError::NotOfTools(Meter::Tokens)));
        Budget { caps: [(Meter::ToolCalls, 5)].into(), ..budget.clone() }.check(tool).expect(tool);
        for scope in
            ["", "tenant", "tenant:", "tenant:a/b", "user:ada", "user:/ada", "user:acme/", "agent:a/b", "run:x"]
        {
            assert_eq!(budget.check(scope), Err(BudgetError::Scope(scope.into())));
        }
        let uncapped = Budget { caps: BTreeMap::new(), ..budget.clone() };
        assert_eq!(uncapped.check("environment"), Err(BudgetError::NoCap));
        let steps = Budget { caps: [(Meter::Steps, 5)].into(), ..budget.clone() };
        assert_eq!(steps.check("environment"), Err(BudgetError::Uncounted(Meter::Steps)));
        assert_eq!(Budget { near_percent: 0, ..budget }.check("environment"), Err(BudgetError::Near(0)));
    }

    #[test]
    fn a_model_without_a_price_takes_the_least_of_a_budget_of_money() {
        let budget = Budget {
            caps: [(Meter::CostMicros, 500)].into(),
            period: Period::Day,
            near_percent: NEAR_PERCENT_DEFAULT,
            beyond: Beyond::Fail,
        };
        let budgets: Budgets = [(ENVIRONMENT.into(), Known { budget, revision: 1, is_near: false })].into();
        let open = |call, meter| OpenCall {
            call,
            attempt: 1,
            class: crate::contract::Class::Read,
            idempotency: crate::contract::Idempotency::None,
            arguments: crate::ids::Digest::ZERO,
            reserved: Amounts::ZERO.with(meter, 1),
            timeout_ms: 1,
            output_bytes_max: 1,
            at: Timestamp(1),
            backoff: None,
            doubt: None,
            losses: 0,
            approval: None,
            route: None,
            held: Vec::new(),
            draws: false,
            cached_expected: None,
            agreed: None,
            output_max: None,
            veiled: Vec::new(),
            ruled: None,
            resources: Vec::new(),
            shadow: None,
            wants: Amounts::ZERO,
        };
        let model = open(Call::Model { agent: "a".into(), sample: 0 }, Meter::ModelCalls);
        let tool = open(Call::Action { action: "a".into() }, Meter::ToolCalls);
        let costs = |open, priced| {
            let shares = needs(&budgets, &TenantScope::default(), open, priced);
            shares.first().map_or(0, |share| share.amounts.cost_micros)
        };
        assert_eq!((costs(&model, false), costs(&model, true), costs(&tool, false)), (1, 0, 0));
    }

    #[test]
    fn what_was_held_and_not_used_is_free_again() {
        let amounts = |tokens| Amounts::ZERO.with(Meter::Tokens, tokens);
        let share = Share { scope: "environment".into(), revision: 1, amounts: amounts(10) };
        let mut escrow = Escrow { last: EffectId(1), ..Escrow::default() };
        escrow.asked = Some(Asked { number: EffectId(1), call: EffectId(2), shares: vec![share.clone()] });
        escrow.answered(&Drawn::Granted([("environment".into(), amounts(25))].into()));
        assert!(escrow.covers(std::slice::from_ref(&share)));
        escrow.hold(std::slice::from_ref(&share));
        escrow.hold(std::slice::from_ref(&share));
        assert!(!escrow.covers(std::slice::from_ref(&share)));
        escrow.settle(&"a".into(), std::slice::from_ref(&share), &amounts(4));
        escrow.settle(&"b".into(), std::slice::from_ref(&share), &amounts(12));
        let allotment = &escrow.allotments["environment"];
        assert_eq!((allotment.free, allotment.reserved, allotment.spent), (amounts(11), Amounts::ZERO, amounts(16)));
        assert_eq!(escrow.top(Meter::Tokens), [(&"b".into(), 12), (&"a".into(), 4)]);
        escrow.returned(EffectId(3));
        let draw = escrow.draw(&RunId::stored("r"), Timestamp(1));
        assert_eq!((draw.number, draw.wants(), draw.lines.len()), (3, false, 1));
        assert_eq!(draw.lines[0].spent, amounts(16));
    }
}
