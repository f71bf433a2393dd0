//! One throwaway cluster: made by `initdb`, started, broken on purpose, restarted, removed.
//!
//! Owns the directory and the postmaster's process. `Drop` stops the server and removes everything; a guardian process
//! does the same if we are killed. Must not know who uses the cluster.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::account::Account;
use super::process::{self, Guardian};
use super::{ClusterOptions, NotFound, PgBin, find_postgres};

/// Rows as text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// A running Postgres of our own.
#[derive(Debug)]
pub struct Cluster {
    bin: PgBin,
    options: ClusterOptions,
    account: Account,
    dir: PathBuf,
    port: u16,
    password: String,
    postmaster: Option<Child>,
    _guardian: Guardian,
}

/// Why there is no cluster, or why it did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No binaries.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The operating system refused.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
    /// `initdb` failed.
    #[error("initdb failed:\n{0}")]
    Initdb(String),
    /// The server ended, or was not ready in time.
    #[error("Postgres did not start; its log:\n{0}")]
    Start(String),
    /// A statement failed.
    #[error("{0}")]
    Sql(#[from] tokio_postgres::Error),
}

/// How often a start is tried when another process takes the port in between.
const PORT_ATTEMPTS: u32 = 5;
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is asked.
const START_POLL: Duration = Duration::from_millis(20);
/// Longest part of the log that an error shows.
const LOG_TAIL: usize = 4_000;

