//! What paths lead to, what is found again, and what goes to other runs.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::failure::Failure;
use crate::label::pointer;
use crate::limits;
use crate::redact::REDACTED;

fn paths(pointers: &[&str]) -> Vec<Vec<Name>> {
    pointers.iter().map(|text| pointer(text).expect("a pointer")).collect()
}

fn hidden(json: serde_json::Value, pointers: &[&str]) -> Hidden {
    Hidden::of(&json.into(), &paths(pointers))
}

#[test]
fn paths_lead_to_every_value_that_they_may_mean() {
    let value = json!({
        "card": {"number": "4111111111111111", "cvv": 123, "ok": true, "none": null, "empty": ""},
        "items": [{"iban": "DE02120300000000202051"}, {"iban": "DE02500105170137075030"}],
        "by_name": {"a": {"pin": "1111"}, "b": {"pin": "2222"}},
        "text": "{\"token\": \"t-0123456789\"}",
        "plain": "no JSON at all",
    });
    let count = |pointer: &str| hidden(value.clone(), &[pointer]).leaves.len();
    assert_eq!(count("/card/number"), 1);
    assert_eq!(count("/card"), 3, "everything below, but for what says nothing");
    assert_eq!(count("/items/*/iban"), 2);
    assert_eq!(count("/items/iban"), 2, "a key beside a list counts for each item");
    assert_eq!(count("/items/1/iban"), 1);
    assert_eq!(count("/by_name/*/pin"), 2);
    assert_eq!(count("/text/token"), 1);
    assert_eq!(hidden(value.clone(), &["/text/token"]).veil().shown("is t-0123456789"), format!("is {REDACTED}"));
    assert_eq!(hidden(value.clone(), &["/plain/token"]).veil().shown("no JSON at all!"), format!("{REDACTED}!"));
    assert_eq!(count("/absent/token"), 0);
    assert_eq!(hidden(json!("just a text"), &[""]).leaves.len(), 1);
    let cut = json!({"truncated": true, "bytes": 99, "text": "{\"token\": \"half of a tok"});
    assert_eq!(hidden(cut, &["/token"]).leaves.len(), 1);
}

#[test]
fn a_long_value_is_found_wherever_it_went() {
    let veil = hidden(json!({"token": "tok/en+value\"1"}), &["/token"]).veil();
    for text in [
        "say tok/en+value\"1 again",
        "{\"a\":\"tok/en+value\\\"1\"}",
        "?t=tok%2Fen%2Bvalue%221",
        "746f6b2f656e2b76616c75652231",
        "dG9rL2VuK3ZhbHVlIjE=",
    ] {
        let shown = veil.text(text).expect(text);
        assert!(shown.contains(REDACTED) && !shown.contains("value"), "{shown}");
    }
    assert_eq!(veil.text("nothing"), None);
    let mut json =
        json!({"other": ["x", "tok/en+value\"1"], "tok/en+value\"1": 1, "said": "{\"t\":\"tok/en+value\\\"1\"}"});
    veil.json(&mut json);
    assert_eq!(json["other"], json!(["x", REDACTED]));
    assert_eq!(json[REDACTED], json!(1));
    assert!(!json.to_string().contains("value"), "{json}");
    let lines = hidden(json!({"key": "-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----"}), &["/key"]).veil();
    assert_eq!(lines.shown("failed: -----BEGIN KEY-----"), format!("failed: {REDACTED}"));
}

#[test]
fn a_short_value_is_found_where_it_can_be_told_from_others() {
    let veil = hidden(json!({"pin": "4711", "cvv": 123, "vip": true, "id": 900_001, "a": "b"}), &[""]).veil();
    assert_eq!(veil.shown("pin 4711, order-47110"), format!("pin {REDACTED}, order-47110"));
    let mut json = json!({
        "cvv": 123, "steps": 123, "vip": true, "done": true, "number": 900_001, "a": "b", "c": "b",
        "asked": "{\"cvv\":123,\"n\":123}",
    });
    veil.json(&mut json);
    assert_eq!(
        json,
        json!({
            "cvv": REDACTED, "steps": 123, "vip": REDACTED, "done": true, "number": REDACTED, "a": REDACTED, "c": "b",
            "asked": format!("{{\"cvv\":\"{REDACTED}\",\"n\":123}}"),
        })
    );
}

