//! Templates: Jinja's language over the values of a run, evaluated within bounds.
//!
//! The parser is minijinja's. Everything after it is here, because every operator, filter and method must pay for
//! what it allocates before it does; that cannot be added to an engine from outside.

mod arguments;
mod checks;
mod compile;
mod filters;
mod filters_list;
mod filters_text;
mod format;
mod ir;
mod methods;
mod ops;
mod print;
mod reads;
mod run;
mod val;

use windlass_core::eval::Scope;
use windlass_core::ids::Name;
use windlass_core::machine::Dialect;
use windlass_core::value::Value;

use super::meter::{self, Fault, Limits};
use super::number;

/// A compiled template, and the paths that it names.
#[derive(Debug)]
pub(super) struct Template(ir::Compiled, Vec<Vec<Name>>);

impl Template {
    /// The paths that it names anywhere.
    pub(super) fn reads(&self) -> &[Vec<Name>] {
        &self.1
    }
}

/// Reads a template text.
pub(super) fn compile(source: &str) -> Result<Template, Fault> {
    let compiled = compile::compile(source)?;
    let reads = reads::of(&compiled);
    Ok(Template(compiled, reads))
}

/// Renders: a machine's text that is exactly one expression keeps that expression's type, all else is text.
pub(super) fn render(template: &Template, dialect: Dialect, scope: &Scope, limits: Limits) -> Result<Value, Fault> {
    let style = match dialect {
        Dialect::Machine => print::Style::TEXT,
        Dialect::Prompt => print::Style::PROMPT,
    };
    match (dialect, template.0.single()) {
        (Dialect::Machine, Some(expr)) => run::native(expr, scope, style, limits),
        (Dialect::Machine | Dialect::Prompt, _) => run::text(&template.0, scope, style, limits).map(Value::from),
    }
}
