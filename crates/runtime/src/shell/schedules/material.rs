//! What the runs of a schedule are made from: what it was added with, or the version that a name points at now.

use serde::{Deserialize, Serialize};
use windlass_core::budget::Ceilings;
use windlass_core::ids::{Digest, Name};
use windlass_core::run::{Caller, Start};
use windlass_ports::compile::Bundle;
use windlass_ports::store::{NewRun, Priority, Queueing, StoreError};

use super::{Schedules, WORK, work_key};
use crate::schedule::Spec;
use crate::shell::engine::Engine;
use crate::shell::objects;
use crate::shell::submit::Submission;
use crate::shell::versions::{VersionError, Versions};
use crate::versions::Reference;

/// What the runs of a schedule are made from, as it was added.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) bundle: Bundle,
    pub(super) start: Start,
    /// What the caller said, where each run is of the version that a name points at: its machine says its own part anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<Asked>,
}

/// What a caller said that a machine has a part in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) ceilings: Ceilings,
    pub(super) pool: Option<Name>,
    pub(super) priority: Option<Priority>,
}

/// What runs are made from now.
pub(super) struct Material {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) start: Start,
    pub(super) queueing: Queueing,
}

impl Schedules {
    /// What the runs of a schedule are made from now; inside, why there is nothing.
    pub(super) async fn material(&self, spec: &Spec) -> Result<Result<Material, String>, StoreError> {
        let work: Option<Work> = objects::read(&self.core, WORK, &work_key(spec)).await?.value;
        let Some(work) = work else { return Ok(Err("what its runs are made from is gone".into())) };
        if let (Some(name), Some(_)) = (spec.follows(), &work.asked) {
            return match self.pointed_at(spec, name.into(), work).await {
                Ok(material) => Ok(Ok(material)),
                Err(VersionError::Store(error)) => Err(error),
                Err(error) => Ok(Err(error.to_string())),
            };
        }
        let queued_max = self.core.parts.settings.queued_max_of(spec.priority.unwrap_or_default());
        let (pool, priority, tags) = (spec.pool.clone(), spec.priority, spec.tags.clone());
        let queueing = Queueing { pool, priority, not_before: None, tags, queued_max };
        Ok(Ok(Material { digest: spec.bundle, bytes: work.bundle.encode(), start: work.start, queueing }))
    }

    /// The same of the version that a name points at, with contracts and hooks as the schedule was added with.
    async fn pointed_at(&self, spec: &Spec, name: Name, work: Work) -> Result<Material, VersionError> {
        let core = &self.core;
        let versions = Versions::new(std::sync::Arc::clone(&core.parts.store));
        let version = versions.find(&Reference { name, number: None }).await?;
        let bundle = versions.sources(&version).await?.bundled_as(&work.bundle);
        let unfit = |error: &dyn std::fmt::Display| VersionError::Unfit(version.id(), error.to_string());
        let program = core.parts.compiler.compile(&bundle).map_err(|error| unfit(&error))?;
        let Work { start, asked, .. } = work;
        let (ceilings, pool, priority) = match asked {
            Some(Asked { ceilings, pool, priority }) => (ceilings, pool, priority),
            None => (Ceilings::default(), None, None),
        };
        let queueing = Queueing { pool, priority, not_before: None, tags: spec.tags.clone(), queued_max: None };
        let caller = Caller { version: Some(version.id().into()), ..start.caller };
        let bytes = bundle.encode();
        let (input, scope) = (start.input, start.scope);
        let submission =
            Submission { bundle, program, input, run_id: None, ceilings, scope, origin: None, queueing, caller };
        let engine = Engine { core: std::sync::Arc::clone(core) };
        let prepared = engine.prepare(submission).map_err(|error| unfit(&error))?;
        let NewRun { start, queueing, .. } = prepared.run;
        Ok(Material { digest: prepared.digest, bytes, start, queueing })
    }
}
