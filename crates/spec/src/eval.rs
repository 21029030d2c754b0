//! The engine for templates, conditions and schemas: implements [`windlass_core::eval::Evaluator`].
//!
//! Owns the caches of what was compiled, and the mapping of every failure to a code. What an expression means is in
//! the modules below: templates, simple conditions, CEL, schemas.

mod cache;
mod cel;
mod compare;
mod meter;
mod number;
mod pattern;
mod schema;
mod simple;
mod template;

use std::sync::Arc;

use windlass_core::eval::{Evaluator, Scope};
use windlass_core::failure::{Code, Failure};
use windlass_core::ids::Name;
use windlass_core::machine::{Condition, Dialect, Engine as Language};
use windlass_core::value::Value;

use cache::Cache;
use meter::Fault;
pub use meter::Limits;

/// Evaluates templates, conditions and schemas. Clones share the caches. The same source and scope give the same
/// result on every host; what is cached never changes it.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    limits: Limits,
    caches: Arc<Caches>,
}

#[derive(Debug, Default)]
struct Caches {
    templates: Cache<template::Template>,
    simple: Cache<simple::Condition>,
    cel: Cache<cel::Condition>,
    schemas: Cache<schema::Schema>,
    patterns: Cache<regex::Regex>,
}

impl Engine {
    /// An engine with bounds of its own.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, caches: Arc::default() }
    }
}

impl Evaluator for Engine {
    fn render(&self, dialect: Dialect, source: &Name, scope: &Scope) -> Result<Value, Failure> {
        self.caches
            .templates
            .get_or_make(source, || template::compile(source))
            .and_then(|compiled| template::render(&compiled, dialect, scope, self.limits))
            .map_err(|fault| fault.failure(source))
    }

    fn reads(&self, _: Dialect, source: &Name) -> Vec<Vec<Name>> {
        let compiled = self.caches.templates.get_or_make(source, || template::compile(source));
        // A text that does not compile gives nothing; should it, it has read everything.
        compiled.map_or_else(|_| vec![Vec::new()], |template| template.reads().to_vec())
    }

    fn holds(&self, condition: &Condition, scope: &Scope) -> Result<bool, Failure> {
        let source = &condition.source;
        if source.trim().is_empty() {
            return Ok(true);
        }
        let answer = match condition.engine {
            Language::Simple => self
                .caches
                .simple
                .get_or_make(source, || simple::compile(source))
                .and_then(|compiled| simple::holds(&compiled, scope, self.limits)),
            Language::Cel => self
                .caches
                .cel
                .get_or_make(source, || cel::compile(source))
                .and_then(|compiled| cel::holds(&compiled, scope, self.limits)),
        };
        answer.map_err(|fault| in_condition(fault, source))
    }

    fn fit(&self, schema: &Value, value: &Value) -> Result<Value, Vec<String>> {
        let compiled = self
            .caches
            .schemas
            .get_or_make(&schema.to_json(), || schema::compile(schema))
            .map_err(|failure| vec![failure.message.to_string()])?;
        schema::fit(&compiled, value)
    }

    fn capture(&self, pattern: &str, text: &str) -> Result<Option<String>, Failure> {
        let regex = self.caches.patterns.get_or_make(pattern, || pattern::compile(pattern, true))?;
        Ok(pattern::capture(&regex, text))
    }
}

/// The failure of a condition: what the shared parts say about templates is said about conditions.
fn in_condition(fault: Fault, source: &str) -> Failure {
    let failure = fault.failure(source);
    let code = match failure.code {
        Code::TemplateSyntax => Code::ConditionSyntax,
        Code::TemplateType | Code::TemplateUndefined => Code::ConditionType,
        Code::TemplateLimit => Code::ConditionLimit,
        other => other,
    };
    Failure { code, ..failure }
}

/// Checks a template text as it is loaded.
///
/// # Errors
/// `template.syntax` and `template.limit`, with `offset`, `line` and `column` in the detail, each from the start of
/// `source`, and `hint` where there is one.
pub fn check_template(dialect: Dialect, source: &str) -> Result<(), Failure> {
    match dialect {
        Dialect::Machine | Dialect::Prompt => {
            template::compile(source).map(|_| ()).map_err(|fault| fault.failure(source))
        }
    }
}

/// Checks a condition as it is loaded. A blank one is always true.
///
/// # Errors
/// `condition.syntax` and `condition.limit`, with the same detail as [`check_template`].
pub fn check_condition(engine: Language, source: &str) -> Result<(), Failure> {
    if source.trim().is_empty() {
        return Ok(());
    }
    let compiled = match engine {
        Language::Simple => simple::compile(source).map(|_| ()),
        Language::Cel => cel::compile(source).map(|_| ()),
    };
    compiled.map_err(|fault| in_condition(fault, source))
}

/// Checks a JSON Schema as it is loaded.
///
/// # Errors
/// `spec.invalid` for a schema that is not valid, that refers to something outside itself, or whose check could take
/// time out of proportion.
pub fn check_schema(schema: &Value) -> Result<(), Failure> {
    schema::compile(schema).map(|_| ())
}

/// Checks a regular expression as it is loaded.
///
/// # Errors
/// `template.syntax` for one that does not parse or is too large.
pub fn check_pattern(pattern: &str) -> Result<(), Failure> {
    pattern::compile(pattern, true).map(|_| ())
}

/// Whether a text has anything to be filled in. Comments alone do not make a template.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The path, when a text is a bare path: `context`, `input` or `output`, then ASCII names with dots between, blanks
/// around allowed. It stands for the value there, with its type.
#[must_use]
pub fn bare_path(text: &str) -> Option<Vec<Name>> {
    let mut parts = text.trim().split('.');
    let root = parts.next().filter(|root| matches!(*root, "context" | "input" | "output"))?;
    let mut path = vec![Name::from(root)];
    for part in parts {
        let mut chars = part.chars();
        let first = chars.next()?;
        if !(first.is_ascii_alphabetic() || first == '_') || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        path.push(Name::from(part));
    }
    Some(path)
}

#[cfg(test)]
mod tests;
