//! Clients that are over a time limit of their tenant: the sweep that finds them, and what they are told.
//!
//! Owns the errors of the limits. Which clock runs when is `clocks`'; how a session ends is `life`'s and `leased`'s.

use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use super::clocks;
use super::floor::Floor;
use super::life::{Session, Step};
use crate::error::{ClientError, Fault, SqlState};
use crate::tenant::TimeLimit;

/// Looks after the time limits for as long as the worker lives. Sleeps while no tenant has one.
pub async fn keep_time(floor: Rc<Floor>) {
    loop {
        let changed = floor.time.changed.notified();
        let Some(shortest) = floor.time.shortest.get() else {
            changed.await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep(clocks::pace(shortest)) => sweep(&floor).await,
            () = changed => {}
        }
    }
}

/// Looks at every client, a slice in each turn of the worker.
async fn sweep(floor: &Floor) {
    let mut from = 0;
    while let Some(next) =
        floor.registry.ask_overdue(from..from.saturating_add(SLICE), floor.pool.clock().now())
    {
        from = next;
        tokio::task::yield_now().await;
    }
}

impl Session {
    /// Ends a session without a lease that is over a limit.
    pub(super) fn end_overdue(&mut self, cx: &mut Context<'_>, limit: TimeLimit) -> Step {
        self.count_overdue(limit);
        let error = overdue(limit, self.tenant().tenant().time_limits.of(limit), None);
        self.fail(cx, &error)
    }

    pub(super) fn count_overdue(&self, limit: TimeLimit) {
        let mut counters = self.cell.tenant.counters.borrow_mut();
        let counter = match limit {
            TimeLimit::ClientIdle => &mut counters.client_idle_timeouts,
            TimeLimit::IdleTransaction => &mut counters.idle_transaction_timeouts,
            TimeLimit::Transaction => &mut counters.transaction_timeouts,
            TimeLimit::PinIdle => &mut counters.pin_idle_timeouts,
        };
        *counter = counter.saturating_add(1);
    }
}

/// What a client is told that is over `limit`. The texts are those of Postgres' own limits of the kind. `kept_by` is what
/// kept it at its server.
pub(super) fn overdue(
    limit: TimeLimit,
    value: Option<Duration>,
    kept_by: Option<&'static str>,
) -> ClientError {
    let (code, text, rule, hint) = match limit {
        TimeLimit::ClientIdle => (
            SqlState::IDLE_SESSION_TIMEOUT,
            "terminating connection due to idle-session timeout",
            "A client may be silent between transactions",
            "Connect again, and let the application's pool close connections earlier than that.",
        ),
        TimeLimit::IdleTransaction => (
            SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
            "terminating connection due to idle-in-transaction timeout",
            "A client may be silent inside a transaction",
            "The transaction was rolled back. Connect again, and end transactions before doing other work.",
        ),
        TimeLimit::Transaction => (
            SqlState::TRANSACTION_TIMEOUT,
            "terminating connection due to transaction timeout",
            "A transaction may last",
            "Connect again, and make transactions shorter. If COMMIT had been sent, check what became of it.",
        ),
        TimeLimit::PinIdle => (
            SqlState::IDLE_SESSION_TIMEOUT,
            "terminating connection due to idle-session timeout",
            "A client may keep a server between transactions without using it",
            "Connect again, end what keeps the server when it is not needed, or use session mode for this user.",
        ),
    };
    let mut detail = match value {
        Some(value) => format!("{rule} for {value:?} ({}).", limit.as_str()),
        None => format!("{rule} for a limited time ({}).", limit.as_str()),
    };
    if limit == TimeLimit::PinIdle {
        let kept_by = kept_by.unwrap_or("what works on one server only");
        detail = format!("{detail} This one was kept by {kept_by}.");
    }
    ClientError::fatal(code, Fault::Client, limit.as_str(), text).with_detail(detail).with_hint(hint)
}

/// Clients looked at in one turn: some tens of microseconds.
const SLICE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_which_limit_it_is_over() {
        for limit in TimeLimit::ALL {
            let error = overdue(limit, Some(Duration::from_secs(90)), Some("LISTEN"));
            let detail = error.detail.unwrap_or_default();
            assert!(detail.contains("90s") && detail.contains(limit.as_str()), "{detail}");
            assert_eq!(detail.contains("LISTEN"), limit == TimeLimit::PinIdle, "{detail}");
            assert!(error.hint.is_some());
            assert_eq!(error.reason, limit.as_str());
        }
    }
}
