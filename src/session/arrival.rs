//! A client that is being greeted, while it waits for a server.
//!
//! Owns what ends such a wait early: the client's end, and a drain. Must not know what the client is told in the end
//! (`greet`).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::admission::Admission;
use super::greet::NotGreeted;
use super::life::{MAX_WAITING_BYTES, goodbye};
use crate::net::Stream;
use crate::pool::{Acquired, Lease, Refusal, TenantState, Ticket};
use crate::tenant::{PoolMode, Target};

/// A client on its way to a session.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) admission: Admission,
    pub(super) mode: PoolMode,
    pub(super) target: Target,
    /// What it said behind its login.
    pub(super) unread: Vec<u8>,
}

impl Arrival {
    /// A server for it; it queues as any request does. Cancel-safe.
    pub(super) async fn lease(&mut self) -> Result<Lease, NotGreeted> {
        let (floor, home) = (self.admission.floor.clone(), self.admission.cell.tenant.clone());
        let since = floor.pool.clock().now();
        // In session mode it begins to work with it; in transaction mode only its settings are tried out.
        let reader = match self.mode {
            PoolMode::Session => floor.pool.reader(&home, self.target),
            PoolMode::Transaction => None,
        };
        if let Some(reader) = reader {
            match self.lease_of(&reader, home.patience()).await {
                Err(Unserved::Refused(refusal)) if refusal.is_of_one_cluster() => {
                    floor.pool.count_fallback(&home);
                }
                outcome => return outcome.map_err(|why| self.not_greeted(why)),
            }
        }
        let left = (since + home.patience()).since(floor.pool.clock().now());
        self.lease_of(&home, left).await.map_err(|why| self.not_greeted(why))
    }

    async fn lease_of(&mut self, tenant: &Rc<TenantState>, patience: Duration) -> Result<Lease, Unserved> {
        let floor = self.admission.floor.clone();
        let acquired = match self.mode {
            PoolMode::Session => floor.pool.acquire(tenant, None, patience),
            PoolMode::Transaction => floor.pool.acquire_exempt(tenant, patience),
        };
        match acquired {
            Acquired::Now(lease) => {
                floor.observe_wait(tenant, None);
                Ok(lease)
            }
            Acquired::Queued(mut ticket) => {
                let since = ticket.since();
                let granted = poll_fn(|cx| self.poll_granted(cx, &mut ticket)).await;
                let waited_us = floor.pool.clock().now().micros_since(since);
                floor.observe_wait(tenant, Some((ticket.cause(), waited_us)));
                granted
            }
            Acquired::Refused(refusal) => Err(Unserved::Refused(refusal)),
        }
    }

    fn poll_granted(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Poll<Result<Lease, Unserved>> {
        if let Poll::Ready(granted) = ticket.poll(cx) {
            return Poll::Ready(granted.map_err(Unserved::Refused));
        }
        self.poll_leaves(cx).map(|why| Err(Unserved::Left(why)))
    }

    /// Ready when there is no use in waiting any longer. What the client says is kept, up to a limit.
    pub(super) fn poll_leaves(&mut self, cx: &mut Context<'_>) -> Poll<NotGreeted> {
        let Admission { floor, cell, .. } = &self.admission;
        // A drain waits for everybody who counts, so it must not have to wait for a server as well.
        cell.set_waker(cx.waker());
        if cell.is_asked_to_leave() {
            return Poll::Ready(NotGreeted::Told(Box::new(goodbye(floor, cell))));
        }
        let mut scratch = floor.take_scratch();
        let mut gone = false;
        while !gone && self.unread.len() < MAX_WAITING_BYTES {
            match self.stream.poll_read(cx, &mut scratch) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => gone = true,
                Poll::Ready(Ok(read)) => {
                    self.unread.extend_from_slice(scratch.get(..read).unwrap_or_default());
                }
            }
        }
        floor.put_scratch(scratch);
        if gone { Poll::Ready(NotGreeted::Gone) } else { Poll::Pending }
    }

    fn not_greeted(&self, why: Unserved) -> NotGreeted {
        match why {
            Unserved::Left(why) => why,
            Unserved::Refused(refusal) => {
                let Admission { floor, cell, .. } = &self.admission;
                floor.count_refusal(&cell.tenant, &refusal);
                NotGreeted::Told(Box::new(refusal.at_login(self.mode)))
            }
        }
    }
}

/// Why there is no server for it.
enum Unserved {
    Refused(Refusal),
    /// There is no use in one any longer.
    Left(NotGreeted),
}
