//! The exact SQL that makes a tenant: role, schema, grants, default privileges, settings and limits.
//!
//! Owns the text. Pure: the same tenant gives the same text, so that it can be reviewed, kept and compared. Running it
//! again repairs what has changed. It needs no superuser: a role with CREATEROLE that owns the database is enough.
//!
//! The schema belongs to whoever runs the text, not to the tenant: what a tenant's application creates in it is the
//! tenant's, but only an operator can let somebody else in.

use std::fmt::Write as _;

use crate::config::names::{identifier, literal, quoted, split_search_path};
use crate::tenant::Tenant;

/// The SQL for a tenant, to be run in its database (`psql -v ON_ERROR_STOP=1 -d <database>`).
///
/// `verifier` is the role's password in PostgreSQL's SCRAM form; `None` leaves the password as it is.
#[must_use]
pub fn provision(tenant: &Tenant, verifier: Option<&str>) -> String {
    let schemas = split_search_path(&tenant.search_path);
    let names = Names::of(tenant, &schemas);
    let steps = [
        names.head(tenant),
        names.database_guard(tenant),
        names.role(),
        names.login(tenant, verifier),
        names.public(),
        names.schemas(),
        names.default_privileges(),
        names.settings(tenant),
    ];
    let mut text = String::new();
    for step in steps.iter().filter(|step| !step.is_empty()) {
        text.push_str(step.trim_end());
        text.push_str("\n\n");
    }
    text.push_str("COMMIT;\n");
    text
}

/// The tenant's names, quoted.
struct Names {
    role: String,
    /// The role's name as a literal.
    role_text: String,
    database: String,
    schema: String,
    /// Further schemas of the search path that exist for several tenants.
    shared: Vec<String>,
    search_path: String,
}

impl Names {
    /// Quotes everything once.
    fn of(tenant: &Tenant, schemas: &[String]) -> Self {
        let own = schemas.first().map(String::as_str).unwrap_or_default();
        let built_in = |schema: &&String| schema.starts_with("pg_") || *schema == "information_schema";
        let shared = schemas.iter().skip(1).filter(|schema| !built_in(schema) && *schema != own);
        Self {
            role: quoted(&tenant.role),
            role_text: literal(&tenant.role),
            database: quoted(&tenant.database),
            schema: quoted(own),
            shared: shared.map(|schema| quoted(schema)).collect(),
            search_path: schemas.iter().map(|schema| quoted(schema)).collect::<Vec<_>>().join(", "),
        }
    }

    /// What this is, and the transaction that holds it.
    fn head(&self, tenant: &Tenant) -> String {
        let (name, database) = (comment(&tenant.name), comment(&tenant.database));
        format!(
            "-- Tenant {name} in database {database}: role, schema, grants, settings. Nothing is granted to PUBLIC.\n\
             -- Run it in that database as a superuser, or as a role that has CREATEROLE and owns the database:\n\
             --     psql -v ON_ERROR_STOP=1 -d <database> -f <this file>\n\
             -- It can be run again at any time.\n\
             BEGIN;"
        )
    }

    /// Stops in the wrong database, where schema and grants would be of no use.
    fn database_guard(&self, tenant: &Tenant) -> String {
        let database = literal(&tenant.database);
        block(&format!(
            "BEGIN\n  \
               IF pg_catalog.current_database() <> {database} THEN\n    \
                 RAISE EXCEPTION 'this is database %, the tenant lives in %', pg_catalog.current_database(), {database};\n  \
               END IF;\n\
             END"
        ))
    }

    /// Makes the role, or stops if one of that name has rights that no tenant may have.
    ///
    /// They are not taken away: only a superuser could, and a role that has them is somebody's on purpose.
    fn role(&self) -> String {
        let (role, name) = (&self.role, &self.role_text);
        block(&format!(
            "BEGIN\n  \
               IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN\n    \
                 CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;\n  \
               ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}\n      \
                   AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)) THEN\n    \
                 RAISE EXCEPTION 'role % exists and has rights that no tenant may have', {name};\n  \
               END IF;\n\
             END"
        ))
    }

