//! Requests that wait, in one queue per tenant, and the map from their names.
//!
//! Owns the table of waiters and the two facts about a queue that are needed often: since when its head waits, and the
//! earliest deadline in it. Must not know servers.

use super::links::{Link, Linked};
use super::table::{IdMap, Table};
use super::tenants::TenantState;
use crate::ids::RequestId;
use crate::stats::Cause;
use crate::time::Moment;

/// The list of waiters of one tenant.
#[derive(Clone, Debug)]
pub(super) struct Queue;

/// One waiting request.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    /// The tenant's number in the table of tenants.
    pub(super) tenant: u32,
    pub(super) since: Moment,
    pub(super) deadline: Moment,
    /// Not to be served before.
    pub(super) from: Moment,
    pub(super) began_with: Cause,
    link: Link,
}

/// All waiting requests.
#[derive(Clone, Debug)]
pub(super) struct Waiters {
    pub(super) table: Table<Waiter>,
    keys: IdMap<RequestId>,
}

impl Waiters {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), keys: IdMap::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn find(&self, request: RequestId) -> Option<u32> {
        self.keys.get(&request).copied()
    }

    /// Puts a request at the end of its tenant's queue.
    pub(super) fn push(
        &mut self,
        now: Moment,
        request: RequestId,
        (from, deadline): (Moment, Moment),
        key: u32,
        tenant: &mut TenantState,
    ) -> u32 {
        let back = tenant.queue.back().map(|back| self.table[back].deadline);
        if back.is_some_and(|back| deadline < back) {
            tenant.deadlines_rise = false;
        }
        tenant.next_deadline = tenant.next_deadline.min(deadline);
        let (began_with, link) = (Cause::OwnServers, Link::default());
        let waiter =
            self.table.insert(Waiter { request, tenant: key, since: now, deadline, from, began_with, link });
        self.keys.insert(request, waiter);
        tenant.queue.push_back(&mut self.table, waiter);
        if back.is_none() {
            tenant.head_since = now;
            tenant.head_ready = now.max(from);
        }
        waiter
    }

    /// All that wait for their time may be served now.
    pub(super) fn hurry(&mut self, now: Moment, tenant: &mut TenantState) {
        let mut next = tenant.queue.front();
        while let Some(key) = next {
            let waiter = &mut self.table[key];
            waiter.from = waiter.from.min(now);
            next = tenant.queue.after(&self.table, key);
        }
        self.look_at_head(tenant);
    }

    /// The time between these two is no part of the wait of those who waited then.
    pub(super) fn postpone(&mut self, since: Moment, until: Moment, tenant: &mut TenantState) {
        let mut next = tenant.queue.front();
        tenant.next_deadline = Moment::NEVER;
        tenant.deadlines_rise = true;
        let mut before = Moment(0);
        while let Some(key) = next {
            let waiter = &mut self.table[key];
            let held_up_us = until.micros_since(since.max(waiter.since));
            waiter.deadline = Moment(waiter.deadline.0.saturating_add(held_up_us));
            waiter.from = waiter.from.max(until);
            tenant.next_deadline = tenant.next_deadline.min(waiter.deadline);
            tenant.deadlines_rise &= before <= waiter.deadline;
            before = waiter.deadline;
            next = tenant.queue.after(&self.table, key);
        }
        self.look_at_head(tenant);
    }

    /// Takes the oldest request of a tenant out.
    pub(super) fn pop(&mut self, tenant: &mut TenantState) -> Option<Waiter> {
        let front = tenant.queue.front()?;
        self.remove(front, tenant)
    }

    /// Takes a request out.
    pub(super) fn remove(&mut self, waiter: u32, tenant: &mut TenantState) -> Option<Waiter> {
        tenant.queue.remove(&mut self.table, waiter);
        let gone = self.table.remove(waiter)?;
        self.keys.remove(&gone.request);
        let front = tenant.queue.front().map(|front| &self.table[front]);
        tenant.head_since = front.map_or(Moment::NEVER, |front| front.since);
        tenant.head_ready = front.map_or(Moment::NEVER, |front| front.since.max(front.from));
        if tenant.deadlines_rise {
            tenant.next_deadline = front.map_or(Moment::NEVER, |front| front.deadline);
        } else if front.is_none() {
            tenant.deadlines_rise = true;
            tenant.next_deadline = Moment::NEVER;
        }
        Some(gone)
    }

    /// Brings what is known of the head up to date when its times have changed.
    fn look_at_head(&self, tenant: &mut TenantState) {
        let front = tenant.queue.front().map(|front| &self.table[front]);
        tenant.head_ready = front.map_or(Moment::NEVER, |front| front.since.max(front.from));
    }

    /// Takes out a request of this tenant whose deadline has come, the oldest first. Looks at the head only, unless the
    /// queue's deadlines do not rise.
    pub(super) fn pop_expired(&mut self, now: Moment, tenant: &mut TenantState) -> Option<Waiter> {
        if tenant.next_deadline > now {
            return None;
        }
        let found = tenant.queue.iter(&self.table).find(|waiter| self.table[*waiter].deadline <= now);
        match found {
            Some(waiter) => self.remove(waiter, tenant),
            None => {
                let deadlines = tenant.queue.iter(&self.table).map(|waiter| self.table[waiter].deadline);
                tenant.next_deadline = deadlines.min().unwrap_or(Moment::NEVER);
                None
            }
        }
    }
}

impl Linked<Queue> for Waiter {
    fn link(&self) -> &Link {
        &self.link
    }
    fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;
    use crate::tenant::Allowance;

    fn tenant() -> TenantState {
        let allowance = Allowance { reserve: 0, floor: 1, share: 1, ceiling: 1, weight: 1, max_waiters: 9 };
        TenantState::new(TenantId(0), allowance, Moment(0), 0)
    }

    #[test]
    fn every_deadline_is_found_even_behind_a_later_one() {
        let (mut waiters, mut tenant) = (Waiters::new(), tenant());
        for (request, deadline) in [(1, 50), (2, 90), (3, 20), (4, 95)] {
            let (from, deadline) = (Moment(request), Moment(deadline));
            waiters.push(Moment(request), RequestId(request), (from, deadline), 0, &mut tenant);
        }
        assert_eq!(tenant.next_deadline, Moment(20));
        assert!(waiters.pop_expired(Moment(19), &mut tenant).is_none());
        assert_eq!(waiters.pop_expired(Moment(20), &mut tenant).map(|gone| gone.request), Some(RequestId(3)));
        assert!(waiters.pop_expired(Moment(20), &mut tenant).is_none());
        assert_eq!(tenant.next_deadline, Moment(50));
        assert_eq!(waiters.pop(&mut tenant).map(|gone| gone.request), Some(RequestId(1)));
        assert_eq!(tenant.head_since, Moment(2));
        for request in [2, 4] {
            assert_eq!(
                waiters.pop_expired(Moment(99), &mut tenant).map(|gone| gone.request),
                Some(RequestId(request))
            );
        }
        assert!(waiters.pop_expired(Moment(99), &mut tenant).is_none());
        assert_eq!((tenant.next_deadline, tenant.deadlines_rise, waiters.len()), (Moment::NEVER, true, 0));
        assert_eq!(waiters.find(RequestId(3)), None);
    }
}
