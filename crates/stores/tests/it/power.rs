//! What an acknowledgement is worth: processes that die at every write, and power that fails at every moment.
//!
//! A shim between the process and its files logs every write and sync. Power loss is played from that log: what was
//! not synced is lost, or kept in part.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use rusqlite::{Connection, OptionalExtension};
use windlass_ports::store::Store;
use windlass_stores::{Options, SqliteStore};

use crate::child;

/// Operations of a run that are failed in turn; it has about as many.
const POINTS_MAX: u64 = 45;

/// Compiles the shim, once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = SHIM.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/shim.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).arg("-ldl");
        let status = compile.status().expect("a C compiler, which the bundled SQLite needs too");
        assert!(status.success());
        (dir, path)
    });
    path
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("windlass.db")
    }

    /// A database with a schema and nothing else, and no log.
    fn prepared() -> Self {
        static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
        let empty = EMPTY.get_or_init(|| {
            let place = Self::new();
            let database = place.database();
            drop(runtime().block_on(SqliteStore::open(&database, Options::default())).expect("it opens"));
            assert!(!place.dir.path().join("windlass.db-wal").exists(), "the last handle empties the log");
            fs::read(place.database()).expect("read")
        });
        let place = Self::new();
        fs::write(place.database(), empty).expect("written");
        place
    }

    fn play(&self, part: &str, with: &[(&str, String)]) -> ExitStatus {
        // The path as the kernel tells it, which is how the shim sees it.
        let dir = self.dir.path().canonicalize().expect("the directory exists");
        let mut command = child::command(part, &dir.join("windlass.db"));
        command.env("LD_PRELOAD", shim()).env("SHIM_DIR", &dir);
        command.envs(with.iter().map(|(name, value)| (name, value)));
        let output = command.output().expect("the process starts");
        let died = output.status.code().is_none();
        assert!(output.status.success() || died, "{}", String::from_utf8_lossy(&output.stderr));
        output.status
    }

    /// The highest version that was acknowledged; none when not even the run was.
    fn acknowledged(&self) -> Option<u64> {
        last_line(&fs::read(self.dir.path().join("acks")).unwrap_or_default())
    }
}

