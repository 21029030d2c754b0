//! How each class is recognised: a pattern, and a check of what it matched.
//!
//! Patterns run in time linear in the text. A check may only drop a match.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{Class, Found};

/// Characters of a value that is taken for a secret without having a known form.
const SECRET_CHARS_MIN: usize = 8;
/// Bits per character from which a text looks random.
const ENTROPY_MIN: f64 = 2.75;

struct Finder {
    pattern: Regex,
    /// The group that is the finding.
    group: usize,
    check: fn(text: &str, captures: &Captures<'_>) -> bool,
}

fn finder(pattern: &str, group: usize, check: fn(&str, &Captures<'_>) -> bool) -> Finder {
    Finder { pattern: Regex::new(pattern).expect("the patterns of this build are valid"), group, check }
}

fn any(_: &str, _: &Captures<'_>) -> bool {
    true
}

static PRIVATE_KEY: LazyLock<Finder> = LazyLock::new(|| {
    let kind = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----";
    finder(&format!(r"-----BEGIN {kind}(?s:.*?)(?:-----END {kind}|\z)"), 0, any)
});
static CONNECTION: LazyLock<Finder> = LazyLock::new(|| {
    let pattern = r#"(?i)\b[a-z][a-z0-9+.-]{1,30}://[^\s:/?#@"'<>`]{0,128}:([^\s/?#"'<>`]{1,256})@[^\s"'<>`,;)\]]+"#;
    finder(pattern, 0, |_, captures| !is_placeholder(group(captures, 1)))
});
static JWT: LazyLock<Finder> =
    LazyLock::new(|| finder(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", 0, any));
static AWS: LazyLock<Finder> = LazyLock::new(|| {
    finder(r"(?:\b|_)((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b", 1, |_, captures| {
        !group(captures, 1).ends_with("EXAMPLE")
    })
});
static GITHUB: LazyLock<Finder> = LazyLock::new(|| {
    finder(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{40,}|github_pat_[A-Za-z0-9_]{22,255})\b",
        0,
        any,
    )
});
static SLACK: LazyLock<Finder> = LazyLock::new(|| {
    let pattern = concat!(
        r"\b(?:xox[abeoprs](?:\.xox[abeoprs])?-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}",
        r"|hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+)"
    );
    finder(pattern, 0, any)
});
static SERVICE: LazyLock<Finder> = LazyLock::new(|| {
    let pattern = concat!(
        r"\b(?:sk-(?:ant-|proj-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{35}",
        r"|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,}|npm_[A-Za-z0-9]{36}",
        r"|pypi-[A-Za-z0-9_-]{50,}|glpat-[A-Za-z0-9_-]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
        r"|do[por]_v1_[a-f0-9]{64}|hf_[A-Za-z0-9]{30,}|ya29\.[A-Za-z0-9_-]{20,}|shp(?:at|ss|ca|pa)_[a-fA-F0-9]{32}",
        r"|AGE-SECRET-KEY-1[0-9A-Z]{58}|SK[0-9a-f]{32}|key-[0-9a-f]{32}|gsk_[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37})"
    );
    finder(pattern, 0, |_, captures| looks_random(group(captures, 0)))
});
static ASSIGNED: LazyLock<Finder> = LazyLock::new(|| {
    let pattern = concat!(
        r#"(?i)(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|secret[_-]?key"#,
        r#"|private[_-]?key|encryption[_-]?key|signature|authorization|credential)s?["']?\s*(?::=|=>|[:=])\s*"#,
        r#"(?:(?:bearer|basic|token)\s+)?["'`]?([^\s"'`,;<>(){}\[\]]{8,})"#
    );
    finder(pattern, 1, |_, captures| {
        let value = group(captures, 1);
        !is_placeholder(value) && looks_random(value)
    })
});
static EMAIL: LazyLock<Finder> = LazyLock::new(|| {
    let pattern = r"\b[\p{L}0-9._%+-]{1,64}@(?:[\p{L}0-9-]{1,63}\.)+\p{L}{2,24}\b";
    finder(pattern, 0, is_personal)
});
static CARD: LazyLock<Finder> = LazyLock::new(|| {
    finder(r"\b[0-9](?:[ -]?[0-9]){12,18}\b", 0, |text, captures| {
        !is_within_number(text, captures) && is_card(group(captures, 0))
    })
});
static ADDRESS: LazyLock<Finder> = LazyLock::new(|| {
    let octet = r"\.[0-9]{1,3}";
    let pattern =
        format!(r"\b(?:10{octet}{octet}{octet}|192\.168{octet}{octet}|172\.(?:1[6-9]|2[0-9]|3[01]){octet}{octet})\b");
    finder(&pattern, 0, |text, captures| {
        !is_within_number(text, captures) && group(captures, 0).parse::<Ipv4Addr>().is_ok()
    })
});
static HOST: LazyLock<Finder> = LazyLock::new(|| {
    let label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
    let pattern =
        format!(r"(?i)\b(?:(?:{label}\.)+(?:corp|intranet)|(?:{label}\.){{2,}}(?:internal|local|lan|localdomain))\b");
    finder(&pattern, 0, |text, captures| {
        let rest = captures.get(0).map_or("", |found| &text[found.end()..]);
        // A part of a longer name, or a function of a program.
        !rest.starts_with('(') && !rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(char::is_alphanumeric))
    })
});

/// Everything of a class in a text, in order.
pub(super) fn all(class: Class, text: &str) -> Vec<Found> {
    let finder: &Finder = match class {
        Class::PrivateKey => &PRIVATE_KEY,
        Class::ConnectionString => &CONNECTION,
        Class::Jwt => &JWT,
        Class::AwsKey => &AWS,
        Class::GithubToken => &GITHUB,
        Class::SlackToken => &SLACK,
        Class::ServiceKey => &SERVICE,
        Class::AssignedSecret => &ASSIGNED,
        Class::Email => &EMAIL,
        Class::CardNumber => &CARD,
        Class::PrivateAddress => &ADDRESS,
        Class::InternalHost => &HOST,
    };
    if finder.group == 0 && !finder.pattern.is_match(text) {
        return Vec::new();
    }
    let fitting = finder.pattern.captures_iter(text).filter(|captures| (finder.check)(text, captures));
    let found = fitting.filter_map(|captures| captures.get(finder.group));
    found.map(|found| Found { class, start: found.start(), end: found.end() }).collect()
}

fn group<'t>(captures: &Captures<'t>, group: usize) -> &'t str {
    captures.get(group).map_or("", |found| found.as_str())
}

