//! Conditions of both languages: tables of sources with their answers.

use windlass_core::failure::Code;
use windlass_core::machine::Engine as Language;
use windlass_core::value::Value;

use super::super::check_condition;
use super::{answer, holds};

const SIMPLE: &[(&str, &str)] = &[
    ("context.i == 3", "yes"),
    ("  context.i == 3\n", "yes"),
    ("input.i == 3", "yes"),
    ("output.content == 'done'", "yes"),
    ("", "yes"),
    (" \n ", "yes"),
    ("context.i", "yes"),
    ("context.e", "no"),
    ("context.n", "no"),
    ("context.el", "no"),
    ("context.ed", "no"),
    ("context.z", "no"),
    ("context.f == 1", "yes"),
    ("context.t == 1", "yes"),
    ("context.i == 3.0", "yes"),
    ("context.neg == -2", "yes"),
    ("context.neg < -1.5", "yes"),
    ("-context.neg == 2", "yes"),
    ("- - 2 == 2", "yes"),
    ("context.l[-1] == 1.5", "yes"),
    ("context.num == 42", "yes"),
    ("context.num == '42'", "yes"),
    ("context.num > 5", "yes"),
    ("context.num > '5'", "no"),
    ("'9' >= '10'", "yes"),
    ("9 >= '10'", "no"),
    ("context.i >= '3'", "yes"),
    ("context.t == 'True' and context.fa == 'false'", "yes"),
    ("context.n == 'None' and context.n == 'null'", "yes"),
    ("context.n == ''", "no"),
    ("context.t == '1'", "no"),
    ("1 == '1.0' and '1e0' == 1", "yes"),
    ("context.z == ''", "no"),
    ("context.s > 'sta'", "yes"),
    ("context.n == null and context.n == None", "yes"),
    ("context.nope == null", "yes"),
    ("context.nope.x.y == null", "yes"),
    ("context.s.nope == null", "yes"),
    ("context.d.k == 'v'", "yes"),
    ("context['d']['k']", "yes"),
    ("context.rows[1].b == 'y'", "yes"),
    ("context.l == context.l", "yes"),
    ("context.d == context.d", "yes"),
    ("context.i + 1 == 4", "yes"),
    ("2 + 3 * 2 == 8", "yes"),
    ("(2 + 3) * 2 == 10", "yes"),
    ("7 / 2 == 3.5", "yes"),
    ("8 - 2 - 3 == 3", "yes"),
    ("context.s + 'x' == 'strx'", "yes"),
    ("1 < 2 < 3", "yes"),
    ("1 < 2 > 3", "no"),
    ("context.t and context.fa or context.i", "yes"),
    ("not context.fa == true", "yes"),
    ("not not context.t", "yes"),
    ("not not not context.t", "no"),
    ("true or context.d['nope']", "yes"),
    ("context.i == 3 # three", "yes"),
    ("0x10 == 16 and 1_000 == 1000 and 1e3 == 1000 and .5 == 0.5", "yes"),
    ("'a' \"b\" == 'ab'", "yes"),
    (r"'\u00e9\n' == 'é\n'", "yes"),
    (r"r'\n' == '\\n'", "yes"),
    ("context.d['nope']", "condition.type"),
    ("context.l[99]", "condition.type"),
    ("context.n[0]", "condition.type"),
    ("context.s < 1", "condition.type"),
    ("context.n >= 1", "condition.type"),
    ("context.l > 1", "condition.type"),
    ("context.s + 1", "condition.type"),
    ("context.i / 0", "condition.type"),
    ("-context.s", "condition.type"),
    ("len(context.l) > 0", "condition.syntax"),
    ("context.i === 3", "condition.syntax"),
    ("context.i = 3", "condition.syntax"),
    ("context.i && context.t", "condition.syntax"),
    ("!context.i", "condition.syntax"),
    ("context.i in [1]", "condition.syntax"),
    ("context.i ==", "condition.syntax"),
    ("(context.i", "condition.syntax"),
    ("context.i context.i", "condition.syntax"),
    ("'open", "condition.syntax"),
    ("unknown.x", "condition.syntax"),
    ("{{ context.i }}", "condition.syntax"),
    ("007 == 7", "condition.syntax"),
    ("f'x'", "condition.syntax"),
];

