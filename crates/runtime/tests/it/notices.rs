//! Notices to people: told once by however many processes, again until they are taken, and after a crash.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use windlass_core::approval::{Reply, Terms};
use windlass_core::budget::Amounts;
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::effect::WaitKind;
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::notify::{Channel, Notice, NoticeKind};
use windlass_ports::store::Store;
use windlass_runtime::{Engine, Meter, Notifier, Stop};

use super::kit::{Kit, acting, answer, contract, done, report, tree};

/// A channel that keeps what it took, after it refused so many times.
#[derive(Debug)]
struct Phone {
    name: Name,
    taken: Mutex<Vec<Notice>>,
    refuses: AtomicU32,
    /// It takes a notice and never answers.
    hangs: AtomicU32,
}

impl Phone {
    fn new(refuses: u32, hangs: u32) -> Arc<Self> {
        Self::named("ops", refuses, hangs)
    }

    fn named(name: &str, refuses: u32, hangs: u32) -> Arc<Self> {
        let (refuses, hangs) = (AtomicU32::new(refuses), AtomicU32::new(hangs));
        Arc::new(Self { name: name.into(), taken: Mutex::default(), refuses, hangs })
    }

    fn taken(&self) -> Vec<Notice> {
        self.taken.lock().expect("lock").clone()
    }
}

fn once_less(number: &AtomicU32) -> bool {
    number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Channel for Phone {
    fn name(&self) -> &Name {
        &self.name
    }

    fn wants(&self, _: &Notice) -> bool {
        true
    }

    fn send<'a>(&'a self, notice: &'a Notice, _: Timestamp) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            if once_less(&self.refuses) {
                return Err(Failure::new(Code::HookUnreachable, "nobody is there").retry(Retry::Backoff));
            }
            self.taken.lock().expect("lock").push(notice.clone());
            if once_less(&self.hangs) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    }
}

/// A kit whose runs ask about the action `pay`.
fn kit() -> Kit {
    let mut kit = Kit::new();
    let pay = contract("pay", Class::Write, Idempotency::None);
    kit.tool(Contract { approval: Terms { always: true, ..Terms::default() }, ..pay }, |_| async { answer(1) });
    kit.machine("main", vec![acting("pay", "pay", "done"), done()]);
    kit
}

fn notifier(phone: &Arc<Phone>) -> Arc<Notifier> {
    Arc::new(Notifier::new(vec![Arc::clone(phone) as Arc<dyn Channel>]))
}

/// Notices for as long as the test says.
async fn notify_for(notifier: &Notifier, engine: &Engine, ms: u64) {
    let stop = Stop::new();
    let _over = tokio::time::timeout(std::time::Duration::from_millis(ms), notifier.drive(engine, &stop)).await;
}

