//! What tenants must not have in common: names, roles and schemas.
//!
//! Owns the comparisons across tenants, each linear in their number. The wall between tenants is the role; a
//! configuration that gives two tenants one role has no wall.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::clusters::BuiltCluster;
use super::error::{Problem, Problems};
use super::settings::{Listen, ListenTls, TenantSource, TlsMode};
use super::source::Span;
use super::tenants::BuiltTenant;
use crate::ids::ClusterId;

/// Reports everything that two tenants must not share.
pub(super) fn check(tenants: &[BuiltTenant], clusters: &[BuiltCluster], problems: &mut Problems) {
    names(tenants, problems);
    roles(tenants, clusters, problems);
    schemas(tenants, problems);
    replication(tenants, problems);
}

/// Reports client certificates that no listener asks for.
pub(super) fn certificates(tenants: &[BuiltTenant], tls: &ListenTls, problems: &mut Problems) {
    if tls.client_ca.is_some() && tls.mode != TlsMode::Disable {
        return;
    }
    if let Some(span) = tenants.iter().find_map(|tenant| tenant.certificate_span.clone()) {
        let problem = Problem::at(
            span,
            "client certificates need `listen.tls.client_ca`",
            "this login could never succeed",
        );
        problems.error(problem);
    }
}

/// Reports logins by token that could never succeed: nobody issues one, or it could not travel in secret.
pub(super) fn tokens(tenants: &[BuiltTenant], has_issuer: bool, listen: &Listen, problems: &mut Problems) {
    let Some(span) = tenants.iter().find_map(|tenant| tenant.token_span.clone()) else { return };
    if !has_issuer {
        let problem = Problem::at(span.clone(), "tokens need `[jwt]`", "this login could never succeed");
        problems.error(
            problem.help("`[jwt]` names the issuer of tokens, their audience and the file of its keys"),
        );
    }
    if listen.tls.mode == TlsMode::Disable && listen.unix_socket_dir.is_none() {
        let problem = Problem::at(span, "tokens need `listen.tls`", "this login could never succeed");
        problems.error(problem.help("who can read a token can use it: none is asked for without TLS"));
    }
}

/// Warns of names that a client could mean in two ways: then its login is refused.
pub(super) fn ambiguities(tenants: &[BuiltTenant], sources: &[TenantSource], problems: &mut Problems) {
    let names: HashMap<&str, &Span> =
        tenants.iter().map(|built| (&*built.tenant.name, &built.name_span)).collect();
    let mut warned: HashSet<(&str, String)> = HashSet::new();
    let mut warn = |built: &BuiltTenant, what: &'static str, name: &str| {
        if *built.tenant.name == *name {
            return;
        }
        // Many tenants have the same user or database: the first stands for all.
        let Some(other) = names.get(name).filter(|_| warned.insert((what, name.to_owned()))) else { return };
        let title =
            format!("the {what} `{name}` of tenant `{}` is also the name of a tenant", built.tenant.name);
        let problem = Problem::at(built.name_span.clone(), title, "clients of this tenant")
            .and_at((*other).clone(), "may be taken for this one's, and refused")
            .help("rename one of them, or take the source out of `login.tenant_sources`");
        problems.warn(problem);
    };
    for built in tenants {
        if sources.contains(&TenantSource::User) {
            built.tenant.users.iter().for_each(|user| warn(built, "user", &user.name));
        }
        if sources.contains(&TenantSource::Database) {
            let aliases = built.tenant.database_aliases.iter();
            aliases.chain([&built.tenant.database]).for_each(|database| warn(built, "database", database));
        }
    }
}

/// Warns of tenants that cannot be found by host name, which has no upper case.
pub(super) fn host_names(tenants: &[BuiltTenant], sources: &[TenantSource], problems: &mut Problems) {
    let upper = |built: &&BuiltTenant| built.tenant.name.contains(|c: char| c.is_ascii_uppercase());
    if !sources.contains(&TenantSource::Sni) {
        return;
    }
    for built in tenants.iter().filter(upper) {
        let title = format!("no host name leads to tenant `{}`", built.tenant.name);
        problems.warn(Problem::at(built.name_span.clone(), title, "host names are compared in lower case"));
    }
}

/// Warns of tenants that may read the WAL of a cluster that is not theirs alone.
fn replication(tenants: &[BuiltTenant], problems: &mut Problems) {
    let mut sizes: HashMap<ClusterId, usize> = HashMap::new();
    for built in tenants {
        let size = sizes.entry(built.tenant.cluster).or_default();
        *size = size.saturating_add(1);
    }
    for built in tenants {
        let Some(span) = &built.replication_span else { continue };
        if sizes.get(&built.tenant.cluster).is_some_and(|size| *size > 1) {
            let title =
                format!("tenant `{}` may read the data of all tenants of its cluster", built.tenant.name);
            let problem = Problem::at(span.clone(), title, "no wall holds a replication connection")
                .help("a tenant that replicates belongs on a cluster of its own");
            problems.warn(problem);
        }
    }
}

