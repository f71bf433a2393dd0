//! The requests that the lean client sends: the same statement by three protocols.
//!
//! Owns the bytes. Must not know who sends them.

use anyhow::Result;

use crate::client::framed;
use crate::postgres::Pool;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Query.
    Simple,
    /// Parse (unnamed), Bind, Describe, Execute, Sync in one write.
    Extended,
    /// Parse (named) once; then Bind, Execute, Sync in one write.
    Prepared,
    /// Ten times what [`Self::Prepared`] sends, in one write: ten transactions.
    Pipeline,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Simple, Self::Extended, Self::Prepared, Self::Pipeline];
    /// Those that pgbench can send with its built-in scripts.
    pub(crate) const PGBENCH: [Self; 3] = [Self::Simple, Self::Extended, Self::Prepared];

    /// The name in tables, which is also pgbench's `-M` where it has one.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
            Self::Pipeline => "pipeline of 10",
        }
    }

    /// The pool: prepared statements need a server per client in PgBouncer 1.18, so both get that many.
    pub(crate) const fn pool(self) -> Pool {
        match self {
            Self::Simple | Self::Extended => Pool::Pooled,
            Self::Prepared | Self::Pipeline => Pool::Held,
        }
    }

    /// What a client sends once, before the first request.
    pub(crate) fn once(self, sql: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Simple | Self::Extended => Ok(None),
            Self::Prepared | Self::Pipeline => Ok(Some([parse("bench", sql)?, framed(b'S', &[])?].concat())),
        }
    }

    /// Transactions in one request.
    pub(crate) const fn transactions(self) -> usize {
        match self {
            Self::Simple | Self::Extended | Self::Prepared => 1,
            Self::Pipeline => PIPELINE,
        }
    }

    /// What a client sends at once.
    pub(crate) fn each(self, sql: &str) -> Result<Vec<u8>> {
        let describe = framed(b'D', b"P\0")?;
        // Portal and row limit: unnamed and none.
        let execute = framed(b'E', &[0, 0, 0, 0, 0])?;
        let sync = framed(b'S', &[])?;
        Ok(match self {
            Self::Simple => framed(b'Q', &[sql.as_bytes(), b"\0"].concat())?,
            Self::Extended => [parse("", sql)?, bind("")?, describe, execute, sync].concat(),
            Self::Prepared => [bind("bench")?, execute, sync].concat(),
            Self::Pipeline => [bind("bench")?, execute, sync].concat().repeat(PIPELINE),
        })
    }
}

fn parse(name: &str, sql: &str) -> Result<Vec<u8>> {
    // Name, text, and no parameter types.
    framed(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0", &[0, 0]].concat())
}

fn bind(name: &str) -> Result<Vec<u8>> {
    // Unnamed portal, statement name, no formats, no values, no result formats.
    framed(b'B', &[b"\0", name.as_bytes(), b"\0", &[0, 0, 0, 0, 0, 0]].concat())
}

const PIPELINE: usize = 10;
