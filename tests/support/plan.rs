//! What a stage is to be like: tenants, limits, TLS; as SQL for Postgres and as TOML for the proxy.
//!
//! Owns both texts, so that they agree. Must not start anything.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use tenantry::throwaway::ClusterOptions;

use super::scram;

/// Iterations of the verifiers of both sides.
const ITERATIONS: u32 = 64;
/// Rows of each tenant's table `things`.
pub(crate) const THINGS: u32 = 20;

/// One tenant: its role, schema and password are all different from its name.
#[derive(Clone, Debug)]
pub(crate) struct TenantPlan {
    pub(crate) name: String,
    pub(crate) tier: &'static str,
    /// Further lines of its `[[tenant]]` section.
    pub(crate) lines: Vec<String>,
}

impl TenantPlan {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), tier: "hot", lines: Vec::new() }
    }

    pub(crate) fn tier(mut self, tier: &'static str) -> Self {
        self.tier = tier;
        self
    }

    /// A further line, e.g. `mode = "session"`.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub(crate) fn role(&self) -> String {
        format!("role_{}", self.name)
    }

    pub(crate) fn schema(&self) -> String {
        format!("schema_{}", self.name)
    }

    /// What the application knows.
    pub(crate) fn client_password(&self) -> String {
        format!("app-{}", self.name)
    }

    /// What only the proxy knows.
    pub(crate) fn server_password(&self) -> String {
        format!("db-{}", self.name)
    }

    /// Role, schema, rows. In direct mode the application logs in as the role itself.
    fn sql(&self, direct: bool) -> String {
        let (name, role, schema) = (&self.name, self.role(), self.schema());
        let password = if direct { self.client_password() } else { self.server_password() };
        let verifier = scram::verifier(&password, ITERATIONS);
        let path =
            if direct { format!("ALTER ROLE {role} SET search_path = {schema};") } else { String::new() };
        format!(
            "CREATE ROLE {role} LOGIN NOINHERIT PASSWORD '{verifier}'; {path}
             GRANT CONNECT, TEMPORARY ON DATABASE app TO {role};
             CREATE SCHEMA {schema} AUTHORIZATION {role};
             CREATE TABLE {schema}.things AS
                 SELECT n AS id, '{name}'::text AS owner, repeat('x', 50) AS body FROM generate_series(1, {THINGS}) n;
             ALTER TABLE {schema}.things ADD PRIMARY KEY (id);
             ALTER TABLE {schema}.things OWNER TO {role};"
        )
    }

    fn toml(&self) -> String {
        let verifier = scram::verifier(&self.client_password(), ITERATIONS);
        let mut text = format!(
            "\n[[tenant]]\nname = \"{}\"\ncluster = \"main\"\nrole = \"{}\"\nschema = \"{}\"\ntier = \"{}\"\n\
             server_auth = {{ password = \"{}\" }}\n",
            self.name,
            self.role(),
            self.schema(),
            self.tier,
            self.server_password(),
        );
        if !self.lines.iter().any(|line| line.starts_with("client_auth") || line.contains("[[tenant.user]]"))
        {
            let _ = writeln!(text, "client_auth = {{ scram = \"{verifier}\" }}");
        }
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// The whole stage.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) tenants: Vec<TenantPlan>,
    pub(crate) postgres: ClusterOptions,
    /// Query of the cluster's URL, e.g. `sslmode=require`.
    pub(crate) server_query: String,
    /// `listen.tls.mode`.
    pub(crate) tls: &'static str,
    /// Section to key to value, in TOML.
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Plan {
    /// Hot tenants of these names in a budget of 20.
    pub(crate) fn new(tenants: &[&str]) -> Self {
        Self::of(tenants.iter().map(|name| TenantPlan::new(name)).collect())
    }

    pub(crate) fn of(tenants: Vec<TenantPlan>) -> Self {
        let plan = Self {
            tenants,
            postgres: ClusterOptions::default(),
            server_query: String::new(),
            tls: "disable",
            sections: BTreeMap::new(),
        };
        plan.set("threads", "front", "1")
            .set("threads", "workers", "1")
            .set("log", "filter", "\"info,tenantry=debug\"")
            .budget(20)
    }

    /// A key of a section, the value as TOML: `("pool", "queue_timeout", "\"1s\"")`.
    pub(crate) fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// What a key was set to; empty if it was not.
    pub(crate) fn setting(&self, section: &str, key: &str) -> &str {
        self.sections.get(section).and_then(|keys| keys.get(key)).map_or("", String::as_str)
    }

    /// Server connections that the proxy may have.
    pub(crate) fn budget(self, servers: u32) -> Self {
        let plan = self.set("cluster.main", "max_connections", &servers.to_string());
        // One tenant may have them all, so that a test of one tenant can count on it.
        [("hot", 5), ("warm", 2), ("cold", 1)].into_iter().fold(plan, |plan, (tier, share)| {
            let section = format!("tier.{tier}");
            let plan = plan.set(&section, "ceiling", &servers.to_string());
            plan.set(&section, "floor", "1").set(&section, "share", &servers.min(share).to_string())
        })
    }

    /// One server for each tenant, and no more: whoever comes second gets what the first one left, or waits.
    pub(crate) fn one_server_each(self) -> Self {
        ["hot", "warm", "cold"].into_iter().fold(self, |plan, tier| {
            let section = format!("tier.{tier}");
            plan.set(&section, "floor", "1").set(&section, "share", "1").set(&section, "ceiling", "1")
        })
    }

    /// Threads that own tenants; the budget is divided among them.
    pub(crate) fn workers(self, threads: u32) -> Self {
        self.set("threads", "workers", &threads.to_string())
    }

    pub(crate) fn queue_timeout(self, text: &str) -> Self {
        self.set("pool", "queue_timeout", &format!("\"{text}\""))
    }

    /// TLS towards clients: `prefer` or `require`.
    pub(crate) fn tls(mut self, mode: &'static str) -> Self {
        self.tls = mode;
        self
    }

    pub(crate) fn tenant(&self, name: &str) -> &TenantPlan {
        self.tenants.iter().find(|tenant| tenant.name == name).unwrap_or_else(|| panic!("no tenant {name}"))
    }

    /// Run as superuser in the database `app`.
    pub(crate) fn sql(&self, direct: bool) -> String {
        let mut text = String::from(
            "REVOKE ALL ON DATABASE app FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
             CREATE FUNCTION public.none() RETURNS void LANGUAGE sql AS '';",
        );
        for tenant in &self.tenants {
            text.push_str(&tenant.sql(direct));
        }
        text
    }

    /// The proxy's configuration; certificates lie in `dir`.
    pub(crate) fn toml(&self, listen: SocketAddr, http: SocketAddr, postgres: u16, dir: &Path) -> String {
        let mut sections = self.sections.clone();
        let mut put = |section: &str, key: &str, value: String| {
            sections.entry(section.to_owned()).or_default().entry(key.to_owned()).or_insert(value);
        };
        put("listen", "address", format!("\"{listen}\""));
        put("http", "address", format!("\"{http}\""));
        let query =
            if self.server_query.is_empty() { String::new() } else { format!("?{}", self.server_query) };
        put("cluster.main", "url", format!("\"postgres://localhost:{postgres}/app{query}\""));
        put("cluster.main", "admin_reserve", "5".to_owned());
        if self.tls != "disable" {
            let (mode, dir) = (self.tls, dir.display());
            let files = format!(
                "cert = \"{dir}/listen.crt\", key = \"{dir}/listen.key\", client_ca = \"{dir}/ca.crt\""
            );
            put("listen", "tls", format!("{{ mode = \"{mode}\", {files} }}"));
        }
        let mut text = String::new();
        for (section, keys) in &sections {
            let _ = writeln!(text, "[{section}]");
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        for tenant in &self.tenants {
            text.push_str(&tenant.toml());
        }
        text
    }
}
