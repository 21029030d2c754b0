//! Which of many tools a model is shown: ranked by what is asked for, what they cost and what they do to the world.
//!
//! Pure and exact: the same tools and the same words give the same order on every host, because all arithmetic is in
//! integers. What is shown is journaled, so that nothing is ranked again when a run is replayed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::contract::{Class, Contract};

/// Bits after the point of the numbers here.
const POINT: u32 = 10;
/// One.
const ONE: u64 = 1 << POINT;
/// A word in a tool's name counts as much as this many in its description.
const NAME_WEIGHT: u32 = 3;
/// Words of a query that count: the last ones, which are what is asked now.
const QUERY_WORDS_MAX: usize = 64;
/// Words of a description that are read.
const DESCRIPTION_WORDS_MAX: usize = 200;
/// Percent of the score that is left for a tool that changes the world, and for one that does so for good.
const WRITE_PERCENT: u64 = 90;
const DANGER_PERCENT: u64 = 75;
/// How long a call takes where its contract does not say it, in milliseconds. What is faster counts the same: a model waits
/// longer for itself.
const LATENCY_MS_USUAL: u64 = 1_000;
/// What takes longer counts as taking so long: a day.
const LATENCY_MS_MOST: u64 = 86_400_000;

/// Words that say nothing about what is wanted.
const EMPTY_WORDS: &[&str] = &[
    "a", "an", "and", "any", "are", "as", "at", "be", "by", "can", "do", "for", "from", "have", "how", "i", "if", "in",
    "into", "is", "it", "its", "me", "my", "of", "on", "one", "or", "our", "out", "please", "so", "that", "the",
    "their", "them", "there", "this", "to", "up", "use", "we", "what", "which", "who", "with", "you", "your",
];

/// What tools say, read once: how often each says each word. Ranking reads nothing but the query.
///
/// It holds for the tools that it was made of, in their order: a machine never changes, and neither does what its tools say.
#[derive(Debug, Default)]
pub struct Index {
    /// By the word: the places of the tools that say it, and how much.
    words: BTreeMap<String, Vec<(u32, u32)>>,
    /// What all words of each tool come to.
    lengths: Vec<u32>,
}

impl Index {
    /// Reads the names and descriptions of tools.
    #[must_use]
    pub fn of<'a>(tools: impl IntoIterator<Item = &'a Contract>) -> Self {
        let mut index = Self::default();
        for (place, tool) in (0u32..).zip(tools) {
            index.lengths.push(0);
            index.read(place, &tool.name, NAME_WEIGHT);
            index.read(place, &tool.description, 1);
        }
        index
    }

    fn read(&mut self, place: u32, text: &str, weight: u32) {
        each_word(text, DESCRIPTION_WORDS_MAX, |word| {
            self.lengths[place as usize] += weight;
            let places = match self.words.get_mut(word) {
                Some(places) => places,
                None => self.words.entry(word.to_owned()).or_default(),
            };
            match places.last_mut().filter(|(last, _)| *last == place) {
                Some((_, count)) => *count += weight,
                None => places.push((place, weight)),
            }
        });
    }

    /// The best tools for a query, best first. A tool with none of its words is not among them. The tools are those that
    /// the index was made of, in the same order; none in the place of one that is not to be found.
    #[must_use]
    pub fn rank<'a>(
        &self,
        tools: impl IntoIterator<Item = Option<&'a Contract>>,
        query: &str,
        count: usize,
    ) -> Vec<&'a Contract> {
        let wanted = query_words(query);
        if wanted.is_empty() || count == 0 {
            return Vec::new();
        }
        let tools: Vec<Option<&'a Contract>> = tools.into_iter().collect();
        let is_there = |place: u32| tools.get(place as usize).copied().flatten().is_some();
        let lengths = self.lengths.iter().zip(&tools).filter(|(_, tool)| tool.is_some()).map(|(length, _)| *length);
        let (total, sum) = lengths.fold((0u64, 0u64), |(total, sum), length| (total + 1, sum + u64::from(length)));
        let usual = sum / total.max(1);
        let mut matched = vec![0u64; tools.len()];
        for places in wanted.iter().filter_map(|word| self.words.get(word)) {
            let found = places.iter().filter(|(place, _)| is_there(*place));
            let weight = rarity(total, found.clone().count() as u64);
            for (place, count) in found {
                let length = self.lengths.get(*place as usize).copied().unwrap_or_default();
                matched[*place as usize] += fit(weight, u64::from(*count), u64::from(length), usual);
            }
        }
        let mut scored: Vec<(u64, &'a Contract)> = matched
            .into_iter()
            .zip(&tools)
            .filter_map(|(matched, tool)| Some((score((*tool)?, matched), (*tool)?)))
            .filter(|(score, _)| *score > 0)
            .collect();
        scored.sort_unstable_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.name.cmp(&y.name)));
        scored.into_iter().take(count).map(|(_, tool)| tool).collect()
    }
}