/// A text that stands for a secret and is none, our own stand-ins among them.
fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "example",
        "changeme",
        "change-me",
        "placeholder",
        "redacted",
        "masked-",
        "your",
        "xxxx",
        "****",
        "....",
        "dummy",
        "insert",
    ];
    let lower = text.to_ascii_lowercase();
    text.starts_with(['$', '%', '<', '{', '['])
        || text.contains("${")
        || text.contains("{{")
        || matches!(lower.as_str(), "password" | "pass" | "passwd" | "pwd" | "secret" | "token" | "pw" | "key")
        || WORDS.iter().any(|word| lower.contains(word))
}

/// Whether a text mixes kinds of characters as words do not.
fn looks_random(text: &str) -> bool {
    let letters = text.chars().any(|c| c.is_ascii_alphabetic());
    let digits = text.chars().any(|c| c.is_ascii_digit());
    let upper = text.chars().any(|c| c.is_ascii_uppercase());
    let lower = text.chars().any(|c| c.is_ascii_lowercase());
    let marks = text.chars().filter(|c| "!@#$%^&*+/=".contains(*c)).count();
    let is_mixed = letters && digits || upper && lower && (marks > 0 || text.len() >= 20) || lower && marks > 1;
    text.chars().count() >= SECRET_CHARS_MIN && is_mixed && entropy(text) >= ENTROPY_MIN
}

/// Bits per character, by how often each occurs.
fn entropy(text: &str) -> f64 {
    let mut counts = std::collections::BTreeMap::new();
    for c in text.chars() {
        *counts.entry(c).or_insert(0_u32) += 1;
    }
    let all = f64::from(counts.values().sum::<u32>().max(1));
    counts.values().map(|count| f64::from(*count) / all).map(|share| -share * share.log2()).sum()
}

/// Whether an address may be that of a person: not one from documentation, nor a user of a program.
fn is_personal(text: &str, captures: &Captures<'_>) -> bool {
    let address = group(captures, 0).to_ascii_lowercase();
    let Some((name, domain)) = address.rsplit_once('@') else { return false };
    let reserved = ["example.com", "example.org", "example.net"];
    let is_reserved = reserved.iter().any(|known| domain == *known || domain.ends_with(&format!(".{known}")))
        || [".example", ".test", ".invalid", ".localhost"].iter().any(|end| domain.ends_with(end));
    let rest = captures.get(0).map_or("", |found| &text[found.end()..]);
    let is_remote = name == "git" && rest.starts_with([':', '/']);
    !is_reserved && !is_remote
}

/// Whether the match is a part of a longer number, such as a version or an amount.
fn is_within_number(text: &str, captures: &Captures<'_>) -> bool {
    let Some(found) = captures.get(0) else { return true };
    let before = text[..found.start()].chars().next_back();
    let mut after = text[found.end()..].chars();
    let next = (after.next(), after.next());
    matches!(before, Some('.' | '_')) || matches!(next, (Some('.'), Some(c)) if c.is_ascii_digit())
}

/// Whether digits are the number of a payment card: an issuer's prefix and length, and the check digit of ISO 7812.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let first = |n: usize| digits.iter().take(n).fold(0, |sum, digit| sum * 10 + digit);
    let is_issued = match digits.len() {
        13 | 19 => first(1) == 4,
        14 => matches!(first(2), 36 | 38) || matches!(first(3), 300..=305),
        15 => matches!(first(2), 34 | 37),
        16 => {
            first(1) == 4
                || matches!(first(2), 51..=55 | 65 | 35)
                || matches!(first(4), 2221..=2720 | 6011)
                || matches!(first(3), 644..=649)
        }
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 0 { *digit } else { digit * 2 / 10 + digit * 2 % 10 })
        .sum();
    is_issued && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_told_from_other_numbers() {
        assert!(is_card("4242 4242 4242 4242") && is_card("378282246310005") && is_card("5555-5555-5555-4444"));
        assert!(!is_card("4242 4242 4242 4241") && !is_card("1732190000000") && !is_card("0000000000000000"));
    }

    #[test]
    fn words_do_not_look_random() {
        for word in ["development", "max_tokens", "undefined", "aaaaaaaa1", "os.environ"] {
            assert!(!looks_random(word), "{word}");
        }
        for secret in ["hunter2hunter2", "Tr0ub4dor&3", "9f86d081884c7d65", "correct-Horse7battery"] {
            assert!(looks_random(secret), "{secret}");
        }
    }
}
