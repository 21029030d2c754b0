//! What may be shown of texts that hold credentials: addresses, connection strings, lines of documents.
//!
//! When it is not clear where a credential ends, more is hidden than must be. Owns how a text is found that must not be
//! shown; what such texts are is known to others.

use std::fmt::Write as _;

use crate::value::Value;

/// Endings of names, lower case and with `_` between words, whose values are credentials.
const SECRET_ENDINGS: [&str; 10] =
    ["api_key", "apikey", "token", "secret", "password", "passwd", "authorization", "access_key", "private_key", "pwd"];
/// Names of parameters of addresses that hold credentials although they say little elsewhere.
const SECRET_PARAMETERS: [&str; 6] = ["key", "auth", "sig", "signature", "pass", "sslpassword"];
/// Beginnings of keys that well-known services give out.
const KEY_BEGINNINGS: [&str; 7] = ["sk-", "ghp_", "github_pat_", "xoxb-", "xoxp-", "AKIA", "AIza"];
/// Bytes from which a word with such a beginning is a key.
const KEY_BYTES_MIN: usize = 8;
/// Beginnings of what stands for a key in a document.
const REFERENCES: [&str; 5] = ["env:", "${", "inline:", "file:", "secret:"];
/// What stands for something hidden.
const HIDDEN: &str = "***";
/// What stands for a value that is not shown: a secret that a service repeated, or what the contract of a tool hides.
pub const REDACTED: &str = "[redacted]";

/// The forms in which services repeat a text: as it is, escaped as in JSON or HTML, percent-encoded where it has to be or
/// everywhere, in hexadecimal, and in base64, also of a longer text around it.
#[must_use]
pub fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let mut escaped = secret.to_owned();
    // A text within JSON may be JSON itself.
    for _ in 0..2 {
        escaped = Value::from(escaped.as_str()).to_json();
        escaped = escaped[1..escaped.len() - 1].to_owned();
        forms.extend([escaped.clone(), escaped.replace('/', "\\/")]);
    }
    let upper = percent(secret);
    let form = upper.replace("%20", "+");
    forms.extend([lower_escapes(&upper), lower_escapes(&form), upper, form]);
    let digits = hexadecimal(secret);
    forms.extend([every_byte(&digits), every_byte(&digits.to_uppercase()), digits.to_uppercase(), digits]);
    let entities = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    forms.extend([entities.replace('\'', "&#39;"), entities.replace('\'', "&#x27;"), entities]);
    for offset in 0..3 {
        let standard = base64_at(secret, offset);
        forms.extend([standard.replace('+', "-").replace('/', "_"), standard]);
    }
    forms
}

/// The text with [`REDACTED`] in place of each of these, which are tried in order; none when it has none of them.
#[must_use]
pub fn without<'n>(text: &str, needles: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let mut out: Option<String> = None;
    for needle in needles {
        let current = out.as_deref().unwrap_or(text);
        if current.contains(needle) {
            out = Some(current.replace(needle, REDACTED));
        }
    }
    out
}

fn percent(secret: &str) -> String {
    let mut out = String::new();
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            // Writing to a text cannot fail.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Percent-encoded text with small digits.
fn lower_escapes(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        out.push('%');
        out.push_str(&digits.to_lowercase());
        out.push_str(rest);
    }
    out
}

fn hexadecimal(secret: &str) -> String {
    secret.bytes().fold(String::new(), |mut out, byte| {
        let _written = write!(out, "{byte:02x}");
        out
    })
}

/// Hexadecimal as percent-encoding of every byte.
fn every_byte(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() * 3 / 2);
    for (place, digit) in digits.chars().enumerate() {
        if place % 2 == 0 {
            out.push('%');
        }
        out.push(digit);
    }
    out
}

/// The digits of base64 that a secret alone makes, wherever it stands in a text: after `offset` bytes of a group of three,
/// without those that it shares with what is around it.
fn base64_at(secret: &str, offset: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = std::iter::repeat_n(0, offset).chain(secret.bytes()).collect();
    let digit = |number: usize| {
        let bit = number * 6;
        let pair = u16::from(bytes[bit / 8]) << 8 | u16::from(bytes.get(bit / 8 + 1).copied().unwrap_or_default());
        char::from(DIGITS[usize::from(pair >> (10 - bit % 8)) & 63])
    };
    // The first digit that is made of its bits alone, and the one after the last.
    let (first, end) = ((offset * 8).div_ceil(6), bytes.len() * 8 / 6);
    (first..end).map(digit).collect()
}

/// Whether the value of a key of this name is a credential: `api_key`, `X-Api-Key`, `Authorization`.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether a value names where a key is instead of being one: `env:NAME`, `${NAME}`, `secret:NAME`.
#[must_use]
pub fn is_reference(value: &str) -> bool {
    REFERENCES.iter().any(|beginning| value.starts_with(beginning))
}

/// Whether an address holds a credential: a user or password, or a parameter such as `?api_key=`.
#[must_use]
pub fn has_credentials(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else { return false };
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = base.split('/').next().unwrap_or_default();
    let is_prose = rest.contains(char::is_whitespace);
    authority.contains('@') || (!is_prose && userinfo(rest).is_some()) || query.split('&').any(is_secret_parameter)
}

