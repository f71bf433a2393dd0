//! The `tenantry` binary: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use tenantry::commands::{self, Cli};

/// Many small allocations of many threads at login; `cargo build --no-default-features` uses the system's allocator.
#[global_allocator]
static ALLOCATOR: heap::Allocator = heap::Allocator;

fn main() -> ExitCode {
    commands::run(&Cli::parse())
}
