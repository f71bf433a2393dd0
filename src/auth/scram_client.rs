//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as the client (RFC 5802, RFC 7677): how the proxy proves itself to Postgres.
//!
//! Owns the exchange as a chain of values, each consumed by the next step, so that no step can be left out:
//!
//! ```text
//! choose() ─► ScramClient ──server-first──► Challenge ──answer(keys)──► Outcome ──server-final──► Proven
//! ```
//!
//! The costly part, PBKDF2, is apart from it ([`SaltedKeys::derive`]): it depends on the password, the salt and the
//! iteration count only, so one derivation serves all logins of a tenant. Must not know sockets, nor make nonces.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::verifier::{KEY_BYTES, hmac_sha256, salted_password, sha256};

/// Without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// With channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Rounds of PBKDF2 the proxy is willing to do for a server: about a second of CPU. PostgreSQL's default is 4,096.
pub const ITERATIONS_MAX: u32 = 5_000_000;

/// Random bytes that go into a nonce, as in libpq.
pub const NONCE_BYTES: usize = 18;

/// Whether the exchange is to be bound to the TLS channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingPolicy {
    /// Never.
    Never,
    /// If the server offers it.
    Prefer,
    /// Always: a server that does not offer it is refused.
    Require,
}

/// What the exchange is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Nothing; we could not do it (`n`).
    None,
    /// Nothing; we could, but the server did not offer it (`y`). A server that did notices the man in the middle.
    NotOffered,
    /// `tls-server-end-point` (`p`), with the hash of the server's certificate.
    EndPoint(Vec<u8>),
}

/// Why the exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// No mechanism that we speak.
    #[error("the server offers no SCRAM-SHA-256 mechanism")]
    NoMechanism,
    /// Channel binding is required and cannot be had.
    #[error("channel binding is required, and the server or the connection cannot do it")]
    BindingRequired,
    /// A message has not the form it must have.
    #[error("malformed SCRAM message from the server")]
    Malformed,
    /// The nonce is not ours with something added.
    #[error("the server's nonce does not continue ours")]
    Nonce,
    /// The iteration count is zero or beyond [`ITERATIONS_MAX`].
    #[error("the server's SCRAM iteration count is out of range")]
    Iterations,
    /// The server says no.
    #[error("the server refuses the exchange")]
    Refused,
    /// The server does not know the password's verifier: it is not the server we want.
    #[error("the server's signature is wrong")]
    Signature,
}

/// The keys of one password, salt and iteration count. Wiped when dropped; `Debug` prints nothing.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SaltedKeys {
    client: [u8; KEY_BYTES],
    stored: [u8; KEY_BYTES],
    server: [u8; KEY_BYTES],
}

impl std::fmt::Debug for SaltedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SaltedKeys(..)")
    }
}

impl SaltedKeys {
    /// Derives the keys by PBKDF2: about a millisecond of CPU for 4,096 iterations, so not for a thread that relays.
    #[must_use]
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = salted_password(password, salt, iterations);
        let client = hmac_sha256(&salted, &[b"Client Key"]);
        let server = hmac_sha256(&salted, &[b"Server Key"]);
        salted.zeroize();
        Self { client, stored: sha256(&client), server }
    }
}

/// Decides on the mechanism: with channel binding if the server offers it and the connection has `end_point`.
///
/// # Errors
/// If there is no mechanism in common, or none with the binding that `policy` requires.
pub fn choose<'a>(
    offered: impl IntoIterator<Item = &'a [u8]>,
    end_point: Option<Vec<u8>>,
    policy: BindingPolicy,
) -> Result<Binding, ScramError> {
    let (mut plain, mut plus) = (false, false);
    for name in offered {
        plain |= name == SCRAM_SHA_256.as_bytes();
        plus |= name == SCRAM_SHA_256_PLUS.as_bytes();
    }
    match (policy, end_point) {
        (BindingPolicy::Prefer | BindingPolicy::Require, Some(end_point)) if plus => {
            Ok(Binding::EndPoint(end_point))
        }
        (BindingPolicy::Require, _) => Err(ScramError::BindingRequired),
        (BindingPolicy::Prefer, Some(_)) if plain => Ok(Binding::NotOffered),
        (BindingPolicy::Prefer | BindingPolicy::Never, _) if plain => Ok(Binding::None),
        (BindingPolicy::Prefer | BindingPolicy::Never, _) => Err(ScramError::NoMechanism),
    }
}

/// An exchange whose first message is ready.
#[derive(Debug)]
pub struct ScramClient {
    binding: Binding,
    nonce: String,
}

impl ScramClient {
    /// Starts an exchange. `nonce` must be fresh and random.
    #[must_use]
    pub fn new(nonce: &[u8; NONCE_BYTES], binding: Binding) -> Self {
        Self { binding, nonce: STANDARD.encode(nonce) }
    }