async fn approve(kit: &Kit, engine: &Engine, run: &RunId) {
    let found = report(engine, run).await;
    let (wait, open) = found.run.waits.iter().next().expect("a question");
    let WaitKind::Approval { shown, .. } = open.kind else { panic!("{open:?}") };
    let reply = Reply {
        wait: *wait,
        approve: true,
        by: "ann".into(),
        reason: "".into(),
        shown,
        arguments: None,
        raise: Amounts::ZERO,
        at: None,
    };
    engine.answer(run, reply).await.expect("answered");
    tree(engine, run).await;
    kit.fsck().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_is_told_at_once_and_once_by_two_processes() {
    let mut kit = kit();
    let phone = Phone::new(0, 0);
    let (one, two) = (notifier(&phone), notifier(&phone));
    kit.settings.meter = Some(Arc::clone(&one) as Arc<dyn Meter>);
    let engine = kit.engine();
    let other = kit.another();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    tokio::join!(notify_for(&one, &engine, 200_000), notify_for(&two, &other, 200_000));
    let taken = phone.taken();
    assert_eq!(taken.len(), 1, "{taken:?}");
    let question = taken[0].question.clone().expect("a question");
    assert_eq!((taken[0].kind, &*question.target, &*question.rule), (NoticeKind::Approval, "pay", "contract"));
    assert!(!serde_json::to_string(&taken[0]).expect("JSON").contains("arguments"));
    approve(&kit, &engine, &run).await;
    notify_for(&one, &engine, 4 * 3_600_000).await;
    assert_eq!(phone.taken().len(), 1, "nothing is told twice, and a run that completed is no news");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_down_gets_it_later_and_no_run_waits() {
    let mut kit = kit();
    let phone = Phone::new(3, 0);
    let notifier = notifier(&phone);
    kit.settings.meter = Some(Arc::clone(&notifier) as Arc<dyn Meter>);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    notify_for(&notifier, &engine, 1_000).await;
    assert_eq!(phone.taken().len(), 0);
    // Another process takes it up where this one left it.
    let other = kit.another();
    notify_for(&self::notifier(&phone), &other, 60_000).await;
    assert_eq!(phone.taken().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_dies_between_sending_and_recording_is_followed_by_the_same_id() {
    let kit = kit();
    let phone = Phone::new(0, 1);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    notify_for(&notifier(&phone), &engine, 5_000).await;
    assert_eq!(phone.taken().len(), 1, "it arrived, and nobody wrote that down");
    let other = kit.another();
    notify_for(&notifier(&phone), &other, 60_000).await;
    let taken = phone.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0], taken[1], "the other side can drop the second");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_was_answered_meanwhile_is_not_told() {
    let kit = kit();
    let phone = Phone::new(1, 0);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    notify_for(&notifier(&phone), &engine, 1_000).await;
    approve(&kit, &engine, &run).await;
    notify_for(&notifier(&phone), &engine, 3_600_000).await;
    assert_eq!(phone.taken().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_by_whoever_looks_next() {
    let mut kit = Kit::new();
    kit.tool(contract("pay", Class::Write, Idempotency::None), |_| async {
        Err(Failure::new(Code::ToolFailed, "the card 4111 is empty"))
    });
    kit.machine("main", vec![acting("pay", "pay", "done"), done()]);
    let phone = Phone::new(0, 0);
    // The process that drives has no notifier that hears of it: as if it died right after the commit.
    let engine = kit.engine();
    notify_for(&notifier(&phone), &engine, 1_000).await;
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    assert_eq!(report(&engine, &run).await.head.status, Status::Failed);
    let other = kit.another();
    notify_for(&notifier(&phone), &other, 90_000).await;
    let taken = phone.taken();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((taken[0].kind, taken[0].code.as_deref()), (NoticeKind::Failed, Some("tool.failed")));
    assert!(!serde_json::to_string(&taken[0]).expect("JSON").contains("4111"), "no message of a failure leaves");
    notify_for(&notifier(&phone), &other, 4 * 3_600_000).await;
    assert_eq!(phone.taken().len(), 1, "its record outlives the looks that still see it");
}

#[tokio::test(start_paused = true)]
async fn what_no_one_run_is_the_cause_of_is_told_once() {
    let kit = Kit::new();
    let (phone, engine) = (Phone::new(1, 0), kit.engine());
    let run = windlass_core::ids::RunId::stored("r");
    let notice = Notice {
        id: "alarm-1".into(),
        kind: NoticeKind::Policy,
        at_ms: windlass_runtime::store_time(&*kit.store).await.expect("a time").0,
        tenant: "default".into(),
        machine: "main".into(),
        run_id: run.clone(),
        root_run_id: run,
        state: None,
        text: "the candidate was withdrawn".into(),
        question: None,
        code: None,
    };
    for _ in 0..2 {
        windlass_runtime::alarm(&*kit.store, &notice).await.expect("stored");
    }
    notify_for(&notifier(&phone), &engine, 4 * 3_600_000).await;
    assert_eq!(phone.taken(), [notice], "at the second try, and no more");
    // It is forgotten in the end, with the record that it was told.
    notify_for(&notifier(&phone), &engine, 8 * 86_400_000).await;
    for kind in [windlass_runtime::ALARMS, windlass_runtime::NOTICES] {
        assert_eq!(Store::objects(&*kit.store, kind.into(), None, 10).await.expect("read"), [], "{kind}");
    }
    assert_eq!(phone.taken().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_hangs_keeps_no_other_waiting() {
    let kit = kit();
    let (hangs, works) = (Phone::named("hangs", 0, u32::MAX), Phone::named("works", 0, 0));
    let engine = kit.engine();
    for n in 0..20 {
        let run = kit.submit(&engine, &format!("r{n}")).await;
        tree(&engine, &run).await;
    }
    let both = [&hangs, &works].map(|phone| Arc::clone(phone) as Arc<dyn Channel>);
    notify_for(&Notifier::new(both.to_vec()), &engine, 1_000).await;
    assert_eq!((hangs.taken().len(), works.taken().len()), (8, 20), "only its own queue stands");
}

/// A channel that takes long for each notice.
#[derive(Debug)]
struct Slow(Arc<Phone>);

impl Channel for Slow {
    fn name(&self) -> &Name {
        self.0.name()
    }

    fn wants(&self, notice: &Notice) -> bool {
        self.0.wants(notice)
    }

    fn send<'a>(&'a self, notice: &'a Notice, at: Timestamp) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            self.0.send(notice, at).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_answered_while_it_waits_for_its_turn_is_not_told() {
    let kit = kit();
    let (quick, slow) = (Phone::named("quick", 0, 0), Phone::named("slow", 0, 0));
    let engine = kit.engine();
    let mut runs = Vec::new();
    for n in 0..20 {
        let run = kit.submit(&engine, &format!("r{n:02}")).await;
        tree(&engine, &run).await;
        runs.push(run);
    }
    let channels: Vec<Arc<dyn Channel>> = vec![Arc::clone(&quick) as _, Arc::new(Slow(Arc::clone(&slow)))];
    let (notifier, stop) = (Notifier::new(channels), Stop::new());
    let told = |phone: &Phone, run: &RunId| phone.taken().iter().any(|notice| notice.run_id == *run);
    let answered = async {
        // Eight are on their way, and the others wait for one of them to end.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!((quick.taken().len(), slow.taken().len()), (20, 0), "one channel does not wait for the other");
        for run in &runs {
            approve(&kit, &engine, run).await;
        }
    };
    let driven = tokio::time::timeout(std::time::Duration::from_secs(300), notifier.drive(&engine, &stop));
    let (_over, ()) = tokio::join!(driven, answered);
    assert_eq!(slow.taken().len(), 8, "those that were on their way: {:?}", slow.taken());
    assert!(runs.iter().all(|run| told(&quick, run)));
    assert_eq!(runs.iter().filter(|run| told(&slow, run)).count(), 8);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_stop_ends_what_is_being_sent() {
    let kit = kit();
    let phone = Phone::new(0, 1);
    let engine = kit.engine();
    let run = kit.submit(&engine, "r").await;
    tree(&engine, &run).await;
    let (notifier, stop) = (notifier(&phone), Stop::new());
    let driving = notifier.drive(&engine, &stop);
    tokio::pin!(driving);
    let ends = |ms| std::time::Duration::from_millis(ms);
    assert!(tokio::time::timeout(ends(1_000), &mut driving).await.is_err());
    assert_eq!(phone.taken().len(), 1);
    stop.graceful.cancel();
    assert!(tokio::time::timeout(ends(1_000), &mut driving).await.is_err(), "it waits for the answer");
    stop.immediate.cancel();
    assert!(tokio::time::timeout(ends(1_000), &mut driving).await.is_ok());
}
