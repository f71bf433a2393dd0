//! TLS by rustls with aws-lc-rs: towards clients ([`ServerTls`]) and towards Postgres ([`ClientTls`]).
//!
//! Owns certificates, versions, ALPN and who is trusted. Must not know SSLRequest: the handshake starts on a stream on
//! which both ends agreed to speak TLS. Sessions are never resumed, as in PostgreSQL: tickets would cost memory per
//! connection and a resumed session would skip the certificate.

mod certificate;
mod client;
mod error;
mod files;
mod server;
mod verifier;

pub use certificate::{common_name, end_point};
pub use client::ClientTls;
pub use error::TlsError;
pub use server::{ServerTls, Start};

/// The ALPN protocol name of PostgreSQL's protocol.
pub const ALPN: &[u8] = b"postgresql";

fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
