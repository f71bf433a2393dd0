//! The database behind both proxies.
//!
//! Owns the throwaway cluster, its two roles and pgbench's tables. Must not know the proxies.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tenantry::throwaway::{Cluster, ClusterOptions, ServerCertificate, find_postgres};

use crate::certificate::Identity;
use crate::scram;

/// Which of the two pools a scenario uses. The name is the role, the schema, PgBouncer's database and Tenantry's tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Fewer servers than clients: a server per transaction.
    Pooled,
    /// A server for every client: PgBouncer's session mode, since version 1.18 loses prepared statements otherwise.
    Held,
}

impl Pool {
    pub(crate) const ALL: [Self; 2] = [Self::Pooled, Self::Held];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Held => "held",
        }
    }

    /// Servers, in both proxies.
    pub(crate) const fn servers(self) -> u32 {
        match self {
            Self::Pooled => 20,
            Self::Held => 64,
        }
    }
}

/// A running Postgres with the roles and tables.
pub(crate) struct Database {
    cluster: Cluster,
    identity: Identity,
}

impl Database {
    /// Starts and fills it.
    pub(crate) async fn start() -> Result<Self> {
        let identity = Identity::issue()?;
        let options = ClusterOptions {
            max_connections: MAX_CONNECTIONS,
            // Offered; the proxies of most parts do not take it.
            tls: Some(ServerCertificate {
                cert_pem: identity.cert.clone(),
                key_pem: identity.key.clone(),
                client_ca_pem: None,
            }),
            settings: vec![("shared_buffers".into(), "128MB".into()), ("autovacuum".into(), "off".into())],
            ..ClusterOptions::default()
        };
        let cluster = Cluster::start_with(find_postgres()?, options).await?;
        cluster.psql(&format!("CREATE DATABASE {DATABASE}")).await?;
        let database = Self { cluster, identity };
        database.add_roles(&Pool::ALL.map(Pool::name)).await?;
        for name in Pool::ALL.map(Pool::name) {
            let sql =
                format!("CREATE TABLE {name}.sink (line text); ALTER TABLE {name}.sink OWNER TO {name}");
            database.cluster.psql_in(DATABASE, &sql).await?;
            let mut command = Command::new(database.program("pgbench"));
            command.args(["-i", "-q", "-s", "2", "-h", "127.0.0.1", "-U", name, "-p"]);
            command.arg(database.port().to_string()).arg(DATABASE).env("PGPASSWORD", PASSWORD);
            let output = command.stdin(Stdio::null()).output().context("running pgbench")?;
            ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(database)
    }

    /// Roles with a schema each, made in one go.
    pub(crate) async fn add_roles(&self, names: &[impl Display]) -> Result<()> {
        let verifier = role_verifier()?;
        let role = |name| {
            format!(
                "CREATE ROLE {name} LOGIN PASSWORD '{verifier}'; CREATE SCHEMA {name} AUTHORIZATION {name}; \
                 ALTER ROLE {name} SET search_path = {name};"
            )
        };
        let sql: String = names.iter().map(role).collect();
        self.cluster.psql_in(DATABASE, &sql).await?;
        Ok(())
    }

    /// Server connections of the roles whose names begin like this.
    pub(crate) async fn servers_of(&self, prefix: &str) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE starts_with(usename, '{prefix}')");
        let rows = self.cluster.psql(&sql).await?;
        let count = rows.into_iter().flatten().flatten().next().context("no count of servers")?;
        Ok(count.parse()?)
    }

    /// Logins to the database since it was made, as far as Postgres has counted them.
    pub(crate) async fn logins(&self) -> Result<f64> {
        let sql = format!("SELECT sessions::text FROM pg_stat_database WHERE datname = '{DATABASE}'");
        let rows = self.cluster.psql(&sql).await?;
        let count = rows.into_iter().flatten().flatten().next().context("no count of logins")?;
        Ok(count.parse()?)
    }

    /// Protocols and ciphers of all server connections that have TLS, each named once.
    pub(crate) async fn ciphers(&self) -> Result<String> {
        let sql = "SELECT string_agg(DISTINCT concat_ws(' with ', s.version, s.cipher), ', ') \
                   FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.usename <> 'postgres'";
        let rows = self.cluster.psql(sql).await?;
        rows.into_iter().flatten().flatten().next().context("no server connection has TLS")
    }

    pub(crate) const fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The certificate of Postgres, which proxies may use too.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The postmaster.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.cluster.pid().context("Postgres has ended")
    }

    pub(crate) fn version(&self) -> String {
        self.cluster.bin().version()
    }

    /// A client program: of the server's own directory, or else of the PATH.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let own = self.cluster.bin().program(name);
        if own.is_file() { own } else { PathBuf::from(name) }
    }
}

/// What Postgres and both proxies know of the password.
pub(crate) fn role_verifier() -> Result<String> {
    scram::verifier(PASSWORD, b"tenantry bench 1")
}

/// Where the roles have their schemas.
pub(crate) const DATABASE: &str = "bench";
/// Those of all proxies that run at the same time, and of the bench itself.
const MAX_CONNECTIONS: u32 = 700;
/// The password of both roles, towards the proxies and towards Postgres. The server lives for minutes on the loopback.
pub(crate) const PASSWORD: &str = "bench-only";
