//! A front with listeners, tenants and a reception that greets.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tenantry::auth::verifier::Verifier;
use tenantry::config::settings::{
    Drain, Driver, Listen, ListenTls, Log, LogFormat, Servers, Settings, TenantSource, Threads, TlsMode,
    TlsVersion, TrustedProxies,
};
use tenantry::front::{Admitted, Front, LoginCounters, LoginResult, Reception};
use tenantry::ids::{ClusterId, TenantId};
use tenantry::net::Listener;
use tenantry::net::tls::ServerTls;
use tenantry::tenant::{
    Allowance, Catalog, ClientAuth, PoolMode, ServerAuth, Tenant, Tier, Tiering, TimeLimits, User,
};
use tenantry::wire::messages::{
    put_authentication_ok, put_backend_key_data, put_parameter_status, put_ready_for_query,
};
use tenantry::wire::startup::CancelKey;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::raw::Raw;

/// What the reception saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Client(Box<Guest>),
    /// Carried out when the sender is dropped.
    Cancel(CancelKey, oneshot::Sender<()>),
}

/// An admitted client, without its connection.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) tenant: String,
    pub(crate) user: String,
    pub(crate) mode: PoolMode,
    pub(crate) database: String,
    pub(crate) protocol_minor: u32,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) unread: Vec<u8>,
    pub(crate) peer: Option<SocketAddr>,
}

/// Greets clients as a worker would, and keeps them until they leave.
struct Doorman(UnboundedSender<Seen>);

impl Reception for Doorman {
    fn admit(&self, client: Admitted) {
        let Admitted {
            tenant,
            user,
            mode,
            database,
            stream,
            protocol_minor,
            parameters,
            unread,
            unsent,
            peer,
            slot,
            ..
        } = client;
        let guest = Guest {
            tenant: tenant.name.to_string(),
            user: user.to_string(),
            mode,
            database,
            protocol_minor,
            parameters,
            unread,
            peer,
        };
        let seen = self.0.clone();
        tokio::spawn(async move {
            let mut stream = stream.attach().unwrap();
            let mut out = unsent;
            put_authentication_ok(&mut out);
            put_parameter_status(&mut out, "client_encoding", "UTF8");
            put_backend_key_data(&mut out, 1, b"key!");
            put_ready_for_query(&mut out, b'I');
            stream.write_all(&out).await.unwrap();
            seen.send(Seen::Client(Box::new(guest))).unwrap();
            let mut buf = [0; 256];
            while stream.read(&mut buf).await.is_ok_and(|count| count > 0) {}
            drop(slot);
        });
    }

    fn cancel(&self, key: CancelKey, done: oneshot::Sender<()>) {
        self.0.send(Seen::Cancel(key, done)).unwrap();
    }
}

pub(crate) struct Rig {
    pub(crate) front: Front,
    pub(crate) port: u16,
    pub(crate) counters: Arc<LoginCounters>,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) shutdown: CancellationToken,
    seen: UnboundedReceiver<Seen>,
    running: Vec<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// A front without TLS.
    pub(crate) fn plain() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let tls = (settings.listen.tls.mode != TlsMode::Disable)
            .then(|| ServerTls::load(&settings.listen.tls).unwrap());
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let tls = Arc::new(ArcSwap::from_pointee(tls));
        let (sender, seen) = unbounded_channel();
        let counters = Arc::new(LoginCounters::default());
        let front = Front::new(settings.clone(), tls, Arc::new(Doorman(sender)), counters.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tcp = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 64).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let unix = Listener::bind_unix(&dir.path().join(".s.PGSQL.5432"), 64).unwrap();
        let shutdown = CancellationToken::new();
        let running = [tcp, unix].map(|listener| {
            let (front, shutdown) = (front.clone(), shutdown.clone());
            tokio::spawn(async move { front.run(listener, shutdown).await })
        });
        Self { front, port, counters, settings, shutdown, seen, running: running.into(), dir }
    }

    pub(crate) async fn connect(&self) -> Raw<TcpStream> {
        Raw::new(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    pub(crate) async fn connect_unix(&self) -> Raw<UnixStream> {
        Raw::new(UnixStream::connect(self.socket_dir().join(".s.PGSQL.5432")).await.unwrap())
    }

    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The next client that was admitted.
    pub(crate) async fn guest(&mut self) -> Guest {
        match self.next_seen().await {
            Seen::Client(guest) => *guest,
            Seen::Cancel(key, _) => panic!("a cancel request instead of a client: {key:?}"),
        }
    }

    /// The next cancel request, carried out at once.
    pub(crate) async fn cancelled(&mut self) -> CancelKey {
        self.cancelling().await.0
    }

    /// The next cancel request, which is carried out when the sender is dropped.
    pub(crate) async fn cancelling(&mut self) -> (CancelKey, oneshot::Sender<()>) {
        match self.next_seen().await {
            Seen::Cancel(key, done) => (key, done),
            Seen::Client(guest) => panic!("a client instead of a cancel request: {guest:?}"),
        }
    }

    /// Nobody was admitted that the test has not asked for.
    pub(crate) fn expect_nobody(&mut self) {
        assert!(self.seen.try_recv().is_err(), "somebody was admitted");
    }

    /// Waits until that many logins ended like this: the count follows the end of the connection.
    pub(crate) async fn counted(&self, result: LoginResult, count: u64) {
        let all = async {
            while self.counters.of(result) < count {
                tokio::task::yield_now().await;
            }
        };
        let counted = timeout(Duration::from_secs(10), all).await;
        assert!(counted.is_ok(), "{count} times {result:?} in {:?}", self.counters.snapshot());
        assert_eq!(self.counters.of(result), count);
    }

    /// Stops, and waits until every login has ended.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        for running in self.running.drain(..) {
            timeout(Duration::from_secs(10), running).await.expect("it stops").unwrap();
        }
        assert_eq!(self.front.half_open(), 0);
    }

    async fn next_seen(&mut self) -> Seen {
        timeout(Duration::from_secs(10), self.seen.recv()).await.expect("somebody comes").unwrap()
    }
}

