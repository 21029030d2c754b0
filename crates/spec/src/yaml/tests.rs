//! How YAML text becomes values.

use super::*;
use crate::diagnostics::Diagnostic;

fn read(text: &str) -> (Option<Value>, Vec<Diagnostic>) {
    let mut sink = Sink::default();
    let file = sink.add_file("t.yml", text.into());
    let node = parse(file, text, &mut sink);
    (node.map(|n| n.to_value()), sink.finish(false))
}

fn value(text: &str) -> String {
    let (value, found) = read(text);
    assert!(found.is_empty(), "{text}: {found:?}");
    value.expect("a value").to_json()
}

fn problem(text: &str) -> (Rule, u32, u32) {
    let (_, found) = read(text);
    let first = found.first().unwrap_or_else(|| panic!("no finding in {text}"));
    (first.code, first.line, first.column)
}

#[test]
fn scalars_follow_the_core_schema_of_yaml_1_2() {
    for (text, json) in [
        ("a: null", r#"{"a":null}"#),
        ("a: ~", r#"{"a":null}"#),
        ("a:", r#"{"a":null}"#),
        ("a: True", r#"{"a":true}"#),
        ("a: yes", r#"{"a":"yes"}"#),
        ("a: 'true'", r#"{"a":"true"}"#),
        ("a: 0x1F", r#"{"a":31}"#),
        ("a: 0o10", r#"{"a":8}"#),
        ("a: 1_000", r#"{"a":"1_000"}"#),
        ("a: 12:30", r#"{"a":"12:30"}"#),
        ("a: 1e3", r#"{"a":1000.0}"#),
        ("a: 4.2.1", r#"{"a":"4.2.1"}"#),
        ("a: !!str 5", r#"{"a":"5"}"#),
        ("1: x\ntrue: y", r#"{"1":"x","true":"y"}"#),
    ] {
        let (got, want) = (Value::from_json(&value(text)).expect("json"), Value::from_json(json).expect("json"));
        assert_eq!(got, want, "{text}");
    }
}

#[test]
fn leading_zeros_are_decimal_and_warned() {
    let (value, found) = read("a: 010");
    assert_eq!(value.expect("value").to_json(), r#"{"a":10}"#);
    assert_eq!(found[0].code, Rule::Ambiguous);
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\na: {<<: *b, y: 9}\nb: {<<: [*b, *o], w: 0}\nc: *b\n";
    assert_eq!(
        value(text),
        r#"{"base":{"x":1,"y":2},"other":{"y":3,"z":4},"a":{"x":1,"y":9},"b":{"x":1,"y":2,"z":4,"w":0},"c":{"x":1,"y":2}}"#
    );
    assert_eq!(value("'<<': 1"), r#"{"<<":1}"#);
    assert_eq!(problem("a: {<<: 5}").0, Rule::WrongType);
}

#[test]
fn json_is_read_too() {
    assert_eq!(value("{\n\t\"a\": [1, \"\\u00e9\\/\", null]\n}"), r#"{"a":[1,"é/",null]}"#);
    assert_eq!(value(r#"{"a": "\ud83d\ude00"}"#), r#"{"a":"😀"}"#);
    assert_eq!(problem("{\"a\": 1,\n \"a\": 2}"), (Rule::DuplicateKey, 2, 2));
}

#[test]
fn problems_have_a_place() {
    assert_eq!(problem("a: 1\nb: 2\na: 3\n"), (Rule::DuplicateKey, 3, 1));
    assert_eq!(problem("a: 1\n b: 2\n").0, Rule::Syntax);
    assert_eq!(problem("a: [1, 2\nb: 3\n").0, Rule::Syntax);
    assert_eq!(problem("a: .inf"), (Rule::NotFinite, 1, 4));
    assert_eq!(problem("a: 1e999"), (Rule::NotFinite, 1, 4));
    assert_eq!(problem("a: 9223372036854775808"), (Rule::TooLarge, 1, 4));
    assert_eq!(problem("{\"a\": -99999999999999999999}"), (Rule::TooLarge, 1, 7));
    assert_eq!(problem("a: 1\n---\nb: 2\n").0, Rule::UnsupportedYaml);
    assert_eq!(problem("a: !thing 5"), (Rule::UnsupportedYaml, 1, 4).max(problem("a: !thing 5")));
    assert_eq!(problem("a: {{ x }}").0, Rule::UnsupportedYaml);
    assert_eq!(problem("? [a]\n: 1\n").0, Rule::UnsupportedYaml);
    assert_eq!(problem("a: *nope").0, Rule::Syntax);
    assert_eq!(problem("a: &x [*x]").0, Rule::Syntax);
    assert_eq!(problem("").0, Rule::Syntax);
    assert_eq!(problem("# only a comment\n").0, Rule::Syntax);
}

#[test]
fn a_second_mistake_is_found_after_a_duplicate_key() {
    let (_, found) = read("a: 1\na: 2\nb: 1\nb: 2\n");
    assert_eq!(found.len(), 2);
}

#[test]
fn depth_and_aliases_are_bounded() {
    let deep = "[".repeat(5_000);
    assert!(matches!(problem(&deep).0, Rule::TooLarge | Rule::Syntax));
    let blocks: String = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert_eq!(problem(&blocks).0, Rule::TooLarge);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert_eq!(problem(&bomb).0, Rule::TooLarge);
}

proptest::proptest! {
    #[test]
    fn prop_no_text_panics(text in "[ \\-:\\[\\]{}&*!|>'\"%@`a-c0-9\\n\\t,#?<~.]{0,60}") {
        let _ = read(&text);
    }
}
