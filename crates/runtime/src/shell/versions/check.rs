//! What is wrong with what was published: versions that are gone, and sources that are not what their hash says.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::ids::Name;
use windlass_ports::store::{Finding, StoreError};

use super::{POINTERS, VERSIONS, VersionError, Versions, version_key};
use crate::shell::objects;
use crate::versions::{Pointer, Version};

impl Versions {
    /// Checks every name and every version, with the sources of each.
    ///
    /// # Errors
    /// The store fails, or cannot read a page of what it holds.
    pub async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        let (mut findings, mut numbers) = (Vec::new(), BTreeMap::<Name, BTreeSet<u64>>::new());
        let mut find = |message: String| findings.push(Finding { run: None, rule: "version".into(), message });
        // Names before versions: what a name points at is there before the name is moved to it.
        let pointers = objects::every(&*self.store, POINTERS).await?;
        let mut sound = BTreeSet::new();
        for object in objects::every(&*self.store, VERSIONS).await? {
            let version: Version = match objects::decode(VERSIONS, &object.key, &object.bytes) {
                Ok(version) => version,
                Err(error) => {
                    find(error.to_string());
                    continue;
                }
            };
            if version_key(&version.name, version.number) != object.key {
                find(format!("the {VERSIONS} `{}` says that it is `{}`", object.key, version.id()));
            }
            if !sound.contains(&version.sources) {
                match self.sources(&version).await {
                    Ok(_) => drop(sound.insert(version.sources)),
                    Err(VersionError::Store(StoreError::Corrupt(why))) => find(why),
                    Err(VersionError::Store(error)) => return Err(error),
                    Err(damaged) => find(format!("{damaged} (`{}`)", version.sources)),
                }
            }
            numbers.entry(version.name).or_default().insert(version.number);
        }
        for object in pointers {
            let there = numbers.get(&object.key).cloned().unwrap_or_default();
            match objects::decode::<Pointer>(POINTERS, &object.key, &object.bytes) {
                Ok(pointer) => gap(&pointer, &there).into_iter().for_each(&mut find),
                Err(error) => find(error.to_string()),
            }
        }
        Ok(findings)
    }
}

/// The first version of a name that is not there, and that the name points at none that it ever had.
fn gap(pointer: &Pointer, there: &BTreeSet<u64>) -> Vec<String> {
    let Pointer { name, current, latest, .. } = pointer;
    let missing = (1..=*latest).find(|number| !there.contains(number));
    let gone = missing.map(|number| format!("version {number} of `{name}` is gone, and it has {latest}"));
    let outside = || format!("`{name}` points at version {current}, and it has {latest}");
    gone.into_iter().chain((*current == 0 || current > latest).then(outside)).collect()
}
