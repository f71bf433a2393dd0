//! The servers of a cluster, each in exactly one state, and the lists that order them.
//!
//! Owns the table of servers, their transitions, the counts by state, the list of idle servers by age and SIEVE's list
//! by birth. Each transition keeps the owner's counts in step. Must not decide anything.
//!
//! ```text
//!  order ─► Opening ─► Idle ◄──► Busy
//!              │         └───┬─────┘
//!              │          Closing(next: who gets the slot)
//!              └──── free ◄──┘
//! ```

use super::breaker::Role;
use super::links::{Link, Linked, List};
use super::table::{Table, less, more};
use super::tenants::TenantState;
use crate::ids::ServerId;
use crate::time::Moment;

/// One server.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) id: ServerId,
    /// The tenant's number in the table of tenants.
    pub(super) tenant: u32,
    pub(super) state: State,
    /// When it was logged in (or ordered, before that).
    pub(super) born: Moment,
    /// SIEVE's bit: used since the hand passed.
    pub(super) visited: bool,
    of_tenant: Link,
    by_age: Link,
    by_birth: Link,
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Logging in.
    Opening { since: Moment, roles: Roles },
    /// Waiting for a client.
    Idle { since: Moment },
    /// Leased. `charged_us` is the hold that virtual time was charged in advance.
    Busy { since: Moment, charged_us: u64 },
    /// On its way out. The slot may be promised to a tenant.
    Closing { next: Option<Promise> },
}

/// To whom a slot goes when its server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// The tenant's number in the table of tenants.
    pub(super) tenant: u32,
    pub(super) roles: Roles,
}

/// What a login means to the two breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) cluster: Role,
    pub(super) tenant: Role,
}

/// Idle servers of one tenant; the front was used last.
#[derive(Clone, Debug)]
pub(super) struct OfTenant;
/// All idle servers; the front has been idle longest.
#[derive(Clone, Debug)]
pub(super) struct ByAge;
/// All idle and busy servers; the front was logged in first.
#[derive(Clone, Debug)]
pub(super) struct ByBirth;

/// The table of servers and its lists.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    pub(super) table: Table<Slot>,
    generations: Vec<u32>,
    pub(super) by_age: List<ByAge>,
    pub(super) by_birth: List<ByBirth>,
    /// The server SIEVE looks at next; past the youngest it starts again with the oldest.
    pub(super) hand: Option<u32>,
    pub(super) opening: u32,
    pub(super) idle: u32,
    pub(super) busy: u32,
    pub(super) closing: u32,
    /// How many of the closing ones are promised to a tenant.
    pub(super) promised: u32,
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            table: Table::new(),
            generations: Vec::new(),
            by_age: List::new(),
            by_birth: List::new(),
            hand: None,
            opening: 0,
            idle: 0,
            busy: 0,
            closing: 0,
            promised: 0,
        }
    }

    /// Servers in any state.
    pub(super) const fn used(&self) -> u32 {
        self.opening.saturating_add(self.idle).saturating_add(self.busy).saturating_add(self.closing)
    }

    /// Servers that are not on their way out.
    pub(super) const fn staying(&self) -> u32 {
        self.used().saturating_sub(self.closing)
    }

    /// Logins under way or promised.
    pub(super) const fn in_flight(&self) -> u32 {
        self.opening.saturating_add(self.promised)
    }

    pub(super) fn find(&self, id: ServerId) -> Option<u32> {
        let key = u32::try_from(id.0 & u64::from(u32::MAX)).ok()?;
        (self.table.get(key)?.id == id).then_some(key)
    }

    /// Since when the server that has been idle longest is idle.
    pub(super) fn oldest_idle(&self) -> Option<Moment> {
        self.idle_since(self.by_age.front()?)
    }

    /// Since when this server is idle, if it is.
    pub(super) fn idle_since(&self, key: u32) -> Option<Moment> {
        match self.table[key].state {
            State::Idle { since } => Some(since),
            State::Opening { .. } | State::Busy { .. } | State::Closing { .. } => None,
        }
    }

    /// Takes a slot for a server that is to be logged in.
    pub(super) fn order(
        &mut self,
        now: Moment,
        tenant: u32,
        owner: &mut TenantState,
        roles: Roles,
    ) -> ServerId {
        let state = State::Opening { since: now, roles };
        let key = self.table.insert(Slot {
            id: ServerId(0),
            tenant,
            state,
            born: now,
            visited: false,
            of_tenant: Link::default(),
            by_age: Link::default(),
            by_birth: Link::default(),
        });
        let id = ServerId(u64::from(self.next_generation(key)) << 32 | u64::from(key));
        self.table[key].id = id;
        more(&mut self.opening);
        more(&mut owner.opening);
        id
    }

    /// Makes a server idle.
    pub(super) fn rest(&mut self, now: Moment, key: u32, owner: &mut TenantState) {
        self.leave(now, key, owner);
        self.table[key].state = State::Idle { since: now };
        self.by_age.push_back(&mut self.table, key);
        owner.resting.push_front(&mut self.table, key);
        more(&mut self.idle);
        more(&mut owner.idle);
    }

    /// Leases a server.
    pub(super) fn lend(&mut self, now: Moment, key: u32, owner: &mut TenantState, charged_us: u64) {
        self.leave(now, key, owner);
        let slot = &mut self.table[key];
        slot.state = State::Busy { since: now, charged_us };
        more(&mut self.busy);
        more(&mut owner.busy);
        owner.starts_us = owner.starts_us.saturating_add(u128::from(now.0));
    }

    /// Sends a server on its way out.
    pub(super) fn dismiss(&mut self, now: Moment, key: u32, owner: &mut TenantState) {
        self.leave(now, key, owner);
        self.forget_birth(key);
        self.table[key].state = State::Closing { next: None };
        more(&mut self.closing);
        more(&mut owner.closing);
    }

    /// Promises the slot of a closing server to a tenant, for which it counts from now on.
    pub(super) fn promise(&mut self, key: u32, promise: Promise, heir: &mut TenantState) {
        let state = &mut self.table[key].state;
        assert!(*state == State::Closing { next: None }, "only a closing, unpromised slot can be promised");
        *state = State::Closing { next: Some(promise) };
        more(&mut self.promised);
        more(&mut heir.opening);
        more(&mut heir.promised);
    }

    /// Takes a promise back.
    pub(super) fn renounce(&mut self, key: u32, heir: &mut TenantState) {
        self.table[key].state = State::Closing { next: None };
        less(&mut self.promised);
        less(&mut heir.opening);
        less(&mut heir.promised);
    }

    /// Frees the slot of a server that is gone.
    pub(super) fn free(&mut self, now: Moment, key: u32, owner: &mut TenantState) {
        if !matches!(self.table[key].state, State::Closing { .. }) {
            self.dismiss(now, key, owner);
        }
        self.leave(now, key, owner);
        let gone = self.table.remove(key);
        assert!(gone.is_some(), "a slot is freed once");
    }

    /// Undoes what the present state counts for.
    fn leave(&mut self, now: Moment, key: u32, owner: &mut TenantState) {
        match self.table[key].state {
            State::Opening { .. } => {
                less(&mut self.opening);
                less(&mut owner.opening);
                self.table[key].born = now;
                self.by_birth.push_back(&mut self.table, key);
            }
            State::Idle { .. } => {
                less(&mut self.idle);
                less(&mut owner.idle);
                self.by_age.remove(&mut self.table, key);
                owner.resting.remove(&mut self.table, key);
            }
            State::Busy { since, .. } => {
                less(&mut self.busy);
                less(&mut owner.busy);
                owner.starts_us = owner.starts_us.saturating_sub(u128::from(since.0));
            }
            State::Closing { next } => {
                assert!(next.is_none(), "a promise is kept or taken back before its slot is freed");
                less(&mut self.closing);
                less(&mut owner.closing);
            }
        }
    }

    fn forget_birth(&mut self, key: u32) {
        if self.hand == Some(key) {
            self.hand = self.by_birth.after(&self.table, key);
        }
        self.by_birth.remove(&mut self.table, key);
    }

    fn next_generation(&mut self, key: u32) -> u32 {
        if key as usize >= self.generations.len() {
            self.generations.resize((key as usize).saturating_add(1), 0);
        }
        self.generations.get_mut(key as usize).map_or(0, |generation| {
            *generation = generation.wrapping_add(1);
            *generation
        })
    }
}

