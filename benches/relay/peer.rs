//! The proxies and the bare relay, as processes of their own.
//!
//! Owns their configuration files, starting them, and stopping them. Must not know what is measured.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::certificate::{Encryption, Sessions};
use crate::client::Login;
use crate::clock::now;
use crate::instructions::DUMP;
use crate::notify::Notices;
use crate::peer_config::{self, CERT_FILE, KEY_FILE, Ports};
use crate::pinning::Pinning;
use crate::postgres::{DATABASE, Database, PASSWORD, Pool};
use crate::scram::Password;
use crate::setup::{Legs, Setup};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tenantry,
    /// Tenantry with the epoll driver, whatever else the system has.
    Epoll,
    PgBouncer,
    /// A relay that copies bytes.
    Floor,
    /// Tenantry, its instructions counted.
    Counted,
}

/// A program and its name in tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
}

/// A running proxy. Dropping it ends the process.
pub(crate) struct Peer {
    /// Name in tables.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    child: Child,
    /// Further processes on the same port.
    helpers: Vec<Child>,
    address: SocketAddr,
    dir: tempfile::TempDir,
    legs: Legs,
    /// What it tells its service manager, if somebody listens: PgBouncer waits for a manager that does not read.
    notices: Option<Notices>,
    start_time: Duration,
}

impl Peer {
    /// Starts a proxy in front of the database and waits until it accepts.
    pub(crate) fn start(side: Side, pinning: Pinning, database: &Database, setup: &Setup) -> Result<Self> {
        Self::launch(side, pinning, database, setup, false)
    }

    /// The same for a short life under a service manager: [`Self::wait_until_ready`].
    pub(crate) fn start_managed(
        side: Side,
        pinning: Pinning,
        database: &Database,
        setup: &Setup,
    ) -> Result<Self> {
        Self::launch(side, pinning, database, setup, true)
    }

    fn launch(
        side: Side,
        pinning: Pinning,
        database: &Database,
        setup: &Setup,
        is_managed: bool,
    ) -> Result<Self> {
        let Side { kind, name } = side;
        let dir = tempfile::Builder::new().prefix("tenantry-bench-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let ports = Ports { proxy: free_port()?, postgres: database.port() };
        write(dir.path(), &peer_config::files(kind, setup, ports, dir.path())?)?;
        if setup.legs == Legs::Tls {
            let identity = database.identity();
            write(dir.path(), &[(CERT_FILE, identity.cert.clone()), (KEY_FILE, identity.key.clone())])?;
        }
        let notices = is_managed.then(|| Notices::listen(dir.path())).transpose()?;
        let log = fs::File::create(dir.path().join("log"))?;
        let mut command = match kind {
            Kind::Floor => floor(pinning, ports)?,
            Kind::Tenantry | Kind::Epoll => tenantry(pinning, dir.path()),
            Kind::Counted => counted(dir.path()),
            Kind::PgBouncer => pgbouncer(pinning, dir.path()),
        };
        if kind == Kind::Epoll {
            command.env("TENANTRY_THREADS__DRIVER", "epoll");
        }
        if let Some(notices) = &notices {
            command.env("NOTIFY_SOCKET", notices.path());
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let start = now();
        let mut start_one = || command.spawn().with_context(|| format!("starting {name}"));
        let child = start_one()?;
        let processes = if kind == Kind::PgBouncer { setup.cores } else { 1 };
        let helpers = (1..processes).map(|_| start_one()).collect::<Result<_>>()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.proxy));
        let (start_time, legs) = (Duration::ZERO, setup.legs);
        let mut peer = Self { name, kind, child, helpers, address, dir, legs, notices, start_time };
        peer.wait_until_it_accepts()?;
        peer.start_time = start.elapsed();
        Ok(peer)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All processes of it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        std::iter::once(&self.child).chain(&self.helpers).map(Child::id).collect()
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a client of that pool logs in, with a TLS session of its own where the proxy wants TLS.
    pub(crate) fn login(&self, pool: Pool) -> Result<Login> {
        self.login_with(pool, Sessions::Forgotten)
    }

    /// The same with a choice.
    pub(crate) fn login_with(&self, pool: Pool, sessions: Sessions) -> Result<Login> {
        self.login_of(pool.name(), self.database(pool), sessions)
    }

    /// How a client of any other tenant logs in.
    pub(crate) fn login_as(&self, tenant: &str) -> Result<Login> {
        self.login_of(tenant, tenant, Sessions::Forgotten)
    }

    /// How a client of a role logs in to a database.
    pub(crate) fn login_to(&self, user: &str, database: &str) -> Result<Login> {
        self.login_of(user, database, Sessions::Forgotten)
    }

    /// A login of any role, all of which have the same password.
    fn login_of(&self, user: &str, database: &str, sessions: Sessions) -> Result<Login> {
        Ok(Login {
            address: self.address,
            user: user.to_owned(),
            database: database.to_owned(),
            password: Password::new(PASSWORD.to_owned()),
            encryption: match self.legs {
                Legs::Plain => None,
                Legs::Tls => Some(Encryption::new(sessions)?),
            },
        })
    }

    /// From its start until it accepted.
    pub(crate) const fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Writes another configuration, which a reload will find.
    pub(crate) fn configure(&self, database: &Database, setup: &Setup) -> Result<()> {
        let ports = Ports { proxy: self.address.port(), postgres: database.port() };
        write(self.dir.path(), &peer_config::files(self.kind, setup, ports, self.dir.path())?)
    }

    /// Lets it reload.
    pub(crate) fn hang_up(&self) -> Result<()> {
        let status = Command::new("kill").args(["-HUP", &self.pid().to_string()]).status()?;
        ensure!(status.success(), "{} cannot be signalled", self.name);
        Ok(())
    }

    /// Waits for the next word of a managed proxy that it is ready, after its start or a reload.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        self.notices.as_ref().context("nobody listens to what it tells a manager")?.wait_until_ready()
    }

