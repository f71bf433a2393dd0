//! Metrics, health and logs as an operator meets them: over a real socket, judged by Prometheus' own tool.
//!
//! The proxy behind the pages is a fake with chosen numbers; `tests/e2e` scrapes the real one. `promtool` (Debian's
//! package `prometheus`) must be in the PATH; `tests/setup.sh` sees to that.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test expects by failing, its helpers included"
)]

mod api;
mod bounded;
mod documented;
mod exposition;
mod fake;
mod health;
mod http;
mod logs;
mod promtool;
