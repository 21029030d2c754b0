//! Bounds around processes: what a process meets that goes beyond them, and what it sees in `bubblewrap`.

use std::path::Path;

use windlass_core::failure::Failure;
use windlass_core::value::Value;

use crate::mcp::{SUBJECT, accepted, ask};
use crate::{call, catalog_in, json, tool};

/// Runs a program in Python as a tool of the folder, with these bounds.
async fn python(folder: &Path, program: &str, sandbox: &str) -> Result<Value, Failure> {
    std::fs::write(folder.join("program.py"), program).expect("a file");
    let toml = format!(
        "[tools.t]\ntype = 'command'\ncommand = ['python3', '{}']\nsandbox = {{ {sandbox} }}",
        folder.join("program.py").display()
    );
    tool(&catalog_in(folder, &toml).expect("a catalog"), "t").call(call("{}")).await
}

#[tokio::test]
async fn memory_beyond_the_bound_is_not_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let takes = "try:\n    print(len(bytearray(1 << 30)))\nexcept MemoryError:\n    print('\"refused\"')\n";
    let run = async |bytes: u64| python(folder.path(), takes, &format!("memory_bytes_max = {bytes}")).await;
    assert_eq!(run(4 << 30).await, Ok(Value::Int(1 << 30)));
    assert_eq!(run(512 << 20).await, Ok(Value::str("refused")));
}

#[tokio::test]
async fn processor_time_beyond_the_bound_ends_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "['/bin/sh', '-c', 'ulimit -t; while [ -e . ]; do :; done']";
    let toml = format!("[tools.t]\ntype = 'command'\ncommand = {script}\nsandbox = {{ cpu_s_max = 1 }}");
    let spins = tool(&catalog_in(folder.path(), &toml).expect("a catalog"), "t");
    let failure = spins.call(call("{}")).await.expect_err("killed");
    let killed = i64::from(nix::sys::signal::Signal::SIGKILL as i32);
    assert_eq!(failure.status, Some(-killed), "{failure}");
}

/// A fork bomb that is not run by the superuser, whom no such bound holds. Says how many processes it could start, of 64.
const FORKS: &str = r#"
import os
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
reader, writer = os.pipe()
made = 0
try:
    while made < 64:
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
os.close(writer)
for _ in range(made):
    os.wait()
print(made)
"#;

#[tokio::test]
async fn processes_beyond_the_bound_are_not_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let free = python(folder.path(), FORKS, "files_max = 1000").await;
    assert_eq!(free, Ok(Value::Int(64)), "without a bound of this kind");
    let bound = python(folder.path(), FORKS, "processes_max = 9").await.expect("an answer");
    assert!(bound.as_int().is_some_and(|made| (0..9).contains(&made)), "{bound:?}");
}

/// Tries what a confined process must not be able to do: `{"network", "process", "outside", "hidden", "inside"}`, each
/// `done` or why not.
const TRIES: &str = r#"
import errno, json, os, signal, socket, sys

def tried(work):
    try:
        work()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]

port, process, folder, hidden = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
print(json.dumps({
    "network": tried(lambda: socket.create_connection(("127.0.0.1", port))),
    "process": tried(lambda: os.kill(process, 0)),
    "outside": tried(lambda: open(folder + "/outside", "w")),
    "hidden": tried(lambda: open(hidden)),
    "inside": tried(lambda: open(folder + "/open/inside", "w")),
}))
"#;

/// Runs [`TRIES`] as a tool, with these bounds.
async fn tries(sandbox: &str) -> (Value, bool) {
    // Not below `/tmp`, which is another one in `bubblewrap`.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    std::fs::create_dir(folder.path().join("open")).expect("a folder");
    std::fs::write(folder.path().join("tries.py"), TRIES).expect("a file");
    let hidden = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let words = ["python3".into(), "tries.py".into(), port.to_string(), std::process::id().to_string()];
    let places = [folder.path(), hidden.path()].map(|place| place.display().to_string());
    let words = serde_json::to_string(&[&words[..], &places[..]].concat()).expect("JSON");
    let toml = format!("[tools.t]\ntype = 'command'\ncommand = {words}\nsandbox = {{ {sandbox} }}");
    let tool = tool(&catalog_in(folder.path(), &toml).expect("a host with `bwrap`"), "t");
    let said = tool.call(call("{}")).await.expect("an answer");
    (said, folder.path().join("open/inside").is_file())
}

#[tokio::test]
async fn bubblewrap_keeps_a_process_from_the_network_from_files_and_from_other_processes() {
    let free = r#"{"network":"done","process":"done","outside":"done","hidden":"done","inside":"done"}"#;
    assert_eq!(tries("files_max = 1000").await, (json(free), true), "without it");
    let confined =
        r#"{"network":"ECONNREFUSED","process":"ESRCH","outside":"EROFS","hidden":"ENOENT","inside":"EROFS"}"#;
    assert_eq!(tries("isolate = 'required'").await, (json(confined), false));
    // What the host has is used where that is left to the host, and other bounds hold beside it.
    assert_eq!(tries("isolate = 'when_present', files_max = 1000").await, (json(confined), false));
    let opened = r#"{"network":"done","process":"ESRCH","outside":"EROFS","hidden":"ENOENT","inside":"done"}"#;
    let (said, is_written) = tries("isolate = 'required', network = true, write = ['open']").await;
    assert_eq!((said, is_written), (json(opened), true), "what was written is there afterwards");
}

#[tokio::test]
async fn a_server_runs_in_bubblewrap() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    std::fs::write(folder.path().join("stub.py"), include_str!("mcp/stub.py")).expect("a file");
    std::fs::write(folder.path().join("tools.json"), format!(r#"{{"tools":[{SUBJECT}]}}"#)).expect("a file");
    let toml = "[mcp.stub]\ncommand = ['python3', 'stub.py', 'modern', 'answers']\n\
                sandbox = { isolate = 'required', write = ['.'] }";
    let tool = accepted(folder.path(), toml, "stub__subject").await;
    assert_eq!(ask(&tool).await.expect("an answer").get("arguments"), Some(&json(r#"{"a":1}"#)));
    // A process that can write nothing ends with its first message.
    let toml = toml.replace(", write = ['.']", "");
    let tool = crate::tool(&catalog_in(folder.path(), &toml).expect("a catalog"), "stub__subject");
    ask(&tool).await.expect_err("a process that died");
}
