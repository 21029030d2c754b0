//! Performs the calls of one held run: sends them, bounds their time, catches what goes wrong in an adapter.
//!
//! Knows nothing of what follows from a result.

mod about;
mod ramped;
mod waiting;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::Instrument;
use windlass_core::contract::{Class, RampBudget};
use windlass_core::effect::{Call, OpenCall, Outcome, Spent};
use windlass_core::escrow::{Draw, Drawn};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::file;
use windlass_core::ids::{EffectId, Name, RunId};
use windlass_core::input::{Input, Sent};
use windlass_core::limits::VALUE_BYTES_MAX;
use windlass_core::machine::{HookKind, Machine, Priority};
use windlass_core::request::{self, ModelRequest};
use windlass_core::run::Run;
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Hook, HookEvent, Invocation, Permit, Tool};

use about::{About, Flight};
use waiting::Waiting;

use super::budgets;
use super::departure::Departure;
use super::engine::Core;
use super::member::Member;
use super::observe::{Leaving, Point, span};
use super::rates::{self, unsent};
use super::switches::Switches;
use crate::recover::is_marked;

/// How much longer than its own timeout an adapter may take before it is cut off, in milliseconds. Adapters end by
/// themselves and know better what happened.
const TIMEOUT_SLACK_MS: u64 = 500;

/// An attempt that ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) effect: EffectId,
    pub(super) attempt: u32,
    pub(super) end: End,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// A call has a result.
    Settled(Outcome, Spent),
    /// A draw on budgets was answered.
    Drawn(Drawn),
}

impl Done {
    pub(super) fn into_input(self) -> Input {
        match self.end {
            End::Settled(outcome, spent) => {
                Input::Settled { effect: self.effect, attempt: self.attempt, outcome, spent }
            }
            End::Drawn(answer) => Input::Drawn { number: self.effect, answer },
        }
    }
}

/// An attempt that is out or waits for a slot.
#[derive(Debug)]
struct Out {
    attempt: u32,
    marked: bool,
    class: Class,
    abort: AbortHandle,
    sent: Arc<AtomicBool>,
    /// It is a draw on budgets, which anyone makes again by the same name.
    is_draw: bool,
}

/// The calls of one held run.
#[derive(Debug, Default)]
pub(super) struct Calls {
    futures: FuturesUnordered<BoxFuture<'static, Option<Done>>>,
    out: BTreeMap<EffectId, Out>,
}

impl Calls {
    /// Whether no call is out.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn contains(&self, effect: EffectId) -> bool {
        self.out.contains_key(&effect)
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Starts an open call of `run`. It makes progress when [`Calls::next`] is polled.
    pub(super) fn start(
        &mut self,
        core: &Arc<Core>,
        member: &Arc<Member>,
        machine: &Machine,
        (run, class): (&Run, Priority),
        effect: EffectId,
    ) {
        let Some(open) = run.calls.get(&effect) else { return };
        let job = job(core, machine, run, effect, open);
        let sent = Arc::new(AtomicBool::new(false));
        let attempt = Attempt {
            core: Arc::clone(core),
            member: Arc::clone(member),
            run: run.id().clone(),
            effect,
            number: open.attempt,
            kind: open.call.kind(),
            class: open.class,
            tenant: run.start.scope.tenant.clone(),
            marked: is_marked(open),
            timeout_ms: open.timeout_ms,
            sent: Arc::clone(&sent),
            about: core.parts.settings.meter.is_some().then(|| About::of(machine, run, effect, open)),
            asks: rates::asks(core, machine, (run, class), open).map(|asks| Box::new((asks, open.call.clone()))),
            ramp: ramped::budget(&core.parts.catalog, machine, open),
        };
        let (abort, registration) = AbortHandle::new_pair();
        let future = attempt.make(job).instrument(span(&open.call, run.id().as_str()));
        self.futures.push(Abortable::new(future, registration).map(Result::ok).boxed());
        let (attempt, marked) = (open.attempt, is_marked(open));
        self.out.insert(effect, Out { attempt, marked, class: open.class, abort, sent, is_draw: false });
    }

