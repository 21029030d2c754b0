//! Runs our model adapters against the LiteLLM proxy: a server written by others, with answers that it makes up itself.
//!
//! The proxy comes from PyPI in the version written here, into a folder of the user's cache. A host that cannot get it
//! fails the step: nothing is passed over.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::docs::Scratch;
use crate::process;

const PROXY: &str = "litellm[proxy]==1.100.0";
/// The program that asks.
const ASKER: &str = "litellm";
/// The key of the proxy, which is ours alone.
const KEY: &str = "sk-of-the-proxy";
/// Lines of the proxy's log that are shown when something went wrong.
const LOG_LINES: usize = 40;

/// Asks everything that the asker knows to ask.
///
/// # Errors
/// The proxy cannot be had or started, or an answer is not what it should be.
pub(crate) fn run(root: &Path) -> Result<()> {
    let proxy = proxy()?;
    process::run(process::cargo(root, &["build", "--quiet", "--package", "windlass-models", "--example", ASKER]))?;
    let beside = std::env::current_exe().context("cannot tell where this program is")?;
    let scratch = Scratch::new("windlass-litellm")?;
    let port = free_port()?;
    let served = Served::start(&proxy, &scratch.path, port)?;
    let mut asker = Command::new(beside.with_file_name("examples").join(ASKER));
    asker.arg(format!("http://127.0.0.1:{port}")).arg(KEY).stdin(Stdio::null());
    let asked = process::run(asker);
    drop(served);
    if asked.is_err() {
        let log = fs::read_to_string(scratch.path.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        bail!("{}\nthe adapters and the proxy do not agree", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
    }
    println!("{PROXY}: both formats, whole and streamed, and refusals");
    Ok(())
}

/// The proxy, stopped when it is dropped.
struct Served(Child);

impl Served {
    fn start(proxy: &Path, folder: &Path, port: u16) -> Result<Self> {
        let config = folder.join("config.yaml");
        fs::write(&config, configuration(port)).with_context(|| format!("cannot write `{}`", config.display()))?;
        let log = File::create(folder.join("log")).context("cannot make the proxy's log")?;
        let child = Command::new(proxy)
            .current_dir(folder)
            .arg("--config")
            .arg(&config)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            // It asks nobody for prices, and tells nobody that it runs.
            .envs([("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("NO_DOCS", "True"), ("LITELLM_MODE", "PRODUCTION")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the proxy's log")?)
            .stderr(log)
            .spawn()
            .context("cannot start the proxy")?;
        Ok(Self(child))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("the proxy cannot be stopped: {error}");
        }
    }
}

/// What the proxy answers. A made-up answer to a question in Anthropic's format is not streamed, so that question goes
/// around once more by the other format.
fn configuration(port: u16) -> String {
    let made_up = |name: &str, answer: &str| {
        format!(
            "  - model_name: {name}\n    litellm_params: {{model: openai/made-up, api_key: none, mock_response: \"{answer}\"}}\n"
        )
    };
    format!(
        "model_list:\n{}{}{}{}  - model_name: answers-anthropic\n    litellm_params: {{model: hosted_vllm/answers, \
         api_base: \"http://127.0.0.1:{port}/v1\", api_key: {KEY}}}\n\
         general_settings: {{master_key: {KEY}}}\nlitellm_settings: {{telemetry: false, num_retries: 0}}\n",
        made_up("answers", "The answer is 42."),
        made_up("limited", "litellm.RateLimitError"),
        made_up("broken", "litellm.InternalServerError"),
        made_up("long", "litellm.ContextWindowExceededError"),
    )
}

/// A port that nobody listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr().context("a port without an address")?.port())
}

/// The program of the installed proxy, installed when it is not yet what is written here.
fn proxy() -> Result<PathBuf> {
    let folder = process::cache()?.join("windlass/litellm");
    let mark = folder.join("installed");
    if fs::read_to_string(&mark).ok().as_deref() != Some(PROXY) {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
        }
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&folder);
        process::run(venv).context("python3 makes no virtual environment (hint: install python3-venv)")?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", PROXY]);
        process::run(pip).context("pip cannot install the proxy")?;
        fs::write(&mark, PROXY).with_context(|| format!("cannot write `{}`", mark.display()))?;
    }
    Ok(folder.join("bin/litellm"))
}