#[test]
fn what_is_stored_reads_back_and_is_itself_hidden() {
    let found = hidden(json!({"cvv": 123, "list": ["x1", 2.5]}), &["/cvv", "/list"]);
    let text = serde_json::to_string(&found).expect("stored");
    assert_eq!(serde_json::from_str::<Hidden>(&text).expect("read"), found, "{text}");
    let shown = found.veil().document(&json!({ "hidden": found }));
    assert_eq!(shown["hidden"]["leaves"], json!([{"cvv": REDACTED}, {"list": REDACTED}, {"list": REDACTED}]));
    assert!(!format!("{found:?} {:?}", found.veil()).contains("123"));
}

#[test]
fn only_what_another_run_may_hold_goes_there() {
    let found = hidden(json!({"token": "tok-123456", "cvv": 123, "pin": "9876"}), &[""]);
    let into = |json: serde_json::Value| found.within(&json.into()).leaves.len();
    assert_eq!(into(json!({"a": 1})), 0);
    assert_eq!(into(json!({"a": "Bearer tok-123456"})), 1);
    assert_eq!(into(json!({"cvv": 123})), 1);
    assert_eq!(into(json!({"n": 123})), 0);
    let failed = Ending::Failed { failure: Failure::new(Code::ToolFailed, "no: tok-123456, 9876"), state: None };
    assert_eq!(found.within_ending(&failed).leaves.len(), 2);
    assert!(found.clone().beyond(&found).is_empty());
}

#[test]
fn beyond_the_bound_nothing_is_shown() {
    let many: Vec<Value> = (0..=limits::HIDDEN_MAX).map(|n| Value::str(format!("value-{n}"))).collect();
    let mut found = Hidden::default();
    found.join(Hidden::of(&Value::list(many), &paths(&[""])));
    assert_eq!(format!("{found:?}"), "Hidden(0, all)");
    let shown = found.veil().document(&json!({"a": "b", "n": 1, "ok": true}));
    assert_eq!(shown, json!({"a": REDACTED, "n": REDACTED, "ok": true}));
    assert_eq!(found.veil().shown("x"), REDACTED);
    assert!(hidden(json!(["x", "y"]), &[""]).beyond(&found).is_empty());
}

#[test]
fn why_a_tool_failed_is_hidden_where_its_answers_are() {
    let failed = |code: Code| Outcome::Failed(Failure::new(code, "the tool said: tok-123456"));
    let count = |outcome: &Outcome, pointers: &[&str]| Hidden::of_outcome(outcome, &paths(pointers)).leaves.len();
    assert_eq!(count(&failed(Code::ToolFailed), &["/token"]), 1);
    assert_eq!(count(&failed(Code::ToolFailed), &[]), 0);
    assert_eq!(count(&failed(Code::ToolTimeout), &["/token"]), 0);
}

#[test]
fn a_model_does_not_choose_what_a_person_is_not_shown() {
    let paths = paths(&["/card"]);
    let asked: Value =
        json!({"card": {"number": "MALLORY-ACCOUNT-1", "n": 9_999_999}, "to": "MALLORY-ACCOUNT-1", "cents": 9_999_999})
            .into();
    let mut run = Hidden::of_chosen(&asked, &paths);
    run.join(hidden(json!({"pin": "12345678"}), &["/pin"]));
    let question = run.veil_of_questions();
    let shown = question.document(&masked(&asked, &paths));
    assert_eq!(shown, json!({"card": REDACTED, "to": "MALLORY-ACCOUNT-1", "cents": 9_999_999}));
    assert_eq!(question.shown("pin 12345678"), format!("pin {REDACTED}"), "what a tool had answered stays hidden");
    assert_eq!(run.veil().shown("to MALLORY-ACCOUNT-1"), format!("to {REDACTED}"), "everybody else sees none of it");
    let all = Hidden::of_chosen(&Value::list((0..=limits::HIDDEN_MAX as i64).map(Value::Int).collect()), &[vec![]]);
    assert_eq!((all.veil().shown("x"), all.veil_of_questions().shown("x")), (REDACTED.to_owned(), "x".to_owned()));
    let stored = serde_json::to_string(&run).expect("JSON");
    assert_eq!(serde_json::from_str::<Hidden>(&stored).expect("read"), run);
    assert!(run.clone().beyond(&run).is_empty());
    assert!(!run.within(&json!({"x": "MALLORY-ACCOUNT-1"}).into()).is_empty());
    assert!(run.within(&json!({"x": "nothing"}).into()).is_empty());
}

