//! Every tenant by name, in pieces: the page that may be a hundred megabytes and never is in memory at once.
//!
//! Owns the position in the page. The text format wants all samples of a family together, so the page goes family by
//! family and keeps the table until the reader has the last one; a slow reader is cut off at a deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::table::Table;
use super::tenants::{FAMILIES, INFO};
use super::text::{Dialect, TextWriter};
use crate::config::settings::Settings;
use crate::stats::WorkerReport;
use crate::tenant::Tier;

/// A reader of the whole page. Makes the next piece when the last one was read.
pub(in crate::telemetry) struct TenantPages<Hold> {
    table: Table,
    text: TextWriter,
    position: Option<Position>,
    piece: Vec<u8>,
    read: usize,
    deadline: Instant,
    _hold: Hold,
}

/// The next samples to write: which family (0 is the info) and which tenant.
#[derive(Clone, Copy)]
struct Position {
    family: usize,
    entry: usize,
}

impl<Hold> TenantPages<Hold> {
    /// All tenants, or those of a tier. `hold` is dropped with the page: a place among the streams.
    pub(in crate::telemetry) fn new(
        settings: Arc<Settings>,
        mut workers: Vec<WorkerReport>,
        tier: Option<Tier>,
        dialect: Dialect,
        deadline: Instant,
        hold: Hold,
    ) -> Self {
        let mut table = Table::new(settings, &mut workers);
        if let Some(tier) = tier {
            table.retain(|tenant| tenant.tier == tier);
        }
        let position = Some(Position { family: 0, entry: 0 });
        Self {
            table,
            text: TextWriter::new(dialect),
            position,
            piece: Vec::new(),
            read: 0,
            deadline,
            _hold: hold,
        }
    }

    /// Makes the next piece; an empty one is the end.
    fn refill(&mut self) {
        while self.text.len() < PIECE_BYTES {
            let Some(position) = self.position else { break };
            self.position = self.write(position);
        }
        self.piece = self.text.take().into_bytes();
        self.read = 0;
    }

    /// Writes one tenant's samples of one family and returns the position behind them.
    fn write(&mut self, position: Position) -> Option<Position> {
        let Position { family, entry } = position;
        let tenant_family = match family.checked_sub(1) {
            None => None,
            Some(index) => match FAMILIES.get(index) {
                Some(tenant_family) => Some(tenant_family),
                None => {
                    self.text.end();
                    return None;
                }
            },
        };
        if entry == 0 {
            self.text.family(tenant_family.map_or(&INFO, |tenant_family| &tenant_family.family));
        }
        let Some(row) = self.table.entries().get(entry) else {
            return Some(Position { family: family.saturating_add(1), entry: 0 });
        };
        match tenant_family {
            None => self.table.write_info(&mut self.text, &row.tenant),
            Some(tenant_family) => tenant_family.write(&mut self.text, &row.row()),
        }
        Some(Position { family, entry: entry.saturating_add(1) })
    }
}

impl<Hold: Unpin> AsyncRead for TenantPages<Hold> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let page = self.get_mut();
        if page.read >= page.piece.len() {
            if Instant::now() >= page.deadline {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the reader is too slow")));
            }
            page.refill();
        }
        let rest = page.piece.get(page.read..).unwrap_or_default();
        let now = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(now);
        page.read = page.read.saturating_add(now.len());
        Poll::Ready(Ok(()))
    }
}

/// Size at which a piece is handed out: a few socket buffers.
const PIECE_BYTES: usize = 64 * 1024;
