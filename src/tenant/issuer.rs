//! Who issues tokens that prove a login, and the keys that its signatures are checked with.
//!
//! Owns the keys, read from a JWKS (RFC 7517) or PEM text, and what a token must say. Only signatures of key pairs count: a
//! shared secret would let everybody who checks tokens make them. Must not read files, nor a clock.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
pub use jsonwebtoken::{Algorithm, DecodingKey};

/// An issuer of tokens (JWT, RFC 7519), and what its tokens must say.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The claim `iss`.
    pub name: Arc<str>,
    /// The claim `aud` must name one of these.
    pub audiences: Vec<Arc<str>>,
    /// The claim `scope` must name all of these.
    pub scopes: Vec<Arc<str>>,
    /// Algorithms accepted.
    pub algorithms: Vec<Algorithm>,
    /// Its public keys.
    pub keys: KeySet,
    /// The claim that names the tenant.
    pub tenant_claim: Arc<str>,
    /// The claim that names the user.
    pub user_claim: Arc<str>,
    /// How far its clock may be from ours, in seconds.
    pub leeway_s: u64,
    /// How a client without a wish is asked for its token.
    pub token_as: TokenAs,
    /// A session ends when the token that opened it is good for no other.
    pub ends_sessions: bool,
}

impl Issuer {
    /// Where clients find out how to get a token (OpenID Connect Discovery).
    #[must_use]
    pub fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.name.trim_end_matches('/'))
    }
}

/// How a client hands its token over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAs {
    /// By the SASL mechanism OAUTHBEARER (libpq 18 and later).
    OauthBearer,
    /// As a password.
    Password,
}

/// Public keys of one issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

/// One public key.
#[derive(Clone)]
pub struct Key {
    /// Its name, which a token repeats in its header.
    id: Option<String>,
    /// What it may be used for.
    algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithms)
    }
}

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is not what it looks like.
    #[error("{0}")]
    Unreadable(String),
    /// It holds what nobody but the issuer may have.
    #[error("it holds a private or secret key, which only the issuer may have")]
    Secret,
    /// No key in it fits an algorithm that is accepted.
    #[error("it holds no key for the algorithms accepted")]
    None,
}

impl KeySet {
    /// Reads a JWKS, or public keys in PEM, and keeps what fits these algorithms.
    ///
    /// # Errors
    /// If the text is neither, holds a private key, or nothing of use.
    pub fn parse(text: &str, algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let keys = if text.contains("-----BEGIN ") { pem_keys(text)? } else { jwks_keys(text)? };
        let usable = keys.into_iter().filter_map(|mut key| {
            key.algorithms.retain(|algorithm| algorithms.contains(algorithm));
            (!key.algorithms.is_empty()).then_some(key)
        });
        let usable: Vec<_> = usable.take(KEYS_MAX).collect();
        if usable.is_empty() { Err(KeysError::None) } else { Ok(Self(usable)) }
    }

    /// The keys that a token of this algorithm may be signed with. A key that has a name is meant by that name only.
    pub fn fitting<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let named = move |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        self.0.iter().filter(move |key| key.algorithms.contains(&algorithm)).filter(named).map(|key| &key.key)
    }
}

fn jwks_keys(text: &str) -> Result<Vec<Key>, KeysError> {
    let unreadable = |why: serde_json::Error| KeysError::Unreadable(format!("it is not a JWKS: {why}"));
    let value: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
    let listed = value.get("keys").and_then(serde_json::Value::as_array).into_iter().flatten();
    // `d` is the private part of every kind of key, `k` is a shared secret.
    if listed.into_iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
        return Err(KeysError::Secret);
    }
    let set: JwkSet = serde_json::from_value(value).map_err(unreadable)?;
    set.keys.iter().filter_map(|jwk| jwk_key(jwk).transpose()).collect()
}

/// `None` for a key that is for something else, or of a kind we do not know: an issuer may have more keys than we need.
fn jwk_key(jwk: &Jwk) -> Result<Option<Key>, KeysError> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return Ok(None);
    }
    let kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &RSA,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            &[Algorithm::ES256]
        }
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => {
            &[Algorithm::ES384]
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return Ok(None),
    };
    let own = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    let fits = |algorithm: &&Algorithm| own.as_ref().is_none_or(|own| own.parse() == Ok(**algorithm));
    let id = jwk.common.key_id.clone();
    let key = DecodingKey::from_jwk(jwk).map_err(|why| {
        KeysError::Unreadable(format!(
            "its key `{}` cannot be read: {why}",
            id.as_deref().unwrap_or_default()
        ))
    })?;
    Ok(Some(Key { id, algorithms: kind.iter().filter(fits).copied().collect(), key }))
}

