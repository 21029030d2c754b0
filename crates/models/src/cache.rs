//! Exact answers from before: one cache in memory, by tenant, chain and request. Bounded by bytes and by age. Sans I/O:
//! time comes in as milliseconds of a clock that never goes back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use windlass_core::ids::{Digest, Name};
use windlass_core::machine::ModelSettings;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message, Reply, Usage};
use windlass_core::value::{Map, Value};

use crate::wire::Answer;

/// Bytes of answers that are kept.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Places in the order of answers that may be out of date, beside one for each answer.
const ORDER_MIN: usize = 64;

/// What identifies an answer. The tenant is part of it: no answer ever crosses to another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    tenant: Name,
    request: String,
}

impl Key {
    /// The key of a request of a chain as one of its links answers it: everything that shapes the answer, the model and its
    /// parameters too, and nothing of how it is sent. The bound of the output is no part of it: links have their own, and
    /// only answers that ended before it are kept.
    pub(crate) fn of(chain: &str, link: &str, called: &ModelSettings, request: &ModelRequest) -> Self {
        let said = serde_json::to_vec(&(
            (chain, link),
            (&called.provider, &called.model, &called.base_url, &called.params),
            &request.agent,
            &request.messages,
            &request.files,
            &request.tools,
            &request.output_schema,
        ));
        // Plain data with text keys, for which serialisation cannot fail.
        Self { tenant: request.tenant.clone(), request: Digest::of(&said.unwrap_or_default()).to_string() }
    }
}

#[derive(Debug)]
struct Kept {
    reply: Arc<Reply>,
    bytes: usize,
    until: u64,
    number: u64,
}

/// Answers from before.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    kept: BTreeMap<Key, Kept>,
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    number: u64,
}

impl Cache {
    /// Keeps an answer. Only whole ones, which another asker could have had as well.
    pub(crate) fn keep(&mut self, now: u64, key: Key, reply: &Reply, ttl_ms: u64) {
        if ttl_ms == 0 || !matches!(reply.finish, Finish::Stop | Finish::ToolUse) {
            return;
        }
        let calls = reply.tool_calls.iter().map(|call| call.arguments.size_bytes() + call.name.len() + 64);
        let bytes = reply.content.len() + calls.sum::<usize>() + reply.attachments.size_bytes() + 512;
        if bytes > BYTES_MAX / 8 {
            return;
        }
        self.number += 1;
        let kept =
            Kept { reply: Arc::new(reply.clone()), bytes, until: now.saturating_add(ttl_ms), number: self.number };
        self.order.push_back((key.clone(), self.number));
        self.bytes += bytes;
        if let Some(old) = self.kept.insert(key, kept) {
            self.bytes -= old.bytes;
        }
        if self.order.len() > self.kept.len() * 2 + ORDER_MIN {
            self.order.retain(|(key, number)| self.kept.get(key).is_some_and(|kept| kept.number == *number));
        }
        while self.bytes > BYTES_MAX {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.kept.get(&oldest).is_some_and(|kept| kept.number == number) {
                self.forget(&oldest);
            }
        }
    }

    /// The answer to the same request, if it is not too old.
    pub(crate) fn find(&mut self, now: u64, key: &Key) -> Option<Arc<Reply>> {
        if self.kept.get(key)?.until <= now {
            self.forget(key);
            return None;
        }
        self.kept.get(key).map(|kept| Arc::clone(&kept.reply))
    }

    fn forget(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes -= kept.bytes;
        }
        if self.kept.is_empty() {
            self.order.clear();
        }
    }
}

/// A kept answer as the answer of an attempt: it used nothing, and says what it saved.
pub(crate) fn answer(reply: &Reply) -> (Answer, Value) {
    let model = reply.provider_data.get("model").and_then(Value::as_str).map(Into::into);
    let mut saved = Map::new();
    saved.insert("hit".into(), Value::Bool(true));
    saved.insert("saved_micros".into(), reply.cost_micros.map_or(Value::Null, Value::count));
    saved.insert("saved_tokens".into(), reply.usage.total().map_or(Value::Null, Value::count));
    let answer = Answer {
        content: reply.content.to_string(),
        has_content: reply.has_content,
        tool_calls: reply.tool_calls.clone(),
        finish: reply.finish,
        finish_word: None,
        usage: Usage { input: Some(0), output: Some(0), ..Usage::default() },
        // What only one provider understands belongs to the call that was paid for.
        attachments: Value::Null,
        id: None,
        model,
        service_tier: None,
    };
    (answer, Value::map(saved))
}

/// Whether a request can be answered from before at all: what follows tool calls is about a world that has changed.
pub(crate) fn applies(request: &ModelRequest) -> bool {
    !request.messages.iter().any(|message| matches!(message, Message::Tool { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request_of;

    fn reply(content: &str) -> Reply {
        Reply {
            content: content.into(),
            has_content: true,
            tool_calls: vec![],
            finish: Finish::Stop,
            usage: Usage { input: Some(3), output: Some(4), ..Usage::default() },
            cost_micros: Some(9),
            prices: None,
            attachments: Value::Null,
            provider_data: Value::Null,
        }
    }

    fn asked(tenant: &str, said: &str) -> ModelRequest {
        let mut request = request_of("p", "m", vec![Message::User { content: said.into() }]);
        request.tenant = tenant.into();
        request
    }

    fn key(chain: &str, request: &ModelRequest) -> Key {
        let called = ModelSettings {
            provider: "p".into(),
            model: "m".into(),
            base_url: None,
            key: None,
            max_tokens: None,
            stream: false,
            params: request.params.clone(),
            timeout_ms: 1,
        };
        Key::of(chain, "l", &called, request)
    }

    #[test]
    fn an_answer_that_is_kept_again_and_again_takes_one_place() {
        let mut cache = Cache::default();
        for now in 0..10_000 {
            cache.keep(now, key("c", &asked("t", "q")), &reply("a"), 100);
        }
        assert!(cache.order.len() <= ORDER_MIN + 3, "{}", cache.order.len());
        assert!(cache.find(10_000, &key("c", &asked("t", "q"))).is_some());
    }

    #[test]
    fn answers_are_of_one_tenant_one_chain_and_one_request_for_a_time() {
        let mut cache = Cache::default();
        let first = key("c", &asked("t", "q"));
        cache.keep(0, first.clone(), &reply("a"), 100);
        assert_eq!(cache.find(99, &first).map(|r| r.content.to_string()).as_deref(), Some("a"));
        for other in [key("c", &asked("u", "q")), key("c", &asked("t", "r")), key("d", &asked("t", "q"))] {
            assert!(cache.find(0, &other).is_none(), "{other:?}");
        }
        assert!(cache.find(100, &first).is_none(), "too old");
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn the_oldest_answers_go_first() {
        let mut cache = Cache::default();
        let long = "x".repeat(BYTES_MAX / 9);
        for n in 0..12 {
            cache.keep(0, key("c", &asked("t", &n.to_string())), &reply(&long), 100);
        }
        assert!(cache.bytes <= BYTES_MAX && cache.kept.len() == 8);
        assert!(cache.find(0, &key("c", &asked("t", "0"))).is_none());
        assert!(cache.find(0, &key("c", &asked("t", "11"))).is_some());
    }

    #[test]
    fn a_hit_costs_nothing_and_says_what_it_saved() {
        let (answer, saved) = answer(&reply("a"));
        assert_eq!(answer.usage.total(), Some(0));
        assert_eq!(saved.to_json(), r#"{"hit":true,"saved_micros":9,"saved_tokens":7}"#);
    }
}
