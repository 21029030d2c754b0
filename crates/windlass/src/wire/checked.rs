//! The model catalog, checks of what it and the configuration name together before anything is called, and what an engine
//! decides under, as hashes.

use windlass_core::basis::Basis;
use windlass_core::ids::Digest;
use windlass_models::catalog::{Catalog as ModelCatalog, ChainEntry};
use windlass_models::prices::BUILTIN;
use windlass_models::scripted::Scripts;
use windlass_spec::eval::check_schema;

use super::{WireError, Wiring};

impl Wiring {
    /// That the operator's own secrets can be used.
    pub(super) fn checked_secrets(&self) -> Result<(), WireError> {
        let Some(file) = &self.secrets else { return Ok(()) };
        file.check().map_err(|error| {
            let hint = "only its owner may read and write a file of secrets: mode 600";
            WireError::new("secrets.file", error).hint(hint)
        })
    }

    /// That arguments and answers can be compared with the schemas of their tools.
    pub(super) fn checked_schemas(&self) -> Result<(), WireError> {
        for (kind, tables) in [("tools", &self.catalog.tools), ("actions", &self.catalog.actions)] {
            for (name, table) in tables {
                for (key, schema) in [("input_schema", &table.input_schema), ("output_schema", &table.output_schema)] {
                    let checked = schema.clone().map_or(Ok(()), |schema| check_schema(&schema.into()));
                    checked.map_err(|failure| WireError::new(format!("{kind}.{name}.{key}"), failure.message))?;
                }
            }
        }
        Ok(())
    }

    /// The model catalog; an empty one where none is configured.
    ///
    /// # Errors
    /// A catalog that cannot be read or is not what it should be.
    pub fn model_catalog(&self) -> Result<ModelCatalog, WireError> {
        let Some(path) = &self.models else { return Ok(ModelCatalog::default()) };
        let text = self.read("models", path)?;
        ModelCatalog::parse(&text).map_err(|error| {
            let place = if error.line == 0 { String::new() } else { format!(", line {}", error.line) };
            WireError::new("models", format!("`{}`{place}: {}", path.display(), error.message))
        })
    }

    /// What runs are decided under beside rules: hashes of the model catalog and of the price books, as their files are now,
    /// and the one given of the configuration.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn basis(&self, config: Option<Digest>) -> Result<Basis, WireError> {
        let models = match &self.models {
            Some(path) => Some(Digest::of(self.read("models", path)?.as_bytes())),
            None => None,
        };
        // What the own book does not have is looked up in the one of the build.
        let own = match &self.prices {
            Some(path) => self.read("prices", path)?,
            None => String::new(),
        };
        let prices = Some(Digest::of([own.as_bytes(), BUILTIN.as_bytes()].join(&0).as_slice()));
        Ok(Basis { policy: None, models, prices, config })
    }

    /// No provider has a name that stands for something else where a document names a provider.
    pub(super) fn check_names(&self) -> Result<(), WireError> {
        let providers = self.providers.keys().map(|name| ("providers", name));
        let agents = self.catalog.agents_cli.keys().map(|name| ("agents_cli", name));
        match providers.chain(agents).find(|(_, name)| windlass_models::is_reserved(name)) {
            None => Ok(()),
            Some((table, name)) => {
                let message = "the name stands for something else where a document names a provider";
                Err(WireError::new(format!("{table}.{name}"), message).hint("give it another name"))
            }
        }
    }
}

/// Every script that a chain names is there and can be read.
pub(super) fn check_scripts(scripts: &Scripts, chains: &[ChainEntry]) -> Result<(), WireError> {
    for chain in chains {
        for script in chain.links.iter().filter_map(|link| link.script.as_ref()) {
            if let Err(why) = scripts.check(script) {
                let message = format!("the chain `{}` answers by a script that cannot be used: {why}", chain.name);
                return Err(WireError::new("models", message).hint("scripts are looked for in the folder `scripts`"));
            }
        }
    }
    Ok(())
}
