//! What a token allows: `tools:NAME` for a tool, `tools:BEGINNING*` for all whose names begin so, `tools:*` for all.

use serde_json::Value as Json;

/// How a scope about tools begins.
const TOOLS: &str = "tools:";
/// Scopes that are looked at; a token has no more.
const SCOPES_MAX: usize = 256;

/// The scopes of a token that are about tools. Others are left out: they are for somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Reads a claim: a text with blanks between scopes, or a list of texts. Without one nothing is allowed; none for a
    /// claim that is something else.
    #[must_use]
    pub fn of(claim: Option<&Json>) -> Option<Self> {
        let all: Vec<&str> = match claim {
            None => Vec::new(),
            Some(Json::String(text)) => text.split_whitespace().collect(),
            Some(Json::Array(items)) => items.iter().map(Json::as_str).collect::<Option<_>>()?,
            Some(_) => return None,
        };
        if all.len() > SCOPES_MAX {
            return None;
        }
        Some(Self(all.into_iter().filter_map(|scope| scope.strip_prefix(TOOLS).map(str::to_owned)).collect()))
    }

    /// Whether a tool may be called.
    #[must_use]
    pub fn allow(&self, tool: &str) -> bool {
        self.0.iter().any(|scope| match scope.strip_suffix('*') {
            Some(beginning) => tool.starts_with(beginning),
            None => scope == tool,
        })
    }

    /// The tools that are named, as they are.
    #[must_use]
    pub fn tools(&self) -> &[String] {
        &self.0
    }

    /// The scope that a tool needs.
    #[must_use]
    pub fn needed(tool: &str) -> String {
        format!("{TOOLS}{tool}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_allow_what_they_name() {
        let of = |claim: Json| Scopes::of(Some(&claim)).expect("scopes");
        let some = of(json!("openid tools:search tools:crm__*"));
        for (tool, is_allowed) in
            [("search", true), ("searches", false), ("crm__get", true), ("crm", false), ("openid", false), ("", false)]
        {
            assert_eq!(some.allow(tool), is_allowed, "{tool}");
        }
        assert!(of(json!(["tools:*"])).allow("anything"));
        assert!(!of(json!("*")).allow("search"), "a scope says what it is about");
        assert_eq!(Scopes::of(None), Some(Scopes::default()));
        assert!(Scopes::of(Some(&json!(["tools:a", 1]))).is_none());
        assert!(Scopes::of(Some(&json!({}))).is_none());
        assert!(Scopes::of(Some(&json!("tools:a ".repeat(300)))).is_none());
    }
}
