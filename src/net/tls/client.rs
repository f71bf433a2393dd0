//! TLS towards Postgres.
//!
//! Owns trust and the client certificate of one cluster. Must not decide whether TLS is wanted (`backend`).

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::certificate::end_point;
use super::verifier::{Anchors, Trust, Verifier};
use super::{ALPN, TlsError, files, provider};
use crate::config::settings::{Endpoint, SslMode};
use crate::net::stream::{Kind, Stream, TlsSide};

/// How to speak TLS with a cluster's hosts. Cloning shares it.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
    direct: bool,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("direct", &self.direct).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the CA file and the client certificate of an endpoint.
    ///
    /// As in libpq, a CA file makes `require` check the chain too.
    ///
    /// # Errors
    /// If a file is missing or unusable, or verification is asked for without anything to trust.
    pub fn load(endpoint: &Endpoint) -> Result<Self, TlsError> {
        let provider = provider();
        let verifier =
            Verifier { trust: trust(endpoint)?, algorithms: provider.signature_verification_algorithms };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &endpoint.ssl_identity {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let identity = files::identity(files)?;
                builder.with_client_auth_cert(identity.chain, identity.key).map_err(|error| {
                    TlsError::Identity { cert: files.cert.clone(), key: files.key.clone(), error }
                })?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), direct: endpoint.ssl_direct })
    }

    /// Does the handshake as client; `host` is the name or address that was asked for, which goes into SNI and is what
    /// `verify-full` compares. Cancel-safe in the sense that the connection closes with the future.
    ///
    /// # Errors
    /// If the handshake fails; a refused certificate is a [`rustls::Error::InvalidCertificate`] inside.
    pub async fn connect(&self, plain: Stream, host: &str) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is no name TLS can check"))?;
        let tls = self.connector.connect(name, plain.into_socket()?).await?;
        let session = tls.get_ref().1;
        if self.direct && session.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "direct TLS without ALPN `postgresql`"));
        }
        let leaf: Option<&CertificateDer<'_>> = session.peer_certificates().and_then(<[_]>::first);
        let end_point = leaf.and_then(end_point).map(Arc::from);
        Ok(Stream(Kind::TlsClient(Box::new(TlsSide { tls, end_point }))))
    }
}

fn trust(endpoint: &Endpoint) -> Result<Trust, TlsError> {
    let file = endpoint.ssl_root_cert.as_deref();
    Ok(match (endpoint.ssl_mode, file) {
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) | (SslMode::Require, None) => Trust::Anyone,
        (SslMode::Require | SslMode::VerifyCa, Some(path)) => Trust::Authority(listed(path)?),
        (SslMode::VerifyFull, Some(path)) => Trust::AuthorityAndName(listed(path)?),
        (SslMode::VerifyCa, None) => Trust::Authority(system()?),
        (SslMode::VerifyFull, None) => Trust::AuthorityAndName(system()?),
    })
}

fn listed(path: &std::path::Path) -> Result<Anchors, TlsError> {
    let listed = files::certificates(path)?;
    let mut roots = RootCertStore::empty();
    // One that cannot be an authority may still be listed as a server's own.
    roots.add_parsable_certificates(listed.iter().cloned());
    Ok(Anchors { roots, listed })
}

fn system() -> Result<Anchors, TlsError> {
    Ok(Anchors { roots: files::system_anchors()?, listed: Vec::new() })
}