const CEL: &[(&str, &str)] = &[
    ("context.i > 2", "yes"),
    ("context['i'] > 2 && input.i > 2", "yes"),
    ("context.d.k == 'v' && context['d']['k'] == 'v'", "yes"),
    ("size(context.l) == 5 && context.s.size() == 3", "yes"),
    ("context.rows.all(r, r.a > 0)", "yes"),
    ("context.rows.exists(r, r.b == 'y')", "yes"),
    ("context.rows.exists_one(r, r.b == 'y')", "yes"),
    ("context.rows.filter(r, r.a > 1).size() == 2", "yes"),
    ("context.rows.map(r, r.a) == [1, 2, 3]", "yes"),
    ("context.rows.map(r, r.a > 1, r.b) == ['y', 'x']", "yes"),
    ("context.d.map(k, k) == ['k', 'é', 'n']", "yes"),
    ("context.s.contains('t') && context.s.startsWith('s') && context.s.endsWith('r')", "yes"),
    ("context.s.matches('^s.r$') && matches(context.s, 't')", "yes"),
    ("'a\\nb'.matches('a.b')", "no"),
    ("context.num == '42' && int(context.num) == 42", "yes"),
    ("context.num == 42", "no"),
    ("context.n == null", "yes"),
    ("has(context.i) && !has(context.nope)", "yes"),
    ("'i' in context && !('x' in context)", "yes"),
    ("context.i in [1, 3]", "yes"),
    ("context.t && context.fa", "no"),
    ("context.t || context.fa", "yes"),
    ("!context.fa", "yes"),
    ("context.i > 2 ? context.t : context.fa", "yes"),
    ("timestamp('2024-01-01T00:00:00Z') < timestamp('2024-01-02T00:00:00Z')", "yes"),
    ("timestamp('2024-02-01T00:00:00Z').getMonth() == 1", "yes"),
    ("timestamp('2024-01-01T00:00:00Z') + duration('36h') == timestamp('2024-01-02T12:00:00Z')", "yes"),
    ("duration('90m') > duration('1h') && duration('1.5s') == duration('1500ms')", "yes"),
    ("string(duration('1h30m')) == '5400s'", "yes"),
    ("context.l[0] == 1 && context.l[4] == 1.5", "yes"),
    ("context.s + 'x' == 'strx'", "yes"),
    ("[1, 2] + [3] == [1, 2, 3]", "yes"),
    ("string(context.i) == '3' && string(1.0) == '1' && double('1.5') == 1.5", "yes"),
    ("context.neg < 0 && context.neg == -2", "yes"),
    ("context.fl >= 2.5 && context.f == 1 && 1 < 1.5", "yes"),
    ("7 / 2 == 3 && -7 / 2 == -3 && -7 % 3 == -1", "yes"),
    ("type(context.i) == int && type(context.f) == double && type(context.s) != int", "yes"),
    ("{'a': [1]}.a[0] == 1", "yes"),
    ("context.l.exists(x, x > 1)", "yes"),
    ("context.nope.x == 1 || true", "yes"),
    ("true || context.nope.x == 1", "yes"),
    ("context.nope.x == 1 && false", "no"),
    ("context.s", "yes"),
    ("context.e", "no"),
    ("", "yes"),
    ("true == 1", "no"),
    ("context.rows.all(r, context.rows.exists(q, q.a == r.a))", "yes"),
    ("context.nope == 1", "condition.type"),
    ("context.s > 1", "condition.type"),
    ("context.i + 1.0 > 2.0", "condition.type"),
    ("context.l[9]", "condition.type"),
    ("context.s.x == 1", "condition.type"),
    ("context.s && true", "condition.type"),
    ("1 / 0 == 1", "condition.type"),
    ("9223372036854775807 + 1 > 0", "condition.type"),
    ("int('x') == 1", "condition.type"),
    ("'a'.matches('(')", "condition.type"),
    ("[duration('1s')] == []", "condition.type"),
    ("now() > timestamp('2024-01-01T00:00:00Z')", "condition.syntax"),
    ("now > 1", "condition.syntax"),
    ("unknown.x", "condition.syntax"),
    ("context.i >", "condition.syntax"),
    ("context.i = 1", "condition.syntax"),
    ("len(context.l)", "condition.syntax"),
    ("1u == 1u", "condition.syntax"),
    ("b'a' == b'a'", "condition.syntax"),
    ("Message{x: 1}", "condition.syntax"),
];

#[test]
fn simple_conditions_answer_as_the_format_says() {
    for (source, expected) in SIMPLE {
        assert_eq!(answer(Language::Simple, source), *expected, "{source}");
    }
}

#[test]
fn cel_conditions_answer_as_cel_says() {
    for (source, expected) in CEL {
        assert_eq!(answer(Language::Cel, source), *expected, "{source}");
    }
}

#[test]
fn faults_say_where_and_what_to_do() {
    let place = |engine, source| {
        let failure = holds(engine, source).expect_err(source);
        (failure.detail.get("column").and_then(Value::as_int), failure.detail.get("hint").cloned())
    };
    let (column, hint) = place(Language::Simple, "context.i && true");
    assert_eq!((column, hint), (Some(11), Some(Value::str("write `and`"))));
    let (column, hint) = place(Language::Cel, "context.t && now() > 1");
    assert_eq!(column, Some(17));
    assert!(hint.is_some_and(|hint| hint.as_str().is_some_and(|hint| hint.contains("clock"))));
    let (column, _) = place(Language::Cel, "'é' == context.nope");
    assert_eq!(column, Some(15), "columns count characters");
    let (column, _) = place(Language::Cel, "'é' == )");
    assert_eq!(column, Some(8));
}

#[test]
fn checks_at_load_find_what_cannot_be_read() {
    for engine in [Language::Simple, Language::Cel] {
        assert!(check_condition(engine, "context.a == 1").is_ok());
        assert!(check_condition(engine, "  ").is_ok());
        assert_eq!(check_condition(engine, "context.a ==").expect_err("incomplete").code, Code::ConditionSyntax);
        assert_eq!(check_condition(engine, "unknown == 1").expect_err("unknown").code, Code::ConditionSyntax);
    }
    assert_eq!(check_condition(Language::Cel, "nofun(1)").expect_err("unknown").code, Code::ConditionSyntax);
}
