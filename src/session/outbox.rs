//! Bytes on their way to one side.
//!
//! Owns what a short write left over. While something is left over, the other side is not read: so it never holds
//! more than one pass over the scratch buffer produced.

use std::io;
use std::task::{Context, Poll, ready};

use crate::net::Stream;

/// Bytes that could not be written yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    /// TLS has taken bytes that it has not put on the wire.
    unflushed: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Takes note of bytes that were queued and that the kernel did not take.
    pub(super) fn look(&mut self, stream: &Stream) {
        self.unflushed |= stream.has_unsent();
    }

    /// Whether anything waits, also of what was queued and not taken by the kernel.
    pub(super) fn has_more(&mut self, stream: &Stream) -> bool {
        self.look(stream);
        !self.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.written)
    }

    /// Writes `bytes` behind what waits already; keeps what the socket does not take.
    ///
    /// # Errors
    /// If the connection is gone.
    pub(super) fn send(&mut self, stream: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.is_empty() && !self.unflushed && stream.queue(cx, bytes) {
            return Ok(());
        }
        self.send_now(stream, cx, bytes)
    }

    /// As [`Self::send`], and on a plain socket at once: what others of this thread send is not waited for.
    ///
    /// # Errors
    /// If the connection is gone.
    pub(super) fn send_now(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut rest = bytes;
        if self.bytes.is_empty() {
            while !rest.is_empty() {
                match stream.poll_write(cx, rest)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => rest = rest.get(written..).unwrap_or_default(),
                    Poll::Pending => break,
                }
            }
            self.unflushed = stream.is_tls();
        }
        if !rest.is_empty() {
            self.bytes.extend_from_slice(rest);
        }
        // On a plain socket there is nothing to flush, and what was left over waits for the socket.
        if self.unflushed && self.bytes.is_empty() && stream.poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    /// Writes on until nothing waits.
    pub(super) fn poll_drain(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(stream.poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written = self.written.saturating_add(written),
            }
            self.unflushed = stream.is_tls();
        }
        // The memory goes back: an idle client owns no buffer.
        self.bytes = Vec::new();
        self.written = 0;
        if self.unflushed {
            ready!(stream.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
