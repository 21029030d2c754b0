//! Schemas and regular expressions.

use windlass_core::eval::Evaluator;
use windlass_core::failure::Code;
use windlass_core::value::Value;

use super::super::{Engine, check_pattern, check_schema};

fn json(text: &str) -> Value {
    Value::from_json(text).expect("valid JSON")
}

fn fit(schema: &str, value: &str) -> Result<String, Vec<String>> {
    Engine::default().fit(&json(schema), &json(value)).map(|value| value.to_json())
}

#[test]
fn values_that_fit_come_back_with_numbers_made_of_text() {
    let person = r#"{"type":"object","properties":{"age":{"type":"integer"},"height":{"type":"number"},
        "ok":{"type":"boolean"},"name":{"type":"string"},"either":{"type":["string","number"]},
        "list":{"type":"array","items":{"type":"number"}}},"required":["age"]}"#;
    for (value, expected) in [
        (r#"{"age":3}"#, r#"{"age":3}"#),
        (r#"{"z":1,"age":"3","name":"3","either":"3"}"#, r#"{"z":1,"age":3,"name":"3","either":"3"}"#),
        (r#"{"age":"3.0","height":" 1.5 ","ok":"True"}"#, r#"{"age":3,"height":1.5,"ok":true}"#),
        (r#"{"age":-1,"list":["1",2,"2.5"]}"#, r#"{"age":-1,"list":[1,2,2.5]}"#),
    ] {
        assert_eq!(fit(person, value).expect(value), expected);
    }
    assert_eq!(fit(r#"{"type":"integer"}"#, r#""42""#).expect("fits"), "42");
    assert_eq!(fit("true", "[1]").expect("fits"), "[1]");
}

#[test]
fn misfits_are_sentences_with_the_place() {
    let schema = r#"{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"integer","minimum":1}}}},
        "required":["a"],"additionalProperties":false}"#;
    for (value, sentence) in [
        (r#"{"a":{"b":"x"}}"#, "at `/a/b`"),
        (r#"{"a":{"b":"0"}}"#, "at `/a/b`"),
        (r#"{"a":{"b":1.5}}"#, "at `/a/b`"),
        ("{}", "\"a\""),
        (r#"{"a":{},"c":1}"#, "c"),
        ("[]", "object"),
    ] {
        let errors = fit(schema, value).expect_err(value);
        assert!(errors.iter().any(|error| error.contains(sentence)), "{value}: {errors:?}");
        assert!(errors.iter().all(|error| error.len() < 200 && !error.contains('\n')), "{errors:?}");
    }
    let many = fit(r#"{"items":{"type":"object"}}"#, &format!("[{}]", vec!["1"; 500].join(","))).expect_err("misfits");
    assert!(many.len() <= 21);
}

#[test]
fn schemas_that_cannot_be_used_are_refused() {
    for (schema, what) in [
        (r#"{"type":"nonsense"}"#, "not valid"),
        (r#"{"$ref":"https://example.com/schema.json"}"#, "nothing is fetched"),
        (r#"{"$ref":"file:///etc/passwd"}"#, "nothing is fetched"),
        (r##"{"$ref":"#"}"##, "refers to itself"),
        (r##"{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}}"##, "refers to itself"),
        (r##"{"$ref":"#/nope"}"##, "points at nothing"),
        (r##"{"$dynamicRef":"#x"}"##, "not available"),
        (r#"{"pattern":"("}"#, "not valid"),
        (r#"{"pattern":"(?:(?:a{1000}){1000}){1000}"}"#, "not valid"),
    ] {
        let failure = check_schema(&json(schema)).expect_err(schema);
        assert_eq!(failure.code, Code::SpecInvalid);
        assert!(failure.message.contains(what), "{schema}: {failure}");
    }
}

#[test]
fn branching_that_multiplies_is_bounded() {
    // Thirty levels of two branches each would be a billion checks of one place.
    let mut definitions = String::from(r#""d0":{"properties":{"x":{"type":"string"}}}"#);
    for i in 1..30 {
        let below = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, i - 1);
        definitions.push_str(&format!(r#","d{i}":{{"anyOf":[{below},{below}]}}"#));
    }
    let wide = format!(r##"{{"$ref":"#/$defs/d29","$defs":{{{definitions}}}}}"##);
    assert!(check_schema(&json(&wide)).expect_err("too wide").message.contains("subschemas"));

    let deep = r##"{"anyOf":[{"properties":{"x":{"$ref":"#"}}},{"properties":{"x":{"$ref":"#"}}},{"properties":{"x":{"$ref":"#"}}}]}"##;
    assert!(fit(deep, r#"{"x":{"x":{}}}"#).is_ok());
    let nested = format!("{}{}", r#"{"x":"#.repeat(60) + "1", "}".repeat(60));
    let errors = fit(deep, &nested).expect_err("too deep");
    assert!(errors[0].contains("too deep"), "{errors:?}");

    let tree = r##"{"type":"object","properties":{"c":{"type":"array","items":{"$ref":"#"}}}}"##;
    let nested = format!("{}{}", r#"{"c":["#.repeat(40), "]}".repeat(40));
    assert!(fit(tree, &nested).is_ok());
}

#[test]
fn patterns_capture_the_first_group() {
    let capture = |pattern, text| Engine::default().capture(pattern, text);
    assert_eq!(capture(r"move = (\d+)", "x\nmove = 42"), Ok(Some("42".to_owned())));
    assert_eq!(capture("a(.*)b", "a1\n2b"), Ok(Some("1\n2".to_owned())));
    assert_eq!(capture("a.b", "xa\nb"), Ok(Some("a\nb".to_owned())));
    assert_eq!(capture("(x)?y", "y"), Ok(None));
    assert_eq!(capture("z", "y"), Ok(None));
    assert_eq!(capture("(", "y").expect_err("malformed").code, Code::TemplateSyntax);
    assert!(check_pattern("(?:(?:a{1000}){1000}){1000}").is_err());
    assert!(check_pattern(&"a".repeat(10_000)).is_err());
    let text = "a".repeat(100_000) + "!";
    assert_eq!(capture("^(a+)+$", &text), Ok(None));
}
