//! The tools of the examples: their tables are valid, and their programs do what their contracts say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use windlass_core::failure::Code;
use windlass_core::value::Value;
use windlass_ports::tool::{Catalog, Invocation, Tool};

use crate::{build, call, json};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The tables of a configuration that this crate reads.
fn tables(example: &str) -> String {
    let text = fs::read_to_string(examples().join(example).join("windlass.toml")).expect("a configuration");
    let whole: toml::Table = toml::from_str(&text).expect("TOML");
    let own = whole.into_iter().filter(|(key, _)| matches!(key.as_str(), "tools" | "actions" | "hooks"));
    toml::to_string(&own.collect::<toml::Table>()).expect("TOML")
}

/// A copy of an example in a folder of its own, and its catalog.
fn copy(example: &str) -> (TempDir, Catalog) {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(examples().join(example)).expect("the example").flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
        }
    }
    let catalog = build(folder.path(), &tables(example), true).expect("a catalog");
    (folder, catalog)
}

fn keyed(arguments: &str, key: &str) -> Invocation {
    Invocation { idempotency_key: key.into(), ..call(arguments) }
}

fn tool(catalog: &Catalog, name: &str) -> Arc<dyn Tool> {
    crate::tool(catalog, name)
}

#[test]
fn every_example_has_a_contract_for_every_tool() {
    let mut count = 0;
    for entry in fs::read_dir(examples()).expect("the examples").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("windlass.toml").is_file() {
            build(&entry.path(), &tables(&name), true).unwrap_or_else(|error| panic!("{name}: {error}"));
            count += 1;
        }
    }
    assert!(count >= 7, "{count} examples");
}

#[tokio::test]
async fn the_python_function_is_a_tool() {
    let text = fs::read_to_string(examples().join("python-tool/tool.py")).expect("the function");
    assert!(text.lines().count() < 15, "the recipe promises fewer than 15 lines");
    let recipe = fs::read_to_string(examples().join("../docs/recipes/python-tool.md")).expect("the recipe");
    assert!(recipe.contains(&text), "the recipe shows another function");
    let (_folder, catalog) = copy("python-tool");
    let tool = tool(&catalog, "shipping_cost");
    let answer = tool.call(call(r#"{"country":"AT","grams":3200,"express":true}"#)).await;
    assert_eq!(answer, Ok(json(r#"{"cents":1930,"currency":"EUR"}"#)));
    let failure = tool.call(call(r#"{"country":"NO","grams":500}"#)).await.unwrap_err();
    assert_eq!((failure.code, failure.status), (Code::ToolFailed, Some(1)));
    assert!(failure.message.ends_with("no rates for NO"), "{}", failure.message);
}

#[tokio::test]
async fn a_refund_with_the_same_key_is_made_once_and_can_be_found() {
    let (folder, catalog) = copy("support-triage");
    let refund = r#"{"order_id":"B-7741","cents":9450,"reason":"dented"}"#;
    let find = async |key: &str| tool(&catalog, "find_refund").call(call(&format!(r#"{{"effect_id":"{key}"}}"#))).await;
    assert_eq!(find("run-1#7").await.unwrap().get("happened"), Some(&Value::Bool(false)));
    for _ in 0..2 {
        let answer = tool(&catalog, "issue_refund").call(keyed(refund, "run-1#7")).await;
        assert_eq!(answer, Ok(json(r#"{"refunded":9450}"#)));
    }
    assert_eq!(fs::read_dir(folder.path().join("desk/refunds")).expect("refunds").count(), 1);
    assert_eq!(find("run-1#7").await, Ok(json(r#"{"happened":true,"result":{"refunded":9450}}"#)));
    let large = r#"{"order_id":"B-7741","cents":99999999,"reason":"x"}"#;
    let failure = tool(&catalog, "issue_refund").call(keyed(large, "run-1#8")).await.unwrap_err();
    assert_eq!(failure.error_type.as_deref(), Some("TooMuch"));
}

#[tokio::test]
async fn the_desk_reads_and_writes() {
    let (folder, catalog) = copy("support-triage");
    let run = async |name: &str, arguments: &str| tool(&catalog, name).call(call(arguments)).await;
    let order = run("find_order", r#"{"order_id":"B-7741"}"#).await.unwrap();
    assert_eq!(order.get("cents_paid"), Some(&Value::Int(18_900)));
    let failure = run("find_order", r#"{"order_id":"B-9999"}"#).await.unwrap_err();
    assert_eq!(&*failure.message, "there is no order B-9999");
    let articles = run("search_articles", r#"{"words":"damaged refund"}"#).await.unwrap();
    assert_eq!(articles.get("articles").and_then(Value::as_list).map(<[Value]>::len), Some(1));
    for _ in 0..2 {
        run("set_priority", r#"{"ticket_id":"T-1","priority":"low"}"#).await.unwrap();
        run("send_reply", r#"{"to":"a@example.org","text":"hello"}"#).await.unwrap();
    }
    let sent = fs::read_to_string(folder.path().join("desk/sent.jsonl")).expect("letters");
    assert_eq!(sent.lines().count(), 2, "nothing drops a second letter: that is what its contract says");
}

#[tokio::test]
async fn an_order_with_the_same_key_is_placed_once() {
    let (folder, catalog) = copy("human-approval");
    let first = tool(&catalog, "place_order").call(keyed(r#"{"context":{"a":1}}"#, "run-1#3")).await.unwrap();
    let again = tool(&catalog, "place_order").call(keyed(r#"{"context":{"a":1}}"#, "run-1#3")).await.unwrap();
    assert_eq!(first, again);
    assert!(first.at_path(&["output", "order_number"]).as_str().expect("a number").starts_with("PO-"));
    assert_eq!(fs::read_dir(folder.path().join("orders")).expect("orders").count(), 1);
    let note = tool(&catalog, "note_decision").call(call("{}")).await;
    assert_eq!(note, Ok(json(r#"{"output":{"by":"purchasing rules"}}"#)));
}

#[tokio::test]
async fn the_other_actions_answer() {
    let (_folder, catalog) = copy("selective-routing");
    let answer = tool(&catalog, "known_answer").call(call("{}")).await.unwrap();
    assert!(answer.at_path(&["output", "answer"]).as_str().expect("text").contains("0800 5511"));
    let (folder, catalog) = copy("background-work");
    assert_eq!(tool(&catalog, "store_profile").call(call(r#"{"context":{}}"#)).await, Ok(Value::Null));
    assert!(folder.path().join("profiles/run-1.json").is_file());
}
