//! The texts of a table with their places: from CSV, or from a list of mappings.

use csv_core::{ReadFieldResult, Reader};
use windlass_core::ids::Name;

use crate::diagnostics::{Rule, Sink, Span};
use crate::yaml::Node;

/// One text of a table, without the space around it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) text: Name,
    pub(super) span: Span,
}

/// The names of the columns and, row by row, a text for each; empty where a row has none.
#[derive(Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) header: Vec<Text>,
    pub(super) rows: Vec<(Span, Vec<Text>)>,
    /// The names of the columns.
    pub(super) span: Span,
}

/// Reads CSV (RFC 4180): the first line has the names of the columns. None where its rows are not of one length.
pub(super) fn of_csv(file: u32, text: &str, sink: &mut Sink) -> Option<Grid> {
    let mut records = records(file, text, sink)?.into_iter();
    let Some(header) = records.next() else {
        let span = Span { file, line: 1, column: 1, end_line: 1, end_column: 2 };
        let advice = "write the names of the columns into the first line";
        sink.error(Rule::BadTable, span, "the file is empty", advice);
        return None;
    };
    let span = whole(&header);
    let mut is_even = true;
    let mut rows = Vec::new();
    for record in records {
        let place = whole(&record);
        if record.len() != header.len() {
            let message = format!("this row has {} cells, and there are {} columns", record.len(), header.len());
            let advice = "write a cell for each column; put a text with a comma into quotes";
            sink.error(Rule::BadTable, place, message, advice);
            is_even = false;
        }
        rows.push((place, record));
    }
    is_even.then_some(Grid { header, rows, span })
}

/// Where a row stands: its first line.
fn whole(record: &[Text]) -> Span {
    let first = record.first().map(|text| text.span).unwrap_or_default();
    let last = record.last().map(|text| text.span).unwrap_or_default();
    Span { end_line: last.end_line, end_column: last.end_column, ..first }.line_only()
}

fn records(file: u32, text: &str, sink: &mut Sink) -> Option<Vec<Vec<Text>>> {
    let places = Places::new(file, text);
    let (mut reader, mut records, mut record) = (Reader::new(), Vec::new(), Vec::new());
    // Never longer than what it is read from.
    let mut field = vec![0; text.len() + 1];
    let (mut at, mut is_whole) = (0, true);
    loop {
        let mut start = at;
        if record.is_empty() {
            // The end of the line before belongs to no cell.
            start += text[at..].bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        }
        let (result, read, written) = reader.read_field(&text.as_bytes()[at..], &mut field);
        at += read;
        let record_end = match result {
            // At the end of the input the reader is told so by another, empty call.
            ReadFieldResult::InputEmpty => {
                let (result, _, _) = reader.read_field(&[], &mut field[written..]);
                if result == ReadFieldResult::End {
                    break;
                }
                true
            }
            ReadFieldResult::OutputFull | ReadFieldResult::End => break,
            ReadFieldResult::Field { record_end } => record_end,
        };
        let raw = text.get(start.min(at)..at).unwrap_or_default().trim_end_matches(['\r', '\n']);
        let raw = if record_end { raw } else { raw.strip_suffix(',').unwrap_or(raw) };
        let span = places.span(start, raw);
        if raw.starts_with('"') && !is_quoted(raw) {
            let advice = "begin and end the cell with `\"`, and write a `\"` within as `\"\"`";
            sink.error(Rule::Syntax, span, "the quotes of this cell do not match", advice);
            is_whole = false;
        }
        let value = String::from_utf8_lossy(&field[..written]);
        record.push(Text { text: value.trim().into(), span });
        if record_end {
            records.push(std::mem::take(&mut record));
        }
    }
    if !record.is_empty() {
        records.push(record);
    }
    is_whole.then_some(records)
}

/// Whether a cell that begins with a quote ends with the one that belongs to it.
fn is_quoted(raw: &str) -> bool {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| !inner.replace("\"\"", "").contains('"'))
}

