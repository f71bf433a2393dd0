//! What the file says: one struct per section, every value optional and with its place.
//!
//! Owns the names of the keys and the types of their values, nothing else: defaults, units and sums are `build`'s.
//! Every struct refuses unknown keys. The doc comment of a field is its one-line meaning; `docs/configuration.md`
//! says more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::duration::DurationText;
use super::secret::SecretText;
use super::settings::{Driver, LogFormat, TenantSource, TlsMode, TlsVersion};
use super::source::Span;
use super::values::{Count, OneOrMany, Scalar, SubjectModel};
use crate::tenant::issuer::{Algorithm, TokenAs};
use crate::tenant::{PoolMode, ReplicaReads, Tier, Tiering};

/// A value that may be missing, with its place.
pub(super) type Value<T> = Option<Spanned<T>>;

/// A whole configuration, main file and tenant files together.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) tenants_dir: Value<PathBuf>,
    pub(super) listen: ListenModel,
    pub(super) http: HttpModel,
    pub(super) threads: ThreadsModel,
    pub(super) pool: PoolModel,
    pub(super) login: LoginModel,
    pub(super) jwt: Option<Section<JwtModel>>,
    pub(super) drain: DrainModel,
    pub(super) log: LogModel,
    pub(super) metrics: MetricsModel,
    pub(super) trace: TraceModel,
    pub(super) tiering: TieringModel,
    pub(super) tiers: BTreeMap<Tier, TierModel>,
    pub(super) clusters: Vec<(Spanned<String>, Section<ClusterModel>)>,
    pub(super) tenants: Vec<Section<TenantModel>>,
}

/// A section that was read, perhaps not all of it.
#[derive(Debug)]
pub(super) struct Section<T> {
    pub(super) value: T,
    pub(super) span: Span,
    /// An entry could not be read and was left out (and reported): it is not missing.
    pub(super) damaged: bool,
}

/// `[listen]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenModel {
    pub(super) address: Value<OneOrMany>,
    pub(super) unix_socket_dir: Value<PathBuf>,
    pub(super) proxy_protocol: Value<ProxyProtocolModel>,
    pub(super) tls: Value<TlsModel>,
    pub(super) login_timeout: Value<DurationText>,
    pub(super) max_half_open: Value<u32>,
    pub(super) max_clients: Value<u32>,
    pub(super) backlog: Value<u32>,
}

/// `listen.proxy_protocol`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxyProtocolModel {
    pub(super) trusted: Value<OneOrMany>,
}

/// `listen.tls`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsModel {
    pub(super) mode: Value<TlsModeModel>,
    pub(super) cert: Value<PathBuf>,
    pub(super) key: Value<PathBuf>,
    pub(super) client_ca: Value<PathBuf>,
    pub(super) min_version: Value<TlsVersionModel>,
}

/// `[http]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpModel {
    pub(super) address: Value<HttpAddress>,
    pub(super) token: Value<SecretText>,
}

/// `[threads]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThreadsModel {
    pub(super) front: Value<Count>,
    pub(super) workers: Value<Count>,
    pub(super) driver: Value<DriverModel>,
}

/// `[pool]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolModel {
    pub(super) mode: Value<PoolModeModel>,
    pub(super) queue_timeout: Value<DurationText>,
    pub(super) max_clients_per_tenant: Value<u32>,
    pub(super) connect_timeout: Value<DurationText>,
    pub(super) server_lifetime: Value<DurationText>,
    pub(super) server_idle_timeout: Value<DurationText>,
    pub(super) tcp_keepalive: Value<DurationText>,
    pub(super) tcp_user_timeout: Value<DurationText>,
    pub(super) max_prepared_statements: Value<u32>,
    pub(super) max_client_statements: Value<u32>,
    pub(super) cleanup_timeout: Value<DurationText>,
    pub(super) refuse_hopeless_waits: Value<bool>,
    pub(super) client_idle_timeout: Value<DurationText>,
    pub(super) idle_transaction_timeout: Value<DurationText>,
    pub(super) transaction_timeout: Value<DurationText>,
    pub(super) pin_idle_timeout: Value<DurationText>,
}

