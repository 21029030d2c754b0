//! Where calls wait for permits of rates, and the trips to the store that bring them. What is decided there without
//! waiting is in [`crate::rates`].
//!
//! A call waits before its time begins and without a slot, so that one limit holds up nobody else. One task makes the trips
//! for all that wait, one after another, and ends when nobody does.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use windlass_core::effect::{Call as Kind, OpenCall, Outcome, Said, Spent};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::Name;
use windlass_core::machine::{Machine, ModelSettings, Priority};
use windlass_core::run::Run;

use super::engine::Core;
use super::observe::Tally;
use crate::rates::desk::{Call, Desk, Entered, Shed, Verdict};
use crate::rates::{Caller, Wanted};

/// How long what is to be given back is collected before it is told, when nobody waits.
const COLLECT: Duration = Duration::from_millis(50);
/// How long a call that may not wait is given for the one trip that asks for it.
const ONE_TRIP: Duration = Duration::from_millis(500);
/// Pause after a trip that failed, when nobody waits, and after one that broke.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the end of a process waits for what is to be given back.
const LAST: Duration = Duration::from_secs(2);

/// Calls of this process that wait for permits.
#[derive(Debug)]
pub(super) struct Gate {
    desk: Mutex<Desk>,
    tellers: Mutex<BTreeMap<u64, oneshot::Sender<Verdict>>>,
    /// A call came, or something is to be told, that nobody knew of when the next trip was planned.
    changed: Notify,
    /// Somebody makes the trips.
    pumping: AtomicBool,
    /// A trip is out: one at a time.
    out: tokio::sync::Mutex<()>,
    began: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            desk: Mutex::default(),
            tellers: Mutex::default(),
            changed: Notify::new(),
            pumping: AtomicBool::new(false),
            out: tokio::sync::Mutex::default(),
            began: Instant::now(),
        }
    }
}

impl Gate {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tellers(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Verdict>>> {
        self.tellers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that wait.
    pub(super) fn waiting(&self) -> usize {
        self.desk().waiting()
    }
}

/// Why calls of a model so called would wait for now, of a run of a class; none where nothing is known against them.
pub(super) fn dry(core: &Core, run: &Run, class: Priority, settings: &ModelSettings) -> Option<Name> {
    let limits = &core.parts.settings.rates;
    if limits.all().is_empty() {
        return None;
    }
    let scope = &run.start.scope;
    let wanted = limits.of(&Caller {
        tenant: &scope.tenant,
        user: scope.user.as_deref(),
        model: Some((&settings.provider, &settings.model)),
        tool: None,
        tokens: 1,
    });
    let ms = core.gate.desk().dry(core.gate.now(), &wanted, class)?;
    Some(format!("its rate has nothing left for {ms} ms more").into())
}

/// What an open call of a run of a class asks for; none where no limit is for it.
pub(super) fn asks(core: &Core, machine: &Machine, (run, class): (&Run, Priority), open: &OpenCall) -> Option<Call> {
    let limits = &core.parts.settings.rates;
    if limits.all().is_empty() {
        return None;
    }
    let scope = &run.start.scope;
    let settings = match &open.call {
        Kind::Model { agent, .. } => match open.route.as_deref() {
            Some(route) => Some(&route.settings),
            None => machine.agents.get(agent).map(|agent| &agent.model),
        },
        _ => None,
    };
    let tool = match &open.call {
        Kind::Tool { tool, .. } | Kind::Verify { tool, .. } => Some(&**tool),
        Kind::Action { action } => Some(&**action),
        Kind::Model { .. } | Kind::Hook { .. } => None,
    };
    if settings.is_none() && tool.is_none() {
        return None;
    }
    let wanted = limits.of(&Caller {
        tenant: &scope.tenant,
        user: scope.user.as_deref(),
        model: settings.map(|settings| (&*settings.provider, &*settings.model)),
        tool,
        tokens: open.reserved.tokens,
    });
    if wanted.parts.is_empty() {
        return None;
    }
    let patience_ms = if goes_on(core, machine, run, open) { 0 } else { wanted.wait_ms.unwrap_or(open.timeout_ms) };
    Some(Call {
        wanted,
        class,
        tenant: scope.tenant.clone(),
        run: run.id().clone(),
        since: core.parts.clock.now(),
        patience_ms,
    })
}

/// Whether a call that is turned away goes to the next link of its chain, rather than to wait here.
fn goes_on(core: &Core, machine: &Machine, run: &Run, open: &OpenCall) -> bool {
    let (Kind::Model { agent, .. }, Some(route)) = (&open.call, open.route.as_deref()) else { return false };
    let place = route.link as usize;
    let is_last = route.candidates.iter().skip(place + 1).all(|candidate| candidate.denied);
    let chain = machine.agents.get(agent).and_then(|agent| core.parts.model.chain(&run.overrides.settings(agent)));
    let link = chain.as_ref().and_then(|chain| chain.links.get(place)).filter(|link| link.name == route.name);
    !is_last && link.is_some_and(|link| link.on.contains(&Code::ProviderRateLimited))
}

/// Permits of a call. Given back when it is dropped before the call has left.
pub(super) struct Ticket {
    core: Arc<Core>,
    wanted: Wanted,
    /// Whether the call has left.
    sent: Arc<AtomicBool>,
    told: bool,
}

impl Ticket {
    /// The call ended.
    pub(super) fn ended(mut self, spent: &Spent) {
        let used = match spent {
            Spent::Nothing => Some(Said::Exactly(0)),
            Spent::Known { tokens, .. } => Some(Said::Exactly(*tokens)),
            Spent::Metered { tokens, .. } => Some(*tokens),
            Spent::Unsent | Spent::Unknown => None,
        };
        self.tell(!matches!(spent, Spent::Unsent), used);
    }

    fn tell(&mut self, may_have_left: bool, used: Option<Said>) {
        let left = may_have_left && self.sent.load(Ordering::Acquire);
        self.told = true;
        self.core.gate.desk().ended(&self.wanted, left, used);
        pump(&self.core);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.told {
            self.tell(true, None);
        }
    }
}

/// A call that waits. Waits no longer when it is dropped.
struct Place<'a> {
    core: &'a Arc<Core>,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let gate = &self.core.gate;
        let unheard = gate.tellers().remove(&self.number);
        if unheard.is_some() {
            gate.desk().leave(self.number);
            pump(self.core);
        }
    }
}