/// An address or connection string that may be shown. Of a database the user is kept, and parameters that are no
/// credentials; of everything else neither. Files and words that are no addresses stay as they are.
#[must_use]
pub fn address(text: &str) -> String {
    let kind = text.split_once(':').map_or("", |(kind, _)| kind);
    if matches!(kind, "sqlite" | "memory" | "file") {
        return text.to_owned();
    }
    let is_database = matches!(kind, "postgres" | "postgresql");
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None if is_database => (format!("{kind}:"), &text[kind.len() + 1..]),
        None => return without_pairs(text),
    };
    let (user, place) = match userinfo(rest) {
        Some(at) if is_database => (shown_user(&rest[..at]), &rest[at + 1..]),
        Some(at) => (String::new(), &rest[at + 1..]),
        None => (String::new(), rest),
    };
    let (base, query) = place.find(['?', '#']).map_or((place, ""), |at| place.split_at(at));
    let shown = without_pairs(&format!("{scheme}{user}{}", checked_ports(base)));
    let kept: Vec<&str> =
        query.trim_start_matches('?').split('&').filter(|pair| is_database && !pair.is_empty()).collect();
    let kept: Vec<&str> = kept.into_iter().filter(|pair| !is_secret_parameter(pair)).collect();
    let joint = if kept.is_empty() { "" } else { "?" };
    format!("{shown}{joint}{}", kept.join("&"))
}

/// Where the part of an address before the host ends: at the last `@`, for a password may hold one, and `/` and `?`.
/// None when a path or query begins before anything that looks like a user with a password.
fn userinfo(rest: &str) -> Option<usize> {
    let at = rest.rfind('@')?;
    let before = &rest[..at];
    (before.contains(':') || !before.contains(['/', '?', '#'])).then_some(at)
}

/// The user of `USER:PASSWORD`, with the `@` after it.
fn shown_user(userinfo: &str) -> String {
    match userinfo.split(':').next() {
        Some(user) if !user.contains(['/', '?', '#', '@']) => format!("{user}@"),
        _ => format!("{HIDDEN}@"),
    }
}

/// A host with its path. What stands where a port should and is none may be a password without a host after it.
fn checked_ports(base: &str) -> String {
    let authority = base.split('/').next().unwrap_or_default();
    let is_port = |host: &str| {
        let host = host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(host, |(_, port)| port);
        host.split_once(':').is_none_or(|(_, port)| port.chars().all(|c| c.is_ascii_digit()))
    };
    if authority.split(',').all(is_port) {
        return base.to_owned();
    }
    format!("{}:{HIDDEN}", base.split(':').next().unwrap_or_default())
}

/// A connection string such as `host=h password=p` up to its password.
fn without_pairs(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let found = ["pass", "pwd"].iter().filter_map(|word| {
        let at = lower.find(word)?;
        Some(at + lower[at..].find('=')? + 1)
    });
    found.min().map_or_else(|| text.to_owned(), |end| format!("{}{HIDDEN}", &text[..end]))
}

fn is_secret_parameter(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
    is_secret_name(&name) || SECRET_PARAMETERS.contains(&&*name) || name.starts_with("pass")
}

/// A line of a document with `*` in place of every character of a credential, so that columns stay the same: values
/// of keys with such names, users and passwords in addresses, and words that look like keys.
#[must_use]
pub fn line(text: &str) -> String {
    let mut hidden = vec![false; text.len()];
    let mut hide = |from: usize, to: usize| hidden[from..to].fill(true);
    for (at, c) in text.char_indices().filter(|(_, c)| matches!(c, ':' | '=')) {
        let name = text[..at].trim_end().trim_end_matches(['"', '\'']);
        let start = name
            .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
            .map_or(0, |last| last + name[last..].chars().next().map_or(1, char::len_utf8));
        let is_parameter = c == '=' && name[..start].ends_with(['?', '&']) && is_secret_parameter(&name[start..]);
        if is_secret_name(&name[start..]) || is_parameter {
            let (from, to) = value(text, at + 1, is_parameter);
            hide(from, to);
        }
    }
    for (at, _) in text.match_indices("://") {
        let from = at + 3;
        let word = text[from..].split([' ', '\t', '"', '\'', '`']).next().unwrap_or_default();
        if let Some(length) = userinfo(word) {
            hide(from, from + length);
        }
    }
    let mut from = 0;
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.')) {
        if word.len() >= KEY_BYTES_MIN && KEY_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) {
            hide(from, from + word.len());
        }
        from += word.len();
        from += text[from..].chars().next().map_or(0, char::len_utf8);
    }
    text.char_indices().map(|(at, c)| if hidden[at] { '*' } else { c }).collect()
}

