//! One cell of a decision table as the set of values that fit it, and what can be said of such sets: whether one has a
//! value, what two have in common, and what is left of one without another.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Kind;
use crate::ids::Name;
use crate::value::Value;

/// The values that fit a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Whether a value that is not there fits.
    pub null: bool,
    /// The others.
    pub values: Values,
}

/// Values of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers in any of these ranges.
    Numbers(Vec<Range>),
    /// Texts.
    Texts {
        /// These.
        listed: BTreeSet<Name>,
        /// Whether it is all texts but those.
        others: bool,
    },
    /// Truth values.
    Booleans {
        /// `true`.
        yes: bool,
        /// `false`.
        no: bool,
    },
}

/// A range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Where it begins.
    pub low: Bound<f64>,
    /// Where it ends.
    pub high: Bound<f64>,
}

impl Range {
    /// Every number.
    pub const ALL: Self = Self { low: Bound::Unbounded, high: Bound::Unbounded };

    /// One number.
    #[must_use]
    pub fn only(number: f64) -> Self {
        Self { low: Bound::Included(number), high: Bound::Included(number) }
    }

    /// Every number below another one, or that one too.
    #[must_use]
    pub fn below(number: f64, inclusive: bool) -> Self {
        Self { low: Bound::Unbounded, high: bound(number, inclusive) }
    }

    /// Every number above another one, or that one too.
    #[must_use]
    pub fn above(number: f64, inclusive: bool) -> Self {
        Self { low: bound(number, inclusive), high: Bound::Unbounded }
    }

    /// Whether no number is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        match (self.low, self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }

    fn has(self, number: f64) -> bool {
        let above = match self.low {
            Bound::Included(low) => number >= low,
            Bound::Excluded(low) => number > low,
            Bound::Unbounded => true,
        };
        above
            && match self.high {
                Bound::Included(high) => number <= high,
                Bound::Excluded(high) => number < high,
                Bound::Unbounded => true,
            }
    }

    fn common(self, other: Self) -> Self {
        let low = match (self.low, other.low) {
            (Bound::Unbounded, low) | (low, Bound::Unbounded) => low,
            (one, two) => further(one, two, |a, b| a > b),
        };
        let high = match (self.high, other.high) {
            (Bound::Unbounded, high) | (high, Bound::Unbounded) => high,
            (one, two) => further(one, two, |a, b| a < b),
        };
        Self { low, high }
    }

    /// What is left of it below and above another one.
    fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let below = match other.low {
            Bound::Included(low) => Some(Self::below(low, false)),
            Bound::Excluded(low) => Some(Self::below(low, true)),
            Bound::Unbounded => None,
        };
        let above = match other.high {
            Bound::Included(high) => Some(Self::above(high, false)),
            Bound::Excluded(high) => Some(Self::above(high, true)),
            Bound::Unbounded => None,
        };
        below.into_iter().chain(above).map(move |part| self.common(part)).filter(|part| !part.is_empty())
    }

    /// A number in it, for an example.
    fn example(self) -> f64 {
        match (self.low, self.high) {
            (Bound::Included(number), _) | (_, Bound::Included(number)) => number,
            (Bound::Excluded(low), Bound::Excluded(high)) => f64::midpoint(low, high),
            (Bound::Excluded(low), Bound::Unbounded) => low + 1.0,
            (Bound::Unbounded, Bound::Excluded(high)) => high - 1.0,
            (Bound::Unbounded, Bound::Unbounded) => 0.0,
        }
    }
}

fn bound(number: f64, inclusive: bool) -> Bound<f64> {
    if inclusive { Bound::Included(number) } else { Bound::Excluded(number) }
}

/// The bound that lets fewer numbers in, by which of two numbers lies further in.
fn further(one: Bound<f64>, two: Bound<f64>, is_further: impl Fn(f64, f64) -> bool) -> Bound<f64> {
    let number = |bound| match bound {
        Bound::Included(number) | Bound::Excluded(number) => number,
        Bound::Unbounded => 0.0,
    };
    let (a, b) = (number(one), number(two));
    if is_further(a, b) || (a == b && matches!(one, Bound::Excluded(_))) { one } else { two }
}

impl Cell {
    /// What fits everything of a kind, and a value that is not there.
    #[must_use]
    pub fn any(kind: Kind) -> Self {
        let values = match kind {
            Kind::Number => Values::Numbers(vec![Range::ALL]),
            Kind::Text => Values::Texts { listed: BTreeSet::new(), others: true },
            Kind::Boolean => Values::Booleans { yes: true, no: true },
        };
        Self { null: true, values }
    }

