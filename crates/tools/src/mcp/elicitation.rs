//! Questions of a server to the person behind us. Nobody sits there: a question is declined, or answered with the
//! defaults that the server itself offers, never with anything else.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::mcp::suspicious::visible;

/// What happens to questions of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ElicitationConfig {
    /// They are declined.
    #[default]
    Decline,
    /// A form is accepted with its own defaults, when every field that must be there has one and none asks for a secret.
    Defaults,
}

/// Parts of a field's name or text that ask for what a server must not get this way.
const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api key",
    "api_key",
    "apikey",
    "api-key",
    "credential",
    "private key",
    "private_key",
    "access key",
    "access_key",
    "one-time",
    "otp",
    "pin code",
    "card number",
    "cvv",
    "ssn",
];

/// The answer to a question.
pub(crate) fn answer(server: &str, config: ElicitationConfig, params: &Value) -> Value {
    let declined = |why: &str| {
        tracing::warn!(server, why, "a question of an MCP server was declined");
        json!({ "action": "decline" })
    };
    if config == ElicitationConfig::Decline {
        return declined("questions of this server are not answered");
    }
    match params.get("mode").and_then(Value::as_str) {
        None | Some("form") => {}
        Some(_) => {
            let place = params.get("url").and_then(Value::as_str).and_then(|url| reqwest::Url::parse(url).ok());
            let host = place.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
            tracing::warn!(server, host = visible(host), "an MCP server wanted a person to open an address");
            return declined("it is no form");
        }
    }
    let empty = Map::new();
    let schema = params.get("requestedSchema");
    let fields = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object).unwrap_or(&empty);
    if fields.iter().any(|(name, field)| asks_for_secret(name, field)) {
        return declined("it asks for a secret");
    }
    let content: Map<String, Value> =
        fields.iter().filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone()))).collect();
    let required = schema.and_then(|schema| schema.get("required")).and_then(Value::as_array);
    if required.into_iter().flatten().filter_map(Value::as_str).any(|name| !content.contains_key(name)) {
        return declined("a field that must be filled has no default");
    }
    json!({ "action": "accept", "content": content })
}

fn asks_for_secret(name: &str, field: &Value) -> bool {
    let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or_default();
    let all = format!("{name} {} {}", text("title"), text("description")).to_lowercase();
    text("format") == "password" || SECRETS.iter().any(|word| all.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(properties: Value, required: Value) -> Value {
        let schema = json!({ "type": "object", "properties": properties, "required": required });
        answer("s", ElicitationConfig::Defaults, &json!({ "message": "?", "requestedSchema": schema }))
    }

    #[test]
    fn defaults_are_the_only_answer() {
        let asked = ask(json!({ "a": { "type": "string", "default": "x" }, "b": { "type": "boolean" } }), json!(["a"]));
        assert_eq!(asked, json!({ "action": "accept", "content": { "a": "x" } }));
        assert_eq!(ask(json!({ "b": { "type": "boolean" } }), json!(["b"]))["action"], "decline");
        let declined = answer("s", ElicitationConfig::Decline, &json!({}));
        assert_eq!(declined, json!({ "action": "decline" }));
    }

    #[test]
    fn secrets_and_addresses_are_declined() {
        for field in [
            json!({ "password": { "type": "string", "default": "" } }),
            json!({ "x": { "type": "string", "default": "", "title": "Your API key" } }),
            json!({ "x": { "type": "string", "default": "", "description": "Paste the access token" } }),
        ] {
            assert_eq!(ask(field, json!([]))["action"], "decline");
        }
        let url = json!({ "mode": "url", "url": "https://bank.example.evil.test/", "message": "open" });
        assert_eq!(answer("s", ElicitationConfig::Defaults, &url)["action"], "decline");
    }
}
