//! Sources that mean harm: each ends in time and memory, whatever it is.

use proptest::prelude::*;
use windlass_core::eval::{Evaluator, Scope};
use windlass_core::failure::Code;
use windlass_core::machine::{Condition, Dialect, Engine as Language};
use windlass_core::value::Value;

use super::super::{Engine, Limits};
use super::{context, on_small_stack, scope};

/// Short texts that would take gigabytes, hours or the stack.
const BOMBS: &[&str] = &[
    "{{ range(1000000000) }}",
    "{{ range(1000000000) | list | length }}",
    "{{ range(0, 9223372036854775807, 1) | length }}",
    "{{ range(-9223372036854775807, 9223372036854775807) | length }}",
    "{{ 'x' * 1000000000 }}",
    "{{ 1000000000 * 'x' }}",
    "{{ [1] * 1000000000 }}",
    "{{ ([1] * 10000000) | join('xxxxxxxxxxxxxxxxxxxx') }}",
    "{{ 'x' | center(4000000000) }}",
    "{{ 'x'.center(4000000000) }}",
    "{{ 'x'.ljust(4000000000) }}",
    "{{ 'x'.rjust(4000000000) }}",
    "{{ '1'.zfill(4000000000) }}",
    "{{ 'a\tb'.expandtabs(4000000000) }}",
    "{{ 'x' | indent(4000000000, true) }}",
    "{{ '%4000000000d' % 1 }}",
    "{{ '%.4000000000f' % 1 }}",
    "{{ '%*d' % [4000000000, 1] }}",
    "{{ '%4000000000s' | format('x') }}",
    "{{ '{:4000000000}'.format(1) }}",
    "{{ '{:.4000000000f}'.format(1.5) }}",
    "{{ '{:99999999999999999999999}'.format('x') }}",
    "{{ [1, 2] | tojson(indent=4000000000) }}",
    "{{ [1] | batch(4000000000, 'x') | list }}",
    "{{ [1] | slice(4000000000) | list }}",
    "{{ 'a' | replace('', 'x' * 20000000) | replace('', 'y' * 100000) }}",
    "{{ ('a' * 20000) | replace('a', 'b' * 20000) }}",
    "{{ ('a' * 20000).replace('a', 'b' * 20000) }}",
    "{{ ('ab' * 20000) | list | join('b' * 20000) }}",
    "{{ ('b' * 20000).join(('ab' * 20000) | list) }}",
    "{{ ('a\n' * 20000) | indent('b' * 20000) }}",
    "{{ ('a ' * 20000) | wordwrap(1, true, 'b' * 20000) }}",
    "{{ [('x' * 1000000)] * 100000 }}",
    "{{ ([('x' * 1000000)] * 1000) | tojson | length }}",
    "{{ ([('x' * 1000000)] * 1000) | join | length }}",
    "{{ ([('x' * 1000000)] * 1000) | map('upper') | list | length }}",
    "{{ ('x' * 1000000) | list | map('center', 100000) | list | length }}",
    "{{ 2 ** 100000000000 }}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "{% set s %}{% for a in range(9999) %}{% for b in range(9999) %}xxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}{% endset %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(x) %}{{ caller(x) }}{% endmacro %}{% macro g(x) %}{% call(y) f(x) %}{{ g(y) }}{% endcall %}{% endmacro %}{{ g(1) }}",
    "{% macro f(n=f()) %}x{% endmacro %}{{ f() }}",
    "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "{{ (range(3000) | list) | sort(attribute='x') }}",
    "{% set a = range(3000) | list %}{{ a | map('string') | unique | list | length }}",
    "{{ ('x' * 30000000) ~ ('x' * 30000000) }}",
    "{{ ('é' * 4000000) | upper | lower | title | tojson | length }}",
    "{% for i in range(200) %}{{ 'x' * 1000000 }}{% endfor %}",
    "{% filter replace('x', 'y' * 1000000) %}{{ 'x' * 1000000 }}{% endfilter %}",
    "{{ ('[' * 100000) | fromjson }}",
    "{{ (('[' * 90) ~ ('0,' * 3000000)) | fromjson }}",
];

