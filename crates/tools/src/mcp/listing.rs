//! The tools that a server shows: all pages of its list, and how long they count.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::definition::{Definition, Refused};

/// Tools of one server.
pub(crate) const TOOLS_MAX: usize = 1_000;
/// Pages of a list.
pub(crate) const PAGES_MAX: usize = 100;
/// Bytes of one page.
pub(crate) const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a server shows.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The usable tools by name.
    pub tools: BTreeMap<String, Definition>,
    /// The others, and why.
    pub refused: Vec<Refused>,
    /// How long the server says the list counts, in milliseconds.
    pub(crate) ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    tools: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    ttl_ms: Option<u64>,
}

impl Listing {
    /// Adds a page and gives the cursor of the next one.
    ///
    /// # Errors
    /// A page that is no page of tools, and more tools than a server may have.
    pub(crate) fn add(&mut self, page: &RawValue) -> Result<Option<String>, String> {
        let page: Page =
            serde_json::from_str(page.get()).map_err(|error| format!("its list of tools cannot be read: {error}"))?;
        for raw in page.tools {
            match Definition::read(&raw) {
                // Of two tools of one name nobody can say which one is meant.
                Ok(tool) if self.names(&tool.name) => {
                    self.tools.remove(&tool.name);
                    self.refused.push(Refused { name: tool.name, why: "the server shows it twice".into() });
                }
                Ok(tool) => {
                    self.tools.insert(tool.name.clone(), tool);
                }
                Err(refused) => self.refused.push(refused),
            }
            if self.tools.len() + self.refused.len() > TOOLS_MAX {
                return Err(format!("it shows more than {TOOLS_MAX} tools"));
            }
        }
        self.ttl_ms = match (self.ttl_ms, page.ttl_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Ok(page.next_cursor)
    }

    fn names(&self, name: &str) -> bool {
        self.tools.contains_key(name) || self.refused.iter().any(|refused| refused.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn page(value: Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(&value).unwrap()
    }

    #[test]
    fn pages_add_up_and_one_bad_tool_does_not_spoil_the_others() {
        let mut listing = Listing::default();
        let tool = |name: &str| json!({ "name": name, "inputSchema": {} });
        let first = page(json!({ "tools": [tool("a"), tool("b"), { "name": "c" }], "nextCursor": "n", "ttlMs": 50 }));
        assert_eq!(listing.add(&first), Ok(Some("n".into())));
        assert_eq!(listing.add(&page(json!({ "tools": [tool("d"), tool("b"), tool("b")], "ttlMs": 20 }))), Ok(None));
        assert_eq!(listing.tools.keys().collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(listing.refused.len(), 3);
        assert_eq!(listing.ttl_ms, Some(20));
        let many: Vec<_> = (0..1_100).map(|n| tool(&format!("t{n}"))).collect();
        assert!(listing.add(&page(json!({ "tools": many }))).is_err());
        assert!(Listing::default().add(&page(json!({ "tools": 3 }))).is_err());
    }
}
