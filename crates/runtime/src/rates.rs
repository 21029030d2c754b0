//! Limits of rates as they are configured, and which of them a call meets. Without I/O.

pub mod desk;

use std::collections::BTreeMap;
use std::fmt;

use windlass_core::ids::{Digest, Name};
use windlass_ports::store::rates::{Part, Rate};

/// Bytes of a word that are in the name of a bucket. Names of buckets are keys of an index.
const WORD_BYTES_MAX: usize = 200;

/// How a limit picks calls by one of their words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// Those with this one.
    One(Name),
    /// Those with any, each of them with a bucket of its own.
    Each,
}

impl Pick {
    /// The stars of a configuration, and everything else.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text == "*" { Self::Each } else { Self::One(text.into()) }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Attempts at models, and calls of tools and actions.
    Calls,
    /// Tokens in and out of models.
    Tokens,
}

impl Unit {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
        }
    }
}

/// Which calls a limit is for. All that are set have to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picks {
    /// The tenant of the run.
    pub tenant: Option<Pick>,
    /// The user of the run, within the tenant.
    pub user: Option<Pick>,
    /// The model, as `PROVIDER/MODEL`.
    pub model: Option<Pick>,
    /// The tool or action.
    pub tool: Option<Pick>,
}

impl Picks {
    fn words(&self) -> [(&'static str, Option<&Pick>); 4] {
        let Self { tenant, user, model, tool } = self;
        [("tenant", tenant.as_ref()), ("user", user.as_ref()), ("model", model.as_ref()), ("tool", tool.as_ref())]
    }

    /// Which of the words are looked at, and which of them are named, first words first.
    fn shape(&self) -> ([bool; 4], [bool; 4]) {
        let words = self.words();
        (words.map(|(_, pick)| pick.is_some()), words.map(|(_, pick)| matches!(pick, Some(Pick::One(_)))))
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which calls it is for.
    pub picks: Picks,
    /// What is counted.
    pub unit: Unit,
    /// How much.
    pub rate: Rate,
    /// How long a call waits for permits, in milliseconds; as long as it may take, without.
    pub wait_ms: Option<u64>,
}

/// Something about a list of limits that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit {} of rates: {what}", .place + 1)]
pub struct LimitError {
    /// The limit, from 0.
    pub place: usize,
    /// What is wrong with it.
    pub what: String,
}

/// A call as limits see it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The tenant of its run.
    pub tenant: &'a str,
    /// The user of its run.
    pub user: Option<&'a str>,
    /// Provider and model of a model call.
    pub model: Option<(&'a str, &'a str)>,
    /// The tool or action of another call.
    pub tool: Option<&'a str>,
    /// Tokens that it may use.
    pub tokens: u64,
}

/// What a call takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Permits, in the order of the names of their buckets.
    pub parts: Vec<Part>,
    /// Which of them are counted in tokens.
    pub tokens: Vec<bool>,
    /// How long it waits for them, in milliseconds, when a limit says so.
    pub wait_ms: Option<u64>,
}

/// Limits that were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(Vec<Limit>);

impl Limits {
    /// Checks a list.
    ///
    /// # Errors
    /// The first limit that cannot be, and why.
    pub fn new(limits: Vec<Limit>) -> Result<Self, LimitError> {
        let mut seen = BTreeMap::new();
        for (place, limit) in limits.iter().enumerate() {
            let wrong = |what: String| LimitError { place, what };
            limit.rate.check().map_err(|(part, must)| wrong(format!("`{part}` {must}")))?;
            if limit.picks.model.is_some() && limit.picks.tool.is_some() {
                return Err(wrong("no call is of a model and of a tool; write one limit for each".into()));
            }
            if limit.unit == Unit::Tokens && limit.picks.tool.is_some() {
                return Err(wrong("a tool uses no tokens; write `calls`, or name a model".into()));
            }
            if limit.picks.user.is_some() && limit.picks.tenant.is_none() {
                let way_out = "write `tenant = \"*\"` beside it for users of every tenant";
                return Err(wrong(format!("a user belongs to a tenant; {way_out}")));
            }
            if let Some(Pick::One(model)) = &limit.picks.model
                && !model.contains('/')
            {
                return Err(wrong(format!("`{model}` is no model; write `PROVIDER/MODEL`, or `*` for each")));
            }
            if let Some((word, _)) = limit.picks.words().into_iter().find(|(_, pick)| is_blank(*pick)) {
                return Err(wrong(format!("`{word}` is blank; leave it out for all, or write `*` for each")));
            }
            if let Some((word, _)) = limit.picks.words().into_iter().find(|(_, pick)| has_star(*pick)) {
                return Err(wrong(format!(
                    "`{word}` has a `*` in a name, which fits nothing; write a name, or `*` for each"
                )));
            }
            if let Some(other) = seen.insert((&limit.picks, limit.unit, limit.rate.per_ms), place) {
                return Err(wrong(format!("is for the same calls and period as limit {}", other + 1)));
            }
        }
        Ok(Self(limits))
    }

