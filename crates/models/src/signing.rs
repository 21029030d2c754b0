//! Requests to Bedrock signed with access keys (SigV4), by AWS's own signer. In builds with the feature `sigv4`.
//!
//! Owns the keys and where they are found; the environment and the files are handed in.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use reqwest::Url;
use reqwest::header::HeaderMap;
use secrecy::SecretString;
use windlass_core::value::Value;

use crate::errors::Fault;
use crate::sender::Outgoing;

/// Whether this build signs requests.
pub(crate) const SIGNS: bool = cfg!(feature = "sigv4");

/// Access keys of AWS.
#[derive(Clone, Debug)]
pub struct AwsKeys {
    /// The id of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: SecretString,
    /// The token of keys that last for a while only.
    pub session_token: Option<SecretString>,
}

impl AwsKeys {
    /// The keys of the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`), else those of the
    /// profile `AWS_PROFILE`, or `default`, in `AWS_SHARED_CREDENTIALS_FILE` or `~/.aws/credentials`.
    #[must_use]
    pub fn find(environment: &dyn Fn(&str) -> Option<String>, file: &dyn Fn(&Path) -> Option<String>) -> Option<Self> {
        let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        if let (Some(id), Some(secret)) = (set("AWS_ACCESS_KEY_ID"), set("AWS_SECRET_ACCESS_KEY")) {
            return Some(Self::new(&id, &secret, set("AWS_SESSION_TOKEN").as_deref()));
        }
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        let path = set("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home)?;
        let text = file(&path)?;
        let of = |key: &str| profile_key(&text, set("AWS_PROFILE").as_deref().unwrap_or("default"), key);
        Some(Self::new(&of("aws_access_key_id")?, &of("aws_secret_access_key")?, of("aws_session_token").as_deref()))
    }

    fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self {
            access_key_id: id.trim().to_owned(),
            secret_access_key: secret.trim().into(),
            session_token: token.map(|token| token.trim().into()),
        }
    }
}

/// The value of a key in a profile of a credentials file.
fn profile_key(text: &str, profile: &str, key: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
            && name.trim().eq_ignore_ascii_case(key)
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

/// The region of Bedrock's own addresses.
pub(crate) fn region_of(url: &Url) -> Option<&str> {
    let rest = url.host_str()?.strip_prefix("bedrock-runtime")?;
    let rest = rest.strip_prefix("-fips").unwrap_or(rest).strip_prefix('.')?;
    rest.strip_suffix(".amazonaws.com").filter(|region| !region.contains('.'))
}

/// Signs a request to Bedrock, for the region of its address or of the profile.
///
/// # Errors
/// No region, and those of [`signed`].
pub(crate) fn sign(outgoing: &mut Outgoing, keys: &AwsKeys, named: Option<&Value>) -> Result<(), Fault> {
    let none = || {
        let why = "the address of Bedrock has no region to sign for; name it as `region` of the profile";
        Fault::NoKey(why.to_owned())
    };
    let region = region_of(&outgoing.url).or(named.and_then(Value::as_str)).ok_or_else(none)?;
    let (now, body) = (SystemTime::now(), outgoing.body.as_bytes());
    let headers = signed(&outgoing.url, &outgoing.headers, body, keys, (region, "bedrock"), now)?;
    outgoing.headers.extend(headers);
    Ok(())
}

/// The headers that sign a request.
///
/// # Errors
/// A request that cannot be signed, or a build that signs none.
#[cfg(feature = "sigv4")]
pub(crate) fn signed(
    url: &Url,
    headers: &HeaderMap,
    body: &[u8],
    keys: &AwsKeys,
    (region, service): (&str, &str),
    at: SystemTime,
) -> Result<HeaderMap, Fault> {
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    use secrecy::ExposeSecret;

    let wrong = |why: &dyn std::fmt::Display| Fault::NoKey(format!("the request cannot be signed: {why}"));
    let token = keys.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    let secret = keys.secret_access_key.expose_secret();
    let identity = Credentials::new(&keys.access_key_id, secret, token, None, "windlass").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| wrong(&error))?;
    let named = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let request = SignableRequest::new("POST", url.as_str(), named, SignableBody::Bytes(body));
    let request = request.map_err(|error| wrong(&error))?;
    let (instructions, _) = sign(request, &params.into()).map_err(|error| wrong(&error))?.into_parts();
    let mut signed = HeaderMap::new();
    for (name, value) in instructions.headers() {
        let (name, value) = crate::sender::header(name, value)?;
        signed.insert(name, value);
    }
    Ok(signed)
}

