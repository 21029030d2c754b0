//! Which of many tools a model is shown: ranked by what is asked for, what they cost and what they do to the world.
//!
//! Pure and exact: the same tools and the same words give the same order on every host, because all arithmetic is in
//! integers. What is shown is journaled, so that nothing is ranked again when a run is replayed.

use std::collections::BTreeMap;

use crate::contract::{Class, Contract};

/// Bits after the point of the numbers here.
const POINT: u32 = 10;
/// One.
const ONE: u64 = 1 << POINT;
/// A word in a tool's name counts as much as this many in its description.
const NAME_WEIGHT: u64 = 3;
/// Words of a query that count: the last ones, which are what is asked now.
const QUERY_WORDS_MAX: usize = 64;
/// Words of a description that are read.
const DESCRIPTION_WORDS_MAX: usize = 200;
/// Percent of the score that is left for a tool that changes the world, and for one that does so for good.
const WRITE_PERCENT: u64 = 90;
const DANGER_PERCENT: u64 = 75;

/// Words that say nothing about what is wanted.
const EMPTY_WORDS: &[&str] = &[
    "a", "an", "and", "any", "are", "as", "at", "be", "by", "can", "do", "for", "from", "have", "how", "i", "if", "in",
    "into", "is", "it", "its", "me", "my", "of", "on", "one", "or", "our", "out", "please", "so", "that", "the",
    "their", "them", "there", "this", "to", "up", "use", "we", "what", "which", "who", "with", "you", "your",
];

/// The best tools for a query, best first. A tool with none of its words is not among them.
#[must_use]
pub fn rank<'a>(tools: impl IntoIterator<Item = &'a Contract>, query: &str, count: usize) -> Vec<&'a Contract> {
    let wanted = query_words(query);
    if wanted.is_empty() || count == 0 {
        return Vec::new();
    }
    let documents: Vec<Document<'a>> = tools.into_iter().map(|tool| Document::read(tool, &wanted)).collect();
    let total = documents.len() as u64;
    let length = documents.iter().map(|document| document.length).sum::<u64>() / total.max(1);
    let weights: Vec<u64> = (0..wanted.len())
        .map(|word| rarity(total, documents.iter().filter(|document| document.counts[word] > 0).count() as u64))
        .collect();
    let mut scored: Vec<(u64, &'a Contract)> = documents
        .iter()
        .map(|document| (document.score(&weights, length), document.tool))
        .filter(|(score, _)| *score > 0)
        .collect();
    scored.sort_unstable_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.name.cmp(&y.name)));
    scored.into_iter().take(count).map(|(_, tool)| tool).collect()
}

/// A tool with how often it says each word of a query.
struct Document<'a> {
    tool: &'a Contract,
    counts: Vec<u64>,
    length: u64,
}

impl<'a> Document<'a> {
    fn read(tool: &'a Contract, wanted: &BTreeMap<String, usize>) -> Self {
        let mut counts = vec![0; wanted.len()];
        let mut length = 0;
        let mut take = |text: &str, weight: u64| {
            each_word(text, DESCRIPTION_WORDS_MAX, |word| {
                length += weight;
                if let Some(index) = wanted.get(word) {
                    counts[*index] += weight;
                }
            });
        };
        take(&tool.name, NAME_WEIGHT);
        take(&tool.description, 1);
        Self { tool, counts, length }
    }

    /// Okapi BM25 with `k1` 1.2 and `b` 0.75, then what the tool costs and does.
    fn score(&self, weights: &[u64], length: u64) -> u64 {
        let scale = ONE / 4 + 3 * ONE * self.length / (4 * length.max(1));
        let bend = 12 * scale / 10;
        let matched: u64 = self
            .counts
            .iter()
            .zip(weights)
            .filter(|(count, _)| **count > 0)
            .map(|(count, weight)| weight * (22 * count * ONE / 10) / (count * ONE + bend))
            .sum();
        let percent = match self.tool.class {
            Class::Read => 100,
            Class::Write => WRITE_PERCENT,
            Class::Danger => DANGER_PERCENT,
        };
        // A tool of ten times the cost has to fit better by a fifth.
        let cost = logarithm(u64::from(self.tool.cost_weight.max(1)) * ONE);
        matched * percent / 100 * ONE / (ONE + cost * 6 / 100)
    }
}

/// How much a word says that so many of all tools say: `ln(1 + (total - found + 0.5) / (found + 0.5))`.
fn rarity(total: u64, found: u64) -> u64 {
    let part = ONE * (2 * (total - found.min(total)) + 1) / (2 * found + 1);
    // The natural logarithm is 0.693 times that to the base 2.
    logarithm(ONE + part) * 693 / 1_000
}

/// The logarithm to the base 2 of a number of at least one.
fn logarithm(number: u64) -> u64 {
    let whole = u64::from(number.max(ONE).ilog2() - POINT);
    // Between one and two from here on; each square gives one more bit.
    let mut rest = number.max(ONE) >> whole;
    let mut log = whole << POINT;
    for bit in (0..POINT).rev() {
        rest = (rest * rest) >> POINT;
        if rest >= 2 * ONE {
            rest >>= 1;
            log += 1 << bit;
        }
    }
    log
}

