//! One tenant on its worker: its login, its counters, its caches.
//!
//! Owns what all sessions of a tenant share. Lives on one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::listening::Listening;
use crate::backend::{Connector, Profile};
use crate::error::ClientError;
use crate::ids::{ClusterId, TenantId};
use crate::stats::TenantCounters;
use crate::tenant::{Meter, RateLimit, ReplicaReads, Standing, Tenant, Tier, TimeLimits};
use crate::time::Moment;
use crate::track::{Bounds, Extras, Functions, Params, Settings, StatementCache};

/// Clients of a tenant, by what they do.
#[derive(Debug, Default)]
pub struct ClientCounts {
    /// All that are connected.
    pub connected: Cell<u32>,
    /// Those that hold a server.
    pub active: Cell<u32>,
    /// Those of them that replicate.
    pub replicating: Cell<u32>,
}

/// How far a replica has got with a tenant's functions.
#[derive(Debug)]
struct Replayed {
    /// How often they had changed when that was looked at last, and since when it is so.
    seen: Cell<(u32, Moment)>,
    /// Up to which change it has replayed them, as its servers know it; `None` at first.
    upto: Rc<Cell<Option<u32>>>,
}

/// A tenant as its worker knows it.
#[derive(Debug)]
pub struct TenantState {
    /// Its number.
    pub id: TenantId,
    /// Totals, the same wherever the tenant reads.
    pub counters: Rc<RefCell<TenantCounters>>,
    /// Clients, the same.
    pub clients: Rc<ClientCounts>,
    /// Servers that its clients keep between transactions.
    pub pins: Cell<u32>,
    /// What is known of its functions.
    pub functions: Rc<Functions>,
    /// Who hears notifications through its listener.
    pub listening: Listening,
    /// Texts of prepared statements.
    pub statements: RefCell<StatementCache>,
    /// Itself on the replicas where it reads.
    readers: RefCell<Rc<[Rc<Self>]>>,
    replica_reads: Cell<ReplicaReads>,
    /// Whether a client has ever asked for a replica.
    reads: Cell<bool>,
    /// How far that replica has replayed the tenant's functions, if this is the tenant on a replica.
    replayed: Option<Replayed>,
    tenant: RefCell<Arc<Tenant>>,
    bounds: RefCell<Rc<Bounds>>,
    profile: RefCell<Profile>,
    /// Rises when servers logged in before must not be used any longer.
    epoch: Cell<u32>,
    removed: Cell<bool>,
    /// What an operator has ordered, instead of the configured rate.
    throttle: Cell<Option<RateLimit>>,
    /// Where it stands, if the proxy chooses its tier.
    pub(super) standing: Cell<Option<Standing>>,
    /// It is hot and needs more than its ceiling.
    crowded: Cell<bool>,
    /// At which step it is counted among those that are ranked.
    pub(super) rank: Cell<Option<u8>>,
    /// The recording that knows its name.
    pub(super) taped: Cell<u32>,
    /// Client logins.
    logins: Cell<Meter>,
    /// When the last slow wait was logged, and how many were not since.
    pub slow_waits: Cell<(Moment, u64)>,
    login_error: RefCell<Option<Box<ClientError>>>,
    greetings: RefCell<Greetings>,
    /// What servers report right after login.
    base: RefCell<Option<Rc<Params>>>,
}

impl TenantState {
    /// A tenant that has just been met.
    #[must_use]
    pub fn new(tenant: Arc<Tenant>, profile: Profile) -> Rc<Self> {
        Rc::new(Self::made(tenant, profile))
    }

    /// The tenant on a replica of its cluster. What it counts and knows is one with what it does at home.
    #[must_use]
    pub fn reader(home: &Self, tenant: Arc<Tenant>, profile: Profile, now: Moment) -> Rc<Self> {
        let replayed = Replayed { seen: Cell::new((home.functions.changes(), now)), upto: Rc::default() };
        Rc::new(Self {
            counters: home.counters.clone(),
            clients: home.clients.clone(),
            functions: home.functions.clone(),
            replayed: Some(replayed),
            ..Self::made(tenant, profile)
        })
    }

