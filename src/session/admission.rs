//! A client that its worker has taken in, before it has a session.
//!
//! Owns the promise that whoever is counted is uncounted once: by this guard, or by the session that takes over from it.

use std::rc::Rc;

use super::floor::Floor;
use super::registry::ClientCell;
use crate::pool::TenantState;

/// A client that counts among its tenant's and can be asked to leave. Dropping it ends that.
#[derive(Debug)]
pub struct Admission {
    pub(super) floor: Rc<Floor>,
    pub(super) cell: Rc<ClientCell>,
    handed_on: bool,
}

impl Admission {
    /// Takes a client in. Whoever decides that there is room for it does so in the same turn of the worker: clients that
    /// come together are seen by each other. `request_id` is the number of the connection in the logs.
    #[must_use]
    pub fn new(floor: Rc<Floor>, tenant: Rc<TenantState>, request_id: u64) -> Self {
        let cell = floor.registry.admit(tenant, request_id);
        Self { floor, cell, handed_on: false }
    }

    /// Hands the client on to its session, which counts for it from now on.
    pub(super) fn into_parts(mut self) -> (Rc<Floor>, Rc<ClientCell>) {
        self.handed_on = true;
        (self.floor.clone(), self.cell.clone())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.handed_on {
            self.floor.registry.remove(&self.cell);
        }
    }
}
