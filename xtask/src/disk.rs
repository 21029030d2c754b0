//! Room on the disks that builds and tests write to: one that fills up fails with errors that name something else.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// What a build with its tests writes, about, in MiB.
const WANTED_MIB: u64 = 6 * 1024;
/// Below it, whatever fails has probably failed for this, in MiB.
const FULL_MIB: u64 = 256;

/// The folders that are written to: what cargo builds, and temporary files.
fn folders(root: &Path) -> [(&'static str, PathBuf); 2] {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    [("the target folder", target), ("the folder of temporary files", std::env::temp_dir())]
}

/// MiB that are free where a path is, or will be.
fn free_mib(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.exists())?;
    let mut df = Command::new("df");
    df.args(["-Pk"]).arg(there).env("LC_ALL", "C");
    free_of(&String::from_utf8(process::output(df).ok()?).ok()?)
}

/// Reads the answer of `df -Pk`.
fn free_of(text: &str) -> Option<u64> {
    let kib: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib / 1024)
}

fn below(root: &Path, least: u64) -> Vec<String> {
    let folders = folders(root).into_iter();
    let short = folders.filter_map(|(what, path)| {
        let free = free_mib(&path).filter(|free| *free < least)?;
        Some(format!("{what}, `{}`, has {free} MiB free", path.display()))
    });
    short.collect()
}

/// Warns when there is less room than a build with its tests needs.
pub(crate) fn warn(root: &Path) {
    for short in below(root, WANTED_MIB) {
        eprintln!("warning: {short}; about {WANTED_MIB} MiB are needed: what fails may fail for that");
    }
}

/// What to say beside a failure when a disk is full.
pub(crate) fn blame(root: &Path) -> Option<String> {
    let short = below(root, FULL_MIB);
    (!short.is_empty()).then(|| format!("the disk is nearly full, which may be why: {}", short.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_df_is_read() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 100 50 7340032 1% /\n";
        assert_eq!(free_of(text), Some(7_168));
        assert_eq!(free_of("df: no such file\n"), None);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_disk_of_the_one_above() {
        assert!(free_mib(&std::env::temp_dir().join("not/there/yet")).is_some());
    }
}
