//! Limits of tools, each tripped on paused time. Not how tools are built with them.

use futures::future::join_all;
use windlass_core::ids::RunId;

use super::*;

/// A tool that takes its time, and counts who is inside.
#[derive(Debug)]
struct Slow {
    contract: Contract,
    inside: AtomicU32,
    most: AtomicU32,
    calls: AtomicU32,
    takes_ms: u64,
    answer: Mutex<Result<Value, Failure>>,
}

impl Tool for Slow {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn call(&self, _: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(self.takes_ms)).await;
            self.inside.fetch_sub(1, Ordering::SeqCst);
            self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
        .boxed()
    }
}

fn slow(takes_ms: u64) -> Arc<Slow> {
    Arc::new(Slow {
        contract: Contract { class: Class::Read, ..Contract::undeclared("t") },
        inside: AtomicU32::new(0),
        most: AtomicU32::new(0),
        calls: AtomicU32::new(0),
        takes_ms,
        answer: Mutex::new(Ok(Value::Int(1))),
    })
}

fn limited_by(inner: &Arc<Slow>, config: &LimitsConfig) -> Limited {
    let inner_tool: Arc<dyn Tool> = inner.clone();
    Limited::new(inner_tool, inner.contract.clone(), config, OnLarge::Refuse, Role::Tool)
}

fn of(tenant: &str) -> Invocation {
    Invocation {
        name: "t".into(),
        arguments: Value::Null,
        idempotency_key: "k".into(),
        trace: None,
        run: RunId::stored("r"),
        tenant: tenant.into(),
        attempt: 1,
        timeout_ms: 10_000,
        output_bytes_max: 1_000,
        permit: Default::default(),
    }
}

async fn burst(limited: &Limited, tenants: &[&str], each: usize) -> (usize, Vec<Failure>) {
    let calls = tenants.iter().flat_map(|tenant| (0..each).map(|_| limited.call(of(tenant))));
    let results = join_all(calls).await;
    let answered = results.iter().filter(|result| result.is_ok()).count();
    (answered, results.into_iter().filter_map(Result::err).collect())
}

