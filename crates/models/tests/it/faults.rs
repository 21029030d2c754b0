//! Faults of the transport and hostile answers, for every wire format: which failure follows, what may have been spent,
//! and that nothing broken is taken for an answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use windlass_core::effect::Spent;
use windlass_core::failure::{Code, Retry};
use windlass_core::transcript::{Message, Reply};
use windlass_core::value::Value;
use windlass_models::{Bounds, Models};
use windlass_ports::model::{Model, ModelResult};

use crate::fixtures::documented;
use crate::formats::{Format, Why, aws, aws_frame};
use crate::server::{Act, End, Server};
use crate::streams::{bytes, for_every_cut, may_have_cost, request_as};

/// One client, which is asked by each call of a test: making one takes far longer than a call.
struct Client(Models);

impl Client {
    fn new() -> Self {
        Self(Models::builder().build())
    }

    /// One call of a server of a format that always does the same.
    async fn ask(&self, format: Format, act: Act, streamed: bool) -> ModelResult {
        let server = Server::always(act);
        self.0.call(request_as(format, &server, streamed, 60_000)).await
    }
}

/// What a server says, with another body.
fn with_body(act: &Act, changed: Vec<u8>) -> Act {
    match act.clone() {
        Act::Answer { status, headers, end, .. } => Act::Answer { status, headers, body: changed, end },
        Act::Drop | Act::Reset | Act::Hang => panic!("it says nothing"),
    }
}

const BODY: &str = r#"{"error":{"message":"m","type":"rate_limit","code":"c"}}"#;

#[tokio::test]
async fn every_format_waits_as_long_as_it_is_told_within_a_bound() {
    let client = Client::new();
    for format in Format::ALL {
        for streamed in [false, true] {
            for (header, retry) in [
                ("0", Retry::After(0)),
                ("1", Retry::After(1_000)),
                ("1000000000", Retry::After(3_600_000)),
                ("Sun, 06 Nov 1994 08:49:37 GMT", Retry::After(0)),
                ("Tue, 31 Dec 2999 23:59:59 GMT", Retry::After(3_600_000)),
                ("-1", Retry::Backoff),
                ("99999999999999999999999999", Retry::After(3_600_000)),
                ("junk", Retry::Backoff),
            ] {
                let result = client.ask(format, Act::json(429, BODY).header("retry-after", header), streamed).await;
                let failure = result.outcome.expect_err("a refusal");
                let got = (failure.code, failure.retry, failure.status, result.spent);
                let want = (Code::ProviderRateLimited, retry, Some(429), Spent::Nothing);
                assert_eq!(got, want, "{format:?} {header}: {failure}");
            }
        }
    }
}

#[tokio::test]
async fn every_format_knows_a_server_that_is_down() {
    let client = Client::new();
    for format in Format::ALL {
        for (status, streamed) in [500, 502, 503, 529].into_iter().flat_map(|status| [(status, false), (status, true)])
        {
            for body in [BODY, "<html>bad gateway</html>", ""] {
                let result = client.ask(format, Act::json(status, body), streamed).await;
                let failure = result.outcome.expect_err("a refusal");
                let got = (failure.code, failure.retry, failure.status);
                let want = (Code::ProviderUnavailable, Retry::Backoff, Some(i64::from(status)));
                assert_eq!(got, want, "{format:?} {body}: {failure}");
            }
        }
        let once = client.ask(format, Act::json(503, BODY).header("x-should-retry", "false"), false).await;
        assert_eq!(once.outcome.expect_err("a refusal").retry, Retry::Never, "{format:?}");
        // The status came, so it counts, whatever becomes of the body.
        for end in [End::Cut(5), End::Closed(5), End::Reset(5), End::Cut(0)] {
            let failure =
                client.ask(format, Act::json(429, BODY).end(end), false).await.outcome.expect_err("a refusal");
            // A reset may overtake what was sent before it.
            let is_lost = matches!(end, End::Reset(_)) && failure.code == Code::ProviderUnreachable;
            let got = (failure.code, failure.status);
            assert!(is_lost || got == (Code::ProviderRateLimited, Some(429)), "{format:?} {end:?}: {failure}");
        }
    }
}

