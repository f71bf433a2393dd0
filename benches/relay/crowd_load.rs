//! Load of many tenants at once: some ask now and then, some all the time.
//!
//! Owns the clients of one experiment and what became of their requests. Must not know what is compared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::client::Client;
use crate::clock::now;
use crate::output;
use crate::peer::Peer;
use crate::postgres::{DATABASE, Database};
use crate::shape::Shape;

/// Tenants that behave alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) tenants: usize,
    /// Of each tenant.
    pub(crate) clients: usize,
    pub(crate) habit: Habit,
}

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Habit {
    /// It asks for a transaction that takes so long, at these times, as long as the one before has been answered.
    Every { pause_ms: u64, work_ms: u64 },
    /// It asks as soon as it has been answered.
    Always { work_ms: u64 },
}

/// What became of a tenant's requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    /// From the request to its answer, less the work.
    pub(crate) waits_us: Vec<u64>,
    /// Requests that were refused, or whose connection was closed.
    pub(crate) lost: u64,
}

/// What became of an experiment.
pub(crate) struct Outcome {
    pub(crate) quiet: Vec<Fate>,
    pub(crate) noisy_done: u64,
    /// The most that Postgres ever had.
    pub(crate) servers: u64,
    pub(crate) seconds: f64,
    /// Logins to Postgres per second.
    pub(crate) logins: f64,
}

/// What all clients share.
struct Shared {
    /// Those who have logged in ask.
    begins: Cell<bool>,
    counts: Cell<bool>,
    ends: Cell<bool>,
    quiet: RefCell<Vec<Fate>>,
    noisy_done: Cell<u64>,
    /// Clients that have logged in.
    here: Cell<usize>,
    /// Logins under way at once.
    logins: Semaphore,
}

/// Lets both groups ask for so long, behind a time that does not count: the first names are those of the quiet ones.
pub(crate) async fn run(
    database: &Database,
    peer: &Rc<Peer>,
    names: &[String],
    [quiet, noisy]: [Group; 2],
    seconds: u64,
) -> Result<Outcome> {
    let shared = Rc::new(Shared {
        begins: Cell::new(false),
        counts: Cell::new(false),
        ends: Cell::new(false),
        quiet: RefCell::new(vec![Fate::default(); quiet.tenants]),
        noisy_done: Cell::new(0),
        here: Cell::new(0),
        logins: Semaphore::new(LOGINS),
    });
    let local = LocalSet::new();
    let work = async {
        let mut clients = Vec::new();
        for (group, offset, is_quiet) in [(quiet, 0, true), (noisy, quiet.tenants, false)] {
            for tenant in 0..group.tenants {
                let name = names.get(offset + tenant).context("a name for each tenant")?;
                for _ in 0..group.clients {
                    clients.push((name.clone(), tenant, is_quiet, group.habit));
                }
            }
        }
        // A quiet client spreads its requests; all are logged in before anybody asks, if that can be done in time.
        let mut tasks = JoinSet::new();
        let count = clients.len() as u64;
        for (number, (name, tenant, is_quiet, habit)) in (0_u64..).zip(clients) {
            let (shared, peer) = (shared.clone(), peer.clone());
            let ask = Asking { name, tenant, is_quiet, habit, number };
            tasks.spawn_local(async move {
                let client = {
                    let _turn = shared.logins.acquire().await?;
                    log_in(&peer, &ask.name, number).await?
                };
                shared.here.set(shared.here.get() + 1);
                while !shared.begins.get() {
                    sleep(SAMPLE).await;
                }
                ask.all_the_time(client, &peer, &shared).await
            });
        }
        let asked = now();
        while (shared.here.get() as u64) < count && asked.elapsed() < LOGIN_LIMIT {
            sleep(SAMPLE).await;
        }
        let absent = count - shared.here.get() as u64;
        if absent > 0 {
            output::line(format!(
                "fairness: {absent} of {count} clients have not logged in within {LOGIN_LIMIT:?}"
            ));
        }
        shared.begins.set(true);
        sleep(WARM_UP).await;
        shared.counts.set(true);
        let before = database.logins().await?;
        let began = now();
        let mut servers = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            servers = servers.max(database.servers_of("fair").await?);
            sleep(SAMPLE).await;
        }
        shared.counts.set(false);
        shared.ends.set(true);
        let seconds = began.elapsed().as_secs_f64();
        let logins = (database.logins().await? - before) / seconds;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        anyhow::Ok((servers, seconds, logins))
    };
    let (servers, seconds, logins) = local.run_until(work).await?;
    let quiet = std::mem::take(&mut *shared.quiet.borrow_mut());
    Ok(Outcome { quiet, noisy_done: shared.noisy_done.get(), servers, seconds, logins })
}