    /// The list.
    #[must_use]
    pub fn all(&self) -> &[Limit] {
        &self.0
    }

    /// What a call takes. Of limits that look at the same words in the same unit and period those count that name most: what
    /// is said of one tenant goes before what is said of each.
    #[must_use]
    pub fn of(&self, caller: &Caller<'_>) -> Wanted {
        let mut best: BTreeMap<([bool; 4], Unit, u64), [bool; 4]> = BTreeMap::new();
        let fitting: Vec<&Limit> = self.0.iter().filter(|limit| limit.fits(caller)).collect();
        for limit in &fitting {
            let (looked, named) = limit.picks.shape();
            let known = best.entry((looked, limit.unit, limit.rate.per_ms)).or_default();
            *known = named.max(*known);
        }
        let chosen = fitting.into_iter().filter(|limit| {
            let (looked, named) = limit.picks.shape();
            best.get(&(looked, limit.unit, limit.rate.per_ms)) == Some(&named)
        });
        let mut found: Vec<(Part, bool, Option<u64>)> = chosen.map(|limit| limit.part(caller)).collect();
        found.sort();
        Wanted {
            wait_ms: found.iter().filter_map(|(_, _, wait_ms)| *wait_ms).min(),
            tokens: found.iter().map(|(_, is_tokens, _)| *is_tokens).collect(),
            parts: found.into_iter().map(|(part, _, _)| part).collect(),
        }
    }
}

fn has_star(pick: Option<&Pick>) -> bool {
    matches!(pick, Some(Pick::One(name)) if name.contains('*'))
}

/// A word as it is in the name of a bucket: one that is long is cut, and goes on with what tells it from others.
fn shortened(word: &str) -> String {
    if word.len() <= WORD_BYTES_MAX {
        return word.to_owned();
    }
    let cut = &word[..word.floor_char_boundary(WORD_BYTES_MAX / 2)];
    format!("{cut}~{}", Digest::of(word.as_bytes()))
}

fn is_blank(pick: Option<&Pick>) -> bool {
    matches!(pick, Some(Pick::One(name)) if name.trim().is_empty())
}

