//! The books that a store keeps of budgets, and the one way to change them. Pure: a store reads them, applies [`settle`],
//! and writes what changed, in one transaction.
//!
//! What is drawn and what was spent never exceeds a cap together, but for overruns of calls that had been reserved, and
//! for caps that were lowered below what is there already.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Budget, Draw, Drawn, Line, METERS, Refusal};
use crate::budget::{Amounts, Meter};
use crate::ids::{Name, RunId};
use crate::time::Timestamp;

/// What a draw is granted at least, as a share of what is left: one part of so many.
pub const PARTS: u64 = 100;

/// What was taken from one budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// When the period began.
    pub since: Timestamp,
    /// Held by runs.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub drawn: Amounts,
    /// Used in this period.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub spent: Amounts,
    /// The part of `spent` that calls used beyond what was held for them.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub overrun: Amounts,
}

impl Account {
    /// What is left of a cap.
    #[must_use]
    pub fn left(&self, meter: Meter, cap: u64) -> u64 {
        cap.saturating_sub(self.spent.get(meter)).saturating_sub(self.drawn.get(meter))
    }

    /// The account at a time: of a new period when one has begun. What runs hold stays held, and counts in the new one.
    #[must_use]
    pub fn at(mut self, budget: &Budget, now: Timestamp) -> Self {
        let since = budget.period.start(now);
        if since > self.since {
            (self.since, self.spent, self.overrun) = (since, Amounts::ZERO, Amounts::ZERO);
        }
        self
    }

    /// Whether so much of a cap is used or held that the budget is nearly used up.
    #[must_use]
    pub fn is_near(&self, budget: &Budget) -> bool {
        let near = |(meter, cap): (&Meter, &u64)| {
            let used = u128::from(self.spent.get(*meter)) + u128::from(self.drawn.get(*meter));
            used * 100 >= u128::from(*cap) * u128::from(budget.near_percent)
        };
        budget.caps.iter().any(near)
    }
}

/// What a run told of one budget, and holds of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Used, as far as the run told.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub spent: Amounts,
    /// Held.
    #[serde(skip_serializing_if = "Amounts::is_zero")]
    pub held: Amounts,
}

/// What a run has of all budgets, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allotted {
    /// The last draw or return.
    pub number: u64,
    /// Its answer.
    pub answer: Drawn,
    /// By scope.
    pub parts: BTreeMap<Name, Part>,
}

impl Allotted {
    /// Whether anything is held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.parts.values().any(|part| !part.held.is_zero())
    }

    /// What the run told, with nothing held: a line for each budget that it drew on.
    #[must_use]
    pub fn unspent(&self) -> Vec<Line> {
        let line = |(scope, part): (&Name, &Part)| Line {
            scope: scope.clone(),
            spent: part.spent,
            reserved: Amounts::ZERO,
            need: Amounts::ZERO,
        };
        self.parts.iter().map(line).collect()
    }

    /// The return of a run that nobody can ask any more: all that it holds counts as used.
    #[must_use]
    pub fn forfeit(&self, run: &RunId, at: Timestamp) -> Draw {
        let line = |(scope, part): (&Name, &Part)| {
            let mut spent = part.spent;
            spent.add(&part.held);
            Line { scope: scope.clone(), spent, reserved: Amounts::ZERO, need: Amounts::ZERO }
        };
        Draw { run: run.clone(), number: self.number + 1, at, lines: self.parts.iter().map(line).collect() }
    }
}

/// What a draw looks at and changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Budgets of the scopes that the draw names, as far as there are any.
    pub budgets: BTreeMap<Name, Budget>,
    /// Accounts of the same scopes.
    pub accounts: BTreeMap<Name, Account>,
    /// What the run has.
    pub allotted: Option<Allotted>,
}

/// Answers a draw or a return, and keeps the books. Nothing changes when the answer is an old one.
pub fn settle(books: &mut Books, draw: &Draw) -> Drawn {
    match &books.allotted {
        Some(known) if draw.number == known.number => return known.answer.clone(),
        Some(known) if draw.number < known.number => return Drawn::Stale,
        // Whoever never drew has nothing to return.
        None if !draw.wants() => return Drawn::Granted(BTreeMap::new()),
        Some(_) | None => {}
    }
    let mut parts = books.allotted.take().map(|known| known.parts).unwrap_or_default();
    let free: Vec<Amounts> = draw.lines.iter().map(|line| report(books, &mut parts, line, draw.at)).collect();
    let answer = match draw.lines.iter().find_map(|line| refusal(books, line, draw.at)) {
        Some(refusal) => Drawn::Refused(refusal),
        None => {
            // A return keeps nothing.
            let free = free.iter().map(|free| if draw.wants() { *free } else { Amounts::ZERO });
            Drawn::Granted(
                draw.lines.iter().zip(free).map(|(line, free)| grant(books, &mut parts, line, &free)).collect(),
            )
        }
    };
    books.allotted = Some(Allotted { number: draw.number, answer: answer.clone(), parts });
    answer
}

