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

/// The most memory that another process used, in bytes.
#[must_use]
pub(crate) fn resident_bytes_peak_of(pid: u32) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), "VmHWM:").map(|kib| kib * 1024)
}

/// How long each thread of another process has been on a processor, in nanoseconds, by the thread's number.
#[must_use]
pub(crate) fn processor_nanos_of(pid: u32) -> Option<BTreeMap<OsString, u64>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let spent = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name(), text.split_whitespace().next()?.parse().ok()?))
    };
    Some(tasks.filter_map(spent).collect())
}

/// How much more threads have of something that only grows. One that ended in between has nothing more.
#[must_use]
pub(crate) fn growth(before: &BTreeMap<OsString, u64>, after: &BTreeMap<OsString, u64>) -> u64 {
    let of = |(thread, now): (&OsString, &u64)| now.saturating_sub(before.get(thread).copied().unwrap_or_default());
    after.iter().map(of).sum()
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
        assert!(resident_bytes_peak_of(std::process::id()) >= resident_bytes());
        assert!(processor_nanos_of(std::process::id()).is_some_and(|spent| spent.values().sum::<u64>() > 0));
    }

    #[test]
    fn a_thread_that_ended_adds_nothing() {
        let of = |threads: &[(&str, u64)]| threads.iter().map(|(name, n)| (OsString::from(name), *n)).collect();
        assert_eq!(growth(&of(&[("1", 5), ("2", 9)]), &of(&[("1", 8), ("3", 4)])), 7);
    }
}
