//! A connection between two runtimes: detached in one thread, attached in another.
//!
//! Owns the crossing. A tokio socket belongs to the runtime it was registered with, and the relay's poll must not wake
//! another thread's reactor; so a client's socket is deregistered by the front and registered by its worker.

use std::io;
use std::net::SocketAddr;

use sendring::Batched;
use tokio::net::{TcpStream, UnixStream};

use super::socket::Socket;
use super::stream::{Kind, Stream, TlsSide};

/// A [`Stream`] that is registered with no runtime and can be sent to another thread.
#[derive(Debug)]
pub struct PortableStream(Detached);

/// The kinds of a stream, detached. A TLS session keeps its socket inside, swapped for a detached one.
#[derive(Debug)]
enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    TlsServer(Box<TlsSide<tokio_rustls::server::TlsStream<Socket>>>),
    TlsClient(Box<TlsSide<tokio_rustls::client::TlsStream<Socket>>>),
}

impl PortableStream {
    /// Takes a stream out of its runtime.
    pub(super) fn detach(stream: Stream) -> io::Result<Self> {
        Ok(Self(match stream.0 {
            Kind::Tcp(socket) => Detached::Tcp(socket.into_inner().into_std()?),
            Kind::Unix(socket) => Detached::Unix(socket.into_inner().into_std()?),
            Kind::TlsServer(mut side) => {
                side.tls.get_mut().0.swap(Socket::detach)?;
                Detached::TlsServer(side)
            }
            Kind::TlsClient(mut side) => {
                side.tls.get_mut().0.swap(Socket::detach)?;
                Detached::TlsClient(side)
            }
            Kind::Nowhere => return Err(io::ErrorKind::Unsupported.into()),
        }))
    }

    /// Registers the connection with the runtime this is called in.
    ///
    /// # Errors
    /// If the runtime refuses the socket; the connection is closed then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(Stream(match self.0 {
            Detached::Tcp(socket) => Kind::Tcp(Batched::new(TcpStream::from_std(socket)?)),
            Detached::Unix(socket) => Kind::Unix(Batched::new(UnixStream::from_std(socket)?)),
            Detached::TlsServer(mut side) => {
                side.tls.get_mut().0.swap(Socket::attach)?;
                Kind::TlsServer(side)
            }
            Detached::TlsClient(mut side) => {
                side.tls.get_mut().0.swap(Socket::attach)?;
                Kind::TlsClient(side)
            }
        }))
    }

    /// The address of the other end; Unix sockets have none.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Detached::Tcp(socket) => socket.peer_addr().ok(),
            Detached::Unix(_) => None,
            Detached::TlsServer(side) => side.tls.get_ref().0.peer_addr(),
            Detached::TlsClient(side) => side.tls.get_ref().0.peer_addr(),
        }
    }

    /// Whether the bytes are encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self.0, Detached::TlsServer(_) | Detached::TlsClient(_))
    }
}