    /// Whether clients must talk TLS.
    pub(crate) const fn legs(&self) -> Legs {
        self.legs
    }

    /// The database that a client of that pool names: the relay has no pools, and no names of its own.
    pub(crate) const fn database(&self, pool: Pool) -> &'static str {
        match self.kind {
            Kind::Tenantry | Kind::Epoll | Kind::PgBouncer | Kind::Counted => pool.name(),
            Kind::Floor => DATABASE,
        }
    }

    fn wait_until_it_accepts(&mut self) -> Result<()> {
        let start = now();
        while start.elapsed() < START_LIMIT {
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                break;
            }
            sleep(START_POLL);
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        bail!("{} does not accept connections; its log:\n{log}", self.name)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        for child in std::iter::once(&mut self.child).chain(&mut self.helpers) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The version line of PgBouncer.
pub(crate) fn pgbouncer_version() -> Result<String> {
    let output =
        Command::new(pgbouncer_program()).arg("--version").output().context("PgBouncer is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn tenantry(pinning: Pinning, dir: &Path) -> Command {
    let mut command = pinning.proxy(tenantry_program());
    command.arg("serve").arg("--config").arg(dir.join("tenantry.toml"));
    command
}

fn counted(dir: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--instr-atstart=no"]);
    command.arg(format!("--callgrind-out-file={}", dir.join(DUMP).display())).arg(tenantry_program());
    command.arg("serve").arg("--config").arg(dir.join("tenantry.toml"));
    command
}

fn pgbouncer(pinning: Pinning, dir: &Path) -> Command {
    let mut command = pinning.proxy(pgbouncer_program());
    if we_are_root() {
        // It refuses to run as root, and changes to this user by itself.
        command.args(["-u", "postgres"]);
    }
    command.arg(dir.join("pgbouncer.ini"));
    command
}

/// This same program.
fn floor(pinning: Pinning, ports: Ports) -> Result<Command> {
    let mut command = pinning.proxy(std::env::current_exe()?);
    command.args(["--floor", &ports.proxy.to_string(), &ports.postgres.to_string()]);
    Ok(command)
}

/// The binary of this build, or the one that `BENCH_TENANTRY` names.
fn tenantry_program() -> PathBuf {
    std::env::var_os("BENCH_TENANTRY").map_or_else(|| env!("CARGO_BIN_EXE_tenantry").into(), PathBuf::from)
}

fn pgbouncer_program() -> PathBuf {
    // Debian keeps it where an ordinary user's PATH does not look.
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.is_file() { debian.to_owned() } else { PathBuf::from("pgbouncer") }
}

fn we_are_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Writes files that the proxy may read whatever user it becomes.
fn write(dir: &Path, files: &[(&str, String)]) -> Result<()> {
    for (file, text) in files {
        let path = dir.join(file);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

const START_POLL: Duration = Duration::from_millis(1);
const START_LIMIT: Duration = Duration::from_secs(30);
