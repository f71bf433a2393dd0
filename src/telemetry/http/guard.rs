//! Connections that cannot cost much: few of them, small requests, and no standing still.
//!
//! Owns the limits below HTTP. Must not know HTTP: it sees only that bytes come (a request) and bytes go (an answer).
//!
//! | state | ends when |
//! |---|---|
//! | asking: a request may come | it is whole; 16 KiB came; 5 s went by; its place is wanted (`places`) |
//! | answering: bytes are to go | they went; 15 s without a byte leaving; its place is wanted and nobody asks |
//!
//! So a request that drips in, an answer nobody reads and a connection nobody uses all end alike. A scraper that keeps
//! its connection longer than that between two scrapes finds it closed and opens another.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::places::{Activity, Place, Places};

/// What a peer may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at the same time; one more takes the place of one that does not get on.
    pub(super) connections: usize,
    /// Bytes that may come between two answers.
    pub(super) request_bytes: usize,
    /// Time to ask.
    pub(super) asking: Duration,
    /// Time in which nothing of an answer leaves.
    pub(super) stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (asking, stall) = (Duration::from_secs(5), Duration::from_secs(15));
        Self { connections: 64, request_bytes: 16 * 1024, asking, stall }
    }
}

/// A listener whose connections keep the limits.
#[derive(Debug)]
pub(super) struct GuardedListener {
    inner: TcpListener,
    limits: Limits,
    places: Arc<Places>,
}

impl GuardedListener {
    /// Guards a listener.
    pub(super) fn new(inner: TcpListener, limits: Limits) -> Self {
        Self { inner, limits, places: Places::new(limits.connections) }
    }
}

impl Listener for GuardedListener {
    type Io = Guarded<TcpStream>;
    type Addr = SocketAddr;

    /// Not cancel-safe: a connection that waits for its place is closed. Whoever stops accepting is stopping.
    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.inner.accept().await {
                // Nobody has to leave before somebody has come.
                Ok((stream, address)) => {
                    let place = self.places.take().await;
                    return (Guarded::new(stream, self.limits, place), address);
                }
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

/// The connection on which a request came.
#[derive(Clone, Debug)]
pub(super) struct Origin(Arc<Place>);

impl Origin {
    /// The request is whole: from now on the peer waits for us.
    pub(super) fn has_asked(&self) {
        self.0.go_on(Activity::Answering);
    }

    /// Ends when the place is wanted for another connection. HTTP does not look at the stream while it waits for an
    /// answer to the last request of a connection, so that the answer must be told. Cancel-safe.
    pub(super) async fn is_wanted(&self) {
        poll_fn(|cx| self.0.standing(cx.waker()).map_or(Poll::Ready(()), |_| Poll::Pending)).await;
    }
}

impl Connected<IncomingStream<'_, GuardedListener>> for Origin {
    fn connect_info(stream: IncomingStream<'_, GuardedListener>) -> Self {
        Self(stream.io().place.clone())
    }
}

/// A stream that fails when it stands still, its peer asks for too much, or its place is wanted.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    limits: Limits,
    asked_bytes: usize,
    deadline: Pin<Box<Sleep>>,
    place: Arc<Place>,
}

impl<S> Guarded<S> {
    fn new(inner: S, limits: Limits, place: Arc<Place>) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + limits.asking));
        Self { inner, limits, asked_bytes: 0, deadline, place }
    }

    /// Pending until the time is up or the place is wanted.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let Some((activity, since)) = self.place.standing(cx.waker()) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let patience = match activity {
            Activity::Asking => self.limits.asking,
            Activity::Answering => self.limits.stall,
        };
        if self.deadline.deadline() != since + patience {
            self.deadline.as_mut().reset(since + patience);
        }
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
            guarded.place.wait_to_answer();
            return guarded.poll_stalled(cx);
        };
        guarded.asked_bytes = 0;
        guarded.place.go_on(Activity::Asking);
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
    const IMPATIENT: Limits =
        Limits { connections: 1, request_bytes: 10, asking: Duration::ZERO, stall: Duration::ZERO };
    const PATIENT: Limits = Limits { asking: HOUR, stall: HOUR, ..IMPATIENT };
    const HOUR: Duration = Duration::from_secs(3_600);

    async fn guarded<S>(stream: S, limits: Limits) -> Guarded<S> {
        Guarded::new(stream, limits, Places::new(limits.connections).take().await)
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_cut_off() {
        let (_peer, ours) = duplex(64);
        let error = guarded(ours, IMPATIENT).await.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_answer_nobody_reads_is_cut_off() {
        let (_peer, ours) = duplex(16);
        let error = guarded(ours, IMPATIENT).await.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_less_time_than_its_answer() {
        let limits = Limits::default();
        let (mut peer, ours) = duplex(64);
        let mut stream = guarded(ours, limits).await;
        let origin = Origin(stream.place.clone());
        let begin = Instant::now();
        peer.write_all(b"GET").await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), limits.asking.as_secs());
        origin.has_asked();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), (limits.asking + limits.stall).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_gives_new_time_and_new_bytes() {
        let (mut peer, ours) = duplex(64);
        let mut stream = guarded(ours, PATIENT).await;
        let begin = Instant::now();
        let mut request = [0; 8];
        for _ in 0..3 {
            peer.write_all(b"request.").await.unwrap();
            stream.read_exact(&mut request).await.unwrap();
            tokio::time::advance(HOUR / 2).await;
            stream.write_all(b"answer").await.unwrap();
        }
        peer.write_all(b"part").await.unwrap();
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((rest.as_slice(), begin.elapsed().as_secs()), (&b"part"[..], (HOUR * 5 / 2).as_secs()));
        peer.write_all(b"a request without end").await.unwrap();
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
