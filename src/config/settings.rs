//! Settings: what is true after the file was read, defaults filled in, secrets resolved and sums checked.
//!
//! Owns the validated values that every other module uses. Must not know TOML.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::ids::ClusterId;
pub use crate::tenant::TenantSource;
use crate::tenant::issuer::Issuer;
use crate::tenant::{Catalog, Secret, Tiering};

/// A whole, valid configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: Listen,
    /// Where metrics and health are served; `None` switches HTTP off.
    pub http: Option<SocketAddr>,
    /// Who shows this may hold tenants up by HTTP; without it nobody may.
    pub http_token: Option<Secret>,
    /// Threads.
    pub threads: Threads,
    /// Server connections.
    pub servers: Servers,
    /// How a client names its tenant, in the order tried.
    pub tenant_sources: Vec<TenantSource>,
    /// The domain under which [`TenantSource::Sni`] looks for tenants: `db.example.com` if clients connect to
    /// `acme.db.example.com`. A server name outside of it names no tenant. `Some` whenever the sources include SNI.
    pub sni_domain: Option<Arc<str>>,
    /// Whose tokens prove a login.
    pub issuer: Option<Arc<Issuer>>,
    /// Clusters; `ClusterId` is the index.
    pub clusters: Vec<Arc<Cluster>>,
    /// How tenants without a written tier get one.
    pub tiering: Tiering,
    /// Tenants.
    pub catalog: Arc<Catalog>,
    /// Stopping.
    pub drain: Drain,
    /// Logs.
    pub log: Log,
    /// Tenants named individually in `/metrics`; the rest is summed up in `_other`.
    pub metrics_top_tenants: usize,
    /// What is recorded of requests, if anything is.
    pub trace: Option<Trace>,
}

impl Settings {
    /// The cluster of that number.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(usize::from(id.0))
    }

    /// The replicas of that cluster, and how far each may be behind.
    pub fn replicas_of(&self, id: ClusterId) -> impl Iterator<Item = (ClusterId, Duration)> {
        let of = move |cluster: &Arc<Cluster>| {
            cluster.replica_of.filter(|of| of.primary == id).map(|of| (cluster.id, of.max_lag))
        };
        self.clusters.iter().filter_map(of)
    }
}

/// Where and how clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// TCP addresses; may be empty if there is a Unix socket.
    pub addresses: Vec<SocketAddr>,
    /// Directory for a Unix socket named `.s.PGSQL.<port of the first address, or 6432>`.
    pub unix_socket_dir: Option<PathBuf>,
    /// Load balancers that say where their clients are.
    pub trusted_proxies: TrustedProxies,
    /// TLS towards clients.
    pub tls: ListenTls,
    /// From accept to authenticated.
    pub login_timeout: Duration,
    /// Logins in progress at the same time; further connections wait in the kernel's backlog.
    pub max_half_open: usize,
    /// Clients in all, authenticated or not.
    pub max_clients: usize,
    /// Kernel backlog.
    pub backlog: u32,
}

/// Networks from which connections begin with a PROXY protocol header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether the address lies in one of the networks. An IPv4 address is the same in an IPv6 one.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// Whether it is offered or demanded.
    pub mode: TlsMode,
    /// PEM certificate chain and key. `Some` unless the mode is `Disable`.
    pub identity: Option<TlsIdentity>,
    /// PEM file of the CA that signs client certificates.
    pub client_ca: Option<PathBuf>,
    /// Oldest version accepted.
    pub min_version: TlsVersion,
}

/// Certificate chain and private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Whether clients must use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never: SSLRequest is answered `N`.
    Disable,
    /// If the client wants it.
    Prefer,
    /// Always on TCP: a login without TLS is refused.
    Require,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// How many threads of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Threads that log clients in.
    pub front: usize,
    /// Threads that own tenants and relay.
    pub workers: usize,
    /// How workers reach the kernel.
    pub driver: Driver,
}

/// How a worker sends what it relays. It waits and reads by epoll in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// As [`Self::IoUring`] where the system allows it, as [`Self::Epoll`] elsewhere.
    Auto,
    /// One system call for each message.
    Epoll,
    /// The messages of a turn together, by io_uring.
    IoUring,
}

