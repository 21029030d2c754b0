//! A server on this host that answers as a test wants, and a machine that asks a chain of the catalog.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use windlass::wire::{ProviderConfig, Wiring};
use windlass::{Outcome, Windlass};
use windlass_core::budget::Ceilings;
use windlass_core::journal::{Entry, Record};
use windlass_core::run::Run;
use windlass_core::value::Value;

/// The variables with keys of providers that are set.
const KEYS: [&str; 5] =
    ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GROQ_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"];

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers: status, content type, body, and how many bytes of it are sent before the connection breaks.
    Answer(u16, &'static str, Vec<u8>, Option<usize>),
    /// Answers without saying how long it will be, and closes the connection as if that were all.
    Ends(&'static str, Vec<u8>),
    /// Waits until the other side goes.
    Hang,
}

impl Act {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::Answer(status, "application/json", body.into(), None)
    }

    pub(crate) fn cut(self, bytes: usize) -> Self {
        match self {
            Self::Answer(status, kind, body, _) => Self::Answer(status, kind, body, Some(bytes)),
            Self::Ends(..) | Self::Hang => self,
        }
    }
}

/// A whole answer of chat completions.
pub(crate) fn openai(content: &str) -> Act {
    let content = Value::str(content).to_json();
    Act::json(
        200,
        &format!(
            r#"{{"id":"c","model":"m","choices":[{{"message":{{"role":"assistant","content":{content}}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":20,"completion_tokens":5}}}}"#
        ),
    )
}

/// The same as a stream.
pub(crate) fn openai_stream(content: &str) -> Act {
    let content = Value::str(content).to_json();
    let body = format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"delta\":{{\"role\":\"assistant\",\"content\":{content}}}}}]}}\n\n\
         data: {{\"id\":\"c\",\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n\
         data: {{\"id\":\"c\",\"choices\":[],\"usage\":{{\"prompt_tokens\":20,\"completion_tokens\":5}}}}\n\n\
         data: [DONE]\n\n"
    );
    Act::Answer(200, "text/event-stream", body.into(), None)
}

/// A whole answer of Anthropic messages.
pub(crate) fn anthropic(content: &str) -> Act {
    let content = Value::str(content).to_json();
    Act::json(
        200,
        &format!(
            r#"{{"id":"m","content":[{{"type":"text","text":{content}}}],"stop_reason":"end_turn","usage":{{"input_tokens":20,"output_tokens":5}}}}"#
        ),
    )
}

