//! The drill of a revoked quota: several worker processes of one database, a provider that refuses every call for a while,
//! with and without saying for how long. What it sees meanwhile is the calls that the first worker had out when it met the
//! outage, and one call at a time that looks whether the quota is back, of all workers together. Runs of a high class wait
//! for it, low ones are turned away and come again, and all of them end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::Status;
use windlass_ports::store::Store;

use crate::chains::desk::{Act, Server, openai};
use crate::crew::{Orders, Worker};
use crate::rates::Fleet;

/// Workers.
const WORKERS: usize = 3;
/// Calls that one of them has out at the same time.
const SLOTS: usize = 4;
/// Runs of each class.
const RUNS: usize = 12;
/// How long the provider refuses at least.
const OUTAGE: Duration = Duration::from_millis(3_500);

/// For how much longer it does so until low runs were turned away.
const PATIENCE: Duration = Duration::from_secs(60);

fn machine(class: &str) -> String {
    format!(
        r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: {class}
  settings: {{priority: {class}}}
  context: {{n: "{{{{ input.n }}}}"}}
  agents:
    asker: {{spec: flatagent, spec_version: 4.2.1, data: {{model: {{provider: one, name: m, timeout: 120}}, system: S, user: "{class} {{{{ input.n }}}}"}}}}
  states:
    ask:
      type: initial
      agent: asker
      input: {{n: context.n}}
      execution: {{type: retry, backoffs: [{backoffs}], jitter: 0}}
      output_to_context: {{r: output.content}}
      transitions: [{{to: end}}]
    end: {{type: final, output: {{r: context.r}}}}
"#,
        backoffs = ["0.3"; 60].join(", ")
    )
}

/// Requests that were refused, and when.
type Refused = Arc<Mutex<Vec<Instant>>>;

/// A provider that refuses while it is told to.
fn provider(says: &'static str, revoked: &Arc<AtomicBool>) -> (Server, Refused) {
    let (refused, revoked) = (Refused::default(), Arc::clone(revoked));
    let log = Arc::clone(&refused);
    let server = Server::start(move |_, _| {
        if !revoked.load(Ordering::SeqCst) {
            return openai("answer");
        }
        log.lock().expect("the log").push(Instant::now());
        // The header stands behind the type.
        Act::Answer(429, says, r#"{"error": {"message": "slow down"}}"#.into(), None)
    });
    (server, refused)
}

/// Attempts of a run that failed: all of them, and those that were turned away before they left.
async fn failures(store: &dyn Store, id: &str) -> (usize, usize) {
    let rows = store.journal(RunId::stored(id), 0, 1_000).await.expect("read");
    let (mut all, mut unsent) = (0, 0);
    for entry in rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries) {
        if let Entry::AttemptFailed { failure, used, .. } = entry {
            assert_eq!(failure.code, Code::ProviderRateLimited, "{failure:?}");
            all += 1;
            unsent += usize::from(failure.message.contains("is used up"));
            assert_eq!((used.tokens, used.cost_micros), (0, 0), "what was refused costs nothing");
        }
    }
    (all, unsent)
}

/// The same of all runs of a class.
async fn turned_away(fleet: &Fleet, class: &str) -> (usize, usize) {
    let mut sums = (0, 0);
    for n in 0..RUNS {
        let (all, unsent) = failures(&**fleet.store(), &format!("{class}{n}")).await;
        sums = (sums.0 + all, sums.1 + unsent);
    }
    sums
}

/// Whether the notices of one worker reach the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    On,
    /// Each has a store of its own, with runs of its own.
    Off,
}

/// Refusals that the provider gave, beside those that it may give when one worker meets the outage and tells the others.
async fn drill(says: &'static str, looks: impl Fn(Duration) -> usize, sharing: Sharing) -> (usize, usize) {
    let databases: Vec<_> =
        (0..if sharing == Sharing::On { 1 } else { WORKERS }).map(|_| windlass_testpg::database()).collect();
    let revoked = Arc::new(AtomicBool::new(true));
    let (server, refused) = provider(says, &revoked);
    let orders = |n: usize| {
        let store = databases[n % databases.len()].url();
        Orders { store, server: server.url.clone(), slots: SLOTS, tokens: None }
    };
    for n in 0..databases.len() {
        let office = orders(n).office().await;
        for class in ["high", "low"] {
            office.submit(&machine(class), class, RUNS).await;
        }
    }
    let office = orders(0).office().await;
    let mut crew: Vec<Worker> = (0..WORKERS).map(|n| Worker::hire(&orders(n))).collect();
    let began = Instant::now();
    crew[0].begin();
    // The first one learns of it, and says so.
    while windlass_runtime::quotas(&**office.store()).await.expect("read").is_empty() {
        assert!(began.elapsed() < PATIENCE, "nobody noted the refusal");
        // Slow on purpose: another process works.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    crew.iter_mut().skip(1).for_each(Worker::begin);
    // Slow on purpose: an outage of the provider lasts, on a busy host until the low runs had their turn.
    tokio::time::sleep(OUTAGE).await;
    while turned_away(&office, "low").await.1 == 0 && began.elapsed() < PATIENCE {
        // Slow on purpose: the journals of another worker are looked at again and again.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    revoked.store(false, Ordering::SeqCst);
    let outage = began.elapsed();
    tokio::task::block_in_place(|| crew.into_iter().for_each(Worker::end));
    assert_eq!(office.count(Status::Completed).await, 2 * RUNS, "all runs end once the quota is back");
    let refused = refused.lock().expect("the log").len();
    let answered = server.count("completions") - refused;
    assert_eq!(answered, 2 * RUNS * databases.len(), "each run was answered once");
    if sharing == Sharing::On {
        let (high, low) = (turned_away(&office, "high").await, turned_away(&office, "low").await);
        assert_eq!(high.0 + low.0 - high.1 - low.1, refused, "every refusal is in the journal: {high:?} {low:?}");
        assert!(high.1 < low.1, "high runs wait, low ones are turned away: {high:?} {low:?}");
    }
    (refused, SLOTS + looks(outage))
}

/// Rests of none, one, two, four seconds and so on.
fn doubling(outage: Duration) -> usize {
    2 + (outage.as_secs() + 1).ilog2() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_revoked_for_a_time_that_is_said_makes_no_storm() {
    // One look for each second that it asks for.
    let looks = |outage: Duration| usize::try_from(outage.as_secs()).expect("short") + 1;
    let (refused, bound) = drill("application/json\r\nretry-after: 1", looks, Sharing::On).await;
    assert!((1..=bound).contains(&refused), "{refused} calls were refused, where {bound} may be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_revoked_without_a_word_makes_no_storm() {
    let (refused, bound) = drill("application/json", doubling, Sharing::On).await;
    assert!((1..=bound).contains(&refused), "{refused} calls were refused, where {bound} may be");
}

/// The bound is that of workers that tell each other: those that do not are beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_tell_each_other_nothing_are_seen_to_storm() {
    let (refused, bound) = drill("application/json", doubling, Sharing::Off).await;
    assert!(refused > bound, "{refused} calls were refused, where {bound} may be: the drill shows nothing");
}
