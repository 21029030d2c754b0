//! How sets of labels behave: nothing is lost but by what says so.

use proptest::prelude::*;

use super::*;

fn source(name: &str) -> Source {
    Source { kind: SourceKind::Tool, name: name.into(), step: 1 }
}

fn keys(text: &str) -> Vec<Name> {
    text.split('.').filter(|part| !part.is_empty()).map(Name::from).collect()
}

fn marks(list: &[(&str, Label)]) -> Marks {
    let mut marks = Marks::default();
    for (path, label) in list {
        marks.add(keys(path), *label, source("t"));
    }
    marks
}

fn words(marks: &Marks) -> Vec<String> {
    marks.iter().map(|(path, label, _)| format!("{}:{}", path.join("."), label.as_str())).collect()
}

#[test]
fn a_part_has_the_labels_of_what_is_around_and_within_it() {
    let marks = marks(&[("a", Label::Untrusted), ("b.c", Label::Secret)]);
    let at = |path: &str| set_of(&marks.at(&keys(path))).iter().map(Label::as_str).collect::<Vec<_>>();
    assert_eq!(at("a.x.y"), ["untrusted"]);
    assert_eq!(at("b"), ["secret"]);
    assert_eq!(at("b.d"), Vec::<&str>::new());
    assert_eq!(at(""), ["untrusted", "secret"]);
    assert_eq!(words(&marks.below(&keys("b"))), ["c:secret"]);
    assert_eq!(words(&marks.below(&keys("a.deep"))), [":untrusted"]);
    assert_eq!(words(&marks.clone().within(&keys("x"))), ["x.a:untrusted", "x.b.c:secret"]);
}

#[test]
fn what_is_around_makes_what_is_within_needless() {
    let mut marks = marks(&[("a.b", Label::Secret), ("a.c", Label::Untrusted)]);
    marks.add(keys("a"), Label::Secret, source("u"));
    marks.add(keys("a.d"), Label::Secret, source("v"));
    assert_eq!(words(&marks), ["a:secret", "a.c:untrusted"]);
}

#[test]
fn many_keys_are_labelled_without_looking_at_each_for_each() {
    let mut all = Marks::default();
    for number in 0..40_000 {
        all.join(Marks::whole(Tags::from([(Label::Untrusted, source("t"))])).within(&keys(&format!("k{number}"))));
    }
    assert_eq!(all.len(), 40_000);
    all.add(Vec::new(), Label::Secret, source("u"));
    assert_eq!(all.len(), 40_001, "another label leaves them as they are");
    all.add(Vec::new(), Label::Untrusted, source("u"));
    assert_eq!(all.len(), 2);
}

#[test]
fn a_declassified_part_is_free_and_its_neighbours_are_not() {
    let value = Value::object([
        ("verdict", Value::str("spam")),
        ("mail", Value::object([("id", Value::Int(1)), ("text", Value::str("x"))])),
    ]);
    let whole = Marks::whole(Tags::from([(Label::Untrusted, source("t"))]));
    let free = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| keys(path)).collect();
        words(&whole.clone().freed(&value, &paths))
    };
    assert_eq!(free(&["verdict"]), ["mail:untrusted"]);
    assert_eq!(free(&["mail.id"]), ["mail.text:untrusted", "verdict:untrusted"]);
    assert_eq!(free(&[""]), Vec::<String>::new());
    assert_eq!(free(&["nothing"]), ["mail:untrusted", "verdict:untrusted"]);
    let inner = marks(&[("mail.text", Label::Secret), ("verdict", Label::Untrusted)]);
    assert_eq!(words(&inner.freed(&value, &[keys("verdict"), keys("mail.id")])), ["mail.text:secret"]);
}

#[test]
fn pointers_are_paths() {
    assert_eq!(pointer(""), Some(Vec::new()));
    assert_eq!(pointer("/a~1b/~0c"), Some(vec!["a/b".into(), "~c".into()]));
    assert_eq!(pointer("a"), None);
    assert_eq!((pointer("/a~2"), pointer("/a~")), (None, None));
}

#[test]
fn answers_have_the_labels_that_contracts_say() {
    let answer = Value::object([("token", Value::str("t")), ("name", Value::str("n"))]);
    let sent = || Tags::from([(Label::Secret, source("before"))]);
    let of = |flow: Flow, sent: Tags| words(&of_answer(&flow, &flow.declassified, &answer, &source("t"), sent));
    assert_eq!(of(Flow::default(), Tags::new()), [":untrusted"]);
    assert_eq!(of(Flow { trusted: true, ..Flow::default() }, Tags::new()), Vec::<String>::new());
    assert_eq!(of(Flow { trusted: true, ..Flow::default() }, sent()), [":secret"]);
    let secret = Flow { trusted: true, secret: vec![keys("token"), keys("absent")], ..Flow::default() };
    assert_eq!(of(secret, Tags::new()), ["token:secret"]);
    let free = Flow { declassified: vec![keys("name")], ..Flow::default() };
    assert_eq!(of(free, sent()), ["token:untrusted", "token:secret"]);
}

