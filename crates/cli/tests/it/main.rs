//! Runs the binary and looks at exit code, stdout and stderr together.

mod bad_input;
mod help;
mod kit;
mod life;
mod purity;
mod sim;
mod testing;
