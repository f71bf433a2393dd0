//! Writing to standard output and standard error without a panic when nobody listens.
//!
//! Owns the two writers. `println!` would panic on a closed pipe (`tenantry check | head -1`).

use std::io::{self, Write};

/// Writes a text to standard output.
///
/// # Errors
/// If it cannot be written for another reason than that the reader has left.
pub(super) fn to_stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a text to standard error, as far as possible.
pub(super) fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
