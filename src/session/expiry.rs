//! Clients whose sessions end at a time that is known from the beginning: when their token expires.
//!
//! Owns the times, ordered, and the task that waits for the next one: no client has a timer. A client is asked to leave when
//! its transaction is over, and a while later whatever it does.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use super::floor::Floor;
use crate::error::{ClientError, Fault, SqlState};
use crate::time::Moment;

/// Who ends when, by place among the clients.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    times: RefCell<Times>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Times {
    next: BTreeSet<(Moment, u32)>,
    of: HashMap<u32, (Moment, Stage)>,
}

/// What has happened at a client's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not come.
    Ahead,
    /// The client has been asked to leave.
    Asked,
    /// It has been told.
    Told,
}

impl Expiries {
    pub(super) fn insert(&self, place: u32, at: Moment) {
        let mut times = self.times.borrow_mut();
        let is_next = times.next.first().is_none_or(|(first, _)| at < *first);
        times.next.insert((at, place));
        times.of.insert(place, (at, Stage::Ahead));
        if is_next {
            self.changed.notify_one();
        }
    }

    pub(super) fn remove(&self, place: u32) {
        let mut times = self.times.borrow_mut();
        if let Some((at, _)) = times.of.remove(&place) {
            times.next.remove(&(at, place));
        }
    }

    /// Whether that client's time has come.
    pub(super) fn has_come(&self, place: u32) -> bool {
        self.times.borrow().of.get(&place).is_some_and(|(_, stage)| *stage != Stage::Ahead)
    }

    fn next(&self) -> Option<Moment> {
        self.times.borrow().next.first().map(|(at, _)| *at)
    }

    /// A client whose time has come, and the stage that it enters; call it until there is none.
    pub(super) fn poll_due(&self, now: Moment) -> Option<(u32, Stage)> {
        let mut times = self.times.borrow_mut();
        let (at, place) = times.next.first().copied().filter(|(at, _)| *at <= now)?;
        times.next.remove(&(at, place));
        let known = times.of.get(&place).map_or(Stage::Told, |(_, stage)| *stage);
        let (again, stage) = match known {
            Stage::Ahead => (at + GRACE, Stage::Asked),
            Stage::Asked | Stage::Told => (Moment::NEVER, Stage::Told),
        };
        times.of.insert(place, (again, stage));
        if stage == Stage::Asked {
            times.next.insert((again, place));
        }
        Some((place, stage))
    }
}

/// Ends sessions whose time has come, for as long as the worker lives. Sleeps while there are none.
pub async fn keep_expiries(floor: Rc<Floor>) {
    let expiries = &floor.registry.expiries;
    loop {
        let changed = expiries.changed.notified();
        let Some(next) = expiries.next() else {
            changed.await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(floor.pool.clock().instant(next)) => {
                floor.registry.ask_expired(floor.pool.clock().now());
            }
            () = changed => {}
        }
    }
}

/// What a client is told whose token has expired.
pub(super) fn token_expired() -> ClientError {
    ClientError::fatal(
        SqlState::ADMIN_SHUTDOWN,
        Fault::Client,
        "token_expired",
        "terminating connection because the token that opened it has expired",
    )
    .with_detail("A session lasts as long as its token here (jwt.ends_sessions).")
    .with_hint("Get a new token and connect again.")
}

/// How long a transaction may go on after that.
const GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_in_order_and_told_a_while_later() {
        let expiries = Expiries::default();
        for (place, second) in [(1, 20), (2, 10), (3, 15)] {
            expiries.insert(place, Moment(second * 1_000_000));
        }
        expiries.remove(3);
        let due = |second: u64| -> Vec<_> {
            std::iter::from_fn(|| expiries.poll_due(Moment(second * 1_000_000))).collect()
        };
        assert_eq!(due(9), []);
        assert!(!expiries.has_come(2));
        assert_eq!(due(10), [(2, Stage::Asked)]);
        assert!(expiries.has_come(2) && !expiries.has_come(1));
        assert_eq!(due(39), [(1, Stage::Asked)]);
        assert_eq!(due(60), [(2, Stage::Told), (1, Stage::Told)]);
        assert_eq!((due(1_000), expiries.next()), (vec![], None));
        assert!(expiries.has_come(1));
        expiries.remove(1);
        expiries.remove(2);
        assert!(expiries.times.borrow().of.is_empty());
    }
}