/// `[login]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginModel {
    pub(super) tenant_sources: Value<Vec<Spanned<TenantSourceModel>>>,
    pub(super) sni_domain: Value<String>,
}

/// `[jwt]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtModel {
    pub(super) issuer: Value<String>,
    pub(super) audience: Value<OneOrMany>,
    pub(super) keys: Value<PathBuf>,
    pub(super) algorithms: Value<Vec<Spanned<AlgorithmModel>>>,
    pub(super) tenant_claim: Value<String>,
    pub(super) user_claim: Value<String>,
    pub(super) scope: Value<OneOrMany>,
    pub(super) leeway: Value<DurationText>,
    pub(super) token_as: Value<TokenAsModel>,
    pub(super) ends_sessions: Value<bool>,
}

/// `[tiering]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TieringModel {
    pub(super) mode: Value<TieringMode>,
}

/// `[tier.hot]`, `[tier.warm]`, `[tier.cold]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierModel {
    pub(super) floor: Value<u32>,
    pub(super) share: Value<u32>,
    pub(super) ceiling: Value<u32>,
    pub(super) weight: Value<u32>,
    pub(super) max_waiters: Value<u32>,
    pub(super) transactions_per_second: Value<u32>,
    pub(super) transaction_burst: Value<u32>,
    pub(super) transaction_delay: Value<DurationText>,
    pub(super) logins_per_second: Value<u32>,
    pub(super) login_burst: Value<u32>,
    pub(super) login_delay: Value<DurationText>,
    pub(super) client_idle_timeout: Value<DurationText>,
    pub(super) idle_transaction_timeout: Value<DurationText>,
    pub(super) transaction_timeout: Value<DurationText>,
    pub(super) pin_idle_timeout: Value<DurationText>,
}

/// `[cluster.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterModel {
    pub(super) url: Value<String>,
    pub(super) max_connections: Value<Count>,
    pub(super) admin_reserve: Value<u32>,
    pub(super) admin: Value<AdminModel>,
    pub(super) replica_of: Value<String>,
    pub(super) max_lag: Value<DurationText>,
}

/// `cluster.NAME.admin`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminModel {
    pub(super) user: Value<String>,
    pub(super) password: Value<SecretText>,
    pub(super) database: Value<String>,
}

/// `[[tenant]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantModel {
    pub(super) name: Value<String>,
    pub(super) cluster: Value<String>,
    pub(super) database: Value<String>,
    pub(super) database_aliases: Value<Vec<Spanned<String>>>,
    pub(super) schema: Value<String>,
    pub(super) search_path: Value<Vec<Spanned<String>>>,
    pub(super) allowed_schemas: Value<Vec<Spanned<String>>>,
    pub(super) uses_lastval: Value<bool>,
    pub(super) replication: Value<bool>,
    pub(super) replica_reads: Value<ReplicaReadsModel>,
    pub(super) role: Value<String>,
    pub(super) server_auth: Value<ServerAuthModel>,
    pub(super) tier: Value<TierName>,
    pub(super) mode: Value<PoolModeModel>,
    pub(super) workers: Value<u32>,
    pub(super) limits: Value<LimitsModel>,
    pub(super) settings: Value<BTreeMap<Spanned<String>, Spanned<Scalar>>>,
    pub(super) client_auth: Value<ClientAuthModel>,
    pub(super) user: Option<Vec<Spanned<UserModel>>>,
}

/// `tenant.limits`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsModel {
    pub(super) reserve: Value<u32>,
    pub(super) floor: Value<u32>,
    pub(super) share: Value<u32>,
    pub(super) ceiling: Value<u32>,
    pub(super) weight: Value<u32>,
    pub(super) max_waiters: Value<u32>,
    pub(super) max_clients: Value<u32>,
    pub(super) queue_timeout: Value<DurationText>,
    pub(super) transactions_per_second: Value<u32>,
    pub(super) transaction_burst: Value<u32>,
    pub(super) transaction_delay: Value<DurationText>,
    pub(super) logins_per_second: Value<u32>,
    pub(super) login_burst: Value<u32>,
    pub(super) login_delay: Value<DurationText>,
    pub(super) client_idle_timeout: Value<DurationText>,
    pub(super) idle_transaction_timeout: Value<DurationText>,
    pub(super) transaction_timeout: Value<DurationText>,
    pub(super) pin_idle_timeout: Value<DurationText>,
}