/// The same, and loops that double or nest what they had.
fn bombs() -> Vec<String> {
    let grow = |step: &str| {
        format!(
            "{{% set ns = namespace(s='xxxxxxxx') %}}{{% for i in range(60) %}}{{% set ns.s = {step} %}}{{% endfor %}}{{{{ ns.s | length }}}}"
        )
    };
    let nest = |step: &str| {
        format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range(3000) %}}{{% set ns.a = {step} %}}{{% endfor %}}{{{{ ns.a == ns.a }}}}"
        )
    };
    let mut all: Vec<String> = BOMBS.iter().map(|source| (*source).to_owned()).collect();
    for step in [
        "ns.s ~ ns.s",
        "ns.s + ns.s",
        "ns.s * 2",
        "ns.s | replace('x', 'xx')",
        "ns.s.replace('x', 'xx')",
        "ns.s | list | join('x')",
        "[ns.s, ns.s] | join",
        "'%s%s' % [ns.s, ns.s]",
        "'{0}{0}'.format(ns.s)",
        "ns.s | tojson | tojson",
        "ns.s | escape ~ ns.s",
        "ns.s | indent(8, true) ~ ns.s",
        "ns.s | urlencode ~ ns.s",
        "[ns.s, ns.s]",
        "{'a': ns.s, 'b': ns.s}",
        "(ns.s | list) + (ns.s | list)",
    ] {
        all.push(grow(step));
    }
    for step in
        ["[ns.a]", "[ns.a, ns.a]", "{'a': ns.a}", "[ns.a] | batch(1) | list", "ns.a + ns.a + [1]", "dict(a=ns.a)"]
    {
        all.push(nest(step));
    }
    all.push(
        "{% set s %}x{% endset %}".to_owned()
            + &"{% set s %}{{ s }}{{ s }}{% endset %}".repeat(60)
            + "{{ s | length }}",
    );
    all
}

/// Sources whose reading alone would exhaust a stack.
fn towers() -> Vec<String> {
    let n = 50_000;
    let repeated =
        |open: &str, middle: &str, close: &str| format!("{{{{ {}{middle}{} }}}}", open.repeat(n), close.repeat(n));
    vec![
        repeated("(", "1", ")"),
        repeated("[", "1", "]"),
        repeated("{'a':", "1", "}"),
        repeated("not ", "1", ""),
        repeated("-", "1", ""),
        repeated("- ", "x", ""),
        repeated("1 + ", "1", ""),
        repeated("1 ~ ", "1", ""),
        repeated("1 < ", "1", ""),
        repeated("1 and ", "1", ""),
        repeated("1 or ", "1", ""),
        repeated("1 ** ", "1", ""),
        repeated("1 if 1 else ", "1", ""),
        repeated("", "1", " if 1"),
        repeated("", "x", ".x"),
        repeated("", "x", "[0]"),
        repeated("", "x", "()"),
        repeated("", "x", "|upper"),
        repeated("", "x", " is defined"),
        repeated("x[", "1", "]"),
        repeated("f(", "1", ")"),
        "{% if 1 %}".repeat(n),
        "{% if 1 %}x{% else %}".repeat(n),
        "{% if 1 %}".to_owned() + &"{% elif 1 %}".repeat(n) + "{% endif %}",
        "{% for x in y %}".repeat(n),
        "{% set x %}".repeat(n),
        "{% macro a() %}".repeat(n),
        "{% call a() %}".repeat(n),
        "{% filter upper %}".repeat(n),
        "{% with a=1 %}".repeat(n),
        "{% block a %}".repeat(n),
        "{% set ".to_owned() + &"(".repeat(n),
        "{% for ".to_owned() + &"(".repeat(n),
    ]
}

fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn nothing_repeated_is_nothing_at_once() {
    for source in ["{{ [] * 9223372036854775807 }}", "{{ '' * 9223372036854775807 }}"] {
        let given = Engine::default().render(Dialect::Machine, &source.into(), &scope()).expect(source);
        assert!(given.as_list().is_some_and(<[Value]>::is_empty) || given.as_str() == Some(""), "{source}: {given}");
    }
}

