//! Who is served: tenants, their users, roles, schemas, tiers and limits, and the catalog that holds them all.
//!
//! Owns the values that are *true* after validation. Must not know the file format they came from (`config`), nor
//! sockets, pools or threads.

mod catalog;
pub mod issuer;
mod portion;
mod rate;
mod reads;
mod secret;
mod source;
mod tiering;
mod time_limits;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use catalog::{Catalog, CatalogError};
pub use portion::{Part, Portion};
pub use rate::{Meter, RateLimit, Rates};
pub use reads::{REPLICA_SUFFIX, ReplicaReads, Target};
pub use secret::Secret;
pub use source::TenantSource;
pub use tiering::{Ranks, Standing, Tiering};
pub use time_limits::{TimeLimit, TimeLimits};

use crate::ids::{ClusterId, TenantId};

/// How long a client keeps a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// For one transaction.
    Transaction,
    /// For the whole session.
    Session,
}

/// A replication connection, by what it may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// `replication=true`: the WAL of the cluster, and copies of all its files.
    Physical,
    /// `replication=database`: the changes of one database, and SQL in it.
    Logical,
}

impl Replication {
    /// The value of the startup parameter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "true",
            Self::Logical => "database",
        }
    }
}

/// How warm a tenant is: which share of the budget its tier gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Busy all day (default share 5).
    Hot,
    /// Busy at times (default share 2).
    Warm,
    /// Rarely seen (default share 1).
    Cold,
}

impl Tier {
    /// All tiers, hottest first.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Warm, Self::Cold];

    /// The tier's name in configuration, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// What a tenant may use of its cluster's budget (`docs/budgets.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Allowance {
    /// Servers that are never taken away once open: a hard, bought reservation. Usually 0.
    pub reserve: u32,
    /// Servers the tenant gets before anybody's wish above a floor is looked at.
    pub floor: u32,
    /// Servers the tenant may hold without being the first to give back.
    pub share: u32,
    /// Servers the tenant never exceeds.
    pub ceiling: u32,
    /// Weight among tenants of the same band; by default the share.
    pub weight: u32,
    /// Clients that may wait for a server at the same time.
    pub max_waiters: u32,
}

/// How a client proves who it is.
#[derive(Clone)]
pub enum ClientAuth {
    /// SCRAM-SHA-256 (and -PLUS under TLS) against a stored verifier in PostgreSQL's own format,
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    Scram(Arc<str>),
    /// A client certificate of the listener's CA whose subject common name is this.
    Certificate {
        /// The expected common name.
        common_name: Arc<str>,
    },
    /// A token of the issuer whose user claim is this.
    Token(Arc<str>),
    /// Either: a password against this verifier, or a token whose user claim is that.
    ScramOrToken(Arc<str>, Arc<str>),
}

impl ClientAuth {
    /// The verifier that a password is checked against.
    #[must_use]
    pub fn verifier(&self) -> Option<&str> {
        match self {
            Self::Scram(verifier) | Self::ScramOrToken(verifier, _) => Some(verifier),
            Self::Certificate { .. } | Self::Token(_) => None,
        }
    }

    /// What the user claim of a token must be.
    #[must_use]
    pub fn token_subject(&self) -> Option<&str> {
        match self {
            Self::Token(subject) | Self::ScramOrToken(_, subject) => Some(subject),
            Self::Scram(_) | Self::Certificate { .. } => None,
        }
    }

    /// What the user is asked for, as a stranger sees it. Without its certificate it looks like a user with a password.
    #[must_use]
    pub const fn face(&self) -> AuthFace {
        match self {
            Self::Scram(_) | Self::Certificate { .. } => AuthFace::Scram,
            Self::Token(_) => AuthFace::Token,
            Self::ScramOrToken(..) => AuthFace::Either,
        }
    }
}

/// What a login is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthFace {
    /// A password, by SCRAM.
    #[default]
    Scram,
    /// A token.
    Token,
    /// One of the two, as it likes.
    Either,
}

impl AuthFace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Scram, Self::Token, Self::Either];
}

impl fmt::Debug for ClientAuth {
    /// A verifier is not a password, but whoever has it can try passwords at leisure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scram(_) => f.write_str("Scram(..)"),
            Self::Certificate { common_name } => write!(f, "Certificate({common_name:?})"),
            Self::Token(subject) => write!(f, "Token({subject:?})"),
            Self::ScramOrToken(_, subject) => write!(f, "ScramOrToken(.., {subject:?})"),
        }
    }
}

