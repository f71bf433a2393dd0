//! From the model to settings: defaults, units and ranges of everything but clusters and tenants.
//!
//! Owns every default. Goes on after an error with a stand-in value, so that one run reports all of them; the
//! settings are used only if there was none.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::clusters::BuiltCluster;
use super::duration::DurationText;
use super::error::{Problem, Problems};
use super::model::{self, Value};
use super::names::{MAX_NAME_BYTES, check_name};
use super::secret::World;
use super::settings::{
    Drain, Driver, Listen, ListenTls, Log, LogFormat, MaxConnections, Servers, TenantSource, Threads,
    TlsIdentity, TlsMode, TlsVersion, Trace,
};
use super::tenants::Allowances;
use super::values::{Count, OneOrMany};
use crate::tenant::Secret;

/// Where problems go and where secrets come from.
pub(super) struct Builder<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) problems: &'a mut Problems,
    /// Whether the section at hand was not read completely: then what is missing was perhaps only not readable.
    pub(super) damaged: bool,
    /// What the tenants so far may use.
    pub(super) allowances: Allowances,
}

impl<'a> Builder<'a> {
    /// One that has seen nothing yet.
    pub(super) fn new(world: &'a World<'a>, problems: &'a mut Problems) -> Self {
        Self { world, problems, damaged: false, allowances: Allowances::default() }
    }
}

