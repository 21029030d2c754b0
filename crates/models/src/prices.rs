//! The price book: what a model costs, in integer micro-USD per million tokens.
//!
//! A cost is the sum over token kinds in integers, rounded up once to a whole micro-USD, so it is never below what
//! the price says and at most one micro-USD above.

mod tiers;

use serde::Deserialize;
use windlass_core::ids::Name;
use windlass_core::input::Quote;
use windlass_core::transcript::Usage;

pub use tiers::{TierRates, Tiers};

/// Bytes of a price book that are read.
const BOOK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tokens that a price is for.
const PER_TOKENS: u128 = 1_000_000;

/// The book that comes with this build.
/// The text of the book that comes with this build.
pub const BUILTIN: &str = include_str!("prices/builtin.yml");

/// Why a price book cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", at(*.line, *.column))]
pub struct BookError {
    /// Line, from 1; 0 when unknown.
    pub line: u64,
    /// Column, from 1; 0 when unknown.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

fn at(line: u64, column: u64) -> String {
    if line == 0 { String::new() } else { format!("line {line}, column {column}: ") }
}

/// Prices of one model in micro-USD per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
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
    /// What calls cost that are served by other tiers than the standard one.
    #[serde(default)]
    pub tiers: Tiers,
}

impl Rates {
    /// The cost in micro-USD. None when input or output tokens are not known.
    #[must_use]
    pub fn cost_micros(&self, usage: &Usage) -> Option<u64> {
        let (input, output) = (usage.input?, usage.output?);
        let reasoning = usage.reasoning.unwrap_or(0).min(output);
        let parts = [
            (input, self.input),
            (usage.cache_read.unwrap_or(0), self.cache_read.unwrap_or(self.input)),
            (usage.cache_write.unwrap_or(0), self.cache_write.unwrap_or(self.input)),
            (output - reasoning, self.output),
            (reasoning, self.reasoning.unwrap_or(self.output)),
        ];
        let sum = parts.iter().fold(0_u128, |sum, (tokens, price)| {
            sum.saturating_add(u128::from(*tokens).saturating_mul(u128::from(*price)))
        });
        Some(u64::try_from(sum.div_ceil(PER_TOKENS)).unwrap_or(u64::MAX))
    }

    /// The dearest price that any token of a call may have, for reservations.
    #[must_use]
    pub fn quote(&self, version: Name) -> Quote {
        let input = self.input.max(self.cache_read.unwrap_or(0)).max(self.cache_write.unwrap_or(0));
        Quote {
            input,
            output: self.output.max(self.reasoning.unwrap_or(0)),
            version,
            beyond: windlass_core::budget::Amounts::ZERO,
        }
    }
}

/// One model of a book.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The provider's name.
    pub provider: Name,
    /// The model's name.
    pub model: Name,
    /// Other names of the model.
    #[serde(default)]
    pub aliases: Vec<Name>,
    /// Its prices.
    pub rates: Rates,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    version: Name,
    models: Vec<Price>,
}

/// Prices by provider and model; the first book that knows a model decides.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    books: Vec<(Name, Vec<Price>)>,
}

impl PriceBook {
    /// A book without prices.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The book that comes with this build.
    #[must_use]
    pub fn builtin() -> Self {
        Self::parse(BUILTIN).expect("the built-in price book is valid: a test reads it")
    }

    /// Reads a book: YAML or JSON.
    ///
    /// # Errors
    /// Text that is no book, with line and column; the same name twice.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        let whole = |message| BookError { line: 0, column: 0, message };
        if text.len() > BOOK_BYTES_MAX {
            return Err(whole(format!("has more than {BOOK_BYTES_MAX} bytes")));
        }
        let book: Book = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let (line, column) = place.map_or((0, 0), |p| (p.line(), p.column()));
            BookError { line, column, message: error.without_snippet().to_string() }
        })?;
        let mut names: Vec<(&str, &str)> =
            book.models.iter().flat_map(|p| p.names().map(|name| (&*p.provider, name))).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(whole(format!("prices `{}` of `{}` twice", pair[0].1, pair[0].0)));
        }
        Ok(Self { books: vec![(book.version, book.models)] })
    }

    /// This book, then another for what it does not know.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.books.extend(other.books);
        self
    }

    /// The prices of a model, and the version of the book they are from. A model name that ends in a date
    /// (`-2024-08-06`, `-20240806`) also finds the name without it.
    #[must_use]
    pub fn find(&self, provider: &str, model: &str) -> Option<(Rates, Name)> {
        let exact = |name: &str| {
            self.books.iter().find_map(|(version, prices)| {
                let price = prices.iter().find(|p| &*p.provider == provider && p.names().any(|n| n == name))?;
                Some((price.rates, version.clone()))
            })
        };
        exact(model).or_else(|| undated(model).and_then(exact))
    }
}

impl Price {
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.model).chain(self.aliases.iter().map(|a| &**a))
    }
}

