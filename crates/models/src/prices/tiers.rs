//! Service tiers: what a call costs that a provider serves as a batch, when it has time, or before others.
//!
//! | the answer names | it costs | marked as estimated |
//! |---|---|---|
//! | the standard tier, or none, and none was asked for | the standard rates | no |
//! | a tier that the book has | its rates | no |
//! | `batch` or `flex`, which the book lacks | the standard rates: these tiers cost less | yes |
//! | any other tier | [`SAFE_FACTOR`] times the dearest rates that the book has | yes |
//! | none, and another one was asked for | the dearest that may have served it | yes |

use serde::Deserialize;

use super::Rates;

/// Tiers that a book does not have are charged at so many times its dearest rates: no list price of a tier is known that is
/// more than this beyond the standard one.
const SAFE_FACTOR: u64 = 3;

/// Words for the standard tier: of OpenAI, of Anthropic, and of requests that want no other one.
const STANDARD: [&str; 3] = ["default", "standard", "standard_only"];

/// Prices of one tier in micro-USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierRates {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from a cache; the price of input when absent.
    #[serde(default)]
    pub cache_read: Option<u64>,
    /// Input tokens written to a cache; the price of input when absent.
    #[serde(default)]
    pub cache_write: Option<u64>,
    /// Output tokens spent on reasoning; the price of output when absent.
    #[serde(default)]
    pub reasoning: Option<u64>,
}

/// The tiers of a model beside the standard one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tiers {
    /// Served in batches.
    pub batch: Option<TierRates>,
    /// Served when there is time.
    pub flex: Option<TierRates>,
    /// Served before others.
    pub priority: Option<TierRates>,
}

impl TierRates {
    fn rates(self) -> Rates {
        let Self { input, output, cache_read, cache_write, reasoning } = self;
        Rates { input, output, cache_read, cache_write, reasoning, tiers: Tiers::default() }
    }
}

impl Rates {
    /// The rates of an answer by the tier that it names and the one that was asked for, and whether they are its own rather
    /// than safe ones.
    #[must_use]
    pub fn of_answer(&self, named: Option<&str>, asked: Option<&str>) -> (Self, bool) {
        match named {
            Some(tier) => self.of_tier(tier).map_or_else(|| (self.safe(tier), false), |rates| (rates, true)),
            None if asked.is_none_or(is_standard) => (self.standard(), true),
            None => (self.of_request(asked), false),
        }
    }

    /// The dearest rates at which a request may be answered that asks for a tier: providers fall back to the standard one.
    #[must_use]
    pub fn of_request(&self, asked: Option<&str>) -> Self {
        let own = |tier: &str| self.of_tier(tier).unwrap_or_else(|| self.safe(tier));
        match asked {
            None => self.standard(),
            Some(tier) if is_standard(tier) => self.standard(),
            Some(tier @ ("batch" | "flex" | "priority")) => self.standard().dearer(own(tier)),
            Some(_) => ["batch", "flex", "priority"].map(own).into_iter().fold(self.standard(), Self::dearer),
        }
    }

    fn standard(&self) -> Self {
        Self { tiers: Tiers::default(), ..*self }
    }

    fn of_tier(&self, tier: &str) -> Option<Self> {
        let Tiers { batch, flex, priority } = self.tiers;
        match tier {
            "batch" => batch.map(TierRates::rates),
            "flex" => flex.map(TierRates::rates),
            "priority" => priority.map(TierRates::rates),
            other => is_standard(other).then(|| self.standard()),
        }
    }

    /// What is surely no less than a tier costs that the book does not have.
    fn safe(&self, tier: &str) -> Self {
        if matches!(tier, "batch" | "flex") {
            return self.standard();
        }
        let Tiers { batch, flex, priority } = self.tiers;
        let others = [batch, flex, priority].into_iter().flatten().map(TierRates::rates);
        others.fold(self.standard(), Self::dearer).times(SAFE_FACTOR)
    }

    /// The dearer price of each kind of token.
    fn dearer(self, other: Self) -> Self {
        let more = |of: fn(&Self) -> u64| of(&self).max(of(&other));
        Self {
            input: more(|rates| rates.input),
            output: more(|rates| rates.output),
            cache_read: Some(more(|rates| rates.cache_read.unwrap_or(rates.input))),
            cache_write: Some(more(|rates| rates.cache_write.unwrap_or(rates.input))),
            reasoning: Some(more(|rates| rates.reasoning.unwrap_or(rates.output))),
            tiers: Tiers::default(),
        }
    }

    fn times(self, factor: u64) -> Self {
        let part = |price: Option<u64>| price.map(|price| price.saturating_mul(factor));
        Self {
            input: self.input.saturating_mul(factor),
            output: self.output.saturating_mul(factor),
            cache_read: part(self.cache_read),
            cache_write: part(self.cache_write),
            reasoning: part(self.reasoning),
            tiers: Tiers::default(),
        }
    }
}

fn is_standard(tier: &str) -> bool {
    STANDARD.contains(&tier)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        let tier = |input, output| TierRates { input, output, cache_read: None, cache_write: None, reasoning: None };
        let tiers = Tiers { batch: Some(tier(5, 20)), flex: None, priority: Some(tier(20, 80)) };
        Rates { input: 10, output: 40, cache_read: Some(1), tiers, ..Rates::default() }
    }

    #[test]
    fn a_tier_that_the_book_lacks_is_charged_at_rates_that_are_surely_enough() {
        let of = |named, asked| {
            let (rates, exact) = rates().of_answer(named, asked);
            (rates.input, rates.output, exact)
        };
        assert_eq!(
            [of(None, None), of(Some("default"), Some("auto")), of(None, Some("standard_only"))],
            [(10, 40, true); 3]
        );
        assert_eq!((of(Some("batch"), None), of(Some("priority"), None)), ((5, 20, true), (20, 80, true)));
        assert_eq!(of(Some("flex"), Some("flex")), (10, 40, false), "no less than it costs");
        assert_eq!(of(Some("scale"), None), (60, 240, false));
        assert_eq!(of(None, Some("priority")), (20, 80, false), "nobody says which it was");
    }

    #[test]
    fn a_request_is_reserved_at_the_dearest_tier_that_may_answer_it() {
        let of = |asked| {
            let rates = rates().of_request(asked);
            (rates.input, rates.output)
        };
        assert_eq!([of(None), of(Some("default")), of(Some("batch")), of(Some("flex"))], [(10, 40); 4]);
        assert_eq!([of(Some("priority")), of(Some("auto")), of(Some("scale"))], [(20, 80); 3]);
        let unknown = Rates { tiers: Tiers::default(), ..rates() };
        assert_eq!(unknown.of_request(Some("priority")).input, 30);
        assert_eq!(unknown.of_request(Some("priority")).cache_read, Some(3));
    }
}
