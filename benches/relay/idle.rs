//! Idle clients by the thousand, held by processes of their own, and what each costs the proxy in memory.
//!
//! Owns the holder processes: this same program, called with `--hold`. A process may have only so many files open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::LocalSet;

use crate::certificate::{Encryption, Sessions};
use crate::client::{Client, Login};
use crate::million;
use crate::output;
use crate::peer::Peer;
use crate::postgres::Pool;
use crate::procfs::{self, Memory};
use crate::scram::Password;
use crate::setup::Legs;
use crate::shape::Shape;

/// What the proxy's memory was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleRun {
    /// Before the idle clients came; one client had come and gone.
    pub(crate) before: Memory,
    /// With all of them authenticated.
    pub(crate) logged_in: Memory,
    /// After each of them sent one query.
    pub(crate) queried: Memory,
}

/// Lets `clients` clients log in at a proxy that has just been started, and looks at its memory.
pub(crate) async fn measure(peer: &Peer, clients: usize) -> Result<IdleRun> {
    let mut first = Client::login(&peer.login(Pool::Pooled)?, 0).await?;
    first.exchange(&Shape::Simple.each("SELECT 1")?).await?;
    first.close().await?;
    let before = procfs::memory(peer.pid())?;
    let mut holders = Vec::new();
    let mut left = clients;
    while left > 0 {
        let count = left.min(PER_HOLDER);
        holders.push(Holder::spawn(peer.address(), count, peer.legs())?);
        left -= count;
    }
    for holder in &mut holders {
        holder.wait_for(LOGGED_IN)?;
    }
    let logged_in = procfs::memory(peer.pid())?;
    for holder in &mut holders {
        holder.say("query")?;
        holder.wait_for(QUERIED)?;
    }
    let queried = procfs::memory(peer.pid())?;
    Ok(IdleRun { before, logged_in, queried })
}

/// The life of a holder process: logs in, reports, sends one query each when told, reports, waits for its input to end.
pub(crate) async fn hold(arguments: &[String]) -> Result<()> {
    let (address, count, encryption) = match arguments {
        [address, count] => (address, count, None),
        [address, count, tls] if tls == TLS => (address, count, Some(Encryption::new(Sessions::Forgotten)?)),
        _ => bail!("--hold needs an address and a number, and may be told `{TLS}`"),
    };
    let pool = Pool::Pooled.name().to_owned();
    let login = Login {
        address: address.parse::<SocketAddr>()?,
        user: pool.clone(),
        database: pool,
        password: Password::new(crate::postgres::PASSWORD.to_owned()),
        encryption,
    };
    let login = Rc::new(login);
    let mut clients = LocalSet::new().run_until(log_in_many(|_| Rc::clone(&login), count.parse()?)).await?;
    output::line(LOGGED_IN);
    let mut input = std::io::stdin().lock();
    let mut command = String::new();
    input.read_line(&mut command)?;
    let request = Shape::Simple.each("SELECT 1")?;
    for client in &mut clients {
        client.exchange(&request).await?;
    }
    output::line(QUERIED);
    // Ends when the parent closes the pipe, or dies.
    input.read_to_string(&mut command)?;
    Ok(())
}

/// The life of a holder of many tenants' clients: logs in, reports, waits for its input to end.
pub(crate) async fn hold_many(arguments: &[String]) -> Result<()> {
    let [address, count, first, tenants] = arguments else {
        bail!("--hold-many needs an address and three numbers")
    };
    let (first, tenants): (usize, usize) = (first.parse()?, tenants.parse()?);
    let address = address.parse::<SocketAddr>()?;
    let login = |number: usize| {
        let name = million::name((first + number) % tenants);
        Rc::new(Login {
            address,
            user: name.clone(),
            database: name,
            password: Password::new(crate::postgres::PASSWORD.to_owned()),
            encryption: None,
        })
    };
    let clients = LocalSet::new().run_until(log_in_many(login, count.parse()?)).await?;
    output::line(LOGGED_IN);
    std::io::stdin().lock().read_to_string(&mut String::new())?;
    drop(clients);
    Ok(())
}

async fn log_in_many(login: impl Fn(usize) -> Rc<Login>, count: usize) -> Result<Vec<Client>> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut clients = Vec::with_capacity(count);
    for nonce in 0..count {
        if tasks.len() >= IN_FLIGHT {
            let done = tasks.join_next().await.context("a login is in flight")?;
            clients.push(done??);
        }
        let login = login(nonce);
        tasks.spawn_local(async move { Client::login(&login, u64::try_from(nonce)?).await });
    }
    while let Some(done) = tasks.join_next().await {
        clients.push(done??);
    }
    Ok(clients)
}

/// A process that holds clients until it is dropped.
pub(crate) struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn spawn(address: SocketAddr, count: usize, legs: Legs) -> Result<Self> {
        let tls: &[&str] = match legs {
            Legs::Plain => &[],
            Legs::Tls => &[TLS],
        };
        Self::start(&[&["--hold", &address.to_string(), &count.to_string()], tls].concat())
    }

    /// One for clients of many tenants: their number, which is the first, and how many tenants there are.
    pub(crate) fn of_many(address: SocketAddr, [count, first, tenants]: &[String; 3]) -> Result<Self> {
        Self::start(&["--hold-many", &address.to_string(), count, first, tenants])
    }

    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { child, output })
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its input is a pipe")?;
        writeln!(input, "{word}").context("a holder of idle clients has ended")
    }

    /// Waits until it says this.
    pub(crate) fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == word, "a holder of idle clients failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

const PER_HOLDER: usize = 5_000;
const IN_FLIGHT: usize = 16;
const TLS: &str = "tls";
/// What a holder says when all its clients are logged in.
pub(crate) const LOGGED_IN: &str = "logged in";
const QUERIED: &str = "queried";
