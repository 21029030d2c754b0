//! Answers as the servers of both wire formats send them, whole and streamed, and what happens when a stream breaks.

use windlass_core::effect::{Said, Spent};
use windlass_core::failure::Code;
use windlass_core::request::ModelRequest;
use windlass_core::value::Value;
use windlass_models::{Bounds, Models};
use windlass_ports::model::{Model, ModelResult};

use crate::formats::{Format, Why};
use crate::http::{ask, request};
use crate::server::{Act, End, Server};

pub(crate) fn text(text: &str) -> String {
    Value::str(text).to_json()
}

const OPENAI_USAGE: &str =
    r#"{"prompt_tokens":200,"completion_tokens":30,"total_tokens":230,"prompt_tokens_details":{"cached_tokens":80}}"#;

pub(crate) fn openai_text(content: &str, finish: &str, usage: bool, streamed: bool) -> Act {
    let usage = if usage { OPENAI_USAGE } else { "null" };
    if !streamed {
        let content = text(content);
        return Act::json(
            200,
            &format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","model":"m-2024","choices":[{{"index":0,"message":{{"role":"assistant","content":{content}}},"finish_reason":"{finish}"}}],"usage":{usage}}}"#
            ),
        );
    }
    let mut body = String::new();
    for piece in content.split_inclusive(' ') {
        let piece = text(piece);
        body.push_str(&format!("data: {{\"id\":\"chatcmpl-1\",\"model\":\"m-2024\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":{piece}}},\"finish_reason\":null}}]}}\n\n"));
    }
    body.push_str(&format!("data: {{\"id\":\"chatcmpl-1\",\"model\":\"m-2024\",\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{finish}\"}}]}}\n\n"));
    body.push_str(&format!(
        "data: {{\"id\":\"chatcmpl-1\",\"model\":\"m-2024\",\"choices\":[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n"
    ));
    Act::stream(body.as_bytes())
}

pub(crate) fn openai_calls(tool: &str, calls: &[(&str, &str)], streamed: bool) -> Act {
    let call = |(index, (id, arguments)): (usize, &(&str, &str))| {
        let arguments = text(arguments);
        format!(
            r#"{{"index":{index},"id":"{id}","type":"function","function":{{"name":"{tool}","arguments":{arguments}}}}}"#
        )
    };
    let calls: Vec<String> = calls.iter().enumerate().map(call).collect();
    if !streamed {
        let calls = calls.join(",");
        return Act::json(
            200,
            &format!(
                r#"{{"id":"c","model":"m","choices":[{{"message":{{"role":"assistant","content":null,"tool_calls":[{calls}]}},"finish_reason":"tool_calls"}}],"usage":{OPENAI_USAGE}}}"#
            ),
        );
    }
    let mut body = String::new();
    for call in calls {
        body.push_str(&format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{call}]}},\"finish_reason\":null}}]}}\n\n"
        ));
    }
    body.push_str("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n");
    Act::stream(body.as_bytes())
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn anthropic_stream(blocks: &[String], stop: &str, usage: bool) -> Act {
    let (first, last) = if usage {
        (r#"{"input_tokens":120,"cache_read_input_tokens":80,"output_tokens":1}"#, r#"{"output_tokens":30}"#)
    } else {
        ("null", "null")
    };
    let start =
        format!(r#"{{"type":"message_start","message":{{"id":"msg_1","model":"m","content":[],"usage":{first}}}}}"#);
    let end =
        format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{stop}","stop_sequence":null}},"usage":{last}}}"#);
    let body = [event("message_start", &start), event("ping", r#"{"type":"ping"}"#)]
        .into_iter()
        .chain(blocks.iter().cloned())
        .chain([event("message_delta", &end), event("message_stop", r#"{"type":"message_stop"}"#)]);
    Act::stream(body.collect::<String>().as_bytes())
}

pub(crate) fn anthropic_text(content: &str, stop: &str, usage: bool, streamed: bool) -> Act {
    if !streamed {
        let (content, usage) = (
            text(content),
            if usage { r#"{"input_tokens":120,"cache_read_input_tokens":80,"output_tokens":30}"# } else { "null" },
        );
        return Act::json(
            200,
            &format!(
                r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":{content}}}],"stop_reason":"{stop}","usage":{usage}}}"#
            ),
        );
    }
    let mut blocks = vec![event(
        "content_block_start",
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    )];
    for piece in content.split_inclusive(' ') {
        let piece = text(piece);
        let data =
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{piece}}}}}"#);
        blocks.push(event("content_block_delta", &data));
    }
    blocks.push(event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#));
    anthropic_stream(&blocks, stop, usage)
}

pub(crate) fn anthropic_calls(tool: &str, calls: &[(&str, &str)], streamed: bool) -> Act {
    if !streamed {
        let call = |(id, arguments): &(&str, &str)| {
            let input = if Value::from_json(arguments).is_ok() { (*arguments).to_owned() } else { text(arguments) };
            format!(r#"{{"type":"tool_use","id":"{id}","name":"{tool}","input":{input}}}"#)
        };
        let blocks: Vec<String> = calls.iter().map(call).collect();
        let blocks = blocks.join(",");
        return Act::json(
            200,
            &format!(
                r#"{{"id":"msg_1","model":"m","content":[{blocks}],"stop_reason":"tool_use","usage":{{"input_tokens":1,"output_tokens":1}}}}"#
            ),
        );
    }
    let mut blocks = Vec::new();
    for (index, (id, arguments)) in calls.iter().enumerate() {
        let start = format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"{id}","name":"{tool}","input":{{}}}}}}"#
        );
        blocks.push(event("content_block_start", &start));
        let (first, second) = arguments.split_at(arguments.len() / 2);
        for piece in [first, second] {
            let piece = text(piece);
            let delta = format!(
                r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"input_json_delta","partial_json":{piece}}}}}"#
            );
            blocks.push(event("content_block_delta", &delta));
        }
    }
    anthropic_stream(&blocks, "tool_use", true)
}

