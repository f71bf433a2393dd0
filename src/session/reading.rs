//! Transactions that only read: which of them go to a replica, and what happens if it cannot be had.
//!
//! Owns the choice, for each lease anew. Which replica is fit is the pool's to say.

use std::rc::Rc;

use super::leased::Leased;
use super::life::{Phase, Session};
use crate::pool::{Acquired, Lease, Leftover, Refusal, TenantState};
use crate::tenant::{PoolMode, ReplicaReads, Target};
use crate::time::Moment;
use crate::track::begins_read_only;

impl Session {
    /// Asks for a server for what the client says: where it only reads of a replica, as long as one is fit, else of the
    /// primary.
    pub(super) fn acquire(&self, input: &[u8]) -> Acquired {
        let (pool, home) = (&self.floor.pool, self.tenant());
        if let Some(reader) = pool.reader(home, self.goes_to(input)) {
            match pool.acquire(&reader, None, home.patience()) {
                Acquired::Refused(refusal) if refusal.is_of_one_cluster() => pool.count_fallback(home),
                acquired => return acquired,
            }
        }
        pool.acquire(home, self.last_server, home.patience())
    }

    /// The wait for a server of a replica has ended in this refusal: a server of the primary may do as well.
    pub(super) fn acquire_instead(
        &self,
        asked: &Rc<TenantState>,
        refusal: &Refusal,
        since: Moment,
    ) -> Option<Acquired> {
        if Rc::ptr_eq(asked, self.tenant()) || !refusal.is_of_one_cluster() {
            return None;
        }
        Some(self.acquire_at_home(since))
    }

    /// This server was waited for. Its replica may have fallen behind meanwhile: then it goes back.
    pub(super) fn check_fitness(&self, lease: Lease, since: Moment) -> Acquired {
        if Rc::ptr_eq(lease.tenant(), self.tenant()) || self.floor.pool.is_fit(lease.tenant()) {
            return Acquired::Now(lease);
        }
        lease.give_back(Leftover::Nothing);
        self.acquire_at_home(since)
    }

    /// In the time that is left of a wait.
    fn acquire_at_home(&self, since: Moment) -> Acquired {
        let (pool, home) = (&self.floor.pool, self.tenant());
        pool.count_fallback(home);
        let left = (since + home.patience()).since(pool.clock().now());
        pool.acquire(home, self.last_server, left)
    }

    /// Where a transaction goes that begins with this.
    fn goes_to(&self, input: &[u8]) -> Target {
        let reads = self.tenant().replica_reads();
        match reads.of_session(self.target) {
            Target::Primary
                if reads == ReplicaReads::Transactions
                    && self.mode == PoolMode::Transaction
                    && begins_read_only(input)
                    && !self.is_serializable() =>
            {
                Target::Replica
            }
            target => target,
        }
    }

    /// Whether its transactions are serializable unless they say otherwise: a hot standby has no such ones.
    fn is_serializable(&self) -> bool {
        let is = |name: &str, value: &str| {
            name.eq_ignore_ascii_case("default_transaction_isolation")
                && value.eq_ignore_ascii_case("serializable")
        };
        self.client.settings.extras.iter().any(|(name, value)| is(name, value))
            || self.tenant().tenant().settings.iter().any(|(name, value)| is(name, value))
    }

    /// Whether the lease is a replica's for this one transaction: what the client says behind it is not for that server.
    pub(super) fn is_for_one_transaction(&self) -> bool {
        let Phase::Leased(Leased { lease, .. }) = &self.phase else { return false };
        lease.tenant().is_reader()
            && self.tenant().replica_reads().of_session(self.target) == Target::Primary
            && self.mode == PoolMode::Transaction
    }
}
