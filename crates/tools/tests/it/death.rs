//! A worker that is killed takes the processes of its calls with it, and whatever those have started.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::{call, catalog_in, mcp, tool};

const FOLDER: &str = "WINDLASS_TOOLS_DEATH_FOLDER";
/// Two processes of one group that live long, take no notice of requests to end, and hold a pipe open.
const SCRIPT: &str = "trap '' HUP INT TERM; exec 3>alive; sleep 600 & echo up >&3; exec sleep 600";

/// Not a test by itself: does nothing unless [`ends_with_its_worker`] started it.
#[tokio::test]
async fn a_worker_that_calls() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let toml = std::fs::read_to_string(folder.join("windlass.toml")).expect("a configuration");
    if toml.starts_with("[mcp") {
        mcp::accept(folder, &toml).await;
    } else {
        let _ = tool(&catalog_in(folder, &toml).expect("a catalog"), "t").call(call("{}")).await;
    }
}

fn ends_with_its_worker(table: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let argv = serde_json::to_string(&["/bin/sh", "-c", SCRIPT]).expect("JSON");
    let toml = format!("{table}\ncommand = {argv}\n");
    std::fs::write(folder.path().join("windlass.toml"), toml).expect("a file");
    let alive = folder.path().join("alive");
    mkfifo(&alive, Mode::S_IRWXU).expect("a pipe");
    let mut worker = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "death::a_worker_that_calls"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a worker starts");
    let mut pipe = BufReader::new(File::open(&alive).expect("someone writes"));
    let mut line = String::new();
    pipe.read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    worker.kill().expect("killed");
    worker.wait().expect("reaped");
    // The end of the pipe comes when the last process that has it open is gone.
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"");
}

#[test]
fn a_command_ends_with_its_worker() {
    ends_with_its_worker("[tools.t]\ntype = 'command'\ntimeout_ms = 600000");
}

#[test]
fn a_server_over_stdio_ends_with_its_worker() {
    ends_with_its_worker("[mcp.stub]");
}
