//! What a pool says to those who divide the budgets.
//!
//! Owns the type only.

use crate::budget::Standing;
use crate::ids::ClusterId;

/// What a pool tells those who divide the budget among workers.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// A capacity that was set holds: no more servers than that are in use.
    Settled {
        /// Where.
        cluster: ClusterId,
        /// The capacity.
        capacity: u32,
    },
    /// What the scheduler lacks has changed.
    Standing {
        /// Where.
        cluster: ClusterId,
        /// What it has and lacks.
        standing: Standing,
    },
    /// Logins have begun to fail, or succeed again.
    Reachable {
        /// Where.
        cluster: ClusterId,
        /// Whether Postgres can be reached.
        reachable: bool,
    },
}
