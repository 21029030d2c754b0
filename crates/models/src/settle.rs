//! What an answer is worth: its reply with the price, and what the attempt is charged as far as anybody said it.
//!
//! Pure. Which prices count is decided by [`crate::registry`].

use windlass_core::effect::{Said, Spent};
use windlass_core::ids::Name;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Reply, Usage};
use windlass_core::value::Value;
use windlass_ports::model::ModelResult;

use crate::prices::Rates;
use crate::providers::SERVICE_TIER;
use crate::wire::{Answer, distinct_ids};

/// Version under which prices of a script are journaled.
pub(crate) const SCRIPT_PRICES: &str = "script";

/// An answer with its price, and what is charged for it.
pub(crate) fn settled(
    request: &ModelRequest,
    mut answer: Answer,
    heads: &Value,
    cost: Option<u64>,
    rates: Option<(Rates, Name)>,
) -> ModelResult {
    distinct_ids(&mut answer.tool_calls, &format!("call_{}", request.messages.len()));
    answer.usage = answer.usage.plausible();
    let asked = request.params.get(SERVICE_TIER).and_then(Value::as_str);
    let rates = rates.map(|(rates, version)| (rates.of_answer(answer.service_tier.as_deref(), asked), version));
    let is_estimated = cost.is_none() && rates.as_ref().is_some_and(|((_, exact), _)| !exact);
    let priced = rates.and_then(|((rates, _), version)| Some((rates.cost_micros(&answer.usage)?, version)));
    let (cost_micros, prices) = match (cost, priced) {
        (Some(cost), _) => (Some(cost), Some(SCRIPT_PRICES.into())),
        (None, Some((cost, version))) => (Some(cost), Some(version)),
        (None, None) => (None, None),
    };
    let attachments = match answer.attachments {
        Value::Null => Value::Null,
        parts => Value::object([(request.provider.clone(), parts)]),
    };
    let word = |text: Option<Name>| text.map_or(Value::Null, Value::Str);
    let tier = answer.service_tier.map(|tier| ("service_tier", Value::Str(tier)));
    let told = [
        ("request_id", heads.get("request_id").cloned().unwrap_or_default()),
        ("response_id", word(answer.id)),
        ("model", word(answer.model)),
        ("finish_reason", word(answer.finish_word)),
        ("rate_limits", heads.get("rate_limits").cloned().unwrap_or_default()),
    ];
    let provider_data = Value::map(told.into_iter().chain(tier).map(|(key, value)| (key.into(), value)).collect());
    let spent = match spent(&answer.usage, cost_micros) {
        // The reservation covers whichever tier it was, where that is more.
        Spent::Known { tokens, cost_micros } if is_estimated => {
            Spent::Metered { tokens: Said::Exactly(tokens), cost_micros: Said::AtLeast(cost_micros) }
        }
        known => known,
    };
    let reply = Reply {
        content: answer.content.into(),
        has_content: answer.has_content,
        tool_calls: answer.tool_calls,
        finish: answer.finish,
        usage: answer.usage,
        cost_micros,
        prices,
        attachments,
        provider_data,
    };
    ModelResult { outcome: Ok(reply), spent }
}

/// Known only when both sides of the usage are; a model without a price costs nothing that anybody knows of.
pub(crate) fn spent(usage: &Usage, cost_micros: Option<u64>) -> Spent {
    match (usage.input, usage.output, usage.total()) {
        (Some(_), Some(_), Some(tokens)) => Spent::Known { tokens, cost_micros: cost_micros.unwrap_or(0) },
        _ => at_least(usage, cost_micros),
    }
}

