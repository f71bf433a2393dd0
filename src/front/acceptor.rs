//! Accepting clients and seeing each login through.
//!
//! Owns the accept loop, the limit on logins in progress, the deadline of each, and what is counted and logged of its
//! end. The stages themselves are `handshake`.

use std::fmt::Display;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::admitted::Reception;
use super::counters::{LoginCounters, LoginResult};
use super::failure::LoginFailure;
use super::handshake::{Accepted, Handshake, Opening, Visit};
use super::limits::{Clients, HalfOpen, HalfOpenGuard};
use crate::auth::refusal::shown;
use crate::auth::scram_server::MockSecret;
use crate::auth::throttle::{Throttle, ThrottlePolicy};
use crate::config::settings::Settings;
use crate::net::tls::ServerTls;
use crate::net::{Listener, Stream};
use crate::time::Moment;

/// Logs clients in. Cloning shares everything.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

/// What all logins share.
pub(super) struct Shared {
    settings: Arc<ArcSwap<Settings>>,
    pub(super) tls: Arc<ArcSwap<Option<ServerTls>>>,
    reception: Arc<dyn Reception>,
    counters: Arc<LoginCounters>,
    pub(super) clients: Clients,
    half_open: HalfOpen,
    next_request_id: AtomicU64,
    pub(super) mock: MockSecret,
    pub(super) throttle: Mutex<Throttle>,
    pub(super) hasher: RandomState,
    origin: Instant,
}

impl Front {
    /// A front that reads `settings` and `tls` anew for each client, so that a reload is a store into them. Must be
    /// called inside a runtime.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn new(
        settings: Arc<ArcSwap<Settings>>,
        tls: Arc<ArcSwap<Option<ServerTls>>>,
        reception: Arc<dyn Reception>,
        counters: Arc<LoginCounters>,
    ) -> io::Result<Self> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self(Arc::new(Shared {
            settings,
            tls,
            reception,
            counters,
            clients: Clients::new(),
            half_open: HalfOpen::default(),
            next_request_id: AtomicU64::new(1),
            mock: MockSecret::new(secret),
            throttle: Mutex::new(Throttle::new(ThrottlePolicy::default())),
            hasher: RandomState::new(),
            origin: Instant::now(),
        })))
    }

    /// Clients that have a place: from the startup packet to the end of the session.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.0.clients.count()
    }

    /// Logins in progress.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.0.half_open.count()
    }

    /// Accepts clients until `shutdown`, then ends the logins in progress (57P03) and returns when all are gone. May run
    /// for several listeners at once; limits hold for all of them together.
    ///
    /// Cancel-safe in the sense that logins in progress go on.
    pub async fn run(&self, listener: Listener, shutdown: CancellationToken) {
        let logins = TaskTracker::new();
        loop {
            let accepted = shutdown.run_until_cancelled(self.accept(&listener)).await;
            match accepted {
                None => break,
                Some(Ok((stream, peer, half_open))) => {
                    logins.spawn(self.0.clone().login(stream, peer, half_open, shutdown.clone()));
                }
                Some(Err(error)) => {
                    warn!(reason = "accept_failed", %error, "cannot accept a client");
                    if !is_about_one_client(&error) {
                        // Out of descriptors or memory: some will come back. Without a pause this would spin.
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        // The socket closes before the wait, so that new clients are refused at once.
        drop(listener);
        logins.close();
        logins.wait().await;
    }

    async fn accept(&self, listener: &Listener) -> io::Result<(Stream, Option<SocketAddr>, HalfOpenGuard)> {
        self.0.half_open.room(|| self.0.settings.load().listen.max_half_open).await;
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, self.0.half_open.enter()))
    }
}

impl Shared {
    /// The time, as the throttle wants it.
    pub(super) fn now(&self) -> Moment {
        Moment::default() + Instant::now().saturating_duration_since(self.origin)
    }

    /// One connection, from accepted to handed over or closed.
    async fn login(
        self: Arc<Self>,
        stream: Stream,
        peer: Option<SocketAddr>,
        half_open: HalfOpenGuard,
        shutdown: CancellationToken,
    ) {
        let settings = self.settings.load_full();
        let request_id = self.next_request_id.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let deadline = now.checked_add(settings.listen.login_timeout).unwrap_or(now);
        let visit = Visit { shared: self.clone(), settings, peer, request_id, deadline };
        let mut client = peer;
        let outcome = timeout_at(deadline, async {
            let handshake = Handshake::new(stream, visit, shutdown).locate().await?;
            client = handshake.visit.peer;
            self.see_through(handshake).await
        });
        let outcome = outcome.await.unwrap_or(Err(LoginFailure::Timeout));
        drop(half_open);
        match outcome {
            Ok(result) => self.counters.count(result),
            Err(failure) => {
                self.counters.count(failure.result());
                log_failure(&failure, request_id, client);
            }
        }
    }

    /// All stages of one login.
    async fn see_through(&self, handshake: Handshake<Accepted>) -> Result<LoginResult, LoginFailure> {
        let login = match handshake.open().await? {
            Opening::Login(login) => login,
            Opening::Cancel(key, connection) => {
                // Closed when the request has been carried out, as Postgres does: a client that waits for that cannot hit
                // its own next query. The deadline of the login bounds it.
                let (done, carried_out) = oneshot::channel();
                self.reception.cancel(key, done);
                let _ = carried_out.await;
                drop(connection);
                return Ok(LoginResult::CancelRequest);
            }
        };
        let client = login.authenticate().await?.admit().await?;
        debug!(
            request_id = client.request_id,
            customer_id = &*client.tenant.name,
            user = &*client.user,
            client = %place(client.peer),
            protocol_minor = client.protocol_minor,
            "client admitted"
        );
        self.reception.admit(client);
        Ok(LoginResult::Ok)
    }
}

/// One line per failed login, with the address of the client as far as it was known then. Those who only connect and leave
/// (health checks, port scans) are not worth one.
fn log_failure(failure: &LoginFailure, request_id: u64, peer: Option<SocketAddr>) {
    let (reason, client) = (failure.reason(), place(peer));
    let user = match failure {
        LoginFailure::Scram { user, .. } | LoginFailure::UnknownDatabase { user, .. } => Some(shown(user)),
        _ => None,
    };
    match failure {
        failure if failure.is_ours() => error!(request_id, reason, %client, user, %failure, "login failed"),
        LoginFailure::Disconnected | LoginFailure::Discovery { .. } => {
            debug!(request_id, reason, %client, "login failed");
        }
        failure => info!(request_id, reason, %client, user, %failure, "login failed"),
    }
}

fn place(peer: Option<SocketAddr>) -> impl Display {
    peer.map_or_else(|| "unix socket".to_owned(), |peer| peer.to_string())
}

/// Errors of `accept` that say nothing about the next one.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
