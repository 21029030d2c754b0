//! `windlass explain-schema`: every field of the document format and how well it is supported.

use serde_json::json;
use windlass_spec::features::rows;

use crate::args;
use crate::exit::{Exit, Problem};
use crate::format;
use crate::output::Output;

/// Prints the feature table, or the JSON Schema of one document kind.
///
/// # Errors
/// A tier or a document kind that does not exist.
pub(crate) fn explain(output: Output, args: &args::ExplainSchema) -> Result<Exit, Problem> {
    if let Some(kind) = &args.document {
        let schemas = format::schemas();
        let found = schemas.iter().find(|(name, _)| name == kind).ok_or_else(|| {
            let known: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
            Problem::invalid(format!("`{kind}` is no document kind")).hint(format!("one of {}", known.join(", ")))
        })?;
        output.document(&found.1);
        return Ok(Exit::Ok);
    }
    if let Some(tier) = args.tier.as_deref().filter(|t| !matches!(*t, "supported" | "experimental" | "blocked")) {
        return Err(Problem::invalid(format!("`{tier}` is no tier")).hint("one of supported, experimental, blocked"));
    }
    let fields: Vec<_> = rows()
        .into_iter()
        .filter(|row| args.tier.as_deref().is_none_or(|tier| tier == format::tier(row.tier)))
        .collect();
    let table: Vec<Vec<String>> = fields
        .iter()
        .map(|row| {
            vec![
                row.field.clone(),
                format::tier(row.tier).to_owned(),
                format::origin(row.origin).to_owned(),
                row.about.to_owned(),
            ]
        })
        .collect();
    output.table(&json!({ "fields": fields }), &["field", "tier", "from", "about"], &table);
    Ok(Exit::Ok)
}
