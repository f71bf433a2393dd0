//! One connection: plain TCP or Unix, or TLS over either.
//!
//! Owns the read and write path that the relay polls. A plain `poll_read` or `poll_write` is one call into tokio and
//! at most one syscall, without allocation; TLS lives behind a box, so that a plain stream stays small. Must not know
//! what the bytes mean.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use sendring::Batched;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::consume_budget;

use super::plain;
use super::portable::PortableStream;
use super::socket::Socket;

/// A connection to a client or to a server.
///
/// Dropping it closes the socket. All operations are cancel-safe unless they say otherwise.
#[derive(Debug)]
pub struct Stream(pub(super) Kind);

/// What a stream is made of. The TLS kinds are boxed: they are rare, and about a kilobyte. One flat enum, because a
/// nested one would cost each stream eight bytes more.
#[derive(Debug)]
pub(super) enum Kind {
    Tcp(Batched<TcpStream>),
    Unix(Batched<UnixStream>),
    TlsServer(Box<TlsSide<tokio_rustls::server::TlsStream<Socket>>>),
    TlsClient(Box<TlsSide<tokio_rustls::client::TlsStream<Socket>>>),
    Nowhere,
}

/// A TLS session and the channel-binding data of its server's certificate.
#[derive(Debug)]
pub(super) struct TlsSide<T> {
    pub(super) tls: T,
    pub(super) end_point: Option<Arc<[u8]>>,
}