impl Limit {
    fn fits(&self, caller: &Caller<'_>) -> bool {
        let fits = |pick: Option<&Pick>, word: Option<&str>| match (pick, word) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Pick::Each), Some(_)) => true,
            (Some(Pick::One(name)), Some(word)) => **name == *word,
        };
        let Picks { tenant, user, model, tool } = &self.picks;
        let called = caller.model.map(|(provider, model)| format!("{provider}/{model}"));
        fits(tenant.as_ref(), Some(caller.tenant))
            && fits(user.as_ref(), caller.user)
            && fits(model.as_ref(), called.as_deref())
            && fits(tool.as_ref(), caller.tool)
            && (self.unit == Unit::Calls || caller.model.is_some())
    }

    fn part(&self, caller: &Caller<'_>) -> (Part, bool, Option<u64>) {
        let called = caller.model.map(|(provider, model)| format!("{provider}/{model}"));
        let words = [Some(caller.tenant), caller.user, called.as_deref(), caller.tool];
        let named = self.picks.words().into_iter().zip(words);
        let named = named.filter_map(|((word, pick), value)| Some((word, pick.and(value)?)));
        let (unit, per_ms) = (self.unit.as_str(), self.rate.per_ms);
        let bucket = named.fold(format!("{unit}/{per_ms}ms"), |text, (word, value)| {
            format!("{text} {word}:{}", shortened(&value.replace('%', "%25").replace(' ', "%20")))
        });
        let is_tokens = self.unit == Unit::Tokens;
        let need = if is_tokens { caller.tokens.clamp(1, self.rate.burst) } else { 1 };
        (Part { bucket: bucket.into(), rate: self.rate, need }, is_tokens, self.wait_ms)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.picks.words().into_iter().filter_map(|(word, pick)| Some((word, pick?)));
        let named: Vec<String> = named
            .map(|(word, pick)| match pick {
                Pick::One(name) => format!("{word} `{name}`"),
                Pick::Each => format!("each {word}"),
            })
            .collect();
        f.write_str(&if named.is_empty() { "everything".to_owned() } else { named.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(tenant: &str, user: &str, model: &str, tool: &str, amount: u64) -> Limit {
        let pick = |text: &str| (!text.is_empty()).then(|| Pick::of(text));
        let picks = Picks { tenant: pick(tenant), user: pick(user), model: pick(model), tool: pick(tool) };
        Limit { picks, unit: Unit::Calls, rate: Rate { amount, per_ms: 1_000, burst: amount }, wait_ms: None }
    }

    const CALLER: Caller<'static> =
        Caller { tenant: "acme", user: Some("ann"), model: Some(("openai", "gpt")), tool: None, tokens: 500 };

    fn of(limits: Vec<Limit>, caller: &Caller<'_>) -> Vec<(String, u64, u64)> {
        let wanted = Limits::new(limits).expect("limits").of(caller);
        wanted.parts.iter().map(|part| (part.bucket.to_string(), part.rate.amount, part.need)).collect()
    }

    #[test]
    fn a_call_takes_of_every_bucket_that_it_fits() {
        let limits = || {
            vec![
                limit("", "", "", "", 1),
                limit("*", "", "", "", 2),
                limit("*", "*", "", "", 3),
                limit("", "", "openai/gpt", "", 4),
                limit("", "", "", "*", 5),
                limit("other", "", "*", "", 6),
            ]
        };
        let found = of(limits(), &CALLER);
        let found: Vec<(&str, u64)> = found.iter().map(|(bucket, amount, _)| (&**bucket, *amount)).collect();
        assert_eq!(
            found,
            [
                ("calls/1000ms", 1),
                ("calls/1000ms model:openai/gpt", 4),
                ("calls/1000ms tenant:acme", 2),
                ("calls/1000ms tenant:acme user:ann", 3),
            ]
        );
        let tool = Caller { user: None, model: None, tool: Some("a b"), ..CALLER };
        let found = of(limits(), &tool);
        assert_eq!(found.last().map(|(bucket, ..)| &**bucket), Some("calls/1000ms tool:a%20b"));
        assert_eq!(found.len(), 3, "a run without a user meets no limit of users");
    }

    #[test]
    fn long_words_are_told_apart_by_short_names_of_buckets() {
        let bucket = |user: &str| {
            let caller = Caller { user: Some(user), ..CALLER };
            of(vec![limit("*", "*", "", "", 1)], &caller).remove(0).0
        };
        let (long, other) = ("ä".repeat(5_000), "ä".repeat(5_001));
        assert!(bucket(&long).len() < 400 && bucket(&long) != bucket(&other));
        assert_eq!(bucket(&long), bucket(&long));
    }

    #[test]
    fn what_is_said_of_one_goes_before_what_is_said_of_each() {
        let per_day = |limit: Limit| Limit { rate: Rate { per_ms: 86_400_000, ..limit.rate }, ..limit };
        let limits = vec![
            limit("*", "", "", "", 2),
            limit("acme", "", "", "", 9),
            per_day(limit("acme", "", "", "", 99)),
            per_day(limit("*", "", "", "", 3)),
        ];
        let found: Vec<u64> = of(limits.clone(), &CALLER).into_iter().map(|(_, amount, _)| amount).collect();
        assert_eq!(found, [9, 99]);
        // What is said of one for another period takes nobody's place.
        let found: Vec<u64> =
            of(vec![limits[0].clone(), limits[2].clone()], &CALLER).into_iter().map(|(_, n, _)| n).collect();
        assert_eq!(found, [2, 99]);
        let other = Caller { tenant: "other", ..CALLER };
        let found: Vec<u64> = of(limits, &other).into_iter().map(|(_, amount, _)| amount).collect();
        assert_eq!(found, [2, 3]);
    }

    #[test]
    fn tokens_are_counted_for_models_and_a_large_call_takes_a_full_bucket() {
        let tokens = |amount| Limit { unit: Unit::Tokens, ..limit("*", "", "", "", amount) };
        assert_eq!(of(vec![tokens(1_000)], &CALLER), [("tokens/1000ms tenant:acme".to_owned(), 1_000, 500)]);
        assert_eq!(of(vec![tokens(100)], &CALLER)[0].2, 100);
        let tool = Caller { model: None, tool: Some("t"), ..CALLER };
        assert_eq!(of(vec![tokens(100)], &tool), []);
    }

    #[test]
    fn limits_that_cannot_be_are_refused_with_their_place() {
        let fine = limit("*", "", "", "", 1);
        for (wrong, what) in [
            (limit("", "", "a/b", "t", 1), "no call is of a model and of a tool"),
            (limit("", "ann", "", "", 1), "a user belongs to a tenant"),
            (limit("", "", "gpt", "", 1), "`gpt` is no model"),
            (limit("", "", "openai/*", "", 1), "`model` has a `*` in a name"),
            (limit(" ", "", "", "", 1), "`tenant` is blank"),
            (limit("", "", "", "t", 0), "`amount` is 1 to"),
            (Limit { unit: Unit::Tokens, ..limit("", "", "", "t", 1) }, "a tool uses no tokens"),
            (limit("*", "", "", "", 7), "the same calls and period as limit 1"),
        ] {
            let error = Limits::new(vec![fine.clone(), wrong]).expect_err(what);
            assert!(error.place == 1 && error.what.contains(what), "{error}");
            assert!(error.to_string().starts_with("limit 2 of rates: "), "{error}");
        }
        assert_eq!(fine.to_string(), "each tenant");
    }
}
