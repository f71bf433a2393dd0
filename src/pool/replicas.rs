//! Read replicas: which of them are fit to be read from, and how far each is behind.
//!
//! Owns the looks. While somebody reads from a replica, its primary is asked now and then how far it has written, and the
//! replica how far it has replayed: both on servers of a tenant that reads there, so that no look needs a login or a
//! connection of its own. A replica that has not replayed for too long, or that is none any more, is not read from: its
//! readers go to the primary.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;

use super::desk::{Acquired, Pool, Shared};
use super::lease::{Lease, Leftover};
use super::tenant::TenantState;
use crate::backend::Profile;
use crate::budget::{Input, TenantView};
use crate::ids::ClusterId;
use crate::tenant::{Target, Tenant};
use crate::time::Moment;
use crate::track::{ClientState, Exchange, Sink, first_value};

/// A replica, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its number among the clusters.
    pub cluster: ClusterId,
    /// The cluster that it replays.
    pub primary: ClusterId,
    /// Its name.
    pub name: Arc<str>,
    /// Where both are, in words: with other words it is another replica.
    pub endpoints: Arc<str>,
    /// How far it may be behind.
    pub max_lag: Duration,
}

impl ReplicaSpec {
    fn is_same(&self, other: &Self) -> bool {
        (self.cluster, self.primary, &self.endpoints) == (other.cluster, other.primary, &other.endpoints)
    }
}

/// A replica as a worker sees it.
#[derive(Debug)]
pub(super) struct Replica {
    spec: ReplicaSpec,
    /// What the primary had written when it was asked, not replayed yet as far as is known; the oldest first.
    written: VecDeque<(Moment, u64)>,
    /// It has replayed all that was written by then.
    replayed: Option<Moment>,
    /// How far it had replayed at the last look.
    position: u64,
    /// On whose servers it is looked at: somebody's who reads there.
    wanted: Option<Rc<TenantState>>,
    /// When somebody wanted to read there last.
    wanted_at: Moment,
    looked: Option<Moment>,
    is_looked_at: bool,
    /// What was said of it last.
    said_fit: Option<bool>,
}

impl Replica {
    fn new(spec: ReplicaSpec) -> Self {
        Self {
            spec,
            written: VecDeque::new(),
            replayed: None,
            position: 0,
            wanted: None,
            wanted_at: Moment(0),
            looked: None,
            is_looked_at: false,
            said_fit: None,
        }
    }

    fn lag(&self, now: Moment) -> Option<Duration> {
        self.replayed.map(|replayed| now.since(replayed))
    }

    fn is_fit(&self, now: Moment) -> bool {
        self.lag(now).is_some_and(|lag| lag <= self.spec.max_lag)
    }

    /// Whether it is time for another look.
    fn is_due(&self, now: Moment) -> bool {
        !self.is_looked_at && self.looked.is_none_or(|looked| now.since(looked) >= self.pause())
    }

    /// How often it is looked at while it is read from: a lag is known as exactly as that.
    fn pause(&self) -> Duration {
        (self.spec.max_lag / 4).min(LONGEST_PAUSE)
    }

    fn note_written(&mut self, asked: Moment, position: u64) {
        if position < self.position {
            // It has replayed what the primary has not written: they went different ways.
            self.forget();
            return;
        }
        // One look in a row of many that were not replayed may go: the lag is then taken for a little more than it is.
        if self.written.len() >= MAX_WRITTEN {
            self.written.remove(MAX_WRITTEN / 2);
        }
        self.written.push_back((asked, position));
    }

    fn note_replayed(&mut self, position: u64) {
        self.position = position;
        while let Some((asked, written)) = self.written.front().copied()
            && written <= position
        {
            self.replayed = Some(asked);
            self.written.pop_front();
        }
    }

    /// It is no replica, or nobody knows.
    fn forget(&mut self) {
        (self.replayed, self.written) = (None, VecDeque::new());
    }
}

impl Pool {
    /// These are the replicas from now on. What is known of those that stay holds.
    pub fn set_replicas(&self, specs: Vec<ReplicaSpec>) {
        let mut replicas = self.shared.replicas.borrow_mut();
        let mut known = std::mem::take(&mut *replicas);
        replicas.extend(specs.into_iter().map(|spec| {
            let same = known.iter().position(|one| one.spec.is_same(&spec));
            match same {
                Some(at) => Replica { spec, ..known.swap_remove(at) },
                None => Replica::new(spec),
            }
        }));
    }