fn undated(model: &str) -> Option<&str> {
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = model.rsplitn(4, '-');
    let last = parts.next()?;
    if digits(last, 8) {
        return Some(&model[..model.len() - 9]).filter(|name| !name.is_empty());
    }
    let (month, year) = (parts.next()?, parts.next()?);
    let dated = digits(last, 2) && digits(month, 2) && digits(year, 4);
    (dated && model.len() > 11).then(|| &model[..model.len() - 11])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, cache_read: u64, cache_write: u64, output: u64, reasoning: u64) -> Usage {
        let some = Some;
        Usage {
            input: some(input),
            cache_read: some(cache_read),
            cache_write: some(cache_write),
            output: some(output),
            reasoning: some(reasoning),
        }
    }

    #[test]
    fn invoices_agree_to_the_cent() {
        let book = PriceBook::builtin();
        let cost = |provider: &str, model: &str, usage: Usage| {
            book.find(provider, model).expect("priced").0.cost_micros(&usage).expect("known")
        };
        // 1,000,000 x $2.50 + 400,000 x $10.00 = $6.50
        assert_eq!(cost("openai", "gpt-4o", usage(1_000_000, 0, 0, 400_000, 0)), 6_500_000);
        // 123,456 x $0.15 + 64,000 x $0.075 + 7,890 x $0.60, per million = $0.0280524
        assert_eq!(cost("openai", "gpt-4o-mini-2024-07-18", usage(123_456, 64_000, 0, 7_890, 0)), 28_053);
        // Reasoning is part of the output: 10,000 x $1.25 + 5,000 x $10.00 = $0.0625
        assert_eq!(cost("openai", "gpt-5", usage(10_000, 0, 0, 5_000, 4_000)), 62_500);
        // 2,000 x $3 + 50,000 x $0.30 + 8,000 x $3.75 + 1,000 x $15 = $0.066
        assert_eq!(cost("anthropic", "claude-sonnet-4-5-20250929", usage(2_000, 50_000, 8_000, 1_000, 0)), 66_000);
    }

    #[test]
    fn costs_round_up_once_and_saturate() {
        let rates = Rates { input: 1, output: 1, ..Rates::default() };
        assert_eq!(rates.cost_micros(&usage(0, 0, 0, 0, 0)), Some(0));
        assert_eq!(rates.cost_micros(&usage(1, 1, 1, 1, 1)), Some(1));
        assert_eq!(rates.cost_micros(&usage(999_999, 0, 0, 1, 0)), Some(1));
        assert_eq!(rates.cost_micros(&usage(1_000_000, 0, 0, 1, 0)), Some(2));
        let dear = Rates { input: u64::MAX, output: u64::MAX, ..rates };
        assert_eq!(dear.cost_micros(&usage(u64::MAX, 0, 0, u64::MAX, 0)), Some(u64::MAX));
        assert_eq!(rates.cost_micros(&Usage { input: Some(5), ..Usage::default() }), None);
    }

    #[test]
    fn a_reservation_covers_the_dearest_token() {
        let rates = Rates {
            input: 3,
            output: 15,
            cache_read: Some(1),
            cache_write: Some(4),
            reasoning: Some(20),
            ..Rates::default()
        };
        assert_eq!(
            rates.quote("v".into()),
            Quote { input: 4, output: 20, version: "v".into(), beyond: windlass_core::budget::Amounts::ZERO }
        );
    }

    #[test]
    fn the_first_book_that_knows_a_model_decides() {
        let text = "version: mine-1\nmodels:\n- provider: openai\n  model: gpt-4o\n  aliases: [house]\n  rates: {input: 1, output: 2}\n";
        let book = PriceBook::parse(text).expect("valid").or(PriceBook::builtin());
        assert_eq!(&*book.find("openai", "house").expect("priced").1, "mine-1");
        assert_eq!(book.find("openai", "gpt-4o-2024-08-06").expect("priced").0.input, 1);
        assert_ne!(&*book.find("anthropic", "claude-haiku-4-5").expect("priced").1, "mine-1");
        assert_eq!(book.find("openai", "fake-model"), None);
        assert_eq!(book.find("anthropic", "gpt-4o"), None);
    }

    #[test]
    fn mistakes_name_their_place() {
        let error =
            PriceBook::parse("version: 1\nmodels:\n- provider: a\n  model: b\n  prise: 1\n").expect_err("unknown key");
        assert_eq!(error.line, 5, "{error}");
        assert!(error.message.contains("prise"), "{error}");
        let twice = "version: v\nmodels:\n- {provider: a, model: b, rates: {input: 1, output: 1}}\n- {provider: a, model: c, aliases: [b], rates: {input: 1, output: 1}}\n";
        assert!(PriceBook::parse(twice).expect_err("twice").message.contains("twice"));
        assert!(
            PriceBook::parse("version: v\nmodels:\n- {provider: a, model: b, rates: {input: -1, output: 1}}\n")
                .is_err()
        );
    }

    #[test]
    fn dates_are_cut_from_model_names() {
        assert_eq!(undated("gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(undated("claude-haiku-4-5-20251001"), Some("claude-haiku-4-5"));
        assert_eq!(undated("gpt-4o"), None);
        assert_eq!(undated("2024-08-06"), None);
        assert_eq!(undated("-20240806"), None);
    }
}
