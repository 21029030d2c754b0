//! The output of agents that are programs, read as an answer. An output without the line that says it is whole is
//! truncated, whatever the exit code.

use windlass_core::effect::{self, Spent};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::Name;
use windlass_core::json;
use windlass_core::transcript::{Finish, Reply, Usage};
use windlass_core::value::Value;
use windlass_ports::model::ModelResult;

use super::AgentFormat;
use crate::command::EXIT_TRY_AGAIN;
use crate::process::Ended;

/// What an output says, before the exit code is looked at.
#[derive(Debug, Default)]
struct Said {
    content: Option<String>,
    /// Why the agent gave up.
    error: Option<(Code, String)>,
    usage: Usage,
    cost_micros: Option<u64>,
    id: Option<Name>,
    /// Whether it says that it is whole.
    whole: bool,
}

impl Said {
    /// The same with every text of the program cleaned. Texts are read before, so that no escape hides anything.
    fn redacted(self, clean: impl Fn(&str) -> String) -> Self {
        Self {
            content: self.content.map(|text| clean(&text)),
            error: self.error.map(|(code, why)| (code, clean(&why))),
            id: self.id.map(|id| clean(&id).into()),
            ..self
        }
    }
}

/// How a call ended. `clean` takes what must stay secret out of a text.
pub(super) fn result(format: AgentFormat, name: &str, ended: &Ended, clean: impl Fn(&str) -> String) -> ModelResult {
    let text = String::from_utf8_lossy(&ended.stdout);
    let said = match format {
        AgentFormat::ClaudeCode => claude(&text),
        AgentFormat::Codex => codex(&text),
        AgentFormat::Json => own(&text),
    };
    let said = said.redacted(clean);
    let spent = spent(&said);
    let failed = |code, why: String, retry| ModelResult {
        outcome: Err(Failure::new(code, format!("`{name}` {why}")).status(ended.code()).retry(retry)),
        spent,
    };
    if let Some((code, why)) = said.error {
        return failed(code, format!("gave up: {why}"), Retry::Never);
    }
    if !ended.status.success() {
        let retry = if ended.code() == EXIT_TRY_AGAIN || ended.code() < 0 { Retry::Backoff } else { Retry::Never };
        let why = if ended.stderr.is_empty() { String::new() } else { format!(": {}", ended.stderr) };
        return failed(Code::ProviderUnavailable, format!("ended with {}{why}", ended.code()), retry);
    }
    let (true, Some(content)) = (said.whole, said.content) else {
        return failed(Code::ProviderTruncated, "ended without a whole answer".to_owned(), Retry::Backoff);
    };
    let reply = Reply {
        has_content: true,
        content: content.into(),
        tool_calls: Vec::new(),
        finish: Finish::Stop,
        usage: said.usage,
        cost_micros: said.cost_micros,
        prices: said.cost_micros.map(|_| "reported".into()),
        attachments: Value::Null,
        provider_data: Value::object([("response_id", said.id.map_or(Value::Null, Value::Str))]),
    };
    ModelResult { outcome: Ok(reply), spent }
}

/// Tokens and cost each as far as the agent said them; a price book may still know a cost.
fn spent(said: &Said) -> Spent {
    let usage = said.usage.plausible();
    let is_whole = usage.input.is_some() && usage.output.is_some();
    let tokens = match usage.total() {
        Some(tokens) if is_whole => effect::Said::Exactly(tokens),
        some => effect::Said::AtLeast(some.unwrap_or(0)),
    };
    match (tokens, said.cost_micros) {
        (effect::Said::Exactly(tokens), Some(cost_micros)) => Spent::Known { tokens, cost_micros },
        (effect::Said::AtLeast(0), None) => Spent::Unknown,
        (tokens, cost) => {
            let cost_micros = cost.map_or(effect::Said::AtLeast(0), effect::Said::Exactly);
            Spent::Metered { tokens, cost_micros }
        }
    }
}

