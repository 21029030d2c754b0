//! A rule set that was read, checked and found good: answers one question at a time, and says why.
//!
//! What decides: a `forbid` that applies denies, else one that a person can lift asks, else a `permit` allows, else it is
//! denied. A tool that nothing describes is denied before any rule is asked, and so is what cannot be evaluated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    EvaluationError, PolicyId, Request, ResourceConstraint, RestrictedExpression, Schema,
};
use serde::Serialize;
use serde_json::Value as Json;
use windlass_core::approval::Asking;
use windlass_core::contract::Contract;
use windlass_core::ids::{Digest, Name};
use windlass_core::policy::{ARGUMENTS_UNKNOWN, Answer};

use crate::arguments::{Clash, Declared};
use crate::diagnostic::{Finding, Findings, Severity};
use crate::entities::{Registry, Uid, entity_json};
use crate::question::{ARGS, Asked, Attributes, Subject};
use crate::rules::{Rule, Rules, Weight, actions};
use crate::schema::schema_with;
use crate::source::{Kind, Sources};
use crate::trust::Scores;

/// How the ids of answers that no rule gave begin.
pub(crate) const BUILT_IN: &str = "windlass.";
/// Nothing permits it.
const DEFAULT_DENY: &str = "windlass.default_deny";
/// Nothing describes the tool.
const UNKNOWN_TOOL: &str = "windlass.unknown_tool";
/// A rule looks at an argument that is not what the set declares.
const ARGUMENT_UNFIT: &str = "windlass.argument_unfit";
/// A rule could not be evaluated.
const CANNOT_EVALUATE: &str = "windlass.cannot_evaluate";

/// What the rules say about one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) answer: Answer,
    pub(crate) rule: Name,
    pub(crate) reason: Name,
    /// What the rule says about its question.
    pub(crate) asking: Option<Box<Asking>>,
    /// The score that was set for the agent's version, when one was.
    pub(crate) trust: Option<u32>,
}

/// Rules and entities that fit the schema and each other.
#[derive(Debug)]
pub struct RuleSet {
    folder: PathBuf,
    version: Digest,
    rules: Rules,
    registry: Registry,
    /// The arguments of calls that its rules may look at.
    declared: Declared,
    /// What it was checked against.
    schema: Schema,
    warnings: Vec<Finding>,
    reads_labels: bool,
}

/// Why a question is answered as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What the rules say.
    pub answer: Answer,
    /// The rule that decided.
    pub rule: Name,
    /// Why, for people.
    pub reason: Name,
    /// Version of the rule set.
    pub version: Name,
    /// What the rule says about its question, when it asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asking: Option<Box<Asking>>,
    /// Every rule that applied, the deciding one first.
    pub applied: Vec<Applied>,
    /// What the rules looked at.
    pub attributes: Attributes,
}

/// A rule that applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Its id.
    pub rule: Name,
    /// `permit`, `ask` or `forbid`.
    pub effect: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The line it begins on.
    pub line: usize,
    /// The rule itself.
    pub text: String,
}

