//! What every tool adapter must do: end in time, keep to its bounds, pass the key on, leave nothing behind, and say
//! truthfully whether a failed call may have happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::RunId;
use windlass_core::value::Value;

use crate::BoxFuture;
use crate::tool::{Invocation, Permit, Tool};

/// What the other side of a tool under test does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers `{"key": the idempotency key it received, "arguments": the arguments it received}`.
    Answers,
    /// Takes the call and never answers.
    Hangs,
    /// Answers with more than [`BYTES_MAX`] bytes.
    Floods,
    /// Answers with an error of its own.
    Fails,
    /// Cannot be reached.
    Absent,
}

/// Bytes of an answer that the suite allows.
pub const BYTES_MAX: u64 = 1_000;
/// Time that the suite gives a call that never answers, in milliseconds.
pub const TIMEOUT_MS: u64 = 250;
/// Time beyond a call's own within which it must have ended, in milliseconds; generous, for loaded hosts.
const SLACK_MS: u64 = 10_000;

/// An adapter under test together with what it calls.
pub trait Subject: Send + Sync {
    /// A tool with this contract whose other side behaves so. `None` where the adapter has no such other side, as a
    /// function in the same process cannot be absent.
    fn tool(&self, behaviour: Behaviour, contract: Contract) -> Option<Arc<dyn Tool>>;

    /// Ends when a call of a tool that [`Behaviour::Hangs`] has arrived at the other side.
    fn arrived(&self) -> BoxFuture<'_, ()>;

    /// Ends when nothing of that call is left at the other side: no process, no connection.
    fn quiet(&self) -> BoxFuture<'_, ()>;
}

/// Runs every check of this suite, each on a subject of its own.
pub async fn exercise<S: Subject>(mut make: impl FnMut() -> S) {
    passes_arguments_and_key(&make()).await;
    ends_in_time(&make(), Class::Write, Retry::Unknown).await;
    ends_in_time(&make(), Class::Read, Retry::Backoff).await;
    keeps_to_the_bytes(&make()).await;
    reports_errors(&make()).await;
    tells_not_sent_from_unknown(&make()).await;
    leaves_nothing_when_dropped(&make()).await;
}

/// The other side sees the arguments and the same key at every attempt.
pub async fn passes_arguments_and_key(subject: &impl Subject) {
    let Some(tool) = subject.tool(Behaviour::Answers, contract(Class::Write)) else { return };
    for attempt in [1, 2] {
        let answer = tool.call(invocation(attempt, SLACK_MS)).await.expect("a tool that answers");
        assert_eq!(answer.get("arguments"), Some(&arguments()), "the arguments arrive unchanged");
        assert_eq!(answer.get("key").and_then(Value::as_str), Some(KEY), "the key arrives at attempt {attempt}");
    }
    // Who wrote the description is the adapter's to know.
    let given = Contract { flow: tool.contract().flow.clone(), ..contract(Class::Write) };
    assert_eq!(tool.contract(), &given, "the contract is the one given");
}

/// A call that is never answered ends with `tool.timeout`, in doubt unless it changes nothing.
pub async fn ends_in_time(subject: &impl Subject, class: Class, retry: Retry) {
    let Some(tool) = subject.tool(Behaviour::Hangs, contract(class)) else { return };
    let start = Instant::now();
    let failure = failed(&*tool, invocation(1, TIMEOUT_MS)).await;
    assert!(start.elapsed() < Duration::from_millis(TIMEOUT_MS + SLACK_MS), "the call ends in its time");
    assert_eq!((failure.code, failure.retry), (Code::ToolTimeout, retry), "for class {class:?}");
    subject.quiet().await;
}

/// An answer larger than allowed is a failure, and is not read to its end.
pub async fn keeps_to_the_bytes(subject: &impl Subject) {
    let Some(tool) = subject.tool(Behaviour::Floods, contract(Class::Write)) else { return };
    let failure = failed(&*tool, invocation(1, SLACK_MS)).await;
    assert_eq!((failure.code, failure.retry), (Code::ToolOutputTooLarge, Retry::Never));
}

/// An error of the other side is an answer: no doubt, no repeat.
pub async fn reports_errors(subject: &impl Subject) {
    let Some(tool) = subject.tool(Behaviour::Fails, contract(Class::Write)) else { return };
    let failure = failed(&*tool, invocation(1, SLACK_MS)).await;
    assert_eq!((failure.code, failure.retry), (Code::ToolFailed, Retry::Never));
    assert!(!failure.message.is_empty(), "the failure says what happened");
}

/// A call that never left is no call in doubt.
pub async fn tells_not_sent_from_unknown(subject: &impl Subject) {
    let Some(tool) = subject.tool(Behaviour::Absent, contract(Class::Write)) else { return };
    let failure = failed(&*tool, invocation(1, SLACK_MS)).await;
    assert_eq!(failure.code, Code::ToolUnreachable);
    assert_ne!(failure.retry, Retry::Unknown, "what was never sent cannot have happened");
}

/// Dropping a call ends everything it started.
pub async fn leaves_nothing_when_dropped(subject: &impl Subject) {
    let Some(tool) = subject.tool(Behaviour::Hangs, contract(Class::Write)) else { return };
    match select(tool.call(invocation(1, 60_000)), subject.arrived()).await {
        Either::Left((result, _)) => panic!("a call that hangs ended: {result:?}"),
        Either::Right(((), call)) => drop(call),
    }
    subject.quiet().await;
}

const KEY: &str = "run-1#7";

fn contract(class: Class) -> Contract {
    Contract { class, idempotency: Idempotency::None, ..Contract::undeclared("subject") }
}

fn arguments() -> Value {
    Value::object([("text", Value::str("a 'quoted' $HOME; ü\n")), ("count", Value::Int(3))])
}

fn invocation(attempt: u32, timeout_ms: u64) -> Invocation {
    Invocation {
        name: "subject".into(),
        arguments: arguments(),
        idempotency_key: KEY.to_owned(),
        trace: None,
        run: RunId::stored("run-1"),
        tenant: "default".into(),
        attempt,
        timeout_ms,
        output_bytes_max: BYTES_MAX,
        permit: Permit::default(),
    }
}

async fn failed(tool: &dyn Tool, invocation: Invocation) -> Failure {
    match tool.call(invocation).await {
        Ok(value) => panic!("the call succeeded with {value}"),
        Err(failure) => failure,
    }
}
