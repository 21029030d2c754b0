//! `data.settings.tables`: decision tables, from a CSV file beside the machine or from rows in the document.

mod cells;
mod cover;
mod grid;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexSet;
use windlass_core::ids::Name;
use windlass_core::limits::{TABLE_COLUMNS_MAX, TABLE_ROWS_MAX, TABLES_MAX};
use windlass_core::machine::{HookKind, State, Template};
use windlass_core::table::{Cell, Column, ID, Kind, ROW, Row, Table};
use windlass_core::value::Value;

use crate::diagnostics::{Rule, Sink, Span, suggest};
use crate::eval;
use crate::yaml::{Entry, Node};

use super::{Lowering, pairs, template};
use cells::Says;
use grid::{Grid, Text};

/// The tables of one machine while its states are lowered.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) by_name: BTreeMap<Name, Arc<Table>>,
    /// Where each is written, those that cannot be read included.
    places: BTreeMap<Name, Span>,
}

impl Tables {
    /// Whether an action asks a table.
    pub(super) fn has(&self, action: Option<&Name>) -> bool {
        action.is_some_and(|action| self.places.contains_key(action))
    }

    /// Whether an action asks a table that says where the run goes.
    pub(super) fn leads(&self, action: Option<&Name>) -> bool {
        let leads = |name| self.by_name.get(name).is_none_or(|table| table.leads.is_some());
        self.has(action) && action.is_some_and(leads)
    }
}

/// What a column of a table is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Id,
    Input(usize),
    Output(usize),
}

/// What a table declares, before its rows are read.
struct Head {
    name: Name,
    inputs: Vec<Column>,
    outputs: Vec<(Name, Says)>,
    is_unique: bool,
}

impl Lowering<'_, '_> {
    /// The decision tables of a machine.
    pub(super) fn tables(&mut self, data: &Node, folder: &str) -> Tables {
        let mut tables = Tables::default();
        let settings = data.get("settings");
        let states: IndexSet<Name> = pairs(data, "states").map(|entry| entry.key.clone()).collect();
        for entry in settings.into_iter().flat_map(|settings| pairs(settings, "tables")) {
            if tables.places.len() >= TABLES_MAX {
                let message = format!("a machine has at most {TABLES_MAX} decision tables");
                self.docs.sink.error(Rule::TooLarge, entry.key_span, message, ());
                break;
            }
            tables.places.insert(entry.key.clone(), entry.key_span);
            if let Some(table) = self.table(entry, folder, &states) {
                tables.by_name.insert(entry.key.clone(), Arc::new(table));
            }
        }
        tables
    }

    fn table(&mut self, entry: &Entry, folder: &str, states: &IndexSet<Name>) -> Option<Table> {
        let node = &entry.value;
        node.as_map()?;
        if self.around.tools.contains_key(&entry.key) {
            let message = format!("`{}` is a configured tool too: its name says which one an action means", entry.key);
            self.docs.sink.error(Rule::DuplicateName, entry.key_span, message, "give the table another name");
        }
        if &*entry.key == "machine" {
            let advice = "choose another name; `context.machine` holds the run's own data";
            self.docs.sink.error(Rule::BadTable, entry.key_span, "a table cannot be called `machine`", advice);
        }
        let head = self.head(entry)?;
        let grid = self.grid(node, entry.key_span, folder)?;
        let sink = &mut self.docs.sink;
        let uses = uses(&grid, &head, sink)?;
        let (rows, places) = rows(&grid, &uses, &head, states, sink)?;
        cover::check(&head.inputs, &rows, &places, head.is_unique, grid.span, sink);
        let leads = head.outputs.iter().position(|(_, says)| *says == Says::State);
        let outputs = head.outputs.into_iter().map(|(name, _)| name).collect();
        Some(Table { name: head.name, inputs: head.inputs, outputs, leads, rows })
    }

