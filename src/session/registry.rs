//! The clients of a worker: where each one is, and the key by which it can be cancelled.
//!
//! Owns the cancel keys that clients see (PostgreSQL manual, "Canceling Requests in Progress"). The process id of a key is
//! its server's, for a client that keeps one server to its end; else it names the worker and the client's place. Process
//! ids are not unique: those of two clusters may be equal. The secret decides; it is computed, not stored, so that there
//! is no table of secrets to leak or to look up. Must not know servers beyond their numbers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use aws_lc_rs::hmac;
use slab::Slab;
use subtle::ConstantTimeEq;

use super::clocks::{Clocks, Doing, Keeps};
use super::expiry::{Expiries, Stage};
use crate::ids::{ClientId, ClusterId, ServerId, WorkerId};
use crate::pool::TenantState;
use crate::tenant::TimeLimit;
use crate::time::Moment;

/// Makes the secrets of cancel keys. One per process; clones share the key.
#[derive(Clone, Debug)]
pub struct CancelKeys(Arc<hmac::Key>);

impl CancelKeys {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, seed)))
    }

    fn secret(&self, worker: WorkerId, client: ClientId) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&worker.0.to_be_bytes());
        context.update(&client.0.to_be_bytes());
        context.sign()
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Between transactions.
    Parked,
    /// In the queue.
    Waiting,
    /// Holding this server of this cluster.
    Leasing(ClusterId, ServerId),
    /// Replicating from this server, which is its own.
    Replicating(ServerId),
}

/// What others may ask of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Cancel the request that waits.
    CancelQueued,
    /// End, with 57P01, as soon as no transaction runs.
    Leave,
    /// End, because of this limit, whatever runs.
    Overdue(TimeLimit),
    /// End, with 57P01, whatever runs.
    LeaveNow,
}

/// One client, as the rest of the worker sees it.
#[derive(Debug)]
pub struct ClientCell {
    /// Its number.
    pub id: ClientId,
    /// Its tenant.
    pub tenant: Rc<TenantState>,
    /// Number of the connection in the logs, as its login had it.
    pub request_id: u64,
    index: u32,
    /// The process id in its cancel key, if that is its server's; else 0.
    server_pid: Cell<u32>,
    whereabouts: Cell<Whereabouts>,
    wish: Cell<Wish>,
    /// Its cancel key has all bytes of the secret.
    long_key: Cell<bool>,
    /// Requests answered, to tell one from the next.
    answered: Cell<u32>,
    /// Answers are outstanding: there is something that a cancel can be meant for.
    busy: Cell<bool>,
    /// It holds a server, but is between two transactions.
    keeps: Cell<Option<Keeps>>,
    clocks: Clocks,
    waker: RefCell<Option<Waker>>,
}

impl ClientCell {
    /// Where the client is.
    #[must_use]
    pub fn whereabouts(&self) -> Whereabouts {
        self.whereabouts.get()
    }

    pub(super) fn set_whereabouts(&self, whereabouts: Whereabouts) {
        self.whereabouts.set(whereabouts);
        self.keeps.set(None);
        self.clocks.note_transaction();
    }

    /// Notes that the client is between two transactions although it holds a server, or no longer is.
    pub(super) fn set_keeps(&self, keeps: Option<Keeps>) {
        self.keeps.set(keeps);
    }

    /// Notes that the client has said something.
    pub(super) fn note_words(&self) {
        self.clocks.note_words();
    }

    /// Notes that a transaction has ended.
    pub(super) fn note_transaction(&self) {
        self.clocks.note_transaction();
    }

    /// What it does, for the time limits.
    fn doing(&self) -> Doing {
        let busy = self.busy.get();
        match (self.whereabouts.get(), self.keeps.get()) {
            (Whereabouts::Waiting, _) => Doing::Waiting,
            // It is being greeted.
            (Whereabouts::Parked, _) if busy => Doing::Waiting,
            (Whereabouts::Parked, _) => Doing::Between(Keeps::Nothing),
            // Postgres has time limits for its own streams.
            (Whereabouts::Replicating(_), Some(Keeps::Stream)) => Doing::Waiting,
            (Whereabouts::Leasing(..) | Whereabouts::Replicating(_), Some(keeps)) if !busy => {
                Doing::Between(keeps)
            }
            (Whereabouts::Leasing(..) | Whereabouts::Replicating(_), _) => Doing::Transaction { busy },
        }
    }

