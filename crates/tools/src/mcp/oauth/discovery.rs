//! What a server and an issuer say about authorization: challenges, the resource's metadata, the issuer's metadata.

use reqwest::Url;
use reqwest::header::{GetAll, HeaderValue};
use serde_json::Value;

use super::Oauth;

/// The challenge in an answer of 401 or 403.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Where the resource is described.
    pub(super) metadata: Option<String>,
    /// What is needed.
    pub(super) scopes: Option<Vec<String>>,
}

impl Challenge {
    pub(super) fn read(headers: GetAll<'_, HeaderValue>) -> Self {
        let mut challenge = Self::default();
        for text in headers.iter().filter_map(|value| value.to_str().ok()) {
            for (key, value) in pairs(text) {
                match key.to_ascii_lowercase().as_str() {
                    "resource_metadata" => challenge.metadata = Some(value),
                    "scope" => challenge.scopes = Some(value.split_whitespace().map(str::to_owned).collect()),
                    _ => {}
                }
            }
        }
        challenge
    }
}

/// The parts `key=value` and `key="value"` of a challenge.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        let key = before.rsplit([' ', ',', '\t']).next().unwrap_or_default().to_owned();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
            rest = &quoted[end.min(quoted.len())..];
            found.push((key, value));
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            found.push((key, after[..end].to_owned()));
            rest = &after[end..];
        }
    }
    found
}

/// What is protected.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    /// Its identifier.
    pub(super) name: String,
    /// Who gives tokens for it; none where the server says nothing.
    pub(super) issuer: Option<String>,
    /// The scopes that it knows.
    pub(super) scopes: Option<Vec<String>>,
}

/// Who gives tokens.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    /// Its identifier.
    pub(super) name: String,
    pub(super) authorize: String,
    pub(super) token: String,
    pub(super) register: Option<String>,
    /// How clients may prove who they are; none where it does not say.
    pub(super) methods: Option<Vec<String>>,
    pub(super) scopes: Vec<String>,
    /// Whether a client may be named by the address of its metadata.
    pub(super) takes_metadata_urls: bool,
    /// Whether it says who it is when it sends someone back.
    pub(super) names_itself: bool,
}

impl Oauth {
    /// The description of the server as a resource.
    pub(super) async fn resource(&self, challenge: &Challenge) -> Result<Resource, String> {
        let known = well_known(&self.server, "oauth-protected-resource");
        let places = challenge.metadata.clone().map_or(known, |place| vec![place]);
        for place in places {
            let Some(document) = self.document(self.allowed(&place)?).await? else { continue };
            let name = text(&document, "resource").ok_or("the server's metadata names no resource")?;
            if !covers(&name, &self.server) {
                let name = crate::answer::printable(&name);
                return Err(format!("the server's metadata is about `{name}`, which is another resource"));
            }
            let issuer = texts(&document, "authorization_servers").unwrap_or_default().into_iter().next();
            return Ok(Resource { name, issuer, scopes: texts(&document, "scopes_supported") });
        }
        Ok(Resource { name: plain(&self.server), issuer: None, scopes: None })
    }

    /// The issuer of a resource.
    pub(super) async fn issuer(&self, resource: &Resource) -> Result<Issuer, String> {
        let Some(name) = &resource.issuer else { return self.own_issuer().await };
        let url = self.allowed(name)?;
        for place in issuer_places(&url) {
            if let Some(document) = self.document(self.allowed(&place)?).await? {
                return self.read(name, &document);
            }
        }
        Err(format!("`{}` does not describe itself", crate::answer::printable(name)))
    }

    /// The server as its own issuer, as the revision of 2025-03-26 has it.
    async fn own_issuer(&self) -> Result<Issuer, String> {
        let origin = self.server.origin().ascii_serialization();
        let place = format!("{origin}/.well-known/oauth-authorization-server");
        if let Some(document) = self.document(self.allowed(&place)?).await? {
            return self.read(&origin, &document);
        }
        Ok(Issuer {
            authorize: format!("{origin}/authorize"),
            token: format!("{origin}/token"),
            register: Some(format!("{origin}/register")),
            name: origin,
            methods: None,
            scopes: Vec::new(),
            takes_metadata_urls: false,
            names_itself: false,
        })
    }

