//! The socket inside a TLS session: TCP or Unix, or detached on its way to another runtime.
//!
//! Owns the swap. A TLS session cannot be taken apart and put together again around another socket, so the socket
//! *inside* it is replaced ([`Socket::swap`]). Plain streams do not need this type.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sendring::Batched;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::plain::{self, Watched};

/// A socket that is registered with a runtime, or not.
#[derive(Debug)]
pub(super) enum Socket {
    /// TCP, registered with the runtime it was made in.
    Tcp(Batched<TcpStream>),
    /// Unix, registered with the runtime it was made in.
    Unix(Batched<UnixStream>),
    /// TCP, in no runtime: every operation fails.
    DetachedTcp(std::net::TcpStream),
    /// Unix, in no runtime: every operation fails.
    DetachedUnix(std::os::unix::net::UnixStream),
    /// Lost in a swap that failed.
    Gone,
}

impl Socket {
    /// Replaces the socket by what `swap` makes of it.
    pub(super) fn swap(&mut self, swap: impl FnOnce(Self) -> io::Result<Self>) -> io::Result<()> {
        *self = swap(mem::replace(self, Self::Gone))?;
        Ok(())
    }

    /// The same socket, registered with no runtime.
    pub(super) fn detach(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::DetachedTcp(socket.into_inner().into_std()?),
            Self::Unix(socket) => Self::DetachedUnix(socket.into_inner().into_std()?),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => self,
        })
    }

    /// The same socket, registered with the runtime this is called in.
    pub(super) fn attach(self) -> io::Result<Self> {
        Ok(match self {
            Self::DetachedTcp(socket) => Self::Tcp(Batched::new(TcpStream::from_std(socket)?)),
            Self::DetachedUnix(socket) => Self::Unix(Batched::new(UnixStream::from_std(socket)?)),
            Self::Tcp(_) | Self::Unix(_) => self,
            Self::Gone => return Err(detached()),
        })
    }

    /// Whether something was queued and not taken by the kernel.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.has_unsent(),
            Self::Unix(socket) => socket.has_unsent(),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => false,
        }
    }

    /// The address of the other end; Unix sockets have none.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok(),
            Self::DetachedTcp(socket) => socket.peer_addr().ok(),
            Self::Unix(_) | Self::DetachedUnix(_) | Self::Gone => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => read(socket, cx, buf),
            Self::Unix(socket) => read(socket, cx, buf),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => Poll::Ready(Err(detached())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => plain::poll_queue_or_write(socket, cx, &[IoSlice::new(buf)]),
            Self::Unix(socket) => plain::poll_queue_or_write(socket, cx, &[IoSlice::new(buf)]),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => Poll::Ready(Err(detached())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => plain::poll_queue_or_write(socket, cx, bufs),
            Self::Unix(socket) => plain::poll_queue_or_write(socket, cx, bufs),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => Poll::Ready(Err(detached())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => plain::poll_flush(socket, cx),
            Self::Unix(socket) => plain::poll_flush(socket, cx),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => plain::poll_shutdown(socket, cx),
            Self::Unix(socket) => plain::poll_shutdown(socket, cx),
            Self::DetachedTcp(_) | Self::DetachedUnix(_) | Self::Gone => Poll::Ready(Err(detached())),
        }
    }
}

fn read(
    socket: &mut Batched<impl Watched>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let read = ready!(plain::poll_read(socket, cx, buf.initialize_unfilled()))?;
    buf.advance(read);
    Poll::Ready(Ok(()))
}

fn detached() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is registered with no runtime")
}
