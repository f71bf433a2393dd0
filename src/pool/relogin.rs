//! A leased server that is given up for another one in the same slot of the budget, logged in otherwise.
//!
//! Owns the order: the old one is gone before the new one connects, so that there are never two for one permit. The task
//! goes on when nobody waits for it any more, since only it knows when the slot is free.

use std::rc::Rc;

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::desk::Shared;
use super::lease::Lease;
use super::maintain::state_of;
use super::server::Server;
use super::table::Place;
use crate::backend::{self, Farewell, LoginError, Profile};
use crate::budget::{Condition, Input, Permit};

/// What becomes of it.
pub type Relogin = oneshot::Receiver<Result<Lease, LoginError>>;

impl Lease {
    /// Closes the server, which must be idle, and logs in with `profile` in its place. Whoever drops the receiver gives the
    /// lease up.
    #[must_use]
    pub fn log_in_anew(self, profile: Profile) -> Relogin {
        let (told, outcome) = oneshot::channel();
        spawn_local(async move {
            let mut told = told;
            if let Some(outcome) = relogin(self, &profile, &mut told).await {
                // A lease that nobody takes is dropped, which closes its server.
                let _ = told.send(outcome);
            }
        });
        outcome
    }
}

/// `None` if nobody waits any more.
async fn relogin(
    mut lease: Lease,
    profile: &Profile,
    told: &mut oneshot::Sender<Result<Lease, LoginError>>,
) -> Option<Result<Lease, LoginError>> {
    let server = lease.server.take()?;
    let (shared, tenant) = (lease.pool.shared.clone(), lease.tenant.clone());
    let Server { id, stream, permit, epoch, asked, .. } = *server;
    backend::close_with(stream, Farewell::Terminate).await;
    if told.is_closed() {
        let_go(&shared, &lease, permit);
        return None;
    }
    let started = shared.clock.now();
    let login = match backend::login(profile).await {
        Ok(login) => login,
        Err(error) => {
            tracing::warn!(customer_id = %tenant.tenant().name, reason = error.reason(), %error, "server login failed");
            {
                let mut counters = tenant.counters.borrow_mut();
                counters.server_login_failures = counters.server_login_failures.saturating_add(1);
            }
            let_go(&shared, &lease, permit);
            return Some(Err(error));
        }
    };
    let now = shared.clock.now();
    {
        let mut counters = tenant.counters.borrow_mut();
        counters.server_logins = counters.server_logins.saturating_add(1);
        counters.server_login_us = counters.server_login_us.saturating_add(now.micros_since(started));
    }
    if let Some(mut desk) = shared.desk(tenant.cluster())
        && let Some(slot) = desk.table.slot(id)
    {
        slot.cancel = Some(login.cancel);
    }
    let mut state = state_of(&shared, &tenant, login.parameters);
    // Nobody else may get it, whatever becomes of this lease: it was logged in for one client, with its wishes.
    state.condemned = true;
    let (stream, pid, carry) = (login.stream, login.pid, Vec::new());
    let server = Server { id, stream, state, carry, pid, permit, epoch, opened_at: now, since: now, asked };
    lease.server = Some(Box::new(server));
    Some(Ok(lease))
}

/// The lease is over, and its server gone already.
fn let_go(shared: &Rc<Shared>, lease: &Lease, permit: Permit) {
    let now = shared.clock.now();
    let active = &lease.tenant.clients.active;
    active.set(active.get().saturating_sub(1));
    let Some(mut desk) = shared.desk(lease.tenant.cluster()) else { return };
    let id = permit.server();
    if let Some(slot) = desk.table.slot(id) {
        slot.place = Place::Closing;
    }
    desk.handle(shared, now, Input::Release { server: id, condition: Condition::Broken });
    desk.table.remove(id);
    desk.handle(shared, now, Input::Closed { permit });
}
