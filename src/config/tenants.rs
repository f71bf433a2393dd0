//! From the model to tenants: names, walls, tiers, limits and logins of each tenant by itself.
//!
//! Owns the defaults of a tenant. What tenants must not have in common is `wall`'s, what they need together is
//! `check`'s.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::build::Builder;
use super::check::SERVERS_PER_WORKER;
use super::clusters::BuiltCluster;
use super::duration::DurationText;
use super::error::Problem;
use super::logins::{certificate_span, token_span};
use super::model::{self, PoolModel, TierModel, TierName, Value};
use super::names::{check_name, check_plain_name, search_path};
use super::settings::MaxConnections;
use super::source::Span;
use super::values::Scalar;
use crate::ids::TenantId;
use crate::tenant::{Allowance, PoolMode, RateLimit, Rates, Tenant, Tier, Tiering, TimeLimits};

/// A tenant and where the file speaks of it.
pub(super) struct BuiltTenant {
    pub(super) tenant: Tenant,
    /// Schemas of the search path; the first is the tenant's own.
    pub(super) schemas: Vec<String>,
    pub(super) name_span: Span,
    pub(super) role_span: Span,
    pub(super) schema_span: Span,
    /// A user with a certificate, if there is one.
    pub(super) certificate_span: Option<Span>,
    /// Where a user logs in with a token.
    pub(super) token_span: Option<Span>,
    /// Where it is allowed to replicate.
    pub(super) replication_span: Option<Span>,
}

/// What tenants may use in each tier. Most of them differ in nothing but their names, and share it.
#[derive(Debug, Default)]
pub(super) struct Allowances(HashSet<Arc<[Allowance; 3]>>);

impl Allowances {
    fn shared(&mut self, tiers: [Allowance; 3]) -> Arc<[Allowance; 3]> {
        if let Some(known) = self.0.get(&tiers) {
            return known.clone();
        }
        let new = Arc::new(tiers);
        self.0.insert(new.clone());
        new
    }
}

/// What a tenant takes from the rest of the file.
pub(super) struct Defaults<'a> {
    pub(super) clusters: &'a [BuiltCluster],
    /// Position in `clusters` by name.
    pub(super) cluster_index: HashMap<&'a str, usize>,
    pub(super) tiers: &'a BTreeMap<Tier, TierModel>,
    pub(super) tiering: Tiering,
    pub(super) mode: PoolMode,
    pub(super) queue_timeout: Duration,
    /// Where tiers and tenants say nothing of time limits, `[pool]` does.
    pub(super) pool: &'a PoolModel,
    pub(super) max_clients: u32,
    /// `threads.workers`
    pub(super) threads: usize,
}

