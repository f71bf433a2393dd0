//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 5929, RFC 7677).
//!
//! Owns the exchange and the rule that it looks the same, and costs the same, whether the user exists or not: who cannot
//! log in is given a made-up verifier and fails at the proof. Must not draw nonces, nor know messages or sockets.
//!
//! ```text
//! Exchange ──begin(client-first)──► Challenge ──finish(client-final)──► Authenticated
//! ```

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::identity::{Authenticated, Identity};
use super::refusal::Refusal;
use super::verifier::{DEFAULT_ITERATIONS, KEY_BYTES, SALT_BYTES, Verifier, hmac_sha256, sha256};
use crate::error::{ClientError, Fault, SqlState};
use crate::tenant::ClientAuth;

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Bytes of a message from the client at most. A client-first message has a user name that we ignore and a nonce; none
/// is near this.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 1024;

/// The secret that verifiers of users who do not exist are made from. Drawn once per process; prints nothing.
pub struct MockSecret([u8; KEY_BYTES]);

impl MockSecret {
    /// Wraps 32 random bytes.
    #[must_use]
    pub const fn new(random: [u8; KEY_BYTES]) -> Self {
        Self(random)
    }

    /// The verifier of a user that does not exist: the same at each attempt, and nobody knows its password.
    fn verifier(&self, tenant: &str, user: &str) -> Verifier {
        let derive =
            |purpose: &[u8]| hmac_sha256(&self.0, &[purpose, &[0], tenant.as_bytes(), &[0], user.as_bytes()]);
        Verifier {
            iterations: DEFAULT_ITERATIONS,
            salt: derive(b"salt").get(..SALT_BYTES).unwrap_or_default().to_vec(),
            stored_key: derive(b"stored"),
            server_key: derive(b"server"),
        }
    }
}

impl std::fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockSecret(..)")
    }
}

