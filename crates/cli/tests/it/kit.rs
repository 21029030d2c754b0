//! A folder of its own for each test, the binary in it, and snapshots without what differs from run to run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;
use windlass_testpg::Database;

/// A machine that asks the scripted provider once.
pub(crate) const ASKS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: asks
  context:
    topic: input.topic
  agents:
    writer:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: writer
        model: { provider: scripted, name: small, max_tokens: 100 }
        system: You write one line.
        user: "Write about {{ input.topic }}."
  states:
    write:
      type: initial
      agent: writer
      input:
        topic: context.topic
      output_to_context:
        text: output.content
      transitions:
        - to: done
    done:
      type: final
      output:
        text: context.text
"#;

/// A machine that waits for an answer, for at most a day.
pub(crate) const WAITS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: waits
  context:
    order: input.order
  states:
    ask:
      type: initial
      wait_for: "approvals/{{ context.order }}"
      output_to_context:
        approved: output.approved
      transitions:
        - to: done
    done:
      type: final
      output:
        approved: context.approved
"#;

/// A machine whose agent, called `clerk`, calls the tool `pay`.
pub(crate) const PAYS: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: payer
  settings: {tools: [pay]}
  agents:
    clerk:
      spec: flatagent
      spec_version: "4.2.1"
      data:
        name: clerk
        model: { provider: scripted, name: small, max_tokens: 100 }
        user: Pay the invoice.
  states:
    pay:
      type: initial
      agent: clerk
      tool_loop: {max_turns: 4}
      output_to_context: {said: output.content}
      transitions: [{to: done}]
    done: {type: final, output: {said: context.said}}
"#;

const SCRIPT: &str =
    "rules:\n  - agent: writer\n    reply: {content: Tides turn twice a day., usage: {input: 20, output: 8}}\n";

/// The store of a test, of the kind that `WINDLASS_TEST_STORE` names: the same tests hold on every store.
pub(crate) struct TestStore {
    /// Its address.
    pub(crate) url: String,
    _database: Option<Database>,
}

impl TestStore {
    /// A database of the test's own.
    pub(crate) fn of(url: String, database: Database) -> Self {
        Self { url, _database: Some(database) }
    }

    /// A file of the test's own.
    pub(crate) fn file(file: &Path) -> Self {
        Self { url: format!("sqlite:{}", file.display()), _database: None }
    }

    /// A new one; a file of this name when it is one. `parameters` are for a database.
    pub(crate) fn new(file: &Path, parameters: &str) -> Self {
        match std::env::var("WINDLASS_TEST_STORE").as_deref() {
            Err(_) | Ok("sqlite") => Self::file(file),
            Ok("postgres") => {
                let database = windlass_testpg::database();
                Self { url: format!("{}{parameters}", database.url()), _database: Some(database) }
            }
            Ok(other) => panic!("WINDLASS_TEST_STORE is `{other}`; `sqlite` or `postgres` is wanted"),
        }
    }
}

/// A folder with machines, a script and a configuration.
pub(crate) struct Place {
    dir: TempDir,
    store: OnceLock<TestStore>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("folder"), store: OnceLock::new() };
        place.write("asks.yml", ASKS);
        place.write("waits.yml", WAITS);
        place.write("script.yml", SCRIPT);
        place.write("windlass.toml", "[providers.scripted]\nscript = \"script.yml\"\n");
        place
    }

    /// One with [`PAYS`] as `payer.yml`.
    pub(crate) fn paying(script: &str, config: &str) -> Self {
        let place = Self::new();
        for (name, text) in [("payer.yml", PAYS), ("script.yml", script), ("windlass.toml", config)] {
            place.write(name, text);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The address of its store, of the kind that is tested.
    pub(crate) fn store(&self) -> &str {
        &self.store.get_or_init(|| TestStore::new(&self.path("windlass.db"), "")).url
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("file");
    }

    /// Runs the binary.
    pub(crate) fn windlass(&self, args: &[&str]) -> Ran {
        self.with(args, |_| {})
    }

    /// Runs the binary with more said to it.
    pub(crate) fn with(&self, args: &[&str], more: impl FnOnce(&mut Command)) -> Ran {
        let mut command = command(self.dir.path());
        command.args(args);
        more(&mut command);
        Ran { output: command.output().expect("the binary runs"), dir: self.dir.path().to_owned() }
    }
}

/// The binary, with nothing of this computer's environment that it reads.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.current_dir(dir).stdin(std::process::Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("WINDLASS") || name_text.ends_with("_API_KEY") || name_text.starts_with("TRACE") {
            command.env_remove(name);
        }
    }
    command.env("COLUMNS", "100");
    command
}

/// A process that ends with the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// What one run of the binary did.
pub(crate) struct Ran {
    output: Output,
    dir: PathBuf,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout())
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout(), self.stderr()))
    }

    /// Exit code, stdout and stderr as one text.
    pub(crate) fn shown(&self) -> String {
        let text = format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code(), self.stdout(), self.stderr());
        text.replace(&*self.dir.to_string_lossy(), "[DIR]")
    }
}

/// Compares with a stored snapshot, without ids, times and durations.
macro_rules! assert_shown {
    ($ran:expr) => {
        insta::with_settings!({
            filters => [
                (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[UUID]"),
                (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
                (r"in \d+\.\d{3} s", "in [SECONDS] s"),
                // What a server for tests is warned of.
                (r"(?m)^.*`fsync = off`.*\n", ""),
                (r"\b[0-9a-f]{12}\b", "[HASH]"),
            ],
            omit_expression => true,
        }, {
            insta::assert_snapshot!($ran.shown());
        });
    };
}
pub(crate) use assert_shown;
