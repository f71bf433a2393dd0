//! TLS towards clients.
//!
//! Owns one loaded certificate with its settings. A reload loads a new [`ServerTls`] beside it; sessions that run keep
//! the old one.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;

use super::certificate::{end_point, validity};
use super::{ALPN, TlsError, files, provider};
use crate::config::settings::{ListenTls, TlsVersion};
use crate::net::stream::{Kind, Stream, TlsSide};

/// How the client came to speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It asked with SSLRequest and was answered `S`.
    Requested,
    /// It started with the TLS handshake itself (`sslnegotiation=direct`); ALPN must then say `postgresql`, so that
    /// another protocol's client cannot be led here.
    Direct,
}

/// A certificate and the settings to accept clients with. Cloning shares it.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
    not_after: Option<i64>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads certificate, key and client CA.
    ///
    /// # Errors
    /// If a file is missing or unusable, or the settings name no certificate.
    pub fn load(settings: &ListenTls) -> Result<Self, TlsError> {
        let files = settings.identity.as_ref().ok_or(TlsError::NoIdentity)?;
        let identity = files::identity(files)?;
        let leaf = identity.chain.first().cloned();
        let versions: &[_] = match settings.min_version {
            TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(TlsError::Setup)?;
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let anchors = files::anchors(path, &files::certificates(path)?)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::Authority { path: path.clone(), reason: error.to_string() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(|error| {
            TlsError::Identity { cert: files.cert.clone(), key: files.key.clone(), error }
        })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            end_point: leaf.as_ref().and_then(end_point).map(Arc::from),
            not_after: leaf.as_ref().and_then(last_second),
        })
    }

    /// Does the handshake as server. The stream must be plain, with nothing of the handshake read from it.
    /// Cancel-safe in the sense that the connection closes with the future.
    ///
    /// # Errors
    /// If the handshake fails (the client has got its alert), the connection ends, or a direct start lacks ALPN.
    pub async fn accept(&self, plain: Stream, start: Start) -> io::Result<Stream> {
        let tls = self.acceptor.accept(plain.into_socket()?).await?;
        if start == Start::Direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "direct TLS without ALPN `postgresql`"));
        }
        Ok(Stream(Kind::TlsServer(Box::new(TlsSide { tls, end_point: self.end_point.clone() }))))
    }

    /// The last second of the certificate's validity, in Unix time.
    #[must_use]
    pub const fn not_after(&self) -> Option<i64> {
        self.not_after
    }
}

fn last_second(leaf: &CertificateDer<'static>) -> Option<i64> {
    validity(leaf).map(|(_, last)| last)
}
