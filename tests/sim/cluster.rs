//! A fake cluster with fake clients on a virtual clock: logins that take milliseconds (and queue behind each other, as
//! the postmaster forks one after the other), transactions, closings, clients that come back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use tenantry::budget::{BudgetConfig, Condition, OpenFailure};
use tenantry::ids::{RequestId, ServerId, TenantId};
use tenantry::tenant::Allowance;
use tenantry::time::Moment;

use super::rng::Rng;
use super::world::{Note, Outcome, World};

/// Clients of one tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients {
    pub(super) tenant: TenantId,
    pub(super) clients: u32,
    /// Mean time of a transaction.
    pub(super) hold_us: u64,
    /// Mean time between transactions of one client.
    pub(super) think_us: u64,
    pub(super) from_us: u64,
}

/// What a tenant got.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) waits_us: Vec<u64>,
    pub(super) held_us: u64,
    pub(super) lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Client { group: usize },
    Opened(ServerId),
    Release(ServerId),
    Closed(ServerId),
}

/// The cluster, its clients and the scheduler between them.
pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) services: BTreeMap<TenantId, Service>,
    /// Logins fail like this before this time.
    pub(super) failing: Option<(OpenFailure, Moment)>,
    pub(super) measure_from: Moment,
    rng: Rng,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    groups: Vec<Clients>,
    waiting: BTreeMap<RequestId, usize>,
    postmaster_free: u64,
}

impl Cluster {
    pub(super) fn new(config: BudgetConfig, seed: u64) -> Self {
        let mut world = World::new(config);
        world.audit_every = 97;
        Self {
            world,
            services: BTreeMap::new(),
            failing: None,
            measure_from: Moment(0),
            rng: Rng::new(seed),
            events: BinaryHeap::new(),
            sequence: 0,
            groups: Vec::new(),
            waiting: BTreeMap::new(),
            postmaster_free: 0,
        }
    }

    pub(super) fn tenant(&mut self, tenant: u32, allowance: Allowance) -> TenantId {
        self.world.set_tenant(TenantId(tenant), allowance);
        TenantId(tenant)
    }

    pub(super) fn clients(&mut self, clients: Clients) {
        let group = self.groups.len();
        self.groups.push(clients);
        for _ in 0..clients.clients {
            let at = clients.from_us + self.rng.below(clients.think_us.max(20_000));
            self.at(at, Event::Client { group });
        }
    }

    /// Lets everything happen until then.
    pub(super) fn run_until(&mut self, until_us: u64) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > until_us {
                break;
            }
            self.events.pop();
            let notes = self.world.pass_until(Moment(at));
            self.follow(notes);
            self.happen(event);
        }
        let notes = self.world.pass_until(Moment(until_us));
        self.follow(notes);
    }

    /// The wait that this many in a thousand of a tenant's requests do not exceed.
    pub(super) fn wait_us(&self, tenant: TenantId, per_mille: usize) -> u64 {
        let mut waits =
            self.services.get(&tenant).map(|service| service.waits_us.clone()).unwrap_or_default();
        waits.sort_unstable();
        waits.get((waits.len() * per_mille / 1_000).min(waits.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    fn happen(&mut self, event: Event) {
        let notes = match event {
            Event::Client { group } => {
                let tenant = self.groups[group].tenant;
                let (request, notes) = self.world.acquire(tenant, 5_000_000, None);
                self.waiting.insert(request, group);
                notes
            }
            Event::Opened(server) => match self.failing {
                Some((failure, until)) if self.world.now < until => self.world.open_failed(server, failure),
                _ => self.world.opened(server),
            },
            Event::Release(server) => {
                let entry = &self.world.servers[&server];
                let (tenant, since) = (entry.tenant, entry.since.max(self.measure_from));
                let held = self.world.now.micros_since(since);
                self.services.entry(tenant).or_default().held_us += held;
                self.world.release(server, Condition::Clean)
            }
            Event::Closed(server) => self.world.closed(server),
        };
        self.follow(notes);
    }

    fn follow(&mut self, notes: Vec<Note>) {
        let now = self.world.now.0;
        for note in notes {
            match note {
                Note::Opening(server, _) => {
                    self.postmaster_free = self.postmaster_free.max(now) + 500;
                    let at = self.postmaster_free + 3_000 + self.rng.below(3_000);
                    self.at(at, Event::Opened(server));
                }
                Note::Closing(server) => self.at(now + 1_000, Event::Closed(server)),
                Note::Drained(_) | Note::Settled(_) | Note::StandingChanged => {}
                Note::Ended { request, tenant, waited_us, outcome } => {
                    let group = self.waiting.remove(&request).expect("a request belongs to a client");
                    let clients = self.groups[group];
                    let measured = now >= self.measure_from.0;
                    let service = self.services.entry(tenant).or_default();
                    match outcome {
                        Outcome::Granted(server) => {
                            if measured {
                                service.waits_us.push(waited_us);
                            }
                            let hold = 100 + self.rng.exponential(clients.hold_us);
                            self.at(now + hold, Event::Release(server));
                            let think = 1 + self.rng.exponential(clients.think_us);
                            self.at(now + hold + think, Event::Client { group });
                        }
                        Outcome::Rejected(_) => {
                            service.lost += u64::from(measured);
                            let pause = 50_000 + self.rng.below(10_000);
                            self.at(now + pause, Event::Client { group });
                        }
                    }
                }
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }
}