    /// What fits nothing of a kind.
    #[must_use]
    pub fn none(kind: Kind) -> Self {
        let values = match kind {
            Kind::Number => Values::Numbers(Vec::new()),
            Kind::Text => Values::Texts { listed: BTreeSet::new(), others: false },
            Kind::Boolean => Values::Booleans { yes: false, no: false },
        };
        Self { null: false, values }
    }

    /// What fits a value that is not there, and nothing else.
    #[must_use]
    pub fn null(kind: Kind) -> Self {
        Self { null: true, ..Self::none(kind) }
    }

    /// Numbers in any of these ranges.
    #[must_use]
    pub fn numbers(ranges: Vec<Range>) -> Self {
        Self { null: false, values: Values::Numbers(ranges) }
    }

    /// These texts, or all others.
    #[must_use]
    pub fn texts(listed: BTreeSet<Name>, others: bool) -> Self {
        Self { null: false, values: Values::Texts { listed, others } }
    }

    /// `true`, `false`, or both.
    #[must_use]
    pub fn booleans(yes: bool, no: bool) -> Self {
        Self { null: false, values: Values::Booleans { yes, no } }
    }

    /// Whether a value fits.
    #[must_use]
    pub fn holds(&self, value: &Value) -> bool {
        match (&self.values, value) {
            (_, Value::Null) => self.null,
            (Values::Numbers(ranges), number) => {
                number.as_f64().is_some_and(|number| ranges.iter().any(|range| range.has(number)))
            }
            (Values::Texts { listed, others }, Value::Str(text)) => listed.contains(text) != *others,
            (Values::Booleans { yes, no }, Value::Bool(is_true)) => {
                if *is_true {
                    *yes
                } else {
                    *no
                }
            }
            (Values::Texts { .. } | Values::Booleans { .. }, _) => false,
        }
    }