impl RuleSet {
    /// Reads and checks the rule set of a folder.
    ///
    /// # Errors
    /// Every file that cannot be read, every rule and entity that does not fit the schema.
    pub fn load(folder: &Path) -> Result<Self, Findings> {
        let (sources, mut findings) = Sources::read(folder).map_err(Findings)?;
        let (mut rules, mut registry) = (Rules::default(), Registry::default());
        let declaring = sources.files.iter().find(|file| file.kind == Kind::Arguments);
        let declared = declaring.map(Declared::read).transpose().map_err(Findings)?.unwrap_or_default();
        let schema = schema_with(&declared).map_err(|why| {
            let at = declaring.map_or(folder, |file| &file.path);
            Findings(vec![Finding::error(at, why)])
        })?;
        for file in &sources.files {
            let found = match file.kind {
                Kind::Arguments => continue,
                Kind::Rules => rules.read(file, (&declared, &schema)),
                Kind::Entities => registry.read(file).map(|()| Vec::new()),
            };
            match found {
                Ok(warnings) => findings.extend(warnings),
                Err(errors) => findings.extend(errors),
            }
        }
        if !sources.files.iter().any(|file| file.kind == Kind::Rules) {
            let finding = Finding::error(&sources.folder, "has no `.cedar` file");
            findings.push(finding.hint("without a rule everything is denied; begin with a `permit`"));
        }
        findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(Findings(findings));
        }
        for action in rules.unpermitted() {
            let finding =
                Finding::warning(&sources.folder, format_args!("no rule permits `{action}`: it is always denied"));
            findings.push(finding.hint(format_args!("permit (principal, action == Action::\"{action}\", resource);")));
        }
        let Sources { folder, version, .. } = sources;
        // The whole file, so that no way to write the attribute's name is missed but an escape, which the schema checks.
        let reads_labels = rules.rules.iter().any(|rule| rule.text.contains("labels") || rule.text.contains('\\'));
        Ok(Self { folder, version, rules, registry, declared, schema, warnings: findings, reads_labels })
    }

    /// The folder it was read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The hash of its files, 12 digits.
    #[must_use]
    pub fn version(&self) -> Name {
        self.version.short().into()
    }

    /// What it probably does not mean as it says.
    #[must_use]
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    /// How many rules and entities it has.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.rules.rules.len(), self.registry.len())
    }

    /// Whether a rule asks a person.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.rules.rules.iter().any(|rule| rule.weight == Weight::Ask)
    }

    /// Whether a rule names labels.
    pub(crate) fn reads_labels(&self) -> bool {
        self.reads_labels
    }

    /// Whether a rule looks at arguments of calls.
    #[must_use]
    pub fn reads_arguments(&self) -> bool {
        self.rules.rules.iter().any(|rule| rule.reads.is_some())
    }

    /// Where a rule looks at an argument that one of these tools never takes as it is declared: the rule denies every call with it.
    #[must_use]
    pub fn clashes<'c>(&self, tools: impl IntoIterator<Item = &'c Contract>) -> Vec<Finding> {
        let mut found = Vec::new();
        for tool in tools {
            for (name, Clash { place, declared, takes }) in self.declared.clashes(&Json::from(&tool.input_schema)) {
                let reads = |rule: &&Rule| rule.reads.as_ref().is_some_and(|reads| reads.has(name));
                let mut rules = self.rules.rules.iter().filter(reads);
                let Some(rule) = rules.find(|rule| self.is_about(rule, &tool.name)) else { continue };
                let (rule_id, tool) = (&rule.id, &tool.name);
                let finding = Finding::warning(
                    &rule.file,
                    format_args!(
                        "`{place}` is declared as `{declared}`, and the tool `{tool}` takes {takes}: rule `{rule_id}` denies \
                         every call of it that has `{name}`"
                    ),
                );
                let hint = "declare it as what the tool takes; where the rule is not about this tool, name its tools in its head";
                found.push(finding.at_line(rule.line, 1).hint(hint));
            }
        }
        found
    }

    /// Whether a rule that looks at arguments is about calls of a tool, by anybody.
    fn is_about(&self, rule: &Rule, tool: &Name) -> bool {
        let Some(scope) = self.rules.scopes.policy(&PolicyId::new(&*rule.id)) else { return false };
        let tool = Uid::new("Tool", &**tool);
        let is_tool =
            |named: &EntityUid| named.type_name().to_string() == tool.kind && named.id().unescaped() == tool.id;
        let is_within = |group: &EntityUid| {
            let above = self.registry.get(&tool).map(|record| self.registry.ancestors(record)).unwrap_or_default();
            let is = |uid: &Uid| group.type_name().to_string() == uid.kind && group.id().unescaped() == uid.id;
            is_tool(group) || above.iter().any(|(uid, _)| is(uid))
        };
        actions(scope).contains(&"CallTool")
            && match scope.resource_constraint() {
                ResourceConstraint::Any => true,
                ResourceConstraint::Is(kind) => kind.to_string() == tool.kind,
                ResourceConstraint::Eq(named) => is_tool(&named),
                ResourceConstraint::In(group) | ResourceConstraint::IsIn(_, group) => is_within(&group),
            }
    }

    /// Answers a question.
    pub(crate) fn rule_on(&self, subject: &Subject, asked: &Asked, scores: &Scores) -> Ruling {
        let attributes = Attributes::gather((&self.registry, &self.declared), subject, asked, scores);
        Ruling { trust: asked.score(scores), ..self.ruling(asked, &attributes).0 }
    }

    /// Answers a question and says why, with the scores that were set for versions of agents.
    #[must_use]
    pub fn explain(&self, subject: &Subject, asked: &Asked, scores: &Scores) -> Explanation {
        let attributes = Attributes::gather((&self.registry, &self.declared), subject, asked, scores);
        let (ruling, applied) = self.ruling(asked, &attributes);
        let shown = |index: &usize| {
            self.rules.rules.get(*index).map(|rule| Applied {
                rule: rule.id.clone(),
                effect: match rule.weight {
                    Weight::Permit => "permit",
                    Weight::Ask => "ask",
                    Weight::Forbid => "forbid",
                },
                file: rule.file.clone(),
                line: rule.line,
                text: rule.text.clone(),
            })
        };
        let applied = applied.iter().filter_map(shown).collect();
        let Ruling { answer, rule, reason, asking, .. } = ruling;
        Explanation { answer, rule, reason, asking, version: self.version(), applied, attributes }
    }

    /// The answer, and the rules that applied, the deciding one first.
    fn ruling(&self, asked: &Asked, attributes: &Attributes) -> (Ruling, Vec<usize>) {
        if let Asked::CallTool { tool, .. } = asked
            && !attributes.known
        {
            let reason = format!("no contract and no entity describes the tool `{tool}`");
            return (denied(UNKNOWN_TOOL, &reason), Vec::new());
        }
        let (shown, unfit) = match asked {
            Asked::CallTool { arguments, .. } if self.reads_arguments() => arguments.shown(&self.declared),
            _ => Default::default(),
        };
        let request = match request(attributes, &self.schema, shown) {
            Ok(request) => request,
            Err(why) => return (denied(CANNOT_EVALUATE, &why), Vec::new()),
        };
        if let Some(ruling) = self.blind(asked, &unfit, &request) {
            return (ruling, Vec::new());
        }
        // A rule that errs is left out by Cedar; a `forbid` left out would allow, so nothing is allowed then.
        let firm = match self.evaluate(&self.rules.firm, &request) {
            Ok(found) => found,
            Err(why) => return (denied(CANNOT_EVALUATE, &why), Vec::new()),
        };
        if firm.0 == Decision::Deny {
            return match firm.1.first() {
                Some(first) => (self.ruled(Answer::Deny, *first), firm.1),
                None => (denied(DEFAULT_DENY, "no rule permits it"), Vec::new()),
            };
        }
        let liftable = match self.evaluate(&self.rules.liftable, &request) {
            Ok(found) => found,
            Err(why) => return (denied(CANNOT_EVALUATE, &why), Vec::new()),
        };
        match (liftable.1.first(), firm.1.first()) {
            (Some(first), _) => (self.ruled(Answer::Ask, *first), liftable.1.into_iter().chain(firm.1).collect()),
            (None, Some(first)) => (self.ruled(Answer::Allow, *first), firm.1),
            (None, None) => (denied(CANNOT_EVALUATE, "the rule that permits it is not known"), Vec::new()),
        }
    }

    /// The denial of a call with an argument that is not shown to a rule which would look at it: left out, it would be a way
    /// around that rule.
    fn blind(&self, asked: &Asked, unfit: &BTreeSet<String>, request: &(Request, Entities)) -> Option<Ruling> {
        if unfit.is_empty() {
            return None;
        }
        let Asked::CallTool { arguments, .. } = asked else { return None };
        let response = Authorizer::new().is_authorized(&request.0, &self.rules.scopes, &request.1);
        let scoped = response.diagnostics().reason().filter_map(|id| self.rules.index(AsRef::<str>::as_ref(id)));
        let mut scoped: Vec<usize> = scoped.collect();
        scoped.sort_unstable();
        if !arguments.is_known()
            && let Some(denied) = self.denied_anyway(&scoped, request)
        {
            return Some(denied);
        }
        let (rule, name) = scoped.into_iter().filter_map(|index| self.rules.rules.get(index)).find_map(|rule| {
            let name = unfit.iter().find(|name| rule.reads.as_ref().is_some_and(|reads| reads.has(name)))?;
            Some((&rule.id, name))
        })?;
        Some(if arguments.is_known() {
            let why =
                format!("rule `{rule}` looks at the argument `{name}`, which is not what the rule set declares it as");
            denied(ARGUMENT_UNFIT, &why)
        } else {
            let why = format!("rule `{rule}` looks at the arguments, and they are not known any more");
            denied(ARGUMENTS_UNKNOWN, &why)
        })
    }

    /// The denial of a call whatever its arguments are: a rule that looks at none forbids it, or none can permit it. `scoped`
    /// are the rules that look at some and are about it.
    fn denied_anyway(&self, scoped: &[usize], request: &(Request, Entities)) -> Option<Ruling> {
        let (decision, rules) = match self.evaluate(&self.rules.blind, request) {
            Ok(found) => found,
            Err(why) => return Some(denied(CANNOT_EVALUATE, &why)),
        };
        let permits = |index: &usize| self.rules.rules.get(*index).is_some_and(|rule| rule.weight == Weight::Permit);
        match (decision, rules.first()) {
            (Decision::Allow, _) => None,
            (Decision::Deny, Some(first)) => Some(self.ruled(Answer::Deny, *first)),
            (Decision::Deny, None) if scoped.iter().any(permits) => None,
            (Decision::Deny, None) => Some(denied(DEFAULT_DENY, "no rule permits it")),
        }
    }

    /// The decision of a set and the rules behind it, in their order.
    fn evaluate(
        &self,
        set: &cedar_policy::PolicySet,
        (request, entities): &(Request, Entities),
    ) -> Result<(Decision, Vec<usize>), String> {
        let response = Authorizer::new().is_authorized(request, set, entities);
        if let Some(AuthorizationError::PolicyEvaluationError(error)) = response.diagnostics().errors().next() {
            return Err(format!("rule `{}`: {}", error.policy_id(), erred(error.inner())));
        }
        let mut rules: Vec<usize> =
            response.diagnostics().reason().filter_map(|id| self.rules.index(AsRef::<str>::as_ref(id))).collect();
        rules.sort_unstable();
        Ok((response.decision(), rules))
    }

    fn ruled(&self, answer: Answer, index: usize) -> Ruling {
        match self.rules.rules.get(index) {
            Some(rule) => {
                let asking = rule.asking.clone();
                Ruling { answer, rule: rule.id.clone(), reason: rule.reason.clone(), asking, trust: None }
            }
            None => denied(CANNOT_EVALUATE, "the rule is not known"),
        }
    }
}

