//! The shape of a SCRAM verifier, as PostgreSQL stores it.
//!
//! Owns the check that a configured verifier is well formed, with a message for the usual mistakes. Must not
//! compute anything with it: that is `auth`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Checks `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; returns the iterations.
///
/// # Errors
/// What is wrong, without a part of the verifier in the text.
pub(super) fn check_verifier(text: &str) -> Result<u32, &'static str> {
    let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") else { return Err(not_scram(text)) };
    let (head, keys) = rest.split_once('$').ok_or("the verifier has no `$` between salt and keys")?;
    let (iterations, salt) =
        head.split_once(':').ok_or("the verifier has no `:` between iterations and salt")?;
    let (stored, server) = keys.split_once(':').ok_or("the verifier has no `:` between its two keys")?;
    let iterations = iterations
        .parse()
        .ok()
        .filter(|count| *count > 0)
        .ok_or("the verifier's iterations are not a number above 0")?;
    match STANDARD.decode(salt) {
        Ok(salt) if !salt.is_empty() => {}
        _ => return Err("the verifier's salt is not base64"),
    }
    for key in [stored, server] {
        match STANDARD.decode(key) {
            Ok(key) if key.len() == KEY_BYTES => {}
            Ok(_) => return Err("a key of the verifier is not 32 bytes long: was the line cut?"),
            Err(_) => return Err("a key of the verifier is not base64: was the line cut?"),
        }
    }
    Ok(iterations)
}

/// The likely mistake behind a text that is no SCRAM verifier at all.
fn not_scram(text: &str) -> &'static str {
    let md5 = text.strip_prefix("md5").is_some_and(|hash| hash.len() == 32);
    match text {
        _ if md5 => "this is an MD5 hash; Tenantry takes SCRAM-SHA-256 verifiers only",
        _ if text.starts_with("SCRAM-SHA-256") => {
            "after `SCRAM-SHA-256` comes a `$`: was it lost to the shell?"
        }
        _ => "this is not a SCRAM verifier: it starts with `SCRAM-SHA-256$`",
    }
}

/// Output of SHA-256.
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_accepted_and_each_damage_is_named() {
        let key = "q7vi0kbP3UO0MXtT9CvUDY3eJRWgvFT9SmBk3jTBz9s=";
        let good = format!("SCRAM-SHA-256$4096:c2FsdHNhbHQ=${key}:{key}");
        assert_eq!(check_verifier(&good), Ok(4096));
        for (bad, part) in [
            ("secret".to_owned(), "starts with"),
            ("md5d41d8cd98f00b204e9800998ecf8427e".to_owned(), "MD5"),
            ("SCRAM-SHA-2564096:".to_owned(), "shell"),
            (good.replace("4096", "0"), "iterations"),
            (good.replace("c2FsdHNhbHQ=", "***"), "salt"),
            (good.replace("z9s=", ""), "cut"),
            (format!("SCRAM-SHA-256$4096:c2FsdHNhbHQ=${key}"), "two keys"),
        ] {
            let error = check_verifier(&bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }
}