/// Tenants' names are different, and not only in the case of letters (host names have none).
fn names(tenants: &[BuiltTenant], problems: &mut Problems) {
    let mut seen: HashMap<String, &BuiltTenant> = HashMap::with_capacity(tenants.len());
    for built in tenants {
        match seen.entry(built.tenant.name.to_ascii_lowercase()) {
            Entry::Vacant(entry) => {
                entry.insert(built);
            }
            Entry::Occupied(first) => {
                let first = first.get();
                let title = match first.tenant.name == built.tenant.name {
                    true => format!("tenant `{}` is defined twice", built.tenant.name),
                    false => {
                        format!("`{}` and `{}` differ in case only", first.tenant.name, built.tenant.name)
                    }
                };
                let problem = Problem::at(built.name_span.clone(), title, "again");
                problems.error(problem.and_at(first.name_span.clone(), "first here"));
            }
        }
    }
}

/// A role belongs to one tenant of a cluster, and never to its operators.
fn roles(tenants: &[BuiltTenant], clusters: &[BuiltCluster], problems: &mut Problems) {
    let mut seen: HashMap<(ClusterId, &str), &BuiltTenant> = HashMap::with_capacity(tenants.len());
    for built in tenants {
        let role = &*built.tenant.role;
        match seen.entry((built.tenant.cluster, role)) {
            Entry::Vacant(entry) => {
                entry.insert(built);
            }
            // A tenant that is there twice was reported by its name.
            Entry::Occupied(first) if first.get().tenant.name == built.tenant.name => {}
            Entry::Occupied(first) => {
                let title = format!(
                    "tenants `{}` and `{}` have one role, `{role}`: there would be no wall between them",
                    first.get().tenant.name,
                    built.tenant.name
                );
                let problem = Problem::at(built.role_span.clone(), title, "the same role again")
                    .and_at(first.get().role_span.clone(), "first here")
                    .help("`tenantry tenant sql NAME` prints the SQL for a role of its own");
                problems.error(problem);
            }
        }
        let cluster = clusters.get(usize::from(built.tenant.cluster.0)).map(|built| &built.cluster);
        if let Some(admin) =
            cluster.and_then(|cluster| cluster.admin.as_ref()).filter(|admin| *admin.user == *role)
        {
            let title = format!(
                "tenant `{}` would log in as the cluster's admin, `{}`",
                built.tenant.name, admin.user
            );
            problems.error(Problem::at(built.role_span.clone(), title, "a tenant needs a role of its own"));
        }
    }
}

/// A schema belongs to one tenant of a database; nobody has another tenant's in the search path.
fn schemas(tenants: &[BuiltTenant], problems: &mut Problems) {
    type Place<'t> = (ClusterId, &'t Arc<str>, &'t str);
    fn place<'t>(built: &'t BuiltTenant, schema: &'t str) -> Place<'t> {
        (built.tenant.cluster, &built.tenant.database, schema)
    }
    let mut owners: HashMap<Place<'_>, &BuiltTenant> = HashMap::with_capacity(tenants.len());
    for built in tenants {
        let Some(schema) = built.schemas.first() else { continue };
        match owners.entry(place(built, schema)) {
            Entry::Vacant(entry) => {
                entry.insert(built);
            }
            // A tenant that is there twice was reported by its name.
            Entry::Occupied(first) if first.get().tenant.name == built.tenant.name => {}
            Entry::Occupied(first) => {
                let title = format!(
                    "tenants `{}` and `{}` have one schema, `{schema}` in database `{}`",
                    first.get().tenant.name,
                    built.tenant.name,
                    built.tenant.database
                );
                let problem = Problem::at(built.schema_span.clone(), title, "the same schema again");
                problems.error(problem.and_at(first.get().schema_span.clone(), "first here"));
            }
        }
    }
    for built in tenants {
        for schema in built.schemas.iter().skip(1) {
            let owner =
                owners.get(&place(built, schema)).filter(|owner| owner.tenant.name != built.tenant.name);
            let Some(owner) = owner else { continue };
            let title = format!(
                "the search path of `{}` leads into the schema of `{}`",
                built.tenant.name, owner.tenant.name
            );
            let problem =
                Problem::at(built.schema_span.clone(), title, format!("`{schema}` is another tenant's"));
            problems.error(problem.and_at(owner.schema_span.clone(), "it belongs here"));
        }
    }
}
