//! A configuration as a list of keys and values, for comparison.
//!
//! Owns which keys there are and how their values are shown; a secret's never is. What is read from tiers and `[pool]` for
//! each tenant is listed with the tenant, where it has its effect.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::config::{
    Cluster, Driver, Host, LogFormat, MaxConnections, MaxProtocol, Settings, TlsMode, TlsVersion,
};
use crate::tenant::{
    Allowance, ClientAuth, PoolMode, RateLimit, Secret, ServerAuth, Tenant, Tier, TimeLimit,
};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Shown(String),
    Secret(Secret),
}

/// Values by key.
pub(super) type Listing = BTreeMap<String, Value>;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(text) => f.write_str(text),
            Self::Secret(_) => f.write_str("a secret"),
        }
    }
}

/// All but clusters and tenants.
pub(super) fn process(settings: &Settings) -> Listing {
    let mut list = List::default();
    let listen = &settings.listen;
    list.many("listen.address", &listen.addresses);
    list.path("listen.unix_socket_dir", listen.unix_socket_dir.as_deref());
    list.many("listen.proxy_protocol.trusted", &listen.trusted_proxies.0);
    list.time("listen.login_timeout", listen.login_timeout);
    list.put("listen.max_half_open", listen.max_half_open);
    list.put("listen.max_clients", listen.max_clients);
    list.put("listen.backlog", listen.backlog);
    list.put("listen.tls.mode", tls_mode(listen.tls.mode));
    list.path("listen.tls.cert", listen.tls.identity.as_ref().map(|identity| &*identity.cert));
    list.path("listen.tls.key", listen.tls.identity.as_ref().map(|identity| &*identity.key));
    list.path("listen.tls.client_ca", listen.tls.client_ca.as_deref());
    list.put("listen.tls.min_version", tls_version(listen.tls.min_version));
    list.put("http.address", settings.http.map_or_else(|| "off".to_owned(), |address| address.to_string()));
    list.secret("http.token", settings.http_token.as_ref());
    list.put("threads.front", settings.threads.front);
    list.put("threads.workers", settings.threads.workers);
    list.put("threads.driver", driver(settings.threads.driver));
    let sources = settings.tenant_sources.iter().map(|source| word(source, "_"));
    list.many("login.tenant_sources", &sources.collect::<Vec<_>>());
    list.some("login.sni_domain", settings.sni_domain.as_ref());
    list.servers(settings);
    list.issuer(settings);
    list.put("tiering.mode", settings.tiering.as_str());
    list.time("drain.timeout", settings.drain.timeout);
    list.time("drain.fast_timeout", settings.drain.fast_timeout);
    list.put("log.format", log_format(settings.log.format));
    list.put("log.filter", &settings.log.filter);
    list.limit("log.slow_wait", settings.log.slow_wait);
    list.put("metrics.top_tenants", settings.metrics_top_tenants);
    list.path("trace.file", settings.trace.as_ref().map(|trace| &*trace.file));
    let megabytes = settings.trace.as_ref().map(|trace| trace.max_bytes / 1_000_000);
    list.some("trace.max_megabytes", megabytes.as_ref());
    list.0
}