#[test]
fn bombs_end_at_a_bound_before_they_take_memory() {
    on_small_stack(|| {
        // A quarter of the default's fuel keeps the test quick; the bytes are the default's.
        let (limits, scope) = (Limits { fuel: 1_000_000, ..Limits::default() }, scope());
        let engine = Engine::with_limits(limits);
        for source in bombs() {
            match engine.render(Dialect::Prompt, &source.as_str().into(), &scope) {
                Err(failure) => {
                    let expected = match source.as_str() {
                        "{{ 2 ** 100000000000 }}" | "{{ ('[' * 100000) | fromjson }}" => Code::TemplateType,
                        "{{ (range(3000) | list) | sort(attribute='x') }}" => Code::TemplateUndefined,
                        _ => Code::TemplateLimit,
                    };
                    assert_eq!(failure.code, expected, "{source}: {failure}");
                }
                Ok(value) => assert!(value.size_bytes() <= Limits::default().output_bytes + 2, "{source}"),
            }
            let native = engine.render(Dialect::Machine, &source.as_str().into(), &scope);
            assert!(native.map_or(0, |value| value.size_bytes()) <= 2 * Limits::default().output_bytes, "{source}");
        }
        // Other tests of the same process count too, so the bound is generous; unbounded, it would be gigabytes.
        if let Some(peak) = peak_memory_kib() {
            assert!(peak < 600 * 1024, "{peak} KiB at the peak");
        }
    });
}

#[test]
fn small_bounds_hold_exactly() {
    let engine = Engine::with_limits(Limits { fuel: 200, output_bytes: 100, depth: 20 });
    let render = |source: &str| engine.render(Dialect::Prompt, &source.into(), &scope()).map_err(|f| f.code);
    assert_eq!(render(&"x".repeat(100)).map(|v| v.size_bytes()), Ok(102));
    assert_eq!(render(&"x".repeat(101)), Err(Code::TemplateLimit));
    assert_eq!(render("{{ 'x' * 101 }}"), Err(Code::TemplateLimit));
    assert_eq!(render("{% for i in range(99) %}{% endfor %}").map(|_| ()), Err(Code::TemplateLimit));
    assert_eq!(render("{% for i in range(10) %}{% endfor %}").map(|_| ()), Ok(()));
}

#[test]
fn towers_are_refused_before_they_are_climbed() {
    on_small_stack(|| {
        let (engine, scope) = (Engine::default(), scope());
        for source in towers() {
            let failure = engine.render(Dialect::Machine, &source.as_str().into(), &scope).expect_err("refused");
            assert!(matches!(failure.code, Code::TemplateLimit | Code::TemplateSyntax), "{}: {failure}", &source[..40]);
        }
    });
}

#[test]
fn nesting_up_to_the_bound_fits_the_stack() {
    on_small_stack(|| {
        let (engine, scope) = (Engine::default(), scope());
        let templates = [
            format!("{{{{ {}1{} }}}}", "(".repeat(39), ")".repeat(39)),
            format!("{{{{ {}1{} }}}}", "[".repeat(39), "]".repeat(39)),
            format!("{{{{ {}1 }}}}", "not ".repeat(59)),
            format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(29)),
            format!("{{{{ 0{} }}}}", " + 1".repeat(399)),
            format!("{{{{ 'x'{} }}}}", " | upper".repeat(399)),
            "{% if 1 %}".repeat(60) + "x" + &"{% endif %}".repeat(60),
            "{% for x in [1] %}".repeat(60) + "x" + &"{% endfor %}".repeat(60),
        ];
        for source in templates {
            let result = engine.render(Dialect::Machine, &source.as_str().into(), &scope);
            assert!(result.is_ok(), "{}: {result:?}", &source[..40]);
        }
        for source in [
            format!("{}1{}", "(".repeat(23), ")".repeat(23)),
            format!("{}1{}", "[".repeat(23), "]".repeat(23)),
            format!("1{} > 1", " + 1".repeat(390)),
            format!("{}true", "true && ".repeat(190)),
            format!("{}true", "!".repeat(390)),
            format!("{}1 == 1", "true ? true : ".repeat(20)),
            format!("'a'{} == ''", ".x".repeat(390)),
        ] {
            let condition = Condition { engine: Language::Cel, source: source.as_str().into() };
            let result = engine.holds(&condition, &scope);
            assert!(
                result.as_ref().map_or_else(|failure| failure.code == Code::ConditionType, |_| true),
                "{}: {result:?}",
                &source[..20]
            );
        }
    });
}

