//! Each breaker with a made-up course of calls, and honest work that trips none.

use super::*;
use crate::budget::Amounts;
use crate::contract::{Class, Idempotency};
use crate::failure::Failure;
use crate::ids::Digest;

const SECOND: u64 = 1_000;

#[test]
fn calls_that_there_was_no_room_for_say_nothing_about_their_tool() {
    let mut pulse = Pulse::default();
    for code in [Code::ToolOverloaded, Code::HookOverloaded] {
        for at in 0..20 {
            let outcome = Outcome::Failed(Failure::new(code, "its queue is full"));
            pulse.settled(&call("t", at), &outcome, Timestamp(at));
        }
    }
    assert_eq!(pulse, Pulse::default());
}

/// A call of a tool that left at `at` and may take a second.
fn call(tool: &str, at: u64) -> OpenCall {
    let (tool, call_id) = (tool.into(), "c".into());
    OpenCall {
        call: Call::Tool { tool, call_id, arguments: Value::Null, hook: None, plan: None },
        attempt: 1,
        class: Class::Read,
        idempotency: Idempotency::None,
        arguments: Digest::ZERO,
        reserved: Amounts::ZERO,
        timeout_ms: SECOND,
        output_bytes_max: 100,
        at: Timestamp(at),
        backoff: None,
        doubt: None,
        losses: 0,
        approval: None,
        route: None,
        held: Vec::new(),
        draws: false,
        wants: Amounts::ZERO,
        cached_expected: None,
        agreed: None,
        output_max: None,
        veiled: Vec::new(),
        ruled: None,
        resources: Vec::new(),
        shadow: None,
    }
}

fn failed(code: Code) -> Outcome {
    Outcome::Failed(Failure::new(code, "no"))
}

fn fine() -> Outcome {
    Outcome::Returned(Value::Null)
}

/// A turn of a tool loop: one call and its answer.
fn turn(n: usize, tool: &str, argument: &str, answer: &str) -> [Message; 2] {
    let id: Name = format!("c{n}").into();
    let call =
        ToolRequest { id: id.clone(), name: tool.into(), arguments: Value::object([("q", Value::str(argument))]) };
    [
        Message::Assistant { content: "".into(), tool_calls: vec![call], attachments: Value::Null },
        Message::Tool { call_id: id, content: answer.into(), is_error: false },
    ]
}

fn turns(of: impl Fn(usize) -> [Message; 2], count: u32) -> Vec<Message> {
    (0..count as usize).flat_map(of).collect()
}

#[test]
fn a_tool_whose_calls_fail_again_and_again_is_shut_off() {
    let mut pulse = Pulse::default();
    for n in 0..u64::from(FAILED_CALLS_MAX) {
        assert_eq!(pulse.tool_trips("look", &Breakers::default()), None, "after {n}");
        let at = n * 5 * SECOND;
        pulse.settled(&call("look", at), &failed(Code::ToolFailed), Timestamp(at + 10));
        pulse.settled(&call("other", at), &fine(), Timestamp(at + 10));
    }
    let trip = pulse.tool_trips("look", &Breakers::default()).expect("a storm");
    assert_eq!((trip.breaker, trip.count), ("retry_storm", FAILED_CALLS_MAX));
    assert_eq!(pulse.tool_trips("other", &Breakers::default()), None, "others are not meant");
    pulse.shut_off(&"look".into(), &"it failed".into());
    assert_eq!(pulse.tool_trips("look", &Breakers::default()), None, "once is enough");
    assert_eq!(pulse.shut("look").map(|why| &**why), Some("it failed"));
}

#[test]
fn failures_far_apart_and_calls_that_were_refused_are_no_storm() {
    let mut pulse = Pulse::default();
    for n in 0..40 {
        let at = n * STORM_MS / 5;
        pulse.settled(&call("look", at), &failed(Code::ToolFailed), Timestamp(at + 10));
        pulse.settled(&call("pay", n), &failed(Code::ApprovalRejected), Timestamp(n + 10));
        pulse.settled(&call("pay", n), &failed(Code::BudgetExceeded), Timestamp(n + 10));
    }
    assert_eq!(pulse.tool_trips("look", &Breakers::default()), None);
    assert_eq!(pulse.tool_trips("pay", &Breakers::default()), None);
    let kept: usize = pulse.tools.values().map(|tool| tool.failed.len()).sum();
    assert!(kept <= 6, "only the last minute is kept: {kept}");
}