    /// Starts a draw on budgets. It makes progress when [`Calls::next`] is polled.
    pub(super) fn start_draw(&mut self, core: &Arc<Core>, number: EffectId, draw: Draw) {
        let (abort, registration) = AbortHandle::new_pair();
        let drawing = budgets::draw(Arc::clone(core), draw);
        let future = async move { Done { effect: number, attempt: 0, end: End::Drawn(drawing.await) } };
        self.futures.push(Abortable::new(future, registration).map(Result::ok).boxed());
        let out = Out { attempt: 0, marked: false, class: Class::Read, abort, sent: Arc::default(), is_draw: true };
        self.out.insert(number, out);
    }

    /// The next attempt that ends; pending while none does. Only of use while a call is out.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            match self.futures.next().await {
                Some(Some(done)) => {
                    let current = self.out.get(&done.effect).is_some_and(|out| out.attempt == done.attempt);
                    if current {
                        self.out.remove(&done.effect);
                        return done;
                    }
                }
                // An abandoned attempt.
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Drops an attempt. Its result will not come. Gives back its number when it is marked as sent.
    pub(super) fn abandon(&mut self, effect: EffectId) -> Option<u32> {
        let out = self.out.remove(&effect)?;
        out.abort.abort();
        out.marked.then_some(out.attempt)
    }

    /// Takes back attempts of calls that change something and have not left, when a switch is on. Whether there were any.
    pub(super) fn take_back(&mut self, switches: &Switches, tenant: &Name) -> bool {
        if switches.held(tenant, Class::Write).is_none() {
            return false;
        }
        let back: Vec<EffectId> = self
            .out
            .iter()
            .filter(|(_, out)| out.class != Class::Read && !out.sent.load(Ordering::Acquire))
            .map(|(effect, _)| *effect)
            .collect();
        for effect in &back {
            self.abandon(*effect);
        }
        !back.is_empty()
    }

    /// Drops every attempt, and says of each whether it may have left.
    pub(super) fn cut(&mut self) -> Vec<(EffectId, Sent)> {
        let cut = std::mem::take(&mut self.out)
            .into_iter()
            .filter_map(|(effect, out)| {
                out.abort.abort();
                (!out.is_draw).then_some(())?;
                Some((effect, if out.sent.load(Ordering::Acquire) { Sent::Maybe } else { Sent::No }))
            })
            .collect();
        self.futures.clear();
        cut
    }
}

/// What is sent, and to whom.
enum Job {
    Model(Box<ModelRequest>),
    Tool(Arc<dyn Tool>, Invocation),
    Hook(Arc<dyn Hook>, HookEvent),
    /// It is not made: what is read in its place.
    Shadow(Value),
    /// It cannot be sent.
    Refused(Failure),
}

impl Job {
    /// What it is given.
    fn asked(&self) -> Value {
        match self {
            Self::Model(request) => {
                let text = serde_json::to_string(&**request).unwrap_or_default();
                Value::from_json(&text).unwrap_or(Value::Null)
            }
            Self::Tool(_, invocation) => invocation.arguments.clone(),
            Self::Hook(_, event) => event.body.clone(),
            Self::Shadow(_) | Self::Refused(_) => Value::Null,
        }
    }

    /// The same call once more, where a permit can hold it back.
    fn spare(&self) -> Option<Self> {
        match self {
            Self::Tool(tool, invocation) => Some(Self::Tool(Arc::clone(tool), invocation.clone())),
            Self::Hook(hook, event) => Some(Self::Hook(Arc::clone(hook), event.clone())),
            Self::Model(_) | Self::Shadow(_) | Self::Refused(_) => None,
        }
    }
}

