//! Login by token: what the SASL mechanism OAUTHBEARER carries (RFC 7628), and what a token proves (RFC 7519).
//!
//! Owns the rule that a token is checked in full whoever the client claims to be, so that an unknown user costs and shows
//! the same as a bad token. Must not know sockets, nor read a clock: `now` is an argument.
//!
//! | check | refused as |
//! |---|---|
//! | three parts, a header and claims in JSON, no `crit` | `token_malformed` |
//! | `alg` is one that is accepted: never `none` nor a shared secret | `token_algorithm` |
//! | a key fits, and the signature is right | `token_key`, `token_signature` |
//! | `iss`, `aud`, `scope` | `token_issuer`, `token_audience`, `token_scope` |
//! | `exp` (must be there) and `nbf`, within the leeway | `token_expired`, `token_not_yet_valid` |
//! | the tenant's and the user's claim | `token_of_another_tenant`, `token_of_another_user` |

use std::time::Duration;

use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::identity::{Authenticated, Identity};
use super::refusal::Refusal;
use crate::tenant::issuer::Issuer;

/// The mechanism.
pub const OAUTHBEARER: &str = "OAUTHBEARER";

/// Bytes of a message with a token at most. Tokens have one to four kilobytes; some name every group of a user.
pub const TOKEN_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The client's answer to the challenge after a failure (RFC 7628 §3.2.3).
pub const FAILURE_ACKNOWLEDGED: &[u8] = b"\x01";

/// Reads a client's first message: its token, or `None` if it wants to know where to get one.
///
/// # Errors
/// What is wrong with the message.
pub fn parse_initial(message: &[u8]) -> Result<Option<&str>, &'static str> {
    let text = std::str::from_utf8(message).map_err(|_| "The message is not ASCII.")?;
    let rest = match text.split_once('\x01') {
        Some(("n,," | "y,,", rest)) => rest,
        Some((header, _)) if header.starts_with('p') => {
            return Err("Channel binding is not possible with OAUTHBEARER.");
        }
        Some((header, _)) if header.contains("a=") => {
            return Err("An authorization identity is not supported.");
        }
        Some(_) | None => return Err("The message does not begin with a GS2 header."),
    };
    let pairs = rest.strip_suffix("\x01\x01").ok_or("The message does not end as it must.")?;
    let mut found = None;
    for pair in pairs.split('\x01') {
        let (key, value) = pair.split_once('=').ok_or("A part of the message is not a key and a value.")?;
        if key == "auth" && found.replace(value).is_some() {
            return Err("The message holds two tokens.");
        }
    }
    let value = found.ok_or("The message holds no token.")?;
    if value.is_empty() {
        return Ok(None);
    }
    let (scheme, token) = value.split_once(' ').ok_or("The token has no scheme.")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("The token is not a bearer token.");
    }
    Ok(Some(token.trim_start_matches(' ')))
}

/// The challenge after a failure, which tells the client where to get a token.
#[must_use]
pub fn failure_challenge(issuer: &Issuer) -> String {
    let mut words = Map::new();
    words.insert("status".to_owned(), "invalid_token".into());
    words.insert("openid-configuration".to_owned(), issuer.discovery_url().into());
    if !issuer.scopes.is_empty() {
        words.insert("scope".to_owned(), issuer.scopes.join(" ").into());
    }
    Value::Object(words).to_string()
}

/// Checks a claim by a token. `now` is in seconds since 1970.
///
/// # Errors
/// If the token does not prove the claim. Whoever may not log in at all is refused for that, with any token.
pub fn prove(
    claim: Result<Identity, Refusal>,
    issuer: &Issuer,
    token: &str,
    now: u64,
) -> Result<Authenticated, Refusal> {
    let claims = check(issuer, token, now);
    let identity = claim?;
    let Some(subject) = identity.auth().token_subject() else { return Err(Refusal::NoTokenUser) };
    let claims = claims?;
    if text(&claims, &issuer.tenant_claim) != Some(identity.tenant_name()) {
        return Err(Refusal::TokenOfAnotherTenant);
    }
    if text(&claims, &issuer.user_claim) != Some(subject) {
        return Err(Refusal::TokenOfAnotherUser);
    }
    // It is there and lies ahead, or the token were refused.
    let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
    let left = (expires + seconds(issuer.leeway_s) - seconds(now)).clamp(0.0, LONGEST_S);
    Ok(identity.proved().lasting(Duration::from_secs_f64(left)))
}

/// The claims of a token that the issuer has signed, for us, and that is valid now.
fn check(issuer: &Issuer, token: &str, now: u64) -> Result<Map<String, Value>, Refusal> {
    let claims = signed_claims(issuer, token)?;
    if text(&claims, "iss") != Some(&*issuer.name) {
        return Err(Refusal::TokenIssuer);
    }
    let is_ours = |audience: &str| issuer.audiences.iter().any(|ours| **ours == *audience);
    let for_us = match claims.get("aud") {
        Some(Value::String(audience)) => is_ours(audience),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).any(is_ours),
        _ => false,
    };
    if !for_us {
        return Err(Refusal::TokenAudience);
    }
    let granted = text(&claims, "scope").unwrap_or_default();
    if !issuer.scopes.iter().all(|scope| granted.split(' ').any(|granted| *granted == **scope)) {
        return Err(Refusal::TokenScope);
    }
    let (now, leeway) = (seconds(now), seconds(issuer.leeway_s));
    // NumericDate may have a fraction (RFC 7519 §2).
    match claims.get("exp").map(Value::as_f64) {
        Some(Some(expires)) if now < expires + leeway => {}
        Some(Some(_)) => return Err(Refusal::TokenExpired),
        Some(None) | None => return Err(Refusal::TokenMalformed),
    }
    match claims.get("nbf").map(Value::as_f64) {
        None => Ok(claims),
        Some(Some(begins)) if begins <= now + leeway => Ok(claims),
        Some(Some(_)) => Err(Refusal::TokenNotYetValid),
        Some(None) => Err(Refusal::TokenMalformed),
    }
}

/// The claims of a token whose signature is right, whatever they say.
fn signed_claims(issuer: &Issuer, token: &str) -> Result<Map<String, Value>, Refusal> {
    // A header with an algorithm that the library does not know, `none` among them, cannot be read.
    let header = decode_header(token).map_err(|_| Refusal::TokenMalformed)?;
    // An extension that must be understood (RFC 7515 §4.1.11): we understand none.
    if header.crit.is_some() {
        return Err(Refusal::TokenMalformed);
    }
    if !issuer.algorithms.contains(&header.alg) {
        return Err(Refusal::TokenAlgorithm);
    }
    // The signature only: the library would read a clock, and does not ask for claims that are not there.
    let mut signature_only = Validation::new(header.alg);
    signature_only.required_spec_claims.clear();
    (signature_only.validate_exp, signature_only.validate_aud) = (false, false);
    let mut keys = issuer.keys.fitting(header.alg, header.kid.as_deref()).peekable();
    if keys.peek().is_none() {
        return Err(Refusal::TokenKey);
    }
    keys.find_map(|key| decode::<Map<String, Value>>(token, key, &signature_only).ok())
        .map(|token| token.claims)
        .ok_or(Refusal::TokenSignature)
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A token that is good for longer is good for ever.
const LONGEST_S: f64 = 100.0 * 365.0 * 86_400.0;

/// Exact for 285 million years.
const fn seconds(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