pub(crate) const ALL_SOURCES: [TenantSource; 5] = [
    TenantSource::Sni,
    TenantSource::Option,
    TenantSource::UserSuffix,
    TenantSource::User,
    TenantSource::Database,
];

/// Tenants `acme` (users `acme` and `reader`, password `pencil`), `beta` (`beta`, `reader`; password `brush`), `shop`
/// (`shop` and `app`, by certificate `shop`) and `mint` (`mint` by token, `both` by token or the password `pencil`).
fn settings() -> Settings {
    let tls =
        ListenTls { mode: TlsMode::Disable, identity: None, client_ca: None, min_version: TlsVersion::V1_2 };
    let by_certificate = || ClientAuth::Certificate { common_name: "shop".into() };
    let tenants = vec![
        tenant(
            "acme",
            vec![("acme", scram("pencil")), ("reader", scram("pencil")), ("app", scram("pencil"))],
        ),
        tenant("beta", vec![("beta", scram("brush")), ("reader", scram("brush"))]),
        tenant("shop", vec![("shop", by_certificate()), ("app", by_certificate())]),
        tenant("mint", vec![("mint", ClientAuth::Token("mint".into())), ("both", either())]),
    ];
    Settings {
        listen: Listen {
            addresses: Vec::new(),
            unix_socket_dir: None,
            trusted_proxies: TrustedProxies::default(),
            tls,
            login_timeout: Duration::from_secs(30),
            max_half_open: 100,
            max_clients: 100,
            backlog: 64,
        },
        http: None,
        http_token: None,
        threads: Threads { front: 1, workers: 1, driver: Driver::Auto },
        servers: servers(),
        tenant_sources: ALL_SOURCES.to_vec(),
        sni_domain: Some("db.test".into()),
        issuer: None,
        clusters: Vec::new(),
        tiering: Tiering::Static,
        catalog: Arc::new(Catalog::default().next(tenants).unwrap()),
        drain: Drain { timeout: Duration::from_secs(1), fast_timeout: Duration::from_secs(1) },
        log: Log { format: LogFormat::Text, filter: "off".to_owned(), slow_wait: None },
        metrics_top_tenants: 1,
        trace: None,
    }
}

pub(crate) fn servers() -> Servers {
    Servers {
        connect_timeout: Duration::from_secs(1),
        lifetime: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        tcp_keepalive: None,
        tcp_user_timeout: None,
        max_prepared_statements: 1,
        max_client_statements: 1,
        cleanup_timeout: Duration::from_secs(1),
        refuses_hopeless_waits: true,
    }
}

fn scram(password: &str) -> ClientAuth {
    ClientAuth::Scram(verifier(password))
}

fn either() -> ClientAuth {
    ClientAuth::ScramOrToken(verifier("pencil"), "both".into())
}

fn verifier(password: &str) -> Arc<str> {
    let iterations = NonZeroU32::new(4096).unwrap();
    Verifier::from_password(password, b"0123456789abcdef", iterations).to_string().into()
}

fn tenant(name: &str, users: Vec<(&str, ClientAuth)>) -> Tenant {
    let users = users.into_iter().map(|(user, auth)| {
        let mode = (user == "reader").then_some(PoolMode::Session);
        User { name: user.into(), auth, mode }
    });
    Tenant {
        id: TenantId(0),
        name: name.into(),
        cluster: ClusterId(0),
        database: "main".into(),
        database_aliases: vec!["alias".into()],
        role: name.into(),
        search_path: name.into(),
        allowed_schemas: None,
        uses_lastval: false,
        replication: false,
        replica_reads: tenantry::tenant::ReplicaReads::Sessions,
        settings: Vec::new(),
        tier: Tier::Warm,
        allowance: Allowance { reserve: 0, floor: 1, share: 2, ceiling: 4, weight: 2, max_waiters: 100 },
        mode: PoolMode::Transaction,
        max_clients: 100,
        workers: 1,
        queue_timeout: Duration::from_secs(5),
        time_limits: TimeLimits::default(),
        tiers: None,
        rates: None,
        users: users.collect(),
        server_auth: ServerAuth::None,
    }
}