impl Builder<'_> {
    /// `[[tenant]]`; `None` if there is too little to go on with.
    pub(super) fn tenant(
        &mut self,
        section: &model::Section<model::TenantModel>,
        defaults: &Defaults<'_>,
    ) -> Option<BuiltTenant> {
        self.damaged = section.damaged;
        let model = &section.value;
        let Some(name) = &model.name else {
            self.missing(Problem::at(section.span.clone(), "a tenant has no `name`", ""));
            return None;
        };
        if let Err(why) = check_plain_name(name.get_ref()) {
            self.problems.error(Problem::at(name.span(), format!("not a name for a tenant: {why}"), ""));
        }
        // All parts are looked at before the first that is missing ends it.
        let cluster = self.cluster_of(name, model, defaults);
        let role = self.role(name, model);
        let schemas = self.schemas(name, model);
        let users = self.users(name, model);
        let chosen = chosen_tier(model, defaults.tiering);
        let built = cluster.zip(role).zip(schemas);
        let ((cluster, (role, role_span)), (schemas, schema_span)) = built?;
        let database = self.database(name, model, cluster)?;
        let queue_timeout = model.limits.as_ref().and_then(|limits| limits.get_ref().queue_timeout.clone());
        let seconds = defaults.queue_timeout;
        let queue_timeout = match queue_timeout {
            Some(written) => self.positive_duration("limits.queue_timeout", &Some(written), 0),
            None => seconds,
        };
        let limits = model.limits.as_ref().map(Spanned::get_ref);
        let max_clients = limits.map(|limits| &limits.max_clients).unwrap_or(&None);
        let max_clients = self.positive("limits.max_clients", max_clients, defaults.max_clients);
        let mut of = |tier: Tier| self.allowance(name, model, tier, defaults, cluster);
        let (tier, allowance, tiers) = match chosen {
            Some(tier) => (tier, of(tier), None),
            None => {
                // Whoever goes from tier to tier is held to what all of them say.
                let all @ [_, _, cold] = Tier::ALL.map(of);
                (Tier::Cold, cold, Some(self.allowances.shared(all)))
            }
        };
        // What has to do with its clients does not change with the tier that the proxy chooses.
        let shape = chosen.and_then(|tier| defaults.tiers.get(&tier));
        let tenant = Tenant {
            id: TenantId(0),
            name: name.get_ref().as_str().into(),
            cluster: cluster.cluster.id,
            database,
            database_aliases: self.aliases(model),
            role,
            search_path: search_path(schemas.iter().map(String::as_str)).into(),
            allowed_schemas: self.allowed_schemas(model, &schemas),
            uses_lastval: model.uses_lastval.as_ref().is_some_and(|uses| *uses.get_ref()),
            replication: model.replication.as_ref().is_some_and(|may| *may.get_ref()),
            replica_reads: model
                .replica_reads
                .as_ref()
                .map(|word| (*word.get_ref()).into())
                .unwrap_or_default(),
            settings: self.settings(model),
            tier,
            allowance,
            mode: model.mode.as_ref().map_or(defaults.mode, |word| (*word.get_ref()).into()),
            max_clients,
            workers: self.workers(name, model, &allowance, defaults.threads),
            tiers,
            queue_timeout,
            time_limits: time_limits(limits, shape, defaults.pool),
            rates: self.rates(limits, shape).map(Arc::new),
            users,
            server_auth: self.server_auth(model),
        };
        let certificate_span = certificate_span(model);
        Some(BuiltTenant {
            tenant,
            schemas,
            name_span: name.span(),
            role_span,
            schema_span,
            certificate_span,
            token_span: token_span(model),
            replication_span: model.replication.as_ref().filter(|may| *may.get_ref()).map(Spanned::span),
        })
    }

    /// The cluster: the one named, or the only one.
    fn cluster_of<'c>(
        &mut self,
        name: &Spanned<String>,
        model: &model::TenantModel,
        defaults: &Defaults<'c>,
    ) -> Option<&'c BuiltCluster> {
        let Some(wanted) = &model.cluster else {
            let mut primaries = defaults.clusters.iter().filter(|built| built.replica_of.is_none());
            if let (Some(only), None) = (primaries.next(), primaries.next()) {
                return Some(only);
            }
            if !defaults.clusters.is_empty() {
                let title = format!("tenant `{}` names no `cluster`, and there are several", name.get_ref());
                self.missing(Problem::at(name.span(), title, "which cluster?"));
            }
            return None;
        };
        let Some(found) = defaults.cluster_index.get(wanted.get_ref().as_str()) else {
            let mut known: Vec<_> = defaults.cluster_index.keys().map(|name| format!("`{name}`")).collect();
            known.sort();
            let problem =
                Problem::at(wanted.span(), format!("there is no cluster `{}`", wanted.get_ref()), "")
                    .help(format!("clusters: {}", known.join(", ")));
            self.problems.error(problem);
            return None;
        };
        let found = defaults.clusters.get(*found)?;
        if let Some(primary) = &found.replica_of {
            let title = format!("`{}` is a replica: tenants belong to its primary", wanted.get_ref());
            let help = format!(
                "write `cluster = \"{}\"`, and `replica_reads` says what goes to replicas",
                primary.get_ref()
            );
            self.problems.error(Problem::at(wanted.span(), title, "").help(help));
        }
        Some(found)
    }

    /// The role and its place.
    fn role(&mut self, tenant: &Spanned<String>, model: &model::TenantModel) -> Option<(Arc<str>, Span)> {
        let Some(role) = &model.role else {
            let title = format!("tenant `{}` has no `role`", tenant.get_ref());
            let problem = Problem::at(tenant.span(), title, "this tenant")
                .help("the role is the wall between tenants: each has one of its own");
            self.missing(problem);
            return None;
        };
        if role.get_ref().starts_with("pg_") {
            let title = format!("`{}` is one of Postgres' own roles", role.get_ref());
            self.problems.error(Problem::at(role.span(), title, "not a tenant's"));
        }
        if role.get_ref() == "postgres" {
            let problem =
                Problem::at(role.span(), "`postgres` is usually a superuser", "no wall holds a superuser")
                    .help("`tenantry tenant sql NAME` prints the SQL for a role of the tenant's own");
            self.problems.warn(problem);
        }
        Some((self.name("the role", role), role.span()))
    }

    /// The schemas of the search path, and their place.
    fn schemas(
        &mut self,
        tenant: &Spanned<String>,
        model: &model::TenantModel,
    ) -> Option<(Vec<String>, Span)> {
        let (list, span) = match (&model.schema, &model.search_path) {
            (Some(schema), None) => (vec![schema.clone()], schema.span()),
            (None, Some(path)) => (path.get_ref().clone(), path.span()),
            (Some(_), Some(path)) => {
                let problem = Problem::at(path.span(), "`schema` and `search_path` exclude each other", "")
                    .help("the first entry of `search_path` is the tenant's own schema");
                self.problems.error(problem);
                return None;
            }
            (None, None) => {
                let title = format!("tenant `{}` has neither `schema` nor `search_path`", tenant.get_ref());
                self.missing(Problem::at(tenant.span(), title, "this tenant"));
                return None;
            }
        };
        if list.is_empty() {
            self.problems.error(Problem::at(span, "the search path is empty", "no schema"));
            return None;
        }
        for (index, schema) in list.iter().enumerate() {
            self.schema(index, schema);
        }
        Some((list.into_iter().map(Spanned::into_inner).collect(), span))
    }

    /// The schemas that clients may name: those of the search path and those that are allowed besides; `None` is all.
    fn allowed_schemas(&mut self, model: &model::TenantModel, path: &[String]) -> Option<Vec<Arc<str>>> {
        let more = model.allowed_schemas.as_ref().map(|list| list.get_ref().as_slice()).unwrap_or_default();
        if more.iter().any(|schema| schema.get_ref() == "*") {
            return None;
        }
        let mut allowed: Vec<Arc<str>> = path.iter().map(|schema| schema.as_str().into()).collect();
        allowed.extend(more.iter().map(|schema| self.name("the schema", schema)));
        Some(allowed)
    }

    /// One schema of a search path.
    fn schema(&mut self, index: usize, schema: &Spanned<String>) {
        let text = schema.get_ref();
        if let Err(why) = check_name(text) {
            self.problems.error(Problem::at(schema.span(), format!("the schema: {why}"), ""));
        } else if text == "$user" {
            let problem = Problem::at(schema.span(), "`$user` is not a schema", "write the schema's name");
            self.problems.error(problem);
        } else if index == 0 && (text.starts_with("pg_") || text == "information_schema") {
            let title = format!("`{text}` is one of Postgres' own schemas");
            self.problems.error(Problem::at(schema.span(), title, "not a tenant's"));
        } else if text.contains(',') {
            let problem = Problem::at(schema.span(), "a schema's name with a comma", "one name?")
                .help("a list is written `search_path = [\"a\", \"b\"]`");
            self.problems.warn(problem);
        }
    }

    /// The database: the one written, or that of the cluster's URL.
    fn database(
        &mut self,
        tenant: &Spanned<String>,
        model: &model::TenantModel,
        cluster: &BuiltCluster,
    ) -> Option<Arc<str>> {
        if let Some(database) = &model.database {
            return Some(self.name("the database", database));
        }
        let database = cluster.cluster.endpoint.database.clone();
        if database.is_none() {
            let title =
                format!("tenant `{}` has no `database`, and the cluster's URL names none", tenant.get_ref());
            self.missing(Problem::at(tenant.span(), title, "this tenant"));
        }
        database
    }

    /// Further database names.
    fn aliases(&mut self, model: &model::TenantModel) -> Vec<Arc<str>> {
        let list = model.database_aliases.as_ref().map(|list| list.get_ref().as_slice()).unwrap_or_default();
        list.iter().map(|alias| self.name("the database alias", alias)).collect()
    }

    /// The tenant's part of the budget: its own limits over those of its tier over the defaults.
    fn allowance(
        &mut self,
        tenant: &Spanned<String>,
        model: &model::TenantModel,
        tier: Tier,
        defaults: &Defaults<'_>,
        cluster: &BuiltCluster,
    ) -> Allowance {
        let own = model.limits.as_ref().map(Spanned::get_ref);
        let shape = defaults.tiers.get(&tier);
        macro_rules! written {
            ($key:ident) => {
                own.and_then(|own| own.$key.clone()).or_else(|| shape.and_then(|shape| shape.$key.clone()))
            };
        }
        let own_reserve = own.and_then(|own| own.reserve.clone());
        let reserve = own_reserve.as_ref().map_or(0, |value| *value.get_ref());
        let share = self.positive("share", &written!(share), default_share(tier));
        let floor: Value<u32> = written!(floor);
        let floor_or_default = floor.as_ref().map_or(DEFAULT_FLOOR, |value| *value.get_ref());
        let (ceiling, ceiling_span) = match written!(ceiling) {
            Some(written) => (self.positive("ceiling", &Some(written.clone()), 1), written.span()),
            None => (default_ceiling(share, cluster).max(floor_or_default).max(reserve), tenant.span()),
        };
        let weight = self.positive("weight", &written!(weight), share);
        let max_waiters = written!(max_waiters).map(Spanned::into_inner);
        for (key, value, written) in [("floor", floor_or_default, &floor), ("reserve", reserve, &own_reserve)]
        {
            if value > ceiling {
                let span = written.as_ref().map_or_else(|| tenant.span(), Spanned::span);
                let title = format!(
                    "the {key} ({value}) of tenant `{}` is above its ceiling ({ceiling})",
                    tenant.get_ref()
                );
                let problem = Problem::at(span, title, format!("{value} servers"));
                self.problems
                    .error(problem.and_at(ceiling_span.clone(), format!("never more than {ceiling}")));
            }
        }
        Allowance {
            reserve,
            floor: floor_or_default.min(ceiling),
            share: share.min(ceiling),
            ceiling,
            weight,
            max_waiters: max_waiters.unwrap_or_else(|| share.saturating_mul(20).max(50)),
        }
    }

    /// How often transactions and logins may begin: the tenant's own limits over those of its tier.
    fn rates(&mut self, own: Option<&model::LimitsModel>, tier: Option<&TierModel>) -> Option<Rates> {
        macro_rules! written {
            ($key:ident) => {
                own.and_then(|own| own.$key.clone()).or_else(|| tier.and_then(|tier| tier.$key.clone()))
            };
        }
        let transactions =
            (written!(transactions_per_second), written!(transaction_burst), written!(transaction_delay));
        let logins = (written!(logins_per_second), written!(login_burst), written!(login_delay));
        let rates = Rates {
            transactions: self.rate(["transactions_per_second", "transaction_burst"], transactions),
            logins: self.rate(["logins_per_second", "login_burst"], logins),
        };
        (rates != Rates::default()).then_some(rates)
    }

    /// A rate, if one is written; 0 a second is none.
    fn rate(
        &mut self,
        [per_second_key, burst_key]: [&str; 2],
        (per_second, burst, delay): (Value<u32>, Value<u32>, Value<DurationText>),
    ) -> Option<RateLimit> {
        if per_second.is_none()
            && let Some(span) =
                burst.as_ref().map(Spanned::span).or_else(|| delay.as_ref().map(Spanned::span))
        {
            let title = format!("without `{per_second_key}` this says nothing");
            self.problems.error(Problem::at(span, title, "of which rate?"));
        }
        let per_second = per_second.map(Spanned::into_inner).filter(|rate| *rate > 0)?;
        let burst = self.positive(burst_key, &burst, per_second);
        let delay = delay.map_or(DEFAULT_DELAY, |delay| delay.get_ref().0);
        let delay_us = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        Some(RateLimit { per_second, burst, delay_us })
    }

    /// Workers that the tenant's clients are spread over. Each has its part of what the tenant may use, and needs enough of
    /// it: a server within the share, and one beside it (for a listener, or a session that keeps one).
    fn workers(
        &mut self,
        tenant: &Spanned<String>,
        model: &model::TenantModel,
        allowance: &Allowance,
        threads: usize,
    ) -> u32 {
        let workers = self.positive("workers", &model.workers, 1);
        let Some(written) = &model.workers else { return workers };
        let needs = [
            ("share", allowance.share, workers),
            ("ceiling", allowance.ceiling, workers.saturating_mul(SERVERS_PER_WORKER)),
        ];
        for (key, value, least) in needs.into_iter().filter(|(_, value, least)| workers > 1 && value < least)
        {
            let title = format!(
                "tenant `{}` on {workers} workers needs a {key} of at least {least}, and has {value}",
                tenant.get_ref()
            );
            let problem = Problem::at(written.span(), title, format!("{workers} workers"))
                .help(format!("raise `{key}` in its `limits`, or have fewer workers"));
            self.problems.error(problem);
        }
        if usize::try_from(workers).unwrap_or(usize::MAX) > threads {
            let title =
                format!("tenant `{}` asks for {workers} workers, and there are {threads}", tenant.get_ref());
            let problem = Problem::at(written.span(), title, format!("{threads} will do"))
                .help("raise `threads.workers`, or have fewer workers here");
            self.problems.warn(problem);
        }
        workers
    }

    /// Settings of the role, applied at each server login.
    fn settings(&mut self, model: &model::TenantModel) -> Vec<(Arc<str>, Arc<str>)> {
        let Some(table) = &model.settings else { return Vec::new() };
        let entries: &BTreeMap<Spanned<String>, Spanned<Scalar>> = table.get_ref();
        let mut settings: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = key.get_ref().to_ascii_lowercase();
            if let Some(why) = refused_setting(&name, &value.get_ref().0) {
                self.problems.error(Problem::at(key.span(), format!("the setting `{name}` {why}"), ""));
            } else if settings.iter().any(|(known, _)| **known == *name) {
                self.problems.error(Problem::at(key.span(), format!("`{name}` is set twice"), "again"));
            }
            settings.push((name.into(), value.get_ref().0.as_str().into()));
        }
        settings
    }
}