/// Charges what was used since the last time, and returns what is not held for a call. Gives back how much that was.
fn report(books: &mut Books, parts: &mut BTreeMap<Name, Part>, line: &Line, at: Timestamp) -> Amounts {
    let part = parts.entry(line.scope.clone()).or_default();
    let account = books.accounts.entry(line.scope.clone()).or_default();
    let held = std::mem::take(&mut part.held);
    account.drawn.subtract(&held);
    let mut used = line.spent;
    used.subtract(&part.spent);
    // A return of an older state never takes back what a newer one told.
    part.spent.add(&used);
    let mut free = held;
    free.subtract(&used);
    free.subtract(&line.reserved);
    let Some(budget) = books.budgets.get(&line.scope) else { return Amounts::ZERO };
    *account = std::mem::take(account).at(budget, at);
    for meter in METERS.iter().filter(|meter| budget.caps.contains_key(meter)) {
        let only = |amounts: &Amounts| Amounts::ZERO.with(*meter, amounts.get(*meter));
        let (used, kept) = (only(&used), only(&line.reserved));
        account.spent.add(&used);
        account.drawn.add(&kept);
        part.held.add(&kept);
        let mut over = used;
        over.add(&kept);
        over.subtract(&only(&held));
        account.overrun.add(&over);
    }
    free
}

fn refusal(books: &Books, line: &Line, at: Timestamp) -> Option<Refusal> {
    let (budget, account) = (books.budgets.get(&line.scope)?, books.accounts.get(&line.scope)?);
    budget.caps.iter().find_map(|(meter, cap)| {
        let (left, wanted) = (account.left(*meter, *cap), line.need.get(*meter));
        (wanted > left).then(|| Refusal {
            scope: line.scope.clone(),
            meter: *meter,
            cap: *cap,
            left,
            wanted,
            beyond: budget.beyond,
            until: budget.period.end(at),
        })
    })
}

/// Grants what is needed, or a small share of what is left when that is more. Of a meter of which nothing is needed now, as
/// much as was free before, but no more than such a share: calls of models and of tools in turn would else each return what
/// the other needs next.
fn grant(books: &mut Books, parts: &mut BTreeMap<Name, Part>, line: &Line, free: &Amounts) -> (Name, Amounts) {
    let mut granted = Amounts::ZERO;
    if let (Some(budget), Some(account), Some(part)) =
        (books.budgets.get(&line.scope), books.accounts.get_mut(&line.scope), parts.get_mut(&line.scope))
    {
        for (meter, cap) in &budget.caps {
            let (need, part) = (line.need.get(*meter), account.left(*meter, *cap) / PARTS);
            granted = granted.with(*meter, if need > 0 { need.max(part) } else { part.min(free.get(*meter)) });
        }
        account.drawn.add(&granted);
        part.held.add(&granted);
    }
    (line.scope.clone(), granted)
}

#[cfg(test)]
mod tests {
    use super::super::{Beyond, Period};
    use super::*;

    fn tokens(tokens: u64) -> Amounts {
        Amounts::ZERO.with(Meter::Tokens, tokens)
    }

    fn books(cap: u64) -> Books {
        let budget =
            Budget { caps: [(Meter::Tokens, cap)].into(), period: Period::Day, near_percent: 80, beyond: Beyond::Fail };
        Books { budgets: [("environment".into(), budget)].into(), ..Books::default() }
    }

    fn draw(number: u64, spent: u64, reserved: u64, need: u64) -> Draw {
        let line =
            Line { scope: "environment".into(), spent: tokens(spent), reserved: tokens(reserved), need: tokens(need) };
        Draw { run: RunId::stored("r"), number, at: Timestamp(1_000), lines: vec![line] }
    }

    fn free(answer: &Drawn) -> Option<u64> {
        match answer {
            Drawn::Granted(free) => free.get("environment").map(|free| free.tokens),
            Drawn::Refused(_) | Drawn::Stale => None,
        }
    }

    fn account(books: &Books) -> (u64, u64, u64) {
        let account = &books.accounts["environment"];
        (account.drawn.tokens, account.spent.tokens, account.overrun.tokens)
    }

