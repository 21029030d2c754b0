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
    let priced = rates.and_then(|(rates, version)| Some((rates.cost_micros(&answer.usage)?, version)));
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
    let provider_data = Value::object([
        ("request_id", heads.get("request_id").cloned().unwrap_or_default()),
        ("response_id", word(answer.id)),
        ("model", word(answer.model)),
        ("finish_reason", word(answer.finish_word)),
        ("rate_limits", heads.get("rate_limits").cloned().unwrap_or_default()),
    ]);
    let spent = spent(&answer.usage, cost_micros);
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
