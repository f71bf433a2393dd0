//! Two databases with the same contents: one behind the proxy, its twin for direct sessions.
//!
//! Owns the tables that each place has for itself, and the logins of both sides. Must not know scripts.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::compare::Judge;
use crate::player::Side;
use crate::support::{Login, Plan, Stage};

pub(crate) const TENANTS: [&str; 2] = ["acme", "bolt"];
/// Sessions of each tenant at the same time.
pub(crate) const PLACES: usize = 6;
/// Of those, how many may pin a server. The others share what is left of the tenant's servers.
pub(crate) const PINNERS: usize = 2;
/// Servers of each tenant. One is never pinned, and those of a session that has just left may still count.
const SERVERS: usize = PINNERS + 3;
/// Servers in all: at most half of them are pinned.
const BUDGET: usize = TENANTS.len() * (2 * PINNERS + 2);

/// Where sessions come in: a tenant, and a number that no other session of the tenant has meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tenant: &'static str,
    pub(crate) number: usize,
}

impl Place {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        TENANTS.into_iter().flat_map(|tenant| (0..PLACES).map(move |number| Self { tenant, number }))
    }

    /// Whether its sessions may keep a server to themselves.
    pub(crate) const fn may_pin(self) -> bool {
        self.number < PINNERS
    }
}

/// The stage with both databases.
pub(crate) struct Arena {
    pub(crate) stage: Stage,
    pub(crate) judge: Judge,
    /// Where the clients of the proxied side connect, if that is not the proxy itself.
    pub(crate) entrance: Option<SocketAddr>,
}

impl Arena {
    /// The databases, without a proxy yet.
    pub(crate) async fn prepare() -> Self {
        let mut plan = Plan::new(&TENANTS).workers(2).queue_timeout("15s");
        plan = plan.budget(u32::try_from(BUDGET).unwrap());
        plan = plan.set("log", "filter", "\"warn\"").set("pool", "max_prepared_statements", "8");
        let servers = SERVERS.to_string();
        for key in ["ceiling", "share"] {
            plan = plan.set("tier.hot", key, &servers);
        }
        for (name, value) in POSTGRES {
            plan.postgres.settings.push((name.to_owned(), value.to_owned()));
        }
        let stage = Stage::without_proxy(plan).await;
        let mut sql = String::new();
        for tenant in TENANTS {
            sql.push_str(&tables(&stage.plan.tenant(tenant).schema(), &stage.plan.tenant(tenant).role()));
        }
        stage.postgres.psql_in("app", &sql).await.unwrap();
        // With the same numbers of all objects.
        stage.postgres.psql("CREATE DATABASE twin TEMPLATE app").await.unwrap();
        let roles: Vec<String> = TENANTS.iter().map(|tenant| stage.plan.tenant(tenant).role()).collect();
        let grant = format!(
            "REVOKE ALL ON DATABASE twin FROM PUBLIC; GRANT CONNECT, TEMPORARY ON DATABASE twin TO {}",
            roles.join(", ")
        );
        stage.postgres.psql(&grant).await.unwrap();
        let newest = stage.postgres.psql_in("twin", "SELECT max(oid::bigint) FROM pg_class").await.unwrap();
        let newest_table = newest[0][0].as_deref().unwrap().parse().unwrap();
        Self { stage, judge: Judge { newest_table }, entrance: None }
    }

    /// The databases and the proxy.
    pub(crate) async fn open() -> Self {
        let mut arena = Self::prepare().await;
        arena.stage.start_proxy().await;
        arena
    }

    /// Postgres itself.
    pub(crate) fn direct(&self, place: Place) -> Side {
        self.postgres(place, "twin")
    }

    /// The proxy.
    pub(crate) fn proxied(&self, place: Place) -> Side {
        let address = self.entrance.unwrap_or_else(|| self.stage.address());
        Side { address, login: self.stage.login(place.tenant) }
    }

    /// One of the two databases without a proxy, as the role that the proxy logs in with.
    pub(crate) fn postgres(&self, place: Place, database: &str) -> Side {
        let tenant = self.stage.plan.tenant(place.tenant);
        let login = Login {
            user: tenant.role(),
            password: tenant.server_password(),
            database: database.to_owned(),
            version: 0x0003_0000,
            // What the proxy asks for when it logs in, so that RESET goes to the same.
            parameters: vec![
                ("search_path".to_owned(), tenant.schema()),
                ("application_name".to_owned(), "tenantry".to_owned()),
            ],
        };
        Side { address: SocketAddr::from(([127, 0, 0, 1], self.stage.postgres.port())), login }
    }
}

/// What each place has for itself: the names end in its number.
fn tables(schema: &str, role: &str) -> String {
    let mut sql = format!("SET ROLE {role}; SET search_path = {schema};");
    for number in 0..PLACES {
        let _ = write!(
            sql,
            "CREATE TABLE box_{number} (id int PRIMARY KEY, word text, num numeric DEFAULT 1.50, data bytea,
                 once int UNIQUE DEFERRABLE INITIALLY DEFERRED);
             CREATE SEQUENCE seq_{number};"
        );
    }
    sql.push_str(
        "CREATE FUNCTION say(level text, what text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             IF level = 'notice' THEN RAISE NOTICE '%', what USING DETAIL = 'said', HINT = 'hear';
             ELSIF level = 'warning' THEN RAISE WARNING '%', what;
             ELSIF level = 'error' THEN RAISE EXCEPTION '%', what USING ERRCODE = 'ZZ001';
             ELSE RAISE INFO '%', what; END IF;
             RETURN what; END $$;
         RESET ROLE; RESET search_path;",
    );
    sql
}

const POSTGRES: [(&str, &str); 5] = [
    ("autovacuum", "off"),
    ("log_min_messages", "log"),
    ("log_min_error_statement", "panic"),
    ("synchronous_commit", "off"),
    ("jit", "off"),
];
