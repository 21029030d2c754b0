//! Where model calls may go whose address a document names: as other calls, and to this host while that is allowed.

use std::error::Error;
use std::sync::Arc;

use windlass_models::outward::{Outward, Passage, Resolve, Url};
use windlass_tools::CatalogConfig;
use windlass_tools::guard::{self, Guard};

/// The guard of other calls, as models ask it.
#[derive(Debug)]
struct Guarded {
    guard: Guard,
    /// Whether models on this host may be called.
    to_this_host: bool,
}

/// Who decides about addresses that documents name for models.
pub(super) fn guarded(config: &CatalogConfig) -> Arc<dyn Outward> {
    Arc::new(Guarded { guard: windlass_tools::build::guard(config), to_this_host: config.outbound.local_models })
}

impl Outward for Guarded {
    fn check(&self, url: &Url, tenant: &str) -> Result<Passage, String> {
        match self.guard.check(url, tenant) {
            Ok(guard::Passage::Written) => Ok(Passage::Free),
            Ok(guard::Passage::Checked) => Ok(Passage::Resolved),
            Err(guard::Refused::Private { .. }) if self.to_this_host && guard::is_this_host(url) => Ok(Passage::Free),
            Err(refused) => Err(said(&refused)),
        }
    }

    fn resolver(&self) -> Arc<dyn Resolve> {
        self.guard.resolver()
    }

    fn refusal(&self, error: &(dyn Error + 'static)) -> Option<String> {
        guard::refusal(error).map(|refused| said(&refused))
    }
}

fn said(refused: &guard::Refused) -> String {
    format!(
        "rule `outbound`: the model was not called: {refused}; {}, and so does a `base_url` in the configuration or the model \
         catalog",
        refused.way_out()
    )
}
