//! The format's work pools: what each action answers, and that a repeated call changes nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_core::failure::Failure;
use windlass_core::hidden::Hidden;
use windlass_core::label::{Label, Marks, Source, SourceKind};
use windlass_core::machine::HookKind;
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::fake::{ManualClock, MemoryStore};
use windlass_ports::store::{Object, Put, Store};
use windlass_ports::tool::{Catalog, Hook, HookEvent};
use windlass_tools::{CatalogConfig, Surroundings, WorkPools, build_catalog};

#[derive(Clone)]
struct Pool {
    hook: Arc<dyn Hook>,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    tenant: &'static str,
    labels: Option<Marks>,
    hidden: Hidden,
}

fn catalog(pools: &WorkPools) -> Catalog {
    let surroundings = Surroundings {
        folder: Path::new(""),
        environment: &|_| None,
        secret: &|_| None,
        require_contracts: false,
        require_guards: false,
        pools,
        quarantine: &windlass_tools::mcp::Quarantine::default(),
    };
    build_catalog(&CatalogConfig { hooks: BTreeMap::new(), ..CatalogConfig::default() }, &surroundings).expect("built")
}

impl Pool {
    fn new() -> Self {
        let (pools, clock) = (WorkPools::default(), Arc::new(ManualClock::new(Timestamp(1_000_000), 1)));
        let hook = Arc::clone(catalog(&pools).hook("distributed-worker").expect("built in"));
        let store = Arc::new(MemoryStore::new());
        pools.bind(Arc::clone(&store) as _, Arc::clone(&clock) as _);
        Self { hook, clock, store, tenant: "t", labels: None, hidden: Hidden::default() }
    }

    /// The same pools, as another tenant sees them.
    fn of(&self, tenant: &'static str) -> Self {
        Self { tenant, ..self.clone() }
    }

    /// The same pool, with these labels of the context.
    fn labelled(&self, labels: Marks) -> Self {
        Self { labels: Some(labels), ..self.clone() }
    }

    /// One action with a context given as JSON, sent under a key.
    async fn act(&self, key: &str, action: &str, context: &str) -> Result<Value, Failure> {
        let event = HookEvent {
            hook: "distributed-worker".into(),
            kind: HookKind::Action,
            body: Value::object([
                ("event", Value::from("action")),
                ("run_id", Value::from("run-1")),
                ("action", Value::from(action)),
                ("context", Value::from_json(context).expect("JSON")),
            ]),
            idempotency_key: key.to_owned(),
            trace: None,
            tenant: self.tenant.into(),
            labels: self.labels.clone(),
            hidden: self.hidden.clone(),
            timeout_ms: 1_000,
            output_bytes_max: 1_000_000,
            permit: Default::default(),
        };
        self.hook.call(event).await
    }

    async fn output(&self, key: &str, action: &str, context: &str) -> Value {
        let answer = self.act(key, action, context).await.expect("an answer");
        assert!(answer.get("context").is_some(), "the context comes back with it");
        answer.get("output").cloned().unwrap_or_default()
    }

    /// What there is in a list of the pool.
    async fn list(&self, list: &str) -> Vec<Object> {
        self.store.objects(format!("pool.{list}/t/default").into(), None, 9_999).await.expect("read")
    }