    /// The mechanism's name.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        match self.binding {
            Binding::EndPoint(_) => SCRAM_SHA_256_PLUS,
            Binding::None | Binding::NotOffered => SCRAM_SHA_256,
        }
    }

    /// The client-first message. The user name is empty: PostgreSQL takes the one of the startup packet.
    #[must_use]
    pub fn first_message(&self) -> String {
        format!("{}{}", self.gs2_header(), self.first_bare())
    }

    /// Reads the server-first message.
    ///
    /// # Errors
    /// If it is malformed, does not continue our nonce, or asks for too many iterations.
    pub fn challenge(self, server_first: &[u8]) -> Result<Challenge, ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut fields = text.split(',');
        let nonce = attribute(fields.next(), "r=")?;
        let salt = STANDARD.decode(attribute(fields.next(), "s=")?).map_err(|_| ScramError::Malformed)?;
        let iterations: u32 = attribute(fields.next(), "i=")?.parse().map_err(|_| ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let iterations = NonZeroU32::new(iterations).filter(|count| count.get() <= ITERATIONS_MAX);
        let iterations = iterations.ok_or(ScramError::Iterations)?;
        if salt.is_empty() {
            return Err(ScramError::Malformed);
        }
        let mut bound = self.gs2_header().as_bytes().to_vec();
        if let Binding::EndPoint(data) = &self.binding {
            bound.extend_from_slice(data);
        }
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let signed = format!("{},{text},{without_proof}", self.first_bare());
        Ok(Challenge { salt, iterations, without_proof, signed })
    }

    const fn gs2_header(&self) -> &'static str {
        match self.binding {
            Binding::None => "n,,",
            Binding::NotOffered => "y,,",
            Binding::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }
}

/// What the server wants to see proven, and with which salt and iteration count.
#[derive(Debug)]
pub struct Challenge {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    without_proof: String,
    signed: String,
}

impl Challenge {
    /// The salt of the server's verifier.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iteration count of the server's verifier.
    #[must_use]
    pub const fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// The client-final message; `keys` must be derived with this challenge's salt and iteration count.
    #[must_use]
    pub fn answer(self, keys: &SaltedKeys) -> (String, Outcome) {
        let signed = self.signed.as_bytes();
        let mut proof = hmac_sha256(&keys.stored, &[signed]);
        for (byte, key) in proof.iter_mut().zip(keys.client) {
            *byte ^= key;
        }
        let message = format!("{},p={}", self.without_proof, STANDARD.encode(proof));
        (message, Outcome { expected: hmac_sha256(&keys.server, &[signed]) })
    }
}

/// The signature that only a server which knows the password's verifier can send.
#[derive(Debug)]
pub struct Outcome {
    expected: [u8; KEY_BYTES],
}

/// The server has proven that it knows the password's verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven(());

impl Outcome {
    /// Reads the server-final message.
    ///
    /// # Errors
    /// If the server refuses, or its signature is wrong.
    pub fn verify(self, server_final: &[u8]) -> Result<Proven, ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed)?;
        let first = text.split(',').next();
        if first.is_some_and(|field| field.starts_with("e=")) {
            return Err(ScramError::Refused);
        }
        let signature = STANDARD.decode(attribute(first, "v=")?).map_err(|_| ScramError::Malformed)?;
        if bool::from(signature.ct_eq(&self.expected)) { Ok(Proven(())) } else { Err(ScramError::Signature) }
    }
}

