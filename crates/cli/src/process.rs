//! What the operating system says about this process: memory, wakeups. Linux; elsewhere nothing is known.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Memory in use, in bytes.
#[must_use]
pub(crate) fn resident_bytes() -> Option<u64> {
    field("/proc/self/status", "VmRSS:").map(|kib| kib * 1024)
}

/// The most memory that was in use, in bytes.
#[must_use]
pub(crate) fn resident_bytes_peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:").map(|kib| kib * 1024)
}

/// How often each thread of this process but the calling one gave up the processor to wait, by the thread's number.
#[must_use]
pub(crate) fn waits_of_others() -> Option<BTreeMap<OsString, u64>> {
    let caller = std::fs::read_link("/proc/thread-self").ok()?;
    let tasks = std::fs::read_dir("/proc/self/task").ok()?.flatten();
    let others = tasks.filter(|task| Some(&*task.file_name()) != caller.file_name());
    let waits = |task: std::fs::DirEntry| {
        let count = field(&task.path().join("status").to_string_lossy(), "voluntary_ctxt_switches:")?;
        Some((task.file_name(), count))
    };
    Some(others.filter_map(waits).collect())
}

/// The name of this computer; empty when it has none.
#[must_use]
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().filter(|name| !name.trim().is_empty());
    name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_owned()
}

/// Megabytes, for people.
#[must_use]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e5).round() / 10.0
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1_000_000));
        assert!(resident_bytes_peak() >= resident_bytes());
        assert!(waits_of_others().is_some());
    }
}
