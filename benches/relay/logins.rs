//! Logins: what a client's login costs the proxy, and what a server's login costs Postgres.
//!
//! Owns the loops. The clients keep their salted key, so that no PBKDF2 of theirs is measured.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::HandshakeKind;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Client, Login};
use crate::clock::now;
use crate::peer::Peer;
use crate::postgres::{Database, PASSWORD, Pool};
use crate::procfs;
use crate::scram::Password;
use crate::shape::Shape;

/// What a run of client logins gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRun {
    pub(crate) per_second: f64,
    /// The proxy's CPU time per login and logout.
    pub(crate) cpu_us: f64,
    /// TLS handshakes that were full ones, of one round trip.
    pub(crate) full: usize,
    /// TLS sessions that were resumed.
    pub(crate) resumed: usize,
}

/// Clients that log in and leave, [`IN_FLIGHT`] at a time.
pub(crate) async fn clients(peer: &Peer, login: Login, count: usize) -> Result<LoginRun> {
    let (login, full, resumed) = (Rc::new(login), Counter::default(), Counter::default());
    let (start, cpu) = (now(), procfs::cpu_ns(peer.pid())?);
    LocalSet::new()
        .run_until(async {
            let mut tasks = JoinSet::new();
            for nonce in 0..count {
                if tasks.len() >= IN_FLIGHT {
                    tasks.join_next().await.context("a login is in flight")???;
                }
                let (login, full, resumed) = (Rc::clone(&login), Rc::clone(&full), Rc::clone(&resumed));
                tasks.spawn_local(async move {
                    let client = Client::login(&login, u64::try_from(nonce)?).await?;
                    match client.handshake() {
                        Some(HandshakeKind::Full) => full.set(full.get() + 1),
                        Some(HandshakeKind::Resumed) => resumed.set(resumed.get() + 1),
                        _ => {}
                    }
                    client.close().await
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            anyhow::Ok(())
        })
        .await?;
    let cpu_ns = procfs::cpu_ns(peer.pid())? - cpu;
    let logins = count as f64;
    Ok(LoginRun {
        per_second: logins / start.elapsed().as_secs_f64(),
        cpu_us: cpu_ns as f64 / 1_000.0 / logins,
        full: full.get(),
        resumed: resumed.get(),
    })
}

/// What a session does at Postgres before it leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Visit {
    /// Log in and leave.
    LoginOnly,
    /// And one `SELECT 1`.
    SelectOne,
    /// And one look into a table by its key, which fills the new session's caches.
    TableRow,
}

impl Visit {
    pub(crate) const ALL: [Self; 3] = [Self::LoginOnly, Self::SelectOne, Self::TableRow];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LoginOnly => "login and leave",
            Self::SelectOne => "login, `SELECT 1`, leave",
            Self::TableRow => "login, one row of a table by its key, leave",
        }
    }

    const fn sql(self) -> Option<&'static str> {
        match self {
            Self::LoginOnly => None,
            Self::SelectOne => Some("SELECT 1"),
            Self::TableRow => Some("SELECT abalance FROM pgbench_accounts WHERE aid = 4711"),
        }
    }
}

/// What a server login costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLoginRun {
    /// CPU time of Postgres per visit.
    pub(crate) cpu_ms: f64,
    /// Time per visit, one after the other.
    pub(crate) wall_ms: f64,
}

/// Sessions at Postgres itself, without a proxy, one after the other.
pub(crate) async fn servers(database: &Database, visit: Visit, count: usize) -> Result<ServerLoginRun> {
    let login = Login {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, database.port())),
        user: Pool::Pooled.name().to_owned(),
        database: "bench".to_owned(),
        password: Password::new(PASSWORD.to_owned()),
        encryption: None,
    };
    let request = visit.sql().map(|sql| Shape::Simple.each(sql)).transpose()?;
    let postmaster = database.pid()?;
    let (start, cpu) = (now(), procfs::cpu_ms_with_children(postmaster)?);
    for nonce in 0..count {
        let mut client = Client::login(&login, u64::try_from(nonce)?).await?;
        if let Some(request) = &request {
            client.exchange(request).await?;
        }
        client.close().await?;
    }
    let wall = start.elapsed();
    // The last sessions must have ended for the postmaster to count them.
    tokio::time::sleep(SETTLE).await;
    let cpu_ms = procfs::cpu_ms_with_children(postmaster)? - cpu;
    let visits = count as f64;
    Ok(ServerLoginRun { cpu_ms: cpu_ms as f64 / visits, wall_ms: wall.as_secs_f64() * 1_000.0 / visits })
}

type Counter = Rc<Cell<usize>>;

const IN_FLIGHT: usize = 16;
const SETTLE: Duration = Duration::from_millis(300);