/// An [`Index`] that is made when it is first asked for. A copy makes its own.
#[derive(Debug, Default)]
pub struct Indexed(OnceLock<Index>);

impl Indexed {
    /// The index of these tools: always the same ones, in the same order.
    pub fn of<'a>(&self, tools: impl IntoIterator<Item = &'a Contract>) -> &Index {
        self.0.get_or_init(|| Index::of(tools))
    }
}

impl Clone for Indexed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The best tools for a query among tools that are ranked once. See [`Index::rank`].
#[must_use]
pub fn rank<'a>(tools: impl IntoIterator<Item = &'a Contract>, query: &str, count: usize) -> Vec<&'a Contract> {
    let tools: Vec<&'a Contract> = tools.into_iter().collect();
    Index::of(tools.iter().copied()).rank(tools.iter().copied().map(Some), query, count)
}

/// What a word adds to the score of a tool that says it so often: Okapi BM25 with `k1` 1.2 and `b` 0.75.
fn fit(weight: u64, count: u64, length: u64, usual: u64) -> u64 {
    let scale = ONE / 4 + 3 * ONE * length / (4 * usual.max(1));
    let bend = 12 * scale / 10;
    weight * (22 * count * ONE / 10) / (count * ONE + bend)
}

/// How well a tool fits, with what it does, costs and takes.
fn score(tool: &Contract, matched: u64) -> u64 {
    let percent = match tool.class {
        Class::Read => 100,
        Class::Write => WRITE_PERCENT,
        Class::Danger => DANGER_PERCENT,
    };
    // A tool of ten times the cost has to fit better by a fifth, one that takes ten seconds and not one by a tenth.
    let cost = logarithm(u64::from(tool.cost_weight.max(1)) * ONE);
    let latency = tool.latency_ms.unwrap_or(LATENCY_MS_USUAL).clamp(LATENCY_MS_USUAL, LATENCY_MS_MOST);
    let slow = logarithm(latency * ONE / LATENCY_MS_USUAL);
    // In thousandths, so that a word which many tools share tells them apart too.
    matched * 1_000 * percent * ONE / (100 * ONE + cost * 6 + slow * 3)
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

/// The words of a query, each once; of a long one the last.
fn query_words(query: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    each_word(query, usize::MAX, |word| {
        if !all.iter().any(|known| known == word) {
            all.push(word.to_owned());
        }
    });
    let start = all.len().saturating_sub(QUERY_WORDS_MAX);
    all.split_off(start)
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
    fn what_answers_soon_comes_before_what_takes_long() {
        let timed = |name: &str, latency_ms| Contract { latency_ms, ..tool(name, "Looks up a price.", Class::Read, 1) };
        let tools = [
            timed("apple_day", Some(u64::MAX)),
            timed("berry_minute", Some(60_000)),
            timed("cherry_seconds", Some(10_000)),
            timed("damson_unsaid", None),
            timed("elder_once", Some(1)),
        ];
        // What is said to take less than a second, or not said at all, is alike: the name decides.
        let ranked = ["damson_unsaid", "elder_once", "cherry_seconds", "berry_minute", "apple_day"];
        assert_eq!(names(&tools, "price"), ranked);
        // The words weigh more than the time.
        let better = Contract { latency_ms: Some(60_000), ..tool("fig", "Looks up a price of fruit.", Class::Read, 1) };
        let tools = [better, timed("grape", Some(5))];
        assert_eq!(names(&tools, "price of fruit")[0], "fig");
        // Cost, risk and time are all of the score.
        let all = [
            Contract { class: Class::Write, ..timed("ant", Some(1)) },
            Contract { cost_weight: 10, ..timed("bee", Some(1)) },
            timed("cat", Some(10_000)),
            timed("dog", Some(1)),
        ];
        assert_eq!(names(&all, "price"), ["dog", "cat", "ant", "bee"]);
    }

    #[test]
    fn an_index_ranks_as_if_it_were_made_of_what_is_to_be_found_alone() {
        let words = ["mail", "order", "price", "ticket", "list", "send", "of", "a", "customers", "paid"];
        for seed in 0..200u64 {
            let mut next = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut draw = |below: u64| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (next >> 33) % below
            };
            let tools: Vec<Contract> = (0..40)
                .map(|n| {
                    let said: Vec<&str> = (0..draw(12)).map(|_| words[draw(10) as usize]).collect();
                    let class = [Class::Read, Class::Write, Class::Danger][draw(3) as usize];
                    tool(&format!("t{n}_{}", words[draw(10) as usize]), &said.join(" "), class, 1 + draw(50) as u32)
                })
                .collect();
            let kept: Vec<Option<&Contract>> = tools.iter().map(|tool| (draw(3) > 0).then_some(tool)).collect();
            let query: Vec<&str> = (0..4).map(|_| words[draw(10) as usize]).collect();
            let query = query.join(" ");
            let of_all = Index::of(&tools).rank(kept.iter().copied(), &query, 40);
            assert_eq!(of_all, rank(kept.iter().flatten().copied(), &query, 40), "seed {seed}");
        }
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