/// One cluster of these settings.
pub(super) fn cluster(settings: &Settings, cluster: &Cluster) -> Listing {
    let mut list = List::default();
    let endpoint = &cluster.endpoint;
    let host = |host: &Host| match host {
        Host::Tcp { host, port } => format!("{host}:{port}"),
        Host::Unix { dir, port } => format!("{}:{port}", dir.display()),
    };
    list.many("url hosts", &endpoint.hosts.iter().map(host).collect::<Vec<_>>());
    list.put("url sslmode", word(&endpoint.ssl_mode, "-"));
    list.path("url sslrootcert", endpoint.ssl_root_cert.as_deref());
    list.path("url sslcert", endpoint.ssl_identity.as_ref().map(|identity| &*identity.cert));
    list.path("url sslkey", endpoint.ssl_identity.as_ref().map(|identity| &*identity.key));
    list.put("url sslnegotiation", if endpoint.ssl_direct { "direct" } else { "postgres" });
    list.put("url target_session_attrs", word(&endpoint.target_session_attrs, "-"));
    list.put("url channel_binding", word(&endpoint.channel_binding, "-"));
    list.put("url max_protocol_version", max_protocol(endpoint.max_protocol));
    let budget = match cluster.max_connections {
        MaxConnections::Auto => "auto".to_owned(),
        MaxConnections::Fixed(number) => number.to_string(),
    };
    list.put("max_connections", budget);
    list.put("admin_reserve", cluster.admin_reserve);
    let primary = cluster.replica_of.and_then(|of| settings.cluster(of.primary));
    list.some("replica_of", primary.map(|primary| &primary.name));
    list.limit("max_lag", cluster.replica_of.map(|of| of.max_lag));
    list.some("admin.user", cluster.admin.as_ref().map(|admin| &admin.user));
    list.some("admin.database", cluster.admin.as_ref().map(|admin| &admin.database));
    list.secret("admin.password", cluster.admin.as_ref().and_then(|admin| admin.password.as_ref()));
    list.0
}

/// One tenant of these settings.
pub(super) fn tenant(settings: &Settings, tenant: &Tenant) -> Listing {
    let mut list = List::default();
    list.some("cluster", settings.cluster(tenant.cluster).map(|cluster| &cluster.name));
    list.put("database", &tenant.database);
    list.many("database_aliases", &tenant.database_aliases);
    list.put("role", &tenant.role);
    list.put("search_path", &tenant.search_path);
    match &tenant.allowed_schemas {
        Some(schemas) => list.many("allowed_schemas", schemas),
        None => list.put("allowed_schemas", "*"),
    }
    list.put("uses_lastval", tenant.uses_lastval);
    list.put("replication", tenant.replication);
    list.put("replica_reads", tenant.replica_reads.as_str());
    for (name, value) in &tenant.settings {
        list.put(&format!("settings.{name}"), value);
    }
    match &tenant.server_auth {
        ServerAuth::Password(password) => list.secret("server_auth", Some(password)),
        ServerAuth::None => list.put("server_auth", "none"),
    }
    list.put("tier", if tenant.tiers.is_some() { "auto" } else { tenant.tier.as_str() });
    list.put("mode", mode(tenant.mode));
    list.put("workers", tenant.workers);
    match &tenant.tiers {
        None => list.allowance("", &tenant.allowance),
        Some(tiers) => {
            for (tier, allowance) in Tier::ALL.into_iter().zip(tiers.iter()) {
                list.allowance(&format!(" as {}", tier.as_str()), allowance);
            }
        }
    }
    list.put("limits.max_clients", tenant.max_clients);
    list.time("limits.queue_timeout", tenant.queue_timeout);
    let rates = tenant.rates.as_deref().copied().unwrap_or_default();
    list.rate("transaction", rates.transactions);
    list.rate("login", rates.logins);
    for limit in TimeLimit::ALL {
        list.limit(&format!("limits.{}", limit.as_str()), tenant.time_limits.of(limit));
    }
    for user in &tenant.users {
        let name = &user.name;
        match &user.auth {
            ClientAuth::Scram(verifier) => list.auth(name, "scram", verifier),
            ClientAuth::Certificate { common_name } => list.auth(name, "certificate", common_name),
            ClientAuth::Token(subject) => list.auth(name, "jwt", subject),
            ClientAuth::ScramOrToken(verifier, subject) => {
                list.auth(name, "scram", verifier);
                list.auth(name, "jwt", subject);
            }
        }
        list.some(&format!("user {name} mode"), user.mode.map(mode).as_ref());
    }
    list.0
}

/// A list that is being made. What is not set is not in it.
#[derive(Default)]
struct List(Listing);

