//! What one model call of an agent uses at least and at most, by the catalog and the prices of this configuration. The
//! dearest link of a chain bounds its calls, the cheapest one their least.

use windlass_core::input::{Quote, Traits};
use windlass_core::limits::{BYTES_PER_TOKEN_USUAL, OUTPUT_TOKENS_DEFAULT};
use windlass_core::machine::{Agent, ModelSettings, Template};
use windlass_models::catalog::{CHAIN, MODEL};
use windlass_ports::model::Model;

use super::reach::Bounds;

/// Tokens that a conversation has at most where the catalog does not say what its model takes.
const CONTEXT_TOKENS_ASSUMED: u64 = 200_000;

/// What one call of an agent uses, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerCall {
    /// Attempts of one call, one at each link of a chain; none for a chain that is not known.
    pub attempts: Option<u64>,
    /// Tokens of an attempt.
    pub tokens: Bounds,
    /// Cost of an attempt in micro-USD; no most for a model without a price.
    pub cost_micros: Bounds,
}

/// What one call of an agent uses.
pub(crate) fn per_call(models: &dyn Model, agent: &Agent) -> PerCall {
    let prompt = [&agent.system, &agent.user].into_iter().map(written).sum::<u64>() / BYTES_PER_TOKEN_USUAL;
    let Some(chain) = models.chain(&agent.model) else {
        let is_listed = matches!(&*agent.model.provider, CHAIN | MODEL);
        let (quote, traits) = (models.quote(&agent.model), models.traits(&agent.model));
        let (tokens, cost_micros) = attempt(prompt, &agent.model, quote.as_ref(), traits);
        return PerCall { attempts: (!is_listed).then_some(1), tokens, cost_micros };
    };
    let links = chain.links.iter().map(|link| attempt(prompt, &link.settings, link.quote.as_ref(), link.traits));
    let (tokens, costs): (Vec<Bounds>, Vec<Bounds>) = links.unzip();
    // Each step to a better tier goes on behind the link that it came from.
    let raises = chain.rules.escalation.as_ref().map_or(0, |rule| u64::from(rule.at_most));
    let attempts = (chain.links.len() as u64).saturating_mul(raises.saturating_add(1));
    PerCall { attempts: Some(attempts), tokens: widest(&tokens), cost_micros: widest(&costs) }
}

/// From the least of all to the most of all.
fn widest(all: &[Bounds]) -> Bounds {
    let max = all.iter().map(|bounds| bounds.max).collect::<Option<Vec<u64>>>();
    Bounds {
        min: all.iter().map(|bounds| bounds.min).min().unwrap_or_default(),
        max: max.and_then(|most| most.into_iter().max()),
    }
}

/// Tokens and cost of one attempt.
fn attempt(prompt: u64, settings: &ModelSettings, quote: Option<&Quote>, traits: Traits) -> (Bounds, Bounds) {
    let input = traits.context_tokens.unwrap_or(CONTEXT_TOKENS_ASSUMED);
    let output = settings.max_tokens.unwrap_or(OUTPUT_TOKENS_DEFAULT);
    let least = if traits.is_free { 0 } else { prompt.min(input) };
    let beyond = quote.map(|quote| quote.beyond).unwrap_or_default();
    let most = input.saturating_add(output).saturating_add(beyond.tokens);
    let cost = match quote {
        None if traits.is_free => Bounds { min: 0, max: Some(0) },
        None => Bounds::default(),
        Some(quote) => {
            let of = |input: u64, output: u64| {
                let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
                let sum = part(input, quote.input).saturating_add(part(output, quote.output));
                u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
            };
            let most = of(input, output).saturating_add(beyond.cost_micros);
            Bounds { min: of(least, 0), max: Some(most) }
        }
    };
    (Bounds { min: least, max: Some(most) }, cost)
}

/// Bytes of a template that are written out; what an expression will give is not known.
fn written(template: &Template) -> u64 {
    let text = match template {
        Template::Literal(value) => value.as_str().unwrap_or_default(),
        Template::Text { source, .. } if !source.contains("{%") => source,
        Template::Text { .. } | Template::Path(_) | Template::List(_) | Template::Map(_) => "",
    };
    let mut parts = text.split("{{");
    let first = parts.next().map_or(0, str::len);
    let others = parts.map(|part| part.split_once("}}").map_or(0, |(_, text)| text.len()));
    (first + others.sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use windlass_core::machine::Dialect;

    use super::*;

    #[test]
    fn what_is_written_out_counts_and_expressions_do_not() {
        let text = |source: &str| Template::Text { dialect: Dialect::Prompt, source: source.into() };
        assert_eq!(written(&text("ab {{ input.x }} cd")), 6);
        assert_eq!(written(&text("{% if x %}long{% endif %}")), 0, "it may not be said");
        assert_eq!(written(&Template::Path(vec!["input".into()])), 0);
    }

    #[test]
    fn the_dearest_link_bounds_a_chain_and_one_without_a_price_does_not() {
        let bounds = |min, max| Bounds { min, max };
        assert_eq!(widest(&[bounds(3, Some(5)), bounds(1, Some(9))]), bounds(1, Some(9)));
        assert_eq!(widest(&[bounds(3, Some(5)), bounds(0, None)]), bounds(0, None));
    }
}