    /// A mark of the request that the client waits for now; another one once that is answered.
    #[must_use]
    pub fn request_mark(&self) -> (Whereabouts, u32) {
        (self.whereabouts.get(), self.answered.get())
    }

    /// Whether it has a replication connection.
    #[must_use]
    pub fn is_replicating(&self) -> bool {
        matches!(self.whereabouts.get(), Whereabouts::Replicating(_))
    }

    /// Whether the client waits for an answer of its server.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.get()
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    pub(super) fn note_answers(&self, count: u32) {
        self.answered.set(self.answered.get().wrapping_add(count));
    }

    pub(super) fn wish(&self) -> Wish {
        self.wish.get()
    }

    pub(super) fn is_asked_to_leave(&self) -> bool {
        matches!(self.wish.get(), Wish::Leave | Wish::LeaveNow)
    }

    pub(super) fn clear_wish(&self) {
        self.wish.set(Wish::Nothing);
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    fn ask(&self, wish: Wish) {
        if rank(wish) >= rank(self.wish.get()) {
            self.wish.set(wish);
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The clients of one tenant.
fn of_tenant<'c>(
    clients: &'c Slab<Rc<ClientCell>>,
    tenant: &'c Rc<TenantState>,
) -> impl Iterator<Item = &'c Rc<ClientCell>> {
    clients.iter().map(|(_, cell)| cell).filter(move |cell| Rc::ptr_eq(&cell.tenant, tenant))
}

/// What is asked last counts, unless something more urgent has been asked before.
const fn rank(wish: Wish) -> u8 {
    match wish {
        Wish::Nothing | Wish::CancelQueued => 0,
        Wish::Leave => 1,
        Wish::Overdue(_) => 2,
        Wish::LeaveNow => 3,
    }
}

/// All clients of a worker.
#[derive(Debug)]
pub struct Registry {
    worker: WorkerId,
    keys: CancelKeys,
    clients: RefCell<Slab<Rc<ClientCell>>>,
    /// Clients that were told the process id of their server: that, and their place.
    by_server: RefCell<BTreeSet<(u32, u32)>>,
    pub(super) expiries: Expiries,
    admitted: Cell<u32>,
    leaving: Cell<bool>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(worker: WorkerId, keys: CancelKeys) -> Self {
        let (clients, admitted, leaving) = (RefCell::default(), Cell::new(0), Cell::new(false));
        let (by_server, expiries) = (RefCell::default(), Expiries::default());
        Self { worker, keys, clients, by_server, expiries, admitted, leaving }
    }

    /// Takes a client in. `request_id` is the number of its connection in the logs.
    pub fn admit(&self, tenant: Rc<TenantState>, request_id: u64) -> Rc<ClientCell> {
        let mut clients = self.clients.borrow_mut();
        let entry = clients.vacant_entry();
        self.admitted.set(self.admitted.get().wrapping_add(1));
        let index = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        let id = ClientId(u64::from(self.admitted.get()) << 32 | u64::from(index));
        let connected = &tenant.clients.connected;
        connected.set(connected.get().saturating_add(1));
        let wish = Cell::new(if self.leaving.get() { Wish::Leave } else { Wish::Nothing });
        let (whereabouts, waker) = (Cell::new(Whereabouts::Parked), RefCell::default());
        let cell = Rc::new(ClientCell {
            id,
            tenant,
            request_id,
            index,
            server_pid: Cell::new(0),
            whereabouts,
            wish,
            long_key: Cell::new(false),
            answered: Cell::new(0),
            // Until it is greeted.
            busy: Cell::new(true),
            keeps: Cell::new(None),
            clocks: Clocks::new(),
            waker,
        });
        entry.insert(cell.clone());
        cell
    }

    /// Lets a client go.
    pub fn remove(&self, cell: &ClientCell) {
        if self.clients.borrow_mut().try_remove(place(cell.index)).is_some() {
            self.by_server.borrow_mut().remove(&(cell.server_pid.get(), cell.index));
            self.expiries.remove(cell.index);
            let connected = &cell.tenant.clients.connected;
            connected.set(connected.get().saturating_sub(1));
        }
    }

    /// The process id and the secret that the client is told. `long` gives 32 bytes (protocol 3.2) instead of 4. `server` is
    /// the process id of the server that it keeps until it leaves.
    #[must_use]
    pub fn key(&self, cell: &ClientCell, long: bool, server: Option<u32>) -> (u32, Vec<u8>) {
        cell.long_key.set(long);
        // 0: a server that did not say.
        let pid = match server.filter(|pid| *pid != 0) {
            Some(pid) => {
                cell.server_pid.set(pid);
                self.by_server.borrow_mut().insert((pid, cell.index));
                pid
            }
            None => invented_pid(self.worker, cell.index),
        };
        (pid, self.secret(cell))
    }

    /// Whole, or the part that protocol 3.0 has room for. A part of a long key must not do: it is guessed more easily.
    fn secret(&self, cell: &ClientCell) -> Vec<u8> {
        let mut secret = self.keys.secret(self.worker, cell.id).as_ref().to_vec();
        if !cell.long_key.get() {
            secret.truncate(SHORT_SECRET_BYTES);
        }
        secret
    }

    /// The client of a cancel key, if key and secret are right. It may be another worker's.
    #[must_use]
    pub fn find(&self, pid: u32, secret: &[u8]) -> Option<Rc<ClientCell>> {
        let (clients, by_server) = (self.clients.borrow(), self.by_server.borrow());
        let told_servers =
            by_server.range((pid, 0)..=(pid, u32::MAX)).filter_map(|(_, index)| clients.get(place(*index)));
        let invented = pid & INDEX_MASK;
        let told_ours =
            (invented_pid(self.worker, invented) == pid).then(|| clients.get(place(invented))).flatten();
        told_ours
            .filter(|cell| cell.server_pid.get() == 0)
            .into_iter()
            .chain(told_servers)
            .find(|cell| bool::from(self.secret(cell).ct_eq(secret)))
            .cloned()
    }

    /// Asks a queued client to give its request up.
    pub fn cancel_queued(&self, cell: &ClientCell) {
        cell.ask(Wish::CancelQueued);
    }

    /// Asks all clients for which `which` holds to leave as soon as their transaction is over.
    pub fn ask_to_leave(&self, which: impl Fn(&ClientCell) -> bool) {
        for (_, cell) in self.clients.borrow().iter().filter(|(_, cell)| which(cell)) {
            cell.ask(Wish::Leave);
        }
    }

    /// Whether nobody is let in any more, and everybody asked to leave.
    pub(super) fn is_closed(&self) -> bool {
        self.leaving.get()
    }

    /// Asks so many of a tenant's clients to leave as soon as their transaction is over: first those that do nothing, last
    /// those that replicate.
    pub fn ask_some_to_leave(&self, tenant: &Rc<TenantState>, count: u32) {
        let clients = self.clients.borrow();
        let mut cells: Vec<&Rc<ClientCell>> = of_tenant(&clients, tenant).collect();
        cells.sort_by_key(|cell| (cell.is_replicating(), cell.whereabouts() != Whereabouts::Parked));
        for cell in cells.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            cell.ask(Wish::Leave);
        }
    }

    /// Asks so many of a tenant's clients to leave that hold servers, those who were asked before included: such that keep
    /// one between transactions, and with `all` the others behind them. Last come those that replicate: they may not be able
    /// to.
    pub fn ask_holders_to_leave(&self, tenant: &Rc<TenantState>, count: u32, all: bool) {
        let clients = self.clients.borrow();
        let holds = |cell: &&Rc<ClientCell>| match cell.whereabouts() {
            Whereabouts::Leasing(..) | Whereabouts::Replicating(_) => all || cell.keeps.get().is_some(),
            Whereabouts::Parked | Whereabouts::Waiting => false,
        };
        let mut cells: Vec<&Rc<ClientCell>> = of_tenant(&clients, tenant).filter(holds).collect();
        let keeps = |cell: &Rc<ClientCell>| cell.keeps.get().is_some();
        cells.sort_by_key(|cell| (!cell.is_asked_to_leave(), cell.is_replicating(), !keeps(cell)));
        for cell in cells.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            cell.ask(Wish::Leave);
        }
    }