    /// How far a replica is behind, if that cluster is one: the outer `None` if not, the inner if that is not known.
    #[must_use]
    pub fn replica_lag(&self, cluster: ClusterId) -> Option<Option<Duration>> {
        let now = self.clock().now();
        let replicas = self.shared.replicas.borrow();
        let replica = replicas.iter().find(|replica| replica.spec.cluster == cluster)?;
        // Nobody looks at one that nobody reads from.
        Some(replica.wanted.as_ref().and_then(|_| replica.lag(now)))
    }

    /// The tenant as it is on a replica, for a transaction that goes there; `None` if it goes to the primary.
    #[must_use]
    pub fn reader(&self, state: &Rc<TenantState>, goes_to: Target) -> Option<Rc<TenantState>> {
        if goes_to == Target::Primary || !state.has_readers() {
            return None;
        }
        let now = self.clock().now();
        let best = {
            let mut replicas = self.shared.replicas.borrow_mut();
            let mut best: Option<(Rc<TenantState>, (u32, u32))> = None;
            let mut home = None;
            for reader in state.readers().iter() {
                let Some(replica) = replicas.iter_mut().find(|one| one.spec.cluster == reader.cluster())
                else {
                    continue;
                };
                replica.wanted_at = now;
                let here = self.shared.desk(replica.spec.cluster);
                let here = here
                    .and_then(|desk| Some((desk.scheduler.tenant(reader.id)?, desk.scheduler.capacity())));
                let Some((view, capacity)) = here else { continue };
                // Whether Postgres is there and lets the tenant in, only asking tells: who is refused goes home.
                let serves = capacity > 0;
                let crowd = (view.waiters, view.busy);
                if replica.wanted.is_none() || replica.is_due(now) {
                    // A look must not stand in a long queue, if somebody else's does not.
                    let home = home.get_or_insert_with(|| self.view(state));
                    let is_halted = home.as_ref().is_none_or(|home| home.halted.is_some());
                    let is_crowded = home.as_ref().is_none_or(|home| home.waiters > 0) || view.waiters > 0;
                    let can_look = serves && !view.rejected && view.halted.is_none() && !is_halted;
                    if can_look && (!is_crowded || replica.wanted.is_none()) {
                        replica.wanted = Some(state.clone());
                    }
                }
                if serves && replica.is_fit(now) && best.as_ref().is_none_or(|(_, least)| crowd < *least) {
                    best = Some((reader.clone(), crowd));
                }
            }
            best.map(|(reader, _)| reader)
        };
        look_where_due(&self.shared);
        if best.is_none() {
            self.count_fallback(state);
        }
        best
    }

    /// Whether the replica where this is the tenant is still fit to be read from: the wait for a server may have been long.
    #[must_use]
    pub fn is_fit(&self, reader: &TenantState) -> bool {
        let now = self.clock().now();
        let replicas = self.shared.replicas.borrow();
        replicas.iter().any(|replica| replica.spec.cluster == reader.cluster() && replica.is_fit(now))
    }

    /// A transaction that could be a replica's goes to the primary.
    pub fn count_fallback(&self, state: &TenantState) {
        let mut counters = state.counters.borrow_mut();
        counters.replica_fallbacks = counters.replica_fallbacks.saturating_add(1);
    }

    /// The tenant reads from these from now on, each with its login there. Returns from which it does no longer.
    pub fn set_readers(
        &self,
        state: &Rc<TenantState>,
        wanted: Vec<(Arc<Tenant>, Profile)>,
        login_changed: bool,
    ) -> Vec<ClusterId> {
        let before = state.readers();
        let mut readers = Vec::with_capacity(wanted.len());
        for (tenant, profile) in wanted {
            let reader = match before.iter().find(|reader| reader.cluster() == tenant.cluster) {
                Some(reader) => {
                    reader.update(tenant, login_changed.then(|| profile.clone()));
                    // Its certificates and time limits may have changed without the login.
                    reader.connect_with(profile);
                    reader.clone()
                }
                None => TenantState::reader(state, tenant, profile, self.clock().now()),
            };
            self.introduce(&reader);
            readers.push(reader);
        }
        let is_gone = |one: &&Rc<TenantState>| !readers.iter().any(|reader| Rc::ptr_eq(reader, one));
        let gone: Vec<_> = before.iter().filter(is_gone).cloned().collect();
        gone.iter().for_each(|gone| self.remove_reader(gone));
        state.set_readers(readers);
        gone.iter().map(|gone| gone.cluster()).collect()
    }

    pub(super) fn remove_reader(&self, reader: &Rc<TenantState>) {
        reader.set_removed();
        self.shared.tiering.borrow().1.forget(reader.rank.take());
        self.shared.step(reader.cluster(), Input::RemoveTenant { tenant: reader.id });
    }

