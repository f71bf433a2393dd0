//! Parked sessions without sockets: what a worker keeps of a client that has been greeted and says nothing.
//!
//! Owns the process that holds them, this same program called with `--park`. It is put together as a worker is, from the
//! proxy's own parts; only the connections lead nowhere. Each tenant's first session is greeted with Postgres' help.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use anyhow::{Context, Result, bail};
use tenantry::backend::{Connector, Profile};
use tenantry::budget::BudgetConfig;
use tenantry::config::load_text;
use tenantry::ids::WorkerId;
use tenantry::net::Stream;
use tenantry::pool::{Clock, Pool, PoolLimits, TenantState};
use tenantry::session::{Admission, CancelKeys, Floor, Registry, Session, SessionWishes, greet};
use tenantry::tenant::PoolMode;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

use crate::clock::now;
use crate::million;
use crate::output;
use crate::postgres::{PASSWORD, role_verifier};
use crate::procfs;

/// What the process found, for each session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked {
    pub(crate) bytes: f64,
    pub(crate) park_ns: f64,
    pub(crate) wake_ns: f64,
    pub(crate) wave_ns: f64,
}

impl Parked {
    /// Reads what [`run`] has printed.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let value = |name: &str| -> Result<f64> {
            Ok(values.get(name).with_context(|| format!("`{name}` is missing"))?.parse()?)
        };
        Ok(Self {
            bytes: value("bytes")?,
            park_ns: value("park_ns")?,
            wake_ns: value("wake_ns")?,
            wave_ns: value("wave_ns")?,
        })
    }
}

/// The life of the process: parks, looks at its memory, wakes, prints.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [count, port, tenants] = arguments else {
        bail!("--park needs a number, a port and a number of tenants")
    };
    let (count, port, tenants) = (count.parse()?, port.parse()?, tenants.parse()?);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(park(count, port, tenants))
}

async fn park(count: usize, port: u16, tenants: usize) -> Result<()> {
    let (floor, states) = floor(port, tenants)?;
    let pool = floor.pool.clone();
    spawn_local(async move { pool.run().await });
    // The first session of each learns what greets the others.
    for (number, state) in states.iter().enumerate() {
        let first = session(&floor, state, number).await.context("a tenant's first session was refused")?;
        spawn_local(first);
    }
    let before = procfs::memory(std::process::id())?;
    let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
    let polls: Rc<Cell<usize>> = Rc::default();
    let start = now();
    for (number, state) in states.iter().cycle().take(count).enumerate() {
        let session = session(&floor, state, number).await.context("a session was refused")?;
        if number % SAMPLE == 0 {
            spawn_local(Watched {
                session,
                wakers: Rc::clone(&wakers),
                polls: Rc::clone(&polls),
                known: false,
            });
        } else {
            spawn_local(session);
        }
    }
    until(|| polls.get() >= count.div_ceil(SAMPLE)).await;
    let park_ns = start.elapsed().as_nanos() as f64 / count as f64;
    let after = procfs::memory(std::process::id())?;
    let wakers = wakers.take();
    let woken = polls.get();
    let start = now();
    for waker in &wakers {
        let polled = polls.get();
        waker.wake_by_ref();
        until(|| polls.get() > polled).await;
    }
    let wake_ns = start.elapsed().as_nanos() as f64 / wakers.len() as f64;
    let woken_all = woken + wakers.len();
    let start = now();
    wakers.iter().for_each(Waker::wake_by_ref);
    until(|| polls.get() >= woken_all + wakers.len()).await;
    let wave_ns = start.elapsed().as_nanos() as f64 / wakers.len() as f64;
    let bytes = (after.pss as f64 - before.pss as f64) / count as f64;
    output::line(format!("bytes {bytes}\npark_ns {park_ns}\nwake_ns {wake_ns}\nwave_ns {wave_ns}"));
    // The million is not taken apart one by one.
    std::process::exit(0)
}

/// A worker's floor with its tenants.
fn floor(port: u16, tenants: usize) -> Result<(Rc<Floor>, Vec<Rc<TenantState>>)> {
    let verifier = role_verifier()?;
    let mut text = format!(
        "[cluster.main]\nurl = \"postgres://127.0.0.1:{port}/bench?sslmode=disable\"\nmax_connections = {BUDGET}\n"
    );
    for name in (0..tenants).map(million::name) {
        write!(
            text,
            "[[tenant]]\nname = \"{name}\"\ncluster = \"main\"\nrole = \"{name}\"\nschema = \"{name}\"\n\
             limits = {{ share = 1, ceiling = 1, max_clients = 1000000 }}\n\
             client_auth = {{ scram = \"{verifier}\" }}\nserver_auth = {{ password = \"{PASSWORD}\" }}\n"
        )?;
    }
    let settings = load_text(&text, Path::new(""), &|_| None, None)?.settings;
    let cluster = settings.clusters.first().context("the text has a cluster")?;
    let connector = Connector::new(cluster, &settings.servers)?;
    let limits = PoolLimits {
        lifetime: settings.servers.lifetime,
        idle_timeout: settings.servers.idle_timeout,
        cleanup_timeout: settings.servers.cleanup_timeout,
        max_prepared_statements: settings.servers.max_prepared_statements,
    };
    let pool = Pool::new(Clock::start(), limits, vec![BudgetConfig::new(BUDGET)], Box::new(|_| ()));
    let mut states = Vec::new();
    for tenant in settings.catalog.iter() {
        let state = TenantState::new(tenant.clone(), Profile::new(&connector, tenant));
        pool.set_tenant(&state);
        states.push(state);
    }
    let registry = Registry::new(WorkerId(0), CancelKeys::new(&[7; 32]));
    Ok((Rc::new(Floor::new(pool, registry, settings.servers.max_client_statements)), states))
}

async fn session(floor: &Rc<Floor>, state: &Rc<TenantState>, number: usize) -> Option<Session> {
    let wishes = SessionWishes {
        mode: PoolMode::Transaction,
        replication: None,
        target: tenantry::tenant::Target::Primary,
        ends_at: None,
        protocol_minor: 0,
        parameters: Vec::new(),
        unread: Vec::new(),
        unsent: Vec::new(),
    };
    let admission = Admission::new(Rc::clone(floor), Rc::clone(state), number as u64);
    let session = greet(admission, Stream::nowhere(), wishes).await?;
    // As large as a client's place among all clients.
    Some(session.with_place(Box::new([0_u64; 2])))
}

/// A session whose waker is known and whose polls are counted.
struct Watched {
    session: Session,
    wakers: Rc<RefCell<Vec<Waker>>>,
    polls: Rc<Cell<usize>>,
    known: bool,
}

impl Future for Watched {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let watched = self.get_mut();
        if !watched.known {
            watched.known = true;
            watched.wakers.borrow_mut().push(cx.waker().clone());
        }
        watched.polls.set(watched.polls.get() + 1);
        Pin::new(&mut watched.session).poll(cx)
    }
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        yield_now().await;
    }
}

/// One session of so many is watched: its neighbours in memory are not.
const SAMPLE: usize = 100;
const BUDGET: u32 = 50;
