//! The decision table of a chain: which tier a call begins with, by values of the run's context, and after which
//! failures it is made again at a better tier. Data from outside; evaluated here, without an expression language.

use std::cmp::Ordering;

use crate::failure::Code;
use crate::ids::Name;
use crate::value::Value;

/// How the links of a chain are chosen beside their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Rows in order: the first one that fits says the tier.
    pub table: Vec<Row>,
    /// When a call is made again at a better tier.
    pub escalation: Option<Escalation>,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name, as it is journaled.
    pub name: Name,
    /// What must hold; a row without tests fits always.
    pub when: Vec<Test>,
    /// The tier of the links that are taken then.
    pub tier: Name,
}

/// A test of one value of the context. A value that is not there fits no test.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Keys of the context, with dots between.
    pub path: Name,
    /// How it is compared.
    pub compare: Compare,
    /// With what.
    pub with: Value,
}

/// How a value is compared. Numbers with numbers and texts with texts; everything else does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// It is that value.
    Is,
    /// It is that or more.
    AtLeast,
    /// It is more.
    Above,
    /// It is that or less.
    AtMost,
    /// It is less.
    Below,
    /// It is one of a list.
    OneOf,
}

impl Compare {
    /// Reads the word of a comparison.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "is" => Self::Is,
            "at_least" => Self::AtLeast,
            "above" => Self::Above,
            "at_most" => Self::AtMost,
            "below" => Self::Below,
            "one_of" => Self::OneOf,
            _ => return None,
        })
    }
}

/// When a call is made again at a better tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// Failures after which it is.
    pub on: Vec<Code>,
    /// The better tier.
    pub to: Name,
    /// How often in one run.
    pub at_most: u32,
}

impl Rules {
    /// The first row that fits the context of a run.
    #[must_use]
    pub fn row(&self, context: &Value) -> Option<&Row> {
        self.table.iter().find(|row| row.when.iter().all(|test| test.holds(context)))
    }

    /// The rule of escalation that speaks about a failure.
    #[must_use]
    pub fn about(&self, code: Code) -> Option<&Escalation> {
        self.escalation.as_ref().filter(|escalation| escalation.on.contains(&code))
    }
}

impl Test {
    fn holds(&self, context: &Value) -> bool {
        let path: Vec<&str> = self.path.split('.').collect();
        let found = context.at_path(&path);
        let is = |with: &Value| compared(&found, with) == Some(Ordering::Equal) || (found == *with && !found.is_null());
        match self.compare {
            Compare::Is => is(&self.with),
            Compare::OneOf => self.with.as_list().is_some_and(|list| list.iter().any(is)),
            Compare::AtLeast => compared(&found, &self.with).is_some_and(Ordering::is_ge),
            Compare::Above => compared(&found, &self.with).is_some_and(Ordering::is_gt),
            Compare::AtMost => compared(&found, &self.with).is_some_and(Ordering::is_le),
            Compare::Below => compared(&found, &self.with).is_some_and(Ordering::is_lt),
        }
    }
}

fn compared(one: &Value, other: &Value) -> Option<Ordering> {
    match (one.as_str(), other.as_str()) {
        (Some(one), Some(other)) => return Some(one.cmp(other)),
        (None, None) => {}
        _ => return None,
    }
    match (one.as_int(), other.as_int()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(path: &str, word: &str, with: impl Into<Value>) -> Test {
        Test { path: path.into(), compare: Compare::parse(word).expect("a word"), with: with.into() }
    }

    fn row(name: &str, when: Vec<Test>) -> Row {
        Row { name: name.into(), when, tier: "strong".into() }
    }

    #[test]
    fn the_first_row_that_fits_is_taken() {
        let risks = Value::list(vec!["high".into(), "critical".into()]);
        let rules = Rules {
            table: vec![
                row("hard", vec![test("task.complexity", "at_least", 7_i64)]),
                row(
                    "doubtful",
                    vec![
                        test("uncertainty", "above", Value::float(0.5).expect("a number")),
                        test("risk", "one_of", risks),
                    ],
                ),
                row("rest", vec![]),
            ],
            escalation: None,
        };
        let fits = |json: &str| rules.row(&Value::from_json(json).expect("JSON")).map(|row| row.name.to_string());
        assert_eq!(fits(r#"{"task":{"complexity":7}}"#).as_deref(), Some("hard"));
        assert_eq!(fits(r#"{"task":{"complexity":6.9},"uncertainty":0.6,"risk":"high"}"#).as_deref(), Some("doubtful"));
        assert_eq!(fits(r#"{"task":{"complexity":"9"},"uncertainty":0.6,"risk":"low"}"#).as_deref(), Some("rest"));
        assert_eq!(fits("{}").as_deref(), Some("rest"));
    }

    #[test]
    fn every_comparison_has_its_edges() {
        let holds = |word: &str, with: i64| test("n", word, with).holds(&Value::object([("n", Value::Int(3))]));
        assert_eq!([2, 3, 4].map(|n| holds("is", n)), [false, true, false]);
        assert_eq!([2, 3, 4].map(|n| holds("at_least", n)), [true, true, false]);
        assert_eq!([2, 3, 4].map(|n| holds("above", n)), [true, false, false]);
        assert_eq!([2, 3, 4].map(|n| holds("at_most", n)), [false, true, true]);
        assert_eq!([2, 3, 4].map(|n| holds("below", n)), [false, false, true]);
        assert!(!test("n", "is", Value::Null).holds(&Value::empty_map()), "what is not there fits nothing");
        assert_eq!(Compare::parse("like"), None);
    }
}
