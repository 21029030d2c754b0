//! Rules that change while a call that was decided on has not left: it is decided on once more, and what was said to the
//! run meanwhile is heard first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::contract::{Class, Idempotency};
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::input::{Ending, Input};
use windlass_core::policy::{self, Choice, Mode, Question, Sticky, Verdict};
use windlass_core::run::{Run, Status};
use windlass_ports::policy::{Asker, Policy};
use windlass_runtime::{Driven, Scope, Stop, set_switch};

use crate::kit::{Kit, Rules, acting, answer, contract, done, output, report, tree};
use crate::shutdown::{Slow, slow};
use crate::switches::{change, serve, until};

/// A kit whose `main` calls `slow`, then `pay`, which counts its calls; and the rules, which allow everything.
fn paying() -> (Slow, Arc<AtomicUsize>, Arc<Rules>) {
    let mut slow = slow(Class::Write, Idempotency::None);
    let (pays, rules) = (Arc::new(AtomicUsize::new(0)), Rules::denying(|_| false));
    let count = Arc::clone(&pays);
    slow.kit.tool(contract("pay", Class::Danger, Idempotency::None), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { answer(1) }
    });
    slow.kit.policy = Arc::clone(&rules) as _;
    slow.kit.machine("main", vec![acting("a", "slow", "b"), acting("b", "pay", "done"), done()]);
    (slow, pays, rules)
}

fn deny(rules: &Rules, what: fn(&Question) -> bool) {
    *rules.0.lock().expect("lock") = what;
}

fn pays(question: &Question) -> bool {
    matches!(question, Question::CallTool { tool, .. } if &**tool == "pay")
}

fn is_slow(question: &Question) -> bool {
    matches!(question, Question::CallTool { tool, .. } if &**tool == "slow")
}

/// A run whose call of `pay` was decided on by a worker that ended without sending it.
async fn unsent(slow: &Slow) -> RunId {
    let engine = slow.kit.engine();
    let run = slow.kit.submit(&engine, "r").await;
    let stop = Stop::new();
    let stopping = async {
        slow.called.notified().await;
        stop.graceful.cancel();
    };
    let (driven, ()) = tokio::join!(engine.drive(Scope::All, stop.clone()), stopping);
    assert_eq!(driven.expect("driven"), Driven::Stopped);
    let left = report(&engine, &run).await;
    assert_eq!((left.head.status, left.run.state.as_deref()), (Status::Queued, Some("b")));
    assert!(left.run.has_calls_out(), "the call was decided on");
    run
}