    /// Pushes a job, claims it and does it. Gives back its id.
    async fn done(&self, key: &str) -> String {
        self.output(key, "push_job", r#"{"job": 1}"#).await;
        let claimed = self.output(&format!("{key}-c"), "claim_job", r#"{"worker_id": "w"}"#).await;
        let id = claimed.get("job_id").and_then(Value::as_str).expect("an id").to_owned();
        let context = format!(r#"{{"worker_id": "w", "job_id": "{id}", "result": 7}}"#);
        self.output(&format!("{key}-d"), "complete_job", &context).await;
        id
    }

    async fn depth(&self) -> Value {
        self.output("x", "get_pool_state", "{}").await.get("queue_depth").cloned().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_job_is_claimed_once_however_often_the_call_is_repeated() {
    let pool = Pool::new();
    for (key, n) in [("k1", 1), ("k2", 2)] {
        let context = format!(r#"{{"job": {{"n": {n}}}}}"#);
        let first = pool.output(key, "push_job", &context).await;
        assert_eq!(pool.output(key, "push_job", &context).await, first, "a repeat adds nothing");
        pool.clock.advance(1);
    }
    assert_eq!(pool.depth().await, Value::Int(2));
    let claim = |key: &'static str| pool.output(key, "claim_job", r#"{"worker_id": "w"}"#);
    let first = claim("c1").await;
    assert_eq!(first.at_path(&["job", "n"]), Value::Int(1), "the oldest first");
    assert_eq!(claim("c1").await, first);
    assert_eq!(claim("c2").await.at_path(&["job", "n"]), Value::Int(2));
    assert_eq!(claim("c3").await.get("job"), Some(&Value::Null));
    assert_eq!(pool.depth().await, Value::Int(0));
}

#[tokio::test]
async fn a_job_that_fails_comes_back_until_it_is_put_aside() {
    let pool = Pool::new();
    pool.output("k1", "push_job", r#"{"job": 1, "max_retries": 2}"#).await;
    for attempt in 0..2 {
        let claimed = pool.output(&format!("c{attempt}"), "claim_job", r#"{"worker_id": "w"}"#).await;
        let context = format!(
            r#"{{"worker_id": "w", "job_id": "{}", "error": "boom"}}"#,
            claimed.get("job_id").and_then(Value::as_str).expect("an id")
        );
        pool.output(&format!("f{attempt}"), "fail_job", &context).await;
        pool.output(&format!("f{attempt}"), "fail_job", &context).await;
        assert_eq!(pool.depth().await, Value::Int(1 - attempt), "a repeat counts nothing");
    }
    assert_eq!(pool.output("c9", "claim_job", r#"{"worker_id": "w"}"#).await.get("job"), Some(&Value::Null));
}

#[tokio::test]
async fn no_tenant_sees_the_pools_of_another_one() {
    let acme = Pool::new();
    acme.output("k1", "push_job", r#"{"job": {"secret": "of acme"}}"#).await;
    acme.output("r1", "register_worker", r#"{"worker_id": "w"}"#).await;
    for tenant in ["evil", "t/default", "t%2Fdefault", ""] {
        let evil = acme.of(tenant);
        let claim = evil.output("c1", "claim_job", r#"{"worker_id": "w"}"#).await;
        assert_eq!(claim.get("job"), Some(&Value::Null), "{tenant}");
        let state = evil.output("x", "get_pool_state", "{}").await;
        assert_eq!(
            (state.get("queue_depth"), state.get("active_workers")),
            (Some(&Value::Int(0)), Some(&Value::Int(0)))
        );
        evil.act("h", "heartbeat", r#"{"worker_id": "w"}"#).await.expect_err("not its worker");
        evil.act("p", "reap_worker", r#"{"worker": {"worker_id": "w"}}"#).await.expect("nothing to reap");
    }
    let state = acme.output("x", "get_pool_state", "{}").await;
    assert_eq!((state.get("queue_depth"), state.get("active_workers")), (Some(&Value::Int(1)), Some(&Value::Int(1))));
}

#[tokio::test]
async fn only_who_has_claimed_a_job_settles_it() {
    let pool = Pool::new();
    pool.output("k1", "push_job", r#"{"job": 1}"#).await;
    let claim = |key: &'static str, worker: &'static str| {
        let pool = pool.clone();
        async move { pool.output(key, "claim_job", &format!(r#"{{"worker_id": "{worker}"}}"#)).await }
    };
    let id = claim("c1", "w1").await.get("job_id").and_then(Value::as_str).expect("an id").to_owned();
    pool.output("r1", "reap_worker", r#"{"worker": {"worker_id": "w1"}}"#).await;
    assert_eq!(claim("c2", "w2").await.get("job_id"), Some(&Value::from(&*id)));
    let by = |worker: &str| format!(r#"{{"worker_id": "{worker}", "job_id": "{id}", "result": "{worker}"}}"#);
    pool.act("f1", "fail_job", &by("w1")).await.expect("too late, and changes nothing");
    assert_eq!(claim("c3", "w3").await.get("job"), Some(&Value::Null), "`w2` has it");
    let failure = pool.act("d1", "complete_job", &by("w1")).await.expect_err("its result does not count");
    assert!(failure.message.contains("`w2`"), "{failure:?}");
    pool.act("d2", "complete_job", &by("w2")).await.expect("done");
    pool.act("d2", "complete_job", &by("w2")).await.expect("a repeat");
    let again = pool.output("k1", "push_job", r#"{"job": 1}"#).await;
    assert_eq!((again.get("job_id"), pool.depth().await), (Some(&Value::from(&*id)), Value::Int(0)), "it is done");
    assert_eq!(claim("c4", "w1").await.get("job"), Some(&Value::Null));
}

#[tokio::test]
async fn what_is_done_for_long_is_removed_and_what_is_not_done_is_not() {
    const DAY_MS: u64 = 86_400_000;
    let pool = Pool::new();
    pool.output("waits", "push_job", r#"{"job": 0}"#).await;
    let first = pool.output("held", "claim_job", r#"{"worker_id": "slow"}"#).await;
    pool.clock.advance(1);
    let id = pool.done("k0").await;
    pool.clock.advance(29 * DAY_MS);
    pool.done("k1").await;
    let again = pool.output("k0", "push_job", r#"{"job": 1}"#).await;
    assert_eq!((again.get("job_id"), pool.depth().await), (Some(&Value::from(id)), Value::Int(0)), "it was done");
    // However much goes through the pool, what is kept of it is that of a month.
    for n in 0..120 {
        pool.clock.advance(DAY_MS);
        pool.done(&format!("d{n}")).await;
        assert!(pool.list("pushes").await.len() <= 33, "{} after {n} days", pool.list("pushes").await.len());
    }
    assert_eq!((pool.list("done").await.len(), pool.list("pushes").await.len()), (30, 31));
    assert_eq!(pool.list("claims").await.len(), 1);
    let again = pool.output("waits", "push_job", r#"{"job": 0}"#).await;
    assert_eq!(again.get("job_id"), first.get("job_id"), "a job that is not done is not pushed again, ever");
    assert_eq!(pool.depth().await, Value::Int(0));
}

#[tokio::test]
async fn a_job_whose_worker_died_while_it_was_settled_is_moved_by_whoever_finds_it() {
    for finder in ["claim_job", "reap_worker", "complete_job", "fail_job"] {
        let pool = Pool::new();
        pool.output("k1", "push_job", r#"{"job": 1}"#).await;
        pool.output("c1", "claim_job", r#"{"worker_id": "w"}"#).await;
        let waiting = pool.list("jobs").await.pop().expect("a job");
        let text = String::from_utf8(waiting.bytes.clone()).expect("text");
        let settled = text.replacen('{', r#"{"settled":"done","result":7,"#, 1);
        let (kind, key, expected) = ("pool.jobs/t/default".into(), waiting.key.clone(), waiting.revision);
        let put = Put { kind, key, expected, bytes: Some(settled.into_bytes()) };
        assert!(pool.store.put_object(put).await.expect("written"));
        let context = format!(
            r#"{{"worker_id": "other", "worker": {{"worker_id": "w"}}, "job_id": "{}", "result": 8}}"#,
            waiting.key
        );
        let output = pool.output("f1", finder, &context).await;
        if finder == "claim_job" {
            assert_eq!(output.get("job"), Some(&Value::Null), "nobody does it again");
        }
        let lists = (pool.list("jobs").await.len(), pool.list("claims").await.len());
        assert_eq!(lists, (0, 0), "{finder}");
        let done = String::from_utf8(pool.list("done").await.pop().expect("done").bytes).expect("text");
        assert!(done.contains(r#""result":7"#) && !done.contains("settled"), "{finder}: {done}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_result_of_a_job_is_that_of_the_worker_that_was_told_so() {
    for round in 0..200 {
        let pool = Pool::new();
        pool.output("k1", "push_job", r#"{"job": 1}"#).await;
        let claimed = pool.output("c1", "claim_job", r#"{"worker_id": "w1"}"#).await;
        let id = claimed.get("job_id").and_then(Value::as_str).expect("an id").to_owned();
        let complete = |worker: &'static str| {
            let (pool, id) = (pool.clone(), id.clone());
            async move {
                let context = format!(r#"{{"worker_id": "{worker}", "job_id": "{id}", "result": "{worker}"}}"#);
                pool.act(worker, "complete_job", &context).await.is_ok()
            }
        };
        let slow = tokio::spawn(complete("w1"));
        pool.output("r1", "reap_worker", r#"{"worker": {"worker_id": "w1"}}"#).await;
        let again = pool.output("c2", "claim_job", r#"{"worker_id": "w2"}"#).await;
        let is_other = again.get("job") != Some(&Value::Null);
        if is_other {
            assert!(complete("w2").await, "it is its job");
        }
        let counts = slow.await.expect("ended");
        let done = String::from_utf8(pool.list("done").await.pop().expect("done").bytes).expect("text");
        let result = if is_other { r#""result":"w2""# } else { r#""result":"w1""# };
        assert!(done.contains(result), "{round}: {done}");
        assert!(counts || is_other, "{round}: somebody did it");
        assert_eq!(pool.list("jobs").await.len(), 0, "{round}");
    }
}

#[tokio::test]
async fn what_is_secret_of_a_job_is_secret_to_who_claims_it() {
    let from = Source { kind: SourceKind::Input, name: "".into(), step: 0 };
    let mut labels = Marks::default();
    labels.add(vec!["job".into(), "a/b".into()], Label::Secret, from.clone());
    labels.add(vec!["other".into()], Label::Secret, from.clone());
    labels.add(vec!["job".into(), "name".into()], Label::Untrusted, from);
    let (keeps, keeps_none) = (Pool::new().labelled(labels), Pool::new());
    let context = r#"{"worker_id": "w", "job": {"a/b": 1, "name": 2}}"#;
    let secret = |answer: Value| answer.get("secret").map(Value::to_json);
    keeps.output("k1", "push_job", context).await;
    let answer = keeps.act("c1", "claim_job", context).await.expect("claimed");
    assert_eq!(secret(answer).as_deref(), Some(r#"["/output/job/a~1b","/context/job/a~1b"]"#));
    keeps_none.output("k1", "push_job", context).await;
    let answer = keeps_none.act("c1", "claim_job", context).await.expect("claimed");
    assert_eq!(secret(answer), None, "neither keeps labels");
    let answer = keeps_none.labelled(Marks::default()).act("c1", "claim_job", context).await.expect("again");
    assert_eq!(secret(answer).as_deref(), Some(r#"["/output/job","/context/job"]"#), "nothing is known of it");
}

#[tokio::test]
async fn what_is_not_shown_of_a_job_is_not_shown_to_who_claims_it() {
    let card = Value::from_json(r#"{"card": "4111111111111111", "other": "not in the job"}"#).expect("JSON");
    let hidden = Hidden::of(&card, &[vec![]]);
    let open = Pool::new();
    let sender = Pool { hidden: hidden.clone(), ..open.clone() };
    let context = r#"{"worker_id": "w", "job": {"text": "pay from 4111111111111111", "n": 1}}"#;
    sender.output("k1", "push_job", context).await;
    let answer = open.act("c1", "claim_job", r#"{"worker_id": "w"}"#).await.expect("claimed");
    assert_eq!(answer.get("output").and_then(|output| output.get("job")?.get("n")), Some(&Value::Int(1)));
    let said = Hidden::said_by(&answer);
    assert_eq!(said, hidden.within(&"4111111111111111".into()), "and nothing else");
    assert_eq!(said.veil().shown("4111111111111111"), "[redacted]");
    open.output("k2", "push_job", context).await;
    let answer = open.act("c2", "claim_job", r#"{"worker_id": "w"}"#).await.expect("claimed");
    assert_eq!(answer.get("hidden"), None);
}

#[tokio::test]
async fn workers_register_and_those_without_a_run_are_stale_after_a_while() {
    let pool = Pool::new();
    let worker = r#"{"worker_id": "w"}"#;
    let registered = pool.output("r1", "register_worker", worker).await;
    assert_eq!(registered.get("status"), Some(&Value::from("active")));
    assert_eq!(registered.get("registered_at"), Some(&Value::from("1970-01-01T00:16:40Z")));
    let state = pool.output("x", "get_pool_state", "{}").await;
    assert_eq!(state.get("active_workers"), Some(&Value::Int(1)));
    pool.output("k1", "push_job", r#"{"job": 1}"#).await;
    pool.output("c1", "claim_job", worker).await;
    assert_eq!(pool.output("x", "list_stale_workers", "{}").await.get("stale_count"), Some(&Value::Int(0)));
    pool.clock.advance(61_000);
    let stale = pool.output("x", "list_stale_workers", "{}").await;
    assert_eq!(stale.get("stale_count"), Some(&Value::Int(1)), "its run is not in the store");
    let context = Value::object([("stale_workers", stale.get("workers").cloned().unwrap_or_default())]).to_json();
    let reaped = pool.output("y", "reap_stale_workers", &context).await;
    assert_eq!(
        (reaped.get("reaped_count"), reaped.get("total_jobs_released")),
        (Some(&Value::Int(1)), Some(&Value::Int(1)))
    );
    assert_eq!(pool.depth().await, Value::Int(1));
    assert_eq!(pool.output("x", "list_stale_workers", "{}").await.get("stale_count"), Some(&Value::Int(0)));
}

#[tokio::test]
async fn what_is_missing_is_a_value_error_and_what_is_not_ours_is_left_alone() {
    let pool = Pool::new();
    let failure = pool.act("k", "claim_job", "{}").await.expect_err("refused");
    assert_eq!(failure.error_type.as_deref(), Some("ValueError"));
    let failure = pool.act("k", "heartbeat", r#"{"worker_id": "nobody"}"#).await.expect_err("refused");
    assert_eq!(failure.error_type.as_deref(), Some("KeyError"));
    assert_eq!(pool.act("k", "echo_delay", "{}").await.expect("answered"), Value::Null);
    let wanted =
        pool.output("k", "calculate_spawn", r#"{"queue_depth": 5, "active_workers": "1", "max_workers": 3}"#).await;
    assert_eq!(
        (wanted.get("workers_needed"), wanted.get("workers_to_spawn")),
        (Some(&Value::Int(3)), Some(&Value::Int(2)))
    );
}

#[tokio::test]
async fn workers_are_asked_for_and_not_started() {
    let pool = Pool::new();
    let context = r#"{"workers_to_spawn": 2, "pool_id": "p", "worker_config_path": "./w.yml", "other": 1}"#;
    let answer = pool.act("k", "spawn_workers", context).await.expect("an answer");
    assert_eq!(
        answer.get("windlass.spawn").map(Value::to_json).as_deref(),
        Some(r#"{"machine":"w.yml","count":2,"input":{"pool_id":"p"}}"#)
    );
    assert_eq!(pool.act("k", "spawn_workers", context).await.expect("an answer"), answer, "a repeat asks for the same");
    assert_eq!(pool.store.ids(None, 9).await.expect("read"), Vec::new());
    let many = pool.act("k", "spawn_workers", r#"{"workers_to_spawn": 5000}"#).await.expect("an answer");
    let count = many.get("windlass.spawn").and_then(|asked| asked.get("count")).and_then(Value::as_int);
    assert_eq!(count, Some(1_000), "at a time");
    let none = pool.act("k", "spawn_workers", "{}").await.expect("an answer");
    assert_eq!(none.get("windlass.spawn"), None);
    assert_eq!(none.get("output").map(Value::to_json).as_deref(), Some(r#"{"spawned_ids":[],"spawned_count":0}"#));
}

#[tokio::test]
async fn a_hook_without_a_store_says_so() {
    let catalog = catalog(&WorkPools::default());
    let hook = catalog.hook("distributed-worker").expect("built in");
    let event = HookEvent {
        hook: "distributed-worker".into(),
        kind: HookKind::Action,
        body: Value::empty_map(),
        idempotency_key: "k".into(),
        trace: None,
        tenant: "t".into(),
        labels: None,
        hidden: Default::default(),
        timeout_ms: 1_000,
        output_bytes_max: 1_000,
        permit: Default::default(),
    };
    assert!(hook.call(event).await.is_err());
}
