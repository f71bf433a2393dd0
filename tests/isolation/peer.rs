//! PgBouncer, in transaction mode, with one pool of servers per tenant's role.
//!
//! Owns its process and its configuration. `Drop` kills it. Must not know what is tested.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Login, PATIENCE, Stage, eventually};

/// Servers per tenant: as many as the proxy's budget has room for.
const POOL_SIZE: u32 = 3;

/// Whether servers are reset between clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// As it comes: `server_reset_query` is not used in transaction mode.
    Never,
    /// `server_reset_query_always = 1`.
    Always,
}

pub(crate) struct Bouncer {
    pub(crate) address: SocketAddr,
    child: Child,
    // Removed when the process has ended.
    _dir: tempfile::TempDir,
}

impl Bouncer {
    pub(crate) async fn start(stage: &Stage, reset: Reset) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        // Its clients' SCRAM keys are those for Postgres: both need the same verifier.
        let roles = "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid WHERE rolname LIKE 'role\\_%'
            AND rolcanlogin";
        let users = stage.postgres.psql(roles).await.unwrap();
        let users: Vec<String> = users.into_iter().flatten().flatten().collect();
        let (users_file, log) = (dir.path().join("userlist.txt"), dir.path().join("pgbouncer.log"));
        write(&users_file, &users.join("\n"));
        write(&dir.path().join("pgbouncer.ini"), &ini(stage.postgres.port(), port, &users_file, reset));
        let log = fs::File::create(log).unwrap();
        let mut command = Command::new(program());
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            // It refuses to run as root, and changes to this user by itself.
            command.args(["-u", "postgres"]);
        }
        command.arg(dir.path().join("pgbouncer.ini"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("PgBouncer is not installed");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("PgBouncer accepts", PATIENCE, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        Self { address, child, _dir: dir }
    }

    /// A tenant's application logs in as the role.
    pub(crate) fn login(&self, stage: &Stage, tenant: &str) -> Login {
        let tenant = stage.plan.tenant(tenant);
        Login {
            user: tenant.role(),
            password: tenant.server_password(),
            database: "app".to_owned(),
            version: 0x0003_0000,
            parameters: Vec::new(),
        }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The version line.
pub(crate) fn version() -> String {
    let output = Command::new(program()).arg("--version").output().expect("PgBouncer is not installed");
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

/// Since 1.21 it has prepared statements in transaction mode, if this is set.
fn knows_prepared_statements() -> bool {
    let version = version();
    let mut numbers = version.rsplit(' ').next().unwrap_or_default().split('.').flat_map(str::parse::<u32>);
    (numbers.next(), numbers.next()) >= (Some(1), Some(21))
}

fn ini(server_port: u16, port: u16, users_file: &Path, reset: Reset) -> String {
    let mut text = format!(
        "[databases]\napp = host=127.0.0.1 port={server_port} dbname=app pool_size={POOL_SIZE}\n\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\npool_mode = transaction\n\
         auth_type = scram-sha-256\nauth_file = {}\nmax_client_conn = 1000\nlog_connections = 0\n\
         log_disconnections = 0\nquery_wait_timeout = 30\n",
        users_file.display()
    );
    if knows_prepared_statements() {
        text.push_str("max_prepared_statements = 200\n");
    }
    if reset == Reset::Always {
        let _ = writeln!(text, "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1");
    }
    text
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// What `TENANTRY_TEST_PGBOUNCER` names, or Debian's, which lies where an ordinary user's PATH does not look.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TENANTRY_TEST_PGBOUNCER") {
        return named.into();
    }
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.is_file() { debian.to_owned() } else { PathBuf::from("pgbouncer") }
}