#[tokio::test]
async fn no_format_follows_a_redirect() {
    let client = Client::new();
    for format in Format::ALL {
        let elsewhere = Server::always(format.says("stolen", Why::Done, true, false).expect("an answer"));
        for (status, streamed) in [301, 302, 303, 307, 308].into_iter().flat_map(|s| [(s, false), (s, true)]) {
            let act = Act::json(status, "").header("location", &elsewhere.url);
            let failure = client.ask(format, act, streamed).await.outcome.expect_err("a refusal");
            let got = (failure.status, failure.retry);
            assert_eq!(got, (Some(i64::from(status)), Retry::Never), "{format:?}: {failure}");
        }
        assert_eq!(elsewhere.seen().len(), 0, "{format:?}");
    }
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_begins_may_have_cost_something_in_every_format() {
    let client = Client::new();
    for format in Format::ALL {
        for streamed in [false, true] {
            for act in [Act::Drop, Act::Reset] {
                let result = client.ask(format, act, streamed).await;
                let failure = result.outcome.expect_err("no answer");
                let got = (failure.code, failure.retry, result.spent);
                assert_eq!(got, (Code::ProviderUnreachable, Retry::Backoff, Spent::Unknown), "{format:?}: {failure}");
            }
            // Within the headers, after each of their first bytes; they are longer than this.
            let said = format.says("x", Why::Done, true, streamed).expect("an answer");
            for k in 0..70 {
                let result = client.ask(format, said.clone().end(End::Head(k)), streamed).await;
                let failure = result.outcome.expect_err("no answer");
                let got = (failure.code, failure.retry, result.spent);
                let want = (Code::ProviderUnreachable, Retry::Backoff, Spent::Unknown);
                assert_eq!(got, want, "{format:?} {k}: {failure}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_reset_within_the_answer_may_have_cost_something_in_every_format() {
    let client = Client::new();
    for format in Format::ALL {
        for streamed in [false, true] {
            let said = format.says("two words", Why::Done, true, streamed).expect("an answer");
            let length = bytes(&said).len();
            for k in (0..length).step_by(length / 20) {
                let result = client.ask(format, said.clone().end(End::Reset(k)), streamed).await;
                let failure = result.outcome.expect_err("no answer");
                // A reset may overtake the headers that were sent before it.
                let is_known = matches!(failure.code, Code::ProviderTruncated | Code::ProviderUnreachable);
                assert!(is_known && failure.is_transient(), "{format:?} {k}: {failure}");
                assert!(may_have_cost(result.spent), "{format:?} {k}: {:?}", result.spent);
            }
        }
    }
}

#[tokio::test]
async fn a_whole_answer_of_any_format_cut_after_any_byte_is_no_answer() {
    let client = Client::new();
    for format in Format::ALL {
        let said = format.says("two words", Why::Done, true, false).expect("an answer");
        for k in 0..bytes(&said).len() {
            for end in [End::Cut(k), End::Closed(k)] {
                let result = client.ask(format, said.clone().end(end), false).await;
                let failure = result.outcome.expect_err("half an answer");
                assert_eq!(failure.code, Code::ProviderTruncated, "{format:?} {end:?}: {failure}");
                assert!(may_have_cost(result.spent), "{format:?} {end:?}: {:?}", result.spent);
            }
        }
    }
}

// Slow on purpose: every stream of the fixtures is cut after each of its bytes, in both ways in which a connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_stream_of_openai_cut_after_any_byte_is_truncated() {
    documented_cut(Format::OpenAi).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_stream_of_anthropic_cut_after_any_byte_is_truncated() {
    documented_cut(Format::Anthropic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_text_of_responses_cut_after_any_byte_is_truncated() {
    for_every_cut(Format::Responses, documented(Format::Responses, "text")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_calls_of_responses_cut_after_any_byte_are_truncated() {
    for_every_cut(Format::Responses, documented(Format::Responses, "tools")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_stream_of_gemini_cut_after_any_byte_is_truncated() {
    documented_cut(Format::Gemini).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_stream_of_bedrock_cut_after_any_byte_is_truncated() {
    documented_cut(Format::Bedrock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_stream_of_ollama_cut_after_any_byte_is_truncated() {
    documented_cut(Format::Ollama).await;
}

async fn documented_cut(format: Format) {
    for name in ["text", "tools"] {
        for_every_cut(format, documented(format, name)).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_within_any_answer_are_no_answer() {
    let client = Client::new();
    for format in Format::ALL {
        for name in ["text", "tools"] {
            let played = documented(format, name);
            let whole = client.ask(format, played.clone(), true).await.outcome.expect("an answer");
            let body = bytes(&played);
            for at in (0..body.len()).step_by(23) {
                let mut broken = body.clone();
                broken.insert(at, 0xff);
                let result = client.ask(format, with_body(&played, broken), true).await;
                match result.outcome {
                    // Behind the end of the answer nothing is read.
                    Ok(reply) => assert!(reply == whole && at + 8 > body.len(), "{format:?} {name} {at}: {reply:?}"),
                    Err(failure) => {
                        let is_known = matches!(failure.code, Code::ProviderMalformed | Code::ProviderTruncated);
                        assert!(is_known && may_have_cost(result.spent), "{format:?} {name} {at}: {failure}");
                    }
                }
            }
        }
        let said = format.says("two words", Why::Done, true, false).expect("an answer");
        for at in 0..bytes(&said).len() {
            let mut broken = bytes(&said);
            broken[at] = 0xff;
            let failure = client.ask(format, with_body(&said, broken), false).await.outcome.expect_err("no text");
            assert_eq!(failure.code, Code::ProviderMalformed, "{format:?} {at}: {failure}");
        }
    }
    // A message of AWS that is whole by its sums, with a payload that is no text.
    let payload = b"{\"contentBlockIndex\":0,\"delta\":{\"text\":\"\xff\"}}";
    let body = aws_frame("contentBlockDelta", payload);
    let failure = client.ask(Format::Bedrock, with_body(&aws(&[]), body), true).await.outcome.expect_err("no text");
    assert_eq!(failure.code, Code::ProviderMalformed, "{failure}");
}

/// The pieces of a stream as a server sends them.
fn chunks(format: Format, body: &[u8]) -> Vec<Vec<u8>> {
    if format == Format::Bedrock {
        let mut rest = body;
        let mut out = Vec::new();
        while let Some(head) = rest.first_chunk::<4>() {
            let (frame, after) = rest.split_at(u32::from_be_bytes(*head) as usize);
            out.push(frame.to_vec());
            rest = after;
        }
        return out;
    }
    let text = std::str::from_utf8(body).expect("a text");
    let end = match format {
        Format::Ollama => "\n",
        _ if text.contains("\r\n\r\n") => "\r\n\r\n",
        _ => "\n\n",
    };
    text.split_inclusive(end).map(|piece| piece.as_bytes().to_vec()).collect()
}

/// A piece that comes twice never changes what was counted, and never makes a call that the model did not write.
#[tokio::test]
async fn a_piece_sent_twice_changes_neither_the_count_nor_a_call_of_any_format() {
    let client = Client::new();
    for format in Format::ALL {
        for name in ["text", "tools"] {
            let played = documented(format, name);
            let pieces = chunks(format, &bytes(&played));
            assert!(pieces.len() > 1, "{format:?} {name}");
            let asked = client.ask(format, played.clone(), true).await;
            let whole = asked.outcome.expect("an answer");
            for twice in 0..pieces.len() {
                let mut sent = pieces.clone();
                sent.insert(twice, pieces[twice].clone());
                let result = client.ask(format, with_body(&played, sent.concat()), true).await;
                let place = format!("{format:?} {name} {twice}");
                match result.outcome {
                    Err(failure) => assert!(may_have_cost(result.spent), "{place}: {failure}"),
                    Ok(reply) => {
                        assert_eq!((reply.usage, result.spent), (whole.usage, asked.spent), "{place}");
                        assert_eq!(reply.finish, whole.finish, "{place}");
                        of_its_calls(&whole, &reply, &place);
                    }
                }
            }
        }
    }
}

/// Calls have distinct ids, and what can be executed of them is what the whole answer has.
fn of_its_calls(whole: &Reply, reply: &Reply, place: &str) {
    let ids: BTreeSet<&str> = reply.tool_calls.iter().map(|call| &*call.id).collect();
    assert_eq!(ids.len(), reply.tool_calls.len(), "{place}: {:?}", reply.tool_calls);
    for call in &reply.tool_calls {
        let is_written = whole.tool_calls.iter().any(|w| (&w.name, &w.arguments) == (&call.name, &call.arguments));
        assert!(is_written || call.arguments.as_map().is_none(), "{place}: {call:?}");
    }
}

/// Answers of tools find their call by its id, so each call gets one of its own, and the next request carries them.
#[tokio::test]
async fn calls_of_one_id_become_calls_of_distinct_ids_in_every_format() {
    let client = Client::new();
    let written = [("one", r#"{"n":1}"#), ("one", r#"{"n":2}"#), ("one_2", r#"{"n":3}"#), ("", r#"{"n":4}"#)];
    for format in Format::ALL {
        for streamed in [false, true] {
            let act = format.calls("hoist", &written, streamed).expect("an answer");
            let server = Server::always(act);
            let mut request = request_as(format, &server, streamed, 10_000);
            let reply = client.0.call(request.clone()).await.outcome.expect("an answer");
            let calls: Vec<(&str, Option<i64>)> =
                reply.tool_calls.iter().map(|c| (&*c.id, c.arguments.get("n").and_then(Value::as_int))).collect();
            let want = [("one", Some(1)), ("one_2", Some(2)), ("one_2_2", Some(3)), ("call_1_3", Some(4))];
            assert_eq!(calls, want, "{format:?} {streamed}");
            request.messages.push(Message::Assistant {
                content: reply.content.clone(),
                tool_calls: reply.tool_calls.clone(),
                attachments: reply.attachments.clone(),
            });
            for call in &reply.tool_calls {
                let content = call.arguments.to_json().into();
                request.messages.push(Message::Tool { call_id: call.id.clone(), content, is_error: false });
            }
            let next = client.0.call(request).await.outcome;
            assert!(next.is_ok(), "{format:?} {streamed}: {next:?}");
            let sent = server.seen().last().expect("a request").body.to_json();
            let at = |n: i64| sent.rfind(&format!("{{\\\"n\\\":{n}}}")).unwrap_or_else(|| panic!("{n}: {sent}"));
            assert!(at(1) < at(2) && at(2) < at(3) && at(3) < at(4), "{format:?}: each answer in its place: {sent}");
        }
    }
}

/// A text of a million digits.
fn digits() -> String {
    "7".repeat(1_000_000)
}

/// A mapping of a million keys.
fn keys() -> String {
    let mut text = String::from("{\"k\":0");
    for n in 0..1_000_000 {
        write!(text, ",\"{n}\":0").expect("text");
    }
    text.push('}');
    text
}

/// ATK-22: a number that no value holds is refused, or kept as the text that it was, which no tool is called with.
#[tokio::test]
async fn a_number_of_a_million_digits_is_no_number_in_any_format() {
    let client = Client::new();
    let arguments = format!(r#"{{"n":{}}}"#, digits());
    for format in Format::ALL {
        for streamed in [false, true] {
            // Not every format carries what is no value; those that do are asked.
            let calls = hostile_call(format, &arguments, streamed);
            match client.ask(format, calls, streamed).await.outcome {
                Err(failure) => {
                    assert_eq!(failure.code, Code::ProviderMalformed, "{format:?}: {failure}");
                    assert!(failure.message.len() < 4_096, "{format:?}");
                }
                Ok(reply) => {
                    assert_eq!(reply.tool_calls.len(), 1, "{format:?}");
                    assert!(
                        reply.tool_calls[0].arguments.as_str().is_some(),
                        "{format:?}: no mapping, so never called"
                    );
                }
            }
        }
        let said = format.says("x", Why::Done, true, false).expect("an answer");
        let body = String::from_utf8(bytes(&said)).expect("a text").replacen('{', &format!("{{\"n\":{},", digits()), 1);
        let failure = client.ask(format, with_body(&said, body.into()), false).await.outcome.expect_err("no number");
        assert_eq!(failure.code, Code::ProviderMalformed, "{format:?}");
        assert!(failure.message.len() < 4_096, "{format:?}");
    }
}

/// An answer that calls a tool with arguments as they are written, whether or not they are a value.
fn hostile_call(format: Format, arguments: &str, streamed: bool) -> Act {
    const MARK: &str = r#"{"n":1}"#;
    let act = format.calls("hoist", &[("one", MARK)], streamed).expect("an answer");
    let body = bytes(&act);
    match std::str::from_utf8(&body) {
        Ok(text) if text.contains(MARK) => with_body(&act, text.replace(MARK, arguments).into()),
        // The format carries them as a text, which may hold anything.
        _ => format.calls("hoist", &[("one", arguments)], streamed).expect("an answer"),
    }
}

/// ATK-22: a mapping of a million keys is a value like any other, within the bytes that an answer may have: one format
/// for arguments that come as a mapping, one for those that come as a text.
// Slow on purpose: a million keys are read.
#[tokio::test]
async fn a_mapping_of_a_million_keys_is_a_value_or_refused_by_its_size() {
    let client = Client::new();
    let bounds = Bounds { answer_bytes_max: 1 << 20, ..Bounds::default() };
    let bounded = Client(Models::builder().bounds(bounds).build());
    let arguments = keys();
    for format in [Format::OpenAi, Format::Anthropic] {
        let act = hostile_call(format, &arguments, false);
        let failure = bounded.ask(format, act.clone(), false).await.outcome.expect_err("too large");
        assert_eq!((failure.code, failure.is_transient()), (Code::ProviderMalformed, false), "{format:?}: {failure}");
        let reply = client.ask(format, act, false).await.outcome.expect("an answer");
        let map = reply.tool_calls[0].arguments.as_map().expect("a mapping");
        assert_eq!((reply.tool_calls.len(), map.len()), (1, 1_000_001), "{format:?}");
    }
}

/// No fault makes an adapter ask again by itself: repeats are the engine's.
#[tokio::test]
async fn no_format_sends_a_request_twice() {
    let client = Client::new();
    for format in Format::ALL {
        for act in [Act::Drop, Act::Reset, Act::json(500, "{}"), Act::json(429, BODY).header("retry-after", "0")] {
            let server = Server::always(act);
            let result = client.0.call(request_as(format, &server, false, 10_000)).await;
            assert!(result.outcome.is_err());
            assert_eq!(server.seen().len(), 1, "{format:?}");
        }
    }
}