#[tokio::test(start_paused = true)]
async fn calls_at_once_are_bounded_for_all_and_for_one_tenant() {
    let inner = slow(100);
    let config = LimitsConfig { concurrent: Some(6), concurrent_per_tenant: Some(4), ..LimitsConfig::default() };
    let limited = limited_by(&inner, &config);
    assert_eq!(burst(&limited, &["a"], 12).await.0, 12, "the others wait for their turn");
    assert_eq!(inner.most.swap(0, Ordering::SeqCst), 4);
    assert_eq!(burst(&limited, &["a", "b"], 12).await.0, 24);
    assert_eq!(inner.most.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn a_tool_without_limits_of_its_own_has_the_defaults() {
    let inner = slow(1);
    let limited = limited_by(&inner, &LimitsConfig::default());
    assert_eq!(burst(&limited, &["a", "b", "c"], 200).await.0, 600);
    assert_eq!(inner.most.load(Ordering::SeqCst), CONCURRENT_DEFAULT);
    inner.most.store(0, Ordering::SeqCst);
    assert_eq!(burst(&limited, &["a"], 200).await.0, 200);
    assert_eq!(inner.most.load(Ordering::SeqCst), TENANT_DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_its_time_too() {
    let inner = slow(1_000);
    let config = LimitsConfig { concurrent: Some(1), queue_max: Some(2), ..LimitsConfig::default() };
    let (answered, failures) = burst(&limited_by(&inner, &config), &["a"], 5).await;
    assert_eq!((answered, failures.len()), (3, 2));
    assert!(failures.iter().all(|failure| failure.message.contains("queue is full")), "{failures:?}");
    assert!(failures.iter().all(|failure| failure.code == Code::ToolUnreachable && failure.retry == Retry::Backoff));
    let impatient = LimitsConfig { queue_ms: Some(500), ..config };
    assert_eq!(burst(&limited_by(&inner, &impatient), &["a"], 2).await.0, 1, "the second waits half a second only");
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_fails_at_once_or_is_answered_for() {
    let inner = slow(1_000);
    let failing = LimitsConfig { concurrent: Some(1), overload: Some(Overload::Fail), ..LimitsConfig::default() };
    assert_eq!(burst(&limited_by(&inner, &failing), &["a"], 3).await.0, 1);
    let calls = inner.calls.load(Ordering::SeqCst);
    let degraded = Some(serde_json::json!({ "stale": true }));
    let config = LimitsConfig { overload: Some(Overload::Degrade), degraded, ..failing };
    let limited = limited_by(&inner, &config);
    let results = join_all([limited.call(of("a")), limited.call(of("a"))]).await;
    assert_eq!(results[1].as_ref().map(Value::to_json).as_deref(), Ok(r#"{"stale":true}"#));
    assert_eq!(inner.calls.load(Ordering::SeqCst), calls + 1, "and is not called");
}

#[tokio::test(start_paused = true)]
async fn calls_in_a_minute_are_bounded() {
    let inner = slow(0);
    let config = LimitsConfig { per_minute: Some(60), overload: Some(Overload::Fail), ..LimitsConfig::default() };
    let limited = limited_by(&inner, &config);
    let (answered, failures) = burst(&limited, &["a"], 100).await;
    assert_eq!(answered, 60);
    assert!(failures.iter().all(|failure| matches!(failure.retry, Retry::After(1..=1_000))), "{:?}", failures[0]);
    tokio::time::advance(Duration::from_millis(2_000)).await;
    assert_eq!(burst(&limited, &["a"], 10).await.0, 2);
    let waiting = limited_by(&inner, &LimitsConfig { per_minute: Some(60), ..LimitsConfig::default() });
    let began = Instant::now();
    assert_eq!(burst(&waiting, &["a"], 63).await.0, 63);
    assert!(began.elapsed() >= Duration::from_millis(2_900), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_cannot_be_reached_is_left_alone_and_tried_again_by_one_call() {
    let inner = slow(1);
    let config = LimitsConfig { breaker_failures: Some(3), breaker_rest_ms: Some(5_000), ..LimitsConfig::default() };
    let limited = limited_by(&inner, &config);
    let set = |answer| *inner.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    set(Err(Failure::new(Code::ToolFailed, "no such customer")));
    burst(&limited, &["a"], 10).await;
    assert_eq!(inner.calls.swap(0, Ordering::SeqCst), 10, "an answer is an answer");
    set(Err(Failure::new(Code::ToolUnreachable, "down")));
    for _ in 0..9 {
        limited.call(of("a")).await.expect_err("down");
    }
    assert_eq!(inner.calls.swap(0, Ordering::SeqCst), 3);
    let failure = limited.call(of("a")).await.expect_err("left alone");
    assert!(matches!(failure.retry, Retry::After(ms) if ms <= 5_000) && failure.message.contains("in a row"));
    tokio::time::advance(Duration::from_millis(5_001)).await;
    assert_eq!(burst(&limited, &["a"], 5).await.1.len(), 5);
    assert_eq!(inner.calls.swap(0, Ordering::SeqCst), 1, "one call looks");
    tokio::time::advance(Duration::from_millis(5_001)).await;
    set(Ok(Value::Int(1)));
    drop(limited.call(of("a")));
    limited.call(of("a")).await.expect("it works again");
    assert_eq!(burst(&limited, &["a"], 5).await.0, 5);
}

#[test]
fn a_large_result_is_cut_within_its_bound() {
    let text = "ä\"\n".repeat(1_000);
    for value in [Value::str(&*text), Value::list(vec![Value::str(&*text)])] {
        let bytes = value.size_bytes() as u64;
        let cut = cut(&value, bytes, 500);
        assert!(cut.size_bytes() <= 500 && cut.size_bytes() > 350, "{}", cut.size_bytes());
        assert_eq!((cut.get("truncated"), cut.get("bytes")), (Some(&Value::Bool(true)), Some(&Value::count(bytes))));
    }
}
