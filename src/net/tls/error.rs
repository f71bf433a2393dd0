//! What can be wrong with certificates, keys and TLS settings when they are loaded.
//!
//! Owns [`TlsError`]. Handshakes fail with `io::Error` instead: they concern one connection.

use std::io;
use std::path::PathBuf;

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file that should hold certificates holds none, or a broken one.
    #[error("no usable PEM certificate in {}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// A file that should hold a private key holds none.
    #[error("no usable PEM private key in {}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or rustls cannot use them.
    #[error("certificate {} and key {} cannot be used: {error}", cert.display(), key.display())]
    Identity {
        /// The certificate chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// TLS is switched on without a certificate.
    #[error("TLS needs a certificate and a key")]
    NoIdentity,
    /// The system's store of trusted certificates is empty or unreadable.
    #[error("no trusted certificates in the system's store; name a file with sslrootcert")]
    NoSystemRoots,
    /// The client CA cannot be used.
    #[error("the CA file {} cannot be used: {reason}", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// The versions asked for cannot be had.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}