/// The tenant's own limits over those of its tier over those of `[pool]`; zero is none.
fn time_limits(own: Option<&model::LimitsModel>, tier: Option<&TierModel>, pool: &PoolModel) -> TimeLimits {
    macro_rules! limit {
        ($key:ident) => {{
            let own = own.and_then(|own| own.$key.as_ref());
            let written = own.or_else(|| tier.and_then(|tier| tier.$key.as_ref())).or(pool.$key.as_ref());
            written.map(|written| written.get_ref().0).filter(|limit| !limit.is_zero())
        }};
    }
    TimeLimits {
        client_idle: limit!(client_idle_timeout),
        idle_transaction: limit!(idle_transaction_timeout),
        transaction: limit!(transaction_timeout),
        pin_idle: limit!(pin_idle_timeout),
    }
}

/// Why a setting cannot be one of a tenant's, if it cannot.
fn refused_setting(name: &str, value: &str) -> Option<&'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    match name {
        "search_path" => Some("is written as the tenant's `schema` or `search_path`"),
        "role" | "session_authorization" => Some("would leave the tenant's role"),
        "client_encoding" => Some("follows each client"),
        _ if name.is_empty() || !name.chars().all(word) => Some("is not the name of a Postgres setting"),
        _ if value.contains(char::is_control) => Some("has a control character in its value"),
        _ => None,
    }
}

