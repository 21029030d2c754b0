//! The keys of issuers, and tokens that are made with them: good ones, and every kind that must not be taken.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value as Json, json};

use super::super::Place;

/// A secret that both sides know, which nothing may say.
pub(super) const SHARED: &str = "canary-shared-0123456789abcdef0123456789abcdef";
/// The private key of the RSA issuer, of this test alone, and its public one.
const RSA: &[u8] = include_bytes!("../../fixtures/auth/rsa.der");
pub(super) const RSA_PUBLIC: &str = include_str!("../../fixtures/auth/rsa.pub.pem");

/// The keys of issuers.
pub(super) struct Keys {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

/// One issuer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum By {
    Ed,
    Ec,
    Rsa,
    Hmac,
}

impl By {
    pub(super) const ALL: [Self; 4] = [Self::Ed, Self::Ec, Self::Rsa, Self::Hmac];

    pub(super) fn issuer(self) -> &'static str {
        match self {
            Self::Ed => "https://ed.example",
            Self::Ec => "https://ec.example",
            Self::Rsa => "https://rsa.example",
            Self::Hmac => "https://hmac.example",
        }
    }

    fn header(self) -> Json {
        match self {
            Self::Ed => json!({ "alg": "EdDSA", "typ": "JWT" }),
            Self::Ec => json!({ "alg": "ES256", "kid": "ec-1" }),
            Self::Rsa => json!({ "alg": "RS256" }),
            Self::Hmac => json!({ "alg": "HS256" }),
        }
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn part(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Keys {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).expect("a key"),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).expect("a key"),
            rsa: RsaKeyPair::from_der(RSA).expect("a key"),
        }
    }

    /// The public ones where the configuration looks for them.
    pub(super) fn write(&self, place: &Place) {
        let spki =
            [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], self.ed.public_key().as_ref()];
        place.write("ed.pem", &pem(&spki.concat()));
        let point = self.ec.public_key().as_ref();
        let (x, y) = (part(&point[1..33]), part(&point[33..]));
        let set = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "ec-1", "use": "sig" }] });
        place.write("ec.json", &set.to_string());
        place.write("rsa.pem", RSA_PUBLIC);
    }

    fn sign(&self, by: By, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match by {
            By::Ed => self.ed.sign(message).as_ref().to_vec(),
            By::Ec => self.ec.sign(&random, message).expect("signed").as_ref().to_vec(),
            By::Rsa => {
                let mut made = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut made).expect("signed");
                made
            }
            By::Hmac => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SHARED.as_bytes()), message).as_ref().to_vec(),
        }
    }

    pub(super) fn token_of(&self, by: By, header: &Json, claims: &str) -> String {
        let message = format!("{}.{}", part(header.to_string()), part(claims));
        format!("{message}.{}", part(self.sign(by, message.as_bytes())))
    }

    /// A token with these claims beside or instead of the usual ones; null takes one away.
    pub(super) fn with(&self, by: By, scope: &str, more: &Json) -> String {
        let mut claims = json!({
            "iss": by.issuer(), "aud": "windlass", "iat": now(), "exp": now() + 240,
            "tenant": "acme", "sub": "ann", "scope": scope, "jti": "t1",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        if let Json::Object(claims) = &mut claims {
            claims.retain(|_, value| !value.is_null());
        }
        self.token_of(by, &by.header(), &claims.to_string())
    }

    pub(super) fn token(&self, by: By, scope: &str) -> String {
        self.with(by, scope, &json!({}))
    }
}

/// Every token that must not be taken, by the reason that is counted.
pub(super) fn bad_tokens(keys: &Keys) -> Vec<(&'static str, String, &'static str)> {
    let good = keys.token(By::Rsa, "tools:*");
    let (head, rest) = good.split_once('.').expect("a token");
    let (claims, signature) = rest.split_once('.').expect("a token");
    let with = |by, more: Json| keys.with(by, "tools:*", &more);
    let under = |by: By, header: &Json, claims: &str| keys.token_of(by, header, claims);
    let said = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("text");
    let none = |alg: &str| format!("{}.{claims}.", part(json!({ "alg": alg }).to_string()));
    let by_public_key = {
        let message = format!("{}.{claims}", part(json!({ "alg": "HS256" }).to_string()));
        let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, RSA_PUBLIC.as_bytes()), message.as_bytes());
        format!("{message}.{}", part(made.as_ref()))
    };
    let ec =
        |kid: Json| under(By::Ec, &json!({ "alg": "ES256", "kid": kid }), &said.replace("rsa.example", "ec.example"));
    let mut forged = signature.to_owned();
    forged.replace_range(..4, if forged.starts_with("AAAA") { "BBBB" } else { "AAAA" });
    let richer = part(said.replace("\"ann\"", "\"root\""));
    vec![
        ("expired", with(By::Ed, json!({ "iat": now() - 600, "exp": now() - 120 })), "expired"),
        ("none", none("none"), "algorithm"),
        ("None", none("NONE"), "algorithm"),
        ("no signature", format!("{head}.{claims}."), "signature"),
        ("the public key as a secret", by_public_key, "algorithm"),
        ("another algorithm of the key", under(By::Rsa, &json!({ "alg": "RS512" }), &said), "algorithm"),
        ("another audience", with(By::Ed, json!({ "aud": "others" })), "audience"),
        ("no audience", with(By::Ed, json!({ "aud": null })), "claims"),
        ("another issuer", with(By::Ed, json!({ "iss": "https://evil.example" })), "issuer"),
        ("a list of issuers", with(By::Ed, json!({ "iss": ["https://ed.example"] })), "issuer"),
        ("the key of another issuer", with(By::Ed, json!({ "iss": By::Rsa.issuer() })), "algorithm"),
        ("not yet", with(By::Ed, json!({ "nbf": now() + 3_600 })), "not_yet"),
        ("made tomorrow", with(By::Ed, json!({ "iat": now() + 3_600, "exp": now() + 3_700 })), "not_yet"),
        ("no end", with(By::Ed, json!({ "exp": null })), "claims"),
        ("no beginning", with(By::Ed, json!({ "iat": null })), "claims"),
        ("an end that is a text", with(By::Ed, json!({ "exp": "tomorrow" })), "claims"),
        ("too long", with(By::Ed, json!({ "exp": now() + 3_600 })), "lifetime"),
        ("longer than its issuer may", with(By::Hmac, json!({ "exp": now() + 600 })), "lifetime"),
        ("no tenant", with(By::Ed, json!({ "tenant": null })), "claims"),
        ("a tenant with a line end", with(By::Ed, json!({ "tenant": "acme\nroot" })), "claims"),
        ("a tenant that is no text", with(By::Ed, json!({ "tenant": ["acme"] })), "claims"),
        ("no user", with(By::Ed, json!({ "sub": "" })), "claims"),
        ("scopes that are none", with(By::Ed, json!({ "scope": { "tools": "*" } })), "claims"),
        ("huge", with(By::Ed, json!({ "more": "x".repeat(9_000) })), "too_large"),
        ("a key by a path", ec(json!("../../etc/passwd")), "key"),
        ("a key by an address", ec(json!("http://evil.example/key")), "key"),
        ("no key", under(By::Ec, &json!({ "alg": "ES256" }), &said.replace("rsa.example", "ec.example")), "key"),
        ("forged", format!("{head}.{claims}.{forged}"), "signature"),
        ("changed", format!("{head}.{richer}.{signature}"), "signature"),
        ("critical", under(By::Ed, &json!({ "alg": "EdDSA", "crit": ["b64"], "b64": false }), &said), "malformed"),
        ("a claim twice", under(By::Ed, &By::Ed.header(), r#"{"iss":"https://ed.example","iss":"x"}"#), "malformed"),
        ("no token", "canary-token".to_owned(), "malformed"),
        ("two parts", format!("{head}.{claims}"), "malformed"),
        ("empty", String::new(), "malformed"),
    ]
}
