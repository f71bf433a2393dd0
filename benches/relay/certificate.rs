//! The certificate of Postgres and both proxies, and the lean client's side of TLS.
//!
//! Owns a key that lives as long as the bench, and what a client offers: TLS 1.3 with one cipher suite, the first that
//! libpq offers too, so that both proxies encrypt alike. The client believes any certificate: it must not spend its time on
//! looking for the limit of a proxy's logins.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for 127.0.0.1 and its key, of P-256, as PEM.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Identity {
    /// A new one, signed by itself.
    pub(crate) fn issue() -> Result<Self> {
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new(vec![ADDRESS.to_string()])?.self_signed(&key)?;
        Ok(Self { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// Whether a client keeps what it needs to resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Every handshake is a full one.
    Forgotten,
    /// It offers to resume; whether that happens is the proxy's choice.
    Kept,
}

/// The TLS of clients. Clones share what they keep of sessions.
#[derive(Clone)]
pub(crate) struct Encryption {
    connector: TlsConnector,
}

impl Encryption {
    pub(crate) fn new(sessions: Sessions) -> Result<Self> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believer))
            .with_no_client_auth();
        config.resumption = match sessions {
            Sessions::Forgotten => Resumption::disabled(),
            Sessions::Kept => Resumption::in_memory_sessions(SERVERS),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Asks for TLS in Postgres' way and shakes hands.
    pub(crate) async fn start(&self, mut stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        stream.write_all(&SSL_REQUEST).await?;
        ensure!(stream.read_u8().await? == b'S', "the proxy has no TLS");
        let name = ServerName::from(IpAddr::V4(ADDRESS));
        self.connector.connect(name, stream).await.context("the TLS handshake")
    }
}

/// Checks nothing.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Length, and the code that stands where a version would.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Whose sessions are kept.
const SERVERS: usize = 16;
