//! Which part of the configuration says what runs do, as one hash.

use serde_json::json;
use windlass_core::ids::Digest;
use windlass_core::value::Value;

use super::{Config, PolicyTable};

impl Config {
    /// The hash of what says what runs do. Where they are stored, who hears of them, how much is done at once and what is
    /// logged is not in it; rules, the model catalog and price books have hashes of their own. A new key is put on one side
    /// or the other here.
    ///
    /// # Errors
    /// A number that no value of a run can be.
    pub(crate) fn behaviour(&self) -> Result<Digest, serde_json::Error> {
        let Self {
            documents,
            limits,
            policy: PolicyTable { candidate, required, path: _, show_thinking: _ },
            trust,
            scan,
            preflight,
            outbound,
            providers,
            hooks,
            tools,
            actions,
            mcp,
            agents_cli,
            preset: _,
            store: _,
            encryption: _,
            prices: _,
            models: _,
            run: _,
            objectives: _,
            secrets: _,
            skills: _,
            worker: _,
            queue: _,
            serve: _,
            auth: _,
            log: _,
            audit: _,
            telemetry: _,
            notify: _,
        } = self;
        let said = json!({
            "documents": documents,
            "limits": limits,
            "policy": { "candidate": candidate, "required": required },
            "trust": trust,
            "scan": scan,
            "preflight": preflight,
            "outbound": outbound,
            "providers": providers,
            "hooks": hooks,
            "tools": tools,
            "actions": actions,
            "mcp": mcp,
            "agents_cli": agents_cli,
        });
        Value::from_json(&said.to_string()).map(|said| said.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> Digest {
        toml::from_str::<Config>(text).expect("a configuration").behaviour().expect("a hash")
    }

    #[test]
    fn what_says_what_runs_do_changes_the_hash_and_nothing_else_does() {
        let plain = hash("");
        for same in ["store = \"memory:\"", "[log]\nfilter = \"info\"", "[worker]\nthreads = 4", "[run]\nwait = \"1s\""]
        {
            assert_eq!(hash(same), plain, "{same}");
        }
        let others = [
            "[limits]\nsteps = 3",
            "[documents]\nstrict = true",
            "[scan]\nemail = \"mask\"",
            "[policy]\nrequired = true",
        ];
        let mut seen: Vec<Digest> = others.iter().map(|text| hash(text)).chain([plain]).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), others.len() + 1);
    }
}