#[test]
fn parts_are_masked_by_their_paths() {
    let value: Value =
        json!({"a": [{"b": 1, "c": 2}, {"b": 3}], "t": "{\"x\": 1}", "n": null, "k": {"p": 1, "q": 2}}).into();
    let shown = |pointers: &[&str]| serde_json::Value::from(&masked(&value, &paths(pointers)));
    let rest = json!({"t": "{\"x\": 1}", "n": null, "k": {"p": 1, "q": 2}});
    let with = |mut changed: serde_json::Value| {
        for (key, inner) in rest.as_object().expect("a mapping") {
            changed.as_object_mut().expect("a mapping").entry(key.clone()).or_insert(inner.clone());
        }
        changed
    };
    let each = with(json!({"a": [{"b": REDACTED, "c": 2}, {"b": REDACTED}]}));
    assert_eq!((shown(&["/a/*/b"]), shown(&["/a/b"])), (each.clone(), each));
    assert_eq!(shown(&["/a/1"]), with(json!({"a": [{"b": 1, "c": 2}, REDACTED]})));
    assert_eq!(shown(&["/t/x", "/n"])["t"], REDACTED);
    assert_eq!(shown(&["/n"])["n"], json!(null));
    assert_eq!(shown(&["/k/*"])["k"], json!({"p": REDACTED, "q": REDACTED}));
    assert_eq!(shown(&[""]), json!(REDACTED));
}

#[test]
fn a_text_is_found_without_the_blanks_around_it() {
    let veil = hidden(json!({"code": "482913\n", "word": " hunter2\n"}), &["/code", "/word"]).veil();
    assert_eq!(veil.shown("use 482913 and hunter2."), format!("use {REDACTED} and {REDACTED}."));
    assert_eq!(veil.document(&json!({"word": " hunter2\n"})), json!({"word": REDACTED}));
}

#[test]
fn what_a_hook_says_is_hidden_within_the_bounds() {
    let mut known = hidden(json!({"token": "tok-123456", "cvv": 123}), &[""]);
    known.join(Hidden::of_chosen(&json!({"to": "mallory-1"}).into(), &paths(&["/to"])));
    let answer = Value::object([("output", Value::Null), (SAID, known.said())]);
    assert_eq!(Hidden::said_by(&answer), known);
    let said = |json: serde_json::Value| Hidden::said_by(&Value::from(json));
    for nothing in [json!({}), json!({"hidden": true}), json!({"hidden": {"leaves": 1}}), json!({"hidden": {"x": 1}})] {
        assert!(said(nothing).is_empty());
    }
    let many: Vec<_> = (0..=limits::HIDDEN_MAX).map(|n| json!({"k": n})).collect();
    assert_eq!(format!("{:?}", said(json!({"hidden": {"leaves": many}}))), "Hidden(0, all)");
}

#[test]
fn values_that_stand_over_one_another_are_all_hidden() {
    let veil = hidden(json!({"a": "abcdefgh", "b": "efghijklm", "c": "12341234", "d": "4711"}), &[""]).veil();
    assert_eq!(veil.shown("-abcdefghijklm-"), format!("-{REDACTED}-"));
    assert_eq!(veil.shown("1234123412341234"), REDACTED);
    assert_eq!(veil.shown("abcdefgh4711 4711x"), format!("{REDACTED}{REDACTED} 4711x"), "a word beside what is hidden");
    let nested = hidden(json!({"a": "token-of-anna", "b": "say token-of-anna twice"}), &[""]).veil();
    assert_eq!(nested.shown("say token-of-anna twice, token-of-anna"), format!("{REDACTED}, {REDACTED}"));
}

