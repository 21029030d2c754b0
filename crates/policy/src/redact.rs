//! Keeps known secrets out of what tools and hooks give back: their answers and failures are stored, logged and shown to
//! models, and some services repeat a key that they were sent.

use std::fmt::Write as _;
use std::sync::Arc;

use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::machine::HookKind;
use windlass_core::value::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_ports::tool::{Catalog, Hook, HookEvent, Invocation, Tool};

/// Secrets shorter than this are not looked for: they would match by accident.
const SECRET_BYTES_MIN: usize = 8;
/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// Finds secrets by their value, plain and in the encodings in which services repeat them: percent, hexadecimal, and
/// base64 of the secret alone. `Debug` shows none.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    /// Longest first, so that one that contains another goes first.
    needles: Arc<Vec<SecretString>>,
}

impl Redactor {
    /// Looks for these secrets.
    #[must_use]
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s SecretString>) -> Self {
        let mut needles: Vec<String> = Vec::new();
        for secret in secrets {
            let secret = secret.expose_secret().trim();
            if secret.len() >= SECRET_BYTES_MIN {
                needles.extend([secret.to_owned(), percent(secret), hexadecimal(secret), base64(secret)]);
            }
        }
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        needles.dedup();
        Self { needles: Arc::new(needles.into_iter().map(SecretString::from).collect()) }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// The text without secrets; none when it has none.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<String> {
        let mut out: Option<String> = None;
        for needle in self.needles.iter().map(|needle| needle.expose_secret()) {
            let current = out.as_deref().unwrap_or(text);
            if current.contains(needle) {
                out = Some(current.replace(needle, REDACTED));
            }
        }
        out
    }

    /// The value without secrets in its texts and keys.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::Str(text) => self.text(text).map_or_else(|| value.clone(), Value::str),
            Value::List(items) => Value::list(items.iter().map(|item| self.value(item)).collect()),
            Value::Map(map) => {
                let key = |key: &windlass_core::ids::Name| self.text(key).map_or_else(|| key.clone(), Into::into);
                Value::map(map.iter().map(|(name, value)| (key(name), self.value(value))).collect::<Map>())
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
        }
    }

    /// The failure without secrets in its message, type and detail.
    #[must_use]
    pub fn failure(&self, mut failure: Failure) -> Failure {
        if let Some(message) = self.text(&failure.message) {
            failure.message = message.into();
        }
        failure.error_type = failure.error_type.map(|name| self.text(&name).map_or(name, Into::into));
        failure.detail = self.value(&failure.detail);
        failure
    }

    fn result(&self, result: Result<Value, Failure>) -> Result<Value, Failure> {
        result.map(|value| self.value(&value)).map_err(|failure| self.failure(failure))
    }
}

/// The catalog with everything behind a redactor; the catalog itself when there is nothing to look for.
#[must_use]
pub fn redacted_catalog(mut catalog: Catalog, redactor: &Redactor) -> Catalog {
    if !redactor.is_empty() {
        for tool in catalog.tools.values_mut() {
            *tool = Arc::new(RedactedTool { tool: Arc::clone(tool), redactor: redactor.clone() });
        }
        for hook in catalog.hooks.values_mut() {
            *hook = Arc::new(RedactedHook { hook: Arc::clone(hook), redactor: redactor.clone() });
        }
    }
    catalog
}

#[derive(Debug)]
struct RedactedTool {
    tool: Arc<dyn Tool>,
    redactor: Redactor,
}

impl Tool for RedactedTool {
    fn contract(&self) -> &Contract {
        self.tool.contract()
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move { self.redactor.result(self.tool.call(invocation).await) }.boxed()
    }
}

#[derive(Debug)]
struct RedactedHook {
    hook: Arc<dyn Hook>,
    redactor: Redactor,
}

impl Hook for RedactedHook {
    fn events(&self) -> &[HookKind] {
        self.hook.events()
    }

    fn include_machine(&self) -> bool {
        self.hook.include_machine()
    }

    fn call(&self, event: HookEvent) -> BoxFuture<'_, Result<Value, Failure>> {
        async move { self.redactor.result(self.hook.call(event).await) }.boxed()
    }
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

fn hexadecimal(secret: &str) -> String {
    secret.bytes().fold(String::new(), |mut out, byte| {
        let _written = write!(out, "{byte:02x}");
        out
    })
}

/// Base64 without what depends on the end: padding, and the last character of a group that is not full.
fn base64(secret: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = secret.as_bytes().chunks_exact(3);
    whole
        .flat_map(|group| {
            let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
            [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift) & 63]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use windlass_core::failure::Code;

    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = SecretString::from("s3cret/key+value");
        let redactor = Redactor::new([&secret]);
        for text in [
            "bad key s3cret/key+value!",
            "GET /?k=s3cret%2Fkey%2Bvalue",
            "7333637265742f6b65792b76616c7565",
            "czNjcmV0L2tleSt2YWx1ZQ==",
        ] {
            let shown = redactor.text(text).expect(text);
            assert!(shown.contains(REDACTED) && !shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
        }
        assert_eq!(redactor.text("nothing"), None);
        assert!(!format!("{redactor:?}").contains("s3cret"));
        assert!(Redactor::new([&SecretString::from("short")]).is_empty());
    }

    #[test]
    fn failures_and_values_are_redacted_throughout() {
        let redactor = Redactor::new([&SecretString::from("s3cret-key")]);
        let detail = Value::object([("s3cret-key", Value::list(vec![Value::from("a s3cret-key b"), Value::Int(1)]))]);
        let failure = Failure::new(Code::ToolFailed, "no: s3cret-key").error_type("E s3cret-key").detail(detail);
        assert!(!format!("{:?}", redactor.failure(failure)).contains("s3cret"));
    }
}