impl Cluster {
    /// Makes a cluster and waits until it answers.
    ///
    /// # Errors
    /// If there are no binaries, or the server does not come up; the error holds its log.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        Self::start_with(find_postgres()?, options).await
    }

    /// The same with binaries of the caller's choice.
    ///
    /// # Errors
    /// If the server does not come up; the error holds its log.
    pub async fn start_with(bin: PgBin, options: ClusterOptions) -> Result<Self, ClusterError> {
        let account = Account::choose().map_err(|error| ClusterError::Io("choosing an account", error))?;
        let dir =
            make_dir(account).map_err(|error| ClusterError::Io("making a temporary directory", error))?;
        let guardian =
            Guardian::watch(&dir).map_err(|error| ClusterError::Io("starting the guardian", error))?;
        let password = format!("{:016x}", random());
        let mut cluster =
            Self { bin, options, account, dir, port: 0, password, postmaster: None, _guardian: guardian };
        cluster.make_data().await?;
        cluster.write_certificates().map_err(|error| ClusterError::Io("writing certificates", error))?;
        cluster.start_on_a_free_port().await?;
        Ok(cluster)
    }

    async fn start_on_a_free_port(&mut self) -> Result<(), ClusterError> {
        for attempt in 1..=PORT_ATTEMPTS {
            self.port = free_port().map_err(|error| ClusterError::Io("looking for a free port", error))?;
            match self.start_again().await {
                Err(ClusterError::Start(log))
                    if attempt < PORT_ATTEMPTS && log.contains("already in use") => {}
                outcome => return outcome,
            }
        }
        Err(ClusterError::Start(self.log_tail()))
    }

    /// A hot standby that streams from this cluster, which has to have `wal_level = replica`, `max_wal_senders`, and a line
    /// in its `pg_hba.conf` that lets `postgres` replicate over its socket.
    ///
    /// # Errors
    /// If it cannot be copied, or does not come up; the error holds its log.
    pub async fn standby(&self) -> Result<Self, ClusterError> {
        let account = self.account;
        let dir =
            make_dir(account).map_err(|error| ClusterError::Io("making a temporary directory", error))?;
        let guardian =
            Guardian::watch(&dir).map_err(|error| ClusterError::Io("starting the guardian", error))?;
        let (bin, options, password) = (self.bin.clone(), self.options.clone(), self.password.clone());
        let mut standby =
            Self { bin, options, account, dir, port: 0, password, postmaster: None, _guardian: guardian };
        let mut command = Command::new(self.bin.program("pg_basebackup"));
        command.arg("-D").arg(standby.dir.join("data")).arg("-h").arg(&self.dir);
        command.args(["-p", &self.port.to_string(), "-U", "postgres", "-R", "-X", "stream", "-c", "fast"]);
        command.stdin(Stdio::null()).current_dir(&standby.dir);
        account.apply(&mut command);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .map_err(|error| ClusterError::Io("copying a cluster", error))?;
        if !output.status.success() {
            return Err(ClusterError::Start(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        standby.write_certificates().map_err(|error| ClusterError::Io("writing certificates", error))?;
        standby.start_on_a_free_port().await?;
        Ok(standby)
    }

    /// The TCP port on 127.0.0.1; it stays the same across restarts.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The binaries it runs on.
    #[must_use]
    pub const fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// The password of the superuser `postgres`.
    #[must_use]
    pub fn admin_password(&self) -> &str {
        &self.password
    }

    /// The postmaster's process id, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    /// A URL of this server, without a password.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// All that the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.dir.join("log"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// A superuser's session, over the Unix socket. Its driver task ends with the client.
    ///
    /// # Errors
    /// If the server does not accept it.
    pub async fn admin(&self, database: &str) -> Result<tokio_postgres::Client, ClusterError> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.dir).port(self.port).user("postgres").dbname(database);
        config.connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Runs statements as superuser in the database `postgres` and returns the rows of all of them.
    ///
    /// # Errors
    /// If one of them fails.
    pub async fn psql(&self, sql: &str) -> Result<Rows, ClusterError> {
        self.psql_in("postgres", sql).await
    }

    /// Runs statements as superuser in a database and returns the rows of all of them.
    ///
    /// # Errors
    /// If one of them fails.
    pub async fn psql_in(&self, database: &str, sql: &str) -> Result<Rows, ClusterError> {
        let client = self.admin(database).await?;
        let messages = client.simple_query(sql).await?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect())
    }

    /// Stops the server in order (`fast`: sessions are ended, then a checkpoint). Nothing if it does not run.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        self.end_with("INT")
    }

    /// Kills the postmaster and every backend at once, as a power cut would.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn kill_9(&mut self) -> Result<(), ClusterError> {
        self.end_with("KILL")
    }

    /// Starts a stopped or killed server again, on the same port with the same data.
    ///
    /// # Errors
    /// If it does not come up; the error holds its log.
    pub async fn start_again(&mut self) -> Result<(), ClusterError> {
        self.write_config().map_err(|error| ClusterError::Io("writing the configuration", error))?;
        self.spawn().map_err(|error| ClusterError::Io("starting postgres", error))?;
        self.wait_until_ready().await
    }

    /// Stops and starts the server.
    ///
    /// # Errors
    /// If it does not come up; the error holds its log.
    pub async fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop()?;
        self.start_again().await
    }

    /// Stops the clock for the postmaster and every backend (SIGSTOP): connects hang, queries hang.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn freeze(&self) -> Result<(), ClusterError> {
        self.signal_all("STOP")
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn thaw(&self) -> Result<(), ClusterError> {
        self.signal_all("CONT")
    }

    /// Sends a signal (a name without SIG) to one backend, e.g. one found in `pg_stat_activity`.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn signal_backend(&self, name: &str, pid: u32) -> Result<(), ClusterError> {
        process::signal(name, &[pid]).map_err(|error| ClusterError::Io("sending a signal", error))
    }

    fn signal_all(&self, name: &str) -> Result<(), ClusterError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let mut pids = vec![pid];
        pids.extend(process::children(pid));
        process::signal(name, &pids).map_err(|error| ClusterError::Io("sending a signal", error))
    }

    fn end_with(&mut self, name: &str) -> Result<(), ClusterError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        if name == "KILL" {
            self.signal_all(name)?;
        } else {
            // A frozen server would not hear anything else.
            self.signal_all("CONT")?;
            process::signal(name, &[pid]).map_err(|error| ClusterError::Io("sending a signal", error))?;
        }
        if let Some(mut child) = self.postmaster.take() {
            child.wait().map_err(|error| ClusterError::Io("waiting for postgres", error))?;
        }
        Ok(())
    }

    /// Fills the data directory: by `initdb`, or by a copy of the template that an `initdb` left behind.
    async fn make_data(&mut self) -> Result<(), ClusterError> {
        let failed = |error| ClusterError::Io("copying the template", error);
        let (data, version) = (self.dir.join("data"), self.bin.version());
        let Some(template) = self.options.template.as_ref().map(|dir| dir.join(version)) else {
            return self.initdb(&data).await;
        };
        if !template.exists() {
            self.initdb(&data).await?;
            // Others may do the same at this moment: whoever renames first wins, the data is the same.
            let draft = template.with_extension(format!("{:016x}", random()));
            fs::create_dir_all(&draft).map_err(failed)?;
            fs::write(draft.join("password"), &self.password).map_err(failed)?;
            copy(&data, &draft.join("data")).await.map_err(failed)?;
            if fs::rename(&draft, &template).is_err() {
                let _ = fs::remove_dir_all(&draft);
            }
            return Ok(());
        }
        self.password = fs::read_to_string(template.join("password")).map_err(failed)?;
        copy(&template.join("data"), &data).await.map_err(failed)
    }

    async fn initdb(&self, data: &Path) -> Result<(), ClusterError> {
        let password_file = self.dir.join("password");
        self.write(&password_file, &self.password)
            .map_err(|error| ClusterError::Io("writing a password", error))?;
        let mut command = Command::new(self.bin.program("initdb"));
        command.arg("-D").arg(data).arg("--pwfile").arg(&password_file);
        command.args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256"]);
        command.stdin(Stdio::null()).current_dir(&self.dir);
        self.account.apply(&mut command);
        let output = tokio::process::Command::from(command)
            .output()
            .await
            .map_err(|error| ClusterError::Io("running initdb", error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(ClusterError::Initdb(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn write_config(&self) -> io::Result<()> {
        let data = self.dir.join("data");
        self.write(&data.join("postgresql.conf"), &self.options.postgresql_conf(self.port, &self.dir))?;
        self.write(&data.join("pg_hba.conf"), &self.options.pg_hba_conf())
    }

    fn write_certificates(&self) -> io::Result<()> {
        let Some(tls) = &self.options.tls else { return Ok(()) };
        self.write(&self.dir.join("server.crt"), &tls.cert_pem)?;
        self.write(&self.dir.join("server.key"), &tls.key_pem)?;
        match &tls.client_ca_pem {
            Some(pem) => self.write(&self.dir.join("client_ca.crt"), pem),
            None => Ok(()),
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.account.give(path)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let mut command = Command::new(self.bin.program("postgres"));
        command.arg("-D").arg(self.dir.join("data")).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Its own process group: Ctrl-C in a terminal is for us, and we stop the server in order.
        command.process_group(0);
        self.account.apply(&mut command);
        self.postmaster = Some(command.spawn()?);
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<(), ClusterError> {
        let ready = tokio::time::timeout(START_LIMIT, async {
            let mut poll = tokio::time::interval(START_POLL);
            loop {
                poll.tick().await;
                if self.has_ended() {
                    return false;
                }
                if self.psql("SELECT 1").await.is_ok() {
                    return true;
                }
            }
        });
        match ready.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(ClusterError::Start(self.log_tail())),
        }
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.postmaster.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.postmaster = None;
        }
        ended
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_TAIL);
        let start = (start..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        log.get(start..).unwrap_or_default().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the guardian tries once more when its pipe closes.
        let _ = self.end_with("QUIT");
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new directory that the account owns and can reach. Kept short: a Unix socket's path has at most 107 bytes.
fn make_dir(account: Account) -> io::Result<PathBuf> {
    let temp = std::env::temp_dir();
    let base = if account.may_enter(&temp) { temp } else { PathBuf::from("/tmp") };
    let dir = base.join(format!("tenantry-pg-{:08x}", random() >> 32));
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    account.give(&dir)?;
    Ok(dir)
}

/// Copies a directory with owners and modes.
async fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let output = tokio::process::Command::new("cp").arg("-a").arg(from).arg(to).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Different in every call and every process; good enough for names and passwords that live for minutes.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests;