#[test]
fn what_was_cut_of_an_answer_with_secrets_is_secret() {
    let cut = cut_answer(1_000, "{\"token\":\"sk-1\",");
    let of = |flow: Flow| words(&of_answer(&flow, &flow.declassified, &cut, &source("t"), Tags::new()));
    let secret = Flow { trusted: true, secret: vec![keys("token")], ..Flow::default() };
    assert_eq!(of(secret), [":secret"]);
    assert_eq!(of(Flow { declassified: vec![keys("text")], ..Flow::default() }), [":untrusted"]);
    assert_eq!(of(Flow { trusted: true, ..Flow::default() }), Vec::<String>::new());
}

#[test]
fn hooks_name_what_is_secret_of_their_answers() {
    let said = |text: &str| said_secret(&Value::from_json(text).expect("JSON"));
    assert_eq!(said(r#"{"secret": ["/output/a~1b"]}"#), [vec![Name::from("output"), Name::from("a/b")]]);
    assert_eq!(said(r#"{"secret": ["output"]}"#), [Vec::<Name>::new()], "no pointer: all of it");
    assert!(said(r#"{"secret": "x"}"#).is_empty() && said("{}").is_empty());
}

#[test]
fn stored_forms_read_back() {
    let labels = Labels { kept: true, marks: marks(&[("context.a", Label::Secret), ("input", Label::Untrusted)]) };
    let text = serde_json::to_string(&labels).expect("stored");
    assert_eq!(serde_json::from_str::<Labels>(&text).expect("read"), labels, "{text}");
    let set: LabelSet = [Label::Secret].into_iter().collect();
    assert_eq!(serde_json::to_string(&set).expect("stored"), r#"["secret"]"#);
}

fn a_path() -> impl Strategy<Value = Vec<Name>> {
    let part = proptest::sample::select(vec!["context", "a", "b", "c", "long"]).prop_map(|part| match part {
        "long" => Name::from("l".repeat(150)),
        part => Name::from(part),
    });
    proptest::collection::vec(part, 1..5)
}

fn some_marks() -> impl Strategy<Value = Marks> {
    let label = proptest::sample::select(Label::ALL.to_vec());
    proptest::collection::vec((a_path(), label), 0..6).prop_map(|list| {
        let mut marks = Marks::default();
        list.into_iter().for_each(|(path, label)| marks.add(path, label, source("t")));
        marks
    })
}

proptest! {
    #[test]
    fn prop_a_label_goes_only_where_its_path_was_written(
        changes in proptest::collection::vec((proptest::collection::vec(a_path(), 0..3), some_marks()), 1..20),
        looked_at in a_path(),
    ) {
        let mut labels = Labels::default();
        for (cleared, marks) in changes {
            let changed = labels.changed(&cleared, &marks);
            let (before, after) = (set_of(&labels.marks.at(&looked_at)), set_of(&changed.marks.at(&looked_at)));
            let written = cleared.iter().any(|path| is_within(&looked_at, path) || is_within(path, &looked_at));
            prop_assert!(written || after.covers(before), "{:?} lost a label", looked_at);
            prop_assert!(after.covers(set_of(&marks.at(&looked_at))), "what is added is there");
            labels = changed;
        }
    }

    #[test]
    fn prop_bounds_only_add(count in 200_usize..600, looked_at in 0_usize..600) {
        let mut marks = Marks::default();
        for n in 0..count {
            marks.add(vec!["context".into(), format!("k{n}").into(), "v".into()], Label::Secret, source("t"));
        }
        let bounded = Labels::default().changed(&[], &marks).marks;
        prop_assert!(bounded.len() <= limits::LABELS_MAX);
        let path = vec!["context".into(), format!("k{looked_at}").into(), "v".into()];
        prop_assert!(set_of(&bounded.at(&path)).covers(set_of(&marks.at(&path))));
    }
}

#[test]
fn a_secret_within_a_list_or_a_text_labels_what_it_is_in() {
    let value =
        Value::from_json(r#"{"cards":[{"number":"4711"}],"text":"4711","none":null,"deep":{"a":1}}"#).expect("JSON");
    let reached = |at: &str| reached(&value, &pointer(at).expect("a pointer")).map(<[Name]>::len);
    assert_eq!(reached("/cards/0/number"), Some(1), "the whole list");
    assert_eq!(reached("/text/number"), Some(1), "the whole text");
    assert_eq!(
        (reached("/deep/a"), reached("/deep/b"), reached("/none/x"), reached("")),
        (Some(2), None, None, Some(0))
    );
}

#[test]
fn of_very_many_parts_none_is_told_apart() {
    let map: crate::value::Map = (0..2_000).map(|n| (Name::from(format!("k{n}")), Value::Int(n))).collect();
    let whole = Marks::whole(Tags::from([(Label::Untrusted, source("t"))]));
    let freed = whole.freed(&Value::map(map), &[vec!["k7".into()]]);
    assert_eq!(words(&freed), [":untrusted"]);
}