    /// Login, limit and password.
    fn login(&self, tenant: &Tenant, verifier: Option<&str>) -> String {
        let (role, ceiling) = (&self.role, tenant.highest_ceiling());
        let mut text = format!(
            "-- The limit is the tenant's ceiling: the proxy never asks for more, and nobody else gets more.\n\
             ALTER ROLE {role} WITH LOGIN NOINHERIT CONNECTION LIMIT {ceiling};\n"
        );
        match verifier {
            // Writing to a String cannot fail.
            Some(verifier) => {
                let _ = writeln!(text, "ALTER ROLE {role} PASSWORD {};", literal(verifier));
            }
            None => text.push_str("-- The password is left as it is (server_auth has none).\n"),
        }
        text
    }

    /// Takes from PUBLIC what Postgres gives it in every new database.
    fn public(&self) -> String {
        let (role, database) = (&self.role, &self.database);
        format!(
            "-- Everybody may connect to a new database, make temporary tables in it, and use its schema public. Not here.\n\
             -- (Roles that relied on it, such as monitoring, need a GRANT CONNECT of their own.)\n\
             REVOKE ALL ON DATABASE {database} FROM PUBLIC;\n\
             GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role};\n\
             REVOKE ALL ON SCHEMA public FROM PUBLIC;"
        )
    }

    /// The tenant's own schema, and the way into shared ones.
    fn schemas(&self) -> String {
        let (role, schema) = (&self.role, &self.schema);
        let mut text = format!(
            "-- The schema is the operator's, so that the tenant cannot let anybody in; what it makes there is its own.\n\
             CREATE SCHEMA IF NOT EXISTS {schema};\n\
             REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;\n\
             GRANT USAGE, CREATE ON SCHEMA {schema} TO {role};\n"
        );
        for shared in &self.shared {
            let _ = writeln!(text, "GRANT USAGE ON SCHEMA {shared} TO {role};");
        }
        text
    }

    /// What is made later, by the tenant or by the operator, is for the tenant and for nobody else.
    fn default_privileges(&self) -> String {
        let (role, schema) = (&self.role, &self.schema);
        format!(
            "-- What the operator makes in the schema later (migrations), the tenant may use.\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {role};\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role};\n\
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE ON TYPES TO {role};\n\
             -- What the tenant makes is not for PUBLIC: Postgres would give it functions and types. To speak for the\n\
             -- tenant's role, one has to be a member of it for a moment, unless one is a superuser.\n{}",
            block(&format!(
                "DECLARE\n  \
                   joins boolean := NOT pg_catalog.pg_has_role(current_user, {name}, 'USAGE');\n\
                 BEGIN\n  \
                   IF joins THEN\n    \
                     EXECUTE pg_catalog.format('GRANT %I TO %I', {name}, current_user);\n  \
                   END IF;\n  \
                   ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE ALL ON FUNCTIONS FROM PUBLIC;\n  \
                   ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE ALL ON TYPES FROM PUBLIC;\n  \
                   IF joins THEN\n    \
                     EXECUTE pg_catalog.format('REVOKE %I FROM %I', {name}, current_user);\n  \
                   END IF;\n\
                 END",
                name = self.role_text,
            ))
        )
    }

    /// Settings for logins that do not come through the proxy; the proxy sends the same at each login.
    fn settings(&self, tenant: &Tenant) -> String {
        let (role, database) = (&self.role, &self.database);
        let mut text = format!(
            "-- For logins that do not come through the proxy; it sends the same with each login of its own.\n\
             ALTER ROLE {role} IN DATABASE {database} RESET ALL;\n\
             ALTER ROLE {role} IN DATABASE {database} SET search_path = {};\n",
            self.search_path
        );
        for (setting, value) in &tenant.settings {
            let setting = setting.split('.').map(identifier).collect::<Vec<_>>().join(".");
            let _ = writeln!(
                text,
                "ALTER ROLE {role} IN DATABASE {database} SET {setting} = {};",
                literal(value)
            );
        }
        text
    }
}

/// A DO block, in dollar quotes that its text does not contain.
fn block(body: &str) -> String {
    let mut tag = "$tenantry$".to_owned();
    let mut number = 0_u32;
    while body.contains(&tag) {
        number = number.saturating_add(1);
        tag = format!("$tenantry{number}$");
    }
    format!("DO {tag}\n{body}\n{tag};")
}

/// A name in a comment: a line end in it must not end the comment.
fn comment(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c })
        .collect()
}
