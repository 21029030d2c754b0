//! Channels for notices to people: signed webhooks, and the incoming webhooks of Slack and Teams.
//!
//! Owns their configuration, bodies and signatures. When what is sent, and how often, is the runtime's.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use ring::hmac;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::machine::HookKind;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::notify::{Channel, Notice, NoticeKind};
use windlass_ports::tool::Permit;

use crate::address;
use crate::build::{Site, Surroundings};
use crate::client::{self, Clients, Message, Waits};
use crate::config::{ConfigError, SecretRef};
use crate::headers::json_headers;
use crate::role::Caller;

/// How long a channel may take, in milliseconds, unless it says otherwise, and at most.
const TIMEOUT_MS: u64 = 10_000;
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Fewest bytes of a key that bodies are signed with.
const KEY_BYTES_MIN: usize = 16;
/// Characters of the texts of a message and of each of its facts. Slack takes no more than 3,000 and 2,000.
const TEXT_CHARS_MAX: usize = 1_000;
/// How a key begins that is written in base64.
const KEY_PREFIX: &str = "whsec_";

/// A channel for notices to people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// `webhook` (a signed JSON body), `slack` or `teams` (their incoming webhooks).
    #[serde(rename = "type")]
    pub kind: String,
    /// The address that notices are posted to. It may lead anywhere: it is yours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same where the address itself is a secret, as those of Slack and Teams are, named as `env:NAME` or `file:PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_url: Option<SecretRef>,
    /// `webhook`: the key that bodies are signed with, named as `env:NAME` or `file:PATH`: `whsec_` and base64, or any
    /// text of 16 bytes or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretRef>,
    /// Only notices of these kinds: `approval`, `escalation`, `budget`, `outcome`, `attention`, `quarantined`, `failed`,
    /// `policy`.
    /// Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(with = "Vec<String>")]
    pub kinds: Vec<NoticeKind>,
    /// Only notices about runs of machines with these names. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub machines: Vec<String>,
    /// Only notices about runs of these tenants. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tenants: Vec<String>,
    /// Only escalations to these. One to the channel's own name always comes. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub escalations: Vec<String>,
    /// How long sending may take in milliseconds, at most 10000. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Builds every configured channel. Nothing is connected.
///
/// # Errors
/// Every unknown type, misplaced key, wrong value and missing secret.
pub fn build_channels(
    config: &BTreeMap<String, NotifyConfig>,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Arc<dyn Channel>>, ConfigError> {
    let clients = Arc::new(Clients::default());
    let mut problems = Vec::new();
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    for (name, table) in config {
        let mut site = Site::new("notify", name, surroundings, &clients, &mut problems);
        if let Some(post) = make(&mut site, table) {
            channels.push(Arc::new(post));
        }
    }
    if problems.is_empty() { Ok(channels) } else { Err(ConfigError { problems }) }
}

fn make(site: &mut Site<'_>, table: &NotifyConfig) -> Option<Post> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if site.name.is_empty() || site.name.len() > 64 || !site.name.chars().all(fits) {
        site.wrong("", "a channel's name has 1 to 64 letters, digits, `_`, `-` and `.`", None);
    }
    let form = match table.kind.as_str() {
        "webhook" => Some(Form::Signed(key(site, table))),
        "slack" => Some(Form::Slack),
        "teams" => Some(Form::Teams),
        other => {
            let hint = "known types are `webhook`, `slack` and `teams`";
            site.wrong("type", format!("the type `{other}` is not known here"), Some(hint));
            None
        }
    };
    if table.signing_key.is_some() && !matches!(form, Some(Form::Signed(_)) | None) {
        site.wrong("signing_key", format!("the type `{}` has no key `signing_key`", table.kind), None);
    }
    if !(table.escalations.is_empty() || table.kinds.is_empty() || table.kinds.contains(&NoticeKind::Escalation)) {
        let hint = "add `escalation` to `kinds`, or leave `escalations` out";
        site.wrong("escalations", "escalations are not among the `kinds` of this channel", Some(hint));
    }
    if table.timeout_ms.is_some_and(|ms| !(1..=TIMEOUT_MS).contains(&ms)) {
        site.wrong("timeout_ms", format!("must be from 1 to {TIMEOUT_MS}"), None);
    }
    let url = url(site, table)?;
    let form = match form? {
        Form::Signed(None) => return None,
        form => form,
    };
    Some(Post {
        name: site.name.into(),
        url,
        form,
        table: table.clone(),
        timeout_ms: table.timeout_ms.unwrap_or(TIMEOUT_MS),
        clients: site.clients(),
    })
}

