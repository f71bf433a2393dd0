//! Where the clients meet: tenants in a Postgres, and the proxy or a peer before it.
//!
//! Owns who is where (sessions, the servers they were seen on) and what a difference means: the end of the test, or a
//! count of a peer's. Must not know statements.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hidden;
use crate::kind::Verdict;
use crate::mess::{FIXTURE, GRANTS};
use crate::peer::{Bouncer, Reset};
use crate::support::{Plan, Stage, Wire};

/// Longer ago than so many sightings, a process id may be another server's.
const MEMORY: u64 = 5_000;

pub(crate) struct Scene {
    // Dropped in this order: the peer before its cluster.
    bouncer: Option<Bouncer>,
    pub(crate) stage: Stage,
    sessions: AtomicU64,
    handovers: AtomicU64,
    sightings: Mutex<Sightings>,
    tally: Mutex<BTreeMap<String, Count>>,
}

/// Which session was seen on which server, and when.
#[derive(Default)]
struct Sightings {
    count: u64,
    servers: HashMap<String, (u64, u64)>,
}

/// How often one kind of state differed, with a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) foreign: u64,
    pub(crate) lost: u64,
}

impl Scene {
    /// With the proxy.
    pub(crate) async fn start(plan: Plan) -> Self {
        let mut stage = Stage::without_proxy(plan).await;
        set_up(&stage).await;
        stage.start_proxy().await;
        Self::of(stage, None)
    }

    /// With PgBouncer.
    pub(crate) async fn with_peer(plan: Plan, reset: Reset) -> Self {
        let stage = Stage::without_proxy(plan).await;
        set_up(&stage).await;
        let bouncer = Bouncer::start(&stage, reset).await;
        Self::of(stage, Some(bouncer))
    }

    fn of(stage: Stage, bouncer: Option<Bouncer>) -> Self {
        Self {
            bouncer,
            stage,
            sessions: AtomicU64::new(0),
            handovers: AtomicU64::new(0),
            sightings: Mutex::default(),
            tally: Mutex::default(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.bouncer.as_ref().map_or_else(|| self.stage.address(), |bouncer| bouncer.address)
    }

    /// A client of the tenant, and the number of its session.
    pub(crate) async fn client(&self, tenant: &str) -> (Wire, u64) {
        let wire = match &self.bouncer {
            None => self.stage.client(tenant).await,
            Some(bouncer) => {
                Wire::connect(bouncer.address).await.logged_in(&bouncer.login(&self.stage, tenant)).await
            }
        };
        (wire, self.sessions.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Hand-overs that were seen: a session on a server where another one was seen last.
    pub(crate) fn handovers(&self) -> u64 {
        self.handovers.load(Ordering::Relaxed)
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(crate) fn see(&self, server: &str, session: u64) {
        let mut sightings = self.sightings.lock().unwrap();
        sightings.count += 1;
        let now = sightings.count;
        let before = sightings.servers.insert(server.to_owned(), (session, now));
        if before.is_some_and(|(other, then)| other != session && now - then < MEMORY) {
            self.handovers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a difference is counted; otherwise it is the end.
    pub(crate) fn is_peer(&self) -> bool {
        self.bouncer.is_some()
    }

    /// Something was not as expected.
    pub(crate) fn differs(&self, kind: &str, verdict: Verdict, story: impl FnOnce() -> String) {
        assert!(self.is_peer(), "{kind}: {verdict:?}: {}", story());
        let mut tally = self.tally.lock().unwrap();
        let count = tally.entry(kind.to_owned()).or_default();
        match verdict {
            Verdict::Right => {}
            Verdict::Lost => count.lost += 1,
            Verdict::Foreign => count.foreign += 1,
        }
    }

    pub(crate) fn tally(&self) -> BTreeMap<String, Count> {
        self.tally.lock().unwrap().clone()
    }
}

async fn set_up(stage: &Stage) {
    for tenant in &stage.plan.tenants {
        let name = &tenant.name;
        let fixture = [FIXTURE, &hidden::fixtures(name), GRANTS].concat();
        stage.postgres.psql_in("app", &fixture.replace("{tenant}", name)).await.unwrap();
        // What the proxy says at login, a peer has from the role.
        let path = format!("ALTER ROLE {} SET search_path = {}", tenant.role(), tenant.schema());
        stage.postgres.psql_in("app", &path).await.unwrap();
    }
}
