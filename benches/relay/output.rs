//! What the bench prints while it runs.
//!
//! Owns standard output. Must not compute anything.

use std::fmt;
use std::io::Write;

/// Prints one line and flushes it, so that a pipe sees progress too.
#[expect(clippy::print_stdout, reason = "the driver's progress and tables are its output")]
pub(crate) fn line(text: impl fmt::Display) {
    println!("{text}");
    // A closed pipe must not stop a measurement that also goes to a file.
    let _ = std::io::stdout().flush();
}
