//! The proxy: front, workers, control and telemetry put together.
//!
//! Owns the life of one instance: start, reload, drain. No process-wide state: two proxies fit in one process.

mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::reload::restart_needed;
use crate::config::settings::{Settings, TlsMode};
use crate::control::{self, BudgetError, Fleet, FleetError, PlanError, Recorder};
use crate::front::{Front, LoginCounters};
use crate::net::Listener;
use crate::net::tls::{ServerTls, TlsError};
use crate::telemetry;

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainKind {
    /// Transactions may take as long as `drain.timeout` (SIGTERM).
    Graceful,
    /// Transactions may take as long as `drain.fast_timeout` (SIGINT).
    Fast,
    /// At once (SIGQUIT).
    Now,
}

/// A running proxy.
pub struct Proxy {
    inner: Arc<Inner>,
    front: Front,
    addresses: Vec<SocketAddr>,
    unix_path: Option<PathBuf>,
    http_address: Option<SocketAddr>,
    accepting: CancellationToken,
    http: CancellationToken,
    tasks: TaskTracker,
}

/// What tasks of the proxy share.
struct Inner {
    settings: Arc<ArcSwap<Settings>>,
    tls: Arc<ArcSwap<Option<ServerTls>>>,
    fleet: Arc<Fleet>,
    recorder: Recorder,
    counters: Arc<LoginCounters>,
    draining: AtomicBool,
    started_unix_ms: u64,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
}

/// Why a proxy does not start, or does not go over to new settings.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address or socket cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// What was tried.
        address: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The listener's certificates cannot be used.
    #[error("listen.tls: {0}")]
    Tls(Box<TlsError>),
    /// A cluster cannot be planned for.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A cluster has no budget.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// No threads.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The system refuses something else.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

impl Proxy {
    /// Starts a proxy: reads budgets, binds, starts threads. Clients are accepted when it returns. Must be called in a
    /// multi-threaded runtime, whose threads become the front threads. Not cancel-safe.
    ///
    /// # Errors
    /// If anything of that fails; nothing is left behind then.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let settings = Arc::new(settings);
        let connectors = control::connectors(&settings)?;
        let budgets = control::budgets(&settings, &connectors).await?;
        let tls = load_tls(&settings)?;
        let (listeners, addresses, unix_path) = bind(&settings)?;
        let http = match settings.http {
            Some(address) => Some(bind_http(address).await?),
            None => None,
        };
        let http_address = http.as_ref().and_then(|listener| listener.local_addr().ok());
        let recorder = Recorder::default();
        let recording = recorder.go_over_to(settings.trace.as_ref());
        let workers = settings.threads.workers.max(1);
        let plans = control::plans(&settings, &connectors, &budgets, workers, recording.as_ref());
        drop(recording);
        let (fleet, notes) = Fleet::start(plans, &budgets, &random_seed()?)?;
        let fleet = Arc::new(fleet);
        tokio::spawn(balance(fleet.clone(), notes));
        for (cluster, budget) in settings.clusters.iter().zip(&budgets) {
            tracing::info!(cluster = %cluster.name, budget, "server connections of the cluster");
        }
        let inner = Arc::new(Inner {
            settings: Arc::new(ArcSwap::new(settings)),
            tls: Arc::new(ArcSwap::new(Arc::new(tls))),
            fleet: fleet.clone(),
            recorder,
            counters: Arc::new(LoginCounters::default()),
            draining: AtomicBool::new(false),
            started_unix_ms: unix_ms(),
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
        });
        let front = Front::new(inner.settings.clone(), inner.tls.clone(), fleet, inner.counters.clone())?;
        let (accepting, http_token, tasks) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        for listener in listeners {
            let (front, accepting) = (front.clone(), accepting.clone());
            tasks.spawn(async move { front.run(listener, accepting).await });
        }
        if let Some(listener) = http {
            let source = Arc::new(report::Reporter::new(inner.clone(), front.clone()));
            let token = http_token.clone();
            tokio::spawn(async move {
                if let Err(error) = telemetry::http::serve(listener, source, token).await {
                    tracing::error!(reason = "http_failed", %error, "metrics and health pages ended");
                }
            });
        }
        Ok(Self { inner, front, addresses, unix_path, http_address, accepting, http: http_token, tasks })
    }

    /// The TCP addresses clients connect to, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The Unix socket clients connect to.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        self.unix_path.as_deref()
    }

    /// Where metrics and health are served.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.inner.settings.load_full()
    }

    /// Everything the proxy has to say at this instant.
    pub async fn report(&self) -> telemetry::ProxyReport {
        report::report(&self.inner, &self.front).await
    }

    /// Goes over to new settings, or to none of them. Clients that are not concerned notice nothing. Returns the keys
    /// that need a restart.
    ///
    /// # Errors
    /// If the new settings cannot be worked by; the old ones stay in force.
    pub async fn reload(&self, settings: Settings) -> Result<Vec<&'static str>, StartError> {
        match self.try_reload(settings).await {
            Ok(restart) => {
                self.inner.reloads_ok.fetch_add(1, Ordering::Relaxed);
                Ok(restart)
            }
            Err(error) => {
                self.note_failed_reload();
                Err(error)
            }
        }
    }

    /// Counts a reload that failed before it came here (the file could not be read).
    pub fn note_failed_reload(&self) {
        self.inner.reloads_failed.fetch_add(1, Ordering::Relaxed);
    }

    async fn try_reload(&self, mut settings: Settings) -> Result<Vec<&'static str>, StartError> {
        let old = self.inner.settings.load_full();
        let restart = restart_needed(&old, &settings);
        // What is fixed at start stays as it is, so that what is shown is what is true.
        settings.listen.addresses = old.listen.addresses.clone();
        settings.listen.unix_socket_dir = old.listen.unix_socket_dir.clone();
        settings.http = old.http;
        settings.threads = old.threads;
        settings.listen.backlog = old.listen.backlog;
        settings.log.format = old.log.format;
        let connectors = control::connectors(&settings)?;
        let budgets = control::budgets(&settings, &connectors).await?;
        let tls = load_tls(&settings)?;
        let settings = Arc::new(settings);
        let recording = self.inner.recorder.go_over_to(settings.trace.as_ref());
        let workers = self.inner.fleet.len();
        let plans = control::plans(&settings, &connectors, &budgets, workers, recording.as_ref());
        drop(recording);
        // Workers first: a client of a new tenant must not come before its worker knows it.
        self.inner.fleet.apply(plans);
        self.inner.fleet.set_budgets(&budgets);
        self.inner.tls.store(Arc::new(tls));
        self.inner.settings.store(settings);
        Ok(restart)
    }

    /// Stops: no new clients, running transactions finish, idle clients are told 57P01, servers are closed. What is
    /// not over at the deadline is cut off. Returns whether everything finished in time.
    pub async fn drain(&self, kind: DrainKind) -> bool {
        self.inner.draining.store(true, Ordering::Release);
        self.accepting.cancel();
        let limits = self.inner.settings.load().drain;
        let patience = match kind {
            DrainKind::Graceful => limits.timeout,
            DrainKind::Fast => limits.fast_timeout,
            DrainKind::Now => Duration::ZERO,
        };
        let in_time = tokio::time::timeout(patience, self.inner.fleet.leave()).await.is_ok();
        if !in_time {
            self.inner.fleet.stop().await;
        }
        // No worker is left, so all that it waits for is the disk.
        let inner = self.inner.clone();
        let finished = tokio::task::spawn_blocking(move || inner.recorder.finish());
        let _ = tokio::time::timeout(LAST_RECORDS, finished).await;
        self.tasks.close();
        let _ = tokio::time::timeout(LAST_LOGINS, self.tasks.wait()).await;
        self.http.cancel();
        in_time
    }
}