    fn made(tenant: Arc<Tenant>, profile: Profile) -> Self {
        Self {
            id: tenant.id,
            counters: Rc::default(),
            clients: Rc::default(),
            pins: Cell::new(0),
            listening: Listening::default(),
            functions: Functions::watched(tenant.uses_lastval),
            readers: RefCell::default(),
            replica_reads: Cell::new(tenant.replica_reads),
            reads: Cell::new(false),
            replayed: None,
            statements: RefCell::default(),
            bounds: RefCell::new(Rc::new(bounds_of(&tenant))),
            standing: Cell::new(tenant.tiers.is_some().then(|| Standing::new(tenant.tier))),
            tenant: RefCell::new(tenant),
            profile: RefCell::new(profile),
            epoch: Cell::new(0),
            removed: Cell::new(false),
            throttle: Cell::default(),
            crowded: Cell::default(),
            rank: Cell::default(),
            taped: Cell::default(),
            logins: Cell::default(),
            slow_waits: Cell::default(),
            login_error: RefCell::default(),
            greetings: RefCell::default(),
            base: RefCell::default(),
        }
    }

    /// What goes to replicas.
    #[must_use]
    pub fn replica_reads(&self) -> ReplicaReads {
        self.replica_reads.get()
    }

    /// A client asks for a replica.
    pub fn note_wish_to_read(&self) {
        self.reads.set(true);
    }

    /// Whether one ever has.
    #[must_use]
    pub const fn is_asked_to_read(&self) -> bool {
        self.reads.get()
    }

    /// Itself on the replicas where it reads.
    #[must_use]
    pub fn readers(&self) -> Rc<[Rc<Self>]> {
        self.readers.borrow().clone()
    }

    /// Itself on this replica.
    #[must_use]
    pub fn reader_at(&self, replica: ClusterId) -> Option<Rc<Self>> {
        self.readers.borrow().iter().find(|reader| reader.cluster() == replica).cloned()
    }

    /// Whether this is a tenant on a replica.
    #[must_use]
    pub const fn is_reader(&self) -> bool {
        self.replayed.is_some()
    }

