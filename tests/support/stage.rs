//! A throwaway cluster with tenants in it, and the proxy before it.
//!
//! Owns both processes and the directory of certificates. Must not know what is tested.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tenantry::throwaway::{Cluster, ServerCertificate};
use tokio_postgres::NoTls;

use super::{Authority, Login, PATIENCE, Plan, Proxy, Wire, eventually, is_direct};

/// Postgres, tenants, proxy.
pub(crate) struct Stage {
    // Dropped in this order: the proxy before its cluster.
    proxy: Option<Proxy>,
    pub(crate) postgres: Cluster,
    pub(crate) plan: Plan,
    pub(crate) authority: Authority,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn start(plan: Plan) -> Self {
        let mut stage = Self::without_proxy(plan).await;
        if !is_direct() {
            stage.start_proxy().await;
        }
        stage
    }

    /// Lets the proxy ask what it asks of a tenant that it has just met, for one that has a single server.
    pub(crate) async fn warm_up(&self, tenant: &str) {
        let mut clients = [self.client(tenant).await, self.client(tenant).await];
        for client in &mut clients {
            // Only when the server has answered that, the next one gets it.
            assert_eq!(client.query("SELECT 1").await.value(), "1");
        }
    }

    /// The cluster and its tenants alone.
    pub(crate) async fn without_proxy(mut plan: Plan) -> Self {
        let authority = Authority::new("test authority");
        let dir = tempfile::tempdir().unwrap();
        let listen = authority.issue(&["localhost", "127.0.0.1", "*.db.test"]);
        std::fs::write(dir.path().join("listen.crt"), &listen.cert).unwrap();
        std::fs::write(dir.path().join("listen.key"), &listen.key).unwrap();
        std::fs::write(dir.path().join("ca.crt"), authority.pem()).unwrap();
        if plan.postgres.tls.is_none() {
            let server = authority.issue(&["localhost", "127.0.0.1"]);
            plan.postgres.tls = Some(ServerCertificate {
                cert_pem: server.cert,
                key_pem: server.key,
                client_ca_pem: Some(authority.pem()),
            });
        }
        plan.postgres.template = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres"));
        let postgres = Cluster::start(plan.postgres.clone()).await.unwrap_or_else(|error| panic!("{error}"));
        postgres.psql("CREATE DATABASE app").await.unwrap();
        postgres.psql_in("app", &plan.sql(is_direct())).await.unwrap();
        Self { proxy: None, postgres, plan, authority, dir }
    }

    pub(crate) async fn start_proxy(&mut self) {
        let (plan, port, dir) = (&self.plan, self.postgres.port(), self.dir.path());
        self.proxy = Some(Proxy::start(dir, |listen, http| plan.toml(listen, http, port, dir)).await);
    }

    /// The proxy; not there in direct mode.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("this test needs a proxy")
    }

    pub(crate) fn proxy_mut(&mut self) -> &mut Proxy {
        self.proxy.as_mut().expect("this test needs a proxy")
    }

    /// The proxy's resident memory; nothing in direct mode.
    pub(crate) fn memory(&self) -> u64 {
        self.proxy.as_ref().map_or(0, Proxy::memory)
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match &self.proxy {
            Some(proxy) => proxy.address,
            None => SocketAddr::from(([127, 0, 0, 1], self.postgres.port())),
        }
    }

    /// Name, password and database of a tenant's application.
    pub(crate) fn login(&self, tenant: &str) -> Login {
        let tenant = self.plan.tenant(tenant);
        Login {
            user: if self.proxy.is_some() { tenant.name.clone() } else { tenant.role() },
            password: tenant.client_password(),
            database: "app".to_owned(),
            version: 0x0003_0000,
            parameters: Vec::new(),
        }
    }

    /// A rustls configuration that trusts the proxy.
    pub(crate) fn tls_client(&self) -> Arc<ClientConfig> {
        self.authority.client(None)
    }

    /// A client of bare messages, logged in; over TLS if the plan says `require`.
    pub(crate) async fn client(&self, tenant: &str) -> Wire {
        self.connect().await.logged_in(&self.login(tenant)).await
    }

    /// The same, with startup parameters.
    pub(crate) async fn client_with(&self, tenant: &str, parameters: &[(&str, &str)]) -> Wire {
        let mut login = self.login(tenant);
        login.parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.connect().await.logged_in(&login).await
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self) -> Wire {
        if self.plan.tls == "require" {
            return Wire::connect_tls(self.address(), self.tls_client(), "localhost").await;
        }
        Wire::connect(self.address()).await
    }

    /// A client of tokio-postgres, without TLS.
    pub(crate) async fn tokio_client(&self, tenant: &str) -> tokio_postgres::Client {
        let (client, connection) = self.tokio_config(tenant).connect(NoTls).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    pub(crate) fn tokio_config(&self, tenant: &str) -> tokio_postgres::Config {
        let login = self.login(tenant);
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").port(self.address().port()).connect_timeout(PATIENCE);
        config.user(&login.user).password(&login.password).dbname(&login.database);
        config
    }

    /// For programs that take a URL.
    pub(crate) fn url(&self, tenant: &str) -> String {
        let login = self.login(tenant);
        let mode = match (self.plan.tls, self.proxy.is_some()) {
            ("disable", _) => "sslmode=disable".to_owned(),
            _ => format!("sslmode=verify-full&sslrootcert={}/ca.crt", self.dir.path().display()),
        };
        let port = self.address().port();
        format!("postgres://{}:{}@localhost:{port}/{}?{mode}", login.user, login.password, login.database)
    }

    /// A superuser's session in the tenants' database, beside the proxy.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        self.postgres.admin("app").await.unwrap()
    }

    /// Applies a changed plan and waits until the proxy has counted the reload.
    pub(crate) async fn reload(&mut self, change: impl FnOnce(Plan) -> Plan) {
        self.plan = change(self.plan.clone());
        self.reload_text(&self.toml(), "ok").await;
    }

    /// The configuration file for the plan as it is.
    pub(crate) fn toml(&self) -> String {
        let proxy = self.proxy();
        self.plan.toml(proxy.address, proxy.http, self.postgres.port(), self.dir.path())
    }

    /// Sends a configuration and waits for `result` (`ok` or `failed`) to be counted.
    pub(crate) async fn reload_text(&self, toml: &str, result: &str) {
        let proxy = self.proxy();
        let count =
            async || proxy.metrics().await.sum("tenantry_config_reloads_total", &[("result", result)]);
        let before = count().await;
        proxy.send_config(toml);
        let what = format!("a reload is counted as {result}");
        eventually(&what, PATIENCE, async || (count().await > before).then_some(())).await;
    }

    /// Server connections of the tenants that Postgres knows, in any state.
    pub(crate) async fn servers(&self) -> usize {
        let rows = self
            .postgres
            .psql("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'role\\_%'")
            .await
            .unwrap();
        rows[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// What Postgres' servers are doing, for the report of a failure.
    pub(crate) async fn activity(&self) -> Vec<String> {
        let sql = "SELECT format('%s %s %s %s %s: %s', pid, usename, state, wait_event_type, now() - query_start, query)
             FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let rows = self.postgres.psql(sql).await.unwrap();
        rows.into_iter().flatten().flatten().collect()
    }

    /// Waits until Postgres has as many server connections.
    pub(crate) async fn servers_become(&self, wanted: usize, within: Duration) {
        let what = format!("{wanted} servers");
        eventually(&what, within, async || (self.servers().await == wanted).then_some(())).await;
    }
}