/// `[[tenant.user]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserModel {
    pub(super) name: Value<String>,
    pub(super) client_auth: Value<ClientAuthModel>,
    pub(super) mode: Value<PoolModeModel>,
}

/// `[drain]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainModel {
    pub(super) timeout: Value<DurationText>,
    pub(super) fast_timeout: Value<DurationText>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogModel {
    pub(super) format: Value<LogFormatModel>,
    pub(super) filter: Value<String>,
    pub(super) slow_wait: Value<DurationText>,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsModel {
    pub(super) top_tenants: Value<u32>,
}

/// `[trace]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceModel {
    pub(super) file: Value<PathBuf>,
    pub(super) max_megabytes: Value<u32>,
}

/// `client_auth`: `{ scram = ... }`, `{ jwt = ... }`, both of them, or `{ certificate = "common name" }`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientAuthModel {
    /// A verifier (a secret: who has it can check guesses offline).
    pub(super) scram: Value<SecretText>,
    /// Common name of a client certificate.
    pub(super) certificate: Value<String>,
    /// What a token's user claim must be.
    pub(super) jwt: Value<SubjectModel>,
}

/// `server_auth`: `{ password = ... }` or `"none"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ServerAuthModel {
    /// The role's password.
    Password(Spanned<SecretText>),
    /// No password.
    None,
}

/// `http.address`: an address or `"off"`.
#[derive(Clone, Copy, Debug)]
pub(super) enum HttpAddress {
    /// No HTTP.
    Off,
    /// An address.
    At(SocketAddr),
}

impl<'de> Deserialize<'de> for HttpAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                serde::de::Error::custom(format_args!(
                    "`{address}` is not an address and port such as \"127.0.0.1:9127\", nor \"off\""
                ))
            }),
        }
    }
}

/// Declares the words of the file for an enum of the settings.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident for $target:ty { $($variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Deserialize)]
        pub(super) enum $name {
            $(#[serde(rename = $word)] #[doc = concat!("`", $word, "`")] $variant,)*
        }

        impl From<$name> for $target {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant,)* }
            }
        }
    };
}

words! {
    /// `threads.driver`
    DriverModel for Driver { Auto = "auto", Epoll = "epoll", IoUring = "io_uring", }
}
words! {
    /// `listen.tls.mode`
    TlsModeModel for TlsMode { Disable = "disable", Prefer = "prefer", Require = "require", }
}
words! {
    /// `listen.tls.min_version`
    TlsVersionModel for TlsVersion { V1_2 = "1.2", V1_3 = "1.3", }
}
words! {
    /// `pool.mode`
    PoolModeModel for PoolMode { Transaction = "transaction", Session = "session", }
}
words! {
    /// `tenant.replica_reads`
    ReplicaReadsModel for ReplicaReads {
        Never = "never", Sessions = "sessions", Transactions = "transactions", Always = "always",
    }
}
words! {
    /// `tiering.mode`
    TieringMode for Tiering { Demand = "demand", Rank = "rank", Static = "static", }
}
words! {
    /// `login.tenant_sources`
    TenantSourceModel for TenantSource {
        Sni = "sni", Option = "option", UserSuffix = "user_suffix", User = "user", Database = "database",
    }
}
words! {
    /// `jwt.token_as`
    TokenAsModel for TokenAs { OauthBearer = "oauthbearer", Password = "password", }
}
words! {
    /// `jwt.algorithms`: those of key pairs
    AlgorithmModel for Algorithm {
        RS256 = "RS256", RS384 = "RS384", RS512 = "RS512", PS256 = "PS256", PS384 = "PS384", PS512 = "PS512",
        ES256 = "ES256", ES384 = "ES384", EdDSA = "EdDSA",
    }
}
words! {
    /// `log.format`
    LogFormatModel for LogFormat { Json = "json", Text = "text", }
}

/// `tenant.tier`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TierName {
    /// Busy all day.
    Hot,
    /// Busy at times.
    Warm,
    /// Rarely seen.
    Cold,
    /// Chosen by observed use.
    Auto,
}