    #[test]
    fn a_draw_gets_what_it_needs_or_a_share_and_the_rest_returns() {
        let mut books = books(10_000);
        let granted = settle(&mut books, &draw(1, 0, 0, 7));
        assert_eq!((free(&granted), account(&books)), (Some(100), (100, 0, 0)));
        assert_eq!(settle(&mut books, &draw(1, 0, 0, 7)), granted, "the same one again");
        assert_eq!(account(&books), (100, 0, 0));
        // 7 are reserved, 93 free: it wants 500 more.
        assert_eq!(free(&settle(&mut books, &draw(2, 0, 7, 500))), Some(500));
        assert_eq!(account(&books), (507, 0, 0));
        assert_eq!(settle(&mut books, &draw(1, 0, 0, 7)), Drawn::Stale);
        assert_eq!(free(&settle(&mut books, &draw(3, 300, 0, 0))), Some(0));
        assert_eq!(account(&books), (0, 300, 0));
        assert!(!books.allotted.as_ref().expect("known").holds());
        settle(&mut books, &draw(3, 300, 0, 0));
        assert_eq!(account(&books), (0, 300, 0), "charged once");
    }

    #[test]
    fn calls_of_models_and_of_tools_in_turn_do_not_take_from_each_other() {
        let caps = [(Meter::ModelCalls, 10_000), (Meter::ToolCalls, 500)].into();
        let mut books = books(1);
        books.budgets.get_mut("environment").expect("a budget").caps = caps;
        let mut number = 0;
        let mut free = |spent: [u64; 2], need: [u64; 2]| {
            let of =
                |[models, tools]: [u64; 2]| Amounts::ZERO.with(Meter::ModelCalls, models).with(Meter::ToolCalls, tools);
            number += 1;
            let line = Line { scope: "environment".into(), spent: of(spent), reserved: Amounts::ZERO, need: of(need) };
            let draw = Draw { run: RunId::stored("r"), number, at: Timestamp(1_000), lines: vec![line] };
            let Drawn::Granted(free) = settle(&mut books, &draw) else { panic!("not granted") };
            let free = free["environment"];
            assert_eq!(free, books.accounts["environment"].drawn);
            [free.model_calls, free.tool_calls]
        };
        assert_eq!(free([0, 0], [1, 0]), [100, 0], "what was never asked for is not held");
        assert_eq!(free([1, 0], [0, 1]), [99, 5], "the rest of the first is kept");
        assert_eq!(free([40, 5], [0, 1]), [60, 4]);
        assert_eq!(free([40, 9], [0, 200]), [60, 200], "more than a share where more is needed");
        assert_eq!(free([41, 9], [1, 0]), [99, 4], "and no more than a share where it is not");
        assert_eq!(free([42, 9], [0, 0]), [0, 0], "a return keeps nothing");
    }

    #[test]
    fn what_is_not_there_is_refused_and_what_was_free_returns() {
        let mut books = books(100);
        assert_eq!(free(&settle(&mut books, &draw(1, 0, 0, 60))), Some(60));
        let Drawn::Refused(refusal) = settle(&mut books, &draw(2, 0, 60, 41)) else { panic!("not refused") };
        assert_eq!((refusal.left, refusal.wanted, refusal.cap), (40, 41, 100));
        assert_eq!(refusal.until, Some(Timestamp(86_400_000)));
        assert_eq!(account(&books), (60, 0, 0));
        assert_eq!(free(&settle(&mut books, &draw(3, 0, 60, 40))), Some(40));
    }

    #[test]
    fn an_overrun_is_counted_and_closes_the_budget() {
        let mut books = books(100);
        settle(&mut books, &draw(1, 0, 0, 60));
        settle(&mut books, &draw(2, 130, 0, 0));
        assert_eq!(account(&books), (0, 130, 70));
        assert!(matches!(settle(&mut books, &draw(3, 130, 0, 1)), Drawn::Refused(_)));
    }

    #[test]
    fn a_new_period_begins_with_what_runs_hold() {
        let mut books = books(100);
        settle(&mut books, &draw(1, 0, 0, 60));
        settle(&mut books, &draw(2, 50, 10, 0));
        assert_eq!(account(&books), (10, 50, 0));
        let later = Draw { at: Timestamp(90_000_000), ..draw(3, 50, 10, 90) };
        assert_eq!(free(&settle(&mut books, &later)), Some(90));
        assert_eq!(account(&books), (100, 0, 0));
        let earlier = Draw { at: Timestamp(1_000), ..draw(4, 150, 0, 0) };
        settle(&mut books, &earlier);
        assert_eq!(account(&books), (0, 100, 0), "a clock that is behind opens no old period");
    }

    #[test]
    fn a_budget_that_is_gone_bounds_nothing_and_holds_nothing() {
        let mut books = books(100);
        settle(&mut books, &draw(1, 0, 0, 60));
        let gone = std::mem::take(&mut books.budgets);
        assert_eq!(free(&settle(&mut books, &draw(2, 30, 10, 500))), Some(0));
        assert_eq!(account(&books), (0, 0, 0));
        books.budgets = gone;
        assert_eq!(free(&settle(&mut books, &draw(3, 40, 0, 20))), Some(20));
        assert_eq!(account(&books), (20, 10, 10), "it counts from when it is there again");
    }
}