/// Lines and columns of a text.
struct Places<'t> {
    file: u32,
    text: &'t str,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl<'t> Places<'t> {
    fn new(file: u32, text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines }
    }

    /// Where a part of the text stands, without the space around it.
    fn span(&self, start: usize, raw: &str) -> Span {
        let inner = raw.trim();
        let start = start + (raw.len() - raw.trim_start().len());
        let (line, column) = self.at(start);
        let (end_line, end_column) = self.at(start + inner.len());
        let end_column = if (line, column) == (end_line, end_column) { end_column + 1 } else { end_column };
        Span { file: self.file, line, column, end_line, end_column }.line_only()
    }

    fn at(&self, byte: usize) -> (u32, u32) {
        let line = self.lines.partition_point(|start| *start <= byte).saturating_sub(1);
        let before = self.text.get(self.lines[line]..byte).unwrap_or_default();
        let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        (number(line), number(before.chars().count()))
    }
}

/// Reads rows that are written as mappings of columns to cells. The columns are those that some row has.
pub(super) fn of_rows(rows: &Node, sink: &mut Sink) -> Option<Grid> {
    let mut header: Vec<Text> = Vec::new();
    let items = rows.as_list()?;
    for entry in items.iter().flat_map(|row| row.as_map().unwrap_or_default()) {
        if !header.iter().any(|known| known.text == entry.key) {
            header.push(Text { text: entry.key.clone(), span: entry.key_span });
        }
    }
    let mut is_whole = true;
    let mut read = Vec::with_capacity(items.len());
    for row in items {
        let mut texts = Vec::with_capacity(header.len());
        for column in &header {
            let cell = row.entry(&column.text).map(|entry| &entry.value);
            if let Some(cell) = cell.filter(|cell| cell.scalar_text().is_none()) {
                let message = format!("a cell is text or a number, not {}", cell.kind());
                sink.error(Rule::BadTable, cell.span, message, "list what may fit as `a | b`");
                is_whole = false;
            }
            let text = cell.and_then(|cell| cell.scalar_text()).unwrap_or_default();
            texts.push(Text { text: text.trim().into(), span: cell.map_or(row.span.line_only(), |cell| cell.span) });
        }
        read.push((row.span.line_only(), texts));
    }
    is_whole.then_some(Grid { header, rows: read, span: rows.span.line_only() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Vec<(String, u32, u32)>> {
        let mut sink = Sink::default();
        let file = sink.add_file("t.csv", text.into());
        let records = records(file, text, &mut sink).expect("CSV");
        let shown = |text: Text| (text.text.to_string(), text.span.line, text.span.column);
        records.into_iter().map(|record| record.into_iter().map(shown).collect()).collect()
    }

    fn cell(text: &str, line: u32, column: u32) -> (String, u32, u32) {
        (text.to_owned(), line, column)
    }

    #[test]
    fn every_cell_knows_its_place() {
        let expected = vec![
            vec![cell("a", 1, 1), cell("b", 1, 3), cell("c", 1, 6)],
            vec![cell("1", 3, 1), cell("x, \"y\"", 3, 3), cell("", 3, 14)],
            vec![cell("ä", 4, 1), cell("2", 4, 4), cell("3", 4, 6)],
        ];
        assert_eq!(read("a,b, c\n\n1,\"x, \"\"y\"\"\",\nä, 2,3\n"), expected);
        assert_eq!(
            read("a,b, c\r\n\r\n1,\"x, \"\"y\"\"\",\r\nä, 2,3"),
            expected,
            "without an end, with other line ends"
        );
    }

    #[test]
    fn a_cell_may_go_over_lines() {
        let expected = vec![vec![cell("a\nb", 1, 1), cell("c", 2, 4)], vec![cell("d", 3, 1), cell("", 3, 3)]];
        assert_eq!(read("\"a\nb\",c\nd,"), expected);
    }

    #[test]
    fn quotes_that_do_not_match_are_told_of() {
        for text in ["a,\"b\nc,d\n", "\"a\"b,c\n"] {
            let mut sink = Sink::default();
            let file = sink.add_file("t.csv", text.into());
            assert_eq!(records(file, text, &mut sink), None, "{text}");
            assert_eq!(sink.finish(false)[0].code, Rule::Syntax);
        }
    }

    #[test]
    fn nothing_is_no_row() {
        assert_eq!(read(""), Vec::<Vec<_>>::new());
        assert_eq!(read("\n\r\n"), Vec::<Vec<_>>::new());
    }
}
