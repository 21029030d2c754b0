//! What a run gives whose output is larger than its contract allows.

use std::collections::BTreeMap;

use windlass_core::input::Ending;
use windlass_core::label::{Label, is_cut, of_result};
use windlass_core::value::Value;

use crate::scenario::Bench;

const MACHINE: &str = r#"
spec: flatmachine
spec_version: 4.2.1
data:
  name: m
  settings:
    labels: {secret: [/token]}
    output_schema: {type: object, properties: {text: {type: string}, token: {type: string}}, required: [text]}
  states:
    start: {type: initial, transitions: [{to: end}]}
    end: {type: final, output: {text: input.text, token: input.token}}
"#;

fn ran(terms: &str) -> Bench {
    let files = BTreeMap::from([("machine.yml".to_owned(), MACHINE.to_owned())]);
    let mut bench = Bench::new(files);
    bench.line("policy {}");
    bench.line(&format!("terms {terms}"));
    bench.line(&format!(r#"start {{"text":"{}","token":"t-1"}}"#, "abc ".repeat(1_000)));
    bench
}

#[test]
fn a_larger_output_is_cut_where_the_contract_says_so_and_the_run_keeps_the_whole() {
    let bench = ran(r#"{"output_bytes":1100,"cut_output":true}"#);
    let Some(Ending::Completed { output }) = &bench.run.ending else { panic!("{:?}", bench.run.ending) };
    assert!(is_cut(output) && output.to_json().len() <= 1_100, "{output}");
    let whole = bench.run.output.to_json().len() as u64;
    assert_eq!(output.get("bytes"), Some(&Value::count(whole)));
    assert_eq!(output.get("digest"), Some(&Value::str(bench.run.output.digest().to_string())));
    assert_eq!(output.get("run"), Some(&Value::str("r")));
    let ending = bench.run.ending.clone().expect("an ending");
    let marks = of_result(&bench.run, &ending).expect("labels are kept");
    assert!(marks.at(&["text".into()]).contains_key(&Label::Secret), "the text may hold what was secret: {marks:?}");
}

#[test]
fn a_larger_output_fails_the_run_where_the_contract_says_nothing() {
    let bench = ran(r#"{"output_bytes":1100}"#);
    assert!(
        matches!(&bench.run.ending, Some(Ending::Failed { failure, .. }) if failure.code.as_str() == "run.too_large")
    );
}

#[test]
fn what_fits_is_given_as_it_is() {
    let bench = ran(r#"{"output_bytes":5000,"cut_output":true}"#);
    assert!(matches!(&bench.run.ending, Some(Ending::Completed { output }) if *output == bench.run.output));
}
