//! The configuration files of both proxies: the same work for both.
//!
//! Owns the texts. As many workers as processes, SCRAM against a stored verifier towards clients and SCRAM towards Postgres
//! (PgBouncer with the keys of its clients, which needs the same verifier on both sides), the same numbers of servers,
//! everything else as it comes.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::peer::Kind;
use crate::setup::{Legs, Mode, Setup};

/// Files by name.
pub(crate) type Files = Vec<(&'static str, String)>;

/// The ports that a configuration names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// Of the proxy.
    pub(crate) proxy: u16,
    /// Of Postgres.
    pub(crate) postgres: u16,
}

/// The files of a proxy, which are to lie in `dir`; the relay has none.
pub(crate) fn files(kind: Kind, setup: &Setup, ports: Ports, dir: &Path) -> Result<Files> {
    Ok(match kind {
        Kind::Tenantry | Kind::Epoll | Kind::Counted => vec![("tenantry.toml", tenantry(setup, ports)?)],
        Kind::PgBouncer => vec![
            ("pgbouncer.ini", pgbouncer(setup, ports, &|file| dir.join(file).display().to_string())?),
            ("userlist.txt", users(setup)?),
        ],
        Kind::Floor => Vec::new(),
    })
}

/// What to print of the usual configuration.
pub(crate) fn shown(kind: Kind) -> Result<String> {
    let (setup, ports) = (Setup::shown(), Ports { proxy: 6432, postgres: 5432 });
    match kind {
        Kind::Tenantry | Kind::Epoll | Kind::Counted => tenantry(&setup, ports),
        Kind::PgBouncer => pgbouncer(&setup, ports, &str::to_owned),
        Kind::Floor => Ok(String::new()),
    }
}

fn pgbouncer(setup: &Setup, ports: Ports, path: &dyn Fn(&str) -> String) -> Result<String> {
    let mut text = "[databases]\n".to_owned();
    if let Some(pool_size) = setup.pool_size {
        writeln!(
            text,
            "bench = host=127.0.0.1 port={} dbname=bench pool_mode=transaction pool_size={pool_size} \
             max_db_connections={}",
            ports.postgres, setup.budget
        )?;
    }
    let entries = if setup.pool_size.is_some() { &[][..] } else { &setup.entries };
    for entry in entries {
        let mode = match entry.mode {
            Mode::Transaction => "transaction",
            Mode::Session => "session",
        };
        writeln!(
            text,
            "{name} = host=127.0.0.1 port={port} dbname=bench pool_mode={mode} pool_size={servers}",
            name = entry.name,
            port = ports.postgres,
            servers = entry.servers / setup.cores,
        )?;
    }
    write!(
        text,
        "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {users}\nmax_client_conn = {MAX_CLIENTS}\n\
         log_connections = 0\nlog_disconnections = 0\nlisten_backlog = {BACKLOG}\n",
        port = ports.proxy,
        users = path("userlist.txt"),
    )?;
    if setup.pool_size.is_some() {
        // As long as Tenantry's clients wait.
        text.push_str("query_wait_timeout = 5\n");
    }
    if setup.cores > 1 {
        text.push_str("so_reuseport = 1\n");
    }
    match setup.legs {
        Legs::Plain => text.push_str("server_tls_sslmode = disable\n"),
        Legs::Tls => write!(
            text,
            "client_tls_sslmode = require\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n\
             server_tls_sslmode = require\n",
            path(CERT_FILE),
            path(KEY_FILE),
        )?,
    }
    Ok(text)
}

fn users(setup: &Setup) -> Result<String> {
    let mut text = String::new();
    for entry in &setup.entries {
        writeln!(text, "\"{}\" \"{}\"", entry.name, entry.verifier)?;
    }
    Ok(text)
}

fn tenantry(setup: &Setup, ports: Ports) -> Result<String> {
    let (listen_tls, sslmode) = match setup.legs {
        Legs::Plain => (String::new(), "disable"),
        Legs::Tls => {
            let section =
                format!("[listen.tls]\nmode = \"require\"\ncert = \"{CERT_FILE}\"\nkey = \"{KEY_FILE}\"\n\n");
            (section, "require")
        }
    };
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:{proxy}\"\nmax_clients = {MAX_CLIENTS}\nbacklog = {BACKLOG}\n\n\
         {listen_tls}[threads]\nfront = 1\nworkers = {workers}\n\n\
         [http]\naddress = \"off\"\n\n[log]\nfilter = \"warn\"\n\n\
         [cluster.main]\nurl = \"postgres://127.0.0.1:{postgres}/bench?sslmode={sslmode}\"\n\
         max_connections = {budget}\n",
        proxy = ports.proxy,
        postgres = ports.postgres,
        budget = setup.budget,
        workers = setup.cores,
    );
    for entry in &setup.entries {
        let limits = match setup.pool_size {
            Some(_) => String::new(),
            None => format!(
                "limits = {{ share = {servers}, ceiling = {servers}, max_clients = {MAX_CLIENTS}, max_waiters = 100 }}\n",
                servers = entry.servers
            ),
        };
        write!(
            text,
            "\n[[tenant]]\nname = \"{name}\"\ncluster = \"main\"\nrole = \"{name}\"\nschema = \"{name}\"\n{limits}\
             client_auth = {{ scram = \"{verifier}\" }}\nserver_auth = {{ password = \"{password}\" }}\n",
            name = entry.name,
            verifier = entry.verifier,
            password = entry.password,
        )?;
        if entry.workers > 1 {
            writeln!(text, "workers = {}", entry.workers)?;
        }
    }
    Ok(text)
}

/// The proxies' certificate and key, where they use TLS.
pub(crate) const CERT_FILE: &str = "server.crt";
pub(crate) const KEY_FILE: &str = "server.key";
/// More than the idle clients.
const MAX_CLIENTS: usize = 19_000;
/// Enough for the logins in flight.
const BACKLOG: usize = 1_024;