/// Why an exchange ends without a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// A message is not what the RFC says, for this reason.
    Malformed(&'static str),
    /// A feature we do not have, by its name.
    Unsupported(&'static str),
    /// The client took a mechanism that was not offered.
    UnknownMechanism,
    /// The client thinks we cannot bind to the channel, but we offered it: somebody in between took the offer away.
    Downgraded,
    /// The client is bound to another channel than this one.
    ChannelMismatch,
    /// The client is not who it says.
    Refused(Refusal),
}

impl ScramError {
    /// The error for the client.
    #[must_use]
    pub fn to_client(self, user: &str) -> ClientError {
        let protocol =
            |text| ClientError::fatal(SqlState::PROTOCOL_VIOLATION, Fault::Client, "bad_scram", text);
        let channel = |text| {
            ClientError::fatal(SqlState::INVALID_AUTHORIZATION, Fault::Client, "channel_binding", text)
        };
        match self {
            Self::Malformed(why) => protocol("malformed SCRAM message").with_detail(why),
            Self::Unsupported(what) => {
                let text = format!("{what} in SCRAM is not supported");
                ClientError::fatal(SqlState::FEATURE_NOT_SUPPORTED, Fault::Client, "bad_scram", text)
            }
            Self::UnknownMechanism => protocol("client selected an invalid SASL authentication mechanism"),
            Self::Downgraded => channel("SCRAM channel binding negotiation error").with_detail(
                "The client supports SCRAM channel binding but thinks the server does not. \
                 However, this server does support channel binding.",
            ),
            Self::ChannelMismatch => channel("SCRAM channel binding check failed"),
            Self::Refused(refusal) => refusal.to_client(user),
        }
    }
}

/// A login by SCRAM that has not begun.
pub struct Exchange {
    claim: Result<Identity, Refusal>,
    verifier: Verifier,
    end_point: Option<Vec<u8>>,
}

impl Exchange {
    /// Prepares to check a claim. `claimed` is who the client would be (`resolve::claimed`); `end_point` is the channel
    /// binding data of our certificate, under TLS.
    #[must_use]
    pub fn new(
        claim: Result<Identity, Refusal>,
        claimed: (&str, &str),
        mock: &MockSecret,
        end_point: Option<Vec<u8>>,
    ) -> Self {
        // Both verifiers are always made, so that neither path is the shorter one.
        let made_up = mock.verifier(claimed.0, claimed.1);
        let made_up_text = made_up.to_string();
        let text = claim.as_ref().ok().and_then(|identity| identity.auth().verifier());
        let stored = Verifier::parse(text.unwrap_or(&made_up_text));
        let claim = match claim {
            Ok(identity) if matches!(identity.auth(), ClientAuth::Certificate { .. }) => {
                Err(Refusal::NoCertificate)
            }
            Ok(identity) if matches!(identity.auth(), ClientAuth::Token(_)) => Err(Refusal::TokenWanted),
            Ok(_) if stored.is_err() => Err(Refusal::BadVerifier),
            claim => claim,
        };
        Self { claim, verifier: stored.unwrap_or(made_up), end_point }
    }

    /// What to offer, the preferred mechanism first.
    #[must_use]
    pub const fn mechanisms(&self) -> &'static [&'static str] {
        if self.end_point.is_some() { &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { &[SCRAM_SHA_256] }
    }

    /// Takes the client-first message and gives the server-first message. `nonce` is our half: printable ASCII, no comma.
    ///
    /// # Errors
    /// If the message is malformed, or its channel binding flag does not fit what was offered.
    pub fn begin(
        self,
        mechanism: &[u8],
        message: &[u8],
        nonce: &str,
    ) -> Result<(Challenge, String), ScramError> {
        let plus = match mechanism {
            name if name == SCRAM_SHA_256.as_bytes() => false,
            name if name == SCRAM_SHA_256_PLUS.as_bytes() && self.end_point.is_some() => true,
            _ => return Err(ScramError::UnknownMechanism),
        };
        let first = ClientFirst::parse(message)?;
        let binding = match (first.flag, plus) {
            (Flag::Bound, true) => self.end_point.as_deref().unwrap_or_default(),
            (Flag::Bound, false) | (Flag::Unable | Flag::Able, true) => {
                return Err(ScramError::Malformed("The channel binding flag does not fit the mechanism."));
            }
            (Flag::Able, false) if self.end_point.is_some() => return Err(ScramError::Downgraded),
            (Flag::Unable | Flag::Able, false) => &[],
        };
        let server_first = server_first(first.nonce, nonce, &self.verifier.salt, self.verifier.iterations);
        let challenge = Challenge {
            binding: [first.header.as_bytes(), binding].concat(),
            nonce: format!("{}{nonce}", first.nonce),
            signed_so_far: format!("{},{server_first},", first.bare),
            claim: self.claim,
            verifier: self.verifier,
        };
        Ok((challenge, server_first))
    }
}

/// A login by SCRAM that waits for the client's proof.
pub struct Challenge {
    claim: Result<Identity, Refusal>,
    verifier: Verifier,
    /// gs2-header and channel binding data, as the client must repeat them.
    binding: Vec<u8>,
    nonce: String,
    /// The `AuthMessage` without the client's last message.
    signed_so_far: String,
}

impl Challenge {
    /// Takes the client-final message and gives the proved identity and the server-final message.
    ///
    /// # Errors
    /// If the message is malformed, belongs to another exchange or channel, or proves nothing.
    pub fn finish(self, message: &[u8]) -> Result<(Authenticated, String), ScramError> {
        let last = ClientFinal::parse(message)?;
        if last.nonce != self.nonce {
            return Err(ScramError::Malformed("The nonce is not the one of this exchange."));
        }
        if !bool::from(last.binding.ct_eq(&self.binding)) {
            return Err(ScramError::ChannelMismatch);
        }
        let signed = [self.signed_so_far.as_bytes(), last.without_proof.as_bytes()];
        let signature = hmac_sha256(&self.verifier.stored_key, &signed);
        let mut client_key = last.proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let proved = sha256(&client_key).ct_eq(&self.verifier.stored_key);
        let server_signature = STANDARD.encode(hmac_sha256(&self.verifier.server_key, &signed));
        let identity = self.claim.map_err(ScramError::Refused)?;
        if !bool::from(proved) {
            return Err(ScramError::Refused(Refusal::WrongPassword));
        }
        Ok((identity.proved(), format!("v={server_signature}")))
    }
}

/// What the client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// `n`: it cannot.
    Unable,
    /// `y`: it could, but thinks that we cannot.
    Able,
    /// `p=tls-server-end-point`: it does.
    Bound,
}