    /// Whether there are such.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        !self.readers.borrow().is_empty()
    }

    pub(super) fn set_readers(&self, readers: Vec<Rc<Self>>) {
        *self.readers.borrow_mut() = readers.into();
    }

    /// Whether it is hot, needs more than its ceiling, and could read from a replica.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded.get() && !self.has_readers() && !self.is_reader()
    }

    /// It needs this much, in 1/256 servers. Whether it has just become crowded.
    pub(super) fn becomes_crowded(&self, need: u32) -> bool {
        let ceiling = self.ceiling().saturating_mul(256);
        let before = self.crowded.get();
        // Not for and back with every window.
        let least = if before { ceiling / 10 * 7 } else { ceiling };
        self.crowded.set(self.tier() == Tier::Hot && need > least);
        self.is_crowded() && !before
    }

    /// Up to which change of the tenant's functions this replica has replayed them; `None` if this is no replica.
    pub(super) fn replayed(&self) -> Option<Rc<Cell<Option<u32>>>> {
        self.replayed.as_ref().map(|replayed| replayed.upto.clone())
    }

    /// This replica has replayed all that was written by then.
    pub(super) fn note_replayed(&self, now: Moment, as_of: Moment) {
        let Some(replayed) = &self.replayed else { return };
        let (changes, (seen, since)) = (self.functions.changes(), replayed.seen.get());
        if changes != seen {
            replayed.seen.set((changes, now));
        } else if since <= as_of {
            replayed.upto.set(Some(changes));
        }
    }

    /// The tenant as configured now.
    #[must_use]
    pub fn tenant(&self) -> Arc<Tenant> {
        self.tenant.borrow().clone()
    }

    /// Its cluster. A tenant that moves to another cluster is a new tenant to its worker.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.tenant.borrow().cluster
    }

    /// What its clients may not do.
    #[must_use]
    pub fn bounds(&self) -> Rc<Bounds> {
        self.bounds.borrow().clone()
    }

    /// How many servers it may have at most.
    #[must_use]
    pub fn ceiling(&self) -> u32 {
        self.tenant.borrow().allowance.ceiling
    }

    /// How often it may begin a transaction: what an operator has ordered, or else what is configured.
    #[must_use]
    pub fn transaction_rate(&self) -> Option<RateLimit> {
        self.throttle.get().or_else(|| self.tenant.borrow().rates.as_ref()?.transactions)
    }

    /// From when on a client that has just proved who it is may go on; it counts as one that does.
    ///
    /// # Errors
    /// With the microseconds after which it may come again, if its tenant's clients log in too often.
    pub fn may_log_in(&self, now: Moment) -> Result<Moment, u64> {
        let mut meter = self.logins.get();
        meter.set(self.tenant.borrow().rates.as_ref().and_then(|rates| rates.logins));
        let from = meter.ask(now)?;
        meter.count(now);
        self.logins.set(meter);
        Ok(from)
    }

    /// Instead of the configured rate, until it is taken back with `None`.
    pub fn set_throttle(&self, limit: Option<RateLimit>) {
        self.throttle.set(limit);
    }

    /// Servers that were logged in before serve nobody any more.
    pub fn renew(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.listening.changed();
    }

    /// Its tier.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tenant.borrow().tier
    }

    /// How long its clients wait for a server.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.tenant.borrow().queue_timeout
    }

    /// How long its clients may be silent, and their transactions last.
    #[must_use]
    pub fn time_limits(&self) -> TimeLimits {
        self.tenant.borrow().time_limits
    }

    /// How to log in as this tenant.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile.borrow().clone()
    }

    /// Whether the catalog no longer has it.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Notes that the catalog no longer has it. Its servers serve nobody any more, not even a tenant that comes back
    /// under the same name: that one may log in otherwise.
    pub fn set_removed(&self) {
        self.removed.set(true);
        self.renew();
    }

    /// The version of its login.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.get()
    }

    /// Takes over a new configuration. With a new login, servers of the old one are closed when they are released.
    pub fn update(&self, tenant: Arc<Tenant>, profile: Option<Profile>) {
        if tenant.uses_lastval {
            self.functions.reads_sequences.set(true);
        }
        self.replica_reads.set(tenant.replica_reads);
        *self.bounds.borrow_mut() = Rc::new(bounds_of(&tenant));
        let before = self.tenant.replace(tenant);
        self.keep_standing(before.tier);
        if let Some(profile) = profile {
            *self.profile.borrow_mut() = profile;
            self.epoch.set(self.epoch.get().wrapping_add(1));
            *self.greetings.borrow_mut() = Greetings::default();
            *self.base.borrow_mut() = None;
            if let Some(replayed) = &self.replayed {
                // It may be another machine.
                replayed.upto.set(None);
                replayed.seen.set((self.functions.changes().wrapping_sub(1), Moment(0)));
            }
            self.functions.forget();
            self.clear_login_error();
            self.listening.changed();
        }
    }

    /// What the proxy has learnt of its need holds under another configuration too.
    /// One whose tier was written begins in that: it may need it.
    fn keep_standing(&self, before: Tier) {
        let tenant = self.tenant();
        let begins = tenant.tiers.is_some().then(|| Standing::new(before));
        let standing = begins.map(|begins| self.standing.get().unwrap_or(begins));
        self.standing.set(standing);
        if let Some(standing) = standing {
            self.enter_tier(standing.tier());
        }
    }

    /// It has the limits of this tier from now on; `None` if its tier is written.
    pub(super) fn enter_tier(&self, tier: Tier) -> Option<Arc<Tenant>> {
        let now = self.tenant();
        if now.tiers.is_some() && now.tier == tier {
            return Some(now);
        }
        let tenant = Arc::new(now.in_tier(tier)?);
        *self.tenant.borrow_mut() = tenant.clone();
        Some(tenant)
    }

    /// Server logins go by this connector from now on: its certificates and time limits may have changed without the login.
    pub fn connect_by(&self, connector: &Connector) {
        let profile = self.profile.borrow().connecting_by(connector);
        *self.profile.borrow_mut() = profile;
    }

    /// The same, with all that goes into a login.
    pub(super) fn connect_with(&self, profile: Profile) {
        *self.profile.borrow_mut() = profile;
    }

    /// Why a server login failed, if that was this tenant's own fault and none has succeeded since.
    #[must_use]
    pub fn login_error(&self) -> Option<Box<ClientError>> {
        self.login_error.borrow().clone()
    }

    /// Remembers why a server login failed.
    pub fn set_login_error(&self, error: ClientError) {
        *self.login_error.borrow_mut() = Some(Box::new(error));
    }

    /// A server login has succeeded, or the next one will be another: the last failure says nothing any more.
    pub fn clear_login_error(&self) {
        *self.login_error.borrow_mut() = None;
    }

    /// What the tenant's servers report right after login; unknown before the first one.
    #[must_use]
    pub fn base(&self) -> Option<Rc<Params>> {
        self.base.borrow().clone()
    }

    /// Remembers what a server reported right after login. If that is not what the one before it did, the defaults have
    /// changed, and who comes from here on is greeted anew.
    pub fn set_base(&self, params: &Rc<Params>) {
        let before = self.base.replace(Some(params.clone()));
        if before.is_some_and(|before| before != *params) {
            self.greetings.borrow_mut().by_wishes.clear();
        }
    }

    /// The one allocation for this set of reported settings.
    pub fn intern(&self, params: &mut Rc<Params>) {
        self.greetings.borrow_mut().intern(params);
    }

    /// The settings with which a client that asked for these at startup is greeted, if a server has told them before.
    #[must_use]
    pub fn greeting(&self, wishes: &Extras) -> Option<Greeting> {
        self.greetings.borrow().by_wishes.get(wishes).cloned()
    }

    /// Remembers a greeting.
    pub fn remember_greeting(&self, wishes: Extras, greeting: Greeting) {
        let mut greetings = self.greetings.borrow_mut();
        if greetings.by_wishes.len() >= MAX_GREETINGS {
            greetings.by_wishes.clear();
        }
        greetings.by_wishes.insert(wishes, greeting);
    }
}

fn bounds_of(tenant: &Tenant) -> Bounds {
    let schemas = tenant.allowed_schemas.as_ref();
    Bounds { schemas: schemas.map(|schemas| schemas.iter().map(|schema| (**schema).into()).collect()) }
}

/// The settings of a client that has just logged in, and those of them that it asked for.
pub type Greeting = (Settings, Rc<Extras>);

/// What servers of the tenant have told about settings.
#[derive(Debug, Default)]
struct Greetings {
    by_wishes: BTreeMap<Extras, Greeting>,
    params: Vec<Rc<Params>>,
}

impl Greetings {
    fn intern(&mut self, params: &mut Rc<Params>) {
        if let Some(known) =
            self.params.iter().find(|known| Rc::ptr_eq(known, params) || ***known == **params)
        {
            *params = known.clone();
            return;
        }
        if self.params.len() >= MAX_GREETINGS {
            self.params.clear();
        }
        self.params.push(params.clone());
    }
}

/// Distinct sets of startup settings remembered per tenant. Applications have a handful.
const MAX_GREETINGS: usize = 64;