fn job(core: &Core, machine: &Machine, run: &Run, effect: EffectId, open: &OpenCall) -> Job {
    let lost = || {
        let message = format!("the body of call {effect} cannot be rebuilt from the run");
        Job::Refused(Failure::new(Code::InternalInvariant, message))
    };
    if let Some(stub) = &open.shadow {
        return Job::Shadow(stub.clone());
    }
    match &open.call {
        Call::Model { .. } => {
            request::model_request(machine, run, effect).map_or_else(lost, |body| Job::Model(Box::new(body)))
        }
        Call::Hook { hook, event } => hook_job(core, machine, run, effect, open, (hook, *event)),
        Call::Tool { hook: Some(hook), .. } => hook_job(core, machine, run, effect, open, (hook, HookKind::ToolCall)),
        Call::Tool { tool: name, hook: None, .. } | Call::Action { action: name } | Call::Verify { tool: name, .. } => {
            let Some(tool) = core.parts.catalog.tools.get(name) else {
                return Job::Refused(Failure::new(
                    Code::ToolUnknown,
                    format!("`{name}` is not configured in this process"),
                ));
            };
            let Some(arguments) = request::arguments(machine, run, effect) else { return lost() };
            let invocation = Invocation {
                name: name.clone(),
                arguments,
                idempotency_key: effect.key(run.id()),
                trace: run.start.caller.trace.clone(),
                run: run.id().clone(),
                tenant: run.start.scope.tenant.clone(),
                attempt: open.attempt,
                timeout_ms: open.timeout_ms,
                output_bytes_max: open.output_bytes_max,
                permit: Permit::default(),
            };
            Job::Tool(Arc::clone(tool), invocation)
        }
    }
}

fn hook_job(
    core: &Core,
    machine: &Machine,
    run: &Run,
    effect: EffectId,
    open: &OpenCall,
    (name, kind): (&windlass_core::ids::Name, HookKind),
) -> Job {
    let Some(hook) = core.parts.catalog.hook(name) else {
        let message = format!("hook `{name}` is not configured in this process");
        return Job::Refused(Failure::new(Code::HookUnreachable, message));
    };
    let Some(body) = request::hook_body(machine, run, effect, hook.include_machine()) else {
        let message = format!("the body of call {effect} cannot be rebuilt from the run");
        return Job::Refused(Failure::new(Code::InternalInvariant, message));
    };
    let event = HookEvent {
        hook: name.clone(),
        kind,
        body,
        idempotency_key: effect.key(run.id()),
        trace: run.start.caller.trace.clone(),
        tenant: run.start.scope.tenant.clone(),
        labels: run.labels.kept.then(|| run.labels.marks.below(&["context".into()])),
        hidden: run.hidden.clone(),
        timeout_ms: open.timeout_ms,
        output_bytes_max: open.output_bytes_max,
        permit: Permit::default(),
    };
    Job::Hook(Arc::clone(hook), event)
}

/// One attempt on its way.
struct Attempt {
    core: Arc<Core>,
    member: Arc<Member>,
    run: RunId,
    effect: EffectId,
    number: u32,
    kind: &'static str,
    class: Class,
    tenant: Name,
    marked: bool,
    timeout_ms: u64,
    sent: Arc<AtomicBool>,
    /// What meters are told of it.
    about: Option<About>,
    /// The permits of rates that it waits for.
    asks: Option<Box<(crate::rates::desk::Call, Call)>>,
    /// The tool whose ramp has a budget, and that.
    ramp: Option<(Name, RampBudget)>,
}

impl Attempt {
    /// Makes the call, and tells the meters.
    async fn metered(&self, job: Job, permit: Permit) -> (Outcome, Spent) {
        let (Some(meter), Some(about)) = (&self.core.parts.settings.meter, &self.about) else {
            return self.bounded(job, permit).await;
        };
        let model = match &job {
            Job::Model(body) => Some((body.provider.clone(), body.model.clone())),
            Job::Tool(..) | Job::Hook(..) | Job::Shadow(_) | Job::Refused(_) => None,
        };
        let leaving = Leaving {
            run: &self.run,
            tenant: &self.tenant,
            user: about.user.as_ref(),
            machine: &about.machine,
            key: &about.key,
            trace: about.trace.as_ref(),
            attempt: self.number,
            kind: self.kind,
            target: &about.target,
            class: self.class,
            arguments: about.arguments,
            model: model.as_ref().map(|(provider, model)| (provider, model)),
        };
        let asked = meter.wants(&leaving).then(|| job.asked());
        meter.leaves(&leaving);
        // Dropped attempts count as ended too: what is in flight must not grow for ever.
        let mut out = Flight {
            meter: &**meter,
            leaving: &leaving,
            unshown: &about.unshown,
            began: self.core.parts.clock.now(),
            since: Instant::now(),
            told: false,
            asked,
        };
        let (outcome, spent) = self.bounded(job, permit).await;
        out.tell(&outcome, &spent);
        (outcome, spent)
    }