/// The words of a query with their places; of a long one the last.
fn query_words(query: &str) -> BTreeMap<String, usize> {
    let mut all: Vec<String> = Vec::new();
    each_word(query, usize::MAX, |word| {
        if !all.iter().any(|known| known == word) {
            all.push(word.to_owned());
        }
    });
    let start = all.len().saturating_sub(QUERY_WORDS_MAX);
    all.split_off(start).into_iter().enumerate().map(|(index, word)| (word, index)).collect()
}

/// Calls back with each word of a text: lower case, cut at everything that is no letter or digit and where small letters
/// turn into capitals, without endings, and without words that say nothing.
fn each_word(text: &str, most: usize, mut take: impl FnMut(&str)) {
    let mut word = String::new();
    let mut count = 0;
    let mut small = false;
    let mut chars = text.chars();
    loop {
        let next = chars.next();
        let cut = next.is_none_or(|c| !c.is_alphanumeric() || (small && c.is_uppercase()));
        if cut && !word.is_empty() {
            if !EMPTY_WORDS.contains(&word.as_str()) {
                trim(&mut word);
                take(&word);
                count += 1;
                if count >= most {
                    return;
                }
            }
            word.clear();
        }
        let Some(c) = next else { return };
        small = c.is_lowercase() || c.is_ascii_digit();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
}

/// Endings, what stands in their place, and how much of a word has to be left.
const ENDINGS: &[(&str, &str, usize)] = &[
    ("ies", "y", 2),
    ("sses", "ss", 2),
    ("xes", "x", 2),
    ("ches", "ch", 2),
    ("shes", "sh", 2),
    ("ing", "", 4),
    ("ed", "", 4),
    ("ss", "ss", 2),
    ("us", "us", 2),
    ("s", "", 3),
];

/// Takes the commonest endings of English off, the same way for tools and for queries.
fn trim(word: &mut String) {
    if !word.is_ascii() || word.len() < 4 {
        return;
    }
    let fitting = ENDINGS.iter().find_map(|(ending, instead, rest)| {
        let stem = word.strip_suffix(ending).filter(|stem| stem.len() >= *rest)?;
        Some((stem.len(), *instead))
    });
    if let Some((length, instead)) = fitting {
        word.truncate(length);
        word.push_str(instead);
    }
    // `create` and `creating`, `delete` and `deleted`.
    if word.len() > 4 && word.ends_with('e') {
        word.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, description: &str, class: Class, cost_weight: u32) -> Contract {
        Contract { description: description.into(), class, cost_weight, ..Contract::undeclared(name) }
    }

    fn names<'a>(tools: &'a [Contract], query: &str) -> Vec<&'a str> {
        rank(tools, query, 10).into_iter().map(|tool| &*tool.name).collect()
    }

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        each_word(text, usize::MAX, |word| all.push(word.to_owned()));
        all
    }

    #[test]
    fn words_are_cut_and_trimmed_alike() {
        assert_eq!(words("crm__findCustomersByEmail"), ["crm", "find", "customer", "email"]);
        assert_eq!(words("Creating queries, created query; CREATE"), ["creat", "query", "creat", "query", "creat"]);
        assert_eq!(words("Überprüft die Straße"), ["überprüft", "die", "straße"]);
        assert_eq!(words("the of a"), [""; 0]);
    }

    #[test]
    fn the_tool_that_says_it_comes_first() {
        let tools = [
            tool("mail__send", "Sends a message to a person.", Class::Read, 1),
            tool("crm__find_customer", "Finds a customer by email address.", Class::Read, 1),
            tool("crm__list_orders", "Lists the orders of a customer.", Class::Read, 1),
            tool("weather__now", "The weather at a place.", Class::Read, 1),
        ];
        assert_eq!(names(&tools, "find the customer with this email")[0], "crm__find_customer");
        assert_eq!(names(&tools, "what did the customer order?")[0], "crm__list_orders");
        assert_eq!(names(&tools, "weather")[..], ["weather__now"]);
        assert!(names(&tools, "xyzzy").is_empty() && names(&tools, "").is_empty());
    }

    #[test]
    fn cheap_readers_come_before_costly_writers() {
        let tools = [
            tool("apple_write", "Looks up a price.", Class::Write, 1),
            tool("berry_danger", "Looks up a price.", Class::Danger, 1),
            tool("cherry_costly", "Looks up a price.", Class::Read, 100),
            tool("damson_read", "Looks up a price.", Class::Read, 1),
        ];
        let ranked = names(&tools, "price");
        assert_eq!(ranked[0], "damson_read");
        assert!(ranked.iter().position(|n| *n == "apple_write") < ranked.iter().position(|n| *n == "berry_danger"));
        assert!(ranked.iter().position(|n| *n == "cherry_costly") > Some(0));
    }

    #[test]
    fn logarithms_are_near() {
        for number in [1u64, 2, 3, 7, 10, 1_000, 123_456] {
            let exact = (number as f64).log2();
            let ours = logarithm(number * ONE) as f64 / ONE as f64;
            assert!((exact - ours).abs() < 0.02, "{number}: {exact} {ours}");
        }
    }

    #[test]
    fn the_order_of_the_tools_does_not_count() {
        let mut tools: Vec<Contract> =
            (0..50).map(|n| tool(&format!("t{n}"), "Finds things that are alike.", Class::Read, 1)).collect();
        let first: Vec<String> = names(&tools, "find things").into_iter().map(str::to_owned).collect();
        tools.reverse();
        assert_eq!(names(&tools, "find things"), first);
    }
}
