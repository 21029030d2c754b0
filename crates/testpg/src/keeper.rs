//! Making data folders, starting a server in one, and seeing that it ends with whoever asked for it.

use std::fs::{self, File};
use std::io::PipeWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{command, free_port, lock_file, make_dir, own_uid, programs, run};
use crate::{Options, must};

/// How long a server may take to start, and to stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The role that owns everything.
pub(crate) const ROLE: &str = "windlass";

/// Ends the server when the pipe on its standard input is closed, which the death of the test does as well.
const WHILE_TEST: &str = r#"
home=$1; shift
exec 3<&0 </dev/null
"$@" &
server=$!
( cat <&3 >/dev/null; kill -QUIT $server; sleep 1; rm -rf "$home" ) &
watch=$!
exec 3<&-
wait $server
status=$?
kill $watch
exit $status
"#;

/// Ends the server some seconds after the last test process let go of the lock.
const WHILE_USED: &str = r#"
base=$1; home=$2; shift 2
"$@" &
server=$!
while kill -0 $server 2>/dev/null; do
  flock -x "$base/use.lock" true
  sleep 5
  if flock -n -x "$base/use.lock" sh -c 'grep -qF "$2" "$1/address" && rm -f "$1/address"; kill -QUIT $3' sh "$base" "$home" $server
  then break; fi
done
wait $server
rm -rf "$home"
"#;

/// The folder of everything that tests keep between processes.
pub(crate) fn base() -> PathBuf {
    let uid = own_uid();
    let base = std::env::temp_dir().join(format!("windlass-testpg-{uid}-{}", programs().version));
    make_dir(&base, 0o755);
    base
}

/// Copies the data folder of a new server to `data`, which must not exist.
pub(crate) fn make_data(base: &Path, data: &Path) {
    let lock = lock_file(&base.join("template.lock"));
    must(lock.lock(), "cannot lock the template of servers");
    let template = base.join("template");
    if !template.join("PG_VERSION").exists() {
        let draft = base.join("draft");
        // What is left of an attempt that was interrupted.
        let _none = fs::remove_dir_all(&draft);
        let mut initdb = command(programs().bin.join("initdb"));
        initdb.arg("-D").arg(&draft).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        run(initdb.arg("--data-checksums"), "cannot make the files of a server");
        let _none = fs::remove_dir_all(&template);
        must(fs::rename(&draft, &template), "cannot name the files of a server");
    }
    let mut copy = command("cp");
    run(copy.args(["-a", "--reflink=auto"]).arg(&template).arg(data), "cannot copy the files of a server");
}

/// Copies the data of a running server to `data`, as that of a standby that follows it.
fn follow(port: u16, data: &Path) {
    let mut copy = command(programs().bin.join("pg_basebackup"));
    copy.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", ROLE, "-R", "-X", "stream", "-c", "fast", "-D"]);
    run(copy.arg(data), "cannot copy a running server");
}

/// Makes the library that stands between a server and its tables.
fn compile_full(home: &Path) -> PathBuf {
    let (source, library) = (home.join("full.c"), home.join("full.so"));
    must(fs::write(&source, include_str!("full.c")), "cannot write a source");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    run(&mut compile, "cannot compile what fills a disk");
    must(fs::set_permissions(&library, fs::Permissions::from_mode(0o755)), "cannot set the rights of a file");
    library
}

/// What a server is started with.
#[derive(Debug)]
pub(crate) struct Launch {
    /// Everything of the server: `data`, `socket`, `log`.
    pub(crate) home: PathBuf,
    pub(crate) port: u16,
    pub(crate) options: Options,
}

impl Launch {
    /// Makes the files of a server.
    pub(crate) fn prepare(base: &Path, options: Options) -> Self {
        let home = base.join(format!("run_{}", crate::host::unique()));
        make_dir(&home, 0o755);
        make_dir(&home.join("socket"), 0o777);
        match options.standby_of {
            None => make_data(base, &home.join("data")),
            Some(port) => follow(port, &home.join("data")),
        }
        if !options.hba.is_empty() {
            let lines = options.hba.join("\n") + "\n";
            must(fs::write(home.join("data/pg_hba.conf"), lines), "cannot write the rules of access");
        }
        let launch = Self { home, port: free_port(), options };
        if let Some(time) = &launch.options.faketime {
            launch.set_clock(time);
        }
        launch
    }

