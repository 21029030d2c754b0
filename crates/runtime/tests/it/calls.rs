//! Calls of models and tools: what is sent, retried and charged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Digest;
use windlass_core::input::Ending;
use windlass_core::journal::{Entry, Record};
use windlass_core::label::{Label, LabelSet};
use windlass_core::policy::Question;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::Store;

use crate::kit::{Kit, Rules, acting, contract, done, report, tree};

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_adapter_is_a_failure_of_its_call() {
    let mut kit = Kit::new();
    kit.tool(contract("bad", Class::Read, Idempotency::None), |_| async { panic!("on purpose") });
    kit.machine("main", vec![acting("a", "bad", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let report = report(&engine, &run).await;
    let Some(Ending::Failed { failure, .. }) = report.run.ending else { panic!("should fail") };
    assert_eq!(failure.code, Code::InternalInvariant);
    assert!(failure.message.contains("on purpose"));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_is_not_configured_is_a_failure() {
    let mut kit = Kit::new();
    kit.machine("main", vec![acting("a", "absent", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let Some(Ending::Failed { failure, .. }) = report(&engine, &run).await.run.ending else { panic!("should fail") };
    assert_eq!(failure.code, Code::ToolUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_call_in_doubt_asks_a_person() {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut kit = Kit::new();
    let count = Arc::clone(&calls);
    kit.tool(contract("pay", Class::Write, Idempotency::None), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let failure = Failure::new(Code::ToolUnreachable, "the line broke");
            Err(failure.retry(windlass_core::failure::Retry::Unknown))
        }
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let asked = report(&engine, &run).await;
    assert_eq!(asked.head.status, Status::Attention);
    assert_eq!(&*asked.waits[0].kind, "outcome");
    let channel = asked.waits[0].channel.clone().expect("channel");
    let answer = Value::object([("happened", Value::Bool(true)), ("result", Value::Int(5))]);
    kit.signal(&channel, answer).await;
    tree(&engine, &run).await;
    assert_eq!(report(&engine, &run).await.head.status, Status::Completed);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn every_attempt_carries_the_key_of_its_effect() {
    let seen: Arc<std::sync::Mutex<BTreeMap<String, Contract>>> = Arc::default();
    let mut kit = Kit::new();
    let keys = Arc::clone(&seen);
    let pay = contract("pay", Class::Write, Idempotency::Key);
    kit.tool(pay.clone(), move |invocation| {
        keys.lock().expect("lock").insert(invocation.idempotency_key, pay.clone());
        async { crate::kit::answer(1) }
    });
    kit.machine("main", vec![acting("a", "pay", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let keys = seen.lock().expect("lock").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys, vec!["r#1".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_asked_and_its_rule_is_named() {
    let mut kit = Kit::new();
    kit.policy = Rules::denying(|question| matches!(question, Question::TakeTransition { to, .. } if &**to == "done"));
    kit.read("look");
    kit.machine("main", vec![acting("a", "look", "b"), acting("b", "look", "done"), done()]);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let report = report(&engine, &run).await;
    let Some(Ending::Failed { failure, state }) = report.run.ending else { panic!("should fail") };
    assert_eq!((failure.code, state.as_deref()), (Code::PolicyDenied, Some("b")));
    assert!(failure.message.contains("rule-7"), "{failure}");
    let rows = kit.store.journal(run, 0, 100).await.expect("journal");
    let used = rows.iter().map(|row| match Record::decode(&row.bytes).expect("a record").entries.swap_remove(0) {
        Entry::Decided { verdicts, .. } => verdicts.into_iter().map(|verdict| verdict.question).collect(),
        other => panic!("{other:?}"),
    });
    let take = |from: &str, to: &str| vec![Question::TakeTransition { from: from.into(), to: to.into() }];
    // The run's input is from outside, and an action gets all of it.
    let labels: LabelSet = [Label::Untrusted].into_iter().collect();
    let look = || Question::CallTool { tool: "look".into(), arguments: Digest::ZERO, agent: None, labels };
    let moved = || take("a", "b").into_iter().chain([look()]).collect();
    assert_eq!(used.collect::<Vec<Vec<_>>>(), [vec![look()], moved(), take("b", "done")]);
}
