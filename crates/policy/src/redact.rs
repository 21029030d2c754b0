//! Keeps known secrets out of what models, tools and hooks give back: their answers and failures are stored, logged and shown to
//! models, and some services repeat a key that they were sent.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::{HookKind, ModelSettings};
use windlass_core::redact::{self, REDACTED};
use windlass_core::request::ModelRequest;
use windlass_core::route::Chain;
use windlass_core::transcript::Reply;
use windlass_core::value::{Map, Value};
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::tool::{Catalog, Hook, HookEvent, Invocation, Permit, Tool};

/// Secrets shorter than this are not looked for: they would match by accident.
pub const SECRET_BYTES_MIN: usize = 8;

/// What stands for the rest of a text that was cut.
const CUT: char = '…';

/// Finds secrets by their value, plain and in the encodings in which services repeat them: escaped as in JSON or HTML, percent,
/// hexadecimal, and base64, also of a text around the secret; and the beginning of one at the place where a text was cut.
/// `Debug` shows none.
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
                needles.extend(redact::forms(secret));
            }
        }
        needles.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
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
        let out = redact::without(text, self.needles.iter().map(|needle| needle.expose_secret()));
        self.cut(out.as_deref().unwrap_or(text)).or(out)
    }

    /// The text without beginnings of secrets where it was cut: at its end, and before what stands for the rest.
    fn cut(&self, text: &str) -> Option<String> {
        let mut ends: Vec<usize> = text.match_indices(CUT).map(|(at, _)| at).collect();
        ends.push(text.len());
        let mut out: Option<String> = None;
        for end in ends.into_iter().rev() {
            let before = &text[..end];
            let longest = self.needles.iter().filter_map(|needle| begun(before, needle.expose_secret())).max();
            if let Some(length) = longest {
                // What comes after the place has been rewritten already, so that earlier places stand where they did.
                out.get_or_insert_with(|| text.to_owned()).replace_range(end - length..end, REDACTED);
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
                let key = |key: &Name| self.text(key).map_or_else(|| key.clone(), Into::into);
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

    /// The answer of a model without secrets: what it said, the calls it asked for, and what its provider added.
    #[must_use]
    pub fn reply(&self, mut reply: Reply) -> Reply {
        let name = |name: &mut Name| {
            if let Some(clean) = self.text(name) {
                *name = clean.into();
            }
        };
        name(&mut reply.content);
        for call in &mut reply.tool_calls {
            name(&mut call.name);
            call.arguments = self.value(&call.arguments);
        }
        reply.attachments = self.value(&reply.attachments);
        reply.provider_data = self.value(&reply.provider_data);
        reply
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

/// What is looked for at the moment: secrets may change while a process runs.
pub type Present = dyn Fn() -> Redactor + Send + Sync;

/// The model with what it answers behind a redactor, the present one for each call.
#[must_use]
pub fn redacted_model(model: Arc<dyn Model>, redactor: Arc<Present>) -> Arc<dyn Model> {
    Arc::new(RedactedModel { model, redactor })
}

struct RedactedModel {
    model: Arc<dyn Model>,
    redactor: Arc<Present>,
}

impl fmt::Debug for RedactedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactedModel").field("model", &self.model).finish_non_exhaustive()
    }
}

impl RedactedModel {
    fn shown(&self, result: ModelResult) -> ModelResult {
        let redactor = (self.redactor)();
        if redactor.is_empty() {
            return result;
        }
        let outcome = match result.outcome {
            Ok(reply) => Ok(redactor.reply(reply)),
            Err(failure) => Err(redactor.failure(failure)),
        };
        ModelResult { outcome, ..result }
    }
}

impl Model for RedactedModel {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        async move { self.shown(self.model.call(request).await) }.boxed()
    }

    fn attempt(&self, request: ModelRequest, permit: Permit) -> BoxFuture<'_, ModelResult> {
        async move { self.shown(self.model.attempt(request, permit).await) }.boxed()
    }

    fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
        self.model.lacks(settings)
    }

    fn quote(&self, settings: &ModelSettings) -> Option<Quote> {
        self.model.quote(settings)
    }

    fn traits(&self, settings: &ModelSettings) -> Traits {
        self.model.traits(settings)
    }

    fn chain(&self, settings: &ModelSettings) -> Option<Chain> {
        self.model.chain(settings)
    }
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

    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move { self.redactor.result(self.tool.attempt(invocation).await) }.boxed()
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

