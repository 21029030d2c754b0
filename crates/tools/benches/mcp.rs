//! What a call of a tool of an MCP server takes, from the call to its result, with a server that does nothing. A `read`
//! takes a list that still counts, a `write` asks for it anew.

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::tool::{Invocation, Permit, Tool};
use windlass_tools::mcp::{Pins, Quarantine, Standing};
use windlass_tools::{CatalogConfig, Surroundings, WorkPools, build_catalog, build_servers};

fn main() {
    divan::main();
}

/// Answers over stdio, as fast as Python does.
const STDIO: &str = r#"
import json, sys
for text in sys.stdin:
    request = json.loads(text)
    method = request.get("method")
    if method == "server/discover":
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {}}
    elif method == "tools/list":
        result = {"ttlMs": 60000, "tools": [{"name": "subject", "description": "Does it.", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "done"}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"#;

fn result(method: &str) -> Json {
    let tool = json!({ "name": "subject", "description": "Does it.", "inputSchema": { "type": "object" } });
    match method {
        "server/discover" => json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} }),
        "tools/list" => json!({ "ttlMs": 60_000, "tools": [tool] }),
        _ => json!({ "content": [{ "type": "text", "text": "done" }] }),
    }
}

/// Answers what comes over one connection, for as long as it stands.
async fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line).await? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let Ok(request) = serde_json::from_slice::<Json>(&body) else { return Ok(()) };
        let answer = json!({ "jsonrpc": "2.0", "id": request["id"],
            "result": result(request["method"].as_str().unwrap_or_default()) })
        .to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await?;
        stream.flush().await?;
    }
}

/// A tool of a server, and what it lives in.
struct Bench {
    runtime: Runtime,
    tool: Arc<dyn Tool>,
    _folder: TempDir,
}

impl Bench {
    fn new(over_http: bool, class: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let place = if over_http {
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
            let address = listener.local_addr().expect("an address");
            runtime.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream));
                }
            });
            format!("url = 'http://{address}/mcp'")
        } else {
            std::fs::write(folder.path().join("server.py"), STDIO).expect("a file");
            "command = ['python3', 'server.py']\npass_env = ['PATH']".to_owned()
        };
        let toml = format!("[mcp.s]\n{place}\n[mcp.s.tools.subject]\nclass = '{class}'\n");
        let tool = runtime.block_on(accepted(folder.path(), &toml));
        Self { runtime, tool, _folder: folder }
    }

    fn call(&self) -> Value {
        let invocation = Invocation {
            name: "s__subject".into(),
            arguments: Value::empty_map(),
            idempotency_key: "run#1".into(),
            trace: None,
            run: RunId::stored("run"),
            tenant: "default".into(),
            attempt: 1,
            timeout_ms: 10_000,
            output_bytes_max: 100_000,
            permit: Permit::default(),
        };
        self.runtime.block_on(self.tool.call(invocation)).expect("a result")
    }
}

async fn accepted(folder: &Path, toml: &str) -> Arc<dyn Tool> {
    let config: CatalogConfig = toml::from_str(toml).expect("a configuration");
    let surroundings = Surroundings {
        folder,
        environment: &|name| std::env::var_os(name),
        secret: &|_| None,
        require_contracts: false,
        require_guards: false,
        pools: &WorkPools::default(),
        quarantine: &Quarantine::default(),
    };
    let mut pins = Pins::default();
    for (name, server) in build_servers(&config, &surroundings).expect("servers") {
        for (tool, standing) in server.standings(&pins, 20_000).await.expect("a list of tools") {
            if let Standing::New(definition) = standing {
                pins.servers.entry(name.clone()).or_default().insert(tool, definition);
            }
        }
        server.client.end().await;
    }
    pins.save(folder).expect("a file");
    let catalog = build_catalog(&config, &surroundings).expect("a catalog");
    Arc::clone(&catalog.tools["s__subject"])
}

#[divan::bench(args = ["read", "write"], sample_count = 2_000, sample_size = 1)]
fn over_http(bencher: Bencher<'_, '_>, class: &str) {
    let bench = Bench::new(true, class);
    bench.call();
    bencher.bench_local(|| bench.call());
}

#[divan::bench(args = ["read", "write"], sample_count = 2_000, sample_size = 1)]
fn over_stdio(bencher: Bencher<'_, '_>, class: &str) {
    let bench = Bench::new(false, class);
    bench.call();
    bencher.bench_local(|| bench.call());
}
