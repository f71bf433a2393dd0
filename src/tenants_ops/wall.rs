//! Holes in the walls between tenants, as the database's catalogs show them.
//!
//! Owns the questions (SQL that reads catalogs and nothing else) and the judgement of the answers. Pure: whoever has a
//! session runs the questions and feeds the rows back. Answers are small, because sound tenants answer nothing but
//! their memberships and grants.
//!
//! A *hole* lets one tenant reach another's data. A *fault* keeps a tenant from working. A *note* is worth knowing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fmt::Write as _;

use crate::config::names::{literal, split_search_path};
use crate::tenant::{ServerAuth, Tenant};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A tenant can reach another's data.
    Hole,
    /// A tenant cannot work.
    Fault,
    /// Worth knowing.
    Note,
}

/// Something about a tenant (or the database) that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The tenant, or `None` if it is the database's.
    pub tenant: Option<String>,
    /// What it is, and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Hole => "hole",
            Severity::Fault => "fault",
            Severity::Note => "note",
        };
        match &self.tenant {
            Some(tenant) => write!(f, "{severity}: tenant `{tenant}`: {}", self.text),
            None => write!(f, "{severity}: {}", self.text),
        }
    }
}

/// One inspection of the tenants of one database.
#[derive(Debug)]
pub struct Inspection<'t> {
    tenants: Vec<&'t Tenant>,
    /// Tenants of the cluster by role: also those of other databases, because roles belong to the cluster.
    roles: HashMap<&'t str, &'t str>,
    findings: BTreeSet<Finding>,
    /// Tenants that are members of a role that is no tenant's, by that role.
    members: BTreeMap<String, Vec<&'t Tenant>>,
    /// Tenants whose schema is open to a role that is no tenant's, by that role.
    opened: BTreeMap<String, Vec<&'t Tenant>>,
}