/// The key that bodies are signed with.
fn key(site: &mut Site<'_>, table: &NotifyConfig) -> Option<Key> {
    let reference = site.need("signing_key", table.signing_key.as_ref())?;
    let secret = site.secret("signing_key", reference)?;
    let text = secret.expose_secret();
    let bytes = match text.strip_prefix(KEY_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(text.as_bytes().to_vec()),
    };
    match bytes {
        Some(bytes) if bytes.len() >= KEY_BYTES_MIN => Some(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes))),
        // Where nothing is called no secret has to be there.
        Some(bytes) if bytes.is_empty() => Some(Key(hmac::Key::new(hmac::HMAC_SHA256, &[]))),
        Some(_) => {
            site.wrong("signing_key", format!("a key has {KEY_BYTES_MIN} bytes or more"), None);
            None
        }
        None => {
            site.wrong("signing_key", format!("what follows `{KEY_PREFIX}` is no base64"), None);
            None
        }
    }
}

fn url(site: &mut Site<'_>, table: &NotifyConfig) -> Option<Url> {
    match (&table.url, &table.secret_url) {
        (Some(_), Some(_)) => {
            site.wrong("url", "`url` and `secret_url` exclude each other", None);
            None
        }
        (None, None) => {
            site.wrong("url", "`url` is missing", Some("`secret_url` takes it from `env:NAME` or `file:PATH`"));
            None
        }
        (Some(text), None) => address::address(site, text),
        (None, Some(reference)) => {
            let secret: SecretString = site.secret("secret_url", reference)?;
            let text = secret.expose_secret();
            if text.is_empty() {
                return None;
            }
            // What is wrong with a secret is said without it.
            let url = address::checked(text.trim()).ok();
            if url.is_none() {
                site.wrong("secret_url", "the secret is no HTTP address without credentials", None);
            }
            url
        }
    }
}

/// A key that no output shows.
#[derive(Clone)]
struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

#[derive(Clone, Debug)]
enum Form {
    Signed(Option<Key>),
    Slack,
    Teams,
}

/// A channel that posts to an address.
struct Post {
    name: Name,
    url: Url,
    form: Form,
    table: NotifyConfig,
    timeout_ms: u64,
    clients: Arc<Clients>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may be a secret.
        f.debug_struct("Post").field("name", &self.name).field("form", &self.form).finish_non_exhaustive()
    }
}

impl Channel for Post {
    fn name(&self) -> &Name {
        &self.name
    }

    fn wants(&self, notice: &Notice) -> bool {
        let among = |listed: &[String], name: &str| listed.is_empty() || listed.iter().any(|one| one == name);
        let to = notice.question.as_ref().and_then(|question| question.escalated_to.as_deref());
        let is_kind = self.table.kinds.is_empty() || self.table.kinds.contains(&notice.kind);
        let is_for = match (notice.kind, to) {
            // Who is named comes, whatever else the channel is for.
            (NoticeKind::Escalation, Some(to)) => *to == *self.name || (is_kind && among(&self.table.escalations, to)),
            _ => is_kind,
        };
        is_for && among(&self.table.machines, &notice.machine) && among(&self.table.tenants, &notice.tenant)
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: Timestamp) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let (headers, body) = self.letter(notice, now);
            let caller = Caller::hook(&self.name, HookKind::StateEnter);
            let message = Message {
                method: Method::POST,
                url: self.url.clone(),
                headers,
                body: Some(body),
                permit: Permit::default(),
                waits: Waits::default(),
            };
            let answer = client::exchange(&self.clients, &caller, message, self.timeout_ms, ANSWER_BYTES_MAX).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            // What came back is not quoted: it may hold the address, which may be a secret.
            let message = format!("`{}` answered {}", self.name, answer.status);
            Err(Failure::new(Code::HookFailed, message).retry(answer.failure(&caller).retry))
        }
        .boxed()
    }
}