#[test]
fn conditions_end_too() {
    let n = 5_000;
    let repeated = |open: &str, middle: &str, close: &str| format!("{}{middle}{}", open.repeat(n), close.repeat(n));
    let list = (0..10).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let nested =
        |depth: usize| (0..depth).fold(String::from("true"), |inner, i| format!("[{list}].all(v{i}, {inner})"));
    let cel = [
        nested(9),
        format!(
            "[context.l.map(i, i)].all(x, {})",
            (0..8).fold("true".to_owned(), |inner, i| format!("x.all(y{i}, {inner})"))
        ),
        format!(
            "{}.size() > 1",
            (0..20)
                .fold("['xxxxxxxxxxxxxxxx']".to_owned(), |inner, i| format!("{inner}.map(a{i}, a{i}+a{i}+a{i}+a{i})"))
        ),
        format!(
            "{}.size() > 1",
            (0..20).fold("[[1,2,3]]".to_owned(), |inner, i| format!("{inner}.map(a{i}, a{i}+a{i}+a{i})"))
        ),
        format!(
            "{} == 1",
            (0..20).fold("[1]".to_owned(), |inner, i| format!("[{inner}].map(a{i}, [a{i}, a{i}, a{i}])"))
        ),
        "context.l.all(x, context.s.matches('(?:a{999}){99}'))".to_owned(),
        repeated("(", "1", ")"),
        repeated("[", "1", "]"),
        repeated("!", "true", ""),
        repeated("-", "1", ""),
        repeated("1+", "1", ""),
        repeated("true&&", "true", ""),
        repeated("true?1:", "1", ""),
        repeated("", "x", ".x"),
        repeated("'", "", "'"),
    ];
    let simple = [
        "context.s * 1000000000 == ''".to_owned(),
        "9 * 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 9999 * 99999 == 1".to_owned(),
        repeated("(", "1", ")"),
        repeated("context[", "1", "]"),
        repeated("not ", "1", ""),
        repeated("-", "1", ""),
        repeated("1 + ", "1", ""),
        repeated("1 and ", "1", ""),
        repeated("1 < ", "1", ""),
        repeated("", "context", ".x"),
    ];
    on_small_stack(move || {
        let (engine, scope) = (Engine::default(), scope());
        for (language, sources) in [(Language::Cel, cel.as_slice()), (Language::Simple, simple.as_slice())] {
            for source in sources {
                let condition = Condition { engine: language, source: source.as_str().into() };
                if let Err(failure) = engine.holds(&condition, &scope) {
                    assert_eq!(failure.code.family(), "condition", "{}", &source[..source.len().min(80)]);
                }
            }
        }
        for source in &cel[..1] {
            let condition = Condition { engine: Language::Cel, source: source.as_str().into() };
            assert_eq!(engine.holds(&condition, &scope).expect_err("bounded").code, Code::ConditionLimit);
        }
    });
}

#[test]
fn a_failure_that_another_operand_overrules_leaves_nothing_behind() {
    let engine = Engine::default();
    let source = "context.rows.all(r, r.a > 0 || r.nope.deep > 1) && context.rows.exists(r, r.nope > 1 || r.a == 3)";
    let condition = Condition { engine: Language::Cel, source: source.into() };
    for _ in 0..3 {
        assert_eq!(engine.holds(&condition, &scope()), Ok(true));
    }
}

#[test]
fn the_same_source_and_scope_give_the_same_result() {
    let source = "{% for k, v in context.items() %}{{ k }}={{ v }};{% endfor %}".into();
    let first = Engine::default().render(Dialect::Machine, &source, &scope()).expect("renders");
    for _ in 0..20 {
        assert_eq!(Engine::default().render(Dialect::Machine, &source, &scope()), Ok(first.clone()));
    }
}

/// Words that make sources which are nearly right.
const WORDS: &str = "{{ }} {% %} {# #} {%- -%} context input . i l d s rows nope [ ] ( ) { } : , | upper join sort batch slice \
    format truncate round replace groupby map select tojson fromjson indent wordwrap center dictsort xmlattr \
    urlencode is not in and or if else elif endif for endfor x set endset macro endmacro call endcall filter \
    endfilter loop recursive range namespace cycler joiner dict = == != < > + - * / // % ** ~ 'a' '%s' '{}' 0 \
    1 -1 2.5 9223372036854775807 1e300 true none && || ! ? has size all exists matches timestamp duration '1h' \
    now null ☃ split strip zfill expandtabs partition get items keys break continue with endwith do";

