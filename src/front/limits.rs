//! How many at a time: clients in all, and logins in progress.
//!
//! Owns two counts that are given back by `Drop`. The limits are arguments, because a reload may change them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts clients from their startup packet to the end of their session. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<AtomicUsize>);

impl Clients {
    /// No clients.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Clients now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A place for one more client, unless there are `max` already.
    #[must_use]
    pub fn claim(&self, max: usize) -> Option<ClientSlot> {
        let below = |count: usize| (count < max).then(|| count.saturating_add(1));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(ClientSlot(self.0.clone()))
    }
}

/// One client's place. Dropping it gives the place back.
#[derive(Debug)]
pub struct ClientSlot(Arc<AtomicUsize>);

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts logins in progress. Whoever accepts waits here first, so that what is too much stays in the kernel's backlog
/// and costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct HalfOpen(Arc<HalfOpenCount>);

#[derive(Debug, Default)]
struct HalfOpenCount {
    count: AtomicUsize,
    freed: Notify,
}

impl HalfOpen {
    /// Logins in progress now.
    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until there are fewer than `max()`. Cancel-safe.
    ///
    /// With several listeners each may find the last place free: the limit is exceeded by their number at most.
    pub(super) async fn room(&self, max: impl Fn() -> usize) {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // Registered before the count is read, so that a login which ends in between is not missed.
            freed.as_mut().enable();
            if self.count() < max().max(1) {
                return;
            }
            freed.await;
        }
    }

    /// Counts one login until the guard is dropped.
    pub(super) fn enter(&self) -> HalfOpenGuard {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        HalfOpenGuard(self.0.clone())
    }
}

/// One login in progress.
#[derive(Debug)]
pub(super) struct HalfOpenGuard(Arc<HalfOpenCount>);

impl Drop for HalfOpenGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::task::Poll;

    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let clients = Clients::new();
        let first = clients.claim(2);
        let second = clients.claim(2);
        assert!(first.is_some() && second.is_some() && clients.claim(2).is_none());
        assert_eq!(clients.count(), 2, "a refused claim takes no place");
        drop(first);
        assert!(clients.claim(2).is_some());
        drop(second);
        assert_eq!(clients.count(), 0);
    }

    #[tokio::test]
    async fn room_is_made_by_a_login_that_ends() {
        let half_open = HalfOpen::default();
        half_open.room(|| 1).await;
        let guard = half_open.enter();
        let room = half_open.room(|| 1);
        tokio::pin!(room);
        let still_waiting = poll_fn(|cx| Poll::Ready(room.as_mut().poll(cx).is_pending())).await;
        assert!(still_waiting);
        drop(guard);
        room.await;
        assert_eq!(half_open.count(), 0);
    }
}