async fn denied(kit: &Kit, run: &RunId) {
    let Some(Ending::Failed { failure, state }) = report(&kit.another(), run).await.run.ending else {
        panic!("should fail")
    };
    assert_eq!((failure.code, state.as_deref()), (Code::PolicyDenied, Some("b")));
    assert!(failure.message.contains("rule-7"), "{failure}");
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_handed_back_unsent_leaves_once_where_the_rules_still_allow_it() {
    let (slow, pays, _rules) = paying();
    let run = unsent(&slow).await;
    assert_eq!(tree(&slow.kit.another(), &run).await, Driven::Ended);
    output(&slow.kit.another(), &run).await;
    assert_eq!(pays.load(Ordering::SeqCst), 1);
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_came_while_the_run_was_queued_is_heard_before_its_unsent_call_is_started() {
    let (slow, pays, _rules) = paying();
    let run = unsent(&slow).await;
    slow.kit.deliver(&run, "cancel", Input::Cancel { reason: "no longer wanted".into() }).await;
    assert_eq!(tree(&slow.kit.another(), &run).await, Driven::Ended);
    assert_eq!(report(&slow.kit.another(), &run).await.head.status, Status::Cancelled);
    assert_eq!(pays.load(Ordering::SeqCst), 0, "nothing was begun that was cancelled before");
    slow.kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn an_unsent_call_that_a_pause_held_does_not_leave_once_the_rules_deny_it() {
    let (slow, calls, rules) = paying();
    let run = unsent(&slow).await;
    slow.kit.deliver(&run, "pause", Input::Pause { reason: "mine".into() }).await;
    assert!(matches!(tree(&slow.kit.another(), &run).await, Driven::Parked { .. }));
    assert_eq!(report(&slow.kit.another(), &run).await.head.status, Status::Paused);
    deny(&rules, pays);
    slow.kit.deliver(&run, "unpause", Input::Unpause).await;
    assert_eq!(tree(&slow.kit.another(), &run).await, Driven::Ended);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    denied(&slow.kit, &run).await;
}

#[tokio::test(start_paused = true)]
async fn an_unsent_call_that_a_switch_held_does_not_leave_once_the_rules_deny_it() {
    let (slow, calls, rules) = paying();
    let run = unsent(&slow).await;
    set_switch(&*slow.kit.store, None, change(true)).await.expect("switched");
    let (stop, driving) = serve(&slow.kit.another());
    until(&slow.kit, &run, Status::Paused).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    deny(&rules, pays);
    set_switch(&*slow.kit.store, None, change(false)).await.expect("switched");
    let (stop, driving) = serve(&slow.kit.another());
    until(&slow.kit, &run, Status::Failed).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    denied(&slow.kit, &run).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_out_when_a_hold_ends_keeps_its_result_although_the_rules_deny_it() {
    let (slow, calls, rules) = paying();
    let engine = slow.kit.engine();
    let run = slow.kit.submit(&engine, "r").await;
    let (stop, driving) = serve(&engine);
    slow.called.notified().await;
    slow.kit.deliver(&run, "pause", Input::Pause { reason: "mine".into() }).await;
    until(&slow.kit, &run, Status::Paused).await;
    deny(&rules, is_slow);
    slow.kit.deliver(&run, "unpause", Input::Unpause).await;
    until(&slow.kit, &run, Status::Completed).await;
    stop.graceful.cancel();
    driving.await.expect("a task");
    assert_eq!((slow.calls.load(Ordering::SeqCst), calls.load(Ordering::SeqCst)), (1, 1));
    slow.kit.fsck().await;
}

/// Two sets: of the runs whose root is called `odd`, the candidate judges, which denies `pay`.
#[derive(Debug)]
struct Sides(AtomicUsize);

impl Policy for Sides {
    fn answer(&self, asker: &Asker<'_>, questions: &[Question]) -> Vec<Verdict> {
        let choice = self.choice(asker);
        let is_candidates = choice.as_ref().is_some_and(Choice::is_candidates);
        let verdict = |question: &Question| {
            let denied = is_candidates && pays(question);
            let answer = if denied { policy::Answer::Deny } else { policy::Answer::Allow };
            let (rule, reason, version) = ("rule-7".into(), "not today".into(), "3".into());
            let (question, origins) = (question.clone(), Vec::new());
            let choice = choice.clone().map(Box::new);
            Verdict { question, answer, rule, reason, version, origins, asking: None, trust: None, choice, other: None }
        };
        questions.iter().map(verdict).collect()
    }

    fn choice(&self, asker: &Asker<'_>) -> Option<Choice> {
        let chosen = asker.kept.map_or(asker.root.as_str() == "odd", |kept| kept.chosen);
        let (mode, sticky) = (Mode::Enforce, Sticky::Run);
        Some(Choice { candidate: "c".into(), mode, sticky, percent: 50, chosen })
    }

    fn judged(&self, run: &Run, verdicts: &[Verdict]) {
        assert!(run.choice.is_some() && !verdicts.is_empty());
        self.0.fetch_add(verdicts.len(), Ordering::SeqCst);
    }

    fn epoch(&self) -> Option<u64> {
        Some(1)
    }

    fn allow_unasked(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_kept_for_runs_of_one_side_are_none_for_runs_of_another() {
    let mut kit = Kit::new();
    let pays = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pays);
    kit.tool(contract("pay", Class::Danger, Idempotency::None), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { answer(1) }
    });
    let sides = Arc::new(Sides(AtomicUsize::new(0)));
    kit.policy = Arc::clone(&sides) as _;
    // Whether an action may be performed is a standing question.
    kit.machine("main", vec![acting("b", "pay", "done"), done()]);
    let engine = kit.engine();
    for (turn, id) in ["even", "odd", "even-2"].into_iter().enumerate() {
        let run = kit.submit(&engine, id).await;
        tree(&engine, &run).await;
        let report = report(&engine, &run).await;
        let status = if id == "odd" { Status::Failed } else { Status::Completed };
        assert_eq!(report.head.status, status, "{id} is the run number {turn}");
        assert_eq!(report.run.choice.map(|choice| choice.chosen), Some(id == "odd"));
    }
    assert_eq!(pays.load(Ordering::SeqCst), 2);
    assert!(sides.0.load(Ordering::SeqCst) >= 3, "it hears of the answers that were used");
    kit.fsck().await;
}