    fn head(&mut self, entry: &Entry) -> Option<Head> {
        let node = &entry.value;
        let sink = &mut self.docs.sink;
        let inputs: Vec<Column> = pairs(node, "inputs").filter_map(|input| column(input, sink)).collect();
        let mut outputs: Vec<(Name, Says)> = Vec::new();
        for output in pairs(node, "outputs") {
            let Some(says) = output.value.as_str().and_then(|word| Says::parse(word)) else { continue };
            let taken = inputs.iter().any(|input| input.name == output.key) || [ROW, ID].contains(&&*output.key);
            if taken {
                let message = format!("no output can be called `{}`", output.key);
                let advice = "`row` and `id` say which row it was, and the inputs have their names already";
                sink.error(Rule::BadTable, output.key_span, message, advice);
            }
            if says == Says::State && outputs.iter().any(|(_, says)| *says == Says::State) {
                let message = "a second output names the state that the run goes to";
                sink.error(Rule::BadTable, output.value.span, message, "write `text` for one of them");
            }
            outputs.push((output.key.clone(), says));
        }
        for (key, is_empty) in [("inputs", inputs.is_empty()), ("outputs", outputs.is_empty())] {
            if let Some(none) = node.entry(key).filter(|_| is_empty) {
                let advice = "write each as `name: type`";
                sink.error(Rule::BadTable, none.key_span, format!("the table has no {key}"), advice);
            }
        }
        let is_unique = node.text("hit").is_some_and(|word| &**word == "unique");
        let head = Head { name: entry.key.clone(), inputs, outputs, is_unique };
        (!head.inputs.is_empty() && !head.outputs.is_empty()).then_some(head)
    }

    fn grid(&mut self, node: &Node, span: Span, folder: &str) -> Option<Grid> {
        match (node.entry("file"), node.entry("rows")) {
            (Some(_), Some(rows)) => {
                let message = "a table has its rows in `file` or in `rows`, not in both";
                self.docs.sink.error(Rule::BadTable, rows.key_span, message, "remove one of them");
                None
            }
            (None, None) => {
                let advice = "name a CSV file with `file: ./NAME.csv`, or list the rows under `rows`";
                self.docs.sink.error(Rule::MissingKey, span, "the table has no rows", advice);
                None
            }
            (Some(file), None) => {
                let path = self.docs.path(folder, file.value.as_str()?, file.value.span)?;
                let (file, text) = self.docs.text(&path, file.value.span)?;
                grid::of_csv(file, &text, &mut self.docs.sink)
            }
            (None, Some(rows)) => grid::of_rows(&rows.value, &mut self.docs.sink),
        }
    }

    /// What a state has to have that asks a table, and warns of what has no effect beside one.
    pub(super) fn check_table(&mut self, node: &Node, table: &Table, state: &State) {
        let Some(span) = node.get("action").map(|action| action.span) else { return };
        let sink = &mut self.docs.sink;
        if state.hooks.iter().any(|hook| hook.events.contains(&HookKind::Action)) {
            let message = format!("no hook performs `{}` here: it is a decision table", table.name);
            sink.warn(Rule::NoEffect, span, message, "rename the table, or remove the hook from this state");
        }
        if let Some(found) = node.entry("arguments") {
            let message = format!("`{}` is a decision table, and takes what its inputs name", table.name);
            sink.error(Rule::WrongValue, found.key_span, message, "remove `arguments`, or rename the table");
        }
        for to in table.ways().keys() {
            if !state.transitions.iter().any(|transition| transition.to == *to) {
                let message =
                    format!("the table `{}` leads to `{to}`, which is no transition of this state", table.name);
                sink.error(Rule::UnknownState, span, message, format!("add `- to: {to}` to its transitions"));
            }
        }
    }

    /// Warns of tables that no state asks.
    pub(super) fn check_asked<'s>(&mut self, tables: &Tables, states: impl Iterator<Item = &'s State>) {
        let asked: BTreeSet<&Name> = states.filter_map(|state| state.action.as_ref()).collect();
        for (name, span) in tables.places.iter().filter(|(name, _)| !asked.contains(name)) {
            let advice = format!("ask it with `action: {name}` in a state, or remove it");
            self.docs.sink.warn(Rule::NoEffect, *span, format!("no state asks the table `{name}`"), advice);
        }
    }
}

/// One input: `name: type`, read from the context under its name, or `name: {type, from}`.
fn column(entry: &Entry, sink: &mut Sink) -> Option<Column> {
    let word = entry.value.as_str().or_else(|| entry.value.text("type"))?;
    let kind = Kind::parse(word)?;
    let from = match entry.value.get("from") {
        Some(from) => template::value(from, sink),
        None => Template::Path(vec!["context".into(), entry.key.clone()]),
    };
    if entry.value.get("from").is_none() && eval::bare_path(&format!("context.{}", entry.key)).is_none() {
        let message = format!("`context.{}` is no path", entry.key);
        sink.error(Rule::BadTable, entry.key_span, message, "say with `from` where the input is read");
    }
    if &*entry.key == ID {
        let advice = "the column `id` has the names of the rows";
        sink.error(Rule::BadTable, entry.key_span, "no input can be called `id`", advice);
    }
    Some(Column { name: entry.key.clone(), kind, from })
}

