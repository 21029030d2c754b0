//! Looks for what should not leave in prompts and tool arguments, and masks it or stops the call.
//!
//! Looking is pure: the same text under the same settings gives the same bytes, so what is sent again is what was sent.

mod find;
mod send;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::value::{Map, Value};

pub use send::{scanned_catalog, scanned_model};

/// What a text may hold that should not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A private key in PEM or PGP armour.
    PrivateKey,
    /// An address with a password, such as that of a database.
    ConnectionString,
    /// A JSON Web Token.
    Jwt,
    /// An access key id of AWS.
    AwsKey,
    /// A token of GitHub.
    GithubToken,
    /// A token or webhook of Slack.
    SlackToken,
    /// A key of another service, known by its form.
    ServiceKey,
    /// A text that looks random, after a name such as `password` or `api_key`.
    AssignedSecret,
    /// An address of a person.
    Email,
    /// The number of a payment card.
    CardNumber,
    /// An IPv4 address of a private network.
    PrivateAddress,
    /// The name of a host within an organisation.
    InternalHost,
}

impl Class {
    /// All of them, in the order in which a text is looked through: what may contain others goes first.
    pub const ALL: [Self; 12] = [
        Self::PrivateKey,
        Self::ConnectionString,
        Self::Jwt,
        Self::AwsKey,
        Self::GithubToken,
        Self::SlackToken,
        Self::ServiceKey,
        Self::AssignedSecret,
        Self::Email,
        Self::CardNumber,
        Self::PrivateAddress,
        Self::InternalHost,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrivateKey => "private_key",
            Self::ConnectionString => "connection_string",
            Self::Jwt => "jwt",
            Self::AwsKey => "aws_key",
            Self::GithubToken => "github_token",
            Self::SlackToken => "slack_token",
            Self::ServiceKey => "service_key",
            Self::AssignedSecret => "assigned_secret",
            Self::Email => "email",
            Self::CardNumber => "card_number",
            Self::PrivateAddress => "private_address",
            Self::InternalHost => "internal_host",
        }
    }
}

/// What is done about a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing: it is not looked for.
    #[default]
    Off,
    /// It is replaced before the call leaves.
    Mask,
    /// The call does not leave; it fails with `policy.denied`.
    Block,
}

/// What is done about each class. One that is not named is not looked for.
pub type ScanConfig = BTreeMap<Class, Mode>;

/// Something that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub class: Class,
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

/// Everything of every class that a text holds, by class and place.
#[must_use]
pub fn find(text: &str) -> Vec<Found> {
    Class::ALL.into_iter().flat_map(|class| find::all(class, text)).collect()
}

/// Looks through texts as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanner {
    masked: Vec<Class>,
    blocked: Vec<Class>,
}

impl Scanner {
    /// A scanner with these settings.
    #[must_use]
    pub fn new(config: &ScanConfig) -> Self {
        let of = |mode: Mode| -> Vec<Class> {
            Class::ALL.into_iter().filter(|class| config.get(class) == Some(&mode)).collect()
        };
        Self { masked: of(Mode::Mask), blocked: of(Mode::Block) }
    }