impl Builder<'_> {
    /// `[listen]`
    pub(super) fn listen(&mut self, model: &model::ListenModel) -> Listen {
        let addresses = match &model.address {
            None => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            Some(value) => self.addresses(value),
        };
        let unix_socket_dir = model.unix_socket_dir.as_ref().map(|dir| self.world.path(dir.get_ref()));
        if addresses.is_empty() && unix_socket_dir.is_none() && self.problems.is_ok() {
            let span = model.address.as_ref().map(Spanned::span).unwrap_or_default();
            let problem = Problem::at(span, "nothing to listen on", "no address, and no `unix_socket_dir`");
            self.problems.error(problem);
        }
        let tls = self.listen_tls(model.tls.as_ref());
        let open = addresses.iter().find(|address| !address.ip().is_loopback());
        if let (Some(open), TlsMode::Disable) = (open, tls.mode) {
            let span = model.address.as_ref().map(Spanned::span).unwrap_or_default();
            let problem = Problem::at(span, format!("`{open}` takes clients without TLS"), "no `listen.tls`")
                .help("set `listen.tls = { cert = \"...\", key = \"...\" }` unless the network is private");
            self.problems.warn(problem);
        }
        Listen {
            addresses,
            unix_socket_dir,
            trusted_proxies: self.trusted_proxies(model.proxy_protocol.as_ref()),
            tls,
            login_timeout: self.positive_duration("listen.login_timeout", &model.login_timeout, 15),
            max_half_open: self.count("listen.max_half_open", &model.max_half_open, 1_000),
            max_clients: self.count("listen.max_clients", &model.max_clients, 10_000),
            backlog: self.positive("listen.backlog", &model.backlog, 4_096),
        }
    }

    /// `http.address`
    pub(super) fn http(&mut self, model: &model::HttpModel) -> Option<SocketAddr> {
        match model.address.as_ref().map(Spanned::get_ref) {
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_HTTP_PORT))),
            Some(model::HttpAddress::Off) => None,
            Some(model::HttpAddress::At(address)) => Some(*address),
        }
    }

    /// `http.token`: as long as what cannot be guessed.
    pub(super) fn http_token(&mut self, model: &model::HttpModel) -> Option<Secret> {
        let written = model.token.as_ref()?;
        let token = self.world.secret(written, self.problems)?;
        if token.expose().len() < MIN_TOKEN_BYTES {
            let title = format!("`http.token` must have at least {MIN_TOKEN_BYTES} characters");
            let problem =
                Problem::at(written.span(), title, "can be guessed").help("`openssl rand -hex 32` makes one");
            self.problems.error(problem);
        }
        Some(token)
    }

    /// `[threads]`, with `auto` for what the machine has.
    pub(super) fn threads(
        &mut self,
        model: &model::ThreadsModel,
        cores: usize,
        clusters: &[BuiltCluster],
    ) -> Threads {
        // Each worker needs two servers of a budget to be of use; a small fixed budget needs few workers.
        let budgets = clusters.iter().filter_map(|built| match built.cluster.max_connections {
            MaxConnections::Fixed(budget) => Some(usize::try_from(budget / 2).unwrap_or(usize::MAX)),
            MaxConnections::Auto => None,
        });
        let workers_auto = budgets.chain([cores / 2, MAX_THREADS]).min().unwrap_or(1).max(1);
        let front_auto = (cores / 4).clamp(1, MAX_THREADS);
        Threads {
            front: self.threads_of("threads.front", &model.front, front_auto),
            workers: self.threads_of("threads.workers", &model.workers, workers_auto),
            driver: model.driver.as_ref().map_or(Driver::Auto, |word| (*word.get_ref()).into()),
        }
    }

    /// `[pool]`, as far as it is the same for all tenants.
    pub(super) fn servers(&mut self, model: &model::PoolModel) -> Servers {
        let keepalive = duration(&model.tcp_keepalive, 60);
        let user_timeout = duration(&model.tcp_user_timeout, 30);
        Servers {
            connect_timeout: self.positive_duration("pool.connect_timeout", &model.connect_timeout, 5),
            lifetime: duration(&model.server_lifetime, 3_600),
            idle_timeout: duration(&model.server_idle_timeout, 600),
            tcp_keepalive: Some(keepalive).filter(|span| !span.is_zero()),
            tcp_user_timeout: Some(user_timeout).filter(|span| !span.is_zero()),
            max_prepared_statements: self.count(
                "pool.max_prepared_statements",
                &model.max_prepared_statements,
                200,
            ),
            max_client_statements: self.count(
                "pool.max_client_statements",
                &model.max_client_statements,
                1_000,
            ),
            cleanup_timeout: self.positive_duration("pool.cleanup_timeout", &model.cleanup_timeout, 5),
            refuses_hopeless_waits: model
                .refuse_hopeless_waits
                .as_ref()
                .is_none_or(|wanted| *wanted.get_ref()),
        }
    }

    /// `[login]`: the sources in their order, and the domain for SNI.
    pub(super) fn login(&mut self, model: &model::LoginModel) -> (Vec<TenantSource>, Option<Arc<str>>) {
        let domain = model.sni_domain.as_ref().and_then(|domain| self.sni_domain(domain));
        let Some(list) = &model.tenant_sources else {
            let sni = domain.is_some().then_some(TenantSource::Sni);
            return (sni.into_iter().chain(DEFAULT_SOURCES).collect(), domain);
        };
        let mut sources = Vec::new();
        for word in list.get_ref() {
            let source = TenantSource::from(*word.get_ref());
            if sources.contains(&source) {
                self.problems.error(Problem::at(word.span(), "this source is named twice", "again"));
            } else if source == TenantSource::Sni && model.sni_domain.is_none() {
                let problem =
                    Problem::at(word.span(), "the source `sni` needs `login.sni_domain`", "which domain?")
                        .help("if clients connect to `acme.db.example.com`, the domain is `db.example.com`");
                self.problems.error(problem);
            }
            sources.push(source);
        }
        if sources.is_empty() {
            let problem = Problem::at(list.span(), "without a source no client can name its tenant", "empty");
            self.problems.error(problem);
        }
        if let (Some(unused), false) = (&model.sni_domain, sources.contains(&TenantSource::Sni)) {
            let title = "`sni_domain` has no effect: `tenant_sources` does not name `sni`";
            self.problems.warn(Problem::at(unused.span(), title, ""));
        }
        (sources, domain)
    }

    /// `[drain]`
    pub(super) fn drain(&mut self, model: &model::DrainModel) -> Drain {
        Drain { timeout: duration(&model.timeout, 30), fast_timeout: duration(&model.fast_timeout, 5) }
    }

    /// `[log]`
    pub(super) fn log(&mut self, model: &model::LogModel) -> Log {
        Log {
            format: model.format.as_ref().map_or(LogFormat::Json, |word| (*word.get_ref()).into()),
            filter: model.filter.as_ref().map_or("info", |filter| filter.get_ref()).to_owned(),
            slow_wait: Some(duration(&model.slow_wait, SLOW_WAIT_S)).filter(|span| !span.is_zero()),
        }
    }

    /// `[trace]`
    pub(super) fn trace(&mut self, model: &model::TraceModel) -> Option<Trace> {
        let megabytes = self.positive("trace.max_megabytes", &model.max_megabytes, TRACE_MEGABYTES);
        let file = self.world.path(model.file.as_ref()?.get_ref());
        Some(Trace { file, max_bytes: u64::from(megabytes).saturating_mul(1_000_000) })
    }

    /// `listen.address`
    fn addresses(&mut self, value: &Spanned<OneOrMany>) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for text in OneOrMany::list(value) {
            match text.get_ref().parse() {
                Ok(address) if addresses.contains(&address) => {
                    self.problems.error(Problem::at(text.span(), "this address is named twice", "again"));
                }
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let title = format!("`{}` is not an address and port", text.get_ref());
                    let problem = Problem::at(text.span(), title, "")
                        .help("write \"0.0.0.0:6432\" or \"[::]:6432\"; names are not resolved");
                    self.problems.error(problem);
                }
            }
        }
        addresses
    }

    /// `listen.tls`
    fn listen_tls(&mut self, value: Option<&Spanned<model::TlsModel>>) -> ListenTls {
        let Some(value) = value else {
            let min_version = TlsVersion::V1_2;
            return ListenTls { mode: TlsMode::Disable, identity: None, client_ca: None, min_version };
        };
        let model = value.get_ref();
        let path = |path: &Value<PathBuf>| path.as_ref().map(|path| self.world.path(path.get_ref()));
        let (cert, key, client_ca) = (path(&model.cert), path(&model.key), path(&model.client_ca));
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsIdentity { cert, key }),
            (None, None) => None,
            _ => {
                let problem = Problem::at(value.span(), "`cert` and `key` come together", "only one of them");
                self.problems.error(problem);
                None
            }
        };
        // A certificate is given in order to be used: the safe mode is the default.
        let mode = model.mode.as_ref().map_or(TlsMode::Require, |word| (*word.get_ref()).into());
        if mode != TlsMode::Disable && identity.is_none() && model.cert.is_none() && model.key.is_none() {
            let problem = Problem::at(value.span(), "TLS needs `cert` and `key`", "")
                .help("`tls = { cert = \"tls.crt\", key = \"tls.key\" }`, or `mode = \"disable\"`");
            self.problems.error(problem);
        }
        let min_version =
            model.min_version.as_ref().map_or(TlsVersion::V1_2, |word| (*word.get_ref()).into());
        ListenTls { mode, identity: identity.filter(|_| mode != TlsMode::Disable), client_ca, min_version }
    }

    /// `login.sni_domain`
    fn sni_domain(&mut self, domain: &Spanned<String>) -> Option<Arc<str>> {
        let text = domain.get_ref().trim_matches('.').to_ascii_lowercase();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= MAX_NAME_BYTES
                && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        };
        if text.split('.').all(label) {
            return Some(text.into());
        }
        let problem = Problem::at(domain.span(), format!("`{}` is not a domain", domain.get_ref()), "")
            .help("if clients connect to `acme.db.example.com`, the domain is `db.example.com`");
        self.problems.error(problem);
        None
    }

    /// A number of threads.
    fn threads_of(&mut self, key: &str, value: &Value<Count>, auto: usize) -> usize {
        match value.as_ref().map(|value| (*value.get_ref(), value.span())) {
            None | Some((Count::Auto, _)) => auto,
            Some((Count::Fixed(number), span)) => {
                let count = usize::try_from(number).unwrap_or(usize::MAX);
                if !(1..=MAX_THREADS).contains(&count) {
                    let title = format!("`{key}` is {number}, but must lie between 1 and {MAX_THREADS}");
                    self.problems.error(Problem::at(span, title, ""));
                }
                count.clamp(1, MAX_THREADS)
            }
        }
    }

    /// Reports that something is not there, unless it may only have been unreadable.
    pub(super) fn missing(&mut self, problem: Problem) {
        if !self.damaged {
            self.problems.error(problem);
        }
    }

    /// A name of a role, schema, database or user.
    pub(super) fn name(&mut self, what: &str, name: &Spanned<String>) -> Arc<str> {
        if let Err(why) = check_name(name.get_ref()) {
            self.problems.error(Problem::at(name.span(), format!("{what}: {why}"), ""));
        }
        name.get_ref().as_str().into()
    }

    /// A number of at least 1.
    pub(super) fn positive(&mut self, key: &str, value: &Value<u32>, default: u32) -> u32 {
        let Some(value) = value else { return default };
        if *value.get_ref() == 0 {
            self.problems.error(Problem::at(value.span(), format!("`{key}` must be at least 1"), ""));
            return default;
        }
        *value.get_ref()
    }

    /// As [`Self::positive`], for sizes.
    fn count(&mut self, key: &str, value: &Value<u32>, default: u32) -> usize {
        usize::try_from(self.positive(key, value, default)).unwrap_or(usize::MAX)
    }

    /// A duration above zero.
    pub(super) fn positive_duration(
        &mut self,
        key: &str,
        value: &Value<DurationText>,
        seconds: u64,
    ) -> Duration {
        let span = duration(value, seconds);
        if let (true, Some(value)) = (span.is_zero(), value) {
            self.problems.error(Problem::at(value.span(), format!("`{key}` must be more than zero"), ""));
        }
        span
    }
}

/// A duration, or so many seconds if it is not written.
fn duration(value: &Value<DurationText>, seconds: u64) -> Duration {
    value.as_ref().map_or(Duration::from_secs(seconds), |value| value.get_ref().0)
}

/// The directory of a file, for relative paths.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

/// A wait that a user notices.
const SLOW_WAIT_S: u64 = 1;

/// Some nine million requests.
const TRACE_MEGABYTES: u32 = 64;

/// PgBouncer's port, which poolers are expected on.
const DEFAULT_PORT: u16 = 6432;

/// A shorter token can be tried out.
const MIN_TOKEN_BYTES: usize = 16;

/// Metrics and health.
const DEFAULT_HTTP_PORT: u16 = 9127;

/// More threads than this are a mistake.
const MAX_THREADS: usize = 256;

/// Sources that need no further setting. A name in the user comes before the database, because applications share
/// database names more often than user names.
const DEFAULT_SOURCES: [TenantSource; 4] =
    [TenantSource::Option, TenantSource::UserSuffix, TenantSource::User, TenantSource::Database];