/// What each column of a grid is for. None where the columns are not those that the table declares.
fn uses(grid: &Grid, head: &Head, sink: &mut Sink) -> Option<Vec<Use>> {
    let mut uses: Vec<Use> = Vec::new();
    let mut is_whole = true;
    let names = || head.inputs.iter().map(|c| &c.name).chain(head.outputs.iter().map(|(name, _)| name));
    if grid.header.len() > TABLE_COLUMNS_MAX {
        let message = format!("a decision table has at most {TABLE_COLUMNS_MAX} columns");
        sink.error(Rule::TooLarge, grid.span, message, ());
        return None;
    }
    for Text { text, span } in &grid.header {
        let input = head.inputs.iter().position(|column| column.name == *text).map(Use::Input);
        let output = head.outputs.iter().position(|(name, _)| name == text).map(Use::Output);
        let found = input.or(output).or_else(|| (&**text == ID).then_some(Use::Id));
        match found {
            Some(found) if !uses.contains(&found) => uses.push(found),
            Some(_) => {
                sink.error(Rule::BadTable, *span, format!("the column `{text}` stands twice"), "remove one of them");
                is_whole = false;
            }
            None => {
                let message = format!("the column `{text}` is no input or output of the table `{}`", head.name);
                let advice = suggest(text, names().map(|name| &**name));
                sink.error(Rule::BadTable, *span, message, advice);
                is_whole = false;
            }
        }
    }
    let has = |wanted: Use| uses.contains(&wanted);
    let missing = (0..head.inputs.len()).filter(|at| !has(Use::Input(*at))).map(|at| &head.inputs[at].name);
    let unsaid = (0..head.outputs.len()).filter(|at| !has(Use::Output(*at))).map(|at| &head.outputs[at].0);
    for name in missing.chain(unsaid) {
        let message = format!("the table `{}` has no column `{name}`", head.name);
        sink.error(Rule::BadTable, grid.span, message, "add the column, or do not declare it");
        is_whole = false;
    }
    is_whole.then_some(uses)
}

/// The rows of a table with their places. None where a cell cannot be read.
fn rows(
    grid: &Grid,
    uses: &[Use],
    head: &Head,
    states: &IndexSet<Name>,
    sink: &mut Sink,
) -> Option<(Vec<Row>, Vec<Span>)> {
    if grid.rows.len() > TABLE_ROWS_MAX {
        let message = format!("a decision table has at most {TABLE_ROWS_MAX} rows, this one has {}", grid.rows.len());
        sink.error(Rule::TooLarge, grid.span, message, ());
        return None;
    }
    if grid.rows.is_empty() {
        sink.error(Rule::BadTable, grid.span, "the table has no rows", "write one row below the names of the columns");
        return None;
    }
    let errors = sink.errors();
    let mut ids: BTreeSet<Name> = BTreeSet::new();
    let mut rows = Vec::with_capacity(grid.rows.len());
    for (_, texts) in &grid.rows {
        let when = head.inputs.iter().map(|column| Cell::any(column.kind)).collect();
        let mut row = Row { id: None, when, then: vec![Value::Null; head.outputs.len()] };
        for (found, Text { text, span }) in uses.iter().zip(texts) {
            let read = match found {
                Use::Id => name(text, &mut ids).map(|id| row.id = id),
                Use::Input(at) => cells::test(text, head.inputs[*at].kind).map(|cell| row.when[*at] = cell),
                Use::Output(at) => cells::said(text, head.outputs[*at].1, states).map(|said| row.then[*at] = said),
            };
            if let Err((message, advice)) = read {
                sink.error(Rule::BadTable, *span, message, advice);
            }
        }
        rows.push(row);
    }
    (sink.errors() == errors).then(|| (rows, grid.rows.iter().map(|(span, _)| *span).collect()))
}

/// The name of a row, which no other one has.
fn name(text: &Name, ids: &mut BTreeSet<Name>) -> Result<Option<Name>, cells::Problem> {
    let id = match &**text {
        "" | "-" => return Ok(None),
        _ => text.clone(),
    };
    if ids.insert(id.clone()) {
        Ok(Some(id))
    } else {
        Err((format!("two rows are called `{id}`"), "give each row a name of its own, or none".to_owned()))
    }
}
