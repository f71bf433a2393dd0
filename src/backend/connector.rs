//! How to reach one cluster.
//!
//! Owns what all server logins of a cluster share: hosts, TLS settings, timeouts and the brake on key derivations.
//! Must not know tenants.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::settings::{Cluster, Endpoint, Host, MaxProtocol, Servers, SslMode};
use crate::net::dial::SocketOptions;
use crate::net::tls::{ClientTls, TlsError};
use crate::wire::startup::ProtocolVersion;

/// A cluster as seen by server logins. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Connector(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    tls: Option<ClientTls>,
    connect_timeout: Duration,
    socket: SocketOptions,
    derivations: Semaphore,
}

impl Connector {
    /// Reads the certificates that the cluster's endpoint names.
    ///
    /// # Errors
    /// If a certificate, key or CA cannot be used.
    pub fn new(cluster: &Cluster, servers: &Servers) -> Result<Self, TlsError> {
        let endpoint = cluster.endpoint.clone();
        let wants_tls = endpoint.ssl_mode != SslMode::Disable
            && endpoint.hosts.iter().any(|host| matches!(host, Host::Tcp { .. }));
        let tls = if wants_tls { Some(ClientTls::load(&endpoint)?) } else { None };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Shared {
            endpoint,
            tls,
            connect_timeout: servers.connect_timeout,
            socket: SocketOptions {
                keepalive: servers.tcp_keepalive,
                user_timeout: servers.tcp_user_timeout,
            },
            derivations: Semaphore::new(cores),
        })))
    }

    /// Hosts and transport.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// TLS settings; `None` if TLS is never wanted.
    pub(super) fn tls(&self) -> Option<&ClientTls> {
        self.0.tls.as_ref()
    }

    /// The version of the protocol to ask for.
    pub(super) fn protocol(&self) -> ProtocolVersion {
        let minor = match self.0.endpoint.max_protocol {
            MaxProtocol::V3_0 => 0,
            MaxProtocol::V3_2 => 2,
        };
        ProtocolVersion { major: 3, minor }
    }

    /// The limit of one attempt.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    /// Options of TCP sockets.
    pub(super) fn socket(&self) -> SocketOptions {
        self.0.socket
    }

    /// Key derivations that may run at the same time: as many as there are cores, so that a burst of first logins
    /// does not fill tokio's hundreds of blocking threads.
    pub(super) fn derivations(&self) -> &Semaphore {
        &self.0.derivations
    }
}

/// Where Postgres listens in a directory.
pub(super) fn unix_path(dir: &std::path::Path, port: u16) -> PathBuf {
    dir.join(format!(".s.PGSQL.{port}"))
}