/// Sources of such words, with blanks and odd characters between.
fn pieces() -> impl Strategy<Value = String> {
    let mut words: Vec<&str> = WORDS.split(' ').collect();
    words.extend([" ", "\n", "\"é\"", "\u{0}"]);
    let chosen = prop::collection::vec(prop::sample::select(words), 0..40);
    (chosen, any::<bool>()).prop_map(|(words, spaced)| words.join(if spaced { " " } else { "" }))
}

/// Pieces inside one tag, more likely to be read to the end.
fn expression() -> impl Strategy<Value = String> {
    pieces().prop_map(|inner| format!("{{{{ {} }}}}", inner.replace("{{", "").replace("}}", "").replace('%', "")))
}

const VALUES: &str = "context.l context.d context.s context.u context.rows context.nums context.words context.nope context.n \
    context.t context.i context.neg context.f context.big 0 1 -1 2 3 1.5 -0.0 9223372036854775807 -9223372036854775807 1e308 'a' '' \
    'é☃' '%s' '%d' '%.3g' '{}' '{0[a]:>9}' '{:,}' ',a,b,' '\\t\\n' [] [[]] [1,'a'] {} {'a':{'b':1}} none true range range(3) 'a.b'";
const FILTERS: &str = "abs attr batch bool capitalize center count default dictsort escape filesizeformat first float format fromjson \
    groupby indent int items join last length list lower map max min pprint reject rejectattr replace reverse round select selectattr \
    slice sort string striptags sum title tojson trim truncate unique upper urlencode wordcount wordwrap xmlattr";
const METHODS: &str = "upper lower casefold capitalize title swapcase strip lstrip rstrip removeprefix removesuffix replace join center \
    ljust rjust zfill format expandtabs split rsplit splitlines partition rpartition startswith endswith count find rfind index rindex \
    isalnum istitle get keys values items copy is_integer";
const OPERATORS: &str = "+ - * / // % ** ~ == != < <= > >= in and or";
const CHECKS: &str = "boolean callable defined divisibleby even float integer iterable lower mapping none number odd sameas sequence \
    string eq ne lt in filter test";