#[test]
fn the_beginning_of_a_value_is_hidden_where_a_text_was_cut() {
    let veil = hidden(json!({"token": "tok-0123456789-abcdef"}), &["/token"]).veil();
    assert_eq!(veil.shown("said tok-01234… (9 bytes in all)"), format!("said {REDACTED}… (9 bytes in all)"));
    assert_eq!(veil.text("said tok-012… and more"), None, "seven bytes may be an accident");
    assert_eq!(veil.text("said tok-0123456 and more"), None);
}

#[test]
fn a_number_is_found_in_every_spelling() {
    let value = json!({"big": 1e22, "small": 1e-7, "whole": 1_234_567.0, "cents": 9_876_543, "one": 1.0});
    let veil = hidden(value, &[""]).veil();
    for text in [
        "1e22",
        "1e+22",
        "10000000000000000000000",
        "10000000000000000000000.0",
        "1e-7",
        "1e-07",
        "0.0000001",
        "1234567.0",
        "1234567",
        "9876543",
        "9876543.0",
    ] {
        let shown = veil.shown(&format!("is {text}, so"));
        assert!(shown.starts_with(&format!("is {REDACTED}")), "{text}: {shown}");
    }
    let mut shown = json!({
        "a": 1e22, "b": [1e-7], "c": 1_234_567, "d": 1_234_567.0, "e": 9_876_543.0, "text": "{\"n\":1e22}",
        "one": 1, "two": 1.0, "three": 1,
    });
    veil.json(&mut shown);
    assert_eq!(
        shown,
        json!({
            "a": REDACTED, "b": [REDACTED], "c": REDACTED, "d": REDACTED, "e": REDACTED,
            "text": format!("{{\"n\":\"{REDACTED}\"}}"), "one": REDACTED, "two": 1.0, "three": 1,
        })
    );
    let text = hidden(json!({"n": "12345678"}), &["/n"]).veil();
    assert_eq!(text.document(&json!([12_345_678, 12_345_678.0, 1_234_567])), json!([REDACTED, REDACTED, 1_234_567]));
}

#[test]
fn a_run_that_reached_the_bound_says_so_in_its_journal() {
    let many = |from: usize, to: usize| {
        let values = (from..to).map(|n| Value::str(format!("value-{n}"))).collect();
        Hidden::of(&Value::list(values), &paths(&[""]))
    };
    let known = many(0, limits::HIDDEN_MAX - 1);
    let last = many(limits::HIDDEN_MAX - 1, limits::HIDDEN_MAX);
    assert_eq!(last.clone().beside(&known), last);
    let over = many(limits::HIDDEN_MAX, limits::HIDDEN_MAX + 2).beyond(&known).beside(&known);
    assert_eq!(serde_json::to_value(&over).expect("JSON"), json!({"all": true}));
    let chosen = |found: Hidden| Hidden { chosen: Some(Box::new(found)), ..Hidden::default() };
    let over = chosen(many(limits::HIDDEN_MAX, limits::HIDDEN_MAX + 2)).beside(&chosen(known));
    assert_eq!(serde_json::to_value(&over).expect("JSON"), json!({"chosen": {"all": true}}));
}

#[test]
fn values_with_one_beginning_are_told_apart() {
    let common = "-----the-same-thirty-two-bytes--";
    let found = hidden(json!([common, format!("{common}ab"), format!("{common}abc"), format!("{common}b")]), &[""]);
    let into = |text: String| found.within_text(&text).leaves.list().len();
    assert_eq!(into(format!("x{common}")), 1);
    assert_eq!(into(format!("x{common}abx")), 2);
    assert_eq!(into(format!("x{common}abcd")), 3);
    assert_eq!(into(format!("x{common}b and {common}abc")), 4);
    assert_eq!(into(common[..31].to_owned()), 0);
    assert_eq!(found.veil().shown(&format!("x{common}abcd")), format!("x{REDACTED}d"));
}

