//! Getting known to an issuer, and getting a token: with a person's consent, with credentials of our own, or by an
//! earlier grant that lasts.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::discovery::Issuer;
use super::{Oauth, Person, State, bounded};
use crate::client;

/// Who we are at an issuer.
#[derive(Clone, Debug)]
pub(super) struct Registered {
    pub(super) id: String,
    pub(super) secret: Option<SecretString>,
    pub(super) method: Method,
}

/// How we prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Basic,
    Post,
    None,
}

impl Method {
    /// The best one that both sides can.
    pub(super) fn choose(supported: &Option<Vec<String>>, has_secret: bool) -> Self {
        let can = |word: &str| supported.as_ref().is_none_or(|methods| methods.iter().any(|method| method == word));
        match has_secret {
            true if can(Self::Basic.word()) => Self::Basic,
            true if can(Self::Post.word()) => Self::Post,
            _ => Self::None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::None => "none",
        }
    }
}

/// A token, and the one that gets the next.
pub(super) struct Granted {
    pub(super) access: SecretString,
    pub(super) refresh: Option<SecretString>,
}

impl Oauth {
    /// Makes us known to an issuer.
    pub(super) async fn register(&self, person: &dyn Person, issuer: &Issuer) -> Result<Registered, String> {
        let place = issuer.register.as_deref().ok_or("the issuer takes no new clients, and none is configured")?;
        let wanted = Method::choose(&issuer.methods, true);
        let body = json!({
            "client_name": "Windlass",
            "application_type": "native",
            "redirect_uris": [person.redirect_uri()],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": wanted.word(),
        });
        let url = self.allowed(place)?;
        let client = self.clients.client(false)?;
        let request = client.post(url).header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.map_err(|error| client::chain(&error))?;
        let status = response.status();
        let document: Value = serde_json::from_slice(&bounded(response).await?).unwrap_or_default();
        let text = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text("client_id").filter(|_| status.is_success());
        let id = id.ok_or_else(|| format!("the issuer answered the registration with {status}"))?;
        let secret = text("client_secret").map(SecretString::from);
        let method = match text("token_endpoint_auth_method").as_deref() {
            Some("client_secret_basic") if secret.is_some() => Method::Basic,
            Some("client_secret_post") if secret.is_some() => Method::Post,
            Some("none") => Method::None,
            _ => Method::choose(&issuer.methods, secret.is_some()),
        };
        Ok(Registered { id, secret, method })
    }

    /// A token with the consent of a person.
    pub(super) async fn with_consent(
        &self,
        person: &dyn Person,
        issuer: &Issuer,
        registered: &Registered,
        resource: &str,
        scopes: &[String],
    ) -> Result<Granted, String> {
        let (state, verifier) = (random()?, random()?);
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let mut address = self.allowed(&issuer.authorize)?;
        let redirect = person.redirect_uri();
        {
            let mut query = address.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &registered.id)
                .append_pair("redirect_uri", &redirect)
                .append_pair("state", &state)
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256")
                .append_pair("resource", resource);
            if !scopes.is_empty() {
                query.append_pair("scope", &scopes.join(" "));
            }
        }
        let back = person.visit(address.into()).await?;
        let code = code(&back, &state, issuer)?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &redirect),
            ("code_verifier", &verifier),
            ("resource", resource),
        ];
        self.token(issuer, registered, &form).await
    }

    /// A token for ourselves.
    pub(super) async fn with_credentials(
        &self,
        issuer: &Issuer,
        registered: &Registered,
        resource: &str,
        scopes: &[String],
    ) -> Result<Granted, String> {
        if registered.method == Method::None {
            return Err("the issuer takes no secret of a client, and no person can be asked".into());
        }
        let scope = scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials"), ("resource", resource)];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        self.token(issuer, registered, &form).await
    }

    /// The next token of an earlier grant, where that still lasts.
    pub(super) async fn refreshed(&self, state: &mut State, issuer: &Issuer) -> Option<SecretString> {
        let (owner, refresh) = state.refresh.take()?;
        // What one issuer gave goes to no other.
        if owner != issuer.name {
            return None;
        }
        let registered = self.registered(state, issuer).await.ok()?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh.expose_secret())];
        let granted = self.token(issuer, &registered, &form).await.ok()?;
        state.refresh = Some((owner, granted.refresh.unwrap_or(refresh)));
        Some(granted.access)
    }

    async fn token(&self, issuer: &Issuer, registered: &Registered, form: &[(&str, &str)]) -> Result<Granted, String> {
        let url = self.allowed(&issuer.token)?;
        let client = self.clients.client(false)?;
        let mut request = client.post(url).header("accept", "application/json");
        let secret = registered.secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let mut form: Vec<(&str, &str)> = form.to_vec();
        match registered.method {
            Method::Basic => {
                let pair = format!("{}:{}", encoded(&registered.id), encoded(secret));
                request = request.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(pair)));
            }
            Method::Post => form.extend([("client_id", registered.id.as_str()), ("client_secret", secret)]),
            Method::None => form.push(("client_id", &registered.id)),
        }
        let body = form.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect::<Vec<_>>().join("&");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        let response = request.send().await.map_err(|error| client::chain(&error))?;
        let status = response.status();
        let document: Value = serde_json::from_slice(&bounded(response).await?).unwrap_or_default();
        let text = |key: &str| document.get(key).and_then(Value::as_str);
        if !status.is_success() {
            let why = crate::answer::printable(text("error").unwrap_or("no reason"));
            return Err(format!("the issuer answered {status}: {why}"));
        }
        if text("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err("the issuer gave a token of a kind that is not known here".into());
        }
        let access = text("access_token").ok_or("the issuer gave no token")?;
        let refresh = text("refresh_token").map(|token| SecretString::from(token.to_owned()));
        Ok(Granted { access: SecretString::from(access.to_owned()), refresh })
    }
}

