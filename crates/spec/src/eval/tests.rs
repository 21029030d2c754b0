//! The engine as a whole: tables of sources with what they give, and sources that mean harm.

mod conditions;
mod hostile;
mod schemas;
mod templates;

use windlass_core::eval::{Evaluator, Scope};
use windlass_core::failure::Failure;
use windlass_core::machine::{Condition, Dialect, Engine as Language};
use windlass_core::value::Value;

use super::Engine;

/// The context that the tables refer to.
fn context() -> Value {
    Value::from_json(
        r#"{"i":3,"f":1.0,"big":1e16,"t":true,"fa":false,"n":null,"s":"str","e":"","l":[1,"a",null,true,1.5],
            "d":{"k":"v","é":"ü","n":{"x":[1]}},"num":"42","neg":-2,"z":0,"el":[],"ed":{},"fl":2.5,
            "rows":[{"a":1,"b":"x"},{"a":2,"b":"y"},{"a":3,"b":"x"}],"js":"{\"a\": [1, 2]}",
            "u":"naïve ☃ <b>&'\"","ml":"a\nb\n\nc","nums":[3,1,2,10],"words":["b","A","c","a"],
            "tree":[{"n":"r","c":[{"n":"x","c":[]},{"n":"y","c":[{"n":"z","c":[]}]}]}]}"#,
    )
    .expect("valid JSON")
}

fn scope() -> Scope {
    Scope::new()
        .with("context", context())
        .with("input", context())
        .with("output", Value::object([("content", Value::str("done"))]))
}

fn render(dialect: Dialect, source: &str) -> Result<Value, Failure> {
    Engine::default().render(dialect, &source.into(), &scope())
}

fn holds(engine: Language, source: &str) -> Result<bool, Failure> {
    Engine::default().holds(&Condition { engine, source: source.into() }, &scope())
}

/// The result of a condition as a table writes it: `yes`, `no` or the code.
fn answer(engine: Language, source: &str) -> String {
    match holds(engine, source) {
        Ok(true) => "yes".to_owned(),
        Ok(false) => "no".to_owned(),
        Err(failure) => failure.code.to_string(),
    }
}

/// Runs on a small stack, as a worker has, so that deep recursion shows.
fn on_small_stack(f: impl FnOnce() + Send + 'static) {
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(f).expect("a thread");
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}