    async fn make(self, job: Job) -> Done {
        let (outcome, spent) = match job {
            Job::Refused(failure) => (Outcome::Failed(failure), Spent::Unsent),
            Job::Shadow(stub) => shadowed(stub),
            Job::Model(_) | Job::Tool(..) | Job::Hook(..) => self.send(job).await,
        };
        Done { effect: self.effect, attempt: self.number, end: End::Settled(outcome, spent) }
    }

    async fn send(&self, job: Job) -> (Outcome, Spent) {
        let ticket = match self.asks.as_deref() {
            None => None,
            Some((asks, call)) => match rates::enter(&self.core, asks.clone(), call, &self.sent).await {
                Ok(ticket) => Some(ticket),
                Err(failure) => return unsent(failure),
            },
        };
        let ended = self.send_ramped(job).await;
        if let Some(ticket) = ticket {
            ticket.ended(&ended.1);
        }
        ended
    }

    async fn send_in_turn(&self, mut job: Job) -> (Outcome, Spent) {
        let _slot = self.slot().await;
        let withdrawn = Arc::new(AtomicBool::new(false));
        loop {
            let spare = job.spare();
            let ended = self.send_once(job, &withdrawn).await;
            let held_back = withdrawn.swap(false, Ordering::AcqRel) && !may_have_left(&ended.0);
            match spare {
                // That it did not leave says nothing about the other side: it leaves once this worker is told that it
                // still has the run, or another worker sends it.
                Some(spare) if held_back => job = spare,
                Some(_) | None => return ended,
            }
            self.sent.store(false, Ordering::Release);
        }
    }

    async fn send_once(&self, job: Job, withdrawn: &Arc<AtomicBool>) -> (Outcome, Spent) {
        // A worker that slept through its lease sends nothing: the call is left to whoever holds the run.
        self.core.switches.pass(&self.tenant, self.class).await;
        self.core.entitled(&self.member).await;
        self.core.pass(Point::BeforeSend(self.kind));
        let permit = self.permit(withdrawn);
        // Others give the word themselves, once the call has its turn.
        if let Job::Hook(..) = job
            && let Err(failure) = permit.depart()
        {
            return (Outcome::Failed(failure), Spent::Unsent);
        }
        self.metered(job, permit).await
    }

    /// Binds a call to the leases of this worker and to the switches: it may leave while they let it. `withdrawn` says
    /// afterwards that it was held back.
    fn permit(&self, withdrawn: &Arc<AtomicBool>) -> Permit {
        let (store, member) = (Arc::clone(&self.core.parts.store), Arc::clone(&self.member));
        let holds = {
            let withdrawn = Arc::clone(withdrawn);
            move || {
                let holds = !member.lost.is_cancelled() && store.is_current(&member.id);
                withdrawn.fetch_or(!holds, Ordering::AcqRel);
                holds
            }
        };
        // A model call changes nothing that another worker would see: whether this one still has the run is looked at
        // before it waits for its turn, and when its result is recorded.
        let looks = (self.kind != "model").then(|| holds.clone());
        let departure = Departure {
            core: Arc::clone(&self.core),
            kind: self.kind,
            run: self.run.clone(),
            effect: self.effect,
            number: self.number,
            marked: self.marked,
            sent: Arc::clone(&self.sent),
        };
        let (withdrawn, tenant, class) = (Arc::clone(withdrawn), self.tenant.clone(), self.class);
        Permit::new(holds).departing(move || {
            if departure.sent.load(Ordering::Acquire) {
                return Ok(());
            }
            if let Some(holds) = &looks {
                let is_off = departure.core.switches.held(&tenant, class).is_some();
                withdrawn.fetch_or(is_off, Ordering::AcqRel);
                if is_off || !holds() {
                    return Err(Failure::new(Code::RunAttemptLost, "the call was held back").retry(Retry::Backoff));
                }
            }
            departure.note()
        })
    }