impl List {
    fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.0.insert(key.to_owned(), Value::Shown(value.to_string()));
    }

    fn some(&mut self, key: &str, value: Option<&impl fmt::Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn many(&mut self, key: &str, values: &[impl fmt::Display]) {
        if !values.is_empty() {
            self.put(key, values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        }
    }

    fn path(&mut self, key: &str, path: Option<&Path>) {
        self.some(key, path.map(Path::display).as_ref());
    }

    fn time(&mut self, key: &str, span: Duration) {
        self.put(key, humantime::format_duration(span));
    }

    fn limit(&mut self, key: &str, span: Option<Duration>) {
        if let Some(span) = span.filter(|span| !span.is_zero()) {
            self.time(key, span);
        }
    }

    fn secret(&mut self, key: &str, secret: Option<&Secret>) {
        if let Some(secret) = secret {
            self.0.insert(key.to_owned(), Value::Secret(secret.clone()));
        }
    }

    /// A verifier is treated as a secret, since guesses can be checked with it.
    fn auth(&mut self, user: &str, how: &str, value: &str) {
        let key = format!("client_auth of {user}: {how}");
        if how == "scram" {
            self.secret(&key, Some(&Secret::new(value.to_owned())));
        } else {
            self.put(&key, value);
        }
    }

    fn allowance(&mut self, when: &str, allowance: &Allowance) {
        let Allowance { reserve, floor, share, ceiling, weight, max_waiters } = *allowance;
        let values = [
            ("reserve", reserve),
            ("floor", floor),
            ("share", share),
            ("ceiling", ceiling),
            ("weight", weight),
            ("max_waiters", max_waiters),
        ];
        for (key, value) in values {
            self.put(&format!("limits.{key}{when}"), value);
        }
    }

    fn rate(&mut self, what: &str, limit: Option<RateLimit>) {
        let Some(RateLimit { per_second, burst, delay_us }) = limit else { return };
        self.put(&format!("limits.{what}s_per_second"), per_second);
        self.put(&format!("limits.{what}_burst"), burst);
        self.time(&format!("limits.{what}_delay"), Duration::from_micros(delay_us.into()));
    }

    /// `[pool]`, as far as it is the same for all tenants.
    fn servers(&mut self, settings: &Settings) {
        let servers = &settings.servers;
        self.time("pool.connect_timeout", servers.connect_timeout);
        self.limit("pool.server_lifetime", Some(servers.lifetime));
        self.limit("pool.server_idle_timeout", Some(servers.idle_timeout));
        self.limit("pool.tcp_keepalive", servers.tcp_keepalive);
        self.limit("pool.tcp_user_timeout", servers.tcp_user_timeout);
        self.put("pool.max_prepared_statements", servers.max_prepared_statements);
        self.put("pool.max_client_statements", servers.max_client_statements);
        self.time("pool.cleanup_timeout", servers.cleanup_timeout);
        self.put("pool.refuse_hopeless_waits", servers.refuses_hopeless_waits);
    }

    /// `[jwt]`; keys by their names, since they are read from a file.
    fn issuer(&mut self, settings: &Settings) {
        let Some(issuer) = &settings.issuer else { return };
        self.put("jwt.issuer", &issuer.name);
        self.many("jwt.audience", &issuer.audiences);
        self.many("jwt.scope", &issuer.scopes);
        let algorithms = issuer.algorithms.iter().map(|algorithm| format!("{algorithm:?}"));
        self.many("jwt.algorithms", &algorithms.collect::<Vec<_>>());
        self.put("jwt.keys", format_args!("{:?}", issuer.keys));
        self.put("jwt.tenant_claim", &issuer.tenant_claim);
        self.put("jwt.user_claim", &issuer.user_claim);
        self.time("jwt.leeway", Duration::from_secs(issuer.leeway_s));
        self.put("jwt.token_as", word(&issuer.token_as, ""));
        self.put("jwt.ends_sessions", issuer.ends_sessions);
    }
}

/// The word of the configuration for a variant: `VerifyFull` is `verify-full`.
fn word(variant: &impl fmt::Debug, between: &str) -> String {
    let mut word = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push_str(between);
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

const fn max_protocol(version: MaxProtocol) -> &'static str {
    match version {
        MaxProtocol::V3_0 => "3.0",
        MaxProtocol::V3_2 => "3.2",
    }
}

const fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}

const fn tls_mode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
    }
}

const fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

const fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Auto => "auto",
        Driver::Epoll => "epoll",
        Driver::IoUring => "io_uring",
    }
}

const fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    }
}
