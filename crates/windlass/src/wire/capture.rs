//! Keeps what calls say in full, while somebody asked for it: without secrets, for a time and a number of calls.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Notify, mpsc, oneshot};
use windlass_core::effect::Outcome;
use windlass_core::hidden::{Hidden, Veil};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_policy::redact::Redactor;
use windlass_policy::scan::{Class, Mode, Scanner};
use windlass_ports::store::{Store, StoreError};
use windlass_runtime::capture::{Capture, Captured, bounded};
use windlass_runtime::{Called, Leaving, Meter, Span, Tally, captures};
use windlass_tools::{build_agents, build_catalog};

use super::{WireError, Wiring, now};

/// Pause between two looks at what is asked for, while calls are made.
const LOOK_MS: u64 = 1_000;
/// Calls that wait to be written.
const QUEUE_MAX: usize = 256;

impl Wiring {
    /// Every secret that this process knows: what is captured is kept without them.
    ///
    /// # Errors
    /// As for what they are configured for.
    fn known_secrets(&self) -> Result<Vec<SecretString>, WireError> {
        let mut known = self.surrounded(|surroundings| build_catalog(&self.catalog, surroundings))?.1;
        known.extend(self.surrounded(|surroundings| build_agents(&self.catalog, surroundings))?.1);
        known.extend(self.secrets.iter().flat_map(|file| file.values()));
        for (name, provider) in &self.providers {
            known.extend(self.provider(name, provider)?.api_key);
        }
        let configured = self.providers.keys().map(|name| windlass_models::keys::variable(name));
        known.extend(windlass_models::key_variables().chain(configured).filter_map(|name| self.variable(&name)));
        Ok(known)
    }
}

/// What is written down, or that everything before it was.
enum Order {
    Call(Box<Captured>, u32),
    Flush(oneshot::Sender<()>),
}

/// Takes what calls say, as captures ask for it. Give it to the engine as a meter.
#[derive(Debug)]
pub struct Capturing {
    wiring: Wiring,
    /// Keys that documents held.
    held: Vec<SecretString>,
    known: RwLock<Arc<Vec<Capture>>>,
    redactor: RwLock<Redactor>,
    scanner: Scanner,
    looked_at: AtomicU64,
    look: Notify,
    queue: mpsc::Sender<Order>,
    orders: std::sync::Mutex<Option<mpsc::Receiver<Order>>>,
    is_full: AtomicBool,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

impl Capturing {
    /// Takes nothing before [`follow_captures`]. `held` are keys that documents held.
    #[must_use]
    pub fn new(wiring: &Wiring, held: Vec<SecretString>) -> Arc<Self> {
        let (queue, orders) = mpsc::channel(QUEUE_MAX);
        Arc::new(Self {
            wiring: wiring.clone(),
            held,
            known: RwLock::default(),
            redactor: RwLock::default(),
            scanner: Scanner::new(&Class::ALL.into_iter().map(|class| (class, Mode::Mask)).collect()),
            looked_at: AtomicU64::new(0),
            look: Notify::new(),
            queue,
            orders: std::sync::Mutex::new(Some(orders)),
            is_full: AtomicBool::new(false),
        })
    }

    fn known(&self) -> Arc<Vec<Capture>> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The captures that take a call now.
    fn taking(&self, call: &Leaving<'_>, at: Timestamp) -> Vec<Capture> {
        self.known().iter().filter(|capture| capture.is_on(at) && capture.takes(call)).cloned().collect()
    }