fn pem_keys(text: &str) -> Result<Vec<Key>, KeysError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeysError::Secret);
    }
    let blocks = text.split_inclusive("-----END").filter(|block| block.contains("-----BEGIN "));
    blocks
        .map(|block| {
            let block = block.trim_end_matches("-----END");
            let start = block.find("-----BEGIN ").and_then(|at| block.get(at..)).unwrap_or_default();
            let label =
                start.get(11..).and_then(|rest| rest.split_once("-----")).map_or("", |(label, _)| label);
            pem_key(&format!("{start}-----END {label}-----\n"), label)
        })
        .collect()
}

fn pem_key(block: &str, label: &str) -> Result<Key, KeysError> {
    let key = |algorithms: &[Algorithm], key| Key { id: None, algorithms: algorithms.to_vec(), key };
    if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
        let why =
            format!("`{label}` is not a public key; `openssl x509 -pubkey` takes it out of a certificate");
        return Err(KeysError::Unreadable(why));
    }
    if let Ok(rsa) = DecodingKey::from_rsa_pem(block.as_bytes()) {
        return Ok(key(&RSA, rsa));
    }
    if let Ok(ed) = DecodingKey::from_ed_pem(block.as_bytes()) {
        return Ok(key(&[Algorithm::EdDSA], ed));
    }
    let ec = DecodingKey::from_ec_pem(block.as_bytes()).ok();
    let point = ec.as_ref().and_then(|ec| ec.try_get_as_bytes().ok()).map_or(0, <[u8]>::len);
    match (ec, point) {
        (Some(ec), P256_POINT_BYTES) => Ok(key(&[Algorithm::ES256], ec)),
        (Some(ec), P384_POINT_BYTES) => Ok(key(&[Algorithm::ES384], ec)),
        _ => Err(KeysError::Unreadable("a public key in it is not RSA, P-256, P-384 or Ed25519".to_owned())),
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// An uncompressed point: a byte and two coordinates.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// A token without a key's name is tried with each of them; issuers have two or three.
const KEYS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    /// The public keys of RFC 8037 A.2 and RFC 7517 A.1.
    const ED: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"1","use":"sig",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    fn set(keys: &[&str]) -> String {
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    #[test]
    fn keys_are_found_by_algorithm_and_name() {
        let keys = KeySet::parse(&set(&[ED, EC]), &ALL).unwrap();
        let count = |algorithm, id| keys.fitting(algorithm, id).count();
        assert_eq!((count(Algorithm::EdDSA, Some("ed")), count(Algorithm::EdDSA, None)), (1, 1));
        assert_eq!((count(Algorithm::EdDSA, Some("1")), count(Algorithm::ES256, Some("1"))), (0, 1));
        assert_eq!(count(Algorithm::HS256, Some("ed")), 0);
        let only_ed = KeySet::parse(&set(&[ED, EC]), &[Algorithm::EdDSA]).unwrap();
        assert_eq!(only_ed.fitting(Algorithm::ES256, Some("1")).count(), 0, "ES256 is not accepted");
    }

    #[test]
    fn what_is_of_no_use_is_passed_over_or_named() {
        let encryption = EC.replace("\"sig\"", "\"enc\"");
        let unknown = r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#;
        assert_eq!(KeySet::parse(&set(&[&encryption, unknown, ED]), &ALL).unwrap().0.len(), 1);
        assert_eq!(KeySet::parse(&set(&[&encryption, unknown]), &ALL).unwrap_err(), KeysError::None);
        assert_eq!(KeySet::parse(&set(&[]), &ALL).unwrap_err(), KeysError::None);
        assert_eq!(KeySet::parse(&set(&[ED]), &[Algorithm::RS256]).unwrap_err(), KeysError::None);
        let private = ED.replace("\"x\"", "\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\",\"x\"");
        assert_eq!(KeySet::parse(&set(&[&private]), &ALL).unwrap_err(), KeysError::Secret);
        let shared = r#"{"kty":"oct","k":"AAAA"}"#;
        assert_eq!(KeySet::parse(&set(&[ED, shared]), &ALL).unwrap_err(), KeysError::Secret);
        for (text, part) in [
            ("", "not a JWKS"),
            ("{}", "`keys`"),
            ("{\"keys\":[{}", "line 1"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "private"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "openssl x509"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "not RSA"),
        ] {
            let error = KeySet::parse(text, &ALL).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn public_keys_in_pem_are_read_one_after_another() {
        // The same key as in `ED`, and one of P-256.
        let ed = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
            -----END PUBLIC KEY-----\n";
        let keys = KeySet::parse(&format!("# old\n{ed}\n# new\n{ed}"), &ALL).unwrap();
        assert_eq!(
            keys.fitting(Algorithm::EdDSA, Some("any")).count(),
            2,
            "a key without a name fits every one"
        );
    }
}
