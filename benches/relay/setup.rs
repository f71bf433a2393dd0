//! What the proxies are configured for: the same tenants in both, with or without TLS.
//!
//! Owns the tenants' names, limits and secrets. Must not know how either proxy writes them down.

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::postgres::{PASSWORD, Pool, role_verifier};

/// Whether clients and servers talk TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Legs {
    /// Neither does.
    Plain,
    /// Both do, and nobody is let in without.
    Tls,
}

/// Which of PgBouncer's modes an entry uses; Tenantry stays in transaction mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Transaction,
    Session,
}

/// A tenant of Tenantry, and a database and a user of PgBouncer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Of the tenant, its role and its schema.
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) servers: u32,
    /// Workers of Tenantry that have its clients.
    pub(crate) workers: u32,
    pub(crate) verifier: String,
    pub(crate) password: String,
}

/// The configuration of both.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) entries: Vec<Entry>,
    /// Server connections in all.
    pub(crate) budget: u32,
    pub(crate) legs: Legs,
    /// Workers of Tenantry, or processes of PgBouncer, which then share the servers.
    pub(crate) cores: u32,
    /// All are users of one database, whose servers PgBouncer counts together; and its `pool_size`.
    pub(crate) pool_size: Option<u32>,
}

impl Setup {
    /// The two pools of most parts.
    pub(crate) fn pools(legs: Legs) -> Result<Self> {
        Ok(Self::of_pools(legs, &role_verifier()?, PASSWORD))
    }

    /// Very many tenants, each with a verifier and a password of its own, whose roles do not exist.
    pub(crate) fn catalog(tenants: usize) -> Self {
        let entry = |number| {
            let name = format!("customer{number:06}");
            // A verifier by PBKDF2 takes a millisecond; this one looks the same and lets nobody in.
            let text = |what: &str| digest(&SHA256, format!("{name} {what}").as_bytes());
            let [salt, stored, server, password] = ["salt", "stored", "server", "password"].map(text);
            let verifier = format!(
                "SCRAM-SHA-256$4096:{}${}:{}",
                STANDARD.encode(salt.as_ref().get(..SALT).unwrap_or_default()),
                STANDARD.encode(stored.as_ref()),
                STANDARD.encode(server.as_ref()),
            );
            let password = STANDARD.encode(password.as_ref().get(..PASSWORD_BYTES).unwrap_or_default());
            Entry { name, mode: Mode::Transaction, servers: 5, workers: 1, verifier, password }
        };
        Self {
            entries: (0..tenants).map(entry).collect(),
            budget: 100,
            legs: Legs::Plain,
            cores: 1,
            pool_size: None,
        }
    }

    /// The same and one tenant more, whose role exists.
    pub(crate) fn with_pool(&self, pool: Pool) -> Result<Self> {
        let mut all = self.clone();
        all.entries
            .extend(Self::pools(self.legs)?.entries.into_iter().filter(|entry| entry.name == pool.name()));
        Ok(all)
    }

    /// The same for a reader, without secrets.
    pub(crate) fn shown() -> Self {
        Self::of_pools(Legs::Plain, "SCRAM-SHA-256$...", "...")
    }

    /// Users of one database with that many servers in all, and nothing else said of them.
    pub(crate) fn users_of_one_database(names: &[String], budget: u32, pool_size: u32) -> Result<Self> {
        Ok(Self { budget, pool_size: Some(pool_size), ..Self::crowd(names)? })
    }

    /// Tenants that keep one server each.
    pub(crate) fn crowd(names: &[String]) -> Result<Self> {
        let verifier = role_verifier()?;
        let entry = |name: &String| Entry {
            name: name.clone(),
            mode: Mode::Transaction,
            servers: 1,
            workers: 1,
            verifier: verifier.clone(),
            password: PASSWORD.to_owned(),
        };
        let entries = names.iter().map(entry).collect();
        Ok(Self {
            entries,
            budget: u32::try_from(names.len())?,
            legs: Legs::Plain,
            cores: 1,
            pool_size: None,
        })
    }

    fn of_pools(legs: Legs, verifier: &str, password: &str) -> Self {
        let entries = Pool::ALL.map(|pool| Entry {
            name: pool.name().to_owned(),
            mode: match pool {
                Pool::Pooled => Mode::Transaction,
                Pool::Held => Mode::Session,
            },
            servers: pool.servers(),
            workers: 1,
            verifier: verifier.to_owned(),
            password: password.to_owned(),
        });
        let budget = Pool::ALL.map(Pool::servers).iter().sum();
        Self { entries: entries.to_vec(), budget, legs, cores: 1, pool_size: None }
    }
}

/// Bytes of a salt, as Postgres makes it.
const SALT: usize = 16;
/// Random bytes of a password, before they are written as letters.
const PASSWORD_BYTES: usize = 24;
