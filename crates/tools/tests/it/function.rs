//! Functions as hooks; as tools they are in the conformance suite.

use windlass_core::failure::{Code, Failure};
use windlass_core::machine::HookKind;
use windlass_core::value::Value;
use windlass_ports::tool::{Hook, HookEvent};
use windlass_tools::FnHook;

use crate::json;

fn event(kind: HookKind) -> HookEvent {
    HookEvent {
        hook: "h".into(),
        kind,
        body: json(r#"{"context":{"n":1}}"#),
        idempotency_key: "run-1#7".into(),
        trace: None,
        tenant: "t".into(),
        labels: None,
        hidden: Default::default(),
        timeout_ms: 50,
        output_bytes_max: 100,
        permit: Default::default(),
    }
}

#[tokio::test]
async fn a_function_is_a_hook() {
    let hook = FnHook::sync(&[HookKind::Action], |event| Ok(Value::object([("output", event.body)]))).with_machine();
    assert_eq!((hook.events(), hook.include_machine()), ([HookKind::Action].as_slice(), true));
    let answer = hook.call(event(HookKind::Action)).await.unwrap();
    assert_eq!(answer.at_path(&["output", "context", "n"]), Value::Int(1));
}

#[tokio::test]
async fn its_answers_are_held_to_the_same_rules() {
    let code = |hook: FnHook| async move { hook.call(event(HookKind::Action)).await.unwrap_err().code };
    assert_eq!(code(FnHook::sync(&[], |_| Ok(Value::Int(1)))).await, Code::HookBadAnswer);
    assert_eq!(code(FnHook::sync(&[], |_| Ok(json(r#"{"error":"no"}"#)))).await, Code::HookFailed);
    assert_eq!(code(FnHook::new(&[], |_| std::future::pending::<Result<Value, Failure>>())).await, Code::HookTimeout);
    let large = FnHook::sync(&[], |_| Ok(Value::object([("output", Value::str("x".repeat(200)))])));
    assert_eq!(code(large).await, Code::HookBadAnswer);
}