#[test]
fn a_tool_that_is_slow_again_and_again_is_shut_off() {
    let mut pulse = Pulse::default();
    let slow = |pulse: &mut Pulse| pulse.settled(&call("look", 0), &fine(), Timestamp(SECOND * SLOW_PERCENT / 100));
    for _ in 1..SLOW_CALLS_MAX {
        slow(&mut pulse);
    }
    assert_eq!(pulse.tool_trips("look", &Breakers::default()), None);
    pulse.settled(&call("look", 0), &fine(), Timestamp(10));
    assert!(pulse.is_empty(), "one that is quick begins the count anew: {pulse:?}");
    for _ in 0..SLOW_CALLS_MAX {
        slow(&mut pulse);
    }
    let trip = pulse.tool_trips("look", &Breakers::default()).expect("it is slow");
    assert_eq!((trip.breaker, trip.count), ("latency", SLOW_CALLS_MAX));
}

#[test]
fn attempts_at_models_that_fail_again_and_again_are_given_up() {
    let mut pulse = Pulse::default();
    let most = Breakers { failed_attempts: Some(20), ..Breakers::default() };
    for n in 0..19 {
        assert_eq!(pulse.models_trip(&most, Timestamp(n)), None);
        pulse.attempt_failed(Timestamp(n));
    }
    let trip = pulse.models_trip(&most, Timestamp(19)).expect("a storm");
    assert_eq!((trip.breaker, trip.count), ("retry_storm", 20));
    assert_eq!(pulse.models_trip(&most, Timestamp(19 + STORM_MS)), None, "a minute later");
    assert_eq!(pulse.models_trip(&Breakers::default(), Timestamp(19)), None, "the default is higher");
    pulse.calm();
    assert_eq!(pulse.models_trip(&most, Timestamp(20)), None, "it has tripped");
}

#[test]
fn the_same_call_with_other_calls_in_between_is_noticed() {
    let words = ["Rust  books", "rust books", "RUST BOOKS!"];
    let of = |n: usize| {
        if n.is_multiple_of(2) {
            turn(n, "search", words[n / 2 % 3], "No results.")
        } else {
            turn(n, "look", &n.to_string(), "a page")
        }
    };
    assert_eq!(same_call(&turns(of, 2 * SAME_CALLS_MAX - 2), &Breakers::default()), None);
    let (tool, trip) = same_call(&turns(of, 2 * SAME_CALLS_MAX - 1), &Breakers::default()).expect("the same call");
    assert_eq!((&*tool, trip.breaker, trip.count), ("search", "same_call", SAME_CALLS_MAX));
    let never = Breakers { same_calls: Some(0), ..Breakers::default() };
    assert_eq!(same_call(&turns(of, 99), &never), None, "off");
}

#[test]
fn other_arguments_other_answers_and_a_word_in_between_are_not_the_same() {
    let pages = |n: usize| turn(n, "search", &format!("page {n}"), "nothing");
    assert_eq!(same_call(&turns(pages, 30), &Breakers::default()), None);
    let polls = |n: usize| turn(n, "status", "job", &format!("{n} of 30 done"));
    assert_eq!(same_call(&turns(polls, 30), &Breakers::default()), None);
    let mut told = turns(|n| turn(n, "search", "x", "nothing"), SAME_CALLS_MAX - 1);
    told.push(Message::User { content: "once more".into() });
    told.extend(turn(99, "search", "x", "nothing"));
    assert_eq!(same_call(&told, &Breakers::default()), None);
}

#[test]
fn fifteen_steps_of_honest_work_trip_nothing() {
    let (mut pulse, mut tail) = (Pulse::default(), Vec::new());
    let tools = ["search", "open", "search", "open", "status", "status", "status", "write", "test", "write", "test"];
    for n in 0..15_usize {
        let tool = tools[n % tools.len()];
        let at = Timestamp(n as u64 * 4 * SECOND);
        // Tests fail until they do not, a poll has the same answer, and now and then something is slow.
        let (outcome, answer) = if tool == "test" { (failed(Code::ToolFailed), "2 failed") } else { (fine(), "ok") };
        let took = if n % 4 == 0 { 900 } else { 50 };
        pulse.settled(&call(tool, at.0), &outcome, at.plus_ms(took));
        if n % 5 == 0 {
            pulse.attempt_failed(at);
        }
        tail.extend(turn(n, tool, if tool == "status" { "job" } else { "part" }, answer));
        assert_eq!(pulse.tool_trips(tool, &Breakers::default()), None, "step {n}");
        assert_eq!(pulse.models_trip(&Breakers::default(), at), None, "step {n}");
        assert_eq!(same_call(&tail, &Breakers::default()), None, "step {n}");
    }
}

#[test]
fn the_stricter_bound_counts_and_off_is_the_loosest() {
    let of = |n| Breakers { slow_calls: n, ..Breakers::default() };
    assert_eq!(of(Some(3)).stricter(&of(Some(0))), of(Some(3)));
    assert_eq!(of(Some(3)).stricter(&of(Some(2))), of(Some(2)));
    assert_eq!(of(None).stricter(&of(Some(0))), of(Some(0)), "said against not said");
}
