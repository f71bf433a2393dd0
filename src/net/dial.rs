//! Opening connections: name resolution, TCP with its socket options, Unix sockets.
//!
//! Owns one attempt at one address. Must not know in which order hosts are tried, nor set a timeout: the caller does.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;

/// Socket options of an outgoing TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Idle time before keepalive probes; `None` leaves the system's setting.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`; `None` leaves the system's setting.
    pub user_timeout: Option<Duration>,
}

/// All addresses of a host, in the resolver's order. Cancel-safe (the look-up itself goes on in its thread).
///
/// # Errors
/// As the resolver says; `NotFound` if it knows no address.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// Connects to a TCP address. Cancel-safe: the socket closes with the future.
///
/// # Errors
/// As `connect(2)` and `setsockopt(2)` say.
pub async fn tcp(address: SocketAddr, options: SocketOptions) -> io::Result<Stream> {
    let socket = TcpStream::connect(address).await?;
    let raw = SockRef::from(&socket);
    if let Some(idle) = options.keepalive {
        // Linux sends nine probes: a tenth of the idle time apart, a dead host is known after about twice the idle time.
        let interval = (idle / 10).max(Duration::from_secs(1));
        raw.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))?;
    }
    if let Some(timeout) = options.user_timeout {
        #[cfg(target_os = "linux")]
        raw.set_tcp_user_timeout(Some(timeout))?;
        #[cfg(not(target_os = "linux"))]
        let _ = timeout;
    }
    Stream::from_tcp(socket)
}

/// Connects to a Unix socket. Cancel-safe: the socket closes with the future.
///
/// # Errors
/// As `connect(2)` says.
pub async fn unix(path: &Path) -> io::Result<Stream> {
    Ok(Stream::from_unix(UnixStream::connect(path).await?))
}
