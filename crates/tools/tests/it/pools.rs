//! The format's work pools: what each action answers, and that a repeated call changes nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use windlass_core::eval::Evaluator;
use windlass_core::failure::Failure;
use windlass_core::machine::{HookKind, Program};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::compile::{Bundle, CompileError, Compiler};
use windlass_ports::fake::{ManualClock, MemoryStore};
use windlass_ports::tool::{Catalog, Hook, HookEvent};
use windlass_tools::{CatalogConfig, Surroundings, WorkPools, build_catalog};

#[derive(Debug)]
struct NoDocuments;

impl Compiler for NoDocuments {
    fn compile(&self, _: &Bundle) -> Result<Arc<Program>, CompileError> {
        Err(CompileError { message: "no documents".into() })
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        unreachable!("nothing is evaluated here")
    }
}

struct Pool {
    hook: Arc<dyn Hook>,
    clock: Arc<ManualClock>,
}

fn catalog(pools: &WorkPools) -> Catalog {
    let surroundings = Surroundings {
        folder: Path::new(""),
        environment: &|_| None,
        secret: &|_| None,
        require_contracts: false,
        pools,
    };
    build_catalog(&CatalogConfig { hooks: BTreeMap::new(), ..CatalogConfig::default() }, &surroundings).expect("built")
}

impl Pool {
    fn new() -> Self {
        let (pools, clock) = (WorkPools::default(), Arc::new(ManualClock::new(Timestamp(1_000_000), 1)));
        let hook = Arc::clone(catalog(&pools).hook("distributed-worker").expect("built in"));
        pools.bind(Arc::new(MemoryStore::new()), Arc::new(NoDocuments), Arc::clone(&clock) as _);
        Self { hook, clock }
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
            r#"{{"job_id": "{}", "error": "boom"}}"#,
            claimed.get("job_id").and_then(Value::as_str).expect("an id")
        );
        pool.output(&format!("f{attempt}"), "fail_job", &context).await;
        pool.output(&format!("f{attempt}"), "fail_job", &context).await;
        assert_eq!(pool.depth().await, Value::Int(1 - attempt), "a repeat counts nothing");
    }
    assert_eq!(pool.output("c9", "claim_job", r#"{"worker_id": "w"}"#).await.get("job"), Some(&Value::Null));
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
async fn a_hook_without_a_store_says_so() {
    let catalog = catalog(&WorkPools::default());
    let hook = catalog.hook("distributed-worker").expect("built in");
    let event = HookEvent {
        hook: "distributed-worker".into(),
        kind: HookKind::Action,
        body: Value::empty_map(),
        idempotency_key: "k".into(),
        trace: None,
        timeout_ms: 1_000,
        output_bytes_max: 1_000,
        permit: Default::default(),
    };
    assert!(hook.call(event).await.is_err());
}
