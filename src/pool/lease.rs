//! The hold on a server ([`Lease`]) and the place in the queue for one ([`Ticket`]).
//!
//! Owns the rule that neither can be lost: dropping a lease closes its server, dropping a ticket leaves the queue.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::desk::{Acquired, Outcome, Pool};
use super::maintain;
use super::refusal::Refusal;
use super::server::Server;
use super::tenant::TenantState;
use crate::budget::{Condition, Input};
use crate::ids::RequestId;
use crate::stats::Cause;
use crate::time::Moment;
use crate::trace::{Asked, Mark};
use crate::track::ServerState;

/// In what state a lease leaves its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Idle, nothing outstanding: the next client of the tenant may have it.
    Nothing,
    /// Nothing outstanding, but a transaction is open or the session left state behind: it is rolled back and reset
    /// first.
    State,
    /// In the middle of something: it is cancelled and closed.
    Work,
}

/// A server, held by one client of its tenant.
#[derive(Debug)]
pub struct Lease {
    pub(super) pool: Pool,
    pub(super) tenant: Rc<TenantState>,
    /// `None` only after `give_back`, and while it logs in anew.
    pub(super) server: Option<Box<Server>>,
    /// The client keeps the server between transactions, because of what it left there.
    pinned: bool,
    /// There was no room for that.
    is_beyond: bool,
    /// A client holds it, not the tenant's listener.
    is_clients: bool,
}

impl Lease {
    pub(super) fn new(pool: Pool, tenant: Rc<TenantState>, server: Box<Server>) -> Self {
        let active = &tenant.clients.active;
        active.set(active.get().saturating_add(1));
        {
            let mut counters = tenant.counters.borrow_mut();
            counters.leases = counters.leases.saturating_add(1);
        }
        Self { pool, tenant, server: Some(server), pinned: false, is_beyond: false, is_clients: true }
    }

    /// The server.
    #[must_use]
    pub fn server(&mut self) -> Option<&mut Server> {
        self.server.as_deref_mut()
    }

    /// Whose server it is.
    #[must_use]
    pub const fn tenant(&self) -> &Rc<TenantState> {
        &self.tenant
    }

    /// Counts, in transaction mode, whether the client keeps the server between transactions: such leases are limited
    /// ([`Pool::pins_left`]).
    pub fn count_pin(&mut self) {
        let is_kept = |state: &ServerState| state.pinned && !state.is_passing();
        let pinned = self.server.as_ref().is_some_and(|server| is_kept(&server.state));
        if !pinned && !self.pinned {
            self.is_beyond = false;
            return;
        }
        let had_room = self.pinned || self.pool.pins_left(&self.tenant).left > 0;
        self.is_beyond = pinned && (self.is_beyond || !had_room);
        self.set_pinned(pinned);
    }

    /// Whether the client keeps the server though there was no room for that: no text of the client's showed it, or it would
    /// have been refused.
    #[must_use]
    pub const fn is_beyond(&self) -> bool {
        self.is_beyond
    }

    /// Counts the server as kept until the lease ends, if there is room for one more ([`Pool::pins_left`]).
    #[must_use]
    pub fn keep(&mut self) -> bool {
        let may = self.pinned || self.pool.pins_left(&self.tenant).left > 0;
        if may {
            self.set_pinned(true);
        }
        may
    }

    /// From here on it is no client's, but the tenant's listener's.
    pub(super) fn become_listener(&mut self) {
        self.set_clients(false);
        self.set_pinned(true);
    }

    /// Whether anybody waits for a server of the cluster.
    #[must_use]
    pub fn others_wait(&self) -> bool {
        self.pool.shared.desk(self.tenant.cluster()).is_some_and(|desk| desk.scheduler.calling_tenants() > 0)
    }

    /// Whether it would be well if the lease ended soon: others wait, or the server is one too many, of a login that has
    /// changed, or has lived for long enough.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let shared = &self.pool.shared;
        let is_lacking = shared.desk(self.tenant.cluster()).is_some_and(|desk| {
            desk.scheduler.calling_tenants() > 0 || desk.scheduler.used() > desk.scheduler.capacity()
        });
        let now = shared.clock.now();
        is_lacking
            || !self.is_current()
            || self.server.as_ref().is_some_and(|server| shared.is_old(server, now))
    }

    /// Whether the server is logged in as the tenant is now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.epoch == self.tenant.epoch())
    }

    fn set_clients(&mut self, is_clients: bool) {
        if std::mem::replace(&mut self.is_clients, is_clients) && !is_clients {
            let active = &self.tenant.clients.active;
            active.set(active.get().saturating_sub(1));
        }
    }

    fn set_pinned(&mut self, pinned: bool) {
        if self.pinned != pinned {
            self.pinned = pinned;
            self.pool.count_pin(&self.tenant, pinned);
            if let Some(server) = self.server.as_mut().filter(|_| pinned) {
                server.asked = server.asked.with(Mark::Pinned);
            }
        }
    }

    /// Ends the lease.
    pub fn give_back(mut self, leftover: Leftover) {
        self.end(leftover);
    }

    fn end(&mut self, leftover: Leftover) {
        self.set_pinned(false);
        let Some(mut server) = self.server.take() else { return };
        self.set_clients(false);
        match leftover {
            Leftover::Nothing => self.pool.shared.release(&self.tenant, server, Condition::Clean),
            Leftover::State => maintain::clean_up(&self.pool.shared, &self.tenant, server),
            Leftover::Work => {
                server.state.suspect = true;
                self.pool.shared.release(&self.tenant, server, Condition::Broken);
            }
        }
    }
}