    /// Asks those of these places to leave that are over a time limit. Returns where to go on, unless that was all.
    pub(super) fn ask_overdue(&self, places: Range<usize>, now: Moment) -> Option<usize> {
        let clients = self.clients.borrow();
        for cell in places.clone().filter_map(|place| clients.get(place)) {
            if let Some(limit) = cell.clocks.look(cell.doing(), &cell.tenant.time_limits(), now) {
                cell.ask(Wish::Overdue(limit));
            }
        }
        (places.end < clients.capacity()).then_some(places.end)
    }

    /// Lets the client's session end at that time.
    pub(super) fn ends_at(&self, cell: &ClientCell, at: Moment) {
        self.expiries.insert(cell.index, at);
    }

    /// Whether the time for the client's session to end has come.
    pub(super) fn is_expired(&self, cell: &ClientCell) -> bool {
        self.expiries.has_come(cell.index)
    }

    /// Asks those to leave whose time has come.
    pub(super) fn ask_expired(&self, now: Moment) {
        while let Some((index, stage)) = self.expiries.poll_due(now) {
            if let Some(cell) = self.clients.borrow().get(place(index)) {
                cell.ask(if stage == Stage::Asked { Wish::Leave } else { Wish::LeaveNow });
            }
        }
    }

    /// Asks everybody to leave, newcomers too.
    pub fn close(&self) {
        self.leaving.set(true);
        self.ask_to_leave(|_| true);
    }