    /// The tenant everywhere: where it writes, and where it reads.
    #[must_use]
    pub fn everywhere(&self, state: &Rc<TenantState>) -> Vec<(Rc<TenantState>, Option<TenantView>)> {
        let readers = state.readers();
        let all = std::iter::once(state).chain(readers.iter());
        all.map(|one| (one.clone(), self.view(one))).collect()
    }
}

/// Looks at replicas that somebody has wanted lately.
pub(super) fn look_where_due(shared: &Rc<Shared>) {
    let now = shared.clock.now();
    for replica in shared.replicas.borrow_mut().iter_mut() {
        let Some(tenant) = &replica.wanted else { continue };
        if tenant.is_removed() || now.since(replica.wanted_at) > LOOKED_AT_FOR {
            replica.wanted = None;
            continue;
        }
        if replica.is_due(now) {
            (replica.is_looked_at, replica.looked) = (true, Some(now));
            let (shared, spec, tenant) = (shared.clone(), replica.spec.clone(), tenant.clone());
            spawn_local(async move { look(&shared, &spec, &tenant).await });
        }
    }
}

async fn look(shared: &Rc<Shared>, spec: &ReplicaSpec, tenant: &Rc<TenantState>) {
    let pool = Pool { shared: shared.clone() };
    let written = position(&pool, tenant, WRITTEN).await;
    if let (Some((asked, Some(written))), Some(replica)) = (written, find(shared, spec).as_deref_mut()) {
        replica.note_written(asked, written);
    }
    let reader = tenant.reader_at(spec.cluster);
    let replayed = match &reader {
        Some(reader) => position(&pool, reader, REPLAYED).await.map(|(_, replayed)| replayed),
        None => None,
    };
    let now = shared.clock.now();
    let as_of = {
        let Some(mut replica) = find(shared, spec) else { return };
        replica.is_looked_at = false;
        match replayed {
            Some(Some(replayed)) => replica.note_replayed(replayed),
            // It answers, and replays nothing: it has become a primary.
            Some(None) => replica.forget(),
            None => {}
        }
        let (is_fit, lag) = (replica.is_fit(now), replica.lag(now));
        if replica.said_fit != Some(is_fit) {
            replica.said_fit = Some(is_fit);
            say(spec, is_fit, lag, replayed == Some(None));
        }
        replica.replayed
    };
    if let Some(as_of) = as_of {
        for reader in shared.tenants.borrow().values().filter_map(|one| one.reader_at(spec.cluster)) {
            reader.note_replayed(now, as_of);
        }
    }
}

fn find<'s>(shared: &'s Shared, spec: &ReplicaSpec) -> Option<std::cell::RefMut<'s, Replica>> {
    std::cell::RefMut::filter_map(shared.replicas.borrow_mut(), |replicas| {
        replicas.iter_mut().find(|replica| replica.spec.is_same(spec))
    })
    .ok()
}

fn say(spec: &ReplicaSpec, is_fit: bool, lag: Option<Duration>, is_primary: bool) {
    let (cluster, behind_ms) =
        (&spec.name, lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)));
    if is_fit {
        tracing::info!(%cluster, behind_ms, reason = "replica_fit", "the replica is read from");
    } else if is_primary {
        tracing::warn!(%cluster, reason = "replica_promoted", "this is no replica: nothing is read from it");
    } else {
        let text = "the replica is too far behind, or cannot be asked: its readers go to the primary";
        tracing::warn!(%cluster, behind_ms, reason = "replica_behind", "{text}");
    }
}

/// Asks a server of this tenant for a position in the WAL, and says when it did. `None` if none could be asked, an inner
/// `None` if it has no such position.
async fn position(pool: &Pool, tenant: &Rc<TenantState>, sql: &str) -> Option<(Moment, Option<u64>)> {
    let mut lease = match pool.acquire_exempt(tenant, tenant.patience()) {
        Acquired::Now(lease) => lease,
        // A halt may stop the clock of its queue.
        Acquired::Queued(mut ticket) => {
            timeout(tenant.patience(), poll_fn(|cx| ticket.poll(cx))).await.ok()?.ok()?
        }
        Acquired::Refused(_) => return None,
    };
    // How long it waited for the server does not make the answer older.
    let asked = pool.clock().now();
    // Who does not answer in time is closed with the lease.
    let answer = timeout(PATIENCE, ask(&mut lease, sql)).await.ok()??;
    lease.give_back(Leftover::Nothing);
    Some((asked, answer.as_deref().and_then(parse_position)))
}

