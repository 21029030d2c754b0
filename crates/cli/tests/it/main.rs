//! Runs the binary and looks at exit code, stdout and stderr together.
