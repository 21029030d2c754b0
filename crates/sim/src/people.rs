//! The people of a simulation: the caller who submits runs, whoever answers what runs wait for, and the operator who lets
//! quarantined runs go on. They ask until they are answered, as people do.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use windlass_core::approval::Reply;
use windlass_core::budget::Amounts;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::store::{Head, Message, Put, Query, Signal, Store, StoreError, WaitRow};
use windlass_runtime::{Submission, SubmitError};

use crate::clock::BEGIN_MS;
use crate::faults::Fault;
use crate::outside::truth;
use crate::process::Stage;
use crate::store::{SimStore, at_once};

/// Runs looked at at a time.
const PAGE: usize = 10_000;

/// Asks as one process after another, until one is answered. A process may die at it.
async fn persist<T, F>(stage: &Arc<Stage>, name: &str, mut ask: impl FnMut(usize) -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        let process = stage.world.spawn(name);
        tokio::select! {
            biased;
            () = stage.world.doomed(process) => {}
            answer = ask(process) => if let Ok(answer) = answer { return answer },
        }
        stage.world.sleep(500).await;
    }
}

/// Submits a run.
///
/// # Errors
/// A submission that no store could take.
pub(crate) async fn submit(stage: &Arc<Stage>, id: &str) -> Result<(), SubmitError> {
    let submission = Submission {
        run_id: Some(RunId::stored(id)),
        ..Submission::new(stage.setup.bundle().clone(), Arc::clone(stage.setup.program()), stage.setup.input().clone())
    };
    let ask = |process| {
        let (engine, submission) = (stage.engine(process), submission.clone());
        async move {
            match engine.submit(submission).await {
                Err(SubmitError::Store(error)) => Err(error),
                answer => Ok(answer.map(|_| ())),
            }
        }
    };
    persist(stage, "caller", ask).await
}

/// Whoever looks after the runs until all have ended.
#[derive(Debug)]
pub(crate) struct People {
    stage: Arc<Stage>,
    answered: BTreeSet<(RunId, EffectId)>,
    /// Runs that were let go on, by the epoch at which.
    requeued: BTreeSet<(RunId, u64)>,
    tasks: tokio::task::JoinSet<()>,
}

impl People {
    pub(crate) fn new(stage: &Arc<Stage>) -> Self {
        let tasks = tokio::task::JoinSet::new();
        Self { stage: Arc::clone(stage), answered: BTreeSet::new(), requeued: BTreeSet::new(), tasks }
    }

    /// Runs that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<Head> {
        let query = Query { limit: PAGE, ..Query::default() };
        let page = at_once(self.stage.world.store.list(query)).unwrap_or_default();
        page.heads.into_iter().filter(|head| !head.status.is_final()).collect()
    }

    /// Looks after the runs until all have ended, or until time is up.
    pub(crate) async fn look_after(&mut self, deadline_ms: u64) {
        let world = Arc::clone(&self.stage.world);
        loop {
            let progress = world.progress.notified();
            let left = self.unfinished();
            if left.is_empty() || world.is_runaway() {
                return;
            }
            for head in &left {
                self.answer(head);
            }
            let rest = deadline_ms.saturating_sub(world.now_ms());
            if rest == 0 {
                return;
            }
            tokio::select! {
                biased;
                () = progress => {}
                () = world.sleep(rest) => {}
            }
        }
    }

    /// Answers what a run waits for.
    fn answer(&mut self, head: &Head) {
        let world = &self.stage.world;
        if head.quarantine.is_some() && self.requeued.insert((head.id.clone(), head.epoch)) {
            let (stage, run) = (Arc::clone(&self.stage), head.id.clone());
            self.tasks.spawn(async move {
                stage.world.sleep(stage.world.draw(|rng| rng.u64(1_000..60_000))).await;
                let ask = |process| {
                    let (store, run) = (stage.store(process), run.clone());
                    async move { store.requeue(run).await }
                };
                persist(&stage, "operator", ask).await;
            });
        }
        let waits = at_once(world.store.waits(head.id.clone(), false)).unwrap_or_default();
        for (run, wait) in waits {
            let is_expected = match wait.kind {
                // One that may time out does, unless something is to be said.
                WaitKind::Signal => wait.due.is_none() || !self.stage.setup.data(&wait.channel).is_null(),
                WaitKind::Outcome { .. }
                | WaitKind::ToolChanged { .. }
                | WaitKind::Approval { .. }
                | WaitKind::Budget { .. }
                | WaitKind::Ceiling { .. }
                | WaitKind::Transition { .. } => true,
            };
            if is_expected && self.answered.insert((run.clone(), wait.effect)) {
                self.tasks.spawn(say(Arc::clone(&self.stage), run, wait));
            }
        }
    }
}