impl Drop for Lease {
    /// A lease that is dropped (a panic, a session that was killed) gives its server up, never back.
    fn drop(&mut self) {
        self.end(Leftover::Work);
    }
}

/// A place in the queue.
#[derive(Debug)]
pub struct Ticket {
    pool: Pool,
    tenant: Rc<TenantState>,
    request: RequestId,
    since: Moment,
    asked: Asked,
    cause: Cause,
}

impl Ticket {
    pub(super) const fn new(
        pool: Pool,
        tenant: Rc<TenantState>,
        request: RequestId,
        (since, asked): (Moment, Asked),
    ) -> Self {
        Self { pool, tenant, request, since, asked, cause: Cause::OwnServers }
    }

    /// Whose servers it waits for.
    #[must_use]
    pub const fn tenant(&self) -> &Rc<TenantState> {
        &self.tenant
    }

    /// When the wait began.
    #[must_use]
    pub const fn since(&self) -> Moment {
        self.since
    }

    /// What it waited for, once the wait is over.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The outcome, once it is there. After `Ready` the ticket is spent.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lease, Refusal>> {
        loop {
            let (outcome, cause) = ready!(self.poll_outcome(cx));
            self.cause = cause.unwrap_or(self.cause);
            let mut server = match outcome {
                Ok(server) => server,
                Err(refusal) => {
                    self.note_unserved();
                    return Poll::Ready(Err(refusal));
                }
            };
            let now = self.pool.shared.clock.now();
            if server.epoch == self.tenant.epoch() {
                (server.since, server.asked) = (now, self.asked_until(now));
                return Poll::Ready(Ok(Lease::new(self.pool.clone(), self.tenant.clone(), server)));
            }
            // The tenant's login has changed since the server was granted: ask for one of the new login, in the time that
            // is left.
            self.pool.shared.retire(&self.tenant, server);
            let left = (self.since + self.tenant.patience()).since(now);
            match self.pool.acquire_exempt(&self.tenant, left) {
                Acquired::Now(lease) => return Poll::Ready(Ok(lease)),
                Acquired::Queued(again) => {
                    let Self { since, asked, .. } = std::mem::replace(self, again);
                    (self.since, self.asked) = (since, asked);
                }
                Acquired::Refused(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
    }

    /// How it was asked for, and the wait.
    fn asked_until(&self, now: Moment) -> Asked {
        self.asked.after(now.micros_since(self.since))
    }

    /// Nothing came of it.
    fn note_unserved(&self) {
        let shared = &self.pool.shared;
        if shared.tape.is_on() {
            let now = shared.clock.now();
            shared.tape.note_unserved(&self.tenant, self.asked_until(now), now);
        }
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(mut desk) = self.pool.shared.desk(self.tenant.cluster()) else { return Poll::Pending };
        let Some(waiting) = desk.table.waiting.get_mut(&self.request) else { return Poll::Pending };
        let Some(outcome) = waiting.outcome.take() else {
            match &mut waiting.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        desk.table.waiting.remove(&self.request);
        Poll::Ready(outcome)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(mut desk) = self.pool.shared.desk(self.tenant.cluster()) else { return };
        if !desk.table.waiting.contains_key(&self.request) {
            return;
        }
        // What is due by now may be an answer to this very request.
        let now = self.pool.shared.clock.now();
        desk.handle(&self.pool.shared, now, Input::Tick);
        let Some(waiting) = desk.table.waiting.remove(&self.request) else { return };
        match waiting.outcome {
            None => {
                desk.handle(&self.pool.shared, now, Input::Cancel { request: self.request });
                self.note_unserved();
            }
            Some((Ok(mut server), _)) => {
                // It was granted and never used.
                drop(desk);
                (server.since, server.asked) = (now, self.asked_until(now));
                self.pool.shared.release(&self.tenant, server, Condition::Clean);
            }
            Some((Err(_), _)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
