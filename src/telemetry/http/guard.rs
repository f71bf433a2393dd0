//! Connections that cannot cost much: few of them, small requests, and no standing still.
//!
//! Owns the limits below HTTP. Must not know HTTP: it sees only that bytes come (a request) and bytes go (an answer).
//!
//! | state | ends when |
//! |---|---|
//! | asking: bytes may come | bytes go; 16 KiB came; 15 s went by |
//! | answering: bytes go | bytes come again; 15 s without a byte leaving |
//!
//! So a request that drips in, an answer nobody reads and a connection nobody uses all end alike. A scraper that keeps
//! its connection longer than that between two scrapes finds it closed and opens another.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What a peer may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at the same time; further ones wait in the kernel's backlog.
    pub(super) connections: usize,
    /// Bytes that may come between two answers.
    pub(super) request_bytes: usize,
    /// Time without progress.
    pub(super) stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, request_bytes: 16 * 1024, stall: Duration::from_secs(15) }
    }
}

/// A listener whose connections keep the limits.
#[derive(Debug)]
pub(super) struct GuardedListener {
    inner: TcpListener,
    limits: Limits,
    places: Arc<Semaphore>,
}

impl GuardedListener {
    /// Guards a listener.
    pub(super) fn new(inner: TcpListener, limits: Limits) -> Self {
        Self { inner, limits, places: Arc::new(Semaphore::new(limits.connections)) }
    }
}

impl Listener for GuardedListener {
    type Io = Guarded<TcpStream>;
    type Addr = SocketAddr;

    /// Cancel-safe: a place is taken before a connection, and given back if none comes.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; if it were, nothing is accepted any more.
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return std::future::pending().await;
        };
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => return (Guarded::new(stream, self.limits, Some(place)), address),
                Err(error) => {
                    // Out of descriptors, or a peer that left at once: neither is a reason to stop for good.
                    tracing::warn!(reason = "http_accept", %error, "cannot accept an HTTP connection");
                    sleep(RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A stream that fails when it stands still or its peer asks for too much.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    limits: Limits,
    asked_bytes: usize,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Guarded<S> {
    fn new(inner: S, limits: Limits, place: Option<OwnedSemaphorePermit>) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + limits.stall));
        Self { inner, limits, asked_bytes: 0, deadline, _place: place }
    }

    fn answered(&mut self) {
        self.asked_bytes = 0;
        self.deadline.as_mut().reset(Instant::now() + self.limits.stall);
    }

    /// Pending until the time is up.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        let before = buf.filled().len();
        let Poll::Ready(result) = Pin::new(&mut guarded.inner).poll_read(cx, buf) else {
            return guarded.poll_stalled(cx);
        };
        let came = buf.filled().len().saturating_sub(before);
        guarded.asked_bytes = guarded.asked_bytes.saturating_add(came);
        if guarded.asked_bytes > guarded.limits.request_bytes {
            // A read that fails has read nothing.
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long")));
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guarded = self.get_mut();
        let Poll::Ready(result) = Pin::new(&mut guarded.inner).poll_write_vectored(cx, bufs) else {
            return guarded.poll_stalled(cx);
        };
        guarded.answered();
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Pause after a failed accept.
const RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// No time at all: whoever has to wait has waited too long.
    const IMPATIENT: Limits = Limits { connections: 1, request_bytes: 10, stall: Duration::ZERO };
    const PATIENT: Limits = Limits { stall: Duration::from_secs(3_600), ..IMPATIENT };

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_cut_off() {
        let (_peer, ours) = duplex(64);
        let error = Guarded::new(ours, IMPATIENT, None).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_nobody_reads_is_cut_off() {
        let (_peer, ours) = duplex(16);
        let error = Guarded::new(ours, IMPATIENT, None).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn only_an_answer_gives_new_time_and_new_bytes() {
        let (mut peer, ours) = duplex(64);
        let mut guarded = Guarded::new(ours, PATIENT, None);
        let first = guarded.deadline.deadline();
        let mut request = [0; 8];
        for _ in 0..3 {
            peer.write_all(b"request.").await.unwrap();
            let before = guarded.deadline.deadline();
            guarded.read_exact(&mut request).await.unwrap();
            assert_eq!(guarded.deadline.deadline(), before);
            guarded.write_all(b"answer").await.unwrap();
        }
        assert!(guarded.deadline.deadline() > first);
        peer.write_all(b"a request without end").await.unwrap();
        let error = guarded.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
