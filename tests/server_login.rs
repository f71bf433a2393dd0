//! Logging in to Postgres: against real servers, and against servers that misbehave by script.
//!
//! The real cases share one throwaway cluster, whose `pg_hba.conf` gives each role another way of logging in; those that
//! count slots have their own.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "server_login/fake.rs"]
mod fake;
#[path = "server_login/fixtures.rs"]
mod fixtures;
#[path = "server_login/hostile.rs"]
mod hostile;
#[path = "server_login/protocol.rs"]
mod protocol;
#[path = "server_login/real.rs"]
mod real;
#[path = "server_login/shot.rs"]
mod shot;
#[path = "server_login/slots.rs"]
mod slots;
