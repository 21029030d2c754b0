//! Rules from files: parsed, named, and checked against the schema, each finding with its place.
//!
//! A rule is a Cedar policy. `@id` names it, `@reason` says why for people, and `@answer("ask")` on a `forbid` makes it
//! one that a person can lift; `@expires`, `@escalate_after` and `@escalate_to` say how long that is waited for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{ActionConstraint, Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use regex::Regex;
use serde_json::{Value as Json, json};
use windlass_core::approval::{Asking, ESCALATIONS_MAX, EXPIRES_MS_MAX, Escalation};
use windlass_core::ids::Name;
use windlass_core::label::Label;

use crate::arguments::{self, Declared, Reads};
use crate::diagnostic::{Finding, place};
use crate::schema::ACTIONS;
use crate::source::File;

/// Bytes of a rule's id.
const ID_BYTES_MAX: usize = 128;
/// Bytes of a reason, which every verdict carries.
const REASON_BYTES_MAX: usize = 512;

/// What a rule that applies leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It allows.
    Permit,
    /// It forbids unless a person lifts it.
    Ask,
    /// It forbids.
    Forbid,
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) id: Name,
    pub(crate) weight: Weight,
    pub(crate) reason: Name,
    /// What it says about its question, when it asks.
    pub(crate) asking: Option<Box<Asking>>,
    /// The arguments that it looks at.
    pub(crate) reads: Option<Reads>,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Rules as read, in the order of files and lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
    /// Everything but the rules that a person can lift.
    pub(crate) firm: PolicySet,
    /// The rules that a person can lift.
    pub(crate) liftable: PolicySet,
    /// Of the firm ones those that look at no argument.
    pub(crate) blind: PolicySet,
    /// Of each rule that looks at arguments a `permit` with its scope alone: for whom, which action, on what.
    pub(crate) scopes: PolicySet,
    places: BTreeMap<Name, usize>,
    permitted: Vec<&'static str>,
}

impl Rules {
    /// The place of a rule in the order.
    pub(crate) fn index(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    /// Actions that no `permit` is about.
    pub(crate) fn unpermitted(&self) -> Vec<&'static str> {
        ACTIONS.into_iter().filter(|action| !self.permitted.contains(action)).collect()
    }

