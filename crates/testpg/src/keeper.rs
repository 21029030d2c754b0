//! Making data folders, starting a server in one, and seeing that it ends with whoever asked for it.

use std::fs::{self, File};
use std::io::PipeWriter;
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
        make_data(base, &home.join("data"));
        if !options.hba.is_empty() {
            let lines = options.hba.join("\n") + "\n";
            must(fs::write(home.join("data/pg_hba.conf"), lines), "cannot write the rules of access");
        }
        Self { home, port: free_port(), options }
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
        if let Some(time) = &self.options.faketime {
            arguments.extend(["faketime", "-m", "-f", time.as_str()].map(str::to_owned));
        }
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        // The server also dies with the program that keeps it.
        arguments.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
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