    /// Sets the clock of the server, which looks at this file.
    pub(crate) fn set_clock(&self, time: &str) {
        let (path, draft) = (self.home.join("clock"), self.home.join("clock.new"));
        must(fs::write(&draft, format!("{time}\n")), "cannot set a clock");
        must(fs::rename(&draft, &path), "cannot set a clock");
    }

    /// While this file is there, the disk of the server's tables is full.
    pub(crate) fn full_flag(&self) -> PathBuf {
        self.home.join("full")
    }

    /// What the server's processes are started with beside their own settings.
    fn environment(&self) -> Vec<String> {
        let (mut preload, mut words) = (Vec::new(), Vec::new());
        if self.options.faketime.is_some() {
            preload.push(crate::host::faketime().display().to_string());
            words.push(format!("FAKETIME_TIMESTAMP_FILE={}", self.home.join("clock").display()));
            // Waits go by the clock that cannot be set.
            words.extend(
                ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"].map(Into::into),
            );
        }
        if self.options.fillable {
            preload.push(compile_full(&self.home).display().to_string());
            words.push(format!("TESTPG_FULL={}", self.full_flag().display()));
        }
        if preload.is_empty() {
            return Vec::new();
        }
        words.push(format!("LD_PRELOAD={}", preload.join(":")));
        std::iter::once("env".to_owned()).chain(words).collect()
    }

    fn arguments(&self) -> Vec<String> {
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", "127.0.0.1"),
            ("max_connections", "400"),
            ("shared_buffers", "128MB"),
            ("max_wal_size", "4GB"),
            ("checkpoint_timeout", "30min"),
            ("log_min_messages", "warning"),
        ];
        if !self.options.durable {
            settings.extend([
                ("fsync", "off"),
                ("full_page_writes", "off"),
                ("wal_level", "minimal"),
                ("max_wal_senders", "0"),
            ]);
        }
        let mut arguments = Vec::new();
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        // The server also dies with the program that keeps it.
        arguments.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        arguments.extend(self.environment());
        arguments.push(path(programs().bin.join("postgres")));
        arguments.extend(["-D".to_owned(), path(self.home.join("data"))]);
        arguments.extend(["-k".to_owned(), path(self.home.join("socket")), "-p".to_owned(), self.port.to_string()]);
        for (name, value) in settings.into_iter().chain(self.options.settings.iter().map(|(n, v)| (&**n, &**v))) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }

    fn log(&self) -> File {
        let log = lock_file(&self.home.join("log"));
        must(
            fs::OpenOptions::new().append(true).open(self.home.join("log")).inspect(|_| drop(log)),
            "cannot open a log",
        )
    }

    fn command(&self, keep: &str, places: &[&Path]) -> Command {
        let mut keeper = command("setsid");
        keeper.args(["sh", "-c", keep, "keeper"]).args(places).args(self.arguments());
        keeper.stdout(self.log()).stderr(self.log());
        keeper
    }

    /// Starts the server for as long as this process lives and holds the pipe.
    pub(crate) fn start_for_test(&self) -> (Child, PipeWriter) {
        let (reader, writer) = must(std::io::pipe(), "cannot make a pipe");
        let mut command = self.command(WHILE_TEST, &[&self.home]);
        let mut child = must(command.stdin(Stdio::from(reader)).spawn(), "cannot start a server");
        self.wait_until_ready(Some(&mut child));
        (child, writer)
    }

    /// Starts the server for as long as anyone holds the lock below `base`.
    pub(crate) fn start_while_used(&self, base: &Path) {
        let mut command = self.command(WHILE_USED, &[base, &self.home]);
        // Outlives this process, and so is not waited for.
        let mut child = must(command.spawn(), "cannot start a server");
        self.wait_until_ready(Some(&mut child));
    }

    fn wait_until_ready(&self, mut keeper: Option<&mut Child>) {
        let (status, began) = (self.home.join("data/postmaster.pid"), Instant::now());
        loop {
            let ready = fs::read_to_string(&status)
                .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"));
            if ready {
                return;
            }
            let ended = keeper.as_mut().and_then(|keeper| keeper.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
                panic!("a server does not start: {ended:?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The process id of the running server.
    pub(crate) fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.home.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }
}