fn last_line(acks: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(acks);
    let whole = &text[..text.rfind('\n')?];
    whole.lines().last().and_then(|line| line.parse().ok())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The version of the run, when it is there, and whether everything of each of its decisions is there and no more.
fn found(database: &Path) -> (Option<u64>, bool) {
    // A file that cannot even be read is not sound.
    look(database).unwrap_or((None, false))
}

fn look(database: &Path) -> rusqlite::Result<(Option<u64>, bool)> {
    let connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous=OFF")?;
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let mut sound = whole == "ok";
    let version = connection.query_row("SELECT version FROM runs WHERE id = 'a'", [], |row| row.get::<_, i64>(0));
    let Some(version) = version.optional()? else { return Ok((None, sound)) };
    for sql in [
        "SELECT count(*) FROM journal",
        "SELECT coalesce(max(version), 0) FROM journal",
        "SELECT count(*) FROM journal WHERE audit IS NOT NULL",
        "SELECT coalesce(max(version), 0) FROM snapshots",
        "SELECT count(*) FROM waits",
        "SELECT count(*) FROM blob_uses",
        "SELECT count(*) FROM blobs WHERE bundled_at IS NULL",
        "SELECT count(*) - 1 FROM runs",
        "SELECT count(*) - 1 FROM starts",
    ] {
        sound &= connection.query_row(sql, [], |row| row.get::<_, i64>(0))? == version;
    }
    Ok((u64::try_from(version).ok(), sound))
}

fn crash_at_every_write(part: &str, torn: bool) -> u64 {
    let mut unknown = BTreeSet::new();
    for at in 1.. {
        let place = if part == "open" { Place::new() } else { Place::prepared() };
        let mut with = vec![("SHIM_KILL_AT", at.to_string())];
        if torn {
            with.push(("SHIM_TEAR", "1".into()));
        }
        let finished = place.play(part, &with).success();
        let acknowledged = place.acknowledged();
        let findings = runtime().block_on(async {
            let store = SqliteStore::open(&place.database(), Options::default()).await.expect("it opens again");
            store.fsck().await.expect("checked")
        });
        assert_eq!(findings, [], "killed before write {at}");
        if part == "open" {
            if finished {
                return at - 1;
            }
            continue;
        }
        let (version, sound) = found(&place.database());
        assert!(sound, "killed before write {at}: a decision is there in part, at version {version:?}");
        assert!(
            version >= acknowledged,
            "killed before write {at}: {acknowledged:?} was acknowledged, not {version:?}"
        );
        if version > acknowledged {
            unknown.insert(at);
        }
        if finished {
            // The window in which a decision is durable and not yet acknowledged was met.
            assert!(!unknown.is_empty());
            return at - 1;
        }
    }
    unreachable!("the process finishes in the end")
}

#[test]
fn crash_at_every_write_of_a_run() {
    let points = crash_at_every_write("steps", false);
    assert!(points >= 15, "only {points} writes");
}

#[test]
fn crash_in_the_middle_of_every_write_of_a_run() {
    let points = crash_at_every_write("steps", true);
    assert!(points >= 15, "only {points} writes");
}

#[test]
fn crash_at_every_write_of_the_first_opening() {
    let points = crash_at_every_write("open", false);
    assert!(points >= 10, "only {points} writes");
}

/// The device fails at every operation in turn, once. Tells how many of the runs finished, and how many stopped between
/// decisions; the others never began.
fn fail_at_every_write(error: i32) -> (u64, u64) {
    let (mut finished, mut stopped) = (0, 0);
    // Past the last operation nothing fails any more, and the rest would be alike.
    for at in 1..=POINTS_MAX {
        let place = Place::prepared();
        let with = [("SHIM_KILL_AT", at.to_string()), ("SHIM_ERROR", error.to_string())];
        assert!(place.play("fail", &with).success());
        let acknowledged = place.acknowledged();
        match acknowledged {
            Some(3) => finished += 1,
            Some(_) => stopped += 1,
            None => {}
        }
        let findings = runtime().block_on(async {
            let store = SqliteStore::open(&place.database(), Options::default()).await.expect("it opens again");
            store.fsck().await.expect("checked")
        });
        assert_eq!(findings, [], "failed at {at}");
        let (version, sound) = found(&place.database());
        assert!(sound, "failed at {at}: a decision is there in part, at version {version:?}");
        assert!(version >= acknowledged, "failed at {at}: {acknowledged:?} was acknowledged, not {version:?}");
    }
    (finished, stopped)
}

#[test]
fn a_full_device_is_waited_out() {
    let (finished, stopped) = fail_at_every_write(28);
    assert_eq!(stopped, 0, "a full device is no reason to stop");
    assert!(finished >= 10, "only {finished} of {POINTS_MAX} finished");
}

#[test]
fn a_failing_device_stops_the_store() {
    let (_, stopped) = fail_at_every_write(5);
    assert!(stopped >= 5, "only {stopped} of {POINTS_MAX} stopped");
}

/// One operation of the log.
enum Operation {
    Write { file: usize, offset: usize, data: Vec<u8> },
    Sync { file: usize },
    Truncate { file: usize, length: usize },
}

fn operations(log: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    let mut rest = log;
    while let Some((head, tail)) = rest.split_first_chunk::<14>() {
        let file = usize::from(head[1]);
        let offset = u64::from_le_bytes(head[2..10].try_into().expect("eight bytes")) as usize;
        let length = u32::from_le_bytes(head[10..14].try_into().expect("four bytes")) as usize;
        let (data, tail) = if head[0] == 1 { tail.split_at(length) } else { (&[][..], tail) };
        operations.push(match head[0] {
            1 => Operation::Write { file, offset, data: data.to_vec() },
            2 => Operation::Sync { file },
            _ => Operation::Truncate { file, length: offset },
        });
        rest = tail;
    }
    operations
}

/// Database, log and answers as files hold them.
#[derive(Clone, Default)]
struct Image([Vec<u8>; 3]);

impl Image {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Write { file: 2, data, .. } => self.0[2].extend_from_slice(data),
            Operation::Write { file, offset, data } => {
                let bytes = &mut self.0[*file];
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Operation::Truncate { file, length } => self.0[*file].resize(*length, 0),
            Operation::Sync { .. } => {}
        }
    }

    /// Whether a store that starts from this image misses something that was acknowledged, or has half of something.
    fn is_broken(&self, dir: &Path) -> bool {
        let database = dir.join("windlass.db");
        for (name, bytes) in ["windlass.db", "windlass.db-wal"].into_iter().zip(&self.0) {
            fs::write(dir.join(name), bytes).expect("written");
        }
        let _none = fs::remove_file(dir.join("windlass.db-shm"));
        let (version, sound) = found(&database);
        !sound || version < last_line(&self.0[2])
    }
}

/// Plays a loss of power after every operation, in three ways each. Tells how many moments there were, and how many
/// left a broken store.
fn lose_power_at_every_moment(part: &str) -> (usize, usize) {
    let place = Place::prepared();
    let before = fs::read(place.database()).expect("read");
    let log = place.dir.path().join("operations");
    assert!(place.play(part, &[("SHIM_LOG", log.display().to_string())]).success());
    let operations = operations(&fs::read(log).expect("read"));
    let mut durable = Image([before, Vec::new(), Vec::new()]);
    let mut pending: Vec<&Operation> = Vec::new();
    let (mut moments, mut broken, mut chance) = (0, 0, 0x9e37_79b9_7f4a_7c15_u64);
    let scratch = tempfile::tempdir().expect("a directory");
    for operation in &operations {
        match operation {
            // Answers went to someone else: they are out when they are written.
            Operation::Write { file: 2, .. } => durable.apply(operation),
            Operation::Write { .. } | Operation::Truncate { .. } => pending.push(operation),
            Operation::Sync { file: synced } => {
                pending.retain(|waiting| match waiting {
                    Operation::Write { file, .. } | Operation::Truncate { file, .. } if file == synced => {
                        durable.apply(waiting);
                        false
                    }
                    _ => true,
                });
            }
        }
        let mut some = durable.clone();
        let mut all = durable.clone();
        for waiting in &pending {
            all.apply(waiting);
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if chance >> 63 == 1 {
                some.apply(waiting);
            }
        }
        for image in [&durable, &some, &all] {
            moments += 1;
            broken += usize::from(image.is_broken(scratch.path()));
        }
    }
    (moments, broken)
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    let (moments, broken) = lose_power_at_every_moment("many");
    assert!(moments > 300, "only {moments} moments");
    assert_eq!(broken, 0, "of {moments} moments");
}

#[test]
fn a_store_that_does_not_sync_loses_what_it_acknowledged() {
    let (moments, broken) = lose_power_at_every_moment("many without sync");
    assert!(broken > 0, "not noticed in {moments} moments");
}