    /// Tells everybody to leave at once.
    pub fn cut_off(&self) {
        self.leaving.set(true);
        for (_, cell) in self.clients.borrow().iter() {
            cell.ask(Wish::LeaveNow);
        }
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A process id that names a worker and a client's place. Positive as a signed number, and larger than any that Linux
/// gives out (`PID_MAX_LIMIT`, 2^22), so that it is no server's.
fn invented_pid(worker: WorkerId, index: u32) -> u32 {
    INVENTED | u32::from(worker.0 & 0xff) << INDEX_BITS | index & INDEX_MASK
}

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// What BackendKeyData has room for in protocol 3.0.
const SHORT_SECRET_BYTES: usize = 4;
const INVENTED: u32 = 1 << 30;
const INDEX_BITS: u32 = 22;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::backend::{Connector, Profile};
    use crate::config::load_text;
    use crate::tenant::{Tenant, TimeLimits};

    fn tenant() -> Rc<TenantState> {
        let text = "listen.tls = { cert = \"c\", key = \"k\", client_ca = \"ca\" }\n\
            [cluster.main]\nurl = \"postgres://127.0.0.1/app?sslmode=disable\"\nmax_connections = 40\n\
            [[tenant]]\nname = \"acme\"\nrole = \"acme\"\nschema = \"acme\"\nclient_auth = { certificate = \"x\" }\n";
        let settings = load_text(text, Path::new(""), &|_| None, None).unwrap().settings;
        let connector = Connector::new(&settings.clusters[0], &settings.servers).unwrap();
        let tenant = settings.catalog.by_name("acme").unwrap().clone();
        let profile = Profile::new(&connector, &tenant);
        TenantState::new(tenant, profile)
    }

    #[test]
    fn a_cancel_key_is_right_as_a_whole_only() {
        let registry = Registry::new(WorkerId(0), CancelKeys::new(&[7; 32]));
        let tenant = tenant();
        for server in [None, Some(0), Some(4711), Some(INVENTED)] {
            let (long, short) = (registry.admit(tenant.clone(), 1), registry.admit(tenant.clone(), 2));
            for (cell, is_long, length) in [(&long, true, 32), (&short, false, 4)] {
                let (pid, secret) = registry.key(cell, is_long, server);
                assert_eq!(secret.len(), length);
                assert_eq!(registry.find(pid, &secret).map(|found| found.id), Some(cell.id));
                let whole = registry.keys.secret(WorkerId(0), cell.id);
                for part in (0..=32).filter(|part| *part != length) {
                    assert!(
                        registry.find(pid, &whole.as_ref()[..part]).is_none(),
                        "{part} bytes of {length}"
                    );
                }
                let mut wrong = secret.clone();
                wrong[0] ^= 1;
                assert!(registry.find(pid, &wrong).is_none());
                assert!(registry.find(pid + 7, &secret).is_none());
                let other = server.is_some_and(|server| server > 0);
                let unsaid = if other { invented_pid(WorkerId(0), cell.index) } else { 4711 };
                assert_eq!(
                    registry.find(unsaid, &secret).is_some(),
                    unsaid == pid,
                    "only the pid that it was told"
                );
            }
            registry.remove(&long);
            registry.remove(&short);
        }
    }

    #[test]
    fn those_who_keep_servers_are_asked_first_and_no_more_than_so_many() {
        let registry = Registry::new(WorkerId(0), CancelKeys::new(&[7; 32]));
        let (tenant, other) = (tenant(), tenant());
        let cells: Vec<_> = (0..5).map(|n| registry.admit(tenant.clone(), n)).collect();
        let stranger = registry.admit(other, 9);
        let server = ServerId;
        for (n, cell) in (0..).zip(cells.iter().skip(1).chain([&stranger])) {
            cell.set_whereabouts(Whereabouts::Leasing(ClusterId(0), server(n)));
        }
        cells[4].set_whereabouts(Whereabouts::Replicating(server(4)));
        cells[3].set_keeps(Some(Keeps::Pin));
        stranger.set_keeps(Some(Keeps::Pin));
        let asked = || cells.iter().map(|cell| u8::from(cell.is_asked_to_leave())).collect::<Vec<_>>();
        registry.ask_holders_to_leave(&tenant, 3, false);
        assert_eq!(asked(), [0, 0, 0, 1, 0], "one keeps its server between two transactions");
        for _ in 0..2 {
            registry.ask_holders_to_leave(&tenant, 2, true);
            assert_eq!(asked(), [0, 1, 0, 1, 0], "the one that was asked counts");
        }
        registry.ask_holders_to_leave(&tenant, 9, true);
        assert_eq!(asked(), [0, 1, 1, 1, 1], "who holds no server stays");
        assert!(!stranger.is_asked_to_leave());
    }

    #[test]
    fn servers_with_the_same_process_id_are_told_apart_by_the_secret() {
        let registry = Registry::new(WorkerId(3), CancelKeys::new(&[7; 32]));
        let tenant = tenant();
        let cells: Vec<_> = (0..100).map(|n| registry.admit(tenant.clone(), n)).collect();
        // Three clusters, and a client whose invented number is another's server.
        let told = |n: u32| match n {
            0 => None,
            1 => Some(invented_pid(WorkerId(3), 0)),
            n => Some(n / 3),
        };
        let keys: Vec<_> =
            cells.iter().zip(0..).map(|(cell, n)| registry.key(cell, n % 2 == 0, told(n))).collect();
        for (cell, (pid, secret)) in cells.iter().zip(&keys) {
            assert_eq!(registry.find(*pid, secret).map(|found| found.id), Some(cell.id));
        }
        for (cell, (pid, secret)) in cells.iter().zip(&keys) {
            registry.remove(cell);
            assert!(registry.find(*pid, secret).is_none(), "a client that has left is not found");
        }
        assert!(registry.by_server.borrow().is_empty());
    }

    #[test]
    fn an_invented_process_id_is_no_servers() {
        for (worker, index) in [(0, 0), (0, INDEX_MASK), (255, 0), (255, INDEX_MASK)] {
            let pid = invented_pid(WorkerId(worker), index);
            assert!(pid > 1 << 22 && i32::try_from(pid).is_ok(), "{pid}");
        }
    }

    #[test]
    fn a_client_costs_little() {
        assert!(size_of::<ClientCell>() <= 96, "{}", size_of::<ClientCell>());
    }

    #[test]
    fn the_most_urgent_wish_counts() {
        let registry = Registry::new(WorkerId(0), CancelKeys::new(&[7; 32]));
        let cell = registry.admit(tenant(), 1);
        let overdue = Wish::Overdue(TimeLimit::IdleTransaction);
        for (asked, holds) in [
            (Wish::CancelQueued, Wish::CancelQueued),
            (Wish::Leave, Wish::Leave),
            (Wish::CancelQueued, Wish::Leave),
            // Who drains waits for transactions, but no longer than their limits.
            (overdue, overdue),
            (Wish::Leave, overdue),
            (Wish::LeaveNow, Wish::LeaveNow),
            (overdue, Wish::LeaveNow),
        ] {
            cell.ask(asked);
            assert_eq!(cell.wish(), holds);
        }
    }

    #[test]
    fn every_client_is_looked_at_in_slices_and_none_while_it_is_greeted() {
        let registry = Registry::new(WorkerId(0), CancelKeys::new(&[7; 32]));
        let state = tenant();
        let limits = TimeLimits { client_idle: Some(Duration::from_secs(1)), ..TimeLimits::default() };
        state.update(Arc::new(Tenant { time_limits: limits, ..(*state.tenant()).clone() }), None);
        let cells: Vec<_> = (0..10).map(|n| registry.admit(state.clone(), n)).collect();
        cells[1..].iter().for_each(|cell| cell.set_busy(false));
        for second in [1, 3] {
            let mut from = 0;
            while let Some(next) = registry.ask_overdue(from..from + 3, Moment(second * 1_000_000)) {
                assert_eq!(next, from + 3);
                from = next;
            }
        }
        let asked: Vec<_> = cells.iter().map(|cell| cell.wish()).collect();
        assert_eq!(asked[0], Wish::Nothing);
        assert!(asked[1..].iter().all(|wish| *wish == Wish::Overdue(TimeLimit::ClientIdle)), "{asked:?}");
    }
}