    /// Whether nothing fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.null
            && match &self.values {
                Values::Numbers(ranges) => ranges.iter().all(|range| range.is_empty()),
                Values::Texts { listed, others } => listed.is_empty() && !others,
                Values::Booleans { yes, no } => !yes && !no,
            }
    }

    /// What fits either of two cells of one kind.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let values = match (&self.values, &other.values) {
            (Values::Numbers(one), Values::Numbers(two)) => Values::Numbers(one.iter().chain(two).copied().collect()),
            (Values::Texts { listed: one, others: false }, Values::Texts { listed: two, others: false }) => {
                Values::Texts { listed: one | two, others: false }
            }
            (Values::Texts { listed: one, others: true }, Values::Texts { listed: two, others: true }) => {
                Values::Texts { listed: one & two, others: true }
            }
            (Values::Texts { listed: named, others: false }, Values::Texts { listed: but, others: true })
            | (Values::Texts { listed: but, others: true }, Values::Texts { listed: named, others: false }) => {
                Values::Texts { listed: but - named, others: true }
            }
            (Values::Booleans { yes, no }, Values::Booleans { yes: or_yes, no: or_no }) => {
                Values::Booleans { yes: *yes || *or_yes, no: *no || *or_no }
            }
            (values, _) => values.clone(),
        };
        Self { null: self.null || other.null, values }
    }

    /// What fits both of two cells of one kind.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let values = match (&self.values, &other.values) {
            (Values::Numbers(one), Values::Numbers(two)) => {
                let pairs = one.iter().flat_map(|a| two.iter().map(|b| a.common(*b)));
                Values::Numbers(pairs.filter(|range| !range.is_empty()).collect())
            }
            (Values::Texts { listed: one, others: false }, Values::Texts { listed: two, others: false }) => {
                Values::Texts { listed: one & two, others: false }
            }
            (Values::Texts { listed: one, others: true }, Values::Texts { listed: two, others: true }) => {
                Values::Texts { listed: one | two, others: true }
            }
            (Values::Texts { listed: named, others: false }, Values::Texts { listed: but, others: true })
            | (Values::Texts { listed: but, others: true }, Values::Texts { listed: named, others: false }) => {
                Values::Texts { listed: named - but, others: false }
            }
            (Values::Booleans { yes, no }, Values::Booleans { yes: and_yes, no: and_no }) => {
                Values::Booleans { yes: *yes && *and_yes, no: *no && *and_no }
            }
            (values, _) => values.clone(),
        };
        Self { null: self.null && other.null, values }
    }

    /// What fits this cell and not another one of its kind.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let values = match (&self.values, &other.values) {
            (Values::Numbers(one), Values::Numbers(two)) => {
                let less = |left: Vec<Range>, gone: &Range| left.iter().flat_map(|a| a.without(*gone)).collect();
                Values::Numbers(two.iter().fold(one.clone(), less))
            }
            (Values::Texts { .. }, Values::Texts { listed, others }) => {
                let rest = Self::texts(listed.clone(), !others);
                self.and(&rest).values
            }
            (Values::Booleans { yes, no }, Values::Booleans { yes: but_yes, no: but_no }) => {
                Values::Booleans { yes: *yes && !but_yes, no: *no && !but_no }
            }
            (values, _) => values.clone(),
        };
        Self { null: self.null && !other.null, values }
    }

    /// A value that fits, for an example; none when nothing does. A value that is not there is named last.
    #[must_use]
    pub fn example(&self) -> Option<String> {
        let value = match &self.values {
            Values::Numbers(ranges) => ranges.first().map(|range| range.example().to_string()),
            Values::Texts { listed, others: false } => listed.first().map(|text| format!("`{text}`")),
            Values::Texts { listed, others: true } if listed.is_empty() => Some("any text".to_owned()),
            Values::Texts { others: true, .. } => Some("any other text".to_owned()),
            Values::Booleans { yes: true, .. } => Some("true".to_owned()),
            Values::Booleans { no: true, .. } => Some("false".to_owned()),
            Values::Booleans { .. } => None,
        };
        value.or_else(|| self.null.then(|| "null".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells of each kind, and values that tell them apart.
    fn cells() -> Vec<(Vec<Cell>, Vec<Value>)> {
        let named = |texts: &[&str]| -> BTreeSet<Name> { texts.iter().map(|text| Name::from(*text)).collect() };
        let numbers = vec![
            Cell::any(Kind::Number),
            Cell::none(Kind::Number),
            Cell::null(Kind::Number),
            Cell::numbers(vec![Range::only(3.0)]),
            Cell::numbers(vec![Range::below(3.0, false)]),
            Cell::numbers(vec![Range::below(3.0, true), Range::above(5.0, false)]),
            Cell::numbers(vec![Range { low: Bound::Excluded(2.0), high: Bound::Included(5.0) }]),
        ];
        let texts = vec![
            Cell::any(Kind::Text),
            Cell::none(Kind::Text),
            Cell::texts(named(&["a", "b"]), false),
            Cell::texts(named(&["b", "c"]), false),
            Cell::texts(named(&["b"]), true),
            Cell::texts(named(&["a", "c"]), true),
        ];
        let truths = vec![
            Cell::any(Kind::Boolean),
            Cell::booleans(true, false),
            Cell::booleans(false, true),
            Cell::null(Kind::Boolean),
        ];
        let of = |values: &[&str]| values.iter().map(|text| Value::from_json(text).expect("JSON")).collect();
        vec![
            (numbers, of(&["null", "1", "2", "2.5", "3", "4", "5", "5.5"])),
            (texts, of(&["null", r#""a""#, r#""b""#, r#""c""#, r#""d""#])),
            (truths, of(&["null", "true", "false"])),
        ]
    }

    #[test]
    fn sets_are_joined_and_cut_as_their_values_are() {
        for (cells, values) in cells() {
            for one in &cells {
                for two in &cells {
                    for value in &values {
                        let (a, b) = (one.holds(value), two.holds(value));
                        assert_eq!(one.or(two).holds(value), a || b, "{one:?} or {two:?}: {value}");
                        assert_eq!(one.and(two).holds(value), a && b, "{one:?} and {two:?}: {value}");
                        assert_eq!(one.without(two).holds(value), a && !b, "{one:?} without {two:?}: {value}");
                    }
                    assert!(one.without(one).is_empty(), "{one:?}");
                    assert!(one.and(two).without(one).is_empty(), "{one:?} {two:?}");
                    assert_eq!(one.and(two).example().is_none(), one.and(two).is_empty(), "{one:?} {two:?}");
                }
            }
        }
    }

    #[test]
    fn an_example_is_in_its_set() {
        let (numbers, _) = cells().remove(0);
        for cell in numbers.iter().filter(|cell| !cell.is_empty()) {
            let example = Value::from_json(&cell.example().expect("an example")).expect("a number or null");
            assert!(cell.holds(&example), "{cell:?} {example}");
        }
    }
}