/// The same in a build that signs none.
#[cfg(not(feature = "sigv4"))]
pub(crate) fn signed(
    _: &Url,
    _: &HeaderMap,
    _: &[u8],
    _: &AwsKeys,
    _: (&str, &str),
    _: SystemTime,
) -> Result<HeaderMap, Fault> {
    Err(Fault::NoKey("this build signs no requests: it is made without the feature `sigv4`".to_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const FILE: &str = "; keys\n[default]\naws_access_key_id = AKID\naws_secret_access_key=s=cret\n\n[ci]\nAWS_ACCESS_KEY_ID = CI\naws_secret_access_key = x\naws_session_token = t\n";

    fn found(environment: &[(&str, &str)]) -> Option<(String, String, Option<String>)> {
        let look =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let file = |path: &Path| (path == Path::new("/home/u/.aws/credentials")).then(|| FILE.to_owned());
        let keys = AwsKeys::find(&look, &file)?;
        let token = keys.session_token.map(|token| token.expose_secret().to_owned());
        Some((keys.access_key_id, keys.secret_access_key.expose_secret().to_owned(), token))
    }

    #[test]
    fn keys_are_found_in_the_environment_before_the_file() {
        let home = ("HOME", "/home/u");
        assert_eq!(found(&[home]), Some(("AKID".into(), "s=cret".into(), None)));
        assert_eq!(found(&[home, ("AWS_PROFILE", "ci")]), Some(("CI".into(), "x".into(), Some("t".into()))));
        let both = [home, ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "y")];
        assert_eq!(found(&both), Some(("E".into(), "y".into(), None)));
        assert_eq!(found(&[home, ("AWS_PROFILE", "gone")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_region_is_that_of_the_address() {
        let region = |text: &str| region_of(&Url::parse(text).expect("an address")).map(str::to_owned);
        assert_eq!(region("https://bedrock-runtime.eu-west-1.amazonaws.com/model").as_deref(), Some("eu-west-1"));
        assert_eq!(region("https://bedrock-runtime-fips.us-east-1.amazonaws.com").as_deref(), Some("us-east-1"));
        assert_eq!(region("https://bedrock-runtime.a.b.amazonaws.com"), None);
        assert_eq!(region("http://localhost:1"), None);
    }

    /// `post-vanilla` and `post-x-www-form-urlencoded` of AWS's signing test suite.
    #[cfg(feature = "sigv4")]
    #[test]
    fn signatures_are_those_of_the_published_test_suite() {
        let keys = AwsKeys::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None);
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_440_938_160);
        let url = Url::parse("https://example.amazonaws.com/").expect("an address");
        let signature = |headers: &HeaderMap, body: &[u8], keys: &AwsKeys| {
            let signed = signed(&url, headers, body, keys, ("us-east-1", "service"), at).expect("signed");
            assert_eq!(signed.get("x-amz-date").expect("a date"), "20150830T123600Z");
            signed.get("authorization").expect("a signature").to_str().expect("text").to_owned()
        };
        assert_eq!(
            signature(&HeaderMap::new(), b"", &keys),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let mut form = HeaderMap::new();
        form.insert("content-type", "application/x-www-form-urlencoded".parse().expect("a value"));
        form.insert("content-length", "13".parse().expect("a value"));
        let hash = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e";
        form.insert("x-amz-content-sha256", hash.parse().expect("a value"));
        assert_eq!(
            signature(&form, b"Param1=value1", &keys),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=content-length;content-type;host;x-amz-content-sha256;x-amz-date, \
             Signature=d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"
        );
    }

    #[cfg(not(feature = "sigv4"))]
    #[test]
    fn a_build_without_the_feature_says_so() {
        let keys = AwsKeys::new("a", "b", None);
        let url = Url::parse("https://example.amazonaws.com/").expect("an address");
        let fault =
            signed(&url, &HeaderMap::new(), b"", &keys, ("r", "s"), SystemTime::UNIX_EPOCH).expect_err("refused");
        assert!(matches!(fault, Fault::NoKey(why) if why.contains("`sigv4`")));
    }
}
