//! A gigabyte through a query and through COPY.
//!
//! Owns the statements. Rows are made by Postgres as it sends them and thrown away as it receives them, so that no
//! disk is measured.

use anyhow::Result;

use crate::client::{Client, framed};
use crate::clock::now;
use crate::peer::Peer;
use crate::postgres::Pool;
use crate::procfs;

/// What is transferred.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transfer {
    /// Few rows of 1 MB.
    WideRows,
    /// Rows of about 100 bytes.
    NarrowRows,
    /// `COPY ... TO STDOUT`, lines of 8 kB.
    CopyOut,
    /// `COPY ... FROM STDIN`, lines of 8 kB.
    CopyIn,
}

/// What one transfer gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkRun {
    pub(crate) bytes: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) seconds: f64,
}

impl Transfer {
    pub(crate) const ALL: [Self; 4] = [Self::WideRows, Self::NarrowRows, Self::CopyOut, Self::CopyIn];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WideRows => "query, rows of 1 MB",
            Self::NarrowRows => "query, rows of 100 bytes",
            Self::CopyOut => "COPY out, lines of 8 kB",
            Self::CopyIn => "COPY in, lines of 8 kB",
        }
    }

    /// At most this many times what PgBouncer and the relay need.
    pub(crate) const fn limits(self) -> [f64; 2] {
        match self {
            Self::WideRows => [0.4, 1.25],
            Self::NarrowRows => [0.7, 1.3],
            Self::CopyOut => [0.6, 1.1],
            Self::CopyIn => [0.6, 1.3],
        }
    }

    /// Sends `bytes` bytes through a proxy.
    pub(crate) async fn run(self, peer: &Peer, bytes: u64) -> Result<BulkRun> {
        let mut client = Client::login(&peer.login(Pool::Pooled)?, 0).await?;
        // The server connection is made, and its login paid, before the measurement.
        client.exchange(&query("SELECT 1")?).await?;
        let (start, cpu) = (now(), procfs::cpu_ns(peer.pid())?);
        let moved = match self {
            Self::CopyIn => copy_in(&mut client, bytes).await?,
            Self::WideRows | Self::NarrowRows | Self::CopyOut => {
                client.send(&query(&self.sql(bytes))?).await?;
                client.finish(&mut vec![0; READ], 1).await?
            }
        };
        let run = BulkRun {
            bytes: moved,
            cpu_ns: procfs::cpu_ns(peer.pid())? - cpu,
            seconds: start.elapsed().as_secs_f64(),
        };
        client.close().await?;
        Ok(run)
    }

    fn sql(self, bytes: u64) -> String {
        match self {
            Self::WideRows => {
                let rows = bytes / 1_000_000;
                format!("SELECT repeat('x', 1000000) FROM generate_series(1, {rows})")
            }
            Self::NarrowRows => {
                let rows = bytes / 100;
                format!("SELECT generate_series(1, {rows}), repeat('x', 77)")
            }
            Self::CopyOut => {
                let rows = bytes / LINE;
                format!("COPY (SELECT repeat('x', {}) FROM generate_series(1, {rows})) TO STDOUT", LINE - 1)
            }
            Self::CopyIn => "COPY sink FROM STDIN WHERE false".to_owned(),
        }
    }
}

/// Sends lines that a `WHERE false` discards.
async fn copy_in(client: &mut Client, bytes: u64) -> Result<u64> {
    client.send(&query(&Transfer::CopyIn.sql(bytes))?).await?;
    let mut answers = vec![0; READ];
    client.finish(&mut answers, 1).await?;
    let mut line = vec![b'x'; usize::try_from(LINE)? - 1];
    line.push(b'\n');
    let message = framed(b'd', &line)?;
    let block = message.repeat(MESSAGES_PER_WRITE);
    let mut sent = 0;
    while sent < bytes {
        client.send(&block).await?;
        sent += u64::try_from(block.len())?;
    }
    client.exchange(&framed(b'c', &[])?).await?;
    Ok(sent)
}

fn query(sql: &str) -> Result<Vec<u8>> {
    framed(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

const LINE: u64 = 8_192;
const MESSAGES_PER_WRITE: usize = 8;
const READ: usize = 256 * 1_024;