fn word(list: &'static str) -> impl Strategy<Value = &'static str> {
    prop::sample::select(list.split_ascii_whitespace().collect::<Vec<_>>())
}

/// One operation on odd values, with odd arguments.
fn operation() -> impl Strategy<Value = String> {
    let values = || word(VALUES);
    let args = || prop::collection::vec(values(), 0..4).prop_map(|args| args.join(", "));
    prop_oneof![
        (values(), word(FILTERS), args()).prop_map(|(v, f, a)| format!("{v} | {f}({a})")),
        (values(), word(FILTERS), word(FILTERS), args()).prop_map(|(v, f, g, a)| format!("{v} | {f} | {g}({a})")),
        (values(), word(FILTERS), word(FILTERS), args()).prop_map(|(v, f, g, a)| format!("{v} | {f}('{g}', {a})")),
        (values(), word(METHODS), args()).prop_map(|(v, m, a)| format!("({v}).{m}({a})")),
        (values(), word(OPERATORS), values()).prop_map(|(v, o, w)| format!("({v}) {o} ({w})")),
        (values(), word(CHECKS), args()).prop_map(|(v, c, a)| format!("{v} is {c}({a})")),
        (values(), values(), values(), values()).prop_map(|(v, a, b, c)| format!("({v})[{a}:{b}:{c}]")),
        (values(), values()).prop_map(|(v, k)| format!("({v})[{k}]")),
        (word("range dict namespace cycler joiner"), args()).prop_map(|(f, a)| format!("{f}({a})")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn prop_no_text_panics(source in prop_oneof![pieces(), expression(), any::<String>()]) {
        let engine = Engine::with_limits(Limits { fuel: 50_000, output_bytes: 100_000, depth: 100 });
        let scope = Scope::new().with("context", context()).with("input", context());
        for dialect in [Dialect::Machine, Dialect::Prompt] {
            if let Err(failure) = engine.render(dialect, &source.as_str().into(), &scope) {
                prop_assert_eq!(failure.code.family(), "template");
            }
        }
        for language in [Language::Simple, Language::Cel] {
            let condition = Condition { engine: language, source: source.as_str().into() };
            if let Err(failure) = engine.holds(&condition, &scope) {
                prop_assert_eq!(failure.code.family(), "condition");
            }
        }
    }

    #[test]
    fn prop_no_operation_panics(inner in operation()) {
        let engine = Engine::with_limits(Limits { fuel: 50_000, output_bytes: 100_000, depth: 100 });
        for source in [format!("{{{{ {inner} }}}}"), format!("{{% for x in {inner} %}}{{{{ x }}}}{{{{ loop.nextitem }}}}{{% endfor %}}")] {
            if let Err(failure) = engine.render(Dialect::Machine, &source.as_str().into(), &scope()) {
                prop_assert!(failure.code.family() == "template", "{}: {}", source, failure);
            }
        }
    }

    #[test]
    fn prop_numbers_print_and_read_back(number in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let scope = Scope::new().with("x", Value::Float(number));
        let text = Engine::default().render(Dialect::Prompt, &"{{ x }}".into(), &scope).expect("renders");
        let read: f64 = text.as_str().expect("text").parse().expect("a number");
        prop_assert_eq!(read, number);
    }

    #[test]
    fn prop_json_text_reads_back(text in any::<String>()) {
        let scope = Scope::new().with("x", Value::list(vec![Value::str(text)]));
        for source in ["{{ x | tojson | fromjson }}", "{{ (x ~ '') | fromjson }}"] {
            let value = Engine::default().render(Dialect::Machine, &source.into(), &scope).expect("renders");
            prop_assert_eq!(Some(&value), scope.get("x"));
        }
    }
}

/// Texts that would do something if they were taken for a template, a path or a condition.
const INJECTIONS: &[&str] = &[
    "{{ 7 * 191 }}",
    "{{ context.secret }}",
    "{% if true %}{{ context.secret }}{% endif %}",
    "{# {{ context.secret }} #}",
    "{{ '{{ context.secret }}' }}",
    "{{",
    "%}",
    "context.secret",
    "context.secret == 's3cret'",
    "true",
    "1 + 1",
    "' == '' or 'a' == 'a",
    "\" == \"\" || \"a\" == \"a",
    "size(context.secret) > 0",
    "${context.secret}",
];

/// ATK-28: what a render gives is a value, which no further render and no condition takes for a source.
#[test]
fn a_value_is_never_a_template_or_a_condition() {
    let engine = Engine::default();
    for text in INJECTIONS {
        let scope = |value: Value| {
            let context = [("v", value), ("secret", Value::str("s3cret")), ("raw", Value::str(*text))];
            Scope::new().with("context", Value::object(context))
        };
        let mut value = Value::str(*text);
        for _ in 0..2 {
            for dialect in [Dialect::Machine, Dialect::Prompt] {
                for source in ["{{ context.v }}", "{{ context['v'] | string }}", "{% set x = context.v %}{{ x }}"] {
                    let got = engine.render(dialect, &source.into(), &scope(value.clone())).expect("a value");
                    assert_eq!(got, Value::str(*text), "{dialect:?} {source} {text}");
                }
                let around = engine.render(dialect, &"<{{ context.v ~ '' }}>".into(), &scope(value.clone()));
                assert_eq!(around.expect("a text"), Value::str(format!("<{text}>")), "{dialect:?} {text}");
            }
            value = engine.render(Dialect::Machine, &"{{ context.v }}".into(), &scope(value)).expect("a value");
        }
        let nested = Value::object([("k", Value::list(vec![value.clone()]))]);
        let got = engine.render(Dialect::Machine, &"{{ context.v }}".into(), &scope(nested.clone()));
        assert_eq!(got.expect("a value"), nested, "{text}");
        for (language, source, want) in [
            (Language::Simple, "context.v == context.raw", true),
            (Language::Simple, "context.v == context.secret", false),
            (Language::Simple, "context.v == 's3cret'", false),
            (Language::Cel, "context.v == context.raw", true),
            (Language::Cel, "context.v == context.secret", false),
            (Language::Cel, "context.v == 's3cret' || context.v == true", false),
        ] {
            let condition = Condition { engine: language, source: source.into() };
            assert_eq!(engine.holds(&condition, &scope(value.clone())), Ok(want), "{source} {text}");
        }
    }
}