/// One client.
struct Asking {
    name: String,
    tenant: usize,
    is_quiet: bool,
    habit: Habit,
    number: u64,
}

impl Asking {
    async fn all_the_time(self, mut client: Client, peer: &Peer, shared: &Shared) -> Result<()> {
        let work_ms = match self.habit {
            Habit::Every { work_ms, .. } | Habit::Always { work_ms } => work_ms,
        };
        let sql = match work_ms {
            0 => "SELECT 1".to_owned(),
            ms => format!("SELECT pg_sleep({})", ms as f64 / 1e3),
        };
        let request = Shape::Simple.each(&sql)?;
        let mut pace = match self.habit {
            Habit::Every { pause_ms, .. } => {
                let pause = Duration::from_millis(pause_ms);
                let number = self.number;
                // Everybody at another moment, in no order.
                let first = Instant::now() + pause.mul_f64((number as f64 * GOLDEN).fract());
                let mut pace = interval_at(first, pause);
                // Whoever waits for an answer does not ask meanwhile.
                pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
                Some(pace)
            }
            Habit::Always { .. } => None,
        };
        let mut nonce = self.number + 1_000_000;
        while !shared.ends.get() {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            let (counts, began) = (shared.counts.get(), now());
            let answered = client.exchange(&request).await;
            let waited = began.elapsed().saturating_sub(Duration::from_millis(work_ms));
            if counts && shared.counts.get() {
                self.count(shared, answered.is_ok(), waited);
            }
            if answered.is_err() {
                // What an application does: it connects again, after a moment.
                sleep(RETRY).await;
                nonce += 10_000_000;
                client = log_in(peer, &self.name, nonce).await?;
            }
        }
        Ok(())
    }

    fn count(&self, shared: &Shared, is_ok: bool, waited: Duration) {
        if !self.is_quiet {
            return shared.noisy_done.set(shared.noisy_done.get() + u64::from(is_ok));
        }
        if let Some(fate) = shared.quiet.borrow_mut().get_mut(self.tenant) {
            if is_ok {
                fate.waits_us.push(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            } else {
                fate.lost += 1;
            }
        }
    }
}

/// Logs in; a proxy that has no server for that at present is asked again.
async fn log_in(peer: &Peer, name: &str, nonce: u64) -> Result<Client> {
    let login = peer.login_to(name, DATABASE)?;
    let mut tries = 0;
    loop {
        tries += 1;
        match Client::login(&login, nonce + tries * 100_000_000).await {
            Ok(client) => return Ok(client),
            Err(error) if tries >= TRIES => return Err(error).context("a tenant's client"),
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Multiples of the golden ratio spread evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;
/// Time that does not count.
const WARM_UP: Duration = Duration::from_secs(3);
const SAMPLE: Duration = Duration::from_millis(40);
/// Logins at once, and how long they may take together: who is not there by then counts as not served.
const LOGINS: usize = 32;
const LOGIN_LIMIT: Duration = Duration::from_secs(90);
const RETRY: Duration = Duration::from_millis(100);
const TRIES: u64 = 50;