    /// Reads the rules of a file. Gives warnings.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn read(
        &mut self,
        file: &File,
        (declared, schema): (&Declared, &Schema),
    ) -> Result<Vec<Finding>, Vec<Finding>> {
        let set = PolicySet::from_str(&file.text).map_err(|errors| {
            let found = errors.iter().map(|error| located(file, error, Finding::error(&file.path, error)));
            found.collect::<Vec<_>>()
        })?;
        let mut errors: Vec<Finding> = Vec::new();
        for template in set.templates() {
            let finding = Finding::error(&file.path, format_args!("`{}` is a template", template.id()));
            errors.push(finding.hint("write the user or tool instead of `?principal` or `?resource`"));
        }
        let checked = Validator::new(schema.clone()).validate(&set, ValidationMode::default());
        errors.extend(
            checked
                .validation_errors()
                .map(|error| located(file, error, Finding::error(&file.path, unnamed(&error.to_string())))),
        );
        let warnings = checked
            .validation_warnings()
            .map(|warning| located(file, warning, Finding::warning(&file.path, unnamed(&warning.to_string()))));
        let mut warnings: Vec<Finding> = warnings.collect();
        let mut policies: Vec<&Policy> = set.policies().collect();
        policies.sort_by_key(|policy| number(policy.id()));
        let mut from = 0;
        for policy in policies {
            let at = begin(&file.text, policy, from);
            from = at + 1;
            warnings.extend(unknown_labels(&policy.to_string()).into_iter().map(|word| {
                let words: Vec<String> = Label::ALL.iter().map(|label| format!("`{}`", label.as_str())).collect();
                let message = format!("nothing has the label `{}`: this never holds", word.escape_debug());
                let finding = Finding::warning(&file.path, message).at(&file.text, at);
                finding.hint(format_args!("labels are {}", words.join(" and ")))
            }));
            if let Err(finding) = self.add((file, declared), policy, at) {
                errors.push(finding.at(&file.text, at));
            }
        }
        if errors.is_empty() { Ok(warnings) } else { Err(errors) }
    }

    fn add(&mut self, (file, declared): (&File, &Declared), policy: &Policy, at: usize) -> Result<(), Finding> {
        let wrong = |message: String| Finding::error(&file.path, message);
        let (line, _) = place(&file.text, at);
        for (key, _) in policy.annotations() {
            if !matches!(key, "id" | "reason" | "answer" | "expires" | "escalate_after" | "escalate_to") {
                return Err(wrong(format!("no rule has the annotation `@{key}`")).hint(
                    "there are `@id`, `@reason`, `@answer(\"ask\")`, and with it `@expires`, `@escalate_after` and \
                     `@escalate_to`",
                ));
            }
        }
        let id = match policy.annotation("id") {
            Some(id) => id.to_owned(),
            None => format!("{}:{line}", file.name()),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.chars().all(fits) || id.starts_with(crate::set::BUILT_IN) {
            return Err(wrong(format!("`{}` cannot name a rule", id.escape_debug())).hint(format!(
                "use up to {ID_BYTES_MAX} letters, digits, `.`, `_`, `-` and `:`; names that begin with `{}` are taken",
                crate::set::BUILT_IN
            )));
        }
        let reason = policy.annotation("reason").unwrap_or_default();
        if reason.len() > REASON_BYTES_MAX {
            return Err(wrong(format!("the reason has more than {REASON_BYTES_MAX} bytes")));
        }
        let weight = weight(policy).map_err(|(message, hint)| wrong(message).hint(hint))?;
        if let Some(other) = self.index(&id).and_then(|index| self.rules.get(index)) {
            let message = format!("the rule `{id}` is there already: {}:{}", other.file.display(), other.line);
            return Err(wrong(message).hint("give one of them another `@id`"));
        }
        let asking = asking(policy, weight).map_err(|(message, hint)| wrong(message).hint(hint))?;
        let set = if weight == Weight::Ask { &mut self.liftable } else { &mut self.firm };
        set.add(policy.new_id(PolicyId::new(&id))).map_err(|error| wrong(error.to_string()))?;
        let json = policy.to_json().map_err(|error| wrong(error.to_string()))?;
        let reads = Reads::of(&json);
        if reads.is_none() && weight != Weight::Ask {
            self.blind.add(policy.new_id(PolicyId::new(&id))).map_err(|error| wrong(error.to_string()))?;
        }
        if let Some(name) = reads.as_ref().and_then(|reads| reads.undeclared(declared)) {
            let finding =
                wrong(format!("looks at the argument `{name}`, which is not declared, so it would never hold"));
            return Err(finding.hint(format_args!("declare it in the file `{}`", arguments::FILE)));
        }
        if reads.is_some() {
            self.scopes.add(scope(&id, json).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
        }
        if weight == Weight::Permit {
            self.permitted.extend(actions(policy));
        }
        let id: Name = id.into();
        self.places.insert(id.clone(), self.rules.len());
        let reason = if reason.is_empty() { default_reason(weight, file, line) } else { reason.into() };
        let text = policy.to_string();
        self.rules.push(Rule { id, weight, reason, asking, reads, file: file.path.clone(), line, text });
        Ok(())
    }
}

/// A rule in its JSON form, without conditions, as a `permit`.
fn scope(id: &str, mut rule: Json) -> Result<Policy, String> {
    rule["effect"] = json!("permit");
    rule["conditions"] = json!([]);
    Policy::from_json(Some(PolicyId::new(id)), rule).map_err(|error| error.to_string())
}

fn default_reason(weight: Weight, file: &File, line: usize) -> Name {
    let word = match weight {
        Weight::Permit => "permitted",
        Weight::Ask => "a person decides",
        Weight::Forbid => "forbidden",
    };
    format!("{word} by {}:{line}", file.name()).into()
}

fn weight(policy: &Policy) -> Result<Weight, (String, &'static str)> {
    match (policy.effect(), policy.annotation("answer")) {
        (Effect::Permit, None) => Ok(Weight::Permit),
        (Effect::Forbid, None) => Ok(Weight::Forbid),
        (Effect::Forbid, Some("ask")) => Ok(Weight::Ask),
        (Effect::Permit, Some(_)) => Err((
            "a `permit` has no `@answer`".into(),
            "permit it, and add `@answer(\"ask\") forbid(...)` for the part that a person decides",
        )),
        (Effect::Forbid, Some(other)) => Err((
            format!("`{}` is no answer", other.escape_debug()),
            "`@answer(\"ask\")` asks a person; without it a `forbid` denies",
        )),
    }
}

/// What a rule says about the question that it asks.
fn asking(policy: &Policy, weight: Weight) -> Result<Option<Box<Asking>>, (String, &'static str)> {
    let given = |key| policy.annotation(key);
    let (expires, after, to) = (given("expires"), given("escalate_after"), given("escalate_to"));
    if expires.is_none() && after.is_none() && to.is_none() {
        return Ok(None);
    }
    if weight != Weight::Ask {
        let message = "only a rule that asks has `@expires`, `@escalate_after` and `@escalate_to`";
        return Err((message.into(), "write `@answer(\"ask\")` on a `forbid`"));
    }
    let expires_ms = expires.map(span_ms).transpose()?;
    let escalation = match (after, to) {
        (None, None) => None,
        (Some(after), Some(to)) => {
            let to: Vec<Name> = to.split(',').map(|one| one.trim().into()).collect();
            let is_name = |name: &Name| !name.is_empty() && name.len() <= ID_BYTES_MAX;
            if to.len() > ESCALATIONS_MAX || !to.iter().all(is_name) {
                let message = format!("`@escalate_to` names 1 to {ESCALATIONS_MAX} groups or channels");
                return Err((message, "write `@escalate_to(\"leads, oncall\")`"));
            }
            Some(Escalation { after_ms: span_ms(after)?, to })
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(("an escalation has `@escalate_after` and `@escalate_to`".into(), "give both"));
        }
    };
    let last_ms = escalation.as_ref().map(Escalation::last_ms);
    if let (Some(expires_ms), Some(last_ms)) = (expires_ms, last_ms)
        && last_ms >= expires_ms
    {
        let message = format!("the last is asked after {} s, when the question has expired", last_ms / 1_000);
        return Err((message, "`@escalate_after` is waited for before each name: give it less, or `@expires` more"));
    }
    Ok(Some(Box::new(Asking { expires_ms, escalation })))
}

/// Labels that a rule looks for and that nothing has.
fn unknown_labels(text: &str) -> Vec<&str> {
    static LOOKED_FOR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"labels"?\s*\]?\s*\.\s*contains(?:All|Any)?\s*\(([^)]*)\)"#).expect("a pattern of ours is valid")
    });
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""([^"]*)""#).expect("a pattern of ours is valid"));
    let sets = LOOKED_FOR.captures_iter(text).filter_map(|found| found.get(1));
    let words = sets.flat_map(|set| WORD.captures_iter(set.as_str())).filter_map(|found| found.get(1));
    words.map(|word| word.as_str()).filter(|word| Label::parse(word).is_none()).collect()
}

/// A time such as `90s`, `15m`, `8h` or `2d`, in milliseconds.
fn span_ms(text: &str) -> Result<u64, (String, &'static str)> {
    let wrong =
        || (format!("`{}` is no time", text.escape_debug()), "write `90s`, `15m`, `8h` or `2d`, at most a year");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(seconds * 1_000).ok_or_else(wrong)?;
    if (1..=EXPIRES_MS_MAX).contains(&ms) { Ok(ms) } else { Err(wrong()) }
}

/// The actions that a rule is about.
pub(crate) fn actions(policy: &Policy) -> Vec<&'static str> {
    let named: Vec<String> = match policy.action_constraint() {
        ActionConstraint::Any => return ACTIONS.to_vec(),
        ActionConstraint::Eq(action) => vec![action.id().unescaped().to_owned()],
        ActionConstraint::In(actions) => actions.iter().map(|action| action.id().unescaped().to_owned()).collect(),
    };
    ACTIONS.into_iter().filter(|action| named.iter().any(|name| name == action)).collect()
}

/// A policy's number within its file: Cedar calls them `policy0`, `policy1`, …
fn number(id: &PolicyId) -> usize {
    let text = id.to_string();
    text.strip_prefix("policy").and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX)
}

/// Where a rule begins in its file, at or after `from`.
fn begin(text: &str, policy: &Policy, from: usize) -> usize {
    let source = policy.to_string();
    text.get(from..).and_then(|rest| rest.find(source.trim())).map_or(from, |at| from + at)
}

/// With the place that Cedar names, and what it says would help.
pub(crate) fn located(file: &File, diagnostic: &dyn Diagnostic, finding: Finding) -> Finding {
    let mut finding = finding;
    if let Some(label) = diagnostic.labels().and_then(|mut labels| labels.next()) {
        finding = finding.at(&file.text, label.offset());
        if let Some(said) = label.label().filter(|said| !said.is_empty()) {
            finding.message = format!("{}: {said}", finding.message);
        }
    }
    match diagnostic.help() {
        Some(help) => finding.hint(help),
        None => finding,
    }
}

/// Cedar's text without the name that it gave the rule, which says nothing to people.
fn unnamed(text: &str) -> &str {
    match text.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => rest,
        None => text,
    }
}
