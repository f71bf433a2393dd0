//! What the tests with a real Postgres and the real binary share.
//!
//! Owns the stage (a throwaway cluster, tenants in it, the proxy before it) and clients of several kinds. Nothing here
//! sleeps: waiting is a bounded, repeated question ([`eventually`]). With `TENANTRY_TEST_DIRECT=1` there is no proxy
//! and clients talk to Postgres itself: what a test expects of a transparent proxy must hold there too.

mod batch;
mod certs;
mod metrics;
mod plan;
mod proxy;
mod random;
mod scram;
mod stage;
mod wire;

use std::time::Duration;

pub(crate) use batch::Batch;
pub(crate) use certs::{Authority, Identity};
pub(crate) use metrics::Metrics;
pub(crate) use plan::{Plan, TenantPlan};
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use stage::Stage;
pub(crate) use wire::{Fields, Io, Login, Message, PATIENCE, Reply, Wire};

/// Asks until there is an answer; panics with `what` if there is none within `span`.
pub(crate) async fn eventually<T>(what: &str, span: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + span;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        tick.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {span:?}: {what}");
    }
}

/// Whether the tests run without a proxy.
pub(crate) fn is_direct() -> bool {
    std::env::var_os("TENANTRY_TEST_DIRECT").is_some_and(|value| value == "1")
}

/// Whether the long versions were asked for (`make test-long`).
pub(crate) fn is_full_length() -> bool {
    std::env::var_os("TENANTRY_TEST_LENGTH").is_some_and(|value| value == "full")
}
