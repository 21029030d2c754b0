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
    let queue = LimitsConfig { queue_max: Some(2), queue_max_per_tenant: Some(2), ..LimitsConfig::default() };
    let config = LimitsConfig { concurrent: Some(1), ..queue };
    let (answered, failures) = burst(&limited_by(&inner, &config), &["a"], 5).await;
    assert_eq!((answered, failures.len()), (3, 2));
    assert!(failures.iter().all(|failure| failure.message.contains("tenant wait for it")), "{failures:?}");
    assert!(failures.iter().all(|failure| failure.code == Code::ToolOverloaded && failure.retry == Retry::Backoff));
    let shared = LimitsConfig { queue_max: Some(3), ..config.clone() };
    let (answered, failures) = burst(&limited_by(&inner, &shared), &["a", "b"], 3).await;
    assert_eq!((answered, failures.len()), (4, 2), "what one tenant may not take is left for the other");
    assert!(failures.iter().any(|failure| failure.message.contains("queue is full")), "{failures:?}");
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
async fn calls_in_any_minute_are_bounded() {
    let inner = slow(0);
    let config = LimitsConfig { per_minute: Some(60), overload: Some(Overload::Fail), ..LimitsConfig::default() };
    let limited = limited_by(&inner, &config);
    assert_eq!(burst(&limited, &["a"], 30).await.0, 30);
    tokio::time::advance(Duration::from_secs(20)).await;
    let (answered, failures) = burst(&limited, &["a"], 70).await;
    assert_eq!(answered, 30);
    assert!(failures.iter().all(|failure| matches!(failure.retry, Retry::After(39_000..=40_000))), "{:?}", failures[0]);
    tokio::time::advance(Duration::from_millis(39_990)).await;
    assert_eq!(burst(&limited, &["a"], 10).await.0, 0);
    tokio::time::advance(Duration::from_millis(20)).await;
    assert_eq!(burst(&limited, &["a"], 70).await.0, 30, "half of them are more than a minute ago");
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_their_moment_and_leave_it_to_others_when_they_are_given_up() {
    let inner = slow(0);
    let limited = limited_by(&inner, &LimitsConfig { per_minute: Some(2), ..LimitsConfig::default() });
    assert_eq!(burst(&limited, &["a"], 2).await.0, 2);
    tokio::time::advance(Duration::from_millis(57_000)).await;
    for _ in 0..5 {
        timeout_at(Instant::now() + Duration::from_millis(1), limited.call(of("a"))).await.expect_err("it waits");
    }
    let began = Instant::now();
    assert_eq!(burst(&limited, &["a"], 3).await.0, 2, "those that were given up began never");
    assert!(began.elapsed() >= Duration::from_millis(2_900), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_to_look_and_is_given_up_while_it_waits_leaves_the_look_to_the_next() {
    let inner = slow(0);
    let config = LimitsConfig {
        per_minute: Some(2),
        breaker_failures: Some(2),
        breaker_rest_ms: Some(500),
        ..LimitsConfig::default()
    };
    let limited = limited_by(&inner, &config);
    let set = |answer| *inner.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    set(Err(Failure::new(Code::ToolUnreachable, "down")));
    assert_eq!(burst(&limited, &["a"], 2).await.1.len(), 2);
    tokio::time::advance(Duration::from_millis(57_000)).await;
    {
        let mut looks = limited.call(of("a"));
        assert!((&mut looks).now_or_never().is_none(), "it waits for its moment");
        let failure = limited.call(of("a")).await.expect_err("one is to look");
        assert_eq!(failure.retry, Retry::After(500), "{failure}");
    }
    set(Ok(Value::Int(1)));
    assert_eq!(limited.call(of("a")).await, Ok(Value::Int(1)), "it works again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_call_from_before_moves_no_breaker() {
    let breaker = Breaker::new(2, 1_000);
    let enter = || breaker.enter().expect("let through");
    let [late, later, one, two] = [enter(), enter(), enter(), enter()];
    one.ended(true);
    two.ended(true);
    late.ended(false);
    assert!(breaker.enter().is_err(), "a success from before closes nothing");
    tokio::time::advance(Duration::from_millis(1_001)).await;
    let probe = enter();
    later.ended(true);
    assert_eq!(breaker.enter().map(drop), Err(1_000), "the probe is still out");
    probe.ended(false);
    enter().ended(false);
}

#[tokio::test(start_paused = true)]
async fn a_call_says_that_it_leaves_once_it_has_its_turn() {
    let inner = slow(1_000);
    let config = LimitsConfig { concurrent: Some(1), ..LimitsConfig::default() };
    let limited = limited_by(&inner, &config);
    let left = Arc::new(AtomicU32::new(0));
    let leaving = |answer: Result<(), Failure>| {
        let left = Arc::clone(&left);
        let departs = move || {
            left.fetch_add(1, Ordering::SeqCst);
            answer.clone()
        };
        Invocation { permit: windlass_ports::tool::Permit::default().departing(departs), ..of("a") }
    };
    let mut first = limited.attempt(leaving(Ok(())));
    assert!((&mut first).now_or_never().is_none());
    let mut second = limited.attempt(leaving(Ok(())));
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(left.load(Ordering::SeqCst), 1, "the second waits");
    first.await.expect("answered");
    second.await.expect("answered");
    assert_eq!(left.load(Ordering::SeqCst), 2);
    let held = Failure::new(Code::StoreUnavailable, "no mark");
    let failure = limited.attempt(leaving(Err(held))).await.expect_err("not sent");
    assert_eq!((failure.code, inner.calls.load(Ordering::SeqCst)), (Code::StoreUnavailable, 2));
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