impl Post {
    /// Headers and body of a notice.
    fn letter(&self, notice: &Notice, now: Timestamp) -> (HeaderMap, Vec<u8>) {
        let body = match &self.form {
            Form::Signed(_) => serde_json::to_vec(notice).unwrap_or_default(),
            Form::Slack => slack(notice).to_string().into_bytes(),
            Form::Teams => teams(notice).to_string().into_bytes(),
        };
        let mut headers = json_headers();
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        let seconds = (now.0 / 1_000).to_string();
        put("webhook-id", &notice.id);
        put("webhook-timestamp", &seconds);
        if let Form::Signed(Some(key)) = &self.form {
            put("webhook-signature", &format!("v1,{}", signature(key, &notice.id, &seconds, &body)));
        }
        (headers, body)
    }
}

/// HMAC-SHA256 over `ID.TIMESTAMP.BODY`, in base64.
fn signature(Key(key): &Key, id: &str, seconds: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        context.update(part);
    }
    STANDARD.encode(context.sign())
}

/// A text on one line, and no longer than a message may have it.
fn line(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = chars.by_ref().take(TEXT_CHARS_MAX).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

/// What a notice says, as pairs.
fn facts(notice: &Notice) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("kind", notice.kind.as_str().to_owned()),
        ("machine", notice.machine.to_string()),
        ("run", notice.run_id.to_string()),
        ("tenant", notice.tenant.to_string()),
    ];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("state", notice.state.as_deref().map(str::to_owned));
    add("code", notice.code.as_deref().map(str::to_owned));
    if let Some(question) = &notice.question {
        add("question", Some(question.id.to_string()));
        add(
            "call",
            Some(match &question.class {
                Some(class) => format!("{} ({}, {class})", question.target, question.about),
                None => format!("{} ({})", question.target, question.about),
            }),
        );
        add("rule", Some(question.rule.to_string()));
        add("escalated to", question.escalated_to.as_deref().map(str::to_owned));
    }
    add("notice", Some(notice.id.to_string()));
    facts
}

/// A message of Slack's incoming webhooks. Its blocks are plain text, in which nothing is a link, a mention or an emphasis.
fn slack(notice: &Notice) -> Json {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let plain = |text: String| json!({ "type": "plain_text", "emoji": false, "text": text });
    let text = line(&notice.text);
    let fields: Vec<Json> =
        facts(notice).iter().take(10).map(|(name, value)| plain(format!("{name}\n{}", line(value)))).collect();
    json!({
        // Where blocks cannot be shown.
        "text": escaped(&text),
        "blocks": [
            { "type": "section", "text": plain(text) },
            { "type": "section", "fields": fields },
        ],
    })
}