/// The value of a field that must be there. An extension in front of the nonce (`m=`) ends here too: we know none.
fn attribute<'a>(field: Option<&'a str>, prefix: &str) -> Result<&'a str, ScramError> {
    field.and_then(|field| field.strip_prefix(prefix)).ok_or(ScramError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7677 §3 (with the user name left out, so signatures differ from the text there).
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn client(binding: Binding) -> ScramClient {
        ScramClient { nonce: NONCE.to_owned(), binding }
    }

    fn keys(challenge: &Challenge) -> SaltedKeys {
        SaltedKeys::derive("pencil", challenge.salt(), challenge.iterations())
    }

    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        // The RFC signs "n=user,...": the same keys must give its proof and its server signature.
        let signed = format!(
            "n=user,r={NONCE},{SERVER_FIRST},c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        );
        let challenge = client(Binding::None).challenge(SERVER_FIRST.as_bytes()).unwrap();
        let keys = keys(&challenge);
        let (message, outcome) = Challenge { signed, ..challenge }.answer(&keys);
        assert!(message.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{message}");
        outcome.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    }

    #[test]
    fn a_wrong_server_signature_is_found() {
        let challenge = client(Binding::None).challenge(SERVER_FIRST.as_bytes()).unwrap();
        let keys = keys(&challenge);
        let outcome = || {
            let challenge = client(Binding::None).challenge(SERVER_FIRST.as_bytes()).unwrap();
            challenge.answer(&keys).1
        };
        let wrong = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(outcome().verify(wrong), Err(ScramError::Signature));
        assert_eq!(outcome().verify(b"v="), Err(ScramError::Signature));
        assert_eq!(outcome().verify(b"v=%"), Err(ScramError::Malformed));
        assert_eq!(outcome().verify(b""), Err(ScramError::Malformed));
        assert_eq!(outcome().verify(b"e=invalid-proof"), Err(ScramError::Refused));
        assert_eq!(outcome().verify(&[0xff]), Err(ScramError::Malformed));
    }

    #[test]
    fn the_mechanism_follows_offer_channel_and_policy() {
        use BindingPolicy::{Never, Prefer, Require};
        let (plain, plus) = (SCRAM_SHA_256.as_bytes(), SCRAM_SHA_256_PLUS.as_bytes());
        let bound = || Ok(Binding::EndPoint(vec![1]));
        type Case<'a> = (&'a [&'a [u8]], bool, BindingPolicy, Result<Binding, ScramError>);
        let cases: [Case<'_>; 11] = [
            (&[plus, plain], true, Prefer, bound()),
            (&[plus, plain], true, Require, bound()),
            (&[plus], true, Prefer, bound()),
            (&[plus, plain], true, Never, Ok(Binding::None)),
            (&[plus, plain], false, Prefer, Ok(Binding::None)),
            (&[plain], true, Prefer, Ok(Binding::NotOffered)),
            (&[plain], false, Prefer, Ok(Binding::None)),
            (&[plain], true, Require, Err(ScramError::BindingRequired)),
            (&[plus, plain], false, Require, Err(ScramError::BindingRequired)),
            (&[plus], false, Prefer, Err(ScramError::NoMechanism)),
            (&[b"OAUTHBEARER"], true, Prefer, Err(ScramError::NoMechanism)),
        ];
        for (offered, channel, policy, expected) in cases {
            let chosen = choose(offered.iter().copied(), channel.then(|| vec![1]), policy);
            assert_eq!(chosen, expected, "{offered:?} {channel} {policy:?}");
        }
    }

    #[test]
    fn the_binding_is_in_the_first_and_in_the_final_message() {
        let bound = client(Binding::EndPoint(b"hash".to_vec()));
        assert_eq!(bound.mechanism(), SCRAM_SHA_256_PLUS);
        assert_eq!(bound.first_message(), format!("p=tls-server-end-point,,n=,r={NONCE}"));
        let challenge = bound.challenge(SERVER_FIRST.as_bytes()).unwrap();
        let expected = STANDARD.encode(b"p=tls-server-end-point,,hash");
        assert!(challenge.without_proof.starts_with(&format!("c={expected},r=")));
        assert!(client(Binding::NotOffered).first_message().starts_with("y,,n=,r="));
    }

    #[test]
    fn bad_challenges_are_refused_for_what_they_are() {
        let with = |text: &str| client(Binding::None).challenge(text.as_bytes()).map(|_| ());
        let nonce = format!("{NONCE}x");
        assert_eq!(with(&format!("r={nonce},s=AA==,i=1")), Ok(()));
        assert_eq!(with(&format!("r={NONCE},s=AA==,i=1")), Err(ScramError::Nonce));
        assert_eq!(with("r=other,s=AA==,i=1"), Err(ScramError::Nonce));
        assert_eq!(with(&format!("r={nonce},s=AA==,i=0")), Err(ScramError::Iterations));
        assert_eq!(with(&format!("r={nonce},s=AA==,i=4000000000")), Err(ScramError::Iterations));
        for bad in ["", "r=", "m=x,r=y", &format!("r={nonce},s=%,i=1"), &format!("r={nonce},s=,i=1")] {
            assert!(with(bad).is_err(), "{bad}");
        }
        assert_eq!(with(&format!("m=ext,r={nonce},s=AA==,i=1")), Err(ScramError::Malformed));
        assert_eq!(with(&format!("r={nonce},s=AA==,i=-1")), Err(ScramError::Malformed));
        assert_eq!(with(&format!("r={nonce},s=AA==")), Err(ScramError::Malformed));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let keys = SaltedKeys::derive("pencil", b"salt", NonZeroU32::MIN);
        assert_eq!(format!("{keys:?}"), "SaltedKeys(..)");
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = client(Binding::None).challenge(&bytes);
            let outcome = Outcome { expected: [7; KEY_BYTES] };
            prop_assert!(outcome.verify(&bytes).is_err());
        }

        #[test]
        fn any_well_formed_challenge_is_understood(
            more in "[!-+\\--~]{1,40}", salt in prop::collection::vec(any::<u8>(), 1..40), count in 1..ITERATIONS_MAX,
        ) {
            let text = format!("r={NONCE}{more},s={},i={count}", STANDARD.encode(&salt));
            let challenge = client(Binding::None).challenge(text.as_bytes()).unwrap();
            prop_assert_eq!(challenge.salt(), &salt[..]);
            prop_assert_eq!(challenge.iterations().get(), count);
        }
    }
}
