//! Decision tables in documents: what they become, and what is said of those that are wrong.

use windlass_core::machine::Template;
use windlass_core::table::{Kind, Table};
use windlass_core::value::Value;
use windlass_spec::LoadOptions;
use windlass_spec::compile::compile;
use windlass_spec::diagnostics::{Diagnostic, Rule};

use crate::documents::{bare, findings, load_with, machine, options, shown};

/// A machine that asks the table `t`, declared by `declared`.
fn asking(declared: &str) -> String {
    let declared: String = declared.lines().map(|line| format!("      {line}\n")).collect();
    machine(&format!(
        "settings:\n  tables:\n    t:\n{declared}\
         states:\n  s:\n    type: initial\n    action: t\n    transitions:\n      - {{condition: \"context.t.next == 'a'\", to: a}}\n      - to: b\n  a: {{type: final}}\n  b: {{type: final}}"
    ))
}

const HEAD: &str = "file: ./t.csv\ninputs: {n: number, risk: text}\noutputs: {next: state, why: text}";
const ROWS: &str = "id,n,risk,next,why\nsmall,< 3,low | medium,a,\n,>= 3,high,b,\"much, and risky\"\nrest,-,-,b,\n";

fn of(csv: &str) -> Vec<Diagnostic> {
    findings(&asking(HEAD), &[("t.csv", csv)], &options())
}

/// The findings as rule, file, line and column.
fn places(found: &[Diagnostic]) -> Vec<(Rule, &str, u32, u32)> {
    found.iter().map(|d| (d.code, d.file.as_str(), d.line, d.column)).collect()
}

fn table(declared: &str, others: &[(&str, &str)]) -> Table {
    let loaded = load_with(&asking(declared), others, &options()).unwrap_or_else(|found| panic!("{}", shown(&found)));
    assert!(loaded.diagnostics.is_empty(), "{}", shown(&loaded.diagnostics));
    Table::clone(&loaded.program.machines["machine.yml"].tables["t"])
}

#[test]
fn a_table_is_read_from_a_file_or_from_the_document() {
    let of_file = table(HEAD, &[("t.csv", ROWS)]);
    let listed = "inputs: {n: number, risk: text}\noutputs: {next: state, why: text}\nrows:\n\
                  - {id: small, n: \"< 3\", risk: low | medium, next: a}\n\
                  - {n: \">= 3\", risk: high, next: b, why: \"much, and risky\"}\n\
                  - {id: rest, next: b}";
    assert_eq!(of_file, table(listed, &[]));
    assert_eq!((of_file.inputs[0].kind, of_file.inputs[1].kind), (Kind::Number, Kind::Text));
    assert_eq!(of_file.inputs[0].from, Template::Path(vec!["context".into(), "n".into()]));
    let fired = of_file.fire(&[Value::Int(4), "high".into()]).expect("a row");
    assert_eq!((fired.row, fired.id, fired.to.as_deref()), (2, None, Some("b")));
    assert_eq!(fired.output.get("why"), Some(&"much, and risky".into()));
}

#[test]
fn an_input_says_where_it_is_read() {
    let table = table(
        "rows: [{n: 3, ok: true, out: 1}, {out: 2}]\noutputs: {out: number}\n\
         inputs: {n: {type: number, from: \"{{ context.list | length }}\"}, ok: {type: boolean, from: context.checks.ok}}",
        &[],
    );
    assert!(matches!(&table.inputs[0].from, Template::Text { source, .. } if source.contains("length")));
    assert_eq!(table.inputs[1].from, Template::Path(["context", "checks", "ok"].map(Into::into).to_vec()));
}

#[test]
fn the_file_is_part_of_the_bundle() {
    let loaded = load_with(&asking(HEAD), &[("t.csv", ROWS)], &options()).expect("loads");
    assert_eq!(loaded.bundle.files.get("t.csv").map(String::as_str), Some(ROWS));
    let again = compile(&loaded.bundle).expect("compiles");
    let tables = |program: &windlass_core::machine::Program| program.machines["machine.yml"].tables.clone();
    assert_eq!(tables(&again), tables(&loaded.program));
    let other = ROWS.replace("< 3", "< 4");
    let changed = load_with(&asking(HEAD), &[("t.csv", &other)], &options()).expect("loads");
    assert_ne!(changed.bundle.digest(), loaded.bundle.digest(), "a run is pinned to the table");
}

