//! The Cedar schema that every rule set is checked against. It comes with the build.

use std::sync::LazyLock;

use cedar_policy::Schema;

use crate::arguments::{Declared, NONE};

/// The schema as text, for people and editors.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// Rules to begin with, as text: arguments that an outsider may have written are asked about, and what cannot be undone.
pub const STARTER: &str = include_str!("starter.cedar");

static PARSED: LazyLock<Schema> = LazyLock::new(|| {
    let (schema, _warnings) = Schema::from_cedarschema_str(SCHEMA).expect("the schema of this build is valid");
    schema
});

/// The schema, parsed once.
pub(crate) fn schema() -> &'static Schema {
    &PARSED
}

/// The schema with the arguments that a rule set declares.
///
/// # Errors
/// What does not go together.
pub(crate) fn schema_with(declared: &Declared) -> Result<Schema, String> {
    let Some(text) = declared.declaration() else { return Ok(schema().clone()) };
    let (schema, _warnings) =
        Schema::from_cedarschema_str(&SCHEMA.replace(NONE, text)).map_err(|error| error.to_string())?;
    Ok(schema)
}

/// The actions that rules are about.
pub(crate) const ACTIONS: [&str; 4] = ["CallModel", "CallTool", "StartMachine", "TakeTransition"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_the_actions_and_no_warnings() {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).expect("parses");
        assert_eq!(warnings.map(|warning| warning.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
        let mut actions: Vec<String> = schema.actions().map(|action| action.id().unescaped().to_owned()).collect();
        actions.sort();
        assert_eq!(actions, ACTIONS);
        assert_eq!(SCHEMA.matches(NONE).count(), 1);
    }
}