/// The one value that this query gives. Not cancel-safe: a server whose answer was dropped halfway must be closed.
async fn ask(lease: &mut Lease, sql: &str) -> Option<Option<Box<str>>> {
    let server = lease.server()?;
    let mut exchange = Exchange::default();
    let mut nobody = ClientState::nobody(crate::ids::ClientId(0));
    let mut out = Vec::new();
    exchange.own_query(sql.as_bytes(), &mut out);
    // A simple query destroys the unnamed statement.
    server.state.unnamed_of = None;
    server.stream.write_all(&out).await.ok()?;
    let mut heard = Vec::new();
    let mut input = std::mem::take(&mut server.carry);
    let mut buffer = vec![0_u8; 4096];
    while !exchange.is_over(&server.state) {
        let read @ 1.. = server.stream.read(&mut buffer).await.ok()? else { return None };
        let read = buffer.get(..read).unwrap_or_default();
        heard.extend_from_slice(read);
        input.extend_from_slice(read);
        out.clear();
        let mut sink = Sink::new(&input, &mut out);
        let turn = exchange.server_bytes(&mut nobody, &mut server.state, &input, &mut sink).ok()?;
        input.drain(..turn.consumed);
    }
    server.carry = input;
    Some(first_value(&heard))
}

/// `16/B374D848`: two halves in hexadecimal digits (PostgreSQL manual, "pg_lsn Type").
fn parse_position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// What is flushed: more is not sent to a replica. Commits that do not wait for that are younger, by less than a second.
const WRITTEN: &str = "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
                       THEN pg_catalog.pg_current_wal_flush_lsn() END";
const REPLAYED: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
                        THEN pg_catalog.pg_last_wal_replay_lsn() END";
/// How often a replica is looked at.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// For how long behind the last wish to read from it.
const LOOKED_AT_FOR: Duration = Duration::from_secs(60);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Positions that are remembered until they are replayed.
const MAX_WRITTEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_postgres_writes_it() {
        assert_eq!(parse_position("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_position("0/0"), Some(0));
        for wrong in ["", "16", "/", "16/", "x/1", "1/1/1", "100000000/0"] {
            assert_eq!(parse_position(wrong), None, "{wrong}");
        }
    }

    fn replica(max_lag_s: u64) -> Replica {
        Replica::new(ReplicaSpec {
            cluster: ClusterId(1),
            primary: ClusterId(0),
            name: "east".into(),
            endpoints: "".into(),
            max_lag: Duration::from_secs(max_lag_s),
        })
    }

    fn at(second: u64) -> Moment {
        Moment(second * 1_000_000)
    }

    #[test]
    fn a_replica_is_as_old_as_the_newest_look_that_it_has_caught_up_with() {
        let mut replica = replica(3);
        assert_eq!(replica.lag(at(0)), None);
        assert!(!replica.is_fit(at(0)), "nobody has looked");
        for second in 1..=4 {
            replica.note_written(at(second), second * 100);
        }
        replica.note_replayed(99);
        assert!(!replica.is_fit(at(4)));
        replica.note_replayed(299);
        assert_eq!(replica.lag(at(4)), Some(Duration::from_secs(2)));
        assert!(replica.is_fit(at(5)) && !replica.is_fit(at(6)), "three seconds are allowed");
        replica.note_replayed(400);
        assert_eq!(replica.lag(at(5)), Some(Duration::from_secs(1)));
        replica.forget();
        assert!(!replica.is_fit(at(5)));
    }

    #[test]
    fn a_replica_that_has_replayed_what_nobody_has_written_is_none() {
        let mut replica = replica(3);
        replica.note_written(at(1), 100);
        replica.note_replayed(500);
        assert!(replica.is_fit(at(1)), "something may have been written in between");
        replica.note_written(at(2), 499);
        assert!(!replica.is_fit(at(2)));
        replica.note_replayed(500);
        assert!(!replica.is_fit(at(2)));
        replica.note_written(at(3), 500);
        replica.note_replayed(500);
        assert!(replica.is_fit(at(3)));
    }

    #[test]
    fn a_replica_that_is_far_behind_is_not_taken_for_fresher_than_it_is() {
        let mut replica = replica(3_600);
        for second in 1..=1_000 {
            replica.note_written(at(second), second);
        }
        assert!(replica.written.len() <= MAX_WRITTEN);
        replica.note_replayed(500);
        assert!(replica.lag(at(1_000)).is_none_or(|lag| lag >= Duration::from_secs(500)));
        replica.note_replayed(1_000);
        assert_eq!(replica.lag(at(1_000)), Some(Duration::ZERO));
    }
}