#[test]
fn a_cell_that_cannot_be_read_is_shown_at_its_place() {
    let found = of("id,n,risk,next,why\n,many,< low,nowhere,\n,5..1,high,a,\"x\nrest,-,-,b,\n");
    assert_eq!(places(&found)[0], (Rule::Syntax, "t.csv", 3, 14), "{}", shown(&found));
    let found = of("id,n,risk,next,why\n,many,< low,nowhere,\n, 5..1,high,a,\nrest,-,-,b,\n");
    assert_eq!(
        places(&found),
        [
            (Rule::BadTable, "t.csv", 2, 2),
            (Rule::BadTable, "t.csv", 2, 7),
            (Rule::BadTable, "t.csv", 2, 13),
            (Rule::BadTable, "t.csv", 3, 3),
        ],
        "{}",
        shown(&found)
    );
    assert!(found.iter().all(|d| d.advice.is_some() && !d.excerpt.is_empty()));
    assert!(found[2].message.contains("`nowhere` does not exist"));
}

#[test]
fn columns_are_those_that_are_declared() {
    let found = of("n,rsk,next,why,n\n1,low,a,,1\n");
    assert_eq!(
        places(&found),
        [(Rule::BadTable, "t.csv", 1, 1), (Rule::BadTable, "t.csv", 1, 3), (Rule::BadTable, "t.csv", 1, 16)],
        "{}",
        shown(&found)
    );
    assert!(found[1].advice.as_deref().is_some_and(|advice| advice.contains("`risk`")));
    let found = of("n,risk,next,why\n1,low,a\n");
    assert_eq!(places(&found), [(Rule::BadTable, "t.csv", 2, 1)], "{}", shown(&found));
    for csv in ["", "n,risk,next,why\n"] {
        assert_eq!(places(&of(csv))[0].0, Rule::BadTable, "{csv:?}");
    }
    let found = of("id,n,risk,next,why\nx,1,-,a,\nx,-,-,a,\n");
    assert_eq!(places(&found), [(Rule::BadTable, "t.csv", 3, 1)], "{}", shown(&found));
}

#[test]
fn rows_that_are_never_reached_and_inputs_without_a_row_are_told_of() {
    let found = of("n,risk,next,why\n< 3,-,a,\n>= 3,-,a,\nnull,-,a,\n1..9,low,b,\n");
    assert_eq!(places(&found), [(Rule::UnreachableRow, "t.csv", 5, 1)], "{}", shown(&found));
    let found = of("n,risk,next,why\n< 3,-,a,\n>= 3,!= high,b,\n");
    assert_eq!(places(&found), [(Rule::TableGap, "t.csv", 1, 1)], "{}", shown(&found));
    assert!(found[0].message.ends_with("n = 3, risk = `high`"), "{}", found[0].message);
    let strict = LoadOptions { strict: true, ..options() };
    load_with(&asking(HEAD), &[("t.csv", "n,risk,next,why\n< 3,-,a,\n")], &strict).expect_err("refused");
    // More combinations than are looked at: a row that another one covers is found all the same.
    let names: Vec<String> = (0..16).map(|n| format!("i{n}")).collect();
    let inputs: Vec<String> = names.iter().map(|name| format!("{name}: number")).collect();
    let head = format!("file: ./t.csv\ninputs: {{{}}}\noutputs: {{next: state}}", inputs.join(", "));
    let mut csv = format!("{},next\n", names.join(","));
    for row in 0..40 {
        let cells: Vec<String> = (0..16).map(|n| format!("{}..{}", row + n, row + n + 30)).collect();
        csv.push_str(&format!("{},a\n", cells.join(",")));
    }
    csv.push_str(&format!("{},b\n", ["40"; 16].join(",")));
    csv.push_str(&format!("{},b\n", ["-"; 16].join(",")));
    let found = findings(&asking(&head), &[("t.csv", &csv)], &options());
    assert_eq!(places(&found), [(Rule::UnreachableRow, "t.csv", 42, 1)], "{}", shown(&found));
}

