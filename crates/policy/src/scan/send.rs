//! Models and tools behind a scanner: what they get has been looked through.
//!
//! Prompts and the arguments of tools and actions pass here. Attachments that only one provider understands do not: they
//! are signed by it. Answers are not looked at.

use std::sync::Arc;

use futures::FutureExt;
use windlass_core::contract::Contract;
use windlass_core::failure::Failure;
use windlass_core::ids::Name;
use windlass_core::input::{Quote, Traits};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::route::Chain;
use windlass_core::transcript::{Message, ToolRequest};
use windlass_core::value::Value;
use windlass_ports::BoxFuture;
use windlass_ports::model::{Model, ModelResult};
use windlass_ports::tool::{Catalog, Invocation, Permit, Tool};

use super::{Class, Scanner, blocked};

/// The model behind a scanner; the model itself when the scanner is off.
#[must_use]
pub fn scanned_model(model: Arc<dyn Model>, scanner: &Scanner) -> Arc<dyn Model> {
    if scanner.is_off() {
        return model;
    }
    Arc::new(ScannedModel { model, scanner: scanner.clone() })
}

/// The catalog with every tool and action behind a scanner.
#[must_use]
pub fn scanned_catalog(mut catalog: Catalog, scanner: &Scanner) -> Catalog {
    if !scanner.is_off() {
        for tool in catalog.tools.values_mut() {
            *tool = Arc::new(ScannedTool { tool: Arc::clone(tool), scanner: scanner.clone() });
        }
    }
    catalog
}

#[derive(Debug)]
struct ScannedModel {
    model: Arc<dyn Model>,
    scanner: Scanner,
}

impl Model for ScannedModel {
    fn call(&self, request: ModelRequest) -> BoxFuture<'_, ModelResult> {
        async move {
            match prompt(&self.scanner, request) {
                Ok(request) => self.model.call(request).await,
                Err(class) => ModelResult::unsent(blocked(class, "the prompt")),
            }
        }
        .boxed()
    }

    fn attempt(&self, request: ModelRequest, permit: Permit) -> BoxFuture<'_, ModelResult> {
        async move {
            match prompt(&self.scanner, request) {
                Ok(request) => self.model.attempt(request, permit).await,
                Err(class) => ModelResult::unsent(blocked(class, "the prompt")),
            }
        }
        .boxed()
    }

    fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
        self.model.lacks(settings)
    }

    fn quote(&self, settings: &ModelSettings) -> Option<Quote> {
        self.model.quote(settings)
    }

    fn traits(&self, settings: &ModelSettings) -> Traits {
        self.model.traits(settings)
    }

    fn chain(&self, settings: &ModelSettings) -> Option<Chain> {
        self.model.chain(settings)
    }
}

fn prompt(scanner: &Scanner, mut request: ModelRequest) -> Result<ModelRequest, Class> {
    for message in &mut request.messages {
        match message {
            Message::System { content } | Message::User { content } | Message::Tool { content, .. } => {
                *content = scanner.name(content)?;
            }
            Message::Assistant { content, tool_calls, attachments: _ } => {
                *content = scanner.name(content)?;
                for ToolRequest { arguments, .. } in tool_calls {
                    *arguments = scanner.value(arguments)?;
                }
            }
        }
    }
    Ok(request)
}

#[derive(Debug)]
struct ScannedTool {
    tool: Arc<dyn Tool>,
    scanner: Scanner,
}

impl Tool for ScannedTool {
    fn contract(&self) -> &Contract {
        self.tool.contract()
    }

    fn call(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move { self.tool.call(self.scanned(invocation)?).await }.boxed()
    }

    fn attempt(&self, invocation: Invocation) -> BoxFuture<'_, Result<Value, Failure>> {
        async move { self.tool.attempt(self.scanned(invocation)?).await }.boxed()
    }
}

impl ScannedTool {
    fn scanned(&self, invocation: Invocation) -> Result<Invocation, Failure> {
        let arguments = self
            .scanner
            .value(&invocation.arguments)
            .map_err(|class| blocked(class, &format!("an argument of `{}`", invocation.name)))?;
        Ok(Invocation { arguments, ..invocation })
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::route::table::Rules;

    use super::*;
    use crate::scan::Mode;

    /// A model that says something of its own to every question about itself.
    #[derive(Debug)]
    struct Telling;

    impl Model for Telling {
        fn call(&self, _: ModelRequest) -> BoxFuture<'_, ModelResult> {
            unreachable!("nobody calls it")
        }

        fn lacks(&self, settings: &ModelSettings) -> Option<Name> {
            Some(settings.provider.clone())
        }

        fn quote(&self, _: &ModelSettings) -> Option<Quote> {
            Some(Quote { input: 1, output: 2, version: "1".into(), beyond: windlass_core::budget::Amounts::ZERO })
        }

        fn chain(&self, settings: &ModelSettings) -> Option<Chain> {
            Some(Chain { name: settings.model.clone(), links: Vec::new(), rules: Rules::default() })
        }
    }

    #[test]
    fn what_a_model_says_about_itself_passes_the_scanner() {
        let settings: ModelSettings =
            serde_json::from_value(serde_json::json!({ "provider": "p", "model": "m", "timeout_ms": 1 }))
                .expect("settings");
        let scanner = Scanner::new(&Class::ALL.into_iter().map(|class| (class, Mode::Mask)).collect());
        let model = scanned_model(Arc::new(Telling), &scanner);
        assert_eq!(model.lacks(&settings), Telling.lacks(&settings));
        assert_eq!(model.quote(&settings), Telling.quote(&settings));
        assert_eq!(model.chain(&settings), Telling.chain(&settings));
    }
}