    fn read(&self, name: &str, document: &Value) -> Result<Issuer, String> {
        // Letter by letter: another issuer's metadata under this name is how one is mistaken for another.
        if text(document, "issuer").as_deref() != Some(name) {
            return Err(format!("the metadata of `{}` is that of another issuer", crate::answer::printable(name)));
        }
        let challenges = texts(document, "code_challenge_methods_supported");
        if self.person().is_some() && !challenges.is_some_and(|methods| methods.iter().any(|method| method == "S256")) {
            return Err("the issuer does not support `S256`, without which a code can be stolen".into());
        }
        let need = |key: &str| text(document, key).ok_or_else(|| format!("the issuer's metadata has no `{key}`"));
        let flag = |key: &str| document.get(key).and_then(Value::as_bool).unwrap_or(false);
        Ok(Issuer {
            name: name.to_owned(),
            authorize: if self.person().is_some() { need("authorization_endpoint")? } else { String::new() },
            token: need("token_endpoint")?,
            register: text(document, "registration_endpoint"),
            methods: texts(document, "token_endpoint_auth_methods_supported"),
            scopes: texts(document, "scopes_supported").unwrap_or_default(),
            takes_metadata_urls: flag("client_id_metadata_document_supported"),
            names_itself: flag("authorization_response_iss_parameter_supported"),
        })
    }
}

fn text(document: &Value, key: &str) -> Option<String> {
    document.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn texts(document: &Value, key: &str) -> Option<Vec<String>> {
    let items = document.get(key)?.as_array()?;
    Some(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// An address without what does not name a resource.
fn plain(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.set_query(None);
    url.to_string()
}

/// Whether a resource is the server or the place that it is in.
fn covers(resource: &str, server: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else { return false };
    let path = resource.path().trim_end_matches('/');
    let rest = server.path().strip_prefix(path);
    resource.origin() == server.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Where a resource is described: for its path, then for its host.
fn well_known(url: &Url, kind: &str) -> Vec<String> {
    let origin = url.origin().ascii_serialization();
    let path = url.path().trim_end_matches('/');
    let mut places = vec![format!("{origin}/.well-known/{kind}{path}")];
    if !path.is_empty() {
        places.push(format!("{origin}/.well-known/{kind}"));
    }
    places
}

/// Where an issuer describes itself.
fn issuer_places(url: &Url) -> Vec<String> {
    let origin = url.origin().ascii_serialization();
    let path = url.path().trim_end_matches('/');
    let mut places = vec![
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{origin}/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{path}/.well-known/openid-configuration"));
    }
    places
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

    use super::*;

    #[test]
    fn challenges_are_read() {
        let mut headers = HeaderMap::new();
        let text = r#"Bearer error="invalid_token", scope="a:b c", resource_metadata="http://h/x?a=b, c", x=y"#;
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"x\\\"y\""));
        headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        let challenge = Challenge::read(headers.get_all(WWW_AUTHENTICATE));
        assert_eq!(challenge.metadata.as_deref(), Some("http://h/x?a=b, c"));
        assert_eq!(challenge.scopes, Some(vec!["a:b".to_owned(), "c".to_owned()]));
        for broken in ["", "=", "a=\"", "a=\"\\", "Bearer", "a=b=c=\"d"] {
            let _ = pairs(broken);
        }
    }

    #[test]
    fn a_resource_is_the_server_or_around_it() {
        let server = Url::parse("https://h:8443/mcp/a").unwrap();
        for resource in ["https://h:8443/mcp/a", "https://h:8443/mcp", "https://h:8443", "https://h:8443/"] {
            assert!(covers(resource, &server), "{resource}");
        }
        for resource in
            ["https://h/mcp/a", "https://other:8443/mcp/a", "https://h:8443/mc", "https://h:8443/mcp/a/b", ""]
        {
            assert!(!covers(resource, &server), "{resource}");
        }
    }
}