    /// Whether it does anything.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.masked.is_empty() && self.blocked.is_empty()
    }

    /// A text as it may leave.
    ///
    /// # Errors
    /// The class that keeps it here.
    pub fn text<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Class> {
        if let Some(class) = self.blocked.iter().find(|class| !find::all(**class, text).is_empty()) {
            return Err(*class);
        }
        let mut out = Cow::Borrowed(text);
        for class in &self.masked {
            let found = find::all(*class, &out);
            if !found.is_empty() {
                out = Cow::Owned(masked(&out, &found));
            }
        }
        Ok(out)
    }

    fn name(&self, text: &Name) -> Result<Name, Class> {
        Ok(match self.text(text)? {
            Cow::Borrowed(_) => text.clone(),
            Cow::Owned(masked) => masked.into(),
        })
    }

    /// A value as it may leave: every text in it, keys included.
    ///
    /// # Errors
    /// The class that keeps it here.
    pub fn value(&self, value: &Value) -> Result<Value, Class> {
        Ok(match value {
            Value::Str(text) => Value::Str(self.name(text)?),
            Value::List(items) => {
                Value::list(items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, Class>>()?)
            }
            Value::Map(map) => {
                let pairs = map.iter().map(|(key, value)| Ok((self.name(key)?, self.value(value)?)));
                Value::map(pairs.collect::<Result<Map, Class>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
        })
    }
}

/// The failure of a call that does not leave.
pub(crate) fn blocked(class: Class, what: &str) -> Failure {
    let rule = format!("scan.{}", class.as_str());
    let message = format!("rule `{rule}`: {what} holds what must not leave");
    Failure::new(Code::PolicyDenied, message).detail(Value::object([("rule", Value::str(rule))]))
}

fn masked(text: &str, found: &[Found]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for found in found {
        out.push_str(&text[from..found.start]);
        out.push_str(&stand_in(found.class, &text[found.start..found.end]));
        from = found.end;
    }
    out.push_str(&text[from..]);
    out
}

/// What stands for something that was found. Addresses keep their last number within a range that is reserved for
/// documentation, so that several can still be told apart.
fn stand_in(class: Class, text: &str) -> String {
    match class {
        Class::PrivateAddress => {
            let last = text.rsplit('.').next().unwrap_or("1");
            let range = match text.split('.').next() {
                Some("10") => "192.0.2",
                Some("172") => "198.51.100",
                _ => "203.0.113",
            };
            format!("{range}.{last}")
        }
        Class::InternalHost => "host.example".to_owned(),
        _ => format!("[masked-{}]", class.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(modes: &[(Class, Mode)]) -> Scanner {
        Scanner::new(&modes.iter().copied().collect())
    }

    #[test]
    fn what_is_masked_keeps_the_rest() {
        let scanner = scanner(&[(Class::Email, Mode::Mask), (Class::PrivateAddress, Mode::Mask)]);
        let text = "mail ada@acme.io about 10.1.2.3, 172.16.9.9 and 192.168.0.7";
        assert_eq!(
            scanner.text(text).expect("may leave"),
            "mail [masked-email] about 192.0.2.3, 198.51.100.9 and 203.0.113.7"
        );
        assert!(matches!(scanner.text("nothing here"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn what_is_masked_is_masked_once() {
        let all: ScanConfig = Class::ALL.into_iter().map(|class| (class, Mode::Mask)).collect();
        let scanner = Scanner::new(&all);
        let text = "postgres://app:hunter2hunter2@db.prod.internal/x password=Zx9-kk2-Qq1p ada@acme.io";
        let once = scanner.text(text).expect("may leave").into_owned();
        assert_eq!(scanner.text(&once).expect("may leave"), once);
        assert!(!once.contains("hunter2") && !once.contains("Zx9") && !once.contains("acme"), "{once}");
    }

    #[test]
    fn what_is_blocked_stays() {
        let scanner = scanner(&[(Class::AwsKey, Mode::Block), (Class::Email, Mode::Mask)]);
        let value = Value::object([("to", Value::from("ada@acme.io")), ("key", Value::from("AKIAQ3EGRZ7LM2XTPV5K"))]);
        assert_eq!(scanner.value(&value), Err(Class::AwsKey));
        let failure = blocked(Class::AwsKey, "the prompt");
        assert_eq!(failure.code, Code::PolicyDenied);
        assert!(failure.message.contains("scan.aws_key"), "{failure}");
    }

    #[test]
    fn keys_of_mappings_are_looked_at_too() {
        let scanner = scanner(&[(Class::Email, Mode::Mask)]);
        let value = Value::object([("ada@acme.io", Value::list(vec![Value::from("bob@acme.io")]))]);
        assert_eq!(scanner.value(&value).expect("may leave").to_json(), r#"{"[masked-email]":["[masked-email]"]}"#);
    }
}
