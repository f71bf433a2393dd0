//! What is stored instead of a password: PostgreSQL's SCRAM verifier (RFC 5802, RFC 7677).
//!
//! Owns its text form and how it is made from a password. Must not know an exchange (`scram_server`), nor draw salts.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Iterations of new verifiers, as in PostgreSQL (`scram_iterations`).
pub const DEFAULT_ITERATIONS: NonZeroU32 = match NonZeroU32::new(4096) {
    Some(iterations) => iterations,
    None => NonZeroU32::MIN,
};

/// Bytes of salt in new verifiers, as in PostgreSQL.
pub const SALT_BYTES: usize = 16;

/// Bytes of a SHA-256 digest.
pub const KEY_BYTES: usize = 32;

/// A SCRAM-SHA-256 verifier: enough to check a proof, not enough to make one. Prints no key in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Rounds of PBKDF2.
    pub iterations: NonZeroU32,
    /// Salt of PBKDF2.
    pub salt: Vec<u8>,
    /// The hash of the client's key.
    pub stored_key: [u8; KEY_BYTES],
    /// The key that signs for the server.
    pub server_key: [u8; KEY_BYTES],
}

/// A text is not a verifier. The text is not repeated: it may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM verifier of the form SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")]
pub struct NotAVerifier;

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, NotAVerifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(NotAVerifier)?;
        let (head, keys) = rest.split_once('$').ok_or(NotAVerifier)?;
        let (iterations, salt) = head.split_once(':').ok_or(NotAVerifier)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(NotAVerifier)?;
        let salt = STANDARD.decode(salt).map_err(|_| NotAVerifier)?;
        if salt.is_empty() {
            return Err(NotAVerifier);
        }
        Ok(Self {
            iterations: iterations.parse().map_err(|_| NotAVerifier)?,
            salt,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }

    /// Makes the verifier of a password. This is slow by design (about a millisecond at 4096 iterations).
    #[must_use]
    pub fn from_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = salted_password(password, salt, iterations);
        let client_key = hmac_sha256(&salted, &[b"Client Key"]);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&client_key),
            server_key: hmac_sha256(&salted, &[b"Server Key"]),
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored, server) =
            (STANDARD.encode(&self.salt), STANDARD.encode(self.stored_key), STANDARD.encode(self.server_key));
        write!(f, "SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// SCRAM's `SaltedPassword`: PBKDF2-HMAC-SHA-256 of the normalized password.
#[must_use]
pub fn salted_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> [u8; KEY_BYTES] {
    let mut salted = [0; KEY_BYTES];
    let password = normalize(password);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
    salted
}

/// `SASLprep` of a password (RFC 4013); a password that it forbids is used as it is, as PostgreSQL does.
#[must_use]
pub fn normalize(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

/// HMAC-SHA-256 of the parts put together.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    fixed(context.sign().as_ref())
}

/// SHA-256.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; KEY_BYTES] {
    fixed(digest::digest(&digest::SHA256, data).as_ref())
}

/// SHA-256 has 32 bytes; the library's types do not say so.
fn fixed(hash: &[u8]) -> [u8; KEY_BYTES] {
    debug_assert_eq!(hash.len(), KEY_BYTES, "SHA-256 has 32 bytes");
    let mut fixed = [0; KEY_BYTES];
    for (to, from) in fixed.iter_mut().zip(hash) {
        *to = *from;
    }
    fixed
}

fn decode_key(text: &str) -> Result<[u8; KEY_BYTES], NotAVerifier> {
    STANDARD.decode(text).ok().and_then(|key| key.try_into().ok()).ok_or(NotAVerifier)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The test vector of RFC 7677: user "user", password "pencil".
    const RFC: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_verifier_is_made_as_in_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = Verifier::from_password("pencil", &salt, DEFAULT_ITERATIONS);
        assert_eq!(made.to_string(), RFC);
        assert_eq!(Verifier::parse(RFC), Ok(made));
        assert_eq!(DEFAULT_ITERATIONS.get(), 4096);
    }

    #[test]
    fn anything_else_is_not_a_verifier() {
        for bad in [
            "".to_owned(),
            "pencil".to_owned(),
            "md5d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            RFC.replace("4096", "0"),
            RFC.replace("4096", "-1"),
            RFC.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            RFC.replace("WG5d", ""),
            RFC.replace("2dU=", "2d!="),
            format!("{RFC}="),
        ] {
            assert_eq!(Verifier::parse(&bad), Err(NotAVerifier), "{bad}");
        }
    }

    #[test]
    fn passwords_are_normalized_unless_forbidden() {
        assert_eq!(normalize("I\u{ad}X"), "IX", "a soft hyphen is nothing");
        assert_eq!(normalize("\u{2168}"), "IX", "compatibility characters are folded");
        assert_eq!(
            normalize("a\u{7}b"),
            "a\u{7}b",
            "a control character is forbidden, so the password stays as it is"
        );
    }

    #[test]
    fn debug_prints_no_key() {
        assert_eq!(format!("{:?}", Verifier::parse(RFC).unwrap()), "Verifier { iterations: 4096, .. }");
    }

    proptest! {
        #[test]
        fn every_verifier_is_read_back(
            iterations in 1_u32.., salt in prop::collection::vec(any::<u8>(), 1..40),
            stored_key: [u8; KEY_BYTES], server_key: [u8; KEY_BYTES],
        ) {
            let iterations = NonZeroU32::new(iterations).unwrap();
            let verifier = Verifier { iterations, salt, stored_key, server_key };
            prop_assert_eq!(Verifier::parse(&verifier.to_string()), Ok(verifier));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = Verifier::parse(&text);
            let _ = normalize(&text);
        }
    }
}