impl Drop for Proxy {
    /// A proxy that is dropped without a drain stops accepting; its workers end with the process.
    fn drop(&mut self) {
        self.accepting.cancel();
        self.http.cancel();
    }
}

/// Moves capacity between workers as they need it, and sees how busy they are. Ends with the workers.
async fn balance(fleet: Arc<Fleet>, mut notes: control::Notes) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // With one worker there is nothing to choose.
    let chooses = fleet.len() > 1;
    let mut looked = look.tick().await;
    loop {
        tokio::select! {
            note = notes.recv() => match note {
                Some((worker, note)) => fleet.note(worker, note),
                None => return,
            },
            _ = look.tick(), if chooses => {
                let now = tokio::time::Instant::now();
                fleet.observe(now.duration_since(looked));
                looked = now;
            }
        }
    }
}

fn load_tls(settings: &Settings) -> Result<Option<ServerTls>, StartError> {
    match settings.listen.tls.mode {
        TlsMode::Disable => Ok(None),
        TlsMode::Prefer | TlsMode::Require => {
            let tls =
                ServerTls::load(&settings.listen.tls).map_err(|error| StartError::Tls(Box::new(error)))?;
            Ok(Some(tls))
        }
    }
}

type Bound = (Vec<Listener>, Vec<SocketAddr>, Option<PathBuf>);

fn bind(settings: &Settings) -> Result<Bound, StartError> {
    let listen = &settings.listen;
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in &listen.addresses {
        let listener = Listener::bind_tcp(*address, listen.backlog)
            .map_err(|error| StartError::Listen { address: address.to_string(), error })?;
        addresses.extend(listener.local_addr());
        listeners.push(listener);
    }
    let Some(dir) = &listen.unix_socket_dir else { return Ok((listeners, addresses, None)) };
    let port = addresses.first().map_or(DEFAULT_PORT, SocketAddr::port);
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let listener = Listener::bind_unix(&path, listen.backlog)
        .map_err(|error| StartError::Listen { address: path.display().to_string(), error })?;
    listeners.push(listener);
    Ok((listeners, addresses, Some(path)))
}

async fn bind_http(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| StartError::Listen { address: address.to_string(), error })
}

fn random_seed() -> Result<[u8; 32], std::io::Error> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed)
        .map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    Ok(seed)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How often is looked how busy the workers are.
const LOOK: Duration = Duration::from_secs(1);
const DEFAULT_PORT: u16 = 6432;
/// How long what was recorded last may take to be written.
const LAST_RECORDS: Duration = Duration::from_secs(1);
/// How long logins in progress may take to be told that they come too late.
const LAST_LOGINS: Duration = Duration::from_secs(1);
