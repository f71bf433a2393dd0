//! The configuration files of both proxies: the same work for both.
//!
//! Owns the texts. One worker each, SCRAM against a stored verifier towards clients and SCRAM towards Postgres (PgBouncer
//! with the keys of its clients, which needs the same verifier on both sides), the same numbers of servers, everything else
//! as it comes.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::postgres::{PASSWORD, Pool, role_verifier};

/// Files by name, and what to print of them.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) shown: String,
}

/// PgBouncer's two files.
pub(crate) fn pgbouncer(port: u16, server_port: u16, dir: &Path) -> Result<Texts> {
    let users_file = dir.join("userlist.txt").display().to_string();
    let ini = pgbouncer_ini(&port.to_string(), &server_port.to_string(), &users_file)?;
    let mut users = String::new();
    for pool in Pool::ALL {
        writeln!(users, "\"{}\" \"{}\"", pool.name(), role_verifier()?)?;
    }
    let shown = pgbouncer_ini("6432", "5432", "userlist.txt")?;
    Ok(Texts { files: vec![("pgbouncer.ini", ini), ("userlist.txt", users)], shown })
}

fn pgbouncer_ini(port: &str, server_port: &str, users_file: &str) -> Result<String> {
    let mut text = "[databases]\n".to_owned();
    for pool in Pool::ALL {
        let mode = match pool {
            Pool::Pooled => "transaction",
            Pool::Held => "session",
        };
        writeln!(
            text,
            "{name} = host=127.0.0.1 port={server_port} dbname=bench \
             pool_mode={mode} pool_size={servers}",
            name = pool.name(),
            servers = pool.servers(),
        )?;
    }
    write!(
        text,
        "\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {users_file}\nmax_client_conn = {MAX_CLIENTS}\n\
         log_connections = 0\nlog_disconnections = 0\nlisten_backlog = {BACKLOG}\n"
    )?;
    Ok(text)
}

/// Tenantry's one file.
pub(crate) fn tenantry(port: u16, server_port: u16) -> Result<Texts> {
    let text = tenantry_toml(port, server_port, &role_verifier()?, &format!("\"{PASSWORD}\""))?;
    let shown = tenantry_toml(6432, 5432, "SCRAM-SHA-256$...", "...")?;
    Ok(Texts { files: vec![("tenantry.toml", text)], shown })
}

fn tenantry_toml(port: u16, server_port: u16, verifier: &str, password: &str) -> Result<String> {
    let servers: u32 = Pool::ALL.map(Pool::servers).iter().sum();
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:{port}\"\nmax_clients = {MAX_CLIENTS}\nbacklog = {BACKLOG}\n\n\
         [threads]\nfront = 1\nworkers = 1\n\n\
         [http]\naddress = \"off\"\n\n[log]\nfilter = \"warn\"\n\n\
         [cluster.main]\nurl = \"postgres://127.0.0.1:{server_port}/bench?sslmode=disable\"\n\
         max_connections = {servers}\n"
    );
    for pool in Pool::ALL {
        write!(
            text,
            "\n[[tenant]]\nname = \"{name}\"\ncluster = \"main\"\nrole = \"{name}\"\nschema = \"{name}\"\n\
             limits = {{ share = {servers}, ceiling = {servers}, max_clients = {MAX_CLIENTS}, max_waiters = 100 }}\n\
             client_auth = {{ scram = \"{verifier}\" }}\nserver_auth = {{ password = {password} }}\n",
            name = pool.name(),
            servers = pool.servers(),
        )?;
    }
    Ok(text)
}

/// More than the idle clients.
const MAX_CLIENTS: usize = 12_000;
/// Enough for the logins in flight.
const BACKLOG: usize = 1_024;