/// The JSON objects of an output, line by line, or the whole of it as one.
fn objects(text: &str) -> Vec<Value> {
    if let Ok(value @ Value::Map(_)) = json::read(text.trim()) {
        return vec![value];
    }
    if let Ok(Value::List(list)) = json::read(text.trim()) {
        return list.to_vec();
    }
    // What else a program prints is not its answer; a last line that is cut is no object.
    text.lines().filter_map(|line| json::read(line.trim()).ok()).filter(|value| value.as_map().is_some()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    let whole = value.as_int().and_then(|n| u64::try_from(n).ok());
    // What is beyond 64 bits is no count, and is not to be taken for nothing said.
    whole.or_else(|| value.as_f64().filter(|n| *n >= i64::MAX as f64).map(|_| u64::MAX))
}

/// US dollars in millionths, rounded up.
fn micros(usd: f64) -> Option<u64> {
    // Beyond this no cost of one call is real, and below it the cast is exact enough.
    (usd.is_finite() && (0.0..1e9).contains(&usd)).then_some((usd * 1e6).ceil() as u64)
}

fn claude(output: &str) -> Said {
    let all = objects(output);
    let Some(last) = all.iter().rev().find(|value| text(value, "type") == Some("result")) else {
        return Said::default();
    };
    let usage = last.get("usage").cloned().unwrap_or_default();
    let mut said = Said {
        content: text(last, "result").map(str::to_owned),
        error: None,
        usage: Usage {
            input: count(usage.get("input_tokens")),
            cache_read: count(usage.get("cache_read_input_tokens")),
            cache_write: count(usage.get("cache_creation_input_tokens")),
            output: count(usage.get("output_tokens")),
            reasoning: None,
        },
        cost_micros: last.get("total_cost_usd").and_then(Value::as_f64).and_then(micros),
        id: text(last, "session_id").map(Into::into),
        whole: true,
    };
    let subtype = text(last, "subtype").unwrap_or_default();
    if subtype != "success" || last.get("is_error").is_some_and(Value::is_truthy) {
        let why = said.content.take().filter(|why| !why.is_empty()).unwrap_or_else(|| subtype.to_owned());
        let code = match subtype {
            "error_max_turns" | "error_max_budget_usd" => Code::ProviderLength,
            _ => Code::ProviderUnavailable,
        };
        said.error = Some((code, why));
    }
    said
}

fn codex(output: &str) -> Said {
    let mut said = Said::default();
    for event in objects(output) {
        let message = |event: &Value| {
            let error = event.get("error").cloned().unwrap_or_else(|| event.clone());
            text(&error, "message").unwrap_or("no reason given").to_owned()
        };
        match text(&event, "type").unwrap_or_default() {
            "thread.started" => said.id = text(&event, "thread_id").map(Into::into),
            "item.completed" => {
                let item = event.get("item").cloned().unwrap_or_default();
                if matches!(
                    text(&item, "type").or_else(|| text(&item, "item_type")),
                    Some("agent_message" | "assistant_message")
                ) {
                    said.content = text(&item, "text").map(str::to_owned);
                }
            }
            "turn.completed" => {
                let usage = event.get("usage").cloned().unwrap_or_default();
                let cached = count(usage.get("cached_input_tokens"));
                said.usage = Usage {
                    input: count(usage.get("input_tokens")).map(|all| all.saturating_sub(cached.unwrap_or(0))),
                    cache_read: cached,
                    cache_write: None,
                    output: count(usage.get("output_tokens")),
                    reasoning: count(usage.get("reasoning_output_tokens")),
                };
                (said.whole, said.error) = (true, None);
            }
            "turn.failed" | "error" => said.error = Some((Code::ProviderUnavailable, message(&event))),
            _ => {}
        }
    }
    said
}

fn own(output: &str) -> Said {
    let Ok(value @ Value::Map(_)) = json::read(output.trim()) else { return Said::default() };
    let usage = value.get("usage").cloned().unwrap_or_default();
    let of = |key: &str| count(usage.get(key));
    let error = value.get("error").filter(|error| error.is_truthy());
    let error = error.map(|error| text(error, "message").map_or_else(|| error.to_json(), str::to_owned));
    Said {
        content: text(&value, "content").map(str::to_owned),
        error: error.map(|why| (Code::ProviderUnavailable, why)),
        usage: Usage {
            input: of("input"),
            cache_read: of("cache_read"),
            cache_write: of("cache_write"),
            output: of("output"),
            reasoning: of("reasoning"),
        },
        cost_micros: count(value.get("cost_micros")),
        id: None,
        whole: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_rounded_up_and_nonsense_is_unknown() {
        assert_eq!([0.0, 0.0034, 1.000_000_1].map(micros), [Some(0), Some(3_400), Some(1_000_001)]);
        assert_eq!([-1.0, f64::NAN, 1e12].map(micros), [None, None, None]);
    }

    #[test]
    fn a_result_is_found_among_other_lines_and_a_cut_one_is_not() {
        let whole =
            "{\"type\":\"system\"}\nwarning: x\n{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"hi\"}\n";
        assert!(claude(whole).whole);
        for end in 0..whole.len() - 2 {
            assert!(!claude(&whole[..end]).whole, "cut after {end} bytes");
        }
        let whole = "{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"hi\"}}\n{\"type\":\"turn.completed\"}";
        assert!(codex(whole).whole);
        for end in 0..whole.len() - 1 {
            assert!(!codex(&whole[..end]).whole, "cut after {end} bytes");
        }
        assert!(!own("{\"content\":\"h").whole);
    }
}