pub(crate) fn bytes(act: &Act) -> Vec<u8> {
    match act {
        Act::Answer { body, .. } => body.clone(),
        Act::Drop | Act::Reset | Act::Hang => Vec::new(),
    }
}

/// One call of a server of a format that always does the same.
pub(crate) async fn ask_as(format: Format, act: Act, streamed: bool, bounds: Bounds, timeout_ms: u64) -> ModelResult {
    let server = Server::always(act);
    Models::builder().bounds(bounds).build().call(request_as(format, &server, streamed, timeout_ms)).await
}

pub(crate) fn request_as(format: Format, server: &Server, streamed: bool, timeout_ms: u64) -> ModelRequest {
    let mut request = request(format.provider(), &format.base(server));
    (request.model, request.stream, request.timeout_ms) = (format.model().into(), streamed, timeout_ms);
    request
}

/// Whether nobody knows what an attempt cost, but for what it cost at least.
pub(crate) fn may_have_cost(spent: Spent) -> bool {
    let at_least = |said| matches!(said, Said::AtLeast(_));
    match spent {
        Spent::Unknown => true,
        Spent::Metered { tokens, cost_micros } => at_least(tokens) && at_least(cost_micros),
        Spent::Known { .. } | Spent::Nothing | Spent::Unsent => false,
    }
}

/// Asks a server that cuts the stream one byte later each time: by breaking off, and by ending as if all were sent.
pub(crate) async fn for_every_cut(format: Format, answer: Act) {
    let whole = ask_as(format, answer.clone(), true, Bounds::default(), 10_000).await.outcome.expect("an answer");
    let length = bytes(&answer).len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let k = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answer.clone().end(if k.is_multiple_of(2) { End::Cut(k / 2) } else { End::Closed(k / 2) })
    });
    let models = Models::builder().build();
    let request = request_as(format, &server, true, 10_000);
    for k in 0..length * 2 {
        let result = models.call(request.clone()).await;
        let failure = result.outcome.expect_err("a stream without its end is no answer");
        assert_eq!(failure.code, Code::ProviderTruncated, "{format:?} {k}: {failure}");
        assert!(may_have_cost(result.spent), "{format:?} {k}: {:?}", result.spent);
        assert!(failure.is_transient());
    }
    for _ in 0..2 {
        let result = models.call(request.clone()).await;
        assert_eq!(result.outcome.as_ref(), Ok(&whole), "the whole stream is the answer");
        assert!(matches!(result.spent, Spent::Known { .. } | Spent::Unknown), "{:?}", result.spent);
    }
}