/// Why a rule cannot be evaluated. Values of arguments are not repeated.
fn erred(error: &EvaluationError) -> String {
    match error {
        EvaluationError::IntegerOverflow(_) => "a number becomes too large".to_owned(),
        EvaluationError::FailedExtensionFunctionExecution(_) => "a function is given what it does not take".to_owned(),
        other => other.to_string(),
    }
}

fn denied(rule: &str, reason: &str) -> Ruling {
    Ruling { answer: Answer::Deny, rule: rule.into(), reason: reason.into(), asking: None, trust: None }
}

fn request(
    attributes: &Attributes,
    schema: &Schema,
    shown: Vec<(String, RestrictedExpression)>,
) -> Result<(Request, Entities), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let action = uid(&Uid::new("Action", attributes.action))?;
    let (principal, resource) = (uid(&attributes.ends.0)?, uid(&attributes.ends.1)?);
    let mut context = attributes.context.clone();
    let has_arguments = context.as_object_mut().is_some_and(|context| context.remove(ARGS).is_some());
    let mut context = Context::from_json_value(context, None).map_err(|error| said(&error))?;
    if has_arguments {
        let record = RestrictedExpression::new_record(shown).map_err(|error| said(&error))?;
        context = context.merge([(ARGS.to_owned(), record)]).map_err(|error| said(&error))?;
    }
    let request = Request::new(principal, action, resource, context, Some(schema)).map_err(|error| said(&error))?;
    let mut entities = Vec::with_capacity(attributes.entities.len());
    for (uid, record) in &attributes.entities {
        let entity = Entity::from_json_value(entity_json(uid, record), Some(schema));
        entities.push(entity.map_err(|error| said(&error))?);
    }
    let entities = Entities::from_entities(entities, None).map_err(|error| said(&error))?;
    Ok((request, entities))
}

fn uid(uid: &Uid) -> Result<EntityUid, String> {
    let kind: EntityTypeName = uid.kind.parse().map_err(|error| format!("`{}` is no type: {error}", uid.kind))?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(&uid.id)))
}
