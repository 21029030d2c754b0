//! Addresses: those of the configuration, and templates that a call's arguments fill in.

use std::collections::BTreeSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use windlass_core::failure::{Code, Failure};
use windlass_core::value::{Map, Value};

use crate::answer;
use crate::build::Site;

/// Bytes of an address: the HTTP library takes no longer one.
const ADDRESS_BYTES_MAX: usize = 65_534;

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An absolute HTTP address without credentials.
pub(crate) fn address(site: &mut Site<'_>, text: &str) -> Option<Url> {
    checked(text).map_err(|(why, hint)| site.wrong("url", why, hint)).ok()
}

/// An absolute HTTP address without credentials.
///
/// # Errors
/// Why it is none, and the way out where there is one.
pub(crate) fn checked(text: &str) -> Result<Url, (String, Option<&'static str>)> {
    let url =
        Url::parse(text).map_err(|error| (format!("`{}` is no address: {error}", answer::printable(text)), None))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err((format!("the scheme is `{}`, not `http` or `https`", url.scheme()), None));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let hint = "use `api_key` or `secret_headers`";
        return Err(("an address must not hold credentials".to_owned(), Some(hint)));
    }
    Ok(url)
}

/// An address with `{name}` in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressTemplate {
    /// Scheme and host: never filled in.
    base: String,
    /// Parts of the path between slashes.
    path: Vec<Vec<Piece>>,
    /// Pairs of the query.
    query: Vec<Vec<Piece>>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Taken as it is.
    Text(String),
    /// An argument.
    Argument(String),
}

impl AddressTemplate {
    /// Reads a template whose [`address`] has been checked with the placeholders in it.
    ///
    /// # Errors
    /// Why it is none: a brace without its partner, a placeholder in scheme or host, a fragment.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.find("://").ok_or("it has no scheme")? + 3;
        let rest = &text[scheme..];
        let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (base, rest) = (&text[..scheme + host], &rest[host..]);
        if base.contains(['{', '}']) {
            return Err("only its path and its query may have placeholders".into());
        }
        if rest.contains('#') {
            return Err("a fragment is never sent".into());
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts = |text: &str, mark: char| text.split(mark).map(pieces).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            base: base.to_owned(),
            path: parts(path.strip_prefix('/').unwrap_or(path), '/')?,
            query: if query.is_empty() { Vec::new() } else { parts(query, '&')? },
        })
    }

    /// The names of the arguments it uses.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let pieces = self.path.iter().chain(&self.query).flatten();
        pieces.filter_map(|piece| if let Piece::Argument(name) = piece { Some(name.as_str()) } else { None }).collect()
    }

    /// The address for these arguments. An argument stays within its part of the path or its pair of the query, whatever
    /// it holds; a pair whose argument is missing is left out.
    ///
    /// # Errors
    /// `tool.bad_arguments`: an argument of the path that is missing, empty, a list or a mapping, or `.` or `..`.
    pub(crate) fn fill(&self, arguments: &Map) -> Result<Url, Failure> {
        let mut text = self.base.clone();
        for part in &self.path {
            text.push('/');
            text.push_str(&fill_part(part, arguments)?);
        }
        let mut mark = '?';
        for pair in &self.query {
            if let Some(pair) = fill_pair(pair, arguments)? {
                text.push(mark);
                text.push_str(&pair);
                mark = '&';
            }
        }
        Url::parse(&text).map_err(|error| bad(format!("the arguments make no address: {error}")))
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let close = rest[open..].find('}').filter(|_| rest[open..].starts_with('{'));
        let close = close.ok_or("a brace has no partner")? + open;
        let name = &rest[open + 1..close];
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(format!("`{{{}}}` names no argument", answer::printable(name)));
        }
        if open > 0 {
            pieces.push(Piece::Text(rest[..open].to_owned()));
        }
        pieces.push(Piece::Argument(name.to_owned()));
        rest = &rest[close + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn fill_part(part: &[Piece], arguments: &Map) -> Result<String, Failure> {
    let mut text = String::new();
    let mut has_argument = false;
    for piece in part {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Argument(name) => {
                has_argument = true;
                let value = arguments.get(name.as_str()).filter(|value| !value.is_null());
                let value = value.ok_or_else(|| bad(format!("the argument `{name}` is missing")))?;
                text.push_str(&encode(&scalar(name, value)?));
            }
        }
    }
    // Such a part would be taken for a step within the path.
    if has_argument && matches!(text.as_str(), "" | "." | "..") {
        return Err(bad(format!("an argument gives `{text}` as a part of the path")));
    }
    Ok(text)
}