type Handler = dyn Fn(&str, &Value) -> Act + Send + Sync;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// Starts one that does with every request what the function says of its path and body.
    pub(crate) fn start(handler: impl Fn(&str, &Value) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let (seen, handler): (Arc<Mutex<Vec<_>>>, Arc<Handler>) = (Arc::default(), Arc::new(handler));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                std::thread::spawn(move || serve(stream, &log, &*handler));
            }
        });
        Self { url, seen }
    }

    /// Requests to paths that end so.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|(at, _)| at.ends_with(path)).count()
    }

    /// Paths and bodies so far.
    pub(crate) fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<(String, Value)>>, handler: &Handler) {
    let Some((path, body)) = read(&mut stream) else { return };
    log.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), body.clone()));
    match handler(&path, &body) {
        Act::Hang => {
            let mut rest = [0; 64];
            while matches!(stream.read(&mut rest), Ok(n) if n > 0) {}
        }
        Act::Answer(status, kind, body, cut) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let body = &body[..cut.unwrap_or(body.len()).min(body.len())];
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
        Act::Ends(kind, body) => {
            let head = format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-type: {kind}\r\n\r\n");
            let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let mut more = |bytes: &mut Vec<u8>| {
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
        Some(())
    };
    let end = loop {
        match bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(end) => break end,
            None => more(&mut bytes)?,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let length: usize = length.unwrap_or(0);
    while bytes.len() < end + 4 + length {
        more(&mut bytes)?;
    }
    Some((path, Value::from_json(std::str::from_utf8(&bytes[end + 4..]).ok()?).ok()?))
}

/// A folder with a catalog, and the machine that asks.
#[derive(Debug)]
pub(crate) struct Desk {
    folder: tempfile::TempDir,
    wiring: Wiring,
    windlass: tokio::sync::OnceCell<Windlass>,
    schema: String,
    execution: &'static str,
    rounds: u32,
    ceilings: Ceilings,
}

impl Desk {
    pub(crate) fn new(catalog: &str, providers: BTreeMap<String, ProviderConfig>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("models.yml"), catalog).expect("written");
        std::fs::write(folder.path().join("rules.yml"), "default: {content: by rules}\n").expect("written");
        let wiring = Wiring {
            folder: folder.path().to_owned(),
            scripts: folder.path().to_owned(),
            models: Some("models.yml".into()),
            providers,
            environment: Arc::new(|name| KEYS.contains(&name).then(|| "key".into())),
            ..Wiring::default()
        };
        Self {
            folder,
            wiring,
            windlass: tokio::sync::OnceCell::new(),
            schema: String::new(),
            execution: "",
            rounds: 1,
            ceilings: Ceilings::default(),
        }
    }

    /// The agent's calls are repeated, without a pause that counts.
    pub(crate) fn retrying(mut self) -> Self {
        self.execution = "execution: {type: retry, backoffs: [0.001, 0.001, 0.001], jitter: 0}, ";
        self
    }

    /// The agent answers with a text under a key.
    pub(crate) fn answering(mut self, key: &str) -> Self {
        self.schema = format!(", output: {{{key}: {{type: str}}}}");
        self
    }

    /// Runs may cost so much, in micro-USD.
    pub(crate) fn within(mut self, cost_micros: u64) -> Self {
        self.ceilings.cost_micros = Some(cost_micros);
        self
    }

    /// The machine asks so many times, one after the other.
    pub(crate) fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    fn machine(&self) -> String {
        let states: String = (0..self.rounds)
            .map(|n| {
                let (kind, to) = (if n == 0 { "type: initial, " } else { "" }, n + 1);
                let to = if to == self.rounds { "end".to_owned() } else { format!("ask{to}") };
                format!(
                    "    ask{n}: {{{kind}agent: asker, {}output_to_context: {{r: output.content}}, transitions: [{{to: {to}}}]}}\n",
                    self.execution
                )
            })
            .collect();
        format!(
            "spec: flatmachine\nspec_version: 4.2.1\ndata:\n  name: asks\n  context: {{task: \"{{{{ input.task.task | default('') }}}}\", disagreement: \"{{{{ input.task.disagreement | default('') }}}}\", risk: \"{{{{ input.task.risk | default('') }}}}\"}}\n  agents:\n    asker: {{spec: flatagent, spec_version: 4.2.1, data: {{model: {{provider: chain, name: answers, stream: {}}}, system: S, user: ask{}}}}}\n  states:\n{states}    end: {{type: final, output: {{r: context.r}}}}\n",
            self.schema.is_empty(),
            self.schema
        )
    }

    async fn windlass(&self) -> &Windlass {
        let make = || async {
            let wiring = Wiring {
                folder: self.wiring.folder.clone(),
                scripts: self.wiring.scripts.clone(),
                models: self.wiring.models.clone(),
                providers: self.wiring.providers.clone(),
                environment: Arc::clone(&self.wiring.environment),
                ..Wiring::default()
            };
            Windlass::builder().wiring(wiring).ceilings(self.ceilings).build().await.expect("built")
        };
        self.windlass.get_or_init(make).await
    }

    /// Runs the machine: how it ended, its journal and its last state.
    pub(crate) async fn ask(&self, task: Value) -> (Outcome, Vec<Entry>, Run) {
        let machine = self.machine();
        let windlass = self.windlass().await;
        let files = windlass_spec::source::MemoryFiles::new().with("machine.yml", machine);
        let id = windlass.submit(&files, "machine.yml", Value::object([("task", task)]), None).await.expect("valid");
        let outcome = windlass.resume(&id).await.expect("driven");
        let store = &windlass.engine().parts().store;
        let rows = store.journal(id.clone(), 0, 1_000).await.expect("read");
        let entries = rows.iter().flat_map(|row| Record::decode(&row.bytes).expect("a record").entries).collect();
        let run = windlass.engine().status(&id).await.expect("read").expect("there").run;
        (outcome, entries, run)
    }

    /// Why the machine is refused.
    pub(crate) async fn refused(&self) -> String {
        let machine = self.machine();
        let error = self.windlass().await.run_text(&machine, Value::empty_map()).await.expect_err("refused");
        assert!(self.folder.path().is_dir());
        error.to_string()
    }
}

/// The first call of a journal.
pub(crate) fn first_call(entries: &[Entry]) -> &Entry {
    entries.iter().find(|entry| matches!(entry, Entry::CallIntended { .. })).expect("a call")
}