impl<'t> Inspection<'t> {
    /// An inspection of the tenants of one database, among all tenants of its cluster.
    #[must_use]
    pub fn new(tenants: Vec<&'t Tenant>, cluster: &[&'t Tenant]) -> Self {
        let roles = cluster.iter().map(|tenant| (&*tenant.role, &*tenant.name)).collect();
        Self { tenants, roles, findings: BTreeSet::new(), members: BTreeMap::new(), opened: BTreeMap::new() }
    }

    /// The questions, each a statement for an ordinary role connected to the tenants' database.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        let indexed: Vec<(usize, &&Tenant)> = self.tenants.iter().enumerate().collect();
        let tenants = indexed.chunks(TENANTS_PER_QUESTION).map(|chunk| {
            let mut values = String::new();
            for (index, tenant) in chunk {
                let schema = split_search_path(&tenant.search_path).into_iter().next().unwrap_or_default();
                let separator = if values.is_empty() { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ =
                    write!(values, "{separator}({index}, {}, {})", literal(&tenant.role), literal(&schema));
            }
            TENANTS_SQL.replace("<tenants>", &values)
        });
        std::iter::once(DATABASE_SQL.to_owned()).chain(tenants).collect()
    }

    /// Takes the rows of a question's answer: tenant's number, kind, detail.
    pub fn answer(&mut self, rows: &[Vec<Option<String>>]) {
        for row in rows {
            let [number, Some(kind), detail] = row.as_slice() else { continue };
            let tenant = number.as_deref().and_then(|number| number.parse::<usize>().ok());
            let detail = detail.as_deref().unwrap_or_default();
            match tenant.and_then(|number| self.tenants.get(number).copied()) {
                Some(tenant) => self.about_tenant(tenant, kind, detail),
                None => self.about_database(kind, detail),
            }
        }
    }

    /// Everything found, the worst first.
    #[must_use]
    pub fn findings(mut self) -> Vec<Finding> {
        let groups: Vec<_> =
            self.opened.iter().map(|(role, owners)| (role.clone(), owners.clone())).collect();
        for (role, owners) in groups {
            for owner in owners {
                let guests = self.members.get(&role).map(Vec::as_slice).unwrap_or_default();
                let guest =
                    guests.iter().find(|guest| guest.name != owner.name).map(|guest| guest.name.to_string());
                if let Some(guest) = guest {
                    let text = format!(
                        "its schema is open to `{role}`, and tenant `{guest}` is a member of that role"
                    );
                    self.add(Severity::Hole, owner, text);
                }
            }
        }
        self.findings.into_iter().collect()
    }

    /// Judges one answer about a tenant.
    fn about_tenant(&mut self, tenant: &'t Tenant, kind: &str, detail: &str) {
        let role = &tenant.role;
        match kind {
            "no_role" => {
                self.add(Severity::Fault, tenant, format!("role `{role}` does not exist; {MAKE_IT}"));
            }
            "no_login" => self.add(Severity::Fault, tenant, format!("role `{role}` may not log in")),
            "expired" => self.expired(tenant, detail),
            "no_connect" => {
                self.add(
                    Severity::Fault,
                    tenant,
                    format!("role `{role}` may not connect to this database; {MAKE_IT}"),
                );
            }
            "no_schema" => {
                self.add(Severity::Fault, tenant, format!("schema `{detail}` does not exist; {MAKE_IT}"));
            }
            "no_usage" => {
                self.add(Severity::Fault, tenant, format!("role `{role}` has no USAGE on schema `{detail}`"));
            }
            // With the WAL of a cluster of its own it reads nobody else's.
            "attribute" if detail == "REPLICATION" && tenant.replication && self.roles.len() == 1 => {
                self.add(Severity::Note, tenant, format!("role `{role}` may replicate its cluster"));
            }
            "attribute" if detail == "REPLICATION" => {
                let text = format!(
                    "role `{role}` has the attribute REPLICATION: it can read the data of all tenants of its cluster"
                );
                self.add(Severity::Hole, tenant, text);
            }
            "attribute" => {
                self.add(Severity::Hole, tenant, format!("role `{role}` has the attribute {detail}"));
            }
            "database_owner" => self.database_right(tenant, detail, DatabaseRight::Owner),
            "database_create" => self.database_right(tenant, detail, DatabaseRight::Create),
            "limit" => self.connection_limit(tenant, detail),
            "member" => self.membership(tenant, detail),
            "owner" => {
                if let Some(owner) = self.other_tenant(tenant, detail) {
                    let text = format!("its schema belongs to `{detail}`, the role of tenant `{owner}`");
                    self.add(Severity::Hole, tenant, text);
                }
            }
            "grant" => self.schema_grant(tenant, detail),
            _ => self.add(Severity::Fault, tenant, format!("unexpected answer `{kind}`")),
        }
    }

    /// A role whose password ended. It is of no importance to logins without one.
    fn expired(&mut self, tenant: &'t Tenant, detail: &str) {
        if matches!(tenant.server_auth, ServerAuth::Password(_)) {
            let text = format!("the password of role `{}` ended (VALID UNTIL '{detail}')", tenant.role);
            self.add(Severity::Fault, tenant, text);
        }
    }

    /// A right on the database that the tenant's role has by itself or through `holder`. Who has it can make schemas
    /// beside its own, and the owner can change what the database's other roles begin with, or drop it. That is nobody
    /// else's business only where nobody else is.
    fn database_right(&mut self, tenant: &'t Tenant, holder: &str, right: DatabaseRight) {
        let role = &tenant.role;
        let text = match (right, *holder == **role) {
            (DatabaseRight::Owner, true) => format!("role `{role}` owns the database"),
            (DatabaseRight::Owner, false) => {
                format!("role `{role}` is a member of `{holder}`, which owns the database")
            }
            (DatabaseRight::Create, true) => format!("role `{role}` has CREATE on the database"),
            (DatabaseRight::Create, false) => {
                format!("role `{role}` has CREATE on the database as a member of `{holder}`")
            }
        };
        if self.tenants.len() > 1 {
            let cure = "it shares the database with other tenants and needs its own schema only";
            self.add(Severity::Hole, tenant, format!("{text}: {cure}"));
        } else {
            self.add(Severity::Note, tenant, text);
        }
    }

    /// A role's own connection limit.
    fn connection_limit(&mut self, tenant: &'t Tenant, detail: &str) {
        let ceiling = tenant.highest_ceiling();
        if detail.parse::<u32>().is_ok_and(|limit| limit < ceiling) {
            let text = format!("the role's CONNECTION LIMIT is {detail}, its ceiling {ceiling}; {MAKE_IT}");
            self.add(Severity::Fault, tenant, text);
        }
    }

    /// A role that the tenant's role is a member of, directly or not.
    fn membership(&mut self, tenant: &'t Tenant, group: &str) {
        let role = &tenant.role;
        if let Some(other) = self.other_tenant(tenant, group) {
            let text = format!("role `{role}` is a member of `{group}`, the role of tenant `{other}`");
            self.add(Severity::Hole, tenant, text);
        } else if group.starts_with("pg_") {
            self.add(Severity::Hole, tenant, format!("role `{role}` is a member of `{group}`"));
        } else {
            self.members.entry(group.to_owned()).or_default().push(tenant);
            self.add(Severity::Note, tenant, format!("role `{role}` is a member of `{group}`"));
        }
    }

    /// Somebody who is neither the tenant nor the schema's owner has a right on it; an empty name is PUBLIC.
    fn schema_grant(&mut self, tenant: &'t Tenant, grantee: &str) {
        if grantee.is_empty() {
            self.add(Severity::Hole, tenant, format!("its schema is open to PUBLIC; {MAKE_IT}"));
        } else if let Some(other) = self.other_tenant(tenant, grantee) {
            let text = format!("its schema is open to `{grantee}`, the role of tenant `{other}`");
            self.add(Severity::Hole, tenant, text);
        } else {
            self.opened.entry(grantee.to_owned()).or_default().push(tenant);
        }
    }

    /// Judges one answer about the database.
    fn about_database(&mut self, kind: &str, detail: &str) {
        let text = match kind {
            "public_schema" => format!("PUBLIC has {detail} on schema public: tenants can meet there"),
            "public_database" => format!("PUBLIC has {detail} on this database"),
            _ => return,
        };
        let severity = if detail == "CREATE" { Severity::Hole } else { Severity::Note };
        self.findings.insert(Finding { severity, tenant: None, text });
    }

    /// The tenant that a role belongs to, if it is another one.
    fn other_tenant(&self, tenant: &Tenant, role: &str) -> Option<&'t str> {
        self.roles.get(role).copied().filter(|name| **name != *tenant.name)
    }

    /// Adds a finding about a tenant.
    fn add(&mut self, severity: Severity, tenant: &Tenant, text: String) {
        self.findings.insert(Finding { severity, tenant: Some(tenant.name.to_string()), text });
    }
}

