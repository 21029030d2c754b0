//! Labels through templates: whatever a secret can change has its label.

use proptest::prelude::*;
use windlass_core::eval::{Scope, fill};
use windlass_core::ids::Name;
use windlass_core::label::{Label, Marks, Source, SourceKind, View, of_template};
use windlass_core::machine::{Dialect, Template};
use windlass_core::value::Value;
use windlass_spec::eval::Engine;

/// Expressions over a scope in which `context.s` is secret and `context.p`, `context.l` are not.
fn expression() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "context.s",
        "context.p",
        "context['s']",
        "context",
        "'x'",
        "3",
        "context.l[0]",
        "context[context.p]",
        "context.m.s",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} ~ {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} == 'x' else {c})")),
            inner.clone().prop_map(|a| format!("({a} | string | length)")),
            inner.clone().prop_map(|a| format!("({a} | default('d'))")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("[{a}, {b}][0]")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        expression().prop_map(|e| format!("{{{{ {e} }}}}")),
        (expression(), expression())
            .prop_map(|(a, b)| format!("{{% if {a} == 'x' %}}one{{% else %}}{{{{ {b} }}}}{{% endif %}}")),
        expression().prop_map(|e| format!("{{% set v = {e} %}}-{{{{ v }}}}")),
        expression().prop_map(|e| format!("{{% for i in [{e}] %}}{{{{ i }}}}{{% endfor %}}")),
        expression().prop_map(|e| format!("{{% macro m(a) %}}{{{{ a }}}}{{% endmacro %}}{{{{ m({e}) }}}}")),
    ]
}

fn scope(secret: &str) -> Scope {
    let context = Value::object([
        ("s", Value::str(secret)),
        ("p", Value::str("s")),
        ("l", Value::list(vec![Value::str("x")])),
        ("m", Value::object([("s", Value::str("inner"))])),
    ]);
    Scope::new().with("context", context)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn prop_what_a_secret_changes_is_secret(source in text()) {
        let engine = Engine::default();
        let mut of_context = Marks::default();
        let from = Source { kind: SourceKind::Input, name: "".into(), step: 0 };
        of_context.add(vec![Name::from("s")], Label::Secret, from);
        let view = View::default().with("context", of_context);
        for dialect in [Dialect::Machine, Dialect::Prompt] {
            let template = Template::Text { dialect, source: source.as_str().into() };
            let result = |secret: &str| fill(&template, &scope(secret), &engine).map_err(|misfit| misfit.failure.code);
            let differs = result("x") != result("another one");
            let labelled = !of_template(&template, &view, &engine).all().is_empty();
            prop_assert!(labelled || !differs, "`{source}` tells the secret and has no label");
        }
    }
}