/// How much of the beginning of a secret a text ends with; none when that is too little to tell.
fn begun(text: &str, needle: &str) -> Option<usize> {
    let most = text.len().min(needle.len().saturating_sub(1));
    let is_begun = |length: &usize| needle.is_char_boundary(*length) && text.ends_with(&needle[..*length]);
    (SECRET_BYTES_MIN..=most).rev().find(is_begun)
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
            "GET /?k=s3cret%2fkey%2bvalue",
            "7333637265742F6B65792B76616C7565",
            // `user:`, `id:` and `ab:` before it, as in basic authentication, and the alphabet for addresses.
            "Basic dXNlcjpzM2NyZXQva2V5K3ZhbHVl",
            "Basic aWQ6czNjcmV0L2tleSt2YWx1ZQ==",
            "Basic YWJjOnMzY3JldC9rZXkrdmFsdWU=",
            r#"{"key":"s3cret\/key+value"}"#,
            "%73%33%63%72%65%74%2f%6b%65%79%2b%76%61%6c%75%65",
            "%73%33%63%72%65%74%2F%6B%65%79%2B%76%61%6C%75%65",
        ] {
            let shown = redactor.text(text).expect(text);
            assert!(
                shown.contains(redact::REDACTED) && !shown.contains("s3cret") && !shown.contains("czNjcmV0"),
                "{shown}"
            );
        }
        for text in ["nothing", "s3cret", "s3cret/ke", "s3cret… and more", "a…b", "…"] {
            let cut = redactor.text(text);
            assert_eq!(cut.is_some(), text == "s3cret/ke", "{text}: {cut:?}");
        }
        assert!(!format!("{redactor:?}").contains("s3cret"));
        assert!(Redactor::new([&SecretString::from("short")]).is_empty());
    }

    #[test]
    fn a_key_of_many_lines_is_found_within_json() {
        let secret = SecretString::from("-----BEGIN KEY-----\nMIIB \"q\" /x\n-----END KEY-----\n");
        let redactor = Redactor::new([&secret]);
        let once = Value::object([("key", Value::str(secret.expose_secret()))]).to_json();
        let twice = Value::object([("body", Value::from(once.as_str()))]).to_json();
        for text in [once, twice] {
            let shown = redactor.text(&text).expect("a secret");
            assert!(!shown.contains("MIIB") && !shown.contains("BEGIN"), "{shown}");
        }
        let form = SecretString::from("two words & more");
        let shown = Redactor::new([&form]).text("k=two+words+%26+more&x=1").expect("a secret");
        assert_eq!(shown, "k=[redacted]&x=1");
        let marked = SecretString::from("it's <b>&\"bold\"");
        for text in ["it's &lt;b&gt;&amp;&quot;bold&quot;", "it&#39;s &lt;b&gt;&amp;&quot;bold&quot;"] {
            assert_eq!(Redactor::new([&marked]).text(text).as_deref(), Some("[redacted]"), "{text}");
        }
    }

    #[test]
    fn the_beginning_of_a_secret_is_found_where_a_text_was_cut() {
        let secret = SecretString::from("sk-0123456789-abcdefghijklmnopqrstuvwxyz");
        let redactor = Redactor::new([&secret]);
        let is_plain_or_digits =
            |form: &String| form.starts_with("sk-") || form.bytes().all(|byte| byte.is_ascii_hexdigit());
        for whole in redact::forms(secret.expose_secret()).into_iter().filter(is_plain_or_digits) {
            for length in SECRET_BYTES_MIN..whole.len() {
                let part = &whole[..length];
                for text in
                    [format!("bad key {part}"), format!("`x` said: {part}…"), format!("{part}… and {part}…; {part}")]
                {
                    let shown = redactor.text(&text).expect(&text);
                    assert!(!shown.contains(&whole[..SECRET_BYTES_MIN]), "{text}: {shown}");
                }
            }
        }
        assert_eq!(redactor.text("sk-01234567 is not it"), None, "nothing was cut there");
    }

    #[test]
    fn failures_and_values_are_redacted_throughout() {
        let redactor = Redactor::new([&SecretString::from("s3cret-key")]);
        let detail = Value::object([("s3cret-key", Value::list(vec![Value::from("a s3cret-key b"), Value::Int(1)]))]);
        let failure = Failure::new(Code::ToolFailed, "no: s3cret-key").error_type("E s3cret-key").detail(detail);
        assert!(!format!("{:?}", redactor.failure(failure)).contains("s3cret"));
    }
}
