//! The stream of every format as its provider documents it, cut after every byte, as the first link of a chain: what broke off
//! is never an answer, the next link answers in the same call, and the run is charged the reservation of the broken stream, or
//! what its provider had said by then that it used where that is more, and what the next link used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use windlass_core::budget::{Amounts, Meter};
use windlass_core::failure::Code;
use windlass_core::journal::Entry;
use windlass_core::value::Value;

use super::desk::{Act, Desk, Server, anthropic};
use super::{answered, content, failed, links};

/// What the second link uses, as [`anthropic`] says.
const OTHER_TOKENS: u64 = 25;
/// Calls that the breaker of the first link looks at: the most there are.
const CALLS_MAX: usize = 1_000;
/// The model of the second link.
const OTHER: &str = "claude-haiku-4-5";

/// One provider and its stream.
#[derive(Clone, Copy)]
struct Format {
    provider: &'static str,
    model: &'static str,
    /// Where the stream is, below the fixtures of the adapters.
    file: &'static str,
    kind: &'static str,
    /// The numbers of input tokens in it, in the words of the provider.
    input: &'static str,
    /// Whether the stream says what was used before its end.
    early: bool,
}

const SSE: &str = "text/event-stream";

const FORMATS: [Format; 7] = [
    Format {
        provider: "openai",
        model: "gpt-4o",
        file: "openai/text.sse",
        kind: SSE,
        input: "\"prompt_tokens\":",
        early: true,
    },
    Format {
        provider: "groq",
        model: "llama-3.3-70b",
        file: "openai/text.sse",
        kind: SSE,
        input: "\"prompt_tokens\":",
        early: true,
    },
    Format {
        provider: "openai-responses",
        model: "gpt-5",
        file: "openai-responses/text.sse",
        kind: SSE,
        input: "\"input_tokens\":",
        early: false,
    },
    Format {
        provider: "anthropic",
        model: "claude-sonnet-4-5",
        file: "anthropic/text.sse",
        kind: SSE,
        input: "\"input_tokens\":",
        early: true,
    },
    Format {
        provider: "gemini",
        model: "gemini-2.5-flash",
        file: "gemini/text.sse",
        kind: SSE,
        input: "\"promptTokenCount\":",
        early: true,
    },
    Format {
        provider: "bedrock",
        model: "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        file: "bedrock/text.frames",
        kind: "application/vnd.amazon.eventstream",
        input: "\"inputTokens\":",
        early: false,
    },
    Format {
        provider: "ollama",
        model: "llama3.2",
        file: "ollama/text.ndjson",
        kind: "application/x-ndjson",
        input: "\"prompt_eval_count\":",
        early: false,
    },
];

