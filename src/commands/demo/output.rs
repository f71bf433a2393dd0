//! What the demo prints: progress for a person, line by line.
//!
//! Owns nothing but the line end. Must not compute anything.

use std::fmt;

use crate::commands::output::to_stdout;

/// Prints one line.
pub(super) fn line(text: impl fmt::Display) {
    // A reader that is gone must not end the demo before it has cleaned up.
    let _ = to_stdout(&format!("{text}\n"));
}