/// A login name of a tenant.
#[derive(Clone, Debug)]
pub struct User {
    /// The name in the startup packet (before any `.tenant` suffix).
    pub name: Arc<str>,
    /// How it authenticates.
    pub auth: ClientAuth,
    /// Overrides the tenant's mode.
    pub mode: Option<PoolMode>,
}

/// How Tenantry logs in to Postgres as the tenant's role.
#[derive(Clone, Debug)]
pub enum ServerAuth {
    /// A password (SCRAM-SHA-256, SCRAM-SHA-256-PLUS; never sent in clear).
    Password(Secret),
    /// Nothing: Postgres trusts us, or the cluster's client certificate is enough.
    None,
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Number for the life of the process.
    pub id: TenantId,
    /// Name: unique, used in logs and metrics.
    pub name: Arc<str>,
    /// Where its data is.
    pub cluster: ClusterId,
    /// The database on that cluster.
    pub database: Arc<str>,
    /// Further database names that clients may ask for; the tenant's `name` and `database` are always allowed.
    pub database_aliases: Vec<Arc<str>>,
    /// The role Tenantry logs in as. One tenant, one role.
    pub role: Arc<str>,
    /// The pinned search_path, as SQL text (`tenant_acme`, or `tenant_acme, shared`).
    pub search_path: Arc<str>,
    /// Schemas that its clients may name in search_path; `None`: any.
    pub allowed_schemas: Option<Vec<Arc<str>>>,
    /// Its clients ask for `lastval` or `currval` behind writes outside transactions.
    pub uses_lastval: bool,
    /// Its clients may open replication connections, which read more than this tenant's data.
    pub replication: bool,
    /// What goes to replicas of its cluster.
    pub replica_reads: ReplicaReads,
    /// Role settings applied at server login (`statement_timeout = 30s`, ...).
    pub settings: Vec<(Arc<str>, Arc<str>)>,
    /// Its tier.
    pub tier: Tier,
    /// Its part of the budget.
    pub allowance: Allowance,
    /// Transaction or session mode.
    pub mode: PoolMode,
    /// Clients that may be connected at the same time.
    pub max_clients: u32,
    /// Workers that its clients are spread over, at least one.
    pub workers: u32,
    /// How long a client waits for a server before it gets its error.
    pub queue_timeout: Duration,
    /// What it may use in each tier, hot first, if the proxy chooses its tier: it begins with `tier` and `allowance`.
    pub tiers: Option<Arc<[Allowance; 3]>>,
    /// How often its transactions and logins may begin; most tenants have no limit.
    pub rates: Option<Arc<Rates>>,
    /// How long its clients may be silent, and their transactions last.
    pub time_limits: TimeLimits,
    /// Login names, at least one.
    pub users: Vec<User>,
    /// How the proxy logs in.
    pub server_auth: ServerAuth,
}

impl Tenant {
    /// Servers that it never exceeds, whichever tier the proxy chooses.
    #[must_use]
    pub fn highest_ceiling(&self) -> u32 {
        let tiers = self.tiers.iter().flat_map(|tiers| tiers.iter());
        tiers.map(|allowance| allowance.ceiling).fold(self.allowance.ceiling, u32::max)
    }

    /// The same tenant in another tier, if the proxy chooses its tier.
    #[must_use]
    pub fn in_tier(&self, tier: Tier) -> Option<Self> {
        let allowance = *self.tiers.as_ref()?.get(tier as usize)?;
        Some(Self { tier, allowance, ..self.clone() })
    }

    /// The same tenant on a replica of its cluster: the same login, and as much of that budget as it would have at home.
    #[must_use]
    pub fn on_replica(&self, replica: ClusterId) -> Self {
        // What is bought is bought of the primary's servers.
        let lent = |allowance: Allowance| Allowance { reserve: 0, ..allowance };
        let tiers = self.tiers.as_ref().map(|tiers| Arc::new(tiers.map(lent)));
        Self { cluster: replica, allowance: lent(self.allowance), tiers, ..self.clone() }
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| &*user.name == name)
    }

    /// Whether a client may ask for this database.
    #[must_use]
    pub fn allows_database(&self, database: &str) -> bool {
        *self.database == *database
            || *self.name == *database
            || self.database_aliases.iter().any(|alias| **alias == *database)
    }
}
