//! Development tasks: `cargo xtask ci`, `tidy`, `docs`, `conformance`, `setup`.
//!
//! Everything that continuous integration checks is here, so that it runs the same on every host. Knows the files of
//! the repository, but no type of the product.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a development tool that talks to its user")]

mod alerts;
mod ci;
mod conformance;
mod disk;
mod docs;
mod litellm;
mod mcp;
mod process;
mod setup;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci      everything that must hold before a change lands: format, tidy, lints, build, tests, doc tests,
          generated pages, examples, alert rules, the conformance suite of MCP, and the FlatMachine conformance kit when FLATMACHINE_KIT names its folder;
          `ci STEP...` runs only these steps
  tidy    rules about the source tree that no compiler checks
  docs    writes the generated pages of docs/ again; `docs --check` only compares
  conformance
          runs the FlatMachine conformance kit and writes its report into docs/compatibility.md
  setup   installs the tools that ci needs and that are missing, and says which programs of the host are";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = root();
    let result = match words.as_slice() {
        ["ci", only @ ..] => ci::run(&root, only),
        ["tidy"] => tidy::run(&root),
        ["docs"] => docs::write(&root),
        ["docs", "--check"] => docs::check(&root),
        ["conformance"] => conformance::write(&root),
        ["setup"] => setup::run(&root),
        [] | ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("unknown command `{}`\n\n{USAGE}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: of the checkout that cargo runs in, which need not be the one this was built in.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.parent().map_or_else(|| here.clone(), Path::to_owned)
}
