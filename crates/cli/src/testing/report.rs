//! Results of tests: as a JUnit file, and as new text for `expect` in a test file.

use std::fmt::Write;

use super::case::Expect;

/// One case that ran.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    /// The test file.
    pub file: String,
    /// The case.
    pub case: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was different; empty when it passed.
    pub differences: Vec<String>,
}

/// The JUnit report of all cases.
#[must_use]
pub(crate) fn junit(ran: &[Ran]) -> String {
    let failures = ran.iter().filter(|r| !r.differences.is_empty()).count();
    let seconds: f64 = ran.iter().map(|r| r.seconds).sum();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{}\" failures=\"{failures}\" time=\"{seconds:.3}\">\n",
        ran.len()
    );
    let mut rest = ran;
    while let Some(first) = rest.first() {
        let end = rest.iter().position(|r| r.file != first.file).unwrap_or(rest.len());
        let (suite, others) = rest.split_at(end);
        rest = others;
        let failed = suite.iter().filter(|r| !r.differences.is_empty()).count();
        let time: f64 = suite.iter().map(|r| r.seconds).sum();
        let file = xml(&first.file);
        let _ = writeln!(
            out,
            "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failed}\" time=\"{time:.3}\">",
            suite.len()
        );
        for case in suite {
            let head =
                format!("    <testcase classname=\"{file}\" name=\"{}\" time=\"{:.3}\"", xml(&case.case), case.seconds);
            match case.differences.first() {
                None => {
                    let _ = writeln!(out, "{head}/>");
                }
                Some(first) => {
                    let _ = writeln!(
                        out,
                        "{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                        xml(first),
                        xml(&case.differences.join("\n"))
                    );
                }
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The text of a test file with the `expect` of one case replaced; everything else, comments too, stays. `None` when
/// the file is not written as blocks, so that the place cannot be told.
#[must_use]
pub(crate) fn rewrite(text: &str, case: &str, expect: &Expect) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (item, indent) = lines.iter().enumerate().find_map(|(at, line)| {
        let trimmed = line.trim_start().strip_prefix("- ")?;
        let name = trimmed.trim_start().strip_prefix("name:")?;
        let offset = line.len() - trimmed.trim_start().len();
        (scalar(name) == case).then_some((at, offset))
    })?;
    let inside = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || indent_of(line) >= indent;
    let mut end = lines.iter().skip(item + 1).position(|line| !inside(line)).map_or(lines.len(), |n| item + 1 + n);
    while end > item + 1 && (lines[end - 1].trim().is_empty() || lines[end - 1].trim_start().starts_with('#')) {
        end -= 1;
    }
    let found =
        (item + 1..end).find(|at| indent_of(lines[*at]) == indent && lines[*at].trim_start().starts_with("expect:"));
    let (start, stop) = match found {
        None => (end, end),
        Some(start) => {
            let more = |line: &&str| line.trim().is_empty() || indent_of(line) > indent;
            let length = lines[start + 1..end].iter().take_while(|line| more(line)).count();
            (start, start + 1 + length)
        }
    };
    let block = serde_saphyr::to_string(expect).ok()?;
    let mut out: Vec<String> = lines[..start].iter().map(|line| (*line).to_owned()).collect();
    out.push(format!("{}expect:", " ".repeat(indent)));
    out.extend(block.lines().map(|line| format!("{}{line}", " ".repeat(indent + 2))));
    out.extend(lines[stop..].iter().map(|line| (*line).to_owned()));
    Some(out.join("\n") + "\n")
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The text of a plain or quoted scalar on one line.
fn scalar(text: &str) -> String {
    serde_saphyr::from_str::<String>(text.trim()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_escapes_what_it_quotes() {
        let ran = |case: &str, differences: &[&str]| Ran {
            file: "a/tests.yml".into(),
            case: case.into(),
            seconds: 0.25,
            differences: differences.iter().map(|d| (*d).to_owned()).collect(),
        };
        let xml = junit(&[ran("one", &[]), ran("two <b>", &["output: \"x\" & more", "second"])]);
        assert!(xml.contains("tests=\"2\" failures=\"1\" time=\"0.500\""), "{xml}");
        assert!(xml.contains("name=\"two &lt;b&gt;\""), "{xml}");
        assert!(xml.contains("message=\"output: &quot;x&quot; &amp; more\""), "{xml}");
    }

    #[test]
    fn only_the_expectation_of_the_case_is_rewritten() {
        let text = "# top\ncases:\n  - name: one\n    expect:\n      output:\n        a: 1\n\n  # about two\n  - name: \"two\"\n    input: {}\n    # stays\n    expect:\n      output: {a: 2}\n      states: [x]\n    max_steps: 3\n";
        let expect = Expect { states: Some(vec!["y".into()]), ..Expect::default() };
        let new = rewrite(text, "two", &expect).expect("rewritten");
        assert!(
            new.starts_with(
                "# top\ncases:\n  - name: one\n    expect:\n      output:\n        a: 1\n\n  # about two\n"
            )
        );
        assert!(new.contains("    # stays\n    expect:\n      states:\n"), "{new}");
        assert!(new.ends_with("    max_steps: 3\n"), "{new}");
        let parsed: super::super::case::TestFile = serde_saphyr::from_str(&new).expect("parses");
        assert_eq!(parsed.cases[1].expect, expect);
        let one = rewrite(text, "one", &expect).expect("rewritten");
        let parsed: super::super::case::TestFile = serde_saphyr::from_str(&one).expect("parses");
        assert_eq!(parsed.cases[0].expect, expect);
        assert!(one.contains("  # about two\n"), "{one}");
        assert_eq!(rewrite("cases: [{name: one}]", "one", &expect), None);
    }
}
