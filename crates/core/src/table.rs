//! Decision tables: data of a machine's document that says, by a few inputs, what a run does next. A row is found here and
//! nothing else is done; no call leaves.

mod cell;

use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::limits::TABLE_TEXT_BYTES_MAX;
use crate::machine::Template;
use crate::value::{Map, Value};

pub use cell::{Cell, Range, Values};

/// The key of a table's output that has the number of the row.
pub const ROW: &str = "row";
/// The key of a table's output that has the name of the row, and the column of names.
pub const ID: &str = "id";

/// A decision table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name: the action by which states ask it.
    pub name: Name,
    /// What it reads.
    pub inputs: Vec<Column>,
    /// What it says, by name.
    pub outputs: Vec<Name>,
    /// Which of the outputs names the state that the run goes to.
    pub leads: Option<usize>,
    /// Its rows: the first one that fits is taken.
    pub rows: Vec<Row>,
}

/// One input of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: Name,
    /// What it may be.
    pub kind: Kind,
    /// Where it is read.
    pub from: Template,
}

/// What an input may be. Null, for a value that is not there, may stand for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// Text.
    Text,
    /// True or false.
    Boolean,
}

impl Kind {
    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "number" => Self::Number,
            "text" => Self::Text,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "text",
            Self::Boolean => "true or false",
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Number => value.as_f64().is_some(),
            Self::Text => value.as_str().is_some(),
            Self::Boolean => matches!(value, Value::Bool(_)),
        }
    }
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name, where it has one.
    pub id: Option<Name>,
    /// What each input has to be.
    pub when: Vec<Cell>,
    /// What each output is.
    pub then: Vec<Value>,
}

/// What a table said.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    /// Number of the row, from 1.
    pub row: u32,
    /// Name of the row, where it has one.
    pub id: Option<Name>,
    /// The outputs by name, with `row` and `id` beside them.
    pub output: Value,
    /// The state that the run goes to, where the row names one.
    pub to: Option<Name>,
}

impl Table {
    /// The inputs by their names, as they are recorded.
    #[must_use]
    pub fn named(&self, inputs: &[Value]) -> Value {
        let names = self.inputs.iter().map(|column| column.name.clone());
        Value::map(names.zip(inputs.iter().cloned()).collect())
    }

    /// What the first row says that fits the inputs, which are in the order of the columns.
    ///
    /// # Errors
    /// `table.bad_input` for an input that is not what its column takes; `table.no_row` when no row fits.
    pub fn fire(&self, inputs: &[Value]) -> Result<Fired, Failure> {
        for (column, value) in self.inputs.iter().zip(inputs) {
            self.check(column, value)?;
        }
        let fits = |row: &Row| row.when.iter().zip(inputs).all(|(cell, value)| cell.holds(value));
        let Some((at, row)) = self.rows.iter().enumerate().find(|(_, row)| fits(row)) else {
            let message = format!("no row of the table `{}` fits its inputs", self.name);
            let detail = [("table", Value::Str(self.name.clone())), ("inputs", self.named(inputs))];
            return Err(Failure::new(Code::TableNoRow, message).detail(Value::object(detail)));
        };
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let mut output: Map = self.outputs.iter().cloned().zip(row.then.iter().cloned()).collect();
        output.insert(ROW.into(), Value::Int(i64::from(number)));
        output.insert(ID.into(), row.id.clone().map_or(Value::Null, Value::Str));
        let to = self.leads.and_then(|at| row.then.get(at)).and_then(Value::as_str).map(Name::from);
        Ok(Fired { row: number, id: row.id.clone(), output: Value::map(output), to })
    }

    fn check(&self, column: &Column, value: &Value) -> Result<(), Failure> {
        let refused = |why: String| {
            let message = format!("the input `{}` of the table `{}` {why}", column.name, self.name);
            Err(Failure::new(Code::TableBadInput, message))
        };
        if !column.kind.takes(value) {
            return refused(format!("is {}, not {}", value.type_name(), column.kind.noun()));
        }
        match value.as_str().map(str::len) {
            Some(bytes) if bytes > TABLE_TEXT_BYTES_MAX => {
                refused(format!("has {bytes} bytes; a table takes texts up to {TABLE_TEXT_BYTES_MAX}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The states that its rows name, each with the numbers of those rows, in the order of the rows.
    #[must_use]
    pub fn ways(&self) -> indexmap::IndexMap<Name, Vec<u32>> {
        let mut ways: indexmap::IndexMap<Name, Vec<u32>> = indexmap::IndexMap::new();
        let Some(at) = self.leads else { return ways };
        for (row, number) in self.rows.iter().zip(1..) {
            if let Some(Value::Str(state)) = row.then.get(at) {
                ways.entry(state.clone()).or_default().push(number);
            }
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, kind| Column { name: name.into(), kind, from: Template::Path(vec![name.into()]) };
        let below = |n| Cell::numbers(vec![Range::below(n, false)]);
        let row = |id: Option<&str>, when, next: Value| Row { id: id.map(Name::from), when, then: vec![next] };
        Table {
            name: "t".into(),
            inputs: vec![column("n", Kind::Number), column("risk", Kind::Text)],
            outputs: vec!["next".into()],
            leads: Some(0),
            rows: vec![
                row(Some("low"), vec![below(3.0), Cell::texts(["low".into()].into(), false)], "a".into()),
                row(None, vec![below(3.0), Cell::any(Kind::Text)], "b".into()),
                row(
                    None,
                    vec![Cell::numbers(vec![Range::ALL]), Cell::texts(["high".into()].into(), false)],
                    Value::Null,
                ),
            ],
        }
    }

    fn fire(n: impl Into<Value>, risk: impl Into<Value>) -> Result<Fired, Failure> {
        table().fire(&[n.into(), risk.into()])
    }

    #[test]
    fn the_first_row_that_fits_says_what_comes_next() {
        let fired = fire(2_i64, "low").expect("a row");
        assert_eq!((fired.row, fired.id.as_deref(), fired.to.as_deref()), (1, Some("low"), Some("a")));
        assert_eq!(fired.output, Value::from_json(r#"{"next":"a","row":1,"id":"low"}"#).expect("JSON"));
        let fired = fire(Value::Float(2.5), Value::Null).expect("a row");
        assert_eq!((fired.row, fired.id, fired.to.as_deref()), (2, None, Some("b")));
        let fired = fire(3_i64, "high").expect("a row");
        assert_eq!((fired.row, fired.to), (3, None), "a row may name no state");
    }

    #[test]
    fn what_fits_no_row_is_a_failure_of_its_own() {
        let failure = fire(3_i64, "low").expect_err("no row");
        assert_eq!(failure.code, Code::TableNoRow);
        assert_eq!(failure.detail.get("inputs").and_then(|inputs| inputs.get("n")), Some(&Value::Int(3)));
        assert_eq!(fire(Value::Null, "high").expect_err("no row").code, Code::TableNoRow, "null is no number");
    }

    #[test]
    fn an_input_of_another_type_is_refused() {
        let failure = fire("2", "low").expect_err("text");
        assert_eq!(failure.code, Code::TableBadInput);
        assert_eq!(&*failure.message, "the input `n` of the table `t` is text, not a number");
        let long = "x".repeat(TABLE_TEXT_BYTES_MAX + 1);
        assert_eq!(fire(1_i64, long.as_str()).expect_err("long").code, Code::TableBadInput);
    }

    #[test]
    fn the_states_that_it_leads_to_are_known() {
        let ways: Vec<_> = table().ways().into_iter().collect();
        assert_eq!(ways, [("a".into(), vec![1]), ("b".into(), vec![2])]);
    }
}