/// More than a tenant needs of its database.
#[derive(Clone, Copy)]
enum DatabaseRight {
    Owner,
    Create,
}

/// What repairs most findings.
const MAKE_IT: &str = "run what `tenantry tenant sql` prints";

/// Tenants asked about in one statement: about 30 KB of text.
const TENANTS_PER_QUESTION: usize = 500;

/// What PUBLIC may do in the database. Every new database lets it connect; before PostgreSQL 15 it could create in
/// the schema public.
const DATABASE_SQL: &str = "\
SELECT NULL, 'public_database', acl.privilege_type
  FROM pg_catalog.pg_database d,
       pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) acl
 WHERE d.datname = pg_catalog.current_database() AND acl.grantee = 0
UNION ALL
SELECT NULL, 'public_schema', acl.privilege_type
  FROM pg_catalog.pg_namespace n,
       pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) acl
 WHERE n.nspname = 'public' AND acl.grantee = 0";

/// Everything about a chunk of tenants that may be wrong: number, kind, detail.
const TENANTS_SQL: &str = "\
WITH RECURSIVE t(n, role, schema) AS (VALUES <tenants>),
r AS (SELECT t.n, t.role, t.schema, a.oid, a.rolcanlogin, a.rolconnlimit, a.rolvaliduntil,
             a.rolsuper, a.rolcreaterole, a.rolcreatedb, a.rolreplication, a.rolbypassrls
        FROM t LEFT JOIN pg_catalog.pg_roles a ON a.rolname = t.role),