/// One message of AWS's event stream with its checksums, from a line `[TYPE, PAYLOAD]`.
fn frame(line: &str) -> Vec<u8> {
    let pair = Value::from_json(line).expect("JSON");
    let pair = pair.as_list().expect("a pair");
    let headers = [
        (":event-type", pair[0].as_str().expect("a type")),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ];
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).expect("a short name"));
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).expect("a short value").to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let payload = pair[1].to_json();
    let length = |bytes: usize| u32::try_from(bytes).expect("a short message").to_be_bytes();
    let mut out = length(head.len() + payload.len() + 16).to_vec();
    out.extend_from_slice(&length(head.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload.as_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

impl Format {
    /// The stream, with this many more input tokens than the fixture has.
    fn stream(&self, more: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/fixtures").join(self.file);
        let text = std::fs::read_to_string(path).expect("a stream");
        let text = text.replace(self.input, &format!("{}{more}", self.input));
        match self.kind {
            "application/vnd.amazon.eventstream" => text.lines().flat_map(frame).collect(),
            _ => text.into_bytes(),
        }
    }

    /// The tokens that the provider had said were used, in a stream that is cut here: those of its last whole event that
    /// says so.
    fn said(&self, stream: &[u8]) -> u64 {
        if !self.early {
            return 0;
        }
        let text = String::from_utf8_lossy(stream).replace("\r\n", "\n");
        let (mut input, mut output) = (0, 0);
        for event in text.split_inclusive("\n\n").filter(|event| event.ends_with("\n\n")) {
            let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else { continue };
            let Ok(data) = Value::from_json(data) else { continue };
            let message = data.get("message").and_then(|message| message.get("usage"));
            let Some(usage) = data.get("usage").or(message).or_else(|| data.get("usageMetadata")) else { continue };
            let of = |names: &[&str]| {
                let found = names.iter().filter_map(|name| usage.get(name)?.as_int());
                found.map(|n| u64::try_from(n).expect("a count")).reduce(|a, b| a + b)
            };
            input = of(&["prompt_tokens", "input_tokens", "promptTokenCount"]).unwrap_or(input);
            output = of(&["completion_tokens", "output_tokens", "candidatesTokenCount", "thoughtsTokenCount"])
                .unwrap_or(output);
        }
        input + output
    }

    fn catalog(&self, url: &str) -> String {
        let base = if self.provider == "ollama" { url.trim_end_matches("/v1") } else { url };
        let Self { provider, model, .. } = self;
        // A token of either side costs a millionth of a dollar: both meters count the same.
        format!(
            "models:
- {{name: main, provider: {provider}, model: '{model}', base_url: '{base}', tier: strong, output_tokens: 50, rates: {{input: 1000000, output: 1000000}}}}
- {{name: other, provider: anthropic, model: {OTHER}, base_url: '{url}', tier: fast, output_tokens: 50, rates: {{input: 1000000, output: 1000000}}}}
chains:
- name: answers
  links:
  - {{model: main, breaker: {{window: {CALLS_MAX}, calls_min: {CALLS_MAX}}}}}
  - {{model: other}}
"
        )
    }
}

/// What was held for the first attempt, and what the failed one was charged.
fn first(entries: &[Entry]) -> (Amounts, Amounts, bool) {
    let mut held = Amounts::ZERO;
    for entry in entries {
        match entry {
            Entry::CallIntended { call, .. } => held = call.reserved,
            Entry::AttemptFailed { used, estimated, .. } => return (held, *used, *estimated),
            _ => {}
        }
    }
    panic!("no attempt failed: {entries:?}");
}

/// Cuts the stream of a format after every byte: after every second one, beginning with `breaks`, the connection breaks
/// off, and after the others it ends as if that were all. Gives how often more had been said than was held.
async fn cut(format: Format, more: &str, breaks: usize) -> u64 {
    let stream = format.stream(more);
    let (next, length) = (Arc::new(AtomicUsize::new(0)), stream.len());
    let (place, body) = (Arc::clone(&next), stream.clone());
    let server = Server::start(move |_, request| {
        if request.get("model").and_then(Value::as_str) == Some(OTHER) {
            return anthropic("by other");
        }
        let k = place.load(Ordering::SeqCst);
        match k % 2 == breaks {
            true => Act::Answer(200, format.kind, body.clone(), Some(k)),
            false => Act::Ends(format.kind, body[..k.min(body.len())].to_vec()),
        }
    });
    let new = || Desk::new(&format.catalog(&server.url), BTreeMap::new());
    let (mut desk, mut beyond) = (new(), 0);
    for k in 0..length {
        // Before its breaker opens.
        desk = if k % CALLS_MAX == CALLS_MAX - 1 { new() } else { desk };
        next.store(k, Ordering::SeqCst);
        let (what, said) = (format!("{} {k}", format.provider), format.said(&stream[..k]));
        let (outcome, entries, run) = desk.ask(Value::empty_map()).await;
        assert_eq!(content(&outcome), "by other", "{what}");
        assert_eq!(links(&entries), [failed("main", Code::ProviderTruncated), answered("other")], "{what}");
        let (held, used, estimated) = first(&entries);
        assert!(held.tokens > 50 && held.cost_micros > 50, "{what}: {held:?}");
        for meter in [Meter::Tokens, Meter::CostMicros] {
            assert_eq!(used.get(meter), held.get(meter).max(said), "{what}: {meter:?}, {said} said");
            assert_eq!(run.ledger.settled.get(meter), used.get(meter) + OTHER_TOKENS, "{what}: {meter:?}");
            assert_eq!(run.ledger.estimated.get(meter), used.get(meter), "{what}: {meter:?}");
        }
        assert!(estimated && run.ledger.reserved.is_zero(), "{what}");
        assert_eq!((used.model_calls, run.ledger.settled.model_calls), (1, 2), "{what}");
        let tier = |name: &str| run.tiers.get(name).map(|tier| (tier.model_calls, tier.tokens));
        assert_eq!((tier("strong"), tier("fast")), (Some((1, used.tokens)), Some((1, OTHER_TOKENS))), "{what}");
        beyond += u64::from(said > held.tokens);
    }
    // The whole stream is the answer of the first link, in either way of ending.
    for k in [length, length + 1] {
        next.store(k, Ordering::SeqCst);
        let (_, entries, run) = desk.ask(Value::empty_map()).await;
        assert_eq!(links(&entries), [answered("main")], "{}", format.provider);
        assert!(run.ledger.estimated.is_zero() && run.ledger.settled.tokens > 0, "{}", format.provider);
    }
    assert_eq!(server.count(""), length * 2 + 2, "each link is asked once");
    beyond
}

/// Cuts the stream as it is, and, where it says early what was used, one that used more than was held.
async fn every(provider: &str) {
    let format = *FORMATS.iter().find(|format| format.provider == provider).expect("a format");
    assert_eq!(cut(format, "", 0).await, 0, "the answer is a short one");
    if format.early {
        assert!(
            cut(format, "7000", 1).await > 0,
            "no cut came after the provider had said that it used more than was held"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_openai_that_is_cut_leads_to_the_next_link() {
    every("openai").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_compatible_server_that_is_cut_leads_to_the_next_link() {
    every("groq").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_responses_that_is_cut_leads_to_the_next_link() {
    every("openai-responses").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_anthropic_that_is_cut_leads_to_the_next_link() {
    every("anthropic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_gemini_that_is_cut_leads_to_the_next_link() {
    every("gemini").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_bedrock_that_is_cut_leads_to_the_next_link() {
    every("bedrock").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_ollama_that_is_cut_leads_to_the_next_link() {
    every("ollama").await;
}