/// Text and tool calls of a format, cut after any byte.
async fn cut(format: Format) {
    let said = format.says("two wörds", Why::Done, true, true).expect("an answer");
    for_every_cut(format, said).await;
    let calls = format.calls("hoist", &[("one", r#"{"n":"ä"}"#), ("two", r#"{"n":2}"#)], true).expect("an answer");
    for_every_cut(format, calls).await;
}

#[tokio::test]
async fn a_stream_of_openai_cut_after_any_byte_is_truncated() {
    cut(Format::OpenAi).await;
}

#[tokio::test]
async fn a_stream_of_anthropic_cut_after_any_byte_is_truncated() {
    cut(Format::Anthropic).await;
}

#[tokio::test]
async fn a_stream_of_responses_cut_after_any_byte_is_truncated() {
    cut(Format::Responses).await;
}

#[tokio::test]
async fn a_stream_of_gemini_cut_after_any_byte_is_truncated() {
    cut(Format::Gemini).await;
}

#[tokio::test]
async fn a_stream_of_bedrock_cut_after_any_byte_is_truncated() {
    cut(Format::Bedrock).await;
}

#[tokio::test]
async fn a_stream_of_ollama_cut_after_any_byte_is_truncated() {
    cut(Format::Ollama).await;
}

/// Errors in the middle of a stream, as each format sends them.
#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_ends_it_and_may_have_cost_something() {
    let sse = |data: &str| Act::stream(format!("data: {data}\n\n").as_bytes());
    for (format, act, code) in [
        (
            Format::Responses,
            sse(r#"{"type":"error","code":"server_error","message":"oops"}"#),
            Code::ProviderUnavailable,
        ),
        (
            Format::Responses,
            sse(
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"slow"}}}"#,
            ),
            Code::ProviderRateLimited,
        ),
        (
            Format::Gemini,
            sse(r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#),
            Code::ProviderUnavailable,
        ),
        (
            Format::Bedrock,
            crate::formats::aws(&[("throttlingException", r#"{"message":"slow"}"#.to_owned())]),
            Code::ProviderRateLimited,
        ),
        (
            Format::Bedrock,
            crate::formats::aws(&[("modelStreamErrorException", r#"{"message":"oops"}"#.to_owned())]),
            Code::ProviderUnavailable,
        ),
        (Format::Ollama, crate::formats::lines(&[r#"{"error":"it crashed"}"#.to_owned()]), Code::ProviderMalformed),
    ] {
        let result = ask_as(format, act, true, Bounds::default(), 10_000).await;
        let failure = result.outcome.expect_err("an error");
        assert_eq!((failure.code, result.spent), (code, Spent::Unknown), "{format:?}: {failure}");
    }
}

/// FLT-N3: an error with status 200 is none the less one.
#[tokio::test]
async fn an_error_in_the_place_of_an_answer_is_an_error() {
    for format in Format::ALL {
        let body = r#"{"error":{"message":"no","type":"invalid_request_error","code":400}}"#;
        let result = ask_as(format, Act::json(200, body), false, Bounds::default(), 10_000).await;
        assert_eq!(result.outcome.expect_err("an error").code, Code::ProviderInvalidRequest, "{format:?}");
    }
}

#[tokio::test]
async fn a_whole_answer_cut_after_any_byte_is_no_answer() {
    let whole = openai_text("two words", "stop", true, false);
    for k in 0..bytes(&whole).len() {
        let result = ask("openai", whole.clone().end(End::Cut(k)), false).await;
        assert_eq!(result.outcome.expect_err("half an answer").code, Code::ProviderTruncated, "{k}");
    }
}

async fn stream_fails(body: &[u8]) -> ModelResult {
    let result = ask("openai", Act::stream(body), true).await;
    assert_eq!(result.spent, Spent::Unknown);
    result
}

#[tokio::test]
async fn broken_streams_are_told_apart() {
    let code = |result: ModelResult| result.outcome.expect_err("a failure").code;
    let no_finish = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n";
    assert_eq!(code(stream_fails(no_finish).await), Code::ProviderTruncated);
    let no_done = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(code(stream_fails(no_done).await), Code::ProviderTruncated);
    assert_eq!(code(stream_fails(b"data: \xff\xfe\n\n").await), Code::ProviderMalformed);
    assert_eq!(code(stream_fails(b"data: [1,2]\n\n").await), Code::ProviderMalformed);
    assert_eq!(code(stream_fails(b"data: {\"choices\":\n\n").await), Code::ProviderMalformed);
    let error = b"data: {\"error\":{\"message\":\"Overloaded\",\"type\":\"overloaded_error\"}}\n\n";
    assert_eq!(code(stream_fails(error).await), Code::ProviderUnavailable);
    let event = event("error", r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}"#);
    let result = ask("anthropic", Act::stream(event.as_bytes()), true).await;
    assert_eq!(result.spent, Spent::Unknown);
    assert_eq!(code(result), Code::ProviderRateLimited);
}

/// What a stream said before it broke is charged at least, at the price of its model.
#[tokio::test]
async fn a_broken_stream_is_charged_at_least_what_it_said() {
    let said = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":1000000,\"completion_tokens\":2}}\n\n";
    for (rest, code) in [
        ("", Code::ProviderTruncated),
        ("data: {\"choices\":\n\n", Code::ProviderMalformed),
        ("data: {\"error\":{\"message\":\"x\",\"type\":\"overloaded_error\"}}\n\n", Code::ProviderUnavailable),
    ] {
        let server = Server::always(Act::stream(format!("{said}{rest}").as_bytes()));
        let mut request = request("openai", &server.url);
        (request.model, request.stream) = ("gpt-4o".into(), true);
        let result = Models::builder().build().call(request).await;
        assert_eq!(result.outcome.expect_err("it broke").code, code);
        // 1,000,000 x $2.50 + 2 x $10.00, per million
        let least = Spent::Metered { tokens: Said::AtLeast(1_000_002), cost_micros: Said::AtLeast(2_500_020) };
        assert_eq!(result.spent, least, "{rest}");
    }
}

/// Counts that no call can have are none, whatever the shape of the answer.
#[tokio::test]
async fn absurd_counts_are_unknown() {
    let most = i64::MAX;
    for usage in [
        format!(r#"{{"prompt_tokens":{most},"completion_tokens":{most}}}"#),
        format!(r#"{{"prompt_tokens":5,"completion_tokens":5,"prompt_tokens_details":{{"cached_tokens":{most}}}}}"#),
        r#"{"prompt_tokens":5,"completion_tokens":1e30}"#.to_owned(),
    ] {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}}],"usage":{usage}}}"#);
        let result = ask("openai", Act::json(200, &body), false).await;
        assert_eq!(result.spent, Spent::Unknown, "{usage}");
        assert_eq!(result.outcome.expect("an answer").usage.total(), None, "{usage}");
    }
}

#[tokio::test]
async fn more_tool_calls_than_one_answer_may_hold_are_no_answer() {
    let calls: Vec<(&str, &str)> = vec![("one", "{}"); 10_000];
    for streamed in [false, true] {
        let result = ask("openai", openai_calls("hoist", &calls, streamed), streamed).await;
        let is_bounded = result.outcome.as_ref().is_err_and(|failure| failure.message.contains("more than 4096"));
        // A stream joins the pieces of one id to one call.
        assert!(is_bounded || streamed, "{streamed}");
    }
}

#[tokio::test]
async fn a_stream_that_stands_still_ends_by_the_idle_time() {
    for format in Format::ALL {
        let answer = format.says("two words", Why::Done, true, true).expect("an answer");
        let server = Server::always(answer.end(End::Still(40)));
        let bounds = Bounds { idle_timeout_ms: 30, ..Bounds::default() };
        let request = request_as(format, &server, true, 10_000);
        let result = Models::builder().bounds(bounds).build().call(request).await;
        let failure = result.outcome.expect_err("no answer");
        assert_eq!(failure.code, Code::ProviderTimeout, "{format:?}");
        assert!(may_have_cost(result.spent), "{format:?}: {:?}", result.spent);
        assert!(failure.message.contains("stood still"), "{failure}");
        server.quiet().await;
    }
}

#[tokio::test]
async fn a_slow_trickle_ends_by_the_total_time() {
    for format in Format::ALL {
        for streamed in [false, true] {
            let answer = format.says("two words", Why::Done, true, streamed).expect("an answer").end(End::Drip(5));
            let result = ask_as(format, answer, streamed, Bounds::default(), 150).await;
            let failure = result.outcome.expect_err("no answer");
            assert_eq!(failure.code, Code::ProviderTimeout, "{format:?}: {failure}");
            assert!(may_have_cost(result.spent), "{format:?}: {:?}", result.spent);
        }
    }
}

#[tokio::test]
async fn answers_larger_than_the_bound_are_not_read() {
    let long = "x".repeat(20_000);
    for format in Format::ALL {
        for streamed in [false, true] {
            let answer = format.says(&long, Why::Done, true, streamed).expect("an answer");
            let bounds = Bounds { answer_bytes_max: 10_000, ..Bounds::default() };
            let failure = ask_as(format, answer, streamed, bounds, 10_000).await.outcome.expect_err("too large");
            assert_eq!((failure.code, failure.is_transient()), (Code::ProviderMalformed, false), "{format:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_where_none_was_asked_for_is_read_and_the_other_way_round() {
    for format in Format::ALL {
        let said = |streamed| format.says("a b", Why::Done, true, streamed).expect("an answer");
        let streamed = ask_as(format, said(true), false, Bounds::default(), 10_000).await.outcome.expect("an answer");
        let whole = ask_as(format, said(false), true, Bounds::default(), 10_000).await.outcome.expect("an answer");
        assert_eq!((&streamed.content, streamed.usage), (&whole.content, whole.usage), "{format:?}");
        assert_eq!(streamed.finish, whole.finish);
    }
}
