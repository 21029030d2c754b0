//! What the rows of a table leave open, which of them are never reached, and which meet where one alone should fit.

use windlass_core::table::{Cell, Column, Row};

use crate::diagnostics::{Rule, Sink, Span};

/// Parts of what the inputs may be that are looked at one by one; with more only rows that one other row covers are found.
const PARTS_MAX: usize = 20_000;

/// What some inputs may be: one set of values for each of them.
type Part = Vec<Cell>;

/// Warns of rows that are never reached and of inputs that no row takes; refuses rows that meet where one alone may fit.
pub(super) fn check(inputs: &[Column], rows: &[Row], places: &[Span], is_unique: bool, header: Span, sink: &mut Sink) {
    if is_unique {
        meetings(rows, places, sink);
    }
    let mut open: Option<Vec<Part>> = Some(vec![inputs.iter().map(|column| Cell::any(column.kind)).collect()]);
    for (at, row) in rows.iter().enumerate() {
        let is_reached = match &open {
            Some(parts) => parts.iter().any(|part| meets(part, &row.when)),
            None => !rows[..at].iter().any(|earlier| covers(&earlier.when, &row.when)),
        };
        if !is_reached && !is_unique {
            let message = format!("row {} is never reached: the rows before it take all that fits it", at + 1);
            sink.warn(Rule::UnreachableRow, places[at], message, "move it up, or remove it");
        }
        open = open.and_then(|parts| left(&parts, &row.when));
    }
    let gap = match open {
        Some(parts) => {
            // Values that may be there say more than that none is.
            let absent = |part: &&Part| part.iter().filter(|cell| cell.example().as_deref() == Some("null")).count();
            parts.iter().min_by_key(absent).map(|part| example(inputs, part))
        }
        // What is left cannot be told; a last row that takes everything leaves nothing.
        None => {
            let takes_all =
                |row: &Row| row.when.iter().zip(inputs).all(|(cell, column)| *cell == Cell::any(column.kind));
            (!rows.iter().any(takes_all)).then(|| "perhaps".to_owned())
        }
    };
    if let Some(gap) = gap {
        let advice = if is_unique {
            "add rows for what is left, with `null` for what is not there, or route `table.no_row` with `on_error`"
        } else {
            "add a last row with `-` for each input, or route `table.no_row` with `on_error`"
        };
        sink.warn(Rule::TableGap, header, format!("the table has no row for some inputs: {gap}"), advice);
    }
}

fn meets(one: &[Cell], two: &[Cell]) -> bool {
    one.iter().zip(two).all(|(a, b)| !a.and(b).is_empty())
}

fn covers(one: &[Cell], two: &[Cell]) -> bool {
    one.iter().zip(two).all(|(a, b)| b.without(a).is_empty())
}

/// What is left of some parts when a row is taken out of each. None where that are too many.
fn left(parts: &[Part], row: &[Cell]) -> Option<Vec<Part>> {
    let mut rest = Vec::new();
    for part in parts {
        if !meets(part, row) {
            rest.push(part.clone());
            continue;
        }
        // Column by column: what is outside of the row there, and inside of it in the columns before.
        let mut inside = part.clone();
        for (at, cell) in row.iter().enumerate() {
            let mut outside = inside.clone();
            outside[at] = inside[at].without(cell);
            inside[at] = inside[at].and(cell);
            if !outside[at].is_empty() {
                rest.push(outside);
            }
        }
    }
    (rest.len() <= PARTS_MAX).then_some(rest)
}

fn meetings(rows: &[Row], places: &[Span], sink: &mut Sink) {
    for (at, row) in rows.iter().enumerate() {
        if let Some(earlier) = rows[..at].iter().position(|earlier| meets(&earlier.when, &row.when)) {
            let message =
                format!("rows {} and {} fit the same inputs, and `hit: unique` allows one", earlier + 1, at + 1);
            sink.error(Rule::BadTable, places[at], message, "set the rows apart, or write `hit: first`");
        }
    }
}

fn example(inputs: &[Column], part: &[Cell]) -> String {
    let shown = |(column, cell): (&Column, &Cell)| Some(format!("{} = {}", column.name, cell.example()?));
    inputs.iter().zip(part).filter_map(shown).collect::<Vec<_>>().join(", ")
}
