//! What AWS does with a signed request (SigV4): the signature is computed anew from what arrived, by nothing that the product
//! signs with. Source: the Signature Version 4 chapters of the AWS IAM user guide.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// The id of the access key that requests are signed with.
pub(super) const ID: &str = "AKIDPROOF";
/// The key itself.
pub(super) const SECRET: &str = "secret";

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA256 (RFC 2104) with a key of at most one block.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let padded = |with: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Whether a request to Bedrock has the signature of [`SECRET`] over its path, its named headers and its body.
pub(super) fn holds(path: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> bool {
    signed(path, headers, body).is_some_and(|(said, computed)| said == computed)
}

/// The signature that a request has, and the one that it should have.
fn signed<'a>(path: &str, headers: &'a BTreeMap<String, String>, body: &[u8]) -> Option<(&'a str, String)> {
    let fields: BTreeMap<&str, &str> = headers
        .get("authorization")?
        .strip_prefix("AWS4-HMAC-SHA256 ")?
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .collect();
    let (id, scope) = fields.get("Credential")?.split_once('/')?;
    let [date, region, service @ "bedrock", end @ "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return None;
    };
    let names = fields.get("SignedHeaders")?;
    let mut canonical = format!("POST\n{path}\n\n");
    for name in names.split(';') {
        canonical += &format!("{name}:{}\n", headers.get(name)?);
    }
    canonical += &format!("\n{names}\n{}", hex(Sha256::digest(body)));
    let moment = headers.get("x-amz-date").filter(|moment| moment.starts_with(date))?;
    let text = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{}", hex(Sha256::digest(canonical)));
    let key =
        [date, region, service, end].iter().fold(format!("AWS4{SECRET}").into_bytes(), |key, part| hmac(&key, part));
    let covers = names.split(';').any(|name| name == "host") && names.split(';').any(|name| name == "x-amz-date");
    (id == ID && covers).then(|| (fields["Signature"], hex(hmac(&key, &text))))
}

/// The example of the guide for deriving a key and signing with it.
#[test]
fn a_key_is_derived_as_published() {
    let key = ["20120215", "us-east-1", "iam", "aws4_request"]
        .iter()
        .fold(b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec(), |key, part| hmac(&key, part));
    assert_eq!(hex(key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
}