/// Limits of server connections, the same for all clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// From connect to ready, one attempt.
    pub connect_timeout: Duration,
    /// A server older than this is closed at its next release. Zero: never.
    pub lifetime: Duration,
    /// A server idle for longer than this is closed. Zero: never.
    pub idle_timeout: Duration,
    /// TCP keepalive idle time; `None` leaves the system's setting.
    pub tcp_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`; `None` leaves the system's setting.
    pub tcp_user_timeout: Option<Duration>,
    /// Prepared statements kept per server; the least recently used one is closed beyond it.
    pub max_prepared_statements: usize,
    /// Named prepared statements one client may hold.
    pub max_client_statements: usize,
    /// Longest wait for a server to come back clean (rollback and reset) or to close.
    pub cleanup_timeout: Duration,
    /// Whether a request is refused at once that would be served behind its deadline only.
    pub refuses_hopeless_waits: bool,
}

/// One Postgres and its budget.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Number: the index in [`Settings::clusters`].
    pub id: ClusterId,
    /// Name in the file.
    pub name: Arc<str>,
    /// Where and how to connect.
    pub endpoint: Endpoint,
    /// Server connections Tenantry may have.
    pub max_connections: MaxConnections,
    /// Connections left to others (operators, monitoring, migrations), subtracted from the server's limit.
    pub admin_reserve: u32,
    /// A login of Tenantry's own for reading limits and verifying walls (`check --live`, `max_connections = "auto"`).
    pub admin: Option<AdminLogin>,
    /// It replays what another cluster writes, and takes reads from it.
    pub replica_of: Option<ReplicaOf>,
}

/// What a replica replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaOf {
    /// The cluster with the primary.
    pub primary: ClusterId,
    /// A replica that is further behind than this is not read from.
    pub max_lag: Duration,
}

/// The budget's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxConnections {
    /// `max_connections − superuser_reserved_connections − reserved_connections − admin_reserve`, asked of the server.
    Auto,
    /// At most this many.
    Fixed(u32),
}

/// A role that may read server settings.
#[derive(Clone, Debug)]
pub struct AdminLogin {
    /// Role.
    pub user: Arc<str>,
    /// Password, if the server wants one.
    pub password: Option<Secret>,
    /// Database to connect to.
    pub database: Arc<str>,
}

/// Hosts and transport of a cluster, from its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Hosts in the order tried, at least one.
    pub hosts: Vec<Host>,
    /// The database named in the URL: the default for tenants that name none.
    pub database: Option<Arc<str>>,
    /// TLS towards the server, as libpq's sslmode.
    pub ssl_mode: SslMode,
    /// CA file (`sslrootcert`); `None` with verify-ca or verify-full means the system's store.
    pub ssl_root_cert: Option<PathBuf>,
    /// Client certificate (`sslcert` and `sslkey`).
    pub ssl_identity: Option<TlsIdentity>,
    /// Whether to start TLS without SSLRequest (`sslnegotiation=direct`).
    pub ssl_direct: bool,
    /// Which server is wanted.
    pub target_session_attrs: TargetSessionAttrs,
    /// Whether SCRAM must bind to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// The newest version of the protocol asked for.
    pub max_protocol: MaxProtocol,
}

/// One host of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Name or address, and port.
    Tcp {
        /// DNS name or IP address.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// Directory of a Unix socket, and port.
    Unix {
        /// Directory.
        dir: PathBuf,
        /// Port.
        port: u16,
    },
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// Plain first, TLS if the server refuses that.
    Allow,
    /// TLS if the server offers it.
    Prefer,
    /// TLS, certificate not checked.
    Require,
    /// TLS, certificate of a known CA.
    VerifyCa,
    /// TLS, certificate of a known CA for this host name.
    VerifyFull,
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// The first that accepts.
    Any,
    /// Sessions may write.
    ReadWrite,
    /// Sessions may not write.
    ReadOnly,
    /// Not in hot standby.
    Primary,
    /// In hot standby.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Always.
    Require,
}

/// libpq's `max_protocol_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxProtocol {
    /// 3.0: for servers and poolers that end the connection instead of negotiating.
    V3_0,
    /// 3.2, with long cancel keys from PostgreSQL 18 on; older servers negotiate 3.0.
    V3_2,
}

/// Stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// After SIGTERM: running transactions may take this long.
    pub timeout: Duration,
    /// After SIGINT.
    pub fast_timeout: Duration,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines of JSON, or text.
    pub format: LogFormat,
    /// A filter in `tracing`'s syntax, e.g. `info` or `tenantry=debug`.
    pub filter: String,
    /// Waits for a server from this length on get a line each; `None` is none.
    pub slow_wait: Option<Duration>,
}

/// A recording of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Where it is written.
    pub file: PathBuf,
    /// Where it ends, at the latest.
    pub max_bytes: u64,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}