fn fill_pair(pair: &[Piece], arguments: &Map) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    for piece in pair {
        match piece {
            Piece::Text(plain) => text.push_str(plain),
            Piece::Argument(name) => match arguments.get(name.as_str()) {
                None | Some(Value::Null) => return Ok(None),
                Some(value) => text.push_str(&encode(&scalar(name, value)?)),
            },
        }
    }
    Ok(Some(text))
}

/// Appends arguments as query parameters: null is left out, a list gives one parameter for each item.
///
/// # Errors
/// `tool.bad_arguments` for a mapping, and for a list within a list.
pub(crate) fn append_query<'a>(
    url: &mut Url,
    arguments: impl Iterator<Item = (&'a str, &'a Value)>,
) -> Result<(), Failure> {
    let mut pairs = Vec::new();
    for (name, value) in arguments {
        match value {
            Value::Null => {}
            Value::List(items) => {
                for item in items.iter() {
                    pairs.push((name, scalar(name, item)?));
                }
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) | Value::Map(_) => {
                pairs.push((name, scalar(name, value)?));
            }
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(())
}

/// Whether an address can be sent: servers take less still, and say so themselves.
///
/// # Errors
/// `tool.bad_arguments` for one of more bytes than any request has.
pub(crate) fn fits(url: &Url) -> Result<(), Failure> {
    let bytes = url.as_str().len();
    if bytes > ADDRESS_BYTES_MAX {
        return Err(bad(format!("the arguments make an address of {bytes} bytes; {ADDRESS_BYTES_MAX} are the most")));
    }
    Ok(())
}

fn scalar(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::Str(text) => Ok(text.to_string()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(value.to_json()),
        Value::Null | Value::List(_) | Value::Map(_) => {
            Err(bad(format!("the argument `{name}` is a {}, which has no place in an address", value.type_name())))
        }
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

fn bad(message: String) -> Failure {
    Failure::new(Code::ToolBadArguments, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, arguments: &str) -> Result<String, String> {
        let template = AddressTemplate::parse(template)?;
        let arguments = Value::from_json(arguments).unwrap();
        template.fill(arguments.as_map().unwrap()).map(String::from).map_err(|failure| failure.message.to_string())
    }

    #[test]
    fn arguments_stay_in_their_place() {
        let url = "http://h:1/orders/{id}/items/x-{n}.json?q={q}&fixed=1";
        assert_eq!(
            fill(url, r#"{"id":"a/b?c#d","n":7,"q":"x&y=z ü"}"#).as_deref(),
            Ok("http://h:1/orders/a%2Fb%3Fc%23d/items/x-7.json?q=x%26y%3Dz%20%C3%BC&fixed=1")
        );
        assert_eq!(
            fill(url, r#"{"id":true,"n":1.5}"#).as_deref(),
            Ok("http://h:1/orders/true/items/x-1.5.json?fixed=1")
        );
        assert_eq!(fill("http://h/a/{id}", r#"{"id":"%2e%2e"}"#).as_deref(), Ok("http://h/a/%252e%252e"));
        assert_eq!(fill("http://h", "{}").as_deref(), Ok("http://h/"));
    }

    #[test]
    fn arguments_that_would_change_the_path_are_refused() {
        for arguments in [r#"{"id":".."}"#, r#"{"id":"."}"#, r#"{"id":""}"#, r#"{"id":null}"#, r#"{"id":[1]}"#, "{}"] {
            assert!(fill("http://h/a/{id}/b", arguments).is_err(), "{arguments}");
        }
        assert!(fill("http://h/a/{x}{y}", r#"{"x":".","y":"."}"#).is_err());
    }

    #[test]
    fn broken_templates_are_refused() {
        for template in
            ["http://{host}/a", "http://h/{a", "http://h/a}", "http://h/{}", "http://h/{a b}", "h/a", "http://h/a#b"]
        {
            assert!(AddressTemplate::parse(template).is_err(), "{template}");
        }
        let template = AddressTemplate::parse("http://h/{a}/{b}?c={c}&a={a}").unwrap();
        assert_eq!(template.names().into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn lists_become_repeated_parameters() {
        let mut url = Url::parse("http://h/a?x=1").unwrap();
        let arguments = Value::from_json(r#"{"tag":["a","b&c"],"none":null,"n":2}"#).unwrap();
        let map = arguments.as_map().unwrap();
        append_query(&mut url, map.iter().map(|(k, v)| (&**k, v))).unwrap();
        assert_eq!(url.as_str(), "http://h/a?x=1&tag=a&tag=b%26c&n=2");
        let nested = Value::from_json(r#"{"m":{"a":1}}"#).unwrap();
        assert!(append_query(&mut url, nested.as_map().unwrap().iter().map(|(k, v)| (&**k, v))).is_err());
    }
}