/// Waits for what a call asks for. `sent` is set once the call leaves.
///
/// # Errors
/// Why it is turned away: it was not sent, and costs nothing.
pub(super) async fn enter(
    core: &Arc<Core>,
    call: Call,
    kind: &Kind,
    sent: &Arc<AtomicBool>,
) -> Result<Ticket, Failure> {
    let gate = &core.gate;
    let (wanted, until) = (call.wanted.clone(), Instant::now() + Duration::from_millis(call.patience_ms));
    let (teller, told) = oneshot::channel();
    let entered = {
        let mut desk = gate.desk();
        let entered = desk.enter(gate.now(), call);
        // Under the same lock: no verdict comes before there is somebody to tell it to.
        if let Entered::Waits(number) = entered {
            gate.tellers().insert(number, teller);
        }
        entered
    };
    let verdict = match entered {
        Entered::Now(verdict) => verdict,
        Entered::Waits(number) => {
            core.count(Tally::RateWaited, 1);
            wait(core, number, told, until).await
        }
    };
    match verdict {
        Verdict::Go => Ok(Ticket { core: Arc::clone(core), wanted, sent: Arc::clone(sent), told: false }),
        Verdict::Shed(shed) => {
            core.count(Tally::RateShed, 1);
            Err(turned_away(kind, &shed))
        }
    }
}

async fn wait(core: &Arc<Core>, number: u64, mut told: oneshot::Receiver<Verdict>, until: Instant) -> Verdict {
    let _place = Place { core, number };
    pump(core);
    // A call that waits not at all still asks once.
    let until = until.max(Instant::now() + ONE_TRIP);
    if let Ok(verdict) = tokio::time::timeout_at(until, &mut told).await {
        return verdict.unwrap_or(Verdict::Go);
    }
    let gate = &core.gate;
    let shed = gate.desk().give_up(gate.now(), number);
    match shed {
        Some(shed) => Verdict::Shed(shed),
        // It was decided on a moment before.
        None => told.await.unwrap_or(Verdict::Go),
    }
}

/// Sees to it that trips are made while somebody waits or something is to be told.
fn pump(core: &Arc<Core>) {
    let gate = &core.gate;
    let has_work = {
        let desk = gate.desk();
        desk.waiting() > 0 || desk.has_news()
    };
    if !has_work {
        return;
    }
    if gate.pumping.swap(true, Ordering::AcqRel) {
        gate.changed.notify_one();
        return;
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(trips(Arc::clone(core)))),
        Err(_) => gate.pumping.store(false, Ordering::Release),
    }
}

/// What is to be done next.
enum Next {
    Trip,
    Pause(Duration),
    /// Nobody waits; something is to be told.
    Tell,
    Nothing,
}

/// Whoever makes the trips. Where that ends before its time, as with the async runtime that it is on, another one may.
struct Pumping {
    core: Arc<Core>,
    ended: bool,
}

impl Drop for Pumping {
    fn drop(&mut self) {
        if !self.ended {
            self.core.gate.pumping.store(false, Ordering::Release);
        }
    }
}