impl Linked<OfTenant> for Slot {
    fn link(&self) -> &Link {
        &self.of_tenant
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.of_tenant
    }
}

impl Linked<ByAge> for Slot {
    fn link(&self) -> &Link {
        &self.by_age
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.by_age
    }
}

impl Linked<ByBirth> for Slot {
    fn link(&self) -> &Link {
        &self.by_birth
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.by_birth
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;
    use crate::tenant::Allowance;

    const ORDINARY: Roles = Roles { cluster: Role::Ordinary, tenant: Role::Ordinary };

    fn owner() -> TenantState {
        let allowance = Allowance { reserve: 0, floor: 1, share: 1, ceiling: 9, weight: 1, max_waiters: 1 };
        TenantState::new(TenantId(0), allowance, Moment(0), 0)
    }

    #[test]
    fn a_slot_is_reused_under_another_name() {
        let (mut slots, mut owner) = (Slots::new(), owner());
        let first = slots.order(Moment(0), 0, &mut owner, ORDINARY);
        let key = slots.find(first).expect("it is there");
        slots.free(Moment(0), key, &mut owner);
        let second = slots.order(Moment(0), 0, &mut owner, ORDINARY);
        assert_eq!(slots.find(second), Some(key));
        assert_eq!(slots.find(first), None, "an old name finds nothing");
    }

    #[test]
    fn a_server_can_be_gone_in_any_state_and_leaves_nothing_behind() {
        let (mut slots, mut owner) = (Slots::new(), owner());
        let mut keys = Vec::new();
        for _ in 0..4 {
            let id = slots.order(Moment(0), 0, &mut owner, ORDINARY);
            keys.push(slots.find(id).expect("it is there"));
        }
        slots.rest(Moment(1), keys[1], &mut owner);
        slots.rest(Moment(1), keys[2], &mut owner);
        slots.lend(Moment(2), keys[2], &mut owner, 0);
        slots.dismiss(Moment(3), keys[3], &mut owner);
        assert_eq!((slots.opening, slots.idle, slots.busy, slots.closing), (1, 1, 1, 1));
        assert_eq!((slots.used(), slots.staying()), (4, 3));
        for key in keys {
            slots.free(Moment(4), key, &mut owner);
        }
        assert_eq!((slots.used(), owner.slots(), owner.starts_us), (0, 0, 0));
        assert!(slots.by_age.is_empty() && slots.by_birth.is_empty() && owner.resting.is_empty());
    }
}