/// The code with which someone came back, if they come from where we sent them.
fn code(back: &str, state: &str, issuer: &Issuer) -> Result<String, String> {
    let url = Url::parse(back).map_err(|_| "the address of the return is no address")?;
    let part = |name: &str| {
        let mut found = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        found.next().filter(|_| found.next().is_none())
    };
    if part("state").as_deref() != Some(state) {
        return Err("the return is not the one to our request".into());
    }
    match part("iss") {
        Some(iss) if iss == issuer.name => {}
        None if !issuer.names_itself => {}
        Some(_) => return Err("the return is from another issuer".into()),
        None => return Err("the return does not name the issuer, which promised to".into()),
    }
    if let Some(error) = part("error") {
        return Err(format!("consent was not given: {}", crate::answer::printable(&error)));
    }
    part("code").ok_or_else(|| "the return holds no code".into())
}

fn random() -> Result<String, String> {
    let mut bytes = [0u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the host gives no random numbers")?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// Everything but the characters that a form leaves as they are.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(names_itself: bool) -> Issuer {
        Issuer {
            name: "https://i".into(),
            authorize: String::new(),
            token: String::new(),
            register: None,
            methods: None,
            scopes: Vec::new(),
            takes_metadata_urls: false,
            names_itself,
        }
    }

    #[test]
    fn a_return_that_is_not_ours_gives_no_code() {
        let read = |query: &str, names| code(&format!("http://localhost/cb?{query}"), "s", &issuer(names));
        assert_eq!(read("code=c&state=s", false), Ok("c".into()));
        assert_eq!(read("code=c&state=s&iss=https%3A%2F%2Fi", true), Ok("c".into()));
        for (query, names) in [
            ("code=c", false),
            ("code=c&state=t", false),
            ("code=c&state=s&state=s", false),
            ("code=c&state=s", true),
            ("code=c&state=s&iss=https%3A%2F%2Fi%2F", true),
            ("code=c&state=s&iss=https%3A%2F%2Fevil", false),
            ("state=s&error=access_denied", false),
            ("state=s", false),
        ] {
            assert!(read(query, names).is_err(), "{query}");
        }
    }

    #[test]
    fn secrets_are_sent_as_the_issuer_can_take_them() {
        let list = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        assert_eq!(Method::choose(&None, true), Method::Basic);
        assert_eq!(Method::choose(&list(&["client_secret_post", "none"]), true), Method::Post);
        assert_eq!(Method::choose(&list(&["none"]), true), Method::None);
        assert_eq!(Method::choose(&None, false), Method::None);
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