/// What was said, where that is not all.
pub(crate) fn at_least(usage: &Usage, cost_micros: Option<u64>) -> Spent {
    match usage.total().filter(|tokens| *tokens > 0) {
        Some(tokens) => {
            Spent::Metered { tokens: Said::AtLeast(tokens), cost_micros: Said::AtLeast(cost_micros.unwrap_or(0)) }
        }
        None => Spent::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::transcript::Message;

    use super::*;
    use crate::anthropic::Anthropic;
    use crate::openai::OpenAi;
    use crate::prices::PriceBook;
    use crate::responses::Responses;
    use crate::wire::{Wire, request_of};

    /// One line of an invoice: who answered what, with which tier asked for, and what was billed in micro-USD.
    type Line = (&'static dyn Wire, &'static str, &'static str, Option<&'static str>, &'static str, u64);

    /// What providers answer and bill, by service tier.
    const INVOICE: &[Line] = &[
        // 1,000,000 x $1.25 + 200,000 x $10
        (
            &OpenAi,
            "openai",
            "gpt-5",
            None,
            r#"{"service_tier":"default","choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"completion_tokens":200000}}"#,
            3_250_000,
        ),
        // 700,000 x $2.50 + 300,000 x $0.25 + 200,000 x $20
        (
            &OpenAi,
            "openai",
            "gpt-5",
            Some("priority"),
            r#"{"service_tier":"priority","choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"prompt_tokens_details":{"cached_tokens":300000},"completion_tokens":200000}}"#,
            5_825_000,
        ),
        // Asked for priority, served as the standard tier: $1.25 + $2
        (
            &OpenAi,
            "openai",
            "gpt-5",
            Some("priority"),
            r#"{"service_tier":"default","choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"completion_tokens":200000}}"#,
            3_250_000,
        ),
        // 400,000 x $0.625 + 100,000 x $0.0625 + 50,000 x $5, 20,000 of them reasoning
        (
            &Responses,
            "openai-responses",
            "gpt-5",
            Some("flex"),
            r#"{"status":"completed","service_tier":"flex","output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}],"usage":{"input_tokens":500000,"input_tokens_details":{"cached_tokens":100000},"output_tokens":50000,"output_tokens_details":{"reasoning_tokens":20000}}}"#,
            506_250,
        ),
        // 2,000 x $3 + 50,000 x $0.30 + 8,000 x $3.75 + 1,000 x $15
        (
            &Anthropic,
            "anthropic",
            "claude-sonnet-4-5",
            None,
            r#"{"content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":2000,"cache_read_input_tokens":50000,"cache_creation_input_tokens":8000,"output_tokens":1000,"service_tier":"standard"}}"#,
            66_000,
        ),
        // Half of that
        (
            &Anthropic,
            "anthropic",
            "claude-sonnet-4-5",
            None,
            r#"{"content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":2000,"cache_read_input_tokens":50000,"cache_creation_input_tokens":8000,"output_tokens":1000,"service_tier":"batch"}}"#,
            33_000,
        ),
    ];

    fn billed(line: &Line) -> ModelResult {
        let (wire, provider, model, asked, body, _) = line;
        let mut request = request_of(provider, model, vec![Message::User { content: "q".into() }]);
        request.params = asked.map_or(Value::Null, |tier| Value::object([("service_tier", Value::str(tier))]));
        let answer = wire.answer(&Value::from_json(body).expect("JSON")).expect("an answer");
        let priced = if *provider == "openai-responses" { "openai" } else { provider };
        settled(&request, answer, &Value::Null, None, PriceBook::builtin().find(priced, model))
    }

    #[test]
    fn invoices_by_service_tier_agree_to_the_cent() {
        for line in INVOICE {
            let result = billed(line);
            let reply = result.outcome.expect("a reply");
            assert_eq!(reply.cost_micros, Some(line.5), "{}", line.4);
            assert!(matches!(result.spent, Spent::Known { cost_micros, .. } if cost_micros == line.5), "{}", line.4);
            assert!(!reply.provider_data.get("service_tier").expect("a tier").is_null());
        }
        let sum: u64 = INVOICE.iter().filter_map(|line| billed(line).outcome.ok()?.cost_micros).sum();
        assert_eq!(sum, 12_930_250, "an invoice of $12.93");
    }

    #[test]
    fn a_tier_without_a_price_is_charged_at_a_safe_rate_and_said_to_be_estimated() {
        let body = r#"{"service_tier":"scale","choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1000000,"completion_tokens":100000}}"#;
        // Three times priority: 3 x (1,000,000 x $2.50 + 100,000 x $20)
        let result = billed(&(&OpenAi, "openai", "gpt-5", None, body, 0));
        assert_eq!(result.outcome.expect("a reply").cost_micros, Some(13_500_000));
        assert_eq!(
            result.spent,
            Spent::Metered { tokens: Said::Exactly(1_100_000), cost_micros: Said::AtLeast(13_500_000) }
        );
    }
}