    /// Reads what is asked for, and removes what is over. Gives the time at which there is something to remove.
    async fn look(&self, store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
        let at = now();
        self.looked_at.store(at.0, Ordering::Relaxed);
        let mut all = captures::captures(store).await?;
        if all.iter().any(|capture| capture.is_expired(at)) {
            captures::forget_expired(store, at).await?;
            all.retain(|capture| !capture.is_expired(at));
        }
        let next = all.iter().map(|capture| capture.keep_until).min();
        if all.iter().any(|capture| capture.is_on(at)) {
            match self.wiring.known_secrets() {
                Ok(mut secrets) => {
                    secrets.extend(self.held.iter().cloned());
                    *self.redactor.write().unwrap_or_else(PoisonError::into_inner) = Redactor::new(&secrets);
                }
                Err(error) => {
                    tracing::error!(%error, "nothing is captured: what is to be kept out of it is not known");
                    all.clear();
                }
            }
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        Ok(next)
    }

    /// The value without secrets and what is not shown, as much of it as is kept. What is cut off is looked at too: where it
    /// is cut, nothing could be found any more.
    fn without_secrets(&self, veil: &Veil, value: &Value) -> Value {
        let mut shown = None;
        if !veil.is_empty() {
            let mut json = serde_json::Value::from(value);
            veil.json(&mut json);
            shown = Some(Value::from(json));
        }
        let value = shown.as_ref().unwrap_or(value);
        let redactor = self.redactor.read().unwrap_or_else(PoisonError::into_inner).clone();
        match self.scanner.value(&redactor.value(value)) {
            Ok(value) => bounded(value),
            Err(class) => Value::str(format!("[{}]", class.as_str())),
        }
    }

    /// Waits until what was taken is written, for so long at most.
    pub async fn flush(&self, patience: Duration) {
        let (done, is_done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Order::Flush(done)).await.is_ok() {
                // Whoever writes may be gone: then there is nothing to wait for.
                let _ended = is_done.await;
            }
        };
        if tokio::time::timeout(patience, flushed).await.is_err() {
            tracing::warn!("not every call that was captured could be written down");
        }
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Value {
    Value::from_json(&serde_json::to_string(value).unwrap_or_default()).unwrap_or(Value::Null)
}

impl Meter for Capturing {
    fn count(&self, _: Tally, _: u64) {}

    fn took(&self, _: Span, _: Duration) {}

    fn wants(&self, call: &Leaving<'_>) -> bool {
        let at = now();
        if at.0.abs_diff(self.looked_at.load(Ordering::Relaxed)) >= LOOK_MS {
            self.look.notify_one();
        }
        !self.taking(call, at).is_empty()
    }

    fn called(&self, called: &Called<'_>) {
        let Some(asked) = called.asked else { return };
        let taking = self.taking(called.call, now());
        if taking.is_empty() {
            return;
        }
        let call = called.call;
        let answered = match called.outcome {
            Outcome::Replied(reply) => Value::object([("replied", encoded(&**reply))]),
            Outcome::Returned(value) => Value::object([("returned", value.clone())]),
            Outcome::Failed(failure) => Value::object([("failed", encoded(failure))]),
        };
        let veil = called.hidden.map(Hidden::veil).unwrap_or_default().with_thinking(true);
        let (asked, answered) = (self.without_secrets(&veil, asked), self.without_secrets(&veil, &answered));
        for capture in taking {
            let captured = Captured {
                capture: capture.id,
                at: called.began,
                took_ms: u64::try_from(called.took.as_millis()).unwrap_or(u64::MAX),
                run: call.run.clone(),
                tenant: call.tenant.clone(),
                machine: call.machine.clone(),
                key: call.key.into(),
                attempt: call.attempt,
                kind: call.kind.into(),
                target: call.target.clone(),
                asked: asked.clone(),
                answered: answered.clone(),
            };
            let order = Order::Call(Box::new(captured), capture.calls_max);
            if self.queue.try_send(order).is_err() && !self.is_full.swap(true, Ordering::Relaxed) {
                tracing::warn!(wait = QUEUE_MAX, "too many captured calls wait, and further ones are dropped");
            }
        }
    }
}

/// Reads what is to be captured before anything is decided, and follows it and writes down what was taken for as long as
/// somebody else holds the store.
///
/// # Errors
/// The store cannot be read.
pub async fn follow_captures(
    capturing: &Arc<Capturing>,
    store: &Arc<dyn Store>,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    let mut expires = capturing.look(&**store).await?;
    let orders = capturing.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (capturing, store) = (Arc::clone(capturing), Arc::downgrade(store));
    Ok(async move {
        let Some(mut orders) = orders else { return };
        let mut numbers = std::collections::BTreeMap::new();
        loop {
            let wait = expires.map(|at| Duration::from_millis(at.since_ms(now()).max(LOOK_MS)));
            let expired = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let order = tokio::select! {
                biased;
                order = orders.recv() => order,
                () = capturing.look.notified() => None,
                () = expired => None,
            };
            let Some(store) = store.upgrade() else { return };
            match order {
                Some(Order::Call(captured, calls_max)) => write(&*store, &captured, calls_max, &mut numbers).await,
                // Nobody waits for it any more when it cannot be told.
                Some(Order::Flush(done)) => drop(done.send(())),
                None => match capturing.look(&*store).await {
                    Ok(next) => expires = next,
                    Err(error) => tracing::warn!(%error, "debug captures cannot be read; those read last go on"),
                },
            }
        }
    })
}

/// Writes a call down, unless its capture has all that it may.
async fn write(
    store: &dyn Store,
    captured: &Captured,
    calls_max: u32,
    numbers: &mut std::collections::BTreeMap<windlass_core::ids::Name, u32>,
) {
    let next = numbers.entry(captured.capture.clone()).or_default();
    match captures::keep(store, captured, *next, calls_max).await {
        Ok(Some(number)) => *next = number + 1,
        Ok(None) => *next = calls_max,
        Err(error) => tracing::warn!(%error, capture = %captured.capture, "a captured call could not be written down"),
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::contract::Class as EffectClass;
    use windlass_core::effect::Spent;
    use windlass_core::ids::{Digest, Name, RunId};
    use windlass_ports::fake::MemoryStore;
    use windlass_runtime::capture::Of;

    use super::*;

    /// A call of a tool that was given a secret and gave it back.
    fn call(capturing: &Capturing, run: &str) -> bool {
        let (run, name): (RunId, Name) = (RunId::stored(run), "t".into());
        let call = Leaving {
            run: &run,
            tenant: &name,
            user: None,
            machine: &name,
            key: "k",
            trace: None,
            attempt: 1,
            kind: "tool",
            target: &name,
            class: EffectClass::Read,
            arguments: Digest::ZERO,
            model: None,
        };
        let is_wanted = capturing.wants(&call);
        let said = Value::object([("said", Value::str("it is held-by-the-document, more"))]);
        let outcome = Outcome::Returned(said.clone());
        let asked = is_wanted.then_some(&said);
        let took = Duration::from_millis(3);
        let spent = &Spent::Nothing;
        capturing.called(&Called { call: &call, began: now(), took, outcome: &outcome, spent, asked, hidden: None });
        is_wanted
    }

    /// A body of 200 KiB with short values under `pin`: one at its beginning, one right where `cut` more bytes are kept, one
    /// at its end.
    fn long(cut: usize) -> Value {
        let pin = |text: &str| Value::object([("pin", Value::str(text))]);
        let fill = |bytes: usize| Value::object([("fill", Value::str("x".repeat(bytes)))]);
        let before = Value::list(vec![pin("zq1"), fill(0), pin("")]).to_json().len();
        let until = windlass_runtime::capture::BODY_BYTES_MAX - before - cut;
        Value::list(vec![pin("zq1"), fill(until), pin("zq2"), fill(140_000), pin("zq3")])
    }

    #[test]
    fn what_is_not_shown_is_looked_for_in_all_of_a_body_before_it_is_cut() {
        let capturing = Capturing::new(&Wiring::default(), Vec::new());
        for cut in 0..40 {
            let body = long(cut);
            assert!(body.to_json().len() > 200 * 1024);
            let hidden = Hidden::of(&body, &[vec!["*".into(), "pin".into()]]);
            for shown in [body.clone(), Value::object([("text", Value::str(body.to_json()))])] {
                let kept = capturing.without_secrets(&hidden.veil(), &shown);
                let text = kept.get("cut_text").and_then(Value::as_str).expect("it is cut");
                let plain = text.replace('\\', "");
                for (at, key) in plain.match_indices(r#""pin":""#) {
                    let found = &plain[at + key.len()..];
                    let mark = &found[..found.len().min("[redacted]".len())];
                    assert!("[redacted]".starts_with(mark), "{cut}: {mark}");
                }
                assert!(plain.contains("[redacted]") && !plain.contains("zq"), "{cut}");
            }
        }
        // Without a veil it is there.
        let kept = capturing.without_secrets(&Veil::default(), &long(0));
        assert!(kept.get("cut_text").and_then(Value::as_str).is_some_and(|text| text.contains("zq1")));
    }

    fn capture(of: Of, calls_max: u32) -> Capture {
        let at = now();
        let (by, reason) = ("anna".into(), "".into());
        let (until, keep_until) = (at.plus_ms(60_000), at.plus_ms(120_000));
        Capture { id: "c".into(), of, at, until, keep_until, calls_max, by, reason }
    }

    #[tokio::test]
    async fn all_workers_together_keep_as_many_calls_as_were_asked_for_without_secrets() {
        let shared = MemoryStore::default();
        let stores: [Arc<dyn Store>; 2] = [Arc::new(shared.another()), Arc::new(shared)];
        let workers = [0, 1].map(|_| Capturing::new(&Wiring::default(), vec!["held-by-the-document".into()]));
        let mut followers = Vec::new();
        for (worker, store) in workers.iter().zip(&stores) {
            followers.push(tokio::spawn(follow_captures(worker, store).await.expect("read")));
        }
        assert!(!call(&workers[0], "r"), "nobody asked");
        let of = Of { run: Some(RunId::stored("r")), ..Of::default() };
        captures::start(&*stores[0], &capture(of, 3)).await.expect("started");
        for worker in &workers {
            worker.look(&*stores[0]).await.expect("read");
            assert!(!call(worker, "other"));
            for _ in 0..2 {
                assert!(call(worker, "r"));
            }
            worker.flush(Duration::from_secs(60)).await;
        }
        let kept = captures::captured(&*stores[1], &"c".into(), 0, 9).await.expect("read");
        assert_eq!(kept.len(), 3);
        for one in &kept {
            assert_eq!(one.asked.get("said").and_then(Value::as_str), Some("it is [redacted], more"));
            assert_eq!((one.run.as_str(), one.took_ms), ("r", 3));
        }
        assert!(!serde_json::to_string(&kept).expect("JSON").contains("held-by"));
        captures::stop(&*stores[0], &"c".into(), now()).await.expect("stopped");
        workers[1].look(&*stores[1]).await.expect("read");
        assert!(!call(&workers[1], "r"));
        assert!(captures::forget(&*stores[0], &"c".into()).await.expect("removed"));
        assert_eq!(captures::captured(&*stores[1], &"c".into(), 0, 9).await.expect("read"), []);
        // A worker that has not heard yet that a capture is removed keeps nothing for it.
        let of = Of { run: Some(RunId::stored("r")), ..Of::default() };
        captures::start(&*stores[0], &Capture { id: "d".into(), ..capture(of, 3) }).await.expect("started");
        workers[0].look(&*stores[0]).await.expect("read");
        assert!(captures::forget(&*stores[1], &"d".into()).await.expect("removed"));
        assert!(call(&workers[0], "r"));
        workers[0].flush(Duration::from_secs(60)).await;
        assert_eq!(captures::captured(&*stores[1], &"d".into(), 0, 9).await.expect("read"), []);
        followers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