#[test]
fn rows_of_a_unique_table_do_not_meet() {
    let head = HEAD.replace("file:", "hit: unique\nfile:");
    let of = |csv: &str| findings(&asking(&head), &[("t.csv", csv)], &options());
    let found = of("n,risk,next,why\n<= 3,-,a,\n>= 3,-,b,\nnull,-,b,\n");
    assert_eq!(places(&found), [(Rule::BadTable, "t.csv", 3, 1)], "{}", shown(&found));
    let found = of("n,risk,next,why\n<= 3,-,a,\n> 3,-,b,\nnull,-,b,\n");
    assert_eq!(places(&found), [], "{}", shown(&found));
}

#[test]
fn a_table_has_rows_of_one_place() {
    for (declared, rule) in [
        ("inputs: {n: number}\noutputs: {x: text}", Rule::MissingKey),
        ("file: ./t.csv\nrows: []\ninputs: {n: number}\noutputs: {x: text}", Rule::BadTable),
        ("file: ./t.csv\noutputs: {x: text}", Rule::MissingKey),
        ("file: ./none.csv\ninputs: {n: number}\noutputs: {x: text}", Rule::FileMissing),
        ("file: /etc/passwd\ninputs: {n: number}\noutputs: {x: text}", Rule::BadPath),
        ("rows: [{n: 1, x: a}]\ninputs: {n: decimal}\noutputs: {x: text}", Rule::WrongType),
        ("rows: [{n: 1, n2: a}]\ninputs: {n: number}\noutputs: {n: text}", Rule::BadTable),
        ("rows: [{n: [1], x: a}]\ninputs: {n: number}\noutputs: {x: text}", Rule::BadTable),
        ("rows: [{id: 1, x: a}]\ninputs: {id: number}\noutputs: {x: text}", Rule::BadTable),
        ("rows: [{n: 1, x: a, y: b}]\ninputs: {n: number}\noutputs: {x: state, y: state}", Rule::BadTable),
    ] {
        let found = findings(&asking(declared), &[("t.csv", "n,x\n")], &bare());
        assert!(found.iter().any(|d| d.code == rule), "{declared}: {}", shown(&found));
        assert!(load_with(&asking(declared), &[("t.csv", "n,x\n")], &bare()).is_err(), "{declared}");
    }
    let big = format!("n,risk,next,why\n{}", "1,low,a,\n".repeat(600_000));
    let found = of(&big);
    assert_eq!(found[0].code, Rule::TooLarge, "more bytes than a document may have");
    let long = format!("n,risk,next,why\n{}", "1,low,a,\n".repeat(1_001));
    assert_eq!(of(&long)[0].code, Rule::TooLarge, "more rows than a table may have");
}

#[test]
fn states_have_the_ways_that_their_table_names() {
    let data = "settings:\n  tables:\n    t: {rows: [{n: 1, next: b}, {next: a}], inputs: {n: number}, outputs: {next: state}}\n    \
                idle: {rows: [{n: 1, x: b}, {x: a}], inputs: {n: number}, outputs: {x: text}}\n\
                states:\n  s: {type: initial, action: t, transitions: [{to: a}]}\n  a: {type: final}\n  b: {type: final}";
    let found = findings(&machine(data), &[], &options());
    let codes: Vec<Rule> = found.iter().map(|d| d.code).collect();
    assert!(codes.contains(&Rule::UnknownState), "{}", shown(&found));
    assert!(codes.contains(&Rule::NoEffect), "nobody asks `idle`: {}", shown(&found));
    let named_like_a_tool = asking(HEAD).replace("  t:\n", "  lookup:\n").replace("action: t", "action: lookup");
    let found = findings(&named_like_a_tool, &[("t.csv", ROWS)], &options());
    assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), [Rule::DuplicateName], "{}", shown(&found));
    let hooked = asking(HEAD).replace("action: t\n", "action: t\n      hooks: h\n");
    let found = findings(&hooked, &[("t.csv", ROWS)], &options());
    assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), [Rule::NoEffect], "{}", shown(&found));
    let called = asking(HEAD).replace("action: t\n", "action: t\n      arguments: {n: 1}\n");
    let found = findings(&called, &[("t.csv", ROWS)], &options());
    assert_eq!(found.iter().map(|d| d.code).collect::<Vec<_>>(), [Rule::WrongValue], "{}", shown(&found));
}
