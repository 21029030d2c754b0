//! Cost of one evaluation with a context of about 1 KB.

use windlass_core::eval::{Evaluator, Scope};
use windlass_core::machine::{Condition, Dialect, Engine as Language};
use windlass_core::value::Value;
use windlass_spec::eval::Engine;

fn main() {
    divan::main();
}

fn scope() -> Scope {
    let rows = (0..12).map(|i| Value::object([("id", Value::Int(i)), ("name", Value::str(format!("row {i}")))]));
    let context = Value::object([
        ("draft", Value::str("x".repeat(600))),
        ("score", Value::Int(7)),
        ("threshold", Value::str("8")),
        ("rows", Value::list(rows.collect())),
    ]);
    Scope::new().with("context", context.clone()).with("input", context)
}

#[divan::bench(args = [
    "{{ context.score }}",
    "{{ context.rows[3].name }}",
    "Round {{ context.score + 1 }} of {{ context.threshold }}: {{ context.draft }}",
    "{% for row in context.rows %}{{ loop.index }}. {{ row.name | upper }}; {% endfor %}",
    "{{ context.rows | selectattr('id', 'gt', 5) | map(attribute='name') | join(', ') }}",
    "{{ context.rows | tojson }}",
])]
fn template(bencher: divan::Bencher<'_, '_>, source: &str) {
    let (engine, scope, source) = (Engine::default(), scope(), source.into());
    bencher.bench(|| engine.render(Dialect::Machine, &source, &scope).expect("renders"));
}

#[divan::bench(args = [
    (Language::Simple, "context.score >= context.threshold"),
    (Language::Simple, "context.rows[3].name == 'row 3' and not context.missing"),
    (Language::Cel, "context.score >= 8"),
    (Language::Cel, "context.rows.exists(row, row.name == 'row 9')"),
])]
fn condition(bencher: divan::Bencher<'_, '_>, (engine, source): (Language, &str)) {
    let (evaluator, scope) = (Engine::default(), scope());
    let condition = Condition { engine, source: source.into() };
    bencher.bench(|| evaluator.holds(&condition, &scope).expect("answers"));
}