/// The tier that is written; `None` if the proxy chooses it.
fn chosen_tier(model: &model::TenantModel, tiering: Tiering) -> Option<Tier> {
    match model.tier.as_ref().map(|tier| *tier.get_ref()) {
        Some(TierName::Hot) => Some(Tier::Hot),
        Some(TierName::Warm) => Some(Tier::Warm),
        Some(TierName::Cold) => Some(Tier::Cold),
        Some(TierName::Auto) | None => (tiering == Tiering::Static).then_some(Tier::Warm),
    }
}

/// The share of a tier that says none.
const fn default_share(tier: Tier) -> u32 {
    match tier {
        Tier::Hot => 5,
        Tier::Warm => 2,
        Tier::Cold => 1,
    }
}

/// The ceiling of a tenant that says none: 20 shares, but not more than half of a budget that is known.
fn default_ceiling(share: u32, cluster: &BuiltCluster) -> u32 {
    let half = match cluster.cluster.max_connections {
        MaxConnections::Fixed(budget) => budget / 2,
        MaxConnections::Auto => u32::MAX,
    };
    share.saturating_mul(20).min(half).max(share).max(DEFAULT_FLOOR)
}

/// Who comes too early by less waits, and does not notice.
const DEFAULT_DELAY: Duration = Duration::from_millis(50);

/// Everybody gets one server before anybody gets a second.
const DEFAULT_FLOOR: u32 = 1;