/// What a plain search says, needle by needle.
fn plainly(leaves: &[Leaf], text: &str) -> (Vec<bool>, Vec<usize>) {
    let mut covered = vec![false; text.len()];
    let mut held = Vec::new();
    let mut words = Vec::new();
    for (at, leaf) in leaves.iter().enumerate() {
        let (mut sure, mut short, mut key) = (false, false, false);
        for (needle, role) in needles::Needles::of(leaf).texts {
            for from in (0..text.len()).filter(|from| text.as_bytes()[*from..].starts_with(needle.as_bytes())) {
                match role {
                    needles::Role::Anywhere => covered[from..from + needle.len()].fill(true),
                    needles::Role::Word => words.push(from..from + needle.len()),
                    needles::Role::Held | needles::Role::Short | needles::Role::Key => {}
                }
                match role {
                    needles::Role::Short => short = true,
                    needles::Role::Key => key = true,
                    needles::Role::Anywhere | needles::Role::Word | needles::Role::Held => sure = true,
                }
            }
        }
        if sure || (short && key) {
            held.push(at);
        }
    }
    let found = covered.clone();
    for word in words {
        let before = text[..word.start].chars().next_back();
        let after = text[word.end..].chars().next();
        let is_open = |c: Option<char>, at: usize| c.is_some_and(char::is_alphanumeric) && !found[at];
        if !is_open(before, word.start.wrapping_sub(1)) && !is_open(after, word.end) {
            covered[word].fill(true);
        }
    }
    (covered, held)
}

/// A text that may hold others: of few letters, so that it does by accident, also beyond what the automaton knows.
fn a_text(long: usize) -> impl Strategy<Value = String> {
    let letter = proptest::sample::select(vec!["a", "b", "a", "1", " ", "\"", "é", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"]);
    proptest::collection::vec(letter, 1..long).prop_map(|parts| parts.concat())
}

fn some_leaves() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let value = prop_oneof![
        6 => a_text(14).prop_map(Value::from),
        1 => (0..2_000_000_i64).prop_map(Value::Int),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => (-1e9..1e9_f64).prop_map(Value::Float),
    ];
    let leaf = (proptest::sample::select(vec!["", "k", "\"q"]), value);
    proptest::collection::vec(leaf, 1..12)
}

proptest! {
    #[test]
    fn what_is_found_at_once_is_what_a_plain_search_finds(
        leaves in some_leaves(),
        noise in proptest::collection::vec((a_text(8), any::<proptest::sample::Index>(), any::<bool>()), 0..6),
    ) {
        let leaves: Vec<Leaf> =
            leaves.into_iter().map(|(key, value)| Leaf { key: key.into(), value }).collect();
        let mut text = String::new();
        for (between, leaf, is_json) in noise {
            let Leaf { key, value } = leaf.get(&leaves);
            text.push_str(&between);
            text.push_str(&if is_json { json!({(&**key): value}).to_string() } else { value.as_str().map_or_else(|| value.to_json(), str::to_owned) });
        }
        // One by one, with a look in between: what searches is made in parts.
        let mut grown = Hidden::default();
        for leaf in &leaves {
            if !leaf.value.as_str().is_some_and(|text| text.trim().is_empty()) {
                grown.add(leaf.clone());
                let _ = grown.veil().text(&text);
            }
        }
        let list = grown.leaves.list().to_vec();
        let (covered, held) = plainly(&list, &text);
        let expected: Vec<Leaf> = held.iter().map(|at| list[*at].clone()).collect();
        prop_assert!(grown.within_text(&text).leaves.list() == &*expected);
        let whole = Hidden { leaves: list.into(), ..Hidden::default() };
        prop_assert!(whole.within_text(&text).leaves.list() == &*expected);
        let shown = grown.veil().shown(&text);
        prop_assert_eq!(&shown, &whole.veil().shown(&text));
        let open = |covered: &[bool]| text.char_indices().filter(|(at, _)| !covered[*at]).map(|(_, c)| c).collect::<String>();
        prop_assert_eq!(shown.replace(REDACTED, ""), open(&covered));
    }
}
