//! What is said of issuers to whoever has no token that is taken, and keys that are replaced while a process runs.

use serde_json::json;
use windlass_server::calls::METADATA;

use super::World;
use super::keys::{By, Keys};

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

#[test]
fn whoever_has_no_token_is_told_who_makes_them() {
    let said = |world: &World, base: &str| {
        let refused = world.served.asks("GET", "/v1/tools", &[], "");
        let challenge = format!("www-authenticate: bearer realm=\"windlass\", resource_metadata=\"{base}{METADATA}\"");
        assert!(refused.status == 401 && refused.head.contains(&challenge), "{}", refused.head);
        let expired = world.served.gets(&world.keys.with(By::Ed, "tools:*", &json!({ "exp": 1 })), "/v1/tools");
        assert!(expired.head.contains("error=\"invalid_token\""), "{}", expired.head);
        assert!(expired.head.contains(&format!(", resource_metadata=\"{base}{METADATA}\"")), "{}", expired.head);
        let metadata = world.served.asks("GET", METADATA, &[], "");
        assert_eq!(metadata.status, 200, "{}", metadata.body);
        assert!(metadata.head.contains("content-type: application/json"), "{}", metadata.head);
        // Nobody but this server could sign for the issuer whose secret it knows.
        let known = json!({
            "resource": base,
            "bearer_methods_supported": ["header"],
            "authorization_servers": ["https://ec.example", "https://ed.example", "https://rsa.example"],
        });
        assert_eq!(metadata.body, known);
    };
    said(&World::new(false), "http://localhost");
    let named = World::configured(false, &SERVE, "[serve]\nurl = \"https://tools.acme.io/\"\n");
    said(&named, "https://tools.acme.io");
    let elsewhere = named.served.raw(format!("GET {METADATA} HTTP/1.1\r\nhost: evil.example\r\n\r\n").as_bytes());
    assert_eq!(elsewhere.status, 421, "{}", elsewhere.head);
    let fleet = &named.fleet;
    for url in ["tools.acme.io", "https://tools.acme.io/path", "https://a\\\"b", "https://", "ftp://tools.acme.io"] {
        fleet.write("windlass.toml", &format!("[serve]\nurl = \"{url}\"\n{}", super::TOOLS));
        let refused = named.run(&SERVE);
        assert!(refused.code() == 2 && refused.shown().contains("serve.url"), "{url}: {}", refused.shown());
    }
}

#[test]
fn a_key_that_is_replaced_is_used_without_a_restart_and_one_that_is_none_changes_nothing() {
    let world = World::configured(false, &SERVE, "[log]\nfilter = \"info\"\n");
    let status = |keys: &Keys, by: By| world.served.gets(&keys.token(by, "tools:search"), "/v1/tools").status;
    let others = Keys::new();
    assert_eq!([status(&world.keys, By::Ed), status(&others, By::Ed)], [200, 401]);
    others.write(&world.fleet.place);
    world.fleet.until_all("the new key is taken", || (status(&others, By::Ed) == 200).then_some(()));
    assert_eq!([By::Ed, By::Ec].map(|by| status(&world.keys, by)), [401, 401], "the keys before are not taken");
    assert_eq!([By::Ec, By::Rsa, By::Hmac].map(|by| status(&others, by)), [200, 200, 200]);

    let log = || std::fs::read_to_string(world.fleet.place.path("log")).expect("read");
    world.fleet.write("ed.pem", "canary-no-key");
    world.fleet.until_all("what is no key is told of", || log().contains("those before stay in use").then_some(()));
    assert_eq!([By::Ed, By::Ec].map(|by| status(&others, by)), [200, 200], "the last good keys stay");
    assert!(!log().contains("canary"), "{}", log());
    world.keys.write(&world.fleet.place);
    world.fleet.until_all("the first key is taken again", || (status(&world.keys, By::Ed) == 200).then_some(()));
}
