//! Makes SCRAM verifiers as PostgreSQL stores them, independent of the proxy's own code.
//!
//! Owns RFC 5802's key derivation. Few iterations by default: an unoptimised client would spend most of a test there.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
pub(crate) fn verifier(password: &str, iterations: u32) -> String {
    let salt = b"sixteen byte salt";
    let mut salted = [0; 32];
    let rounds = std::num::NonZeroU32::new(iterations).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        text(salt),
        text(stored_key.as_ref()),
        text(server_key.as_ref())
    )
}
