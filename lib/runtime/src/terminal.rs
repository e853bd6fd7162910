//! What is known about the terminal.

use std::io::IsTerminal;

/// Whether standard output is a terminal that understands control sequences.
#[must_use]
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether standard error is a terminal that understands control sequences.
#[must_use]
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether colours are wanted on standard output: a terminal, and `NO_COLOR` is not set.
#[must_use]
pub fn colours_wanted() -> bool {
    stdout_is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
