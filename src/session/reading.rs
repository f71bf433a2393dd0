//! Transactions that only read: which of them go to a replica, and what happens if it cannot be had.
//!
//! Owns the choice, for each lease anew. Which replica is fit is the pool's to say.

use std::rc::Rc;

use super::leased::Leased;
use super::life::{Phase, Session};
use crate::pool::{Acquired, Refusal, TenantState};
use crate::tenant::{PoolMode, ReplicaReads, Target};
use crate::time::Moment;
use crate::track::begins_read_only;

impl Session {
    /// Asks for a server for what the client says: where it only reads of a replica, as long as one is fit, else of the
    /// primary.
    pub(super) fn acquire(&self, input: &[u8]) -> Acquired {
        let (pool, home) = (&self.floor.pool, self.tenant());
        if let Some(reader) = self.reader(input) {
            match pool.acquire(&reader, None, home.patience()) {
                Acquired::Refused(refusal) if refusal.is_servers_fault() => pool.count_fallback(home),
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
        let (pool, home) = (&self.floor.pool, self.tenant());
        if Rc::ptr_eq(asked, home) || !refusal.is_servers_fault() {
            return None;
        }
        pool.count_fallback(home);
        let left = (since + home.patience()).since(pool.clock().now());
        Some(pool.acquire(home, self.last_server, left))
    }

    fn reader(&self, input: &[u8]) -> Option<Rc<TenantState>> {
        let home = self.tenant();
        let may_read =
            || home.replica_reads() == ReplicaReads::Transactions && self.mode == PoolMode::Transaction;
        let target = match self.target {
            Target::Primary if may_read() && begins_read_only(input) => Target::Replica,
            target => target,
        };
        self.floor.pool.reader(home, target)
    }

    /// Whether the lease is a replica's for this one transaction: what the client says behind it is not for that server.
    pub(super) fn is_for_one_transaction(&self) -> bool {
        let Phase::Leased(Leased { lease, .. }) = &self.phase else { return false };
        self.target == Target::Primary && !Rc::ptr_eq(lease.tenant(), self.tenant())
    }
}