/// Says what a wait is for.
async fn say(stage: Arc<Stage>, run: RunId, wait: WaitRow) {
    let world = &stage.world;
    world.sleep(world.draw(|rng| rng.u64(0..2_000))).await;
    let data = match wait.kind {
        WaitKind::Approval { shown, .. }
        | WaitKind::Budget { shown, .. }
        | WaitKind::Ceiling { shown, .. }
        | WaitKind::Transition { shown, .. } => {
            return approve(&stage, run, wait.effect, shown).await;
        }
        WaitKind::Signal | WaitKind::ToolChanged { .. } => stage.setup.data(&wait.channel),
        WaitKind::Outcome { effect } => {
            let key = effect.key(&run);
            truth(world, &key, stage.setup.result(world, &key).as_ref())
        }
    };
    let id: Name = format!("{run}{}", wait.effect).into();
    let ask = |process| {
        let store = stage.store(process);
        let (channel, at) = (wait.channel.clone(), Timestamp(BEGIN_MS).plus_ms(world.now_ms()));
        let signal = Signal { id: id.clone(), channel, run: Some(run.clone()), data: data.clone(), at };
        async move { store.signal(signal).await }
    };
    persist(&stage, "person", ask).await;
    if world.strikes(Fault::Duplicate) {
        world.sleep(world.draw(|rng| rng.u64(0..5_000))).await;
        persist(&stage, "person", ask).await;
    }
}

/// Agrees to a call that waits for that.
async fn approve(stage: &Arc<Stage>, run: RunId, wait: EffectId, shown: Digest) {
    let world = &stage.world;
    let reply = Reply {
        wait,
        approve: true,
        by: "person".into(),
        reason: "".into(),
        shown,
        arguments: None,
        raise: Amounts::ZERO,
        at: None,
    };
    let message = Message { to: run, id: reply.delivery_id(), input: Input::Approved(Box::new(reply)) };
    let ask = |process| {
        let (store, message) = (stage.store(process), message.clone());
        async move { store.deliver(message).await }
    };
    persist(stage, "person", ask).await;
    if world.strikes(Fault::Duplicate) {
        world.sleep(world.draw(|rng| rng.u64(0..5_000))).await;
        persist(stage, "person", ask).await;
    }
}

/// Pauses a run for a while, or cancels it.
pub(crate) async fn meddle(stage: Arc<Stage>, run: RunId, usual_ms: u64) {
    let world = &stage.world;
    let (pauses, cancels) = world.draw(|rng| (rng.u8(..4) == 0, rng.u8(..8) == 0));
    let moment = || world.draw(|rng| rng.u64(0..usual_ms.max(2_000) * 2));
    let tell = |id: &str, input: Input| {
        let message = Message { to: run.clone(), id: id.into(), input };
        let stage = Arc::clone(&stage);
        async move {
            let ask = |process| {
                let (store, message) = (stage.store(process), message.clone());
                async move { store.deliver(message).await }
            };
            persist(&stage, "person", ask).await
        }
    };
    if pauses {
        world.sleep(moment()).await;
        tell("pause", Input::Pause { reason: "a look".into() }).await;
        world.sleep(moment().min(60_000)).await;
        tell("unpause", Input::Unpause).await;
    }
    if cancels {
        world.sleep(moment()).await;
        tell("cancel", Input::Cancel { reason: "not wanted".into() }).await;
    }
}

/// Several people change one object at once.
pub(crate) async fn write_objects(stage: Arc<Stage>, who: u64) {
    let world = &stage.world;
    let (kind, key) = (Name::from("note"), Name::from("shared"));
    for turn in 0..4_u64 {
        world.sleep(world.draw(|rng| rng.u64(0..3_000))).await;
        let process = world.spawn(&format!("writer-{who}"));
        let store: SimStore = stage.store(process);
        let attempt = async {
            let now = store.object(kind.clone(), key.clone()).await?;
            let expected = now.map_or(0, |object| object.revision);
            let bytes = Some(Value::list(vec![Value::count(who), Value::count(turn)]).canonical().into_bytes());
            store.put_object(Put { kind: kind.clone(), key: key.clone(), expected, bytes }).await
        };
        tokio::select! {
            biased;
            () = world.doomed(process) => {}
            _answer = attempt => {}
        }
    }
}
