//! From the model to clusters: endpoint, budget, reserve and the admin's login of each.
//!
//! Owns the defaults of a cluster. Whether its budget is enough is `check`'s.

use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::build::Builder;
use super::error::Problem;
use super::model;
use super::names::check_plain_name;
use super::settings::{
    AdminLogin, ChannelBinding, Cluster, Endpoint, Host, MaxConnections, MaxProtocol, ReplicaOf, SslMode,
    TargetSessionAttrs,
};
use super::source::Span;
use super::url::parse_endpoint;
use super::values::Count;
use crate::ids::ClusterId;

/// A cluster and where the file speaks of it.
pub(super) struct BuiltCluster {
    pub(super) cluster: Cluster,
    /// Place of `max_connections`, or of the name.
    pub(super) budget_span: Span,
    /// The name of its primary, if it is a replica.
    pub(super) replica_of: Option<Spanned<String>>,
}

impl Builder<'_> {
    /// `[cluster.NAME]`, numbered in the order given.
    pub(super) fn cluster(
        &mut self,
        index: usize,
        name: &Spanned<String>,
        section: &model::Section<model::ClusterModel>,
    ) -> BuiltCluster {
        self.damaged = section.damaged;
        let model = &section.value;
        let id = ClusterId(u16::try_from(index).unwrap_or(u16::MAX));
        if index >= usize::from(u16::MAX) {
            self.problems.error(Problem::at(name.span(), "too many clusters", "one too many"));
        }
        if let Err(why) = check_plain_name(name.get_ref()) {
            self.problems.error(Problem::at(name.span(), format!("not a name for a cluster: {why}"), ""));
        }
        // The stand-in lets the tenants of this cluster be checked, too.
        let endpoint = self.endpoint(name, model).unwrap_or_else(unknown_endpoint);
        let admin = model.admin.as_ref().and_then(|admin| self.admin(admin, &endpoint));
        let (max_connections, budget_span) = self.max_connections(name, model);
        let admin_reserve =
            model.admin_reserve.as_ref().map_or(DEFAULT_ADMIN_RESERVE, |value| *value.get_ref());
        let name = Arc::from(name.get_ref().as_str());
        if let (Some(of), [_, _, ..]) = (&model.replica_of, &*endpoint.hosts) {
            let problem = Problem::at(of.span(), format!("replica `{name}` is several hosts"), "");
            self.problems
                .error(problem.help("how far one is behind says nothing of another: make a cluster of each"));
        }
        let max_lag = self.positive_duration("max_lag", &model.max_lag, DEFAULT_MAX_LAG_S);
        if let (Some(lag), None) = (&model.max_lag, &model.replica_of) {
            let problem =
                Problem::at(lag.span(), format!("cluster `{name}` is no replica: nothing can be behind"), "");
            self.problems.error(problem.help("`replica_of` names the cluster that it replays"));
        }
        if let Some(lag) = model.max_lag.as_ref().filter(|_| max_lag < LEAST_MAX_LAG && !max_lag.is_zero()) {
            let title = format!("`max_lag` must be at least {}s", LEAST_MAX_LAG.as_secs());
            self.problems.error(Problem::at(lag.span(), title, "it is looked at four times within"));
        }
        // Which number that is comes out when all are there.
        let replica_of = model.replica_of.as_ref().map(|_| ReplicaOf { primary: id, max_lag });
        let cluster = Cluster { id, name, endpoint, max_connections, admin_reserve, admin, replica_of };
        BuiltCluster { cluster, budget_span, replica_of: model.replica_of.clone() }
    }

    /// `cluster.NAME.replica_of`, of all clusters: each is a cluster that is no replica itself.
    pub(super) fn primaries(&mut self, clusters: &mut [BuiltCluster]) {
        let known: Vec<_> = clusters
            .iter()
            .map(|built| (built.cluster.name.clone(), built.cluster.id, built.replica_of.is_some()))
            .collect();
        for built in clusters {
            let (Some(wanted), Some(of)) = (&built.replica_of, &mut built.cluster.replica_of) else {
                continue;
            };
            match known.iter().find(|(name, ..)| **name == **wanted.get_ref()) {
                Some((_, primary, false)) => of.primary = *primary,
                Some((name, _, true)) => {
                    let title = format!("cluster `{name}` is a replica itself");
                    let problem =
                        Problem::at(wanted.span(), title, "").help("name the primary that both replay");
                    self.problems.error(problem);
                }
                None => {
                    let title = format!("there is no cluster `{}`", wanted.get_ref());
                    self.problems.error(Problem::at(wanted.span(), title, "the primary that it replays"));
                }
            }
        }
    }

    /// `cluster.NAME.url`
    fn endpoint(&mut self, name: &Spanned<String>, model: &model::ClusterModel) -> Option<Endpoint> {
        let Some(url) = &model.url else {
            let title = format!("cluster `{}` has no `url`", name.get_ref());
            let problem = Problem::at(name.span(), title, "this cluster")
                .help("write `url = \"postgres://host:5432/database?sslmode=verify-full\"`");
            self.missing(problem);
            return None;
        };
        match parse_endpoint(url.get_ref(), self.world.base) {
            Ok(endpoint) => {
                self.warn_of(url, &endpoint, model.replica_of.is_some());
                Some(endpoint)
            }
            Err(error) => {
                self.problems.error(Problem::at(url.span(), error.to_string(), ""));
                None
            }
        }
    }

    /// A server over the network whose certificate nobody checks could be anybody.
    fn warn_of(&mut self, url: &Spanned<String>, endpoint: &Endpoint, is_replica: bool) {
        let remote = endpoint.hosts.iter().any(|host| match host {
            Host::Tcp { host, .. } => !matches!(&**host, "localhost" | "127.0.0.1" | "::1"),
            Host::Unix { .. } => false,
        });
        if remote && !matches!(endpoint.ssl_mode, SslMode::VerifyCa | SslMode::VerifyFull) {
            let problem = Problem::at(url.span(), "the server's certificate is not verified", "")
                .help("add `sslmode=verify-full` (and `sslrootcert=`) unless the network is private");
            self.problems.warn(problem);
        }
        let is_standby = matches!(
            endpoint.target_session_attrs,
            TargetSessionAttrs::ReadOnly | TargetSessionAttrs::Standby
        );
        if is_standby && !is_replica {
            self.problems.warn(Problem::at(url.span(), "tenants of this cluster cannot write", ""));
        }
    }

    /// `cluster.NAME.max_connections`, and its place or that of the name.
    fn max_connections(
        &mut self,
        name: &Spanned<String>,
        model: &model::ClusterModel,
    ) -> (MaxConnections, Span) {
        let span = model.max_connections.as_ref().map_or_else(|| name.span(), Spanned::span);
        match model.max_connections.as_ref().map(Spanned::get_ref) {
            Some(Count::Fixed(0)) => {
                let problem = Problem::at(span.clone(), "without server connections nobody is served", "0");
                self.problems.error(problem);
                (MaxConnections::Fixed(u32::MAX), span)
            }
            Some(Count::Fixed(number)) => (MaxConnections::Fixed(*number), span),
            Some(Count::Auto) | None => {
                if model.admin.is_none() {
                    let problem = Problem::at(span.clone(), "`max_connections = \"auto\"` needs `admin`", "")
                        .help("add `admin = { user = \"...\" }`, which reads the server's limits, or write a number");
                    self.missing(problem);
                }
                (MaxConnections::Auto, span)
            }
        }
    }

    /// `cluster.NAME.admin`
    fn admin(&mut self, admin: &Spanned<model::AdminModel>, endpoint: &Endpoint) -> Option<AdminLogin> {
        let model = admin.get_ref();
        let Some(user) = &model.user else {
            self.missing(Problem::at(admin.span(), "`admin` has no `user`", ""));
            return None;
        };
        let user = self.name("the role", user);
        let password = model.password.as_ref().and_then(|text| self.world.secret(text, self.problems));
        let database = model.database.as_ref().map(|database| self.name("the database", database));
        let database =
            database.or_else(|| endpoint.database.clone()).unwrap_or_else(|| Arc::from("postgres"));
        Some(AdminLogin { user, password, database })
    }
}

/// What a cluster has whose URL could not be read. Never used: there was an error.
fn unknown_endpoint() -> Endpoint {
    Endpoint {
        hosts: Vec::new(),
        database: Some("unknown".into()),
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: None,
        ssl_identity: None,
        ssl_direct: false,
        target_session_attrs: TargetSessionAttrs::Any,
        channel_binding: ChannelBinding::Prefer,
        max_protocol: MaxProtocol::V3_2,
    }
}

/// How far a replica may be behind that says nothing of it, in seconds.
const DEFAULT_MAX_LAG_S: u64 = 10;
const LEAST_MAX_LAG: Duration = Duration::from_secs(1);
/// Connections left to operators, monitoring and migrations.
const DEFAULT_ADMIN_RESERVE: u32 = 20;