    /// Makes the call within its time.
    async fn bounded(&self, job: Job, permit: Permit) -> (Outcome, Spent) {
        let limit = Duration::from_millis(self.timeout_ms.saturating_add(TIMEOUT_SLACK_MS));
        let ended = tokio::time::timeout(limit, AssertUnwindSafe(self.call(job, permit)).catch_unwind()).await;
        self.core.pass(Point::AfterSend(self.kind));
        match ended {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                tracing::error!(run_id = %self.run, effect = self.effect.0, kind = self.kind, "an adapter panicked");
                let message = format!("the adapter panicked: {}", panic_text(&*panic));
                self.cut_off(Failure::new(Code::InternalInvariant, message).retry(Retry::Unknown))
            }
            Err(_) => self.cut_off(self.overdue()),
        }
    }

    /// The end of an attempt that was broken off: nothing is in doubt when it had not left.
    fn cut_off(&self, failure: Failure) -> (Outcome, Spent) {
        if self.sent.load(Ordering::Acquire) {
            return (Outcome::Failed(failure), Spent::Unknown);
        }
        (Outcome::Failed(failure.retry(Retry::Backoff)), Spent::Unsent)
    }

    async fn slot(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        if let Ok(permit) = self.core.call_slots.try_acquire() {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.core);
        // The semaphore is never closed.
        self.core.call_slots.acquire().await.ok()
    }

    async fn call(&self, job: Job, permit: Permit) -> (Outcome, Spent) {
        let known = Spent::Known { tokens: 0, cost_micros: 0 };
        let returned = |result: Result<_, Failure>| {
            result.and_then(|value| self.with_files(value)).map_or_else(Outcome::Failed, Outcome::Returned)
        };
        match job {
            Job::Model(body) => {
                let result = self.core.parts.model.attempt(*body, permit).await;
                let outcome = result.outcome.map_or_else(Outcome::Failed, |reply| Outcome::Replied(Box::new(reply)));
                (outcome, result.spent)
            }
            Job::Tool(tool, invocation) => (returned(tool.attempt(Invocation { permit, ..invocation }).await), known),
            Job::Hook(hook, event) => (returned(hook.call(HookEvent { permit, ..event }).await), known),
            Job::Shadow(stub) => shadowed(stub),
            Job::Refused(failure) => (Outcome::Failed(failure), Spent::Unsent),
        }
    }

    /// What was answered, with its files checked.
    fn with_files(&self, answer: Value) -> Result<Value, Failure> {
        let code = if matches!(self.kind, "hook" | "action") { Code::HookBadAnswer } else { Code::ToolFailed };
        match file::completed(&answer).map_err(|why| Failure::new(code, format!("the answer holds {why}")))? {
            Some(whole) if whole.size_bytes() > VALUE_BYTES_MAX => {
                let message =
                    format!("the answer has more than {VALUE_BYTES_MAX} bytes with what is told of its files");
                Err(Failure::new(code, message))
            }
            Some(whole) => Ok(whole),
            None => Ok(answer),
        }
    }

    fn overdue(&self) -> Failure {
        let (code, retry) = match self.kind {
            "model" => (Code::ProviderTimeout, Retry::Backoff),
            "hook" | "action" => (Code::HookTimeout, Retry::Unknown),
            _ => (Code::ToolTimeout, Retry::Unknown),
        };
        Failure::new(code, format!("no answer within {} ms", self.timeout_ms)).retry(retry)
    }
}

/// The end of a call that is not made.
fn shadowed(stub: Value) -> (Outcome, Spent) {
    (Outcome::Returned(stub), Spent::Known { tokens: 0, cost_micros: 0 })
}

/// Whether an end leaves open that the call reached the other side.
fn may_have_left(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(failure) => failure.retry == Retry::Unknown,
        Outcome::Replied(_) | Outcome::Returned(_) => true,
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
