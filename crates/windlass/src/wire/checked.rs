//! Checks of what the configuration and the model catalog name together, before anything is called.

use windlass_models::catalog::ChainEntry;
use windlass_models::scripted::Scripts;

use super::{WireError, Wiring};

impl Wiring {
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
