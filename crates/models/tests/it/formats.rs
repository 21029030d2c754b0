//! The wire formats of all providers: what each of them answers, whole and streamed, in its own words.

use windlass_core::value::Value;

use crate::server::{Act, Server};
use crate::streams::{anthropic_calls, anthropic_text, openai_calls, openai_text, text};

/// The wire format that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenAi,
    Anthropic,
    Responses,
    Gemini,
    Bedrock,
    Ollama,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Done,
    Length,
    Filter,
}

impl Format {
    pub(crate) const ALL: [Self; 6] =
        [Self::OpenAi, Self::Anthropic, Self::Responses, Self::Gemini, Self::Bedrock, Self::Ollama];

    /// The provider's name.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Responses => "openai-responses",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Ollama => "ollama",
        }
    }

    /// A model of it.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::OpenAi => "gpt-4o",
            Self::Anthropic => "claude-sonnet-4-5",
            Self::Responses => "gpt-5",
            Self::Gemini => "gemini-2.5-flash",
            Self::Bedrock => "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            Self::Ollama => "llama3.2",
        }
    }

    /// The address of a server of this format.
    pub(crate) fn base(self, server: &Server) -> String {
        match self {
            // The address with `/v1` is that of the OpenAI-compatible side.
            Self::Ollama => server.url.trim_end_matches("/v1").to_owned(),
            Self::OpenAi | Self::Anthropic | Self::Responses | Self::Gemini | Self::Bedrock => server.url.clone(),
        }
    }

    /// Where a request arrives.
    pub(crate) fn path(self, streamed: bool) -> &'static str {
        match (self, streamed) {
            (Self::OpenAi, _) => "/v1/chat/completions",
            (Self::Anthropic, _) => "/v1/messages",
            (Self::Responses, _) => "/v1/responses",
            (Self::Gemini, false) => "/v1/models/gemini-2.5-flash:generateContent",
            (Self::Gemini, true) => "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            (Self::Bedrock, false) => "/v1/model/eu.anthropic.claude-sonnet-4-5-20250929-v1:0/converse",
            (Self::Bedrock, true) => "/v1/model/eu.anthropic.claude-sonnet-4-5-20250929-v1:0/converse-stream",
            (Self::Ollama, _) => "/api/chat",
        }
    }

    /// Whether a request asks for a stream.
    pub(crate) fn is_streamed(self, path: &str, body: &Value) -> bool {
        match self {
            Self::Gemini => path.contains(":stream"),
            Self::Bedrock => path.ends_with("-stream"),
            Self::OpenAi | Self::Anthropic | Self::Responses | Self::Ollama => {
                body.get("stream") == Some(&Value::Bool(true))
            }
        }
    }

    /// The word for the end of an answer; none where the format has no such end.
    fn word(self, why: Why) -> Option<&'static str> {
        let words = match self {
            Self::OpenAi => ["stop", "length", "content_filter"],
            Self::Anthropic => ["end_turn", "max_tokens", "refusal"],
            Self::Responses => ["completed", "max_output_tokens", "content_filter"],
            Self::Gemini => ["STOP", "MAX_TOKENS", "SAFETY"],
            Self::Bedrock => ["end_turn", "max_tokens", "content_filtered"],
            Self::Ollama if why == Why::Filter => return None,
            Self::Ollama => ["stop", "length", ""],
        };
        Some(words[why as usize])
    }

    /// An answer of text.
    pub(crate) fn says(self, content: &str, why: Why, usage: bool, streamed: bool) -> Option<Act> {
        let word = self.word(why)?;
        Some(match self {
            Self::OpenAi => openai_text(content, word, usage, streamed),
            Self::Anthropic => anthropic_text(content, word, usage, streamed),
            Self::Responses => responses(&[message(content)], word, usage, streamed),
            Self::Gemini => gemini(&pieces(content).map(|p| format!(r#"{{"text":{p}}}"#)), word, usage, streamed),
            Self::Bedrock => bedrock_text(content, word, usage, streamed),
            Self::Ollama => {
                let pieces = pieces(content).map(|p| format!(r#"{{"role":"assistant","content":{p}}}"#));
                ollama(&pieces, word, usage, streamed)
            }
        })
    }

    /// An answer that calls a tool: pairs of id and arguments. None where the format cannot carry such arguments.
    pub(crate) fn calls(self, tool: &str, calls: &[(&str, &str)], streamed: bool) -> Option<Act> {
        let mapped = calls.iter().all(|(_, arguments)| Value::from_json(arguments).is_ok());
        match self {
            Self::OpenAi => Some(openai_calls(tool, calls, streamed)),
            Self::Anthropic => Some(anthropic_calls(tool, calls, streamed)),
            Self::Responses => {
                let items = calls.iter().map(|(id, arguments)| {
                    let arguments = text(arguments);
                    format!(
                        r#"{{"type":"function_call","id":"fc_{id}","call_id":"{id}","name":"{tool}","arguments":{arguments},"status":"completed"}}"#
                    )
                });
                Some(responses(&items.collect::<Vec<_>>(), "completed", true, streamed))
            }
            Self::Gemini => mapped.then(|| {
                let parts = calls.iter().map(|(id, arguments)| {
                    format!(r#"{{"functionCall":{{"id":"{id}","name":"{tool}","args":{arguments}}}}}"#)
                });
                gemini(&parts.collect::<Vec<_>>(), "STOP", true, streamed)
            }),
            Self::Bedrock => Some(bedrock_calls(tool, calls, streamed)),
            Self::Ollama => mapped.then(|| {
                let calls = calls.iter().map(|(id, arguments)| {
                    format!(r#"{{"id":"{id}","function":{{"name":"{tool}","arguments":{arguments}}}}}"#)
                });
                let calls = calls.collect::<Vec<_>>().join(",");
                let message = format!(r#"{{"role":"assistant","content":"","tool_calls":[{calls}]}}"#);
                ollama(&[message], "stop", true, streamed)
            }),
        }
    }

    /// What is no answer.
    pub(crate) fn babble(self, streamed: bool) -> Act {
        match self {
            _ if !streamed => Act::json(200, "<html>It works!</html>"),
            Self::Bedrock => aws(&[("contentBlockDelta", "{oops".to_owned())]),
            Self::Ollama => lines(&["{oops".to_owned()]),
            Self::OpenAi | Self::Anthropic | Self::Responses | Self::Gemini => Act::stream(b"data: {oops\n\n"),
        }
    }
}

/// A text as JSON strings of its words.
fn pieces(content: &str) -> Vec<String> {
    content.split_inclusive(' ').map(text).collect()
}

trait Mapped {
    fn map(self, change: impl Fn(String) -> String) -> Vec<String>;
}

impl Mapped for Vec<String> {
    fn map(self, change: impl Fn(String) -> String) -> Vec<String> {
        self.into_iter().map(change).collect()
    }
}

fn message(content: &str) -> String {
    let content = text(content);
    format!(
        r#"{{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{{"type":"output_text","text":{content},"annotations":[]}}]}}"#
    )
}

fn responses(items: &[String], word: &str, usage: bool, streamed: bool) -> Act {
    let usage = if usage {
        r#"{"input_tokens":200,"input_tokens_details":{"cached_tokens":80},"output_tokens":30,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":230}"#
    } else {
        "null"
    };
    let (status, details) = match word {
        "completed" => ("completed", "null".to_owned()),
        reason => ("incomplete", format!(r#"{{"reason":"{reason}"}}"#)),
    };
    let whole = format!(
        r#"{{"id":"resp_1","object":"response","model":"m","status":"{status}","error":null,"incomplete_details":{details},"output":[{}],"usage":{usage}}}"#,
        items.join(",")
    );
    if !streamed {
        return Act::json(200, &whole);
    }
    let mut body = String::from(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\"}}\n\n",
    );
    for (index, item) in items.iter().enumerate() {
        body.push_str(&format!(
            "event: response.output_item.done\ndata: {{\"type\":\"response.output_item.done\",\"output_index\":{index},\"item\":{item}}}\n\n"
        ));
    }
    let end = format!("response.{status}");
    body.push_str(&format!("event: {end}\ndata: {{\"type\":\"{end}\",\"response\":{whole}}}\n\n"));
    Act::stream(body.as_bytes())
}

fn gemini(parts: &[String], word: &str, usage: bool, streamed: bool) -> Act {
    let counts = if usage {
        r#","usageMetadata":{"promptTokenCount":200,"cachedContentTokenCount":80,"candidatesTokenCount":30,"totalTokenCount":230}"#
    } else {
        ""
    };
    let piece = |parts: &str, end: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"role":"model","parts":[{parts}]}}{end},"index":0}}],"modelVersion":"m","responseId":"r_1"{counts}}}"#
        )
    };
    let end = format!(r#","finishReason":"{word}""#);
    if !streamed {
        return Act::json(200, &piece(&parts.join(","), &end));
    }
    let last = parts.len().saturating_sub(1);
    let events = parts
        .iter()
        .enumerate()
        .map(|(index, part)| format!("data: {}\r\n\r\n", piece(part, if index == last { &end } else { "" })));
    Act::stream(events.collect::<String>().as_bytes())
}

const BEDROCK_USAGE: &str =
    r#"{"inputTokens":120,"outputTokens":30,"totalTokens":230,"cacheReadInputTokens":80,"cacheWriteInputTokens":0}"#;

fn bedrock(blocks: &[String], word: &str, usage: bool) -> Act {
    let usage = if usage { BEDROCK_USAGE } else { "null" };
    let blocks = blocks.join(",");
    Act::json(
        200,
        &format!(
            r#"{{"output":{{"message":{{"role":"assistant","content":[{blocks}]}}}},"stopReason":"{word}","usage":{usage},"metrics":{{"latencyMs":1}}}}"#
        ),
    )
}

fn bedrock_stream(mut events: Vec<(&'static str, String)>, word: &str, usage: bool) -> Act {
    let usage = if usage { BEDROCK_USAGE } else { "null" };
    events.insert(0, ("messageStart", r#"{"role":"assistant"}"#.to_owned()));
    events.push(("messageStop", format!(r#"{{"stopReason":"{word}"}}"#)));
    events.push(("metadata", format!(r#"{{"usage":{usage},"metrics":{{"latencyMs":1}}}}"#)));
    aws(&events)
}

fn bedrock_text(content: &str, word: &str, usage: bool, streamed: bool) -> Act {
    if !streamed {
        let content = text(content);
        return bedrock(&[format!(r#"{{"text":{content}}}"#)], word, usage);
    }
    let deltas = pieces(content)
        .into_iter()
        .map(|piece| ("contentBlockDelta", format!(r#"{{"contentBlockIndex":0,"delta":{{"text":{piece}}}}}"#)));
    let end = ("contentBlockStop", r#"{"contentBlockIndex":0}"#.to_owned());
    bedrock_stream(deltas.chain([end]).collect(), word, usage)
}

fn bedrock_calls(tool: &str, calls: &[(&str, &str)], streamed: bool) -> Act {
    if !streamed {
        let blocks = calls.iter().map(|(id, arguments)| {
            let arguments = if Value::from_json(arguments).is_ok() { (*arguments).to_owned() } else { text(arguments) };
            format!(r#"{{"toolUse":{{"toolUseId":"{id}","name":"{tool}","input":{arguments}}}}}"#)
        });
        return bedrock(&blocks.collect::<Vec<_>>(), "tool_use", true);
    }
    let mut events = Vec::new();
    for (index, (id, arguments)) in calls.iter().enumerate() {
        events.push((
            "contentBlockStart",
            format!(r#"{{"contentBlockIndex":{index},"start":{{"toolUse":{{"toolUseId":"{id}","name":"{tool}"}}}}}}"#),
        ));
        let (first, second) = arguments.split_at(arguments.len() / 2);
        for piece in [first, second] {
            let piece = text(piece);
            let delta = format!(r#"{{"contentBlockIndex":{index},"delta":{{"toolUse":{{"input":{piece}}}}}}}"#);
            events.push(("contentBlockDelta", delta));
        }
        events.push(("contentBlockStop", format!(r#"{{"contentBlockIndex":{index}}}"#)));
    }
    bedrock_stream(events, "tool_use", true)
}

fn ollama(messages: &[String], word: &str, usage: bool, streamed: bool) -> Act {
    let counts = if usage { r#","prompt_eval_count":200,"eval_count":30"# } else { "" };
    let end = format!(r#""done":true,"done_reason":"{word}","total_duration":1{counts}"#);
    if !streamed {
        let contents: String = messages
            .iter()
            .filter_map(|m| Value::from_json(m).ok()?.get("content")?.as_str().map(str::to_owned))
            .collect();
        let mut message = Value::from_json(&messages[0]).expect("JSON").as_map().expect("a mapping").clone();
        message.insert("content".into(), contents.into());
        return Act::json(200, &format!(r#"{{"model":"m","message":{},{end}}}"#, Value::map(message).to_json()));
    }
    let mut all: Vec<String> =
        messages.iter().map(|m| format!(r#"{{"model":"m","message":{m},"done":false}}"#)).collect();
    all.push(format!(r#"{{"model":"m","message":{{"role":"assistant","content":""}},{end}}}"#));
    lines(&all)
}

/// JSON values, one a line.
pub(crate) fn lines(values: &[String]) -> Act {
    let body = values.iter().map(|value| format!("{value}\n")).collect::<String>();
    let headers = vec![("content-type", "application/x-ndjson".to_owned())];
    Act::Answer { status: 200, headers, body: body.into(), end: crate::server::End::Whole }
}

/// Messages of the event stream of AWS: type and payload. A type that ends in `Exception` is one.
pub(crate) fn aws(events: &[(&str, String)]) -> Act {
    let body: Vec<u8> = events.iter().flat_map(|(name, payload)| aws_frame(name, payload.as_bytes())).collect();
    let headers = vec![("content-type", "application/vnd.amazon.eventstream".to_owned())];
    Act::Answer { status: 200, headers, body, end: crate::server::End::Whole }
}

/// One message of the event stream of AWS, with the sums that belong to it.
pub(crate) fn aws_frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let exception = name.ends_with("Exception");
    let (kind, message) = if exception { (":exception-type", "exception") } else { (":event-type", "event") };
    let mut head = Vec::new();
    for (key, value) in [(kind, name), (":content-type", "application/json"), (":message-type", message)] {
        head.push(key.len() as u8);
        head.extend_from_slice(key.as_bytes());
        head.push(7);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let mut out = ((head.len() + payload.len() + 16) as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&(head.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}
