//! `tenantry hash-password`: a SCRAM-SHA-256 verifier from a password.
//!
//! Owns the reading of the password: one line of standard input, not shown while it is typed at a terminal. It is
//! never an argument, because arguments are seen by every user of the machine.

use std::io::{self, BufRead, IsTerminal};
use std::num::NonZeroU32;
use std::process::{Command, Stdio};

use clap::Args;
use zeroize::Zeroizing;

use super::tenant_sql::salt;
use super::{Failure, output};
use crate::auth::verifier::{DEFAULT_ITERATIONS, Verifier};

/// Arguments of `tenantry hash-password`.
#[derive(Debug, Args)]
pub struct HashPasswordArgs {
    /// Rounds of PBKDF2: more protect a stolen verifier better and cost each login of the client more.
    #[arg(long, default_value_t = DEFAULT_ITERATIONS)]
    pub iterations: NonZeroU32,
}

/// Reads the password and prints its verifier.
///
/// # Errors
/// If there is no password, or it is typed differently the second time.
pub fn run(args: &HashPasswordArgs) -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() { typed()? } else { line()? };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    let verifier = Verifier::from_password(&password, &salt()?, args.iterations);
    output::to_stdout(&format!("{verifier}\n"))?;
    Ok(())
}

/// A password typed twice at a terminal. Ctrl-C gives up, and the terminal is left as it was.
fn typed() -> Result<Zeroizing<String>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let echo = NoEcho::new();
    let password = runtime.block_on(async {
        tokio::select! {
            password = tokio::task::spawn_blocking(twice) => password.unwrap_or_else(|_| Err(interrupted())),
            _ = tokio::signal::ctrl_c() => Err(interrupted()),
        }
    });
    drop(echo);
    // The thread that reads may wait for a line for ever.
    runtime.shutdown_background();
    password
}

fn interrupted() -> Failure {
    Failure::runtime("interrupted")
}

fn twice() -> Result<Zeroizing<String>, Failure> {
    output::to_stderr("Password: ");
    let first = line()?;
    output::to_stderr("\nAgain: ");
    let second = line()?;
    output::to_stderr("\n");
    if first == second { Ok(first) } else { Err(Failure::usage("the two passwords differ")) }
}

/// One line of standard input without its end.
fn line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line)?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}

/// Switches the terminal's echo off, and on again when dropped. `stty` does it: the system call would need unsafe code.
struct NoEcho;

impl NoEcho {
    fn new() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Without `stty` the password is seen while it is typed; it works all the same.
fn stty(argument: &str) {
    let _ = Command::new("stty").arg(argument).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
}