/// A message of Teams' incoming webhooks: an adaptive card of text runs, in which nothing is markdown.
fn teams(notice: &Notice) -> Json {
    let run = |text: String, weight: &str| json!({ "type": "TextRun", "text": text, "weight": weight });
    let block = |inlines: Vec<Json>| json!({ "type": "RichTextBlock", "inlines": inlines });
    let mut body = vec![block(vec![run(line(&notice.text), "bolder")])];
    let fact =
        |(name, value): &(&str, String)| block(vec![run(format!("{name}: "), "bolder"), run(line(value), "default")]);
    body.extend(facts(notice).iter().map(fact));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": body,
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use windlass_core::ids::RunId;

    use super::*;

    fn notice(kind: NoticeKind) -> Notice {
        Notice {
            id: "0123456789abcdef".into(),
            kind,
            at_ms: 5,
            tenant: "acme".into(),
            machine: "payer".into(),
            run_id: RunId::stored("r1"),
            root_run_id: RunId::stored("r1"),
            state: Some("pay".into()),
            text: "a <b> & c".into(),
            question: None,
            code: None,
        }
    }

    fn post(table: &str, form: Form) -> Post {
        let table = toml::from_str(table).expect("a table");
        let url = Url::parse("http://127.0.0.1:1/x").expect("an address");
        Post { name: "ops".into(), url, form, table, timeout_ms: 1, clients: Arc::default() }
    }

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the Standard Webhooks specification.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let key = Key(hmac::Key::new(hmac::HMAC_SHA256, &key));
        let made = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(made, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_channel_takes_what_its_filters_name() {
        let all = post("type = \"slack\"", Form::Slack);
        let some =
            post("type = \"slack\"\nkinds = [\"failed\"]\nmachines = [\"payer\"]\ntenants = [\"acme\"]", Form::Slack);
        assert!(all.wants(&notice(NoticeKind::Approval)));
        assert!(!some.wants(&notice(NoticeKind::Approval)));
        assert!(some.wants(&notice(NoticeKind::Failed)));
        assert!(!some.wants(&Notice { tenant: "other".into(), ..notice(NoticeKind::Failed) }));
        assert!(!some.wants(&Notice { machine: "other".into(), ..notice(NoticeKind::Failed) }));
    }

    #[test]
    fn whoever_an_escalation_names_gets_it() {
        let escalation = |to: &str| {
            let question = windlass_ports::notify::NoticeQuestion {
                id: "r1#2".into(),
                about: "tool".into(),
                target: "pay".into(),
                class: None,
                rule: "contract".into(),
                shown: None,
                expires_at_ms: None,
                level: 1,
                escalated_to: Some(to.into()),
            };
            Notice { question: Some(question), ..notice(NoticeKind::Escalation) }
        };
        let failures = post("type = \"slack\"\nkinds = [\"failed\"]", Form::Slack);
        assert!(failures.wants(&escalation("ops")), "its own name");
        assert!(!failures.wants(&escalation("leads")));
        let leads = post("type = \"slack\"\nescalations = [\"leads\"]", Form::Slack);
        assert!(leads.wants(&escalation("leads")) && leads.wants(&escalation("ops")) && !leads.wants(&escalation("x")));
    }

    #[test]
    fn texts_cannot_leave_their_place_in_a_message() {
        let hostile = "a <b> & c\n[x](https://evil.example) *now* <!channel>";
        let notice = Notice { text: hostile.into(), machine: "m".repeat(5_000).into(), ..notice(NoticeKind::Failed) };
        let slack = slack(&notice);
        assert_eq!(slack["text"], "a &lt;b&gt; &amp; c [x](https://evil.example) *now* &lt;!channel&gt;");
        let shown = slack["blocks"].to_string();
        assert!(!shown.contains("mrkdwn"), "{shown}");
        let fields = slack["blocks"][1]["fields"].as_array().expect("fields");
        assert!(fields.iter().all(|field| field["text"].as_str().is_some_and(|text| text.chars().count() < 2_000)));
        let card = teams(&notice);
        let body = card["attachments"][0]["content"]["body"].as_array().expect("blocks");
        assert_eq!(body[0]["inlines"][0]["text"], hostile.replace('\n', " "));
        let is_run = |inline: &Json| inline["type"] == "TextRun";
        assert!(body.iter().all(|block| block["inlines"].as_array().is_some_and(|runs| runs.iter().all(is_run))));
        assert!(format!("{:?}", post("type = \"slack\"", Form::Slack)).find("127.0.0.1").is_none());
    }
}
