//! Windlass as a library: a durable runtime for agent workflows inside a Rust program.
//!
//! ```
//! use windlass::{Value, Windlass};
//!
//! # const MACHINE: &str = r#"
//! # spec: flatmachine
//! # spec_version: "4.2.1"
//! # data:
//! #   name: shouter
//! #   context:
//! #     word: input.word
//! #   states:
//! #     start:
//! #       type: initial
//! #       action: shout
//! #       output_to_context:
//! #         loud: "{{ output }}"
//! #       transitions:
//! #         - to: done
//! #     done:
//! #       type: final
//! #       output:
//! #         loud: "{{ context.loud }}"
//! # "#;
//! #[tokio::main]
//! async fn main() -> Result<(), windlass::Error> {
//!     let windlass = Windlass::builder()
//!         .action("shout", |context| {
//!             let word = context.get("word").and_then(Value::as_str).unwrap_or_default();
//!             Ok(Value::from(word.to_uppercase()))
//!         })
//!         .build()
//!         .await?;
//!     let input = Value::object([("word", Value::from("hoist"))]);
//!     let output = windlass.run_text(MACHINE, input).await?.output()?;
//!     assert_eq!(output.get("loud"), Some(&Value::from("HOIST")));
//!     Ok(())
//! }
//! ```
//!
//! `MACHINE` is a FlatMachine document with `action: shout`. The store is in memory unless [`Builder::store`] names a
//! file; then a run that is interrupted goes on with [`Windlass::resume`], in this process or in another.

pub mod encryption;
pub mod secrets;
pub mod skills;
pub mod wire;
mod builder;
mod renewed;

pub use builder::{Builder, Error, Outcome, Windlass};
pub use windlass_core::budget::Ceilings;
pub use windlass_core::contract::{Class, Contract, Idempotency, OnUnknown};
pub use windlass_core::failure::{Code, Failure, Retry};
pub use windlass_core::ids::RunId;
pub use windlass_core::value::Value;
pub use windlass_ports::tool::{Hook, Invocation, Tool};
pub use windlass_runtime::{Engine, Observer, Stop, Waiting};
pub use windlass_stores::Keyring;
pub use windlass_tools::{FnHook, FnTool};
