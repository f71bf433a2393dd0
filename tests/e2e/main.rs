//! The shipped binary between real clients and a real Postgres: what the README promises, one behaviour per test.
//!
//! Modules without the word "proxy" in their tests also pass against Postgres alone (`TENANTRY_TEST_DIRECT=1`): that is
//! what transparent means.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test expects by failing")]

#[path = "../support/mod.rs"]
#[expect(clippy::allow_attributes, reason = "which part is unused differs between the test binaries")]
#[allow(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

mod cancelling;
mod copying;
mod day;
mod faults;
mod functions;
mod hostile;
mod leaks;
mod limits;
mod listen;
mod logins;
mod logs;
mod meanings;
mod modes;
mod pins;
mod placing;
mod planning;
mod process_ids;
mod queries;
mod reloading;
mod replicas;
mod replication;
mod settings;
mod spreading;
mod statements;
mod steering;
mod stopping;
mod streaming;
mod time_limits;
mod tokens;
mod why;
