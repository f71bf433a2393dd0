//! Cancelling what runs on a server.
//!
//! Owns the CancelRequest: to the very address the session is connected to (a name may have several), with TLS if the
//! session has it. Must not decide whether the server still works for the client who asked (`pool`).

use std::io;
use std::sync::Arc;

use tokio::time::timeout;

use super::attempt::{Encryption, Place, open};
use super::connector::Connector;
use super::error::{LoginFailure, Stage};
use crate::wire::startup::put_cancel_request;

/// Cancels what runs on one server. Cloning shares it.
#[derive(Clone, Debug)]
pub struct CancelHandle(Arc<Target>);

struct Target {
    connector: Connector,
    place: Place,
    encryption: Encryption,
    pid: u32,
    secret: Box<[u8]>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("place", &self.place).field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl CancelHandle {
    pub(super) fn new(
        connector: Connector,
        place: Place,
        encryption: Encryption,
        pid: u32,
        secret: Box<[u8]>,
    ) -> Self {
        Self(Arc::new(Target { connector, place, encryption, pid, secret }))
    }

    /// Sends the request and waits, within `connect_timeout`, until Postgres has closed: then the signal has been sent,
    /// and a later query on the server is not hit by it. Cancel-safe, but a request that was sent stays sent.
    ///
    /// # Errors
    /// If the server cannot be reached, or does not close in time; `Unsupported` if it gave no key at login.
    pub async fn send(&self) -> io::Result<()> {
        let Target { connector, secret, .. } = &*self.0;
        if secret.is_empty() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let limit = connector.connect_timeout();
        Box::pin(timeout(limit, self.request()))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn request(&self) -> io::Result<()> {
        let Target { connector, place, encryption, pid, secret } = &*self.0;
        let mut stage = Stage::Connect;
        let mut stream = open(connector, place, *encryption, &mut stage).await.map_err(into_io)?;
        let mut request = Vec::new();
        put_cancel_request(&mut request, *pid, secret);
        stream.write_all(&request).await?;
        let mut scratch = [0; 64];
        while stream.read(&mut scratch).await? > 0 {}
        Ok(())
    }
}

fn into_io(failure: LoginFailure) -> io::Error {
    match failure {
        LoginFailure::Refused => io::ErrorKind::ConnectionRefused.into(),
        LoginFailure::Connect(error) | LoginFailure::Tls(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