s AS (SELECT r.n, r.schema, r.oid AS role, n.oid, n.nspowner, n.nspacl
        FROM r LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = r.schema),
m(n, oid) AS (SELECT n, oid FROM r WHERE oid IS NOT NULL
        UNION SELECT m.n, g.roleid FROM m JOIN pg_catalog.pg_auth_members g ON g.member = m.oid)
SELECT n, 'no_role', NULL FROM r WHERE oid IS NULL
UNION ALL SELECT n, 'no_login', NULL FROM r WHERE NOT rolcanlogin
UNION ALL SELECT n, 'no_connect', NULL FROM r
    WHERE oid IS NOT NULL AND NOT pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CONNECT')
UNION ALL SELECT n, 'expired', rolvaliduntil::text FROM r WHERE rolvaliduntil < pg_catalog.now()
UNION ALL SELECT m.n, 'database_owner', a.rolname FROM m JOIN pg_catalog.pg_roles a ON a.oid = m.oid
    JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database() AND d.datdba = m.oid
UNION ALL SELECT m.n, 'database_create', a.rolname FROM m JOIN pg_catalog.pg_roles a ON a.oid = m.oid
    JOIN (SELECT d.datdba, acl.grantee FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) acl
           WHERE d.datname = pg_catalog.current_database() AND acl.privilege_type = 'CREATE') c
      ON c.grantee = m.oid AND c.grantee <> c.datdba
UNION ALL SELECT n, 'limit', rolconnlimit::text FROM r WHERE rolconnlimit >= 0
UNION ALL SELECT n, 'attribute', 'SUPERUSER' FROM r WHERE rolsuper
UNION ALL SELECT n, 'attribute', 'CREATEROLE' FROM r WHERE rolcreaterole
UNION ALL SELECT n, 'attribute', 'CREATEDB' FROM r WHERE rolcreatedb
UNION ALL SELECT n, 'attribute', 'REPLICATION' FROM r WHERE rolreplication
UNION ALL SELECT n, 'attribute', 'BYPASSRLS' FROM r WHERE rolbypassrls
UNION ALL SELECT m.n, 'member', a.rolname FROM m JOIN r USING (n) JOIN pg_catalog.pg_roles a ON a.oid = m.oid
    WHERE m.oid <> r.oid
UNION ALL SELECT m.n, 'attribute', 'SUPERUSER (as a member of ' || a.rolname || ')'
    FROM m JOIN r USING (n) JOIN pg_catalog.pg_roles a ON a.oid = m.oid WHERE m.oid <> r.oid AND a.rolsuper
UNION ALL SELECT n, 'no_schema', schema FROM s WHERE oid IS NULL
UNION ALL SELECT n, 'no_usage', schema FROM s WHERE oid IS NOT NULL AND role IS NOT NULL
    AND NOT pg_catalog.has_schema_privilege(role, oid, 'USAGE')
UNION ALL SELECT s.n, 'owner', a.rolname FROM s JOIN pg_catalog.pg_roles a ON a.oid = s.nspowner
    WHERE s.nspowner IS DISTINCT FROM s.role
UNION ALL SELECT s.n, 'grant', a.rolname
    FROM s CROSS JOIN LATERAL pg_catalog.aclexplode(s.nspacl) acl
    LEFT JOIN pg_catalog.pg_roles a ON a.oid = acl.grantee
    WHERE acl.grantee IS DISTINCT FROM s.role AND acl.grantee <> s.nspowner";
