//! The servers of one cluster by slot, and the requests that wait for one.
//!
//! Owns where each server is. The scheduler owns the counts; this table owns the things.

use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;

use super::desk::Outcome;
use super::server::Server;
use super::tenant::TenantState;
use crate::backend::CancelHandle;
use crate::budget::Condition;
use crate::ids::{RequestId, ServerId};

/// Where a server is.
#[derive(Debug)]
pub(super) enum Place {
    /// Logging in.
    Opening,
    /// In the pool.
    Idle(Box<Server>),
    /// With a session.
    Leased,
    /// Released while a cancel request for it was under way: it waits for that to end.
    Held(Box<Server>, Condition),
    /// Being closed.
    Closing,
}

/// One server as the table knows it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: ServerId,
    pub(super) tenant: Rc<TenantState>,
    pub(super) place: Place,
    pub(super) cancel: Option<CancelHandle>,
    /// A cancel request is being delivered.
    pub(super) cancelling: bool,
    /// Whether a cancel request reached Postgres is not known, so it may still hit: nobody else may have the server.
    pub(super) marked: bool,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) tenant: Rc<TenantState>,
    pub(super) waker: Option<Waker>,
    pub(super) outcome: Option<Outcome>,
}

/// All servers and waiting requests of one cluster.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Slot>>,
    pub(super) waiting: HashMap<RequestId, Waiting>,
}

impl Table {
    /// The slot of that server, if it is still that server's.
    pub(super) fn slot(&mut self, id: ServerId) -> Option<&mut Slot> {
        self.slots.get_mut(index(id))?.as_mut().filter(|slot| slot.id == id)
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        let index = index(slot.id);
        if self.slots.len() <= index {
            self.slots.resize_with(index.saturating_add(1), || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(slot);
        }
    }

    pub(super) fn remove(&mut self, id: ServerId) {
        if let Some(place) = self.slots.get_mut(index(id))
            && place.as_ref().is_some_and(|slot| slot.id == id)
        {
            *place = None;
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten()
    }

    /// Takes an idle server out, leaving `place` behind.
    pub(super) fn take_idle(&mut self, id: ServerId, place: Place) -> Option<Box<Server>> {
        let slot = self.slot(id)?;
        match std::mem::replace(&mut slot.place, place) {
            Place::Idle(server) => Some(server),
            other => {
                slot.place = other;
                None
            }
        }
    }
}

fn index(id: ServerId) -> usize {
    usize::try_from(id.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}