/// `n,,n=user,r=nonce`
struct ClientFirst<'a> {
    flag: Flag,
    header: &'a str,
    bare: &'a str,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        let (flag_text, rest) = message.split_once(',').ok_or(NO_FLAG)?;
        let flag = match flag_text {
            "n" => Flag::Unable,
            "y" => Flag::Able,
            "p=tls-server-end-point" => Flag::Bound,
            other if other.starts_with("p=") => {
                return Err(ScramError::Unsupported("this channel binding type"));
            }
            _ => return Err(NO_FLAG),
        };
        let (authzid, bare) = rest.split_once(',').ok_or(NO_FLAG)?;
        if authzid.starts_with("a=") {
            return Err(ScramError::Unsupported("an authorization identity"));
        }
        if !authzid.is_empty() {
            return Err(ScramError::Malformed("The authorization identity is not one."));
        }
        let header = message.get(..message.len().saturating_sub(bare.len())).unwrap_or_default();
        if bare.starts_with("m=") {
            return Err(ScramError::Unsupported("a mandatory extension"));
        }
        let mut attributes = bare.split(',');
        // PostgreSQL ignores this name too: the one of the startup packet counts.
        let has_user = attributes.next().is_some_and(|attribute| attribute.starts_with("n="));
        let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r="));
        match nonce {
            Some(nonce) if has_user && is_nonce(nonce) && attributes.all(is_extension) => {
                Ok(Self { flag, header, bare, nonce })
            }
            _ => Err(ScramError::Malformed("A user name and a nonce were expected.")),
        }
    }
}

/// `c=binding,r=nonce,p=proof`
struct ClientFinal<'a> {
    binding: Vec<u8>,
    nonce: &'a str,
    proof: [u8; KEY_BYTES],
    without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(NO_PROOF)?;
        let proof = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(NO_PROOF)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|attribute| attribute.strip_prefix("c=")).ok_or(NO_PROOF)?;
        let binding = STANDARD.decode(binding).map_err(|_| NO_PROOF)?;
        let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r=")).ok_or(NO_PROOF)?;
        if !attributes.all(is_extension) {
            return Err(NO_PROOF);
        }
        Ok(Self { binding, nonce, proof, without_proof })
    }
}

fn server_first(client_nonce: &str, nonce: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    debug_assert!(is_nonce(nonce), "our own nonce is printable");
    format!("r={client_nonce}{nonce},s={},i={iterations}", STANDARD.encode(salt))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(ScramError::Malformed("The message is not text.")),
    }
}

/// `printable` of the RFC: any visible ASCII character but the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21..=0x2b | 0x2d..=0x7e))
}

/// An optional extension, which is ignored.
fn is_extension(attribute: &str) -> bool {
    matches!(attribute.as_bytes(), [letter, b'=', ..] if letter.is_ascii_alphabetic())
}

const NO_FLAG: ScramError = ScramError::Malformed("A channel binding flag was expected.");
const NO_PROOF: ScramError = ScramError::Malformed("Channel binding, nonce and proof were expected.");

#[cfg(test)]
mod tests;