async fn trips(core: Arc<Core>) {
    let mut pumping = Pumping { core: Arc::clone(&core), ended: false };
    let gate = &core.gate;
    let mut tell_at = None;
    loop {
        let next = {
            let (desk, now) = (gate.desk(), gate.now());
            match desk.due(now) {
                Some(due) if due <= now => Next::Trip,
                Some(due) => Next::Pause(Duration::from_millis(due - now)),
                None if desk.has_news() => Next::Tell,
                None => {
                    // Under the lock of the desk: whoever comes after this starts another task.
                    gate.pumping.store(false, Ordering::Release);
                    pumping.ended = true;
                    Next::Nothing
                }
            }
        };
        match next {
            Next::Nothing => return,
            Next::Trip => {
                tell_at = None;
                if unbroken(&core).await.is_none() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Next::Pause(pause) => {
                tell_at = None;
                changed_within(gate, Instant::now() + pause).await;
            }
            // Whoever comes meanwhile takes what is to be told along.
            Next::Tell => {
                let at = *tell_at.get_or_insert_with(|| Instant::now() + COLLECT);
                if !changed_within(gate, at).await {
                    let answered = unbroken(&core).await == Some(true);
                    tell_at = (!answered).then(|| Instant::now() + AGAIN);
                }
            }
        }
    }
}

/// Waits until something changes, or until a time. Whether something did.
async fn changed_within(gate: &Gate, until: Instant) -> bool {
    tokio::time::timeout_at(until, gate.changed.notified()).await.is_ok()
}

/// A trip that nothing which breaks in it ends for the calls that come after it. Whether it was answered; none where it
/// broke.
async fn unbroken(core: &Core) -> Option<bool> {
    let answered = AssertUnwindSafe(trip(core)).catch_unwind().await;
    if answered.is_err() {
        tracing::error!("a trip for permits of rates broke; calls wait and it is made again");
    }
    answered.ok()
}

/// Gives back what is not used before the process ends, in one trip that nobody waits for long for.
pub(super) async fn flush(core: &Core) {
    let has_news = || {
        let mut desk = core.gate.desk();
        desk.close(core.gate.now());
        desk.has_news()
    };
    if !has_news() {
        return;
    }
    let told = async {
        // One that is out may have it with it.
        drop(core.gate.out.lock().await);
        if has_news() { unbroken(core).await } else { Some(true) }
    };
    if tokio::time::timeout(LAST, told).await != Ok(Some(true)) {
        tracing::warn!(
            "what was not used of rates could not be given back; it stays taken until their buckets have filled"
        );
    }
}

/// One trip. Whether it was answered.
async fn trip(core: &Core) -> bool {
    let gate = &core.gate;
    let _out = gate.out.lock().await;
    let nobody = || format!("p-{:x}", core.parts.clock.seed()).into();
    let by = core.present().map_or_else(nobody, |member| member.id.0.clone());
    let trip = gate.desk().begin(gate.now(), by);
    let taken = core.parts.store.rates().take(trip.take.clone()).await;
    let (answered, verdicts) = {
        let mut desk = gate.desk();
        match taken {
            Ok(taken) => (true, desk.answered(gate.now(), &trip, &taken)),
            Err(error) => {
                tracing::warn!(%error, "permits of rates could not be taken; calls wait");
                desk.failed(gate.now(), &trip);
                (false, Vec::new())
            }
        }
    };
    let mut tellers = gate.tellers();
    for (number, verdict) in verdicts {
        if let Some(teller) = tellers.remove(&number)
            && let Err(Verdict::Go) = teller.send(verdict)
        {
            tracing::debug!("a call was given up as it was let go; its permits are used up");
        }
    }
    answered
}

/// The end of a call that would wait too long.
fn turned_away(kind: &Kind, shed: &Shed) -> Failure {
    let code = match kind {
        Kind::Model { .. } => Code::ProviderRateLimited,
        Kind::Action { .. } => Code::HookOverloaded,
        Kind::Tool { .. } | Kind::Verify { .. } | Kind::Hook { .. } => Code::ToolOverloaded,
    };
    let quoted: Vec<String> = shed.buckets.iter().map(|bucket: &Name| format!("`{bucket}`")).collect();
    let message = format!(
        "`{}` was not called: the rate {} has nothing left for it for {} ms more",
        kind.target(),
        quoted.join(", "),
        shed.after_ms
    );
    Failure::new(code, message).retry(Retry::After(shed.after_ms))
}

/// An attempt that was turned away.
pub(super) fn unsent(failure: Failure) -> (Outcome, Spent) {
    (Outcome::Failed(failure), Spent::Unsent)
}
