//! Listening sockets: TCP addresses and Unix sockets.
//!
//! Owns binding, accepting, and the file of a Unix socket. Must not know limits or logins (`front`).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::stream::Stream;

/// A listening socket, registered with the runtime it was bound in.
#[derive(Debug)]
pub enum Listener {
    /// A TCP address.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixSocketListener),
}

/// A listening Unix socket that removes its file when it is dropped.
#[derive(Debug)]
pub struct UnixSocketListener {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a Unix socket; the inode tells ours from one that somebody else put in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    /// Binds a TCP address (`SO_REUSEADDR`; port 0 lets the system choose). Must be called inside a runtime.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)` say.
    pub fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
    }

    /// Binds a Unix socket that everybody may connect to (mode 0777, as Postgres does). Must be called inside a runtime.
    ///
    /// A file left behind by a process that died is removed first; one that somebody listens on is not.
    ///
    /// # Errors
    /// `AddrInUse` if somebody listens there, or the path is something else than a socket; otherwise as `bind(2)` and
    /// `listen(2)` say.
    pub fn bind_unix(path: &Path, backlog: u32) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let meta = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), identity: (meta.dev(), meta.ino()) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self::Unix(UnixSocketListener { listener, file }))
    }

    /// The next connection and, on TCP, where it comes from. Cancel-safe.
    ///
    /// # Errors
    /// As `accept(2)` says; most errors concern one connection, or a lack of descriptors that will pass.
    pub async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Stream::from_tcp(socket)?, Some(peer)))
            }
            Self::Unix(unix) => {
                let (socket, _) = unix.listener.accept().await?;
                Ok((Stream::from_unix(socket), None))
            }
        }
    }

    /// The TCP address bound to, with the port that was chosen.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The path of the Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(unix) => Some(&unix.file.path),
        }
    }
}

impl Drop for SocketFile {
    /// Removes the file, unless another process has put its own there.
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "the path exists and is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this Unix socket")),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".s.PGSQL.6432");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead process leaves its file behind");
        let first = Listener::bind_unix(&path, 16).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(Listener::bind_unix(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists(), "the file goes with its listener");
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, b"data").unwrap();
        assert_eq!(Listener::bind_unix(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[tokio::test]
    async fn a_listener_does_not_remove_the_file_of_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listener::bind_unix(&path, 16).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::bind_unix(&path, 16).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn port_zero_is_filled_in_and_accepted_streams_carry_bytes() {
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        let mut near =
            super::super::dial::tcp(address, super::super::dial::SocketOptions::default()).await.unwrap();
        let (mut far, peer) = listener.accept().await.unwrap();
        assert!(peer.is_some());
        near.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        far.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    }
}