impl Stream {
    /// Wraps a connected TCP socket and switches Nagle's algorithm off.
    ///
    /// # Errors
    /// If the socket is no longer there.
    pub fn from_tcp(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self(Kind::Tcp(Batched::new(socket))))
    }

    /// Wraps a connected Unix socket.
    #[must_use]
    pub const fn from_unix(socket: UnixStream) -> Self {
        Self(Kind::Unix(Batched::new(socket)))
    }

    /// A connection with nobody at its other end: nothing ever comes, and what is written is gone. It takes no descriptor,
    /// so that a process can be seen to hold more clients than it may have files open.
    #[must_use]
    pub const fn nowhere() -> Self {
        Self(Kind::Nowhere)
    }

    /// Whether the bytes are encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self.0, Kind::TlsServer(_) | Kind::TlsClient(_))
    }

    /// The name the client asked for in the TLS handshake (SNI). `None` without TLS and where we are the client.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        match &self.0 {
            Kind::TlsServer(side) => side.tls.get_ref().1.server_name(),
            Kind::Tcp(_) | Kind::Unix(_) | Kind::TlsClient(_) | Kind::Nowhere => None,
        }
    }

    /// The certificate the other end proved to own.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        let chain = match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) | Kind::Nowhere => None,
            Kind::TlsServer(side) => side.tls.get_ref().1.peer_certificates(),
            Kind::TlsClient(side) => side.tls.get_ref().1.peer_certificates(),
        };
        chain.and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned())
    }

    /// Channel-binding data of type `tls-server-end-point` (RFC 5929 §4), the same at both ends. `None` without TLS
    /// and for certificates whose signature algorithm names no hash (Ed25519).
    #[must_use]
    pub fn channel_binding(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Tcp(_) | Kind::Unix(_) | Kind::Nowhere => None,
            Kind::TlsServer(side) => side.end_point.as_deref().map(<[u8]>::to_vec),
            Kind::TlsClient(side) => side.end_point.as_deref().map(<[u8]>::to_vec),
        }
    }

    /// The address of the other end; Unix sockets have none.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp(socket) => socket.peer_addr().ok(),
            Kind::Unix(_) | Kind::Nowhere => None,
            Kind::TlsServer(side) => side.tls.get_ref().0.peer_addr(),
            Kind::TlsClient(side) => side.tls.get_ref().0.peer_addr(),
        }
    }

    /// Takes the connection out of its runtime, so that it can be sent to another thread.
    ///
    /// # Errors
    /// If the runtime refuses to let the socket go; the connection is closed then.
    pub fn into_portable(self) -> io::Result<PortableStream> {
        PortableStream::detach(self)
    }

    /// Reads into `buf`. 0 is the end of the stream, also where a TLS peer left without saying goodbye: PostgreSQL's
    /// own framing shows whether something is missing.
    ///
    /// Plain: one read syscall if the socket may be readable, none otherwise. TLS: what has
    /// arrived and could be decrypted, up to the size of `buf`, straight from rustls' own buffers.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(socket) => plain::poll_read(socket, cx, buf),
            Kind::Unix(socket) => plain::poll_read(socket, cx, buf),
            Kind::TlsServer(side) => poll_read_some(&mut side.tls, cx, buf).map(goodbye_is_optional),
            Kind::TlsClient(side) => poll_read_some(&mut side.tls, cx, buf).map(goodbye_is_optional),
            Kind::Nowhere => Poll::Pending,
        }
    }

    /// Reads without consuming. Only for a plain TCP stream.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Tcp(socket) => socket.poll_peek(cx, &mut ReadBuf::new(buf)),
            // tokio has no such call for Unix sockets, and nobody speaks direct TLS there.
            Kind::Unix(_) | Kind::TlsServer(_) | Kind::TlsClient(_) | Kind::Nowhere => {
                Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
            }
        }
    }

    /// Writes a part of `buf`. A TLS stream may keep what it encrypted: call [`Self::poll_flush`] until it is ready
    /// before waiting for an answer.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Tcp(socket) => plain::poll_write(socket, cx, buf),
            Kind::Unix(socket) => plain::poll_write(socket, cx, buf),
            Kind::TlsServer(side) => Pin::new(&mut side.tls).poll_write(cx, buf),
            Kind::TlsClient(side) => Pin::new(&mut side.tls).poll_write(cx, buf),
            Kind::Nowhere => Poll::Ready(Ok(buf.len())),
        }
    }

    /// Has `bytes` sent with what other sockets of this thread send in the same turn. `false` if that cannot be: they are to
    /// be written then. The task is woken if the kernel does not take them all; what it did not take goes out before
    /// whatever is written or flushed next ([`Self::has_unsent`]).
    pub fn queue(&mut self, cx: &Context<'_>, bytes: &[u8]) -> bool {
        match &mut self.0 {
            Kind::Tcp(socket) => socket.queue(bytes, cx.waker()),
            Kind::Unix(socket) => socket.queue(bytes, cx.waker()),
            Kind::TlsServer(_) | Kind::TlsClient(_) | Kind::Nowhere => false,
        }
    }

    /// Whether something was queued and not taken by the kernel.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        match &self.0 {
            Kind::Tcp(socket) => socket.has_unsent(),
            Kind::Unix(socket) => socket.has_unsent(),
            Kind::TlsServer(side) => side.tls.get_ref().0.has_unsent(),
            Kind::TlsClient(side) => side.tls.get_ref().0.has_unsent(),
            Kind::Nowhere => false,
        }
    }

    /// Hands everything that was encrypted or queued to the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(socket) => plain::poll_flush(socket, cx),
            Kind::Unix(socket) => plain::poll_flush(socket, cx),
            Kind::TlsServer(side) => Pin::new(&mut side.tls).poll_flush(cx),
            Kind::TlsClient(side) => Pin::new(&mut side.tls).poll_flush(cx),
            Kind::Nowhere => Poll::Ready(Ok(())),
        }
    }

    /// Ends our direction: TLS `close_notify` and FIN. The other direction can still be read.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(socket) => plain::poll_shutdown(socket, cx),
            Kind::Unix(socket) => plain::poll_shutdown(socket, cx),
            Kind::TlsServer(side) => Pin::new(&mut side.tls).poll_shutdown(cx),
            Kind::TlsClient(side) => Pin::new(&mut side.tls).poll_shutdown(cx),
            Kind::Nowhere => Poll::Ready(Ok(())),
        }
    }

    /// Reads what there is, at least one byte; 0 is the end. Cancel-safe. A task that always finds something gives way now
    /// and then, so that a time limit around a loop of reads holds.
    ///
    /// # Errors
    /// As the socket or TLS says.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        consume_budget().await;
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Looks at what has arrived without consuming it; 0 is the end. Only for a plain TCP stream. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` on Unix sockets and under TLS; otherwise as the socket says.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_peek(cx, buf)).await
    }

    /// Fills `buf`. Not cancel-safe: bytes read so far are lost with the future.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before; otherwise as the socket or TLS says.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let count = self.read(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest = rest.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of `buf` and flushes. Not cancel-safe: an unknown part may have been written.
    ///
    /// # Errors
    /// As the socket or TLS says.
    pub async fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, rest)).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(count..).unwrap_or_default();
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends our direction. Cancel-safe.
    ///
    /// # Errors
    /// As the socket or TLS says.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// The plain socket below, for a TLS handshake.
    pub(super) fn into_socket(self) -> io::Result<Socket> {
        match self.0 {
            Kind::Tcp(socket) => Ok(Socket::Tcp(socket)),
            Kind::Unix(socket) => Ok(Socket::Unix(socket)),
            Kind::TlsServer(_) | Kind::TlsClient(_) | Kind::Nowhere => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS goes over a plain socket"))
            }
        }
    }
}

fn poll_read_some<T: AsyncRead + Unpin>(
    from: &mut T,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut filled = ReadBuf::new(buf);
    ready!(Pin::new(from).poll_read(cx, &mut filled))?;
    Poll::Ready(Ok(filled.filled().len()))
}

/// A TLS peer that closes without `close_notify`, as many do, has closed.
fn goodbye_is_optional(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests;