/// Where the value after the `:` or `=` before `from` begins and ends; empty for a reference and where there is none.
fn value(text: &str, from: usize, is_parameter: bool) -> (usize, usize) {
    let rest = text[from..].trim_start();
    let start = text.len() - rest.len();
    let (start, length) = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            // The last quotation mark before something else begins: one may stand within the value.
            let inner = &rest[1..];
            let ends = inner.match_indices(quote).map(|(at, _)| at);
            let end = ends.into_iter().find(|at| {
                let after = inner[at + 1..].trim_start();
                !inner[..*at].ends_with('\\') && (after.is_empty() || after.starts_with([',', '}', ']', '#']))
            });
            (start + 1, end.unwrap_or(inner.len()))
        }
        Some('{' | '[' | '|' | '>' | '*' | '&') if !is_parameter && rest.len() <= 2 => (start, 0),
        _ if is_parameter => (start, rest.find(['&', ' ', '"', '\'', ',', '}']).unwrap_or(rest.len())),
        _ => {
            let is_flow = text[..from].contains(['{', '[']);
            let end = if is_flow { rest.find([',', '}', ']']) } else { rest.find(" #") };
            (start, end.unwrap_or(rest.len()))
        }
    };
    let end = start + text[start..start + length].trim_end().len();
    if is_reference(&text[start..end]) { (start, start) } else { (start, end) }
}

/// A line of which everything from a column on, counted from 1, is hidden up to another one.
#[must_use]
pub fn columns(text: &str, from: u32, to: u32) -> String {
    let is_hidden = |n: usize| (from as usize..to as usize).contains(&(n + 1));
    text.chars().enumerate().map(|(n, c)| if is_hidden(n) && !c.is_whitespace() { '*' } else { c }).collect()
}

/// Whether a line ends with the name of a credential whose value is on the lines after it.
#[must_use]
pub fn opens_secret(text: &str) -> bool {
    let text = text.trim_end().trim_end_matches(['|', '>', '-', '+']).trim_end();
    let name = text.strip_suffix(':').map(|name| name.trim_end().trim_end_matches(['"', '\'']));
    name.is_some_and(is_secret_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_addresses_are_not_shown() {
        for (text, shown) in [
            ("postgres://me:pw@db:5432/w?password=x", "postgres://me@db:5432/w"),
            ("postgres://me:pw@db/w?lease_ms=9000&password=x", "postgres://me@db/w?lease_ms=9000"),
            ("postgres://db/w", "postgres://db/w"),
            ("postgres://db", "postgres://db"),
            ("postgres://a:6000,[::1]:6001/w", "postgres://a:6000,[::1]:6001/w"),
            ("postgres://postgres:p/ss@host/db", "postgres://postgres@host/db"),
            ("postgres://postgres:p@ss@host", "postgres://postgres@host"),
            ("postgres://postgres:p@s/s?x#@host:1/d", "postgres://postgres@host:1/d"),
            ("postgres:p@ss@host", "postgres:***@host"),
            ("postgres://me:secret", "postgres://me:***"),
            ("postgres://me:se/cret", "postgres://me:***"),
            ("host=h user=me password='a b' dbname=w", "host=h user=me password=***"),
            ("postgres:host=h Password = x", "postgres:host=h Password =***"),
            ("sqlite:a@b.db", "sqlite:a@b.db"),
            ("https://me:pw@host:1/v1?key=x", "https://host:1/v1"),
            ("https://token@host/v1", "https://host/v1"),
            ("https://host/v1/model@2", "https://host/v1/model@2"),
            ("windlass.db", "windlass.db"),
        ] {
            assert_eq!(address(text), shown, "{text}");
        }
    }

    #[test]
    fn credentials_of_addresses_are_found() {
        for text in
            ["https://a:b@h/v1", "https://t@h", "https://a:p/w@h", "https://h/?key=x", "https://h/v1?a=1&api_key=x"]
        {
            assert!(has_credentials(text), "{text}");
        }
        for text in ["https://h:1/v1", "https://h/m@2", "https://h/v1?version=2", "h"] {
            assert!(!has_credentials(text), "{text}");
        }
    }

    #[test]
    fn lines_keep_their_columns_without_credentials() {
        for (text, shown) in [
            ("  api_key: abc # mine", "  api_key: *** # mine"),
            ("a: {api_key: 'a,b', name: m}", "a: {api_key: '***', name: m}"),
            ("{\"api_key\": \"aé\", \"n\": 1}", "{\"api_key\": \"**\", \"n\": 1}"),
            ("Authorization: Bearer x", "Authorization: ********"),
            ("aws_secret_access_key: q", "aws_secret_access_key: *"),
            ("base_url: https://me:p/w@h/v1?key=abc", "base_url: https://******@h/v1?key=***"),
            ("max_tokens: 40", "max_tokens: 40"),
            ("api_key: env:NAME", "api_key: env:NAME"),
            ("api_key sk-0123456", "api_key **********"),
            ("api_key: |", "api_key: |"),
            ("password: {", "password: {"),
            ("é: x", "é: x"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(columns("a: bcd e", 4, 7), "a: *** e");
        assert!(opens_secret("  api_key: |-") && opens_secret("\"token\":") && !opens_secret("api_key: x"));
    }
}
