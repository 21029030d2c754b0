//! What a server was told in confidence: keys, variables and the tokens that it gave us. Cut out of everything that it says
//! back, before that is compared, stored or shown: a definition, a result, an error.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use windlass_core::redact::{forms, without};

use crate::mcp::exchange::{Answered, Trouble};

/// Secrets shorter than this are not looked for: they would match by accident.
const SECRET_BYTES_MIN: usize = 8;
/// Tokens that are remembered: one that was replaced may still come back.
const TOKENS_MAX: usize = 8;

/// Secrets in every form in which they may come back.
#[derive(Default)]
pub(crate) struct Told {
    configured: Vec<String>,
    tokens: RwLock<VecDeque<Vec<String>>>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Told {
    /// Secrets of the configuration.
    pub(crate) fn new(secrets: &[SecretString]) -> Self {
        let mut configured: Vec<String> = secrets.iter().flat_map(|secret| needles(secret.expose_secret())).collect();
        // One that contains another goes first.
        configured.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self { configured, tokens: RwLock::default() }
    }

    /// A token that is sent from now on.
    pub(crate) fn token(&self, token: &str) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.push_front(needles(token));
        tokens.truncate(TOKENS_MAX);
    }

    /// The text without any of it; none where it has none of it.
    fn text(&self, text: &str) -> Option<String> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        without(text, self.configured.iter().chain(tokens.iter().flatten()).map(String::as_str))
    }

    /// An answer without any of it.
    pub(crate) fn answered(&self, answered: Answered) -> Answered {
        match answered {
            // It can only stand within texts, and what stands for it needs no escapes.
            Ok(raw) => match self.text(raw.get()) {
                None => Ok(raw),
                Some(text) => RawValue::from_string(text).map_err(|error| Trouble::Malformed(error.to_string())),
            },
            Err(Trouble::Status(mut answer)) => {
                if let Some(body) = self.text(&String::from_utf8_lossy(&answer.body)) {
                    answer.body = body.into_bytes();
                }
                Err(Trouble::Status(answer))
            }
            Err(Trouble::Rpc(mut error, status)) => {
                error.message = self.text(&error.message).unwrap_or(error.message);
                Err(Trouble::Rpc(error, status))
            }
            Err(other) => Err(other),
        }
    }
}

fn needles(secret: &str) -> Vec<String> {
    let secret = secret.trim();
    if secret.len() < SECRET_BYTES_MIN { Vec::new() } else { forms(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_was_told_does_not_come_back() {
        let told = Told::new(&["s3cret/\"key".into(), "short".into()]);
        told.token("token-12345");
        let raw = r#"{"a":"Bearer token-12345","b":["s3cret/\"key","s3cret%2F%22key"],"c":"short"}"#;
        let answered = told.answered(Ok(RawValue::from_string(raw.into()).unwrap())).unwrap();
        assert_eq!(answered.get(), r#"{"a":"Bearer [redacted]","b":["[redacted]","[redacted]"],"c":"short"}"#);
        for number in 0..=TOKENS_MAX {
            told.token(&format!("another-token-{number}"));
        }
        assert_eq!(told.text("token-12345"), None, "old ones are forgotten");
        assert!(told.text("another-token-1").is_some());
    }
}
