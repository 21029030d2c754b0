//! Limits of rates, as they are written down.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_ports::store::rates::Rate;
use windlass_runtime::rates::{Limit, Limits, Pick, Picks, Unit};

use super::Span;

/// A limit of a rate: so many calls, or tokens of models, in a period. It is for the calls that fit `tenant`, `user`,
/// `model` and `tool`; for each of these a name, `"*"` for each with a count of its own, or nothing for all together. Of
/// limits that differ only in names, the one that names the call counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// Calls of this tenant's runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Calls of this user's runs; with a tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Calls of this model, as `PROVIDER/MODEL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Calls of this tool or action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// Attempts at models, and calls of tools and actions, in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Tokens in and out of models in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// The period, a day at most.
    pub per: Span,
    /// How much may come at once after a pause. Default: as much as in one period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// How long a call waits for its turn; one that would wait longer fails at once, and says when to come again.
    /// Default: as long as the call itself may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Span>,
}

/// The limits that a list says.
///
/// # Errors
/// The key of the one that cannot be, and why.
pub(crate) fn limits(rates: &[RateLimit]) -> Result<Limits, (String, String)> {
    let key = |place: usize| format!("limits.rates[{}]", place + 1);
    let mut lowered = Vec::new();
    for (place, rate) in rates.iter().enumerate() {
        let (unit, amount) = match (rate.calls, rate.tokens) {
            (Some(calls), None) => (Unit::Calls, calls),
            (None, Some(tokens)) => (Unit::Tokens, tokens),
            (Some(_), Some(_)) => return Err((key(place), "has one of `calls` and `tokens`; write two limits".into())),
            (None, None) => return Err((key(place), "needs `calls` or `tokens`".into())),
        };
        let pick = |text: &Option<String>| text.as_deref().map(Pick::of);
        lowered.push(Limit {
            picks: Picks {
                tenant: pick(&rate.tenant),
                user: pick(&rate.user),
                model: pick(&rate.model),
                tool: pick(&rate.tool),
            },
            unit,
            rate: Rate { amount, per_ms: rate.per.0, burst: rate.burst.unwrap_or(amount) },
            wait_ms: rate.wait.map(|wait| wait.0),
        });
    }
    let named = |what: String, unit: Unit| what.replace("`amount`", &format!("`{}`", unit.as_str()));
    let units: Vec<Unit> = lowered.iter().map(|limit| limit.unit).collect();
    Limits::new(lowered).map_err(|error| {
        let unit = units.get(error.place).copied().unwrap_or(Unit::Calls);
        (key(error.place), named(error.what, unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Limits, (String, String)> {
        #[derive(Deserialize)]
        struct All {
            rates: Vec<RateLimit>,
        }
        limits(&toml::from_str::<All>(text).expect("TOML").rates)
    }

    #[test]
    fn a_limit_is_as_it_is_written() {
        let one = said("[[rates]]\ntenant = \"*\"\ncalls = 60\nper = \"1m\"\nwait = \"5s\"").expect("a limit");
        let limit = &one.all()[0];
        assert_eq!(limit.rate, Rate { amount: 60, per_ms: 60_000, burst: 60 });
        assert_eq!((limit.picks.tenant.clone(), limit.wait_ms), (Some(Pick::Each), Some(5_000)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let fine = "[[rates]]\ncalls = 1\nper = \"1s\"\n[[rates]]\n";
        for (text, what) in [
            ("per = \"1s\"", "needs `calls` or `tokens`"),
            ("per = \"1s\"\ncalls = 1\ntokens = 1", "has one of `calls` and `tokens`"),
            ("per = \"2d\"\ncalls = 1", "`per` is `1ms` to `24h`"),
            ("per = \"1s\"\ntokens = 0", "`tokens` is 1 to"),
            ("per = \"1s\"\ncalls = 2", "for the same calls and period as limit 1"),
        ] {
            let (key, why) = said(&format!("{fine}{text}")).expect_err(what);
            assert!(key == "limits.rates[2]" && why.contains(what), "{key} {why}");
        }
    }
}
